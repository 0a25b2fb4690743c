"""The world: what happens to two accounts in two weeks, and what the truth of it is."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from fractions import Fraction
from itertools import chain
from random import Random

from tests.support.ledger_world.bookkeeper import OF_ACCOUNT, Bookkeeper, Posted, Shares
from tests.support.ledger_world.values import (
    ACCOUNTS,
    DAYS,
    NOBODY,
    Booking,
    Contract,
    Money,
    moment,
    total,
)

# When the broker books what it does by itself, in minutes of the day.
EVENING = 16 * 60 + 20

# What an account has before the first day, in cents.
FIRST_CASH = 1_000_000_007


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """A leg of a strategy; without an account it counts in each, without a quantity for all."""

    owner: str
    contract: Contract
    since: date
    account: str | None = None
    quantity: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """What was seen to be gone, and no statement says why; cost as the broker has it, in cents."""

    account: str
    contract: Contract
    quantity: Fraction
    cost: Money
    booking: Booking


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """The state of the world at the close of a day.

    Attributes:
        positions: By account and conid, as the broker has them.
        owned: By owner, account and conid, as the bookkeeper has them.
        costs: What positions had brought, by the account's queue; None: not known.
        cash: By account.
        marks: The price of one unit, by conid.
    """

    positions: dict[tuple[str, int], Fraction]
    owned: dict[tuple[str, str, int], Fraction]
    costs: dict[tuple[str, int], Money]
    cash: dict[str, int]
    marks: dict[int, int]


@dataclass
class World:
    """What happens, once a story is told.

    Attributes:
        structures: The contracts of each structure of nobody that has an option.
        withdrawn: The trades that the broker took back.
        lost: The strategies, and the contracts, of which something is not known.
    """

    random: Random
    bookings: list[Booking] = field(default_factory=list)
    legs: list[Leg] = field(default_factory=list)
    gone: list[Gone] = field(default_factory=list)
    contracts: dict[int, Contract] = field(default_factory=dict)
    books: Bookkeeper = field(default_factory=Bookkeeper)
    closes: dict[date, Close] = field(default_factory=dict)
    structures: list[set[int]] = field(default_factory=list)
    withdrawn: set[int] = field(default_factory=set)
    lost: set[str | int] = field(default_factory=set)
    days: tuple[date, ...] = DAYS
    positions: Counter[tuple[str, int]] = field(default_factory=Counter)
    cash: Counter[str] = field(default_factory=Counter)
    variation: Counter[str] = field(default_factory=Counter)
    _events: list[tuple[int, int, int, Callable[[], None]]] = field(default_factory=list)
    _number: int = 1_000_000
    _primes: Iterator[int] | None = None
    _minutes: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        primes = [*primes_between(1_000, 40_000)]
        self.random.shuffle(primes)
        self._primes = iter(primes)
        self._fees = iter(self.random.sample([*primes_between(100, 3_000)], 300))
        self.cash.update(dict.fromkeys(ACCOUNTS, FIRST_CASH))

    # -- what stories use

    def price(self) -> int:
        """Return a price in cents, a prime that no other has."""
        assert self._primes is not None
        return next(self._primes)

    def number(self) -> int:
        """Return a number that nothing else has."""
        self._number += 1
        return self._number

    def stock(self) -> Contract:
        """Return a new stock."""
        conid = self.number()
        return self._kept(Contract(conid=conid, symbol=f"S{conid % 10_000}"))

    def option(
        self, stock: Contract, right: str, last: int, strike: int = 0, multiplier: int = 0
    ) -> Contract:
        """Return a new option on a stock or a future; its last day is one of the world's."""
        is_on_future = stock.category == "FUT"
        conid = self.number()
        return self._kept(
            Contract(
                conid=conid, symbol=stock.symbol, right=right,
                category="FOP" if is_on_future else "OPT",
                multiplier=multiplier or (50 if is_on_future else 100),
                strike=strike or self.random.randrange(20, 400), expiry=DAYS[last],
                underlying=stock.conid,
            )
        )  # fmt: skip

    def future(self, last: int) -> Contract:
        """Return a new future."""
        conid = self.number()
        return self._kept(
            Contract(
                conid=conid, symbol=f"F{conid % 10_000}", category="FUT", multiplier=50,
                expiry=DAYS[last],
            )
        )  # fmt: skip

    def _kept(self, contract: Contract) -> Contract:
        self.contracts[contract.conid] = contract
        return contract

    def claim(self, owner: str, contract: Contract, since: int = 0, **more: object) -> None:
        """Make a contract a leg of a strategy, from a day on."""
        leg = Leg(owner=owner, contract=contract, since=DAYS[since], **more)  # type: ignore[arg-type]
        self.legs.append(leg)

    def on(self, day: int, happens: Callable[[int], None], *, minute: int = 0) -> None:
        """Let something happen on a day: in the order of the calls, or at a minute."""
        self._minutes[day] += 1
        at = minute or 600 + self._minutes[day]
        self._events.append((day, at, len(self._events), lambda: happens(at)))

    def trade(
        self, day: int, account: str, contract: Contract, shares: dict[str, int], **more: object
    ) -> None:
        """Let something be bought or sold on a day."""

        def happens(minute: int) -> None:
            self.booked_trade(day, minute, account, contract, shares, **more)

        self.on(day, happens)

    def booked_trade(
        self,
        day: int,
        minute: int,
        account: str,
        contract: Contract,
        shares: Shares | dict[str, int],
        *,
        price: int | None = None,
        fee: int | None = None,
        is_unclear: bool = False,
        paid_beside: int = 0,
        **more: object,
    ) -> Booking:
        """Book what was bought or sold, or what the broker booked as a trade, now.

        Args:
            paid_beside: The cash of a settlement, which another row brings.
        """
        price = self.price() if price is None else price
        fee = next(self._fees) if fee is None else fee
        exact = {owner: Fraction(quantity) for owner, quantity in shares.items()}
        quantity = sum(exact.values(), Fraction(0))
        cash = -quantity * price * contract.multiplier
        booking = self.book(
            day, minute, account, contract,
            **{
                "section": "Trades", "quantity": quantity, "price": price, "cash": int(cash),
                "fee": fee, "side": self._side(account, contract, quantity),
                "order": self.number(), **more,
            },
        )  # fmt: skip
        self.books.trade(
            booking, exact, cash=cash, is_unclear=is_unclear, paid_beside=Fraction(paid_beside)
        )
        return booking

    def _side(self, account: str, contract: Contract, quantity: Fraction) -> str:
        """Return whether it opens or closes, as the broker says it of the account."""
        held = self.positions[account, contract.conid]
        if held * quantity >= 0:
            return "O"
        return "C" if abs(quantity) <= abs(held) else "C;O"

    def book(
        self, day: int, minute: int, account: str, contract: Contract | None, **more: object
    ) -> Booking:
        """Let the broker write a row now: positions and cash change."""
        booking = Booking(
            number=self.number(), account=account, contract=contract,
            at=moment(DAYS[day], minute), **more,
        )  # type: ignore[arg-type]  # fmt: skip
        self.bookings.append(booking)
        self.cash[account] += booking.cash - booking.fee
        if contract is not None and contract.category == "FUT":
            # The price of a future is not paid: its changes are, at the close.
            self.cash[account] -= booking.cash
            self.variation[account] += booking.cash
        if contract is not None:
            self.positions[account, contract.conid] += booking.quantity  # type: ignore[assignment]
        return booking

    # -- how it goes

    def run(self, days: int = len(DAYS), *, is_open: bool = False) -> "World":
        """Let everything happen until a day, in order of time, and close each day.

        Args:
            days: How many.
            is_open: Whether the broker has not booked yet what it books on the last evening.
        """
        self.days = DAYS[:days]
        end = (days - 1, EVENING) if is_open else (days, 0)
        events = [event for event in sorted(self._events) if event[:2] < end]
        for index, day in enumerate(self.days):
            for event in events:
                if event[0] == index:
                    event[-1]()
            self.closes[day] = self._close()
        return self

    def _close(self) -> Close:
        marks = {conid: self.price() for conid in self.contracts}
        values: Counter[str] = Counter()
        for (account, conid), quantity in self.positions.items():
            contract = self.contracts[conid]
            if contract.category == "FUT":
                values[account] += int(quantity * marks[conid] * contract.multiplier)

        # The next day begins with the price of this one.
        for account in ACCOUNTS:
            self.cash[account] += self.variation[account] + values[account]
            self.variation[account] = -values[account]

        owned = {}
        costs = {}
        for place, parcels in self.books.queues.items():
            if quantity := self.books.held(*place):
                owned[place] = quantity

            owner, account, conid = place
            if owner == OF_ACCOUNT and parcels:
                costs[account, conid] = total(*(parcel.money for parcel in parcels))

        positions = {key: Fraction(size) for key, size in self.positions.items() if size}
        return Close(
            positions=positions, owned=owned, costs=costs, cash=dict(self.cash), marks=marks
        )

    # -- what the truth is

    @property
    def owners(self) -> list[str]:
        """Return all strategies, and nobody."""
        return sorted({posted.owner for posted in self.books.posted} | {NOBODY})

    def value(self, owner: str, account: str, day: date) -> Fraction:
        """Return what an owner's part of an account is worth at a close."""
        close = self.closes[day]
        value = Fraction(0)
        for (who, where, conid), quantity in close.owned.items():
            if (who, where) == (owner, account):
                value += quantity * close.marks[conid] * self.contracts[conid].multiplier

        return value

    def profit_of_day(self, owner: str, account: str, day: date) -> Money:
        """Return what an owner gained in an account on a day; None: not known."""
        before = DAYS[DAYS.index(day) - 1]
        moved = self.books.money_of(day, owner, account)
        bookings = [posted.booking for posted in moved]
        if any(each.section == "Gone" or not each.is_fee_stated for each in bookings):
            return None

        gained = self.value(owner, account, day) - self.value(owner, account, before)
        for posted in moved:
            booking = posted.booking
            fraction = self._fraction_of(posted)
            # What was moved in kind, and not stated, counts at its last mark when it left.
            in_kind = Fraction(0)
            if booking.section == "Transfers":
                in_kind = self._in_kind(booking)
            gained += (booking.cash - booking.fee - in_kind) * fraction
        return gained

    def _in_kind(self, booking: Booking) -> Fraction:
        assert booking.contract is not None
        if booking.value is not None:
            return Fraction(booking.value)
        conid = booking.contract.conid
        left_on = booking.left_on or booking.day
        held_on = [
            day
            for day, close in self.closes.items()
            if day <= left_on and any(held == conid for _account, held in close.positions)
        ]
        mark = self.closes[max(held_on)].marks[conid]
        return booking.quantity * mark * booking.contract.multiplier

    def _fraction_of(self, posted: Posted) -> Fraction:
        booking = posted.booking
        if booking.quantity:
            return posted.quantity / booking.quantity
        return Fraction(posted.cash or 0) / (booking.cash or 1)

    def has_rows(self, owner: str, account: str, day: date) -> bool:
        """Return whether an owner had, or moved, something in an account on a day."""
        before = DAYS[DAYS.index(day) - 1]
        owned = [*self.closes[before].owned, *self.closes[day].owned]
        is_held = any((who, where) == (owner, account) for who, where, _conid in owned)
        return is_held or bool(self.books.money_of(day, owner, account))


def primes_between(first: int, last: int) -> Iterator[int]:
    """Yield the primes of a range."""
    composite = bytearray(last)
    for number in range(2, last):
        if composite[number]:
            continue
        composite[number * number :: number] = b"\x01" * len(range(number * number, last, number))
        if number >= first:
            yield number


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """A campaign that is over, by the truth.

    Attributes:
        account: Several, between which something went, with commas between.
        profit: None: not known.
        income: What of it is dividends and the like.
    """

    owner: str
    account: str
    opened: date | None
    closed: date
    conids: frozenset[int]
    profit: Money
    income: Money


def campaigns_of(world: World) -> tuple[list[Campaign], list[Posted]]:
    """Return the campaigns that are over, and the postings of those that are not, and of none."""
    over: list[Campaign] = []
    others: list[Posted] = []
    for owner in world.owners:
        stays: list[list[Posted]] = []
        for account in ACCOUNTS:
            posted = [
                posting
                for posting in world.books.posted
                if (posting.owner, posting.booking.account) == (owner, account)
                and posting.booking.contract is not None
            ]
            groups = [posted] if owner != NOBODY else [*_structures(world, posted)]
            grouped = {id(posting) for group in groups for posting in group}
            others += [posting for posting in posted if id(posting) not in grouped]
            for group in groups:
                stays += _stays(world, group, is_one=owner == NOBODY)

        for posted in _together(stays):
            if any(_held(posted).values()):
                others += posted
            else:
                over.append(_campaign(posted))
    return over, others


def _together(stays: list[list[Posted]]) -> list[list[Posted]]:
    """Return postings in order, those of both accounts between which something went as one."""
    together: list[list[Posted]] = []
    for stay in stays:
        went = _transfers(stay)
        joined = [other for other in together if went & _transfers(other)]
        together = [other for other in together if not went & _transfers(other)]
        together.append([*chain(*joined, stay)])
    return [sorted(each, key=_in_order) for each in together]


def _in_order(posted: Posted) -> tuple[datetime, bool]:
    return posted.booking.at, posted.effect == "COMES"


def _transfers(posted: list[Posted]) -> set[tuple[int, frozenset[str]]]:
    """Return the contracts that went between accounts, with both."""
    return {
        (_conid(each), frozenset((each.booking.account, each.booking.partner)))
        for each in posted
        if each.booking.partner
    }


def _held(posted: list[Posted]) -> dict[tuple[str, int], Fraction]:
    held: defaultdict[tuple[str, int], Fraction] = defaultdict(Fraction)
    for each in posted:
        held[each.booking.account, _conid(each)] += each.quantity
    return held


def _structures(world: World, posted: list[Posted]) -> Iterator[list[Posted]]:
    for conids in world.structures:
        yield [
            posting
            for posting in posted
            if posting.booking.contract is not None and posting.booking.contract.conid in conids
        ]


def _stays(world: World, posted: list[Posted], *, is_one: bool) -> list[list[Posted]]:
    """Return the postings of an account from when something is held until nothing is."""
    campaigns: list[list[Posted]] = []
    current: list[Posted] = []
    for day in world.days:
        new = [posting for posting in posted if posting.booking.day == day]
        if campaigns and not current and not any(posting.quantity for posting in new):
            campaigns[-1] += new  # cash that comes later
            continue

        current += new
        is_last = day == world.days[-1]
        if current and not any(_held(current).values()) and (is_last or not is_one):
            campaigns.append(current)
            current = []
    return [*campaigns, current] if current else campaigns


def _campaign(posted: list[Posted]) -> Campaign:
    first = posted[0]
    is_prior = any(posting.is_prior for posting in posted)
    income = [posting.money for posting in posted if posting.effect == "EARNS"]
    return Campaign(
        owner=first.owner,
        account=",".join(dict.fromkeys(each.booking.account for each in posted)),
        opened=None if is_prior else first.booking.day,
        closed=max(posting.booking.day for posting in posted if posting.quantity),
        conids=frozenset(map(_conid, posted)),
        profit=total(*(posting.money for posting in posted)),
        income=total(*income),
    )


def _conid(posting: Posted) -> int:
    assert posting.booking.contract is not None
    return posting.booking.contract.conid
