"""A trade that somebody thinks of: how it is written, and what prices a contract that is not held.

    QUANTITY SYMBOL [EXPIRY [RIGHT STRIKE]] [@PRICE]      such as   -2 SPY 20281215 C 645 @62.70

A contract that is not held takes the price that is given. Else it takes the volatility of the held
option of its underlying that is nearest.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime
from operator import itemgetter
from typing import Any

import numpy as np

from position_sync_dagster.domain.instrument import (
    DAY_PATTERN,
    Right,
    digits,
    finite_number,
    leg_name,
    parse_expiry,
    parse_right,
)
from position_sync_dagster.errors import UserError, shown
from position_sync_dagster.money.risk import model
from position_sync_dagster.money.risk.priced_legs import PricedLeg
from position_sync_dagster.money.risk.terms import (
    FIRST_GUESS,
    OptionTerms,
    as_options,
)

EXAMPLE = "-2 SPY 20281215 C 645 @62.70"

# The largest quantity, price and strike: their product is still a number.
LARGEST_QUANTITY = 1e9


class ProposedTradeError(UserError):
    """A proposed trade cannot be read or priced."""

    page = "docs/what-if.md#what-if-i-do-this"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposedTrade:
    """A trade that somebody thinks of.

    Attributes:
        quantity: Contracts or shares; below 0 they are sold.
        expiry: That of an option or a future; None: of a share.
        strike: As quoted.
        price: As quoted; None: that of the holding, or of the model.
        strategy: The strategy whose leg it is; None: none.
        account: None: the account that holds most of the underlying.
        conid: That of a contract that is held; None: it follows from the terms.
    """

    quantity: float
    symbol: str
    expiry: date | None = None
    right: Right | None = None
    strike: float | None = None
    price: float | None = None
    strategy: str | None = None
    account: str | None = None
    conid: int | None = None

    @property
    def name(self) -> str:
        """The contract as a trader writes it."""
        return leg_name(self.symbol, self.right, self.strike, self.expiry)

    @property
    def text(self) -> str:
        """The contract with its quantity."""
        return f"{self.quantity:+.15g} {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    """A trade with its contract and its price.

    Attributes:
        row: The contract: that of a holding, or of one that could be.
        price: That of one contract, with its multiplier.
        mark: What one contract is worth; None: nothing says it.
    """

    trade: ProposedTrade
    row: Mapping[str, Any]
    price: float
    mark: float | None

    @property
    def text(self) -> str:
        """What is traded at which price, and what that gives or costs against the mark."""
        row = self.row
        price = digits(round(self.price / row["multiplier"], PRICE_DIGITS))
        traded = f"{self.trade.text} in {row['account']} at {price}"
        against_mark = self.against_mark(self.trade.quantity)
        if against_mark is None:
            return f"{traded}: without a mark"
        return f"{traded}: {money_text(against_mark, row['currency'])} against the mark"

    def against_mark(self, quantity: float) -> float | None:
        """Return what a part of the trade gives or, below 0, costs; None: not known."""
        if self.mark is None:
            return None
        return quantity * (self.mark - self.price)

    def closing(self, part: PricedLeg, quantity: float) -> dict[str, Any]:
        """Return what is settled if a part of a holding is closed, or a share of it."""
        row = part.row
        cost = row["average_cost"]
        realised = None
        if cost is not None:
            realised = quantity * (cost - self.price)
        settled = self.settled(quantity, row["strategy_id"], row["conid"])
        return settled | {"under": row["under"], "realised": realised}

    def settled(self, quantity: float, strategy: str, conid: int) -> dict[str, Any]:
        """Return what a part of the trade settles, as `PricedLegs.settled` has it."""
        settled = {name: self.row[name] for name in _OF_THE_CONTRACT}
        settled |= {"strategy_id": strategy, "conid": conid, "name": self.trade.name}
        settled |= {"quantity": quantity, "against_mark": self.against_mark(quantity)}
        return settled | {"under": None, "realised": 0.0}

    def opened(self, quantity: float) -> dict[str, Any]:
        """Return the row of a lot that is opened; without a mark it is worth what it costs."""
        mark = self.price if self.mark is None else self.mark
        gain = quantity * (mark - self.price)
        return {
            **self.row,
            "position": quantity,
            "average_cost": self.price,
            "market_value": quantity * mark,
            "unrealized_pnl": gain,
            "daily_pnl": gain,
        }


# What a part of a trade has of its contract.
_OF_THE_CONTRACT = ("account", "symbol", "sec_type", "currency", "expiry")

# The digits of a price in a text.
PRICE_DIGITS = 4


def money_text(amount: float, currency: str) -> str:
    """Return an amount of money to the cent.

    >>> money_text(-11910.0, "USD"), money_text(238.714, "USD")
    ('-11,910 USD', '238.71 USD')
    """
    return f"{amount:,.2f}".removesuffix(".00") + f" {currency}"


_TRADE = re.compile(
    r"(?P<quantity>[+-]?[\d.]+) +(?P<symbol>[A-Za-z][\w.]*(?: [A-Z])?)"
    rf"(?: +(?P<expiry>{DAY_PATTERN})"
    r"(?: +(?P<right>[A-Za-z]+) +(?P<strike>[\d.]+))?)?"
    r"(?: *@ *(?P<price>[\d.]+))?"
)

# Strike, right and expiry as the name of an option has them.
_AS_NAMED = re.compile(r" ([\d.]+)([CP]) (\d\d[A-Za-z]{3}\d\d)(?=[ @]|$)")

# An example of each number of a trade.
_EXAMPLES = {"quantity": "-2", "strike": "650", "price": "3.20"}


def parse_trade(text: str) -> ProposedTrade:
    """Read a trade as a person writes it, or with the name of the option.

    Raises:
        ProposedTradeError: It is none.

    >>> trade = parse_trade("-2 SPY 20281215 C 645 @62.70")
    >>> trade.quantity, trade.name, trade.price
    (-2.0, 'SPY 645C 15Dec28', 62.7)
    >>> parse_trade("-2 SPY 645C 15Dec28 @62.70") == trade
    True
    """
    written = _TRADE.fullmatch(_AS_NAMED.sub(r" \3 \2 \1", " ".join(text.split())))
    if written is None:
        remedy = f'Write it as "{EXAMPLE}", or "100 SPY @619" for shares.'
        raise ProposedTradeError(f"{shown(text)} is no trade.", remedy=remedy)

    terms: dict[str, Any] = {}
    for name, example in _EXAMPLES.items():
        if written[name] is not None:
            terms[name] = finite_number(written[name], name, example, _is_usual)
    if not terms["quantity"] or terms.get("strike") == 0:
        raise ProposedTradeError(f"{shown(text)} trades nothing.", remedy=f'Try "{EXAMPLE}".')

    if written["expiry"]:
        terms["expiry"] = parse_expiry(written["expiry"])
    if written["right"]:
        terms["right"] = parse_right(written["right"])
    return ProposedTrade(**terms, symbol=written["symbol"].upper())


def _is_usual(number: float) -> bool:
    return abs(number) <= LARGEST_QUANTITY


def nearest_option(
    held: Iterable[PricedLeg], strike: float, expires_at: datetime, now: datetime
) -> PricedLeg | None:
    """Return the option of an underlying that is nearest in time, then by its strike.

    Args:
        held: Options of one underlying; those without a volatility are not used.
        strike: In the major unit.
        expires_at: The expiry.
        now: The present moment.
    """
    distances = []
    for leg in held:
        terms = leg.delivered
        if terms is None or not leg.row["implied_vol"] or terms.expires_at <= now:
            continue

        in_time = abs(terms.expires_at - expires_at)
        by_strike = abs(terms.strike - strike)
        distances.append((in_time, by_strike, leg))

    if not distances:
        return None
    return min(distances, key=itemgetter(0, 1))[2]


def volatility_of(terms: OptionTerms, price: float, spot: float, now: datetime) -> float | None:
    """Return the volatility that a price shows; None: it shows none."""
    options = as_options([terms], [now], [spot])
    inputs = np.reshape([price, spot, FIRST_GUESS], (3, 1, 1))
    volatility, [reason] = model.implied_volatility(options, *inputs)
    if reason is not None:
        return None
    return float(volatility.item())


def greeks_of(
    terms: OptionTerms, spot: float, volatility: float, now: datetime
) -> dict[str, float]:
    """Return `price`, `delta`, `gamma`, `vega` and `theta` of one unit, in the major unit."""
    options = as_options([terms], [now], [spot])
    inputs = np.reshape([spot, volatility], (2, 1, 1))
    greeks = model.greeks(options, *inputs)
    return {name: values.item() for name, values in asdict(greeks).items()}
