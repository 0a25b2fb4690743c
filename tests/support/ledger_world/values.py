"""Contracts, bookings and what a bookkeeper makes of them; money in cents, exact."""

from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from fractions import Fraction
from typing import NamedTuple

# Who has what no strategy has.
NOBODY = "UNATTRIBUTED"

# The trading days of the world: two weeks of New York without a holiday.
DAYS = tuple(
    day for day in (date(2026, 3, 2) + timedelta(days=n) for n in range(12)) if day.weekday() < 5
)

ACCOUNTS = ("DU1000001", "DU1000002")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """A contract.

    Attributes:
        strike: In dollars.
        underlying: The conid of what an option delivers.
    """

    conid: int
    symbol: str
    category: str = "STK"
    multiplier: int = 1
    right: str = ""
    strike: int = 0
    expiry: date | None = None
    underlying: int = 0

    @property
    def is_option(self) -> bool:
        return bool(self.right)


@dataclass(frozen=True, slots=True, kw_only=True)
class Booking:
    """A row that the broker writes.

    Attributes:
        section: The section of the statement.
        at: In New York.
        quantity: By how much the position changed.
        price, cash, fee: In cents; a fee that was paid is positive.
        is_fee_stated: Whether any source states the fee.
        is_quantity_stated: Whether any source states the quantity.
        value: What a transfer brought in kind; None: not stated.
        kind: The broker's type.
        side: Whether a trade opens or closes: O, C or C;O; of a transfer IN or OUT.
        action: The id of a corporate action.
        partner: The other account of a transfer.
        words: The broker's words.
    """

    number: int
    section: str
    account: str
    contract: Contract | None
    at: datetime
    quantity: Fraction = Fraction(0)
    price: int = 0
    cash: int = 0
    fee: int = 0
    is_fee_stated: bool = True
    is_quantity_stated: bool = True
    value: int | None = None
    kind: str = "ExchTrade"
    codes: str = ""
    side: str = ""
    order: int | None = None
    action: int | None = None
    partner: str = ""
    left_on: date | None = None
    words: str = ""

    @property
    def name(self) -> str:
        """Return its name in the graph."""
        return str(self.number)

    @property
    def day(self) -> date:
        return self.at.date()


# Money that is not known is None.
Money = Fraction | None


def total(*amounts: Money) -> Money:
    """Return a sum; unknown if one amount is."""
    known = [amount for amount in amounts if amount is not None]
    return sum(known, Fraction(0)) if len(known) == len(amounts) else None


def part(amount: Money, of: Fraction) -> Money:
    """Return a part of an amount."""
    return None if amount is None else amount * of


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """What was opened at once and is held, or the part of a booking that took it.

    Attributes:
        name: What opened it first.
        key: The account and the contract.
        opened: When that was: what was opened first closes first, also after a corporate action.
        through: The corporate action or the transfer that brought it last; empty: none did.
        money: What it brought after fees.
        fees: Positive was paid.
    """

    name: str
    key: tuple[str, int]
    opened: datetime
    through: str = ""
    quantity: Fraction
    money: Money
    fees: Money

    def cut(self, quantity: Fraction) -> "Parcel":
        """Return the part of it that has so much."""
        share = quantity / self.quantity
        money, fees = part(self.money, share), part(self.fees, share)
        return replace(self, quantity=quantity, money=money, fees=fees)

    @property
    def day(self) -> date | None:
        """Return the day on which it was opened; None: before everything."""
        return None if self.name.startswith("prior") else self.opened.date()

    def lost(self) -> "Parcel":
        """Return it with unknown money."""
        return replace(self, money=None, fees=None)


class EdgeName(NamedTuple):
    """What names an edge of the graph: what was opened, through what, and what took it."""

    kind: str
    opened: str
    through: str
    by: str


class EdgeSize(NamedTuple):
    """How much an edge carries: of what was opened, and of what took it."""

    quantity: Fraction
    money: Money
    quantity_by: Fraction
    money_by: Money


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """A close, what came from something, or money alone (its opening is empty)."""

    kind: str
    opened: Parcel | None
    by: Parcel

    @property
    def name(self) -> EdgeName:
        opened = ("", "") if self.opened is None else (self.opened.name, self.opened.through)
        by = self.by.through if self.kind == "CAME_FROM" else self.by.name
        return EdgeName(self.kind, *opened, by)

    @property
    def size(self) -> EdgeSize:
        nothing = replace(self.by, quantity=Fraction(0), money=Fraction(0), fees=Fraction(0))
        opened = self.opened or nothing
        return EdgeSize(opened.quantity, opened.money, self.by.quantity, self.by.money)

    @property
    def gain(self) -> Money:
        """What it realised."""
        if self.kind == "CAME_FROM":
            return Fraction(0)
        return total(self.size.money, self.by.money)


class PostingName(NamedTuple):
    """What names a posting."""

    booking: str
    owner: str
    effect: str


class PostingSize(NamedTuple):
    """How much a posting moved; cash is before the fee, None: not known."""

    quantity: Fraction
    cash: Money
    fee: Money


def moment(day: date, minute: int) -> datetime:
    """Return a minute of a day, in New York."""
    return datetime.combine(day, time()) + timedelta(minutes=minute)
