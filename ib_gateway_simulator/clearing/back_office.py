"""The books of some accounts: cash by currency and holdings, and the wealth at each close.

Money is exact: amounts are decimals, and nothing is rounded. Futures are settled each day: the move
of their price is paid in cash at the close, and they are worth nothing afterwards.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any, TypeVar

from ib_gateway_simulator.clearing.entries import (
    BOOKED,
    ZERO,
    ActionEntry,
    CashEntry,
    Entry,
    TradeEntry,
    TransferEntry,
)
from ib_gateway_simulator.clearing.securities import Category, Security

Money = defaultdict[str, Decimal]
E = TypeVar("E", bound=Entry)


def no_money() -> Money:
    """Return amounts by currency that are all 0."""
    return defaultdict(lambda: ZERO)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedBooks:
    """The state of an account at a close.

    Attributes:
        session: The session that closed.
        previous: The session before it; None: the account was opened with this one.
        cash: By currency.
        wealth: Cash and the value of all holdings, by currency.
        moved_by_owner: What the owner brought in since the close before, by currency.
        converted: What conversions brought in since then, by currency.
        quantities, marks, costs: The holdings: quantity, price and cost of one unit, by conid. The
            cost has commissions in it ("Basis … proceeds plus commission", IB's Reporting Guide).
        accruals: Dividends and interest that are due but not paid, in the base currency.
        rates: What a unit of each currency is worth in the base currency.
        entries: Those of the statement of this session.
    """

    account: str
    base: str
    session: date
    previous: date | None
    cash: Mapping[str, Decimal]
    wealth: Mapping[str, Decimal]
    moved_by_owner: Mapping[str, Decimal]
    converted: Mapping[str, Decimal]
    quantities: Mapping[int, Decimal]
    marks: Mapping[int, Decimal]
    costs: Mapping[int, Decimal]
    accruals: Mapping[str, Decimal]
    rates: Mapping[str, Decimal]
    entries: tuple[Entry, ...]

    @property
    def net_liquidation(self) -> Decimal:
        """Wealth and accruals in the base currency."""
        wealth = sum((self.wealth[name] * self.rates[name] for name in self.wealth), ZERO)
        return wealth + sum(self.accruals.values(), ZERO)

    def quantities_at(self, at: datetime) -> dict[int, Decimal]:
        """Return what was held at a moment of the session, before what was booked later on it."""
        held = defaultdict(lambda: ZERO, self.quantities)
        for entry in self.entries:
            if entry.at > at and isinstance(entry, TradeEntry | TransferEntry | ActionEntry):
                held[entry.security.conid] -= _change_of(entry, entry.security.conid)
        return {conid: quantity for conid, quantity in held.items() if quantity}


def profit_between(before: ClosedBooks | None, after: ClosedBooks) -> dict[str, Decimal]:
    """Return by how much wealth grew by itself between two closes that follow, by currency.

    Args:
        before: The close before; None: the account was empty.
        after: The close.
    """
    wealth = before.wealth if before is not None else {}
    wealth_by_currency: dict[str, Decimal] = {}
    for currency in sorted({*wealth, *after.wealth}):
        grown = after.wealth.get(currency, ZERO) - wealth.get(currency, ZERO)
        brought = after.moved_by_owner.get(currency, ZERO) + after.converted.get(currency, ZERO)
        wealth_by_currency[currency] = grown - brought
    return wealth_by_currency


@dataclass(slots=True, kw_only=True)
class _Books:
    """The open books of one account."""

    base: str
    cash: Money = field(default_factory=no_money)
    quantities: defaultdict[int, Decimal] = field(default_factory=lambda: defaultdict(lambda: ZERO))
    costs: dict[int, Decimal] = field(default_factory=dict)
    # The price of each future that was settled last.
    settled: dict[int, Decimal] = field(default_factory=dict)
    accruals: Money = field(default_factory=no_money)
    waiting: list[Entry] = field(default_factory=list)
    last_session: date | None = None


class BackOffice:
    """Books what happens in some accounts, and closes the books of each session.

    Args:
        bases: The base currency of each account.
        rate_of: Returns the rate from one currency to another, on a day.
    """

    def __init__(
        self, bases: Mapping[str, str], rate_of: Callable[[str, str, date], Decimal]
    ) -> None:
        self._rate_of = rate_of
        self._books = {account: _Books(base=base) for account, base in bases.items()}
        self._numbers = 5_000_000_000
        self.securities: dict[int, Security] = {}

    # -- what happens -------------------------------------------------------------------------

    def held(self, account: str, security: Security) -> Decimal:
        """Return the quantity that an account holds, with what waits for the next close."""
        books = self._books[account]
        total = books.quantities.get(security.conid, ZERO)
        for entry in books.waiting:
            total += _change_of(entry, security.conid)
        return total

    def trade(
        self,
        account: str,
        security: Security,
        quantity: Decimal,
        price: Decimal,
        at: datetime,
        *,
        commission: Decimal = ZERO,
        commission_currency: str = "",
        order: int = 0,
        report_day: date | None = None,
        codes: str = "",
    ) -> TradeEntry:
        """Book a trade on an exchange; a conversion is a trade of a currency pair."""
        opens = self.held(account, security) * quantity >= 0
        return self._add(
            TradeEntry(
                **self._named(account, at, report_day),
                security=security,
                quantity=quantity,
                price=price,
                commission=commission,
                commission_currency=commission_currency or security.currency,
                codes=codes or ("O" if opens else "C"),
                order=order or self._numbers,
            )
        )

    def end_option(
        self,
        account: str,
        option: Security,
        at: datetime,
        *,
        level: Decimal,
        quantity: Decimal | None = None,
        commission: Decimal = ZERO,
        report_day: date | None = None,
    ) -> list[TradeEntry]:
        """Book the end of an option by the level of its underlying.

        Out of the money it expires. Otherwise a long one is exercised and a short one assigned: it
        is closed at 0, and its underlying is delivered at the strike; an index pays in cash.

        Args:
            quantity: The part that ends, with its sign; by default all that is held.
        """
        held = self.held(account, option) if quantity is None else quantity
        value = option.intrinsic(level)
        code = "Ep"
        if value:
            code = "A"
            if held > 0:
                code = "Ex"
        under = option.underlying
        in_cash = under is None or under.category is Category.INDEX
        closing = TradeEntry(
            **self._named(account, at, report_day),
            security=option,
            quantity=-held,
            price=ZERO,
            commission=commission,
            commission_currency=option.currency,
            codes=f"{code};C",
            kind=BOOKED,
            settlement=option.worth(held, value) if in_cash else ZERO,
            order=self._numbers,
        )
        self._add(closing)
        if not value or in_cash or under is None or option.strike is None:
            return [closing]

        side = 1 if option.right == "C" else -1
        units = held * side * option.multiplier / under.multiplier
        opens = self.held(account, under) * units >= 0
        delivered = TradeEntry(
            **self._named(account, at, report_day),
            security=under,
            quantity=units,
            price=option.strike,
            commission_currency=under.currency,
            codes=f"{code};O" if opens else f"{code};C",
            kind=BOOKED,
            order=closing.order,
        )
        return [closing, self._add(delivered)]

    def pay(
        self,
        account: str,
        type: str,
        amount: Decimal,
        currency: str,
        at: datetime,
        *,
        security: Security | None = None,
        description: str = "",
        report_day: date | None = None,
    ) -> CashEntry:
        """Book money that came, or went: a dividend, tax, interest, a fee, a deposit."""
        return self._add(
            CashEntry(
                **self._named(account, at, report_day),
                type=type,
                amount=amount,
                currency=currency,
                security=security,
                description=description or type.upper(),
            )
        )

    def transfer(
        self,
        account: str,
        security: Security,
        quantity: Decimal,
        amount: Decimal | None,
        at: datetime,
        *,
        report_day: date | None = None,
    ) -> TransferEntry:
        """Book securities that the owner brought from another broker, or took there."""
        return self._add(
            TransferEntry(
                **self._named(account, at, report_day),
                security=security,
                quantity=quantity,
                amount=amount,
            )
        )

    def act(
        self,
        account: str,
        changes: Mapping[Security, Decimal],
        kind: str,
        at: datetime,
        *,
        proceeds: Decimal = ZERO,
        report_day: date | None = None,
    ) -> list[ActionEntry]:
        """Book a corporate action: by how much each holding changes; the first pays `proceeds`."""
        action = self._numbers + 1
        entries = list[ActionEntry]()
        for security, quantity in changes.items():
            entry = ActionEntry(
                **self._named(account, at, report_day),
                security=security,
                quantity=quantity,
                kind=kind,
                action=action,
                proceeds=ZERO if entries else proceeds,
            )
            entries.append(self._add(entry))
        return entries

    def accrue(self, account: str, kind: str, amount: Decimal) -> None:
        """Add to what is due but not paid, in the base currency; a payment is booked apart."""
        self._books[account].accruals[kind] += amount

    def _named(self, account: str, at: datetime, report_day: date | None) -> dict[str, Any]:
        self._numbers += 1
        day = report_day or at.date()
        return {"number": self._numbers, "account": account, "at": at, "report_day": day}

    def _add(self, entry: E) -> E:
        security = getattr(entry, "security", None)
        if security is not None:
            self.securities[security.conid] = security
        self._books[entry.account].waiting.append(entry)
        return entry

    # -- closing ------------------------------------------------------------------------------

    def close(self, session: date, price_of: Callable[[Security], Decimal]) -> list[ClosedBooks]:
        """Close the books of a session; what is reported later waits for its own."""
        return [self._closed(account, session, price_of) for account in self._books]

    def _closed(
        self, account: str, session: date, price_of: Callable[[Security], Decimal]
    ) -> ClosedBooks:
        books = self._books[account]
        due = [entry for entry in books.waiting if entry.report_day <= session]
        books.waiting = [entry for entry in books.waiting if entry.report_day > session]
        by_owner = no_money()
        converted = no_money()
        for entry in due:
            self._apply(books, entry, price_of, by_owner, converted)

        quantities = {conid: held for conid, held in books.quantities.items() if held}
        marks = {conid: price_of(self.securities[conid]) for conid in quantities}
        self._settle_futures(books, marks)
        wealth = no_money()
        for currency, amount in books.cash.items():
            wealth[currency] += amount
        for conid, held in quantities.items():
            security = self.securities[conid]
            if security.category is not Category.FUTURE:
                wealth[security.currency] += security.worth(held, marks[conid])

        currencies = {*wealth, *by_owner, *converted, books.base}
        rates = {name: self._rate_of(name, books.base, session) for name in sorted(currencies)}
        costs = {conid: books.costs[conid] for conid in quantities}
        closed = ClosedBooks(
            account=account,
            base=books.base,
            session=session,
            previous=books.last_session,
            cash=dict(books.cash),
            wealth=dict(wealth),
            moved_by_owner=dict(by_owner),
            converted=dict(converted),
            quantities=quantities,
            marks=marks,
            costs=costs,
            accruals=dict(books.accruals),
            rates=rates,
            entries=tuple(due),
        )
        books.last_session = session
        return closed

    def _apply(
        self,
        books: _Books,
        entry: Entry,
        price_of: Callable[[Security], Decimal],
        by_owner: Money,
        converted: Money,
    ) -> None:
        if isinstance(entry, CashEntry):
            books.cash[entry.currency] += entry.amount
            if entry.is_of_owner:
                by_owner[entry.currency] += entry.amount
        elif isinstance(entry, TransferEntry):
            stated = entry.amount
            if stated is None:
                stated = entry.security.worth(entry.quantity, price_of(entry.security))

            by_owner[entry.security.currency] += stated
            self._change(books, entry.security, entry.quantity, price_of(entry.security))
        elif isinstance(entry, ActionEntry):
            books.cash[entry.security.currency] += entry.proceeds
            self._change(books, entry.security, entry.quantity, price_of(entry.security))
        elif isinstance(entry, TradeEntry):
            books.cash[entry.commission_currency] -= entry.commission
            self._apply_trade(books, entry, converted)

    def _apply_trade(self, books: _Books, entry: TradeEntry, converted: Money) -> None:
        security = entry.security
        if security.category is Category.CURRENCY:
            bought = security.symbol[:3]
            paid = security.currency
            for currency, amount in ((bought, entry.quantity), (paid, entry.proceeds)):
                books.cash[currency] += amount
                converted[currency] += amount
            return

        if security.category is Category.FUTURE:
            self._trade_future(books, entry)
        else:
            books.cash[security.currency] += entry.proceeds + entry.settlement
        price = entry.price
        if entry.commission and entry.commission_currency == security.currency:
            price += entry.commission / security.worth(entry.quantity, Decimal(1))
        self._change(books, security, entry.quantity, price)

    def _trade_future(self, books: _Books, entry: TradeEntry) -> None:
        """Pay from the price that was settled last to that of the trade, and settle at it."""
        conid = entry.security.conid
        held = books.quantities[entry.security.conid]
        if held:
            move = entry.price - books.settled[conid]
            books.cash[entry.security.currency] += entry.security.worth(held, move)
        books.settled[conid] = entry.price

    def _settle_futures(self, books: _Books, marks: Mapping[int, Decimal]) -> None:
        for conid, held in books.quantities.items():
            security = self.securities[conid]
            if security.category is Category.FUTURE and held:
                move = marks[conid] - books.settled[conid]
                books.cash[security.currency] += security.worth(held, move)
                books.settled[conid] = marks[conid]

    def _change(self, books: _Books, security: Security, quantity: Decimal, price: Decimal) -> None:
        before = books.quantities[security.conid]
        after = before + quantity
        cost = books.costs.get(security.conid, ZERO)
        if before * quantity >= 0 and after:
            cost = (before * cost + quantity * price) / after
        elif before * after < 0:
            cost = price
        books.quantities[security.conid] = after
        books.costs[security.conid] = cost


def _change_of(entry: Entry, conid: int) -> Decimal:
    """Return by how much an entry changes a holding."""
    if isinstance(entry, TradeEntry | TransferEntry | ActionEntry):
        is_same = entry.security.conid == conid
        is_cash = entry.security.category is Category.CURRENCY
        if is_same and not is_cash:
            return entry.quantity

        return ZERO
    return ZERO
