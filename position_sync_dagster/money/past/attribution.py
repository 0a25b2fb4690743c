"""To which strategy each movement of a holding belongs; pure.

What opens a holding belongs to the strategies that claim the contract then, first to the one whose
other legs its order traded; what an assignment or an exercise delivers, to the strategies that had
the option, whether or not it is a leg of them; what a corporate action brings for a contract that
it takes, to those who had that one. What closes belongs to who has it. Where several have a part, a
trade that closes all of it, or that is one of those of a session that do, is divided by what they
have; of any other it is not known whose it was, their profit is unknown, and what is left belongs
to those that claim it.
"""

import math
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from datetime import date, datetime, timedelta
from functools import cached_property, partial
from inspect import GEN_RUNNING, getgeneratorstate
from itertools import accumulate, chain, groupby, product
from operator import attrgetter
from types import MappingProxyType
from typing import Any, NamedTuple

from position_sync_dagster.domain.clock import NEVER
from position_sync_dagster.domain.exchange_time import exchange_date
from position_sync_dagster.domain.holding import QUANTITY_ROUNDING, Key, grouped
from position_sync_dagster.domain.instrument import digits
from position_sync_dagster.domain.leg import UNATTRIBUTED, ActiveContract
from position_sync_dagster.money.past.causes import cancelled_ids
from position_sync_dagster.money.past.closes import SLACK
from position_sync_dagster.money.past.movements import (
    BOOKED,
    CLOSED,
    COMMISSION_ADJUSTMENTS,
    DELIVERY_KINDS,
    INCOME,
    OWNERS_CASH,
    SPLITS,
    Movement,
    MovementKind,
    MovementSource,
    Section,
    known_sum,
    moment_of,
    rounded,
    times,
)
from position_sync_dagster.money.past.opening import Opening, opening_of
from position_sync_dagster.money.past.postings import Effect, Posting, name_of
from position_sync_dagster.money.past.unexplained import Held, unexplained_of

_RANK = attrgetter("rank")

# What may take one thing and bring another for it.
_ACTS = frozenset({MovementKind.CORPORATE_ACTION, MovementKind.TRANSFER})

_OF_NO_HOLDING = OWNERS_CASH | {MovementKind.CONVERSION}

# What is one transfer, whatever rows it is in: a row, those of a day, else all of an account.
_ROWS_OF_TRANSFERS = (
    attrgetter("movement_id"), attrgetter("account", "day"), attrgetter("account"),
)  # fmt: skip

# The type of a corporate action that gives rights, which cost nothing. Source: ibflex 1.1,
# `enums.Reorg`.
_RIGHTS = "RI"

# The type of a corporate action that takes what is worth nothing.
_WORTHLESS = "DW"

# What each owner has, or how much of something belongs to each.
_Shares = dict[str, float]


def attributed(
    movements: Iterable[Movement],
    legs: Iterable[ActiveContract],
    openings: Mapping[Key, Opening] = MappingProxyType({}),
    stated: Mapping[Key, Iterable[Held]] = MappingProxyType({}),
) -> list[Posting]:
    """Return the parts of all movements of holdings, each with its owner, in order of time.

    Args:
        movements: Each once; all of each holding.
        legs: The legs of strategies, also those that were removed.
        openings: What was held before the first movement, as far as tables have it, also of
            holdings without any.
        stated: What the broker said that was held; what differs from it is UNEXPLAINED.
    """
    of_holdings = (
        movement
        for movement in movements
        if movement.conid is not None and movement.kind not in _OF_NO_HOLDING
    )
    by_key = grouped(attrgetter("key"), of_holdings)
    legs_of = grouped(attrgetter("conid"), legs)
    holdings = _Holdings()
    for key in dict.fromkeys([*by_key, *openings]):
        opening, moved = _history(by_key[key], openings.get(key))
        contract = opening.contract or next(iter(moved), None)
        if contract is not None:
            unexplained = unexplained_of(contract, opening.quantity, moved, stated.get(key, ()))
            moved = sorted([*moved, *unexplained], key=_order_of)
            holdings.add(_Holding(moved, legs_of[key[1]], opening, holdings))

    holdings.link()
    for holding in holdings.all:
        for order_id, owner in holding.orders_alone():
            holdings.openers[order_id].add(owner)

    # What options deliver, and what actions bring, belongs to the owners of what they took.
    in_order = sorted(holdings.all, key=attrgetter("place"))
    parts = [part for holding in in_order for part in holding.parts()]
    return sorted([*parts, *holdings.lost()], key=attrgetter("at"))


def unexplained_parts(
    conid: int,
    legs: Sequence[ActiveContract],
    differences: Iterable[tuple[Any, ...]],
    at: datetime,
) -> list[Posting]:
    """Return whose it is by what holdings of a contract differ from their movements.

    Args:
        legs: The legs of the contract.
        differences: Of each account its name, by how much it differs, and what each owner has.
        at: When it differs.
    """
    holdings = _Holdings()
    for account, by, *owners in differences:
        # Of what differs nothing but the quantity is known.
        difference = Movement(
            movement_id=account,
            kind=MovementKind.TRADE,
            section=Section.TRADES,
            source=MovementSource.INFERRED,
            account=account,
            day=at.date(),
            session_date=at.date(),
            at=at,
            conid=conid,
            quantity=by,
        )
        has = dict(owners)
        opening = Opening(quantity=sum(has.values()))
        holdings.add(_Holding([difference], legs, opening, holdings, has))
    return [part for holding in holdings.all for part in holding.parts()]


class _Step(NamedTuple):
    """A movement of a holding, with what is held before it, after it and at the end of its day."""

    movement: Movement
    before: float
    after: float
    at_end: float

    @property
    def takes(self) -> bool:
        """Return whether it took of what was held."""
        return self.before * self.movement.change < 0

    @property
    def action(self) -> tuple[object, ...]:
        """Return the action's id, or what all its rows say: the last words are the contract."""
        step = self.movement
        if step.action_id is not None:
            return step.account, step.action_id
        words, _, _contract = (step.description or "").rpartition("(")
        return *self.day_and_type, words or step.movement_id

    @property
    def day_and_type(self) -> tuple[object, ...]:
        """Return what actions have in common that nothing tells apart."""
        step = self.movement
        return step.account, step.day, step.type, step.right


class _Exchange(NamedTuple):
    """What went for what came: by delivery, by an action, or to another own account.

    Attributes:
        gone: The ends of options that delivered it, what an action took for it, or what left
            another account.
        is_clear: Whether it came for all of that; else for one of these, it is not known which.
        parent: What is still held, and an action brought something for it.
    """

    gone: Sequence[Movement] = ()
    is_clear: bool = True
    parent: "_Holding | None" = None


_FOR_NOTHING = _Exchange()


class _Holdings:
    """The holdings that are attributed together, and what came for what.

    Attributes:
        all: Each holding.
        of_contract: Those of each contract.
        came_for: What went for what came, by the id of that.
        left: The ids of what something came for with its cost.
        parts: Those of each movement that is no trade, by its id.
        traders: Who had what an order traded, apart from contracts that several had.
        openers: Which strategies claim what an order traded of contracts that no other one claims.
        lost_since: Since when, and why, it is not known how much an owner has of a holding.
    """

    def __init__(self) -> None:
        self.all: list[_Holding] = []
        self.of_contract: defaultdict[int, list[_Holding]] = defaultdict(list)
        self.came_for: dict[str, _Exchange] = {}
        self.left: set[str] = set()
        self.parts: defaultdict[str, list[Posting]] = defaultdict(list)
        self.traders: defaultdict[str | None, set[str]] = defaultdict(set)
        self.openers: defaultdict[str | None, set[str]] = defaultdict(set)
        self.lost_since: dict[tuple[Key, str], tuple[datetime, str]] = {}
        self._lost: dict[str, str] = {}

    def why_lost(self, key: Key, owner: str, movement: Movement) -> str | None:
        """Return why it is not known, at a movement, how much an owner has of a holding."""
        since, reason = self.lost_since.get((key, owner), (NEVER, None))
        return reason if since <= moment_of(movement) else None

    def add(self, holding: "_Holding") -> None:
        """Add a holding."""
        self.all.append(holding)
        self.of_contract[holding.key[1]].append(holding)

    def link(self) -> None:
        """Find what came for what: by delivery, by an action, or from another own account.

        An action is known by its id; what that does not join is of one day and wording, or type.
        """
        moving = [
            step
            for holding in self.all
            if not holding.is_traded_alone
            for step in holding.steps
            if step.movement.quantity
        ]
        of_kind = grouped(attrgetter("movement.kind"), moving)
        deliveries = [step.movement for kind in DELIVERY_KINDS for step in of_kind[kind]]
        for delivery in grouped(_delivery_of, deliveries).values():
            self._link_delivery(delivery)

        steps = of_kind[MovementKind.CORPORATE_ACTION]
        for name in ("action", "day_and_type"):
            joined = self.left.union(self.came_for)
            others = [step for step in steps if step.movement.movement_id not in joined]
            for action in grouped(attrgetter(name), others).values():
                self._link_action(action)
            # Without an id what took a part may be an action of its own.
            steps = [step for step in steps if not (step.takes and step.after and step.at_end)]

        named = {
            (holding.first.account, holding.first.symbol): holding
            for holding in self.all
            if not holding.first.is_option
        }
        for step in steps:
            arrival = step.movement
            # The words of an action begin with the symbol of what it acts on, and its number.
            symbol, _, _number = (arrival.description or "").partition("(")
            parent = named.get((arrival.account, symbol.strip()))
            if parent is not None and not step.before:
                self.came_for.setdefault(arrival.movement_id, _Exchange(parent=parent))

        transfers = grouped(attrgetter("movement.conid"), of_kind[MovementKind.TRANSFER])
        for of_contract in transfers.values():
            self._link_transfers(of_contract)

    def _link_delivery(self, movements: Iterable[Movement]) -> None:
        """Find which option delivered what: the one that it names, or one with its strike.

        Args:
            movements: All of one account, day and contract that was delivered.
        """
        is_end = grouped(attrgetter("is_option"), movements)
        ends = is_end[True]
        for arrival in is_end[False]:
            of_option = [end for end in ends if end.conid == arrival.counter_conid]
            gone = of_option or [end for end in ends if end.strike == arrival.price]
            self.came_for[arrival.movement_id] = _Exchange(gone or ends, is_clear=bool(gone))
        if not is_end[False]:
            self._lost.update((end.movement_id, "delivered") for end in ends)

    def _link_transfers(self, steps: Iterable[_Step]) -> None:
        """Pair what left one account with as much that came to another, of the nearest days.

        What that does not pair may be in several rows: of a day, else of several ones.

        Args:
            steps: The transfers of a contract.
        """
        by_way = grouped(attrgetter("takes"), steps)
        leaving = [step.movement for step in by_way[True]]
        coming = [step.movement for step in by_way[False]]
        for rows_of in _ROWS_OF_TRANSFERS:
            departures = [*grouped(rows_of, leaving).values()]
            for arrived in grouped(rows_of, coming).values():
                fits = [left for left in departures if _is_moved(left, arrived)]
                if fits:
                    nearest = min(fits, key=lambda left: _days_between(left[0], arrived[0]))
                    self._pair(arrived, nearest)
                    departures.remove(nearest)
            leaving = [*chain.from_iterable(departures)]
            coming = [row for row in coming if row.movement_id not in self.came_for]

    def _link_action(self, steps: Iterable[_Step]) -> None:
        """Find for what contracts an action brought others, by symbol.

        What it took for cash alone is for none of them, beside what it took for nothing; nor is a
        fraction of what it brought.

        Args:
            steps: Its movements.
        """
        by_way = grouped(attrgetter("takes"), steps)
        arrivals = [step.movement for step in by_way[False]]
        taken = [step.movement for step in by_way[True]]
        brought = {arrival.key for arrival in arrivals}
        taken = [left for left in taken if left.key not in brought] or taken
        taken = [left for left in taken if not _is_sold(left, left.cash)] or taken

        left_of = grouped(attrgetter("symbol"), taken)
        arrived_of = grouped(attrgetter("symbol"), arrivals)
        renamed = [left for left in taken if left.symbol not in arrived_of]
        for symbol, arrived in arrived_of.items():
            if taken:
                self._pair(arrived, left_of[symbol] or renamed)

    def _pair(self, arrived: Sequence[Movement], gone: Sequence[Movement]) -> None:
        """Pair as many contracts of both in the order of their terms; else each came for all."""
        self.left.update(movement.movement_id for movement in gone)
        gone_of = grouped(attrgetter("key"), sorted(gone, key=_terms_of))
        arrived_of = grouped(attrgetter("key"), sorted(arrived, key=_terms_of))
        came_for = [[*gone]] * len(arrived_of)
        if len(arrived_of) == len(gone_of):
            came_for = [*gone_of.values()]
        for rows, of_them in zip(arrived_of.values(), came_for, strict=True):
            exchange = _Exchange(of_them, is_clear=len({row.key for row in of_them}) == 1)
            self.came_for |= {row.movement_id: exchange for row in rows}

    def remember(self, part: Posting, *, is_guess: bool) -> None:
        """Remember a part: something may come for it, or be of its order.

        Args:
            is_guess: Whether it is not known whose it is: then it says nothing of its order.
        """
        movement = part.movement
        if movement.kind is not MovementKind.TRADE:
            self.parts[movement.movement_id].append(part)
        elif movement.order_id is not None and part.fraction == 1.0 and not is_guess:
            self.traders[movement.order_id].add(part.owner)

    def brings(self, movement: Movement) -> bool:
        """Return whether a movement is what an action, or a transfer, brought for something."""
        return movement.kind in _ACTS and movement.movement_id in self.came_for

    def carries(self, movement: Movement) -> bool:
        """Return whether cost leaves with it for something else, or comes with it."""
        return movement.movement_id in self.left or self.brings(movement)

    def exchange_of(self, movement: Movement) -> _Exchange:
        """Return what went for a movement; nothing did for most."""
        return self.came_for.get(movement.movement_id, _FOR_NOTHING)

    def origin_of(self, movement: Movement) -> "_Origin":
        """Return what a movement came from, and who had it."""
        exchange = self.exchange_of(movement)
        if exchange is _FOR_NOTHING:
            return _Origin()
        if exchange.parent is not None:
            return exchange.parent.origin_of(movement)

        for source, holding in product(exchange.gone, self.of_contract[movement.key[1]]):
            # What came back had left another account, whose movements may not be divided yet.
            if holding.key == source.key and not self.parts[source.movement_id]:
                holding.divide(source.movement_id)

        sources = [source.movement_id for source in exchange.gone]
        parts = [part for source in sources for part in self.parts[source]]
        sizes = _sizes_of(parts)
        if sizes and (exchange.is_clear or len(sizes) == 1):
            return _Origin(parts, sizes)
        if movement.kind in _ACTS:
            act = movement.kind.lower().replace("_", " ")
            self._lost.update(dict.fromkeys(sources, f"became by a {act}"))
        return _Origin(parts)

    def lost(self) -> Iterator[Posting]:
        """Yield, for each end of which nothing arrived, that what it left is not known.

        The same of what actions took, where others had what may be the origin of what came.
        """
        for name, became in self._lost.items():
            for end in self.parts[name]:
                unclear = f"what {name_of(end.movement)} {became} is not known"
                yield replace(end, effect=Effect.PAYS, quantity=0.0, fraction=0.0, unclear=unclear)


class _Origin(NamedTuple):
    """What a movement came from.

    Attributes:
        parts: The ends of options that delivered it, or what an action took for it.
        sizes: How much of that each owner had; empty: not known, or it came from none.
    """

    parts: Sequence[Posting] = ()
    sizes: Mapping[str, float] = MappingProxyType({})


def _rounded_sum(held: float, by: float) -> float:
    return rounded(held + by)


def _delivery_of(movement: Movement) -> tuple[str, date, int | None]:
    """Return account, day and contract of what an option delivers, or what came so."""
    delivered = movement.conid
    if movement.is_option:
        delivered = movement.counter_conid or movement.underlying_conid
    return movement.account, movement.day, delivered


def _is_moved(left: Sequence[Movement], arrived: Sequence[Movement]) -> bool:
    """Return whether rows of two accounts, near each other, moved as much."""
    rows = (*left, *arrived)
    days = [movement.day for movement in rows]
    is_all = not rounded(sum(movement.change for movement in rows))
    return is_all and left[0].account != arrived[0].account and max(days) - min(days) <= BOOKED


def _days_between(one: Movement, other: Movement) -> timedelta:
    return abs(one.day - other.day)


def _is_sold(movement: Movement, cash: float | None) -> bool:
    """Return whether cash is what was got for what a movement took, or paid for it if short."""
    return (cash or 0.0) * movement.change < 0


def _terms_of(movement: Movement) -> tuple[date, float]:
    return movement.expiry or date.max, movement.strike or 0.0


def _sizes_of(parts: Iterable[Posting]) -> _Shares:
    """Return how much each owner has of some parts, without signs."""
    sizes: _Shares = defaultdict(float)
    for part in parts:
        sizes[part.owner] += abs(part.quantity)
    return sizes


def _divided(by: float, sizes: Mapping[str, float]) -> _Shares:
    """Return a quantity, divided in proportion to what the owners have."""
    total = sum(sizes.values())
    return {owner: by * size / total for owner, size in sizes.items()}


class _Claim(NamedTuple):
    """The claim of a strategy on a contract: its leg, and from when on it counts."""

    leg: ActiveContract
    begin: datetime
    is_of_order: bool = False

    @property
    def owner(self) -> str:
        """Return the strategy."""
        return str(self.leg.strategy_id)

    @property
    def size(self) -> float:
        """Return how much it claims, with its sign; 0: all, whatever that is."""
        return self.leg.quantity or 0.0

    @property
    def rank(self) -> tuple[bool, bool, bool]:
        """Return its place: first is that of its order, what goes on, what names the account."""
        return not self.is_of_order, self.leg.removed_at is not None, self.leg.account is None

    def covers(self, movement: Movement) -> bool:
        """Return whether the contract was a leg at the time of a movement."""
        at = moment_of(movement)
        if self.leg.removed_at is not None and at > self.leg.removed_at + SLACK:
            return False
        if self.leg.since is not None and movement.day >= self.leg.since:
            return True
        return at >= self.begin


class _Holding:
    """A holding of an account: its movements in order, and what each owner has of it."""

    def __init__(
        self,
        movements: Sequence[Movement],
        legs: Iterable[ActiveContract],
        opening: Opening,
        holdings: _Holdings,
        has: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        self._holdings = holdings
        self._movements = movements
        self._opening = opening
        self.first = opening.contract or movements[0]
        if opening.quantity and not has:
            self.first = _prior_of(self.first, opening)
        self.key = self.first.key
        in_order = sorted(legs, key=attrgetter("added_at"))
        accounts = (None, self.key[0])
        self._claims = [self._claim_of(leg) for leg in in_order if leg.account in accounts]
        self._has: _Shares = dict(has)
        self._last_owners: _Shares = {}
        # Whether it was not known whose a close was, since all of it was gone last.
        self._is_guess = False
        self._parts: list[Posting] = []
        self._progress = self._divided()

    def parts(self) -> list[Posting]:
        """Return the parts of all movements."""
        self.divide()
        return self._parts

    def divide(self, until: str | None = None) -> None:
        """Divide its movements that are not divided yet, all of them or until one."""
        if getgeneratorstate(self._progress) == GEN_RUNNING:
            return  # it would wait for itself: nothing says what was first
        for divided in self._progress:
            if divided == until:
                return

    def _divided(self) -> Generator[str, None, None]:
        """Divide one movement after the other, and yield its id."""
        if self._opening.quantity and not self._has:
            self._open_prior()

        for movement in self._movements:
            by = movement.quantity
            if by is None and movement.kind not in INCOME:
                self._lose_track(movement)
            elif not by or movement.kind in INCOME:
                self._pay(movement)
            elif movement.kind is MovementKind.CORPORATE_ACTION or self._holdings.carries(movement):
                self._reorganize(movement, by)
            else:
                self._move(movement, by)
            yield movement.movement_id

    @property
    def is_traded_alone(self) -> bool:
        """Return whether nothing but trades moved it."""
        return all(movement.kind is MovementKind.TRADE for movement in self._movements)

    @cached_property
    def steps(self) -> list[_Step]:
        """The movements, each with what is held around it."""
        changes = (movement.change for movement in self._movements)
        held = [*accumulate(changes, _rounded_sum, initial=self._opening.quantity)]
        days = [movement.session_date for movement in self._movements]
        at_end_of = dict(zip(days, held[1:], strict=True))
        at_end = [at_end_of[day] for day in days]
        return [*map(_Step, self._movements, held, held[1:], at_end)]

    @cached_property
    def _at_end_of(self) -> dict[date, float]:
        """What is held at the end of each day with a movement."""
        return {step.movement.session_date: step.after for step in self.steps}

    def held_at(self, at: datetime) -> float:
        """Return what is held at a moment."""
        held = self._opening.quantity
        for step in self.steps:
            if moment_of(step.movement) > at:
                break
            held = step.after
        return held

    def _claim_of(self, leg: ActiveContract) -> _Claim:
        """Return the claim of a leg; one on what is held already has it from when it was opened."""
        added = leg.added_at - SLACK
        if leg.since is not None:
            return _Claim(leg, added)

        opened = moment_of(self.first)
        for step in self.steps:
            at = moment_of(step.movement)
            if at >= added:
                break
            if not step.after:
                opened = added
            elif step.before * step.after <= 0:
                opened = at
        return _Claim(leg, min(opened, added))

    def origin_of(self, movement: Movement) -> _Origin:
        """Return who had it when an action brought another contract for it."""
        at = moment_of(movement)
        parts_of = grouped(attrgetter("owner"), (part for part in self._parts if part.at <= at))
        held = {}
        for owner, of_owner in parts_of.items():
            size = sum(part.quantity for part in of_owner)
            if rounded(size):
                held[owner] = size
        opened = [part for owner in held for part in parts_of[owner] if part.opens]
        return _Origin(opened, held)

    @property
    def place(self) -> tuple[bool, datetime, bool, float, Key]:
        """Return its place in the order: options first, and what an action brought after others.

        What a strategy claims a part of comes after what one has alone, first what it has had alone
        for longer; what several claim is last.
        """
        is_option = any(movement.is_option for movement in (self.first, *self._movements))
        brought = filter(self._holdings.brings, self._movements)
        at = min(map(moment_of, brought), default=NEVER)
        return not is_option, at, self._is_shared, -self._claimed_in_part_since, self.key

    def orders_alone(self) -> Iterator[tuple[str, str]]:
        """Yield each order that traded it with its strategy, where one alone ever claims it."""
        if self._is_shared:
            return
        for movement in self._movements:
            if movement.kind is MovementKind.TRADE and movement.order_id is not None:
                for owner in {claim.owner for claim in self._claims if claim.covers(movement)}:
                    yield movement.order_id, owner

    @cached_property
    def _is_shared(self) -> bool:
        """Whether several strategies claim it, at any time."""
        return len({claim.owner for claim in self._claims}) > 1

    @property
    def _claimed_in_part_since(self) -> float:
        """The time from which on more was held than is claimed; one without a quantity claims all.

        Claims count from when they begin until what is held then is gone.
        """
        are_sized = self._claims and all(claim.size for claim in self._claims)
        claimed: dict[tuple[str, str | None], float] = {}
        for step in self.steps if are_sized else ():
            if not step.before:
                claimed = {}
            for claim in self._claims:
                if claim.covers(step.movement):
                    claimed[claim.owner, claim.leg.account] = abs(claim.size)
            if claimed and max(abs(step.before), abs(step.after)) > sum(claimed.values()):
                return moment_of(step.movement).timestamp()
        return math.inf

    @property
    def _total(self) -> float:
        return rounded(sum(self._has.values()))

    def _open_prior(self) -> None:
        """Divide what was held before the first movement to those that claim it."""
        prior = self.first
        openers = self._openers(prior, prior.change, {})
        unclear = None
        if prior.cash is None:
            unclear = (
                f"what {name_of(prior)} cost is not known: it was held before its first movement"
            )
        self._add_parts(prior, Effect.OPENS, openers, unclear=unclear, is_prior=True)

    def _move(self, movement: Movement, by: float) -> None:
        """Divide a movement: first it closes what is held on the other side, then it opens."""
        total = self._total
        self._is_guess = self._is_guess and total != 0
        origin = self._holdings.origin_of(movement)
        closed = 0.0
        if total * by < 0:
            closed = by
            if abs(by) >= abs(total) - QUANTITY_ROUNDING:
                closed = -total
            self._close(movement, closed, origin)

        opened = by - closed
        if rounded(opened):
            self._open(movement, opened, origin)

    def _close(self, movement: Movement, by: float, origin: _Origin) -> None:
        closers = self._closers(movement, by, origin.sizes)
        unclear = None
        if closers is None:
            unclear = f"it is not known whose {name_of(movement)} closed on {movement.day}"
            self._is_guess = True
            closers = self._as_claimed(movement, by)
        self._add_parts(
            movement,
            Effect.CLOSES,
            closers,
            origin,
            unclear=unclear,
            is_owner_unclear=unclear is not None,
        )

    def _as_claimed(self, movement: Movement, by: float) -> _Shares:
        """Return a close of unknown owner so that what it leaves is as it is claimed, if it can."""
        left = self._openers(movement, self._total + by, {})
        closed = {owner: left.get(owner, 0.0) - held for owner, held in self._has.items()}
        has_no_new_owner = left.keys() <= closed.keys()
        if has_no_new_owner and all(part * by >= 0 for part in closed.values()):
            return closed
        return _divided(by, self._has)

    def _closers(
        self, movement: Movement, by: float, delivered_to: Mapping[str, float]
    ) -> _Shares | None:
        """Return whose a close was; None: not known."""
        if len(self._has) == 1:
            return dict.fromkeys(self._has, by)

        of_order = self._holdings.traders[movement.order_id] & self._has.keys()
        for owner in of_order if len(of_order) == 1 else ():
            if abs(self._has[owner]) >= abs(by) - QUANTITY_ROUNDING:
                return {owner: by}

        is_all = not rounded(by + self._total)
        if is_all or not self._at_end_of[movement.session_date]:
            return _divided(by, self._has)
        if not delivered_to:
            return None
        shares = _divided(by, delivered_to)
        for owner, share in shares.items():
            held = self._has.get(owner, 0.0)
            if held * share >= 0 or abs(held) < abs(share) - QUANTITY_ROUNDING:
                return None
        return shares

    def _open(self, movement: Movement, by: float, origin: _Origin) -> None:
        # The broker's cost counts before the value that the transfer states.
        if movement is self._of_known_cost:
            movement = replace(movement, cash=times(self._opening.cost, -movement.change))

        receivers = self._receivers(movement, by, origin)
        unclear = None
        is_owner_unclear = (
            not origin.sizes and movement.kind in DELIVERY_KINDS and not movement.is_option
        )
        if is_owner_unclear:
            unclear = f"it is not known which option delivered {name_of(movement)}"
        elif movement.kind is MovementKind.UNEXPLAINED:
            unclear = f"what {name_of(movement)} cost is not known: no movement brought it"
        self._add_parts(
            movement,
            Effect.OPENS,
            receivers,
            origin,
            unclear=unclear,
            is_owner_unclear=is_owner_unclear,
        )

    @cached_property
    def _of_known_cost(self) -> Movement | None:
        """What a transfer brought first, if the broker says what it had cost."""
        if self._opening.quantity or self._opening.cost is None:
            return None
        for movement in self._movements:
            if movement.kind is MovementKind.TRANSFER:
                return movement
        return None

    def _receivers(self, movement: Movement, by: float, origin: _Origin) -> _Shares:
        """Return whose it is that came: of those who had what it came from, or who claim it."""
        if origin.sizes:
            return _divided(by, origin.sizes)
        of_order = self._holdings.openers[movement.order_id]
        return self._openers(movement, by, self._has, of_order)

    def _openers(
        self, movement: Movement, by: float, before: _Shares, of_order: Set[str] = frozenset()
    ) -> _Shares:
        """Return whose an opening is: of those that claim a quantity, as far as they lack it.

        The strategy of the order comes first. Claims that go on come before those that ended, and
        those that name the account before others; of one rank, they share what is there by their
        quantities. One that names no account claims in each its part of what all hold.

        Args:
            before: What each owner has before.
            of_order: The strategies whose other legs its order traded.
        """
        newest = self._claims_on(movement, of_order)
        for claim in newest:
            if claim.is_of_order and claim.leg.quantity is None:
                return {claim.owner: by}

        sized = [claim for claim in newest if claim.size * by > 0]
        held = sum(before.values()) + by

        openers: _Shares = defaultdict(float)
        claimed: _Shares = defaultdict(float)
        unclaimed = by
        for _rank, of_rank in groupby(sorted(sized, key=_RANK), _RANK):
            for claim in of_rank:
                part = 1.0
                if claim.leg.account is None:
                    part = self._part_of_accounts(movement, held)
                claimed[claim.owner] += claim.size * part

            lacking = {}
            for owner, size in claimed.items():
                missing = size - before.get(owner, 0.0) - openers[owner]
                if rounded(missing) * by > 0:
                    lacking[owner] = missing

            if total := sum(lacking.values()):
                fraction = min(1.0, unclaimed / total)
                for owner, missing in lacking.items():
                    openers[owner] += missing * fraction
                unclaimed -= total * fraction

        if rounded(unclaimed):
            # Of claims on the whole, what goes on comes before what ended last.
            whole = [claim for claim in newest if claim.leg.quantity is None]
            active = [claim for claim in whole if claim.leg.removed_at is None]
            takers = [claim.owner for claim in active or whole[-1:]] or [UNATTRIBUTED]
            for owner in takers:
                openers[owner] += unclaimed / len(takers)
        return {owner: quantity for owner, quantity in openers.items() if quantity}

    def _claims_on(self, movement: Movement, of_order: Set[str]) -> Sequence[_Claim]:
        """Return the claims at a movement; one that ended before another began is of no order."""
        covering = [claim for claim in self._claims if claim.covers(movement)]
        newest = [*{(claim.owner, claim.leg.account): claim for claim in covering}.values()]
        if len(of_order) != 1:
            return newest
        last = max((claim.leg.added_at for claim in newest), default=NEVER)
        return [
            claim._replace(
                is_of_order=claim.owner in of_order
                and (claim.leg.removed_at is None or claim.leg.removed_at > last)
            )
            for claim in newest
        ]

    def _part_of_accounts(self, movement: Movement, held: float) -> float:
        """Return which part of what all accounts hold this one has, which then holds so much."""
        at = moment_of(movement)
        everywhere = abs(held)
        for holding in self._holdings.of_contract[self.key[1]]:
            if holding is not self:
                everywhere += max(0.0, math.copysign(1.0, held) * holding.held_at(at))
        return abs(held) / everywhere if everywhere else 1.0

    def _reorganize(self, movement: Movement, by: float) -> None:
        """Divide what a corporate action took, brought or changed by what the owners have."""
        total = self._total
        if not total or self._holdings.exchange_of(movement).gone:
            self._arrive(movement, by)
            return

        after = rounded(total + by)
        is_turned = total * after < 0  # more was taken than is known to have been held
        is_split = after and movement.type in SPLITS
        effect = Effect.CLOSES
        if movement.movement_id in self._holdings.left:
            effect = Effect.LEAVES
        elif not is_turned and (total * by > 0 or is_split):
            effect = Effect.KEEPS

        unclear = None
        if is_turned or (effect is Effect.CLOSES and self._is_lost(movement)):
            unclear = f"what {name_of(movement)} became by a corporate action is not known"
        self._add_parts(movement, effect, _divided(by, self._has), unclear=unclear)

    def _arrive(self, movement: Movement, by: float) -> None:
        """Divide what an action brought: for a contract that it took, or for nothing.

        The cost of what came for one that is still held is not known, but that it paid nothing is.
        """
        origin = self._holdings.origin_of(movement)
        is_for_what_is_held = self._holdings.exchange_of(movement).parent is not None
        if is_for_what_is_held and self._claims and origin.sizes.keys() <= {UNATTRIBUTED}:
            origin = _Origin()

        receivers = self._receivers(movement, by, origin)
        effect = Effect.OPENS
        unclear = None
        if origin.sizes and movement.type != _RIGHTS:
            effect = Effect.COMES
        elif movement.type != _RIGHTS:
            unclear = f"what {name_of(movement)} cost is not known: a corporate action brought it"
        for left, owner in product(self._holdings.exchange_of(movement).gone, receivers):
            reason = self._holdings.why_lost(left.key, owner, left)
            if reason:
                self._lose(owner, movement, reason)
        self._add_parts(movement, effect, receivers, origin, unclear=unclear)

    def _lose(self, owner: str, movement: Movement, reason: str) -> None:
        """Keep that it is not known, from a movement on, how much an owner has."""
        self._holdings.lost_since.setdefault((self.key, owner), (moment_of(movement), reason))

    def _is_lost(self, movement: Movement) -> bool:
        """Return whether it is not known what came for what an action took."""
        paid_later = (
            step.cash or 0.0
            for step in self._movements
            if self._paid_for.get(step.movement_id) == movement.movement_id
        )
        paid = known_sum([movement.cash, *paid_later])
        if paid is None or movement.type == _WORTHLESS:
            return False
        return not _is_sold(movement, paid)

    @cached_property
    def _paid_for(self) -> dict[str, str]:
        """The movements whose cash has a row of its own, by the id of that row.

        That may come before or after it: on its day of a settlement, days later of an action. An
        adjusted commission has one if its words name one trade alone.
        """
        paid_for = {}
        for payment in self._movements:
            is_adjustment = _is_adjustment(payment)
            if payment.quantity or (payment.kind in INCOME and not is_adjustment):
                continue

            ends = [end for end in self._movements if end.quantity and _is_paid_by(payment, end)]
            if len(ends) == 1 or (ends and not is_adjustment):
                paid_for[payment.movement_id] = min(
                    ends, key=partial(_days_between, payment)
                ).movement_id
        return paid_for

    def _pay(self, movement: Movement) -> None:
        """Divide cash of a holding among its owners, or the last ones."""
        effect = Effect.PAYS
        if movement.kind in INCOME and not _is_adjustment(movement):
            effect = Effect.EARNS
        pays_for = self._paid_for.get(movement.movement_id)
        paid_for = [
            part
            for part in self._parts
            if part.movement.movement_id == pays_for and not part.is_prior
        ]
        owners = _sizes_of(paid_for) or self._has or self._last_owners or {UNATTRIBUTED: 1.0}
        total = sum(owners.values())
        for owner, held in owners.items():
            self._add(movement, effect, owner, fraction=held / total, pays_for=pays_for)

    def _lose_track(self, movement: Movement) -> None:
        """Make the money of all owners unknown: it is not known what a movement changed.

        Nor is, from then on, what they close.
        """
        text = f"the quantity of {name_of(movement)} of {movement.day} is not known"
        claiming = [claim.owner for claim in self._claims]
        for owner in dict.fromkeys([*self._has] or claiming or [UNATTRIBUTED]):
            self._add(movement, Effect.LOSES, owner, unclear=text)
            self._lose(owner, movement, text)

    def _add_parts(
        self,
        movement: Movement,
        effect: Effect,
        shares: _Shares,
        origin: _Origin = _Origin(),  # noqa: B008 - it is frozen
        unclear: str | None = None,
        **said: Any,
    ) -> None:
        self._last_owners = dict(self._has)
        whole = movement.change
        for owner, quantity in shares.items():
            sources = [part for part in origin.parts if part.owner == owner] or origin.parts
            why_lost = None
            if effect is Effect.CLOSES:
                why_lost = self._holdings.why_lost(self.key, owner, movement)
            self._add(
                movement,
                effect,
                owner,
                quantity / whole,
                quantity,
                came_from=tuple(part.posting_id for part in sources),
                unclear=unclear or why_lost,
                **said,
            )
            self._holdings.remember(self._parts[-1], is_guess=self._is_guess)

    def _add(
        self,
        movement: Movement,
        effect: Effect,
        owner: str,
        fraction: float = 0.0,
        quantity: float = 0.0,
        **said: Any,
    ) -> None:
        """Add the part of an owner; without a quantity it has of the money alone."""
        self._parts.append(
            Posting(
                owner=owner,
                movement=movement,
                effect=effect,
                fraction=fraction,
                quantity=quantity,
                **said,
            )
        )
        self._has[owner] = self._has.get(owner, 0.0) + quantity
        if not rounded(self._has[owner]):
            del self._has[owner]


def _prior_of(first: Movement, opening: Opening) -> Movement:
    """Return what was held before a first movement, as one of when it was seen."""
    at = min(filter(None, (moment_of(first), opening.seen_at)))
    day = exchange_date(at)
    return replace(
        first,
        kind=MovementKind.TRADE,
        quantity=opening.quantity,
        cash=times(opening.cost, -opening.quantity),
        fee=0.0,
        order_id=None,
        at=at,
        day=day,
        session_date=day,
    )


def _order_of(movement: Movement) -> tuple[datetime, bool, float, str]:
    """Return the sort key; of one moment, what opened or was delivered comes first.

    What an action sells of what it brings is less than that.
    """
    is_settled = movement.kind is MovementKind.CASH_SETTLEMENT and not movement.is_option
    is_action = movement.kind is MovementKind.CORPORATE_ACTION
    size = abs(movement.change) if is_action else 0.0
    is_late = is_settled or movement.open_close == CLOSED
    return moment_of(movement), is_late, -size, movement.movement_id


def _history(movements: Iterable[Movement], held: Opening | None) -> tuple[Opening, list[Movement]]:
    """Return what was held before the first movement of a holding, and its movements in order."""
    in_order = sorted(map(_paid_in_kind, movements), key=_order_of)
    taken_back = cancelled_ids(in_order)
    counting = [movement for movement in in_order if movement.movement_id not in taken_back]
    return opening_of(counting, held), counting


def _paid_in_kind(movement: Movement) -> Movement:
    """Return a movement whose cash is what it was worth to its owner: of a transfer its value."""
    if movement.kind is not MovementKind.TRANSFER:
        return movement
    return replace(movement, cash=times(movement.value, -1.0))


def _is_adjustment(movement: Movement) -> bool:
    """Return whether it is cash that corrects what a trade cost."""
    return (movement.type or "").lower() == COMMISSION_ADJUSTMENTS


def _is_paid_by(movement: Movement, end: Movement) -> bool:
    """Return whether a row without a quantity is the cash of what another one did."""
    if _is_adjustment(movement):
        # As the broker names a trade: Refund (DGS, 10, 2022-10-26).
        named = f" {digits(abs(end.change))}, {end.day})"
        is_trade = end.kind is MovementKind.TRADE and end.currency == movement.currency
        return is_trade and (movement.description or "").endswith(named)
    if end.kind is not movement.kind:
        return False
    if None not in (end.action_id, movement.action_id):
        return end.action_id == movement.action_id
    is_near = end.type == movement.type and _days_between(end, movement) <= BOOKED
    is_action = movement.kind is MovementKind.CORPORATE_ACTION
    return end.day == movement.day or (is_action and is_near)
