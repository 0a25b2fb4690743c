"""The ledger: the positions of every account, and what fills and assignments do to them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from math import copysign

from ib_gateway_simulator.books.book import Account, Book
from ib_gateway_simulator.errors import ActionError
from ib_gateway_simulator.protocol.contract import Contract, SecType

# What a broker charges for one contract or share, unless a booking says otherwise.
COMMISSION = 0.65

# What is booked without a trade, as an expiry.
FREE = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """One position; `average_cost` is per contract and includes the multiplier and commissions.

    `realized` is net of the commissions of both sides. It is None until the position trades today.
    A quantity of 0 is a position that was closed today: it stays in the lists until the nightly
    reset.
    """

    account: str
    contract: Contract
    quantity: float
    average_cost: float
    realized: float | None = None
    # The quantity held at the previous close, for the daily profit.
    overnight: float = 0.0
    # The money that today's trades brought in (above 0) or cost (below 0), without commissions: the
    # broker's profit of the day leaves them out.
    cash_today: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Valuation:
    """The value of a position, in the major unit of its currency."""

    price: float
    value: float
    unrealized: float
    daily: float


class Ledger:
    """Keeps the holdings; prices come from `price_of(conid)`, in the major unit.

    What the book names no cost of has cost `cost_of(conid)`; without that its first price.
    """

    def __init__(
        self,
        book: Book,
        price_of: Callable[[int], float],
        cost_of: Callable[[int], float] | None = None,
    ) -> None:
        self._price_of = price_of
        self._contracts = book.contracts
        self._known = {account.name: account for account in book.accounts}
        # The accounts that the login manages.
        self.accounts: dict[str, Account] = dict(self._known)
        self.cash: dict[str, float] = {account.name: account.cash for account in book.accounts}
        # What a unit of a currency is worth in the base currency of the accounts; by default 1.
        self.exchange_rates: dict[str, float] = {}
        # The same for accounts with another base currency.
        self._rates_of: dict[str, dict[str, float]] = {}

        # The accounts whose values IB's server is about to reset: they are not ready.
        self.resetting: set[str] = set()
        self._holdings: dict[tuple[str, int], Holding] = {}
        for opening in book.openings:
            contract = book.contracts[opening.conid]
            cost = opening.average_cost
            if cost is None and cost_of is not None:
                cost = cost_of(opening.conid)
            elif cost is None:
                cost = price_of(opening.conid) * contract.multiplier

            if opening.quantity == 0:
                cost = 0.0
            self._holdings[opening.account, opening.conid] = Holding(
                account=opening.account,
                contract=contract,
                quantity=opening.quantity,
                average_cost=cost,
                overnight=opening.quantity,
                realized=None if opening.quantity else 0.0,
            )

    def holdings(self, account: str | None = None) -> list[Holding]:
        """Return the rows of one account, or of all of the login; also those closed today."""
        return [
            holding
            for holding in self._holdings.values()
            if account in (None, holding.account) and holding.account in self.accounts
        ]

    def rates_of(self, account: str) -> dict[str, float]:
        """Return what units of currencies are worth in the base currency of an account."""
        return self._rates_of.get(account, self.exchange_rates)

    def set_rate(self, currency: str, rate: float, account: str | None = None) -> None:
        """Set what a unit of a currency is worth in the base of one account, or of all."""
        if account is None:
            self.exchange_rates[currency] = rate
        else:
            self._rates_of.setdefault(account, {})[currency] = rate

    def manage(self, accounts: Collection[str]) -> None:
        """Replace the accounts that the login manages by these of the book.

        Raises:
            ActionError: There is none, or the book does not know one.
        """
        unknown = [name for name in accounts if name not in self._known]
        if unknown or not accounts:
            named = "name one or more"
            if unknown:
                named = f"the book has no account {unknown[0]!r}"

            raise ActionError("accounts", named)
        self.accounts.clear()
        self.accounts.update({name: self._known[name] for name in accounts})

    def holding(self, account: str, conid: int) -> Holding | None:
        """Return one row, or None where the account never held the contract."""
        return self._holdings.get((account, conid))

    def value(self, holding: Holding, close_price: float) -> Valuation:
        """Return the value of one holding at the current price."""
        price = self._price_of(holding.contract.conid)
        factor = holding.contract.multiplier
        value = holding.quantity * price * factor
        unrealized = value - holding.quantity * holding.average_cost
        return Valuation(
            price=price,
            value=value,
            unrealized=unrealized,
            daily=value + holding.cash_today - holding.overnight * close_price * factor,
        )

    def fill(
        self,
        account: str,
        conid: int,
        quantity: float,
        price: float | None = None,
        commission: float = COMMISSION,
    ) -> Holding:
        """Trade a signed quantity and return the new row.

        Average cost and realized profit have the commissions in them, as those of IB ("Average cost
        … including commissions", TWS Account Window).

        Args:
            account: The account that trades.
            conid: The contract.
            quantity: Above 0 buys, below 0 sells.
            price: Per unit in the major currency; without it the current price.
            commission: Of one unit, in the currency of the contract.

        Raises:
            ActionError: The account or the conid is unknown, or the quantity is 0.
        """
        self.check_change(account, conid, quantity)
        contract = self._contracts[conid]
        paid = (self._price_of(conid) if price is None else price) * contract.multiplier
        old = self._holdings.get((account, conid)) or Holding(
            account=account, contract=contract, quantity=0.0, average_cost=0.0
        )
        held = old.quantity + quantity
        realized = old.realized or 0.0
        net = paid + copysign(commission, quantity)
        if old.quantity * quantity >= 0:
            cost = (old.quantity * old.average_cost + quantity * net) / held
        else:
            closed = copysign(min(abs(quantity), abs(old.quantity)), old.quantity)
            realized += closed * (net - old.average_cost)
            flipped = held * old.quantity < 0
            cost = old.average_cost if held else 0.0
            if flipped:
                cost = net

        new = replace(
            old,
            quantity=held,
            average_cost=cost,
            realized=realized,
            cash_today=old.cash_today - quantity * paid,
        )
        self._holdings[account, conid] = new
        if contract.sec_type is not SecType.FUT:
            self.cash[account] -= quantity * paid
        self.cash[account] -= commission * abs(quantity)
        return new

    def close(self, account: str, conid: int) -> Holding:
        """Trade a position down to 0 at the current price and return its row."""
        held = self._held(account, conid)
        return self.fill(account, conid, -held.quantity)

    def assign(self, account: str, conid: int) -> list[Holding]:
        """Assign a short option: close it, and trade its underlying at the strike.

        Returns:
            The changed rows. Options on an index settle in cash, so only one row changes.

        Raises:
            ActionError: The account does not hold the contract, or it is not a short option.
        """
        held = self._held(account, conid)
        option = held.contract
        if not option.is_option or held.quantity >= 0:
            raise ActionError("conid", f"{option.local_symbol} is not a short option")
        return self._deliver(held)

    def _deliver(self, held: Holding) -> list[Holding]:
        """Close an option, and trade its underlying at the strike."""
        option = held.contract
        account = held.account
        rows = [self.fill(account, option.conid, -held.quantity, 0.0, FREE)]
        under = self._contracts[option.under_conid]
        if under.sec_type is not SecType.IND:
            units = option.multiplier / under.multiplier * held.quantity
            side = 1.0 if option.right == "C" else -1.0
            rows.append(self.fill(account, under.conid, side * units, option.strike, FREE))
        return rows

    def exercise(self, account: str, conid: int) -> list[Holding]:
        """Exercise a long option: close it, and trade its underlying at the strike.

        Returns:
            The changed rows. Options on an index settle in cash, so only one row changes.

        Raises:
            ActionError: The account does not hold the contract, or it is not a long option.
        """
        held = self._held(account, conid)
        option = held.contract
        if not option.is_option or held.quantity <= 0:
            raise ActionError("conid", f"{option.local_symbol} is not a long option")
        return self._deliver(held)

    def expire(self, account: str, conid: int, price: float = 0.0) -> Holding:
        """Close a derivative that expires, at its settlement price.

        Raises:
            ActionError: The account does not hold the contract, or it never expires.
        """
        held = self._held(account, conid)
        if not held.contract.expiry:
            raise ActionError("conid", f"{held.contract.local_symbol} does not expire")
        return self.fill(account, conid, -held.quantity, price, FREE)

    def move(self, account: str, conid: int, quantity: float, cost: float) -> Holding:
        """Add a signed quantity without a trade: a transfer, or a part of a corporate action.

        Args:
            cost: The average cost of what is added; what leaves takes its own cost with it.

        Raises:
            ActionError: The account or the conid is unknown, or the quantity is 0.
        """
        self.check_change(account, conid, quantity)
        old = self._holdings.get((account, conid)) or Holding(
            account=account, contract=self._contracts[conid], quantity=0.0, average_cost=0.0
        )
        held = old.quantity + quantity
        new_cost = cost if held else 0.0
        if abs(held) < abs(old.quantity):
            new_cost = old.average_cost

        new = replace(old, quantity=held, average_cost=new_cost)
        self._holdings[account, conid] = new
        return new

    def reset_day(self) -> None:
        """Remove the closed rows and today's realized profits, as the nightly reset does."""
        self._holdings = {
            key: replace(holding, realized=None, overnight=holding.quantity, cash_today=0.0)
            for key, holding in self._holdings.items()
            if holding.quantity
        }

    def check_change(self, account: str, conid: int, quantity: float) -> None:
        """Check the arguments of a change.

        Raises:
            ActionError: The account or the conid is unknown, or the quantity is 0.
        """
        self._check_known(account, conid)
        if quantity == 0:
            raise ActionError("quantity", "a fill of 0 contracts changes nothing")

    def _check_known(self, account: str, conid: int) -> None:
        if account not in self.accounts:
            raise ActionError("account", f"there is no account {account!r} on this login")
        if conid not in self._contracts:
            raise ActionError("conid", f"no contract of the book has conid {conid}")

    def _held(self, account: str, conid: int) -> Holding:
        self._check_known(account, conid)
        held = self._holdings.get((account, conid))
        if held is None or not held.quantity:
            raise ActionError("conid", f"{account} does not hold conid {conid}")
        return held
