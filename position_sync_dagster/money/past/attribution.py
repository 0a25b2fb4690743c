"""To which strategy each movement of a holding belongs; pure.

What opens a holding belongs to the strategies that claim the contract then; what an assignment or
an exercise delivers, to the strategies that had the option, whether or not it is a leg of them;
what a corporate action brings for a contract that it takes, to those who had that one. What closes
belongs to who has it. Where several have a part, a trade that closes all of it, or that is one of
those of a session that do, is divided by what they have; of any other it is not known whose it was,
their profit is unknown, and what is left belongs to those that claim it.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from functools import cached_property
from itertools import groupby
from operator import attrgetter
from types import MappingProxyType
from typing import Any, NamedTuple

from position_sync_dagster.domain.clock import NEVER
from position_sync_dagster.domain.exchange_time import exchange_date
from position_sync_dagster.domain.holding import QUANTITY_ROUNDING, Key, grouped
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
    known_sum,
    moment_of,
    rounded,
    times,
)
from position_sync_dagster.money.past.opening import Opening, opening_of
from position_sync_dagster.money.past.postings import Effect, Posting, name_of

# What may take one thing and bring another for it.
_ACTS = frozenset({MovementKind.CORPORATE_ACTION, MovementKind.TRANSFER})

_OF_NO_HOLDING = OWNERS_CASH | {MovementKind.CONVERSION}

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
) -> list[Posting]:
    """Return the parts of all movements of holdings, each with its owner, in order of time.

    Args:
        movements: Each once; all of each holding. Of what is gone and nothing explains only what
            the others leave counts.
        legs: The legs of strategies, also those that were removed.
        openings: What was held before the first movement, as far as tables have it, also of
            holdings without any.
    """
    of_holdings = (
        movement
        for movement in movements
        if movement.conid is not None and movement.kind not in _OF_NO_HOLDING
    )
    by_key = grouped(attrgetter("key"), of_holdings)
    legs_of = grouped(attrgetter("conid"), legs)
    of_contracts: defaultdict[int, dict[str, _Holding]] = defaultdict(dict)
    sources = _Sources()
    holdings: list[_Holding] = []
    unmoved = [key for key, opening in openings.items() if opening.contract is not None]
    for key in dict.fromkeys([*by_key, *unmoved]):
        account, conid = key
        of_account = [leg for leg in legs_of[conid] if leg.account in (None, account)]
        opening, moved = _history(by_key[key], openings.get(key))
        if moved or opening.contract:
            of_contract = of_contracts[conid]
            holdings.append(_Holding(moved, of_account, opening, sources, of_contract))

    sources.link(holdings)
    parts: list[Posting] = []
    # What options deliver, and what actions bring, belongs to the owners of what they took.
    for holding in sorted(holdings, key=lambda holding: holding.place):
        parts += holding.parts()

    parts += sources.lost()
    return sorted(parts, key=attrgetter("at"))


def unexplained_parts(
    differences: Iterable[Movement], legs: Iterable[ActiveContract], owned: Mapping[Key, _Shares]
) -> list[Posting]:
    """Return whose it is by what holdings of a contract differ from their movements.

    Args:
        differences: One for each account.
        legs: The legs of the contract.
        owned: What each owner has of each holding by its movements.
    """
    of_contract: dict[str, _Holding] = {}
    holdings = []
    for difference in differences:
        has = owned[difference.key]
        of_account = [leg for leg in legs if leg.account in (None, difference.account)]
        opening = Opening(quantity=sum(has.values()))
        holdings.append(_Holding([difference], of_account, opening, _Sources(), of_contract, has))
    return [part for holding in holdings for part in holding.parts()]


class _Acted(NamedTuple):
    """What a corporate action or a transfer did to a holding.

    Attributes:
        before: What was held before it.
        is_rest: Whether nothing is left after it, or at the end of its day.
    """

    movement: Movement
    before: float
    is_rest: bool

    @property
    def takes(self) -> bool:
        """Return whether it took of what was held."""
        return self.before * (self.movement.quantity or 0.0) < 0

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


# Account, day and contract of a delivery.
_Delivered = tuple[str, date, int | None]


@dataclass(slots=True, eq=False)
class _Sources:
    """The ends of options by delivery, and what corporate actions took: whose is what came for it.

    Attributes:
        ends: The ends by account, day and the contract that was delivered.
        arrived: For which of them something arrived.
        replaced: What actions took, and what left for another own account, by the id of the
            movement that brought something for it.
        left: The ids of what something came for.
        taken: The parts of that, by the id of its movement.
        parents: The holding for which an action brought something and took nothing, by the id of
            the movement that brought it.
        unpaired: The ids of what actions took for what is not known.
        traders: Who had what an order traded, apart from contracts that several had.
    """

    ends: dict[_Delivered, list[Posting]] = field(default_factory=dict)
    arrived: set[_Delivered] = field(default_factory=set)
    replaced: dict[str, list[Movement]] = field(default_factory=dict)
    left: set[str] = field(default_factory=set)
    taken: dict[str, list[Posting]] = field(default_factory=dict)
    parents: dict[str, "_Holding"] = field(default_factory=dict)
    unpaired: set[str] = field(default_factory=set)
    traders: defaultdict[str | None, set[str]] = field(default_factory=lambda: defaultdict(set))

    def owners_of_order(self, movement: Movement) -> set[str]:
        """Return who had what else the order of a trade traded."""
        return set() if movement.order_id is None else self.traders[movement.order_id]

    def link(self, holdings: Iterable["_Holding"]) -> None:
        """Find for what contracts corporate actions brought others, and what changed its account.

        An action is known by its id; what that does not join is of one day and wording, or type.
        """
        all_holdings = [*holdings]
        by_kind = grouped(
            lambda step: step.movement.kind,
            [step for holding in all_holdings for step in holding.acted],
        )
        steps = by_kind[MovementKind.CORPORATE_ACTION]
        for name in ("action", "day_and_type"):
            joined = self.left.union(self.replaced)
            others = [step for step in steps if step.movement.movement_id not in joined]
            for action in grouped(attrgetter(name), others).values():
                self._link_action(action)
            # Without an id what took a part may be an action of its own.
            steps = [step for step in steps if step.is_rest or not step.takes]

        for step in steps:
            movement = step.movement
            if not step.takes and not step.before and movement.movement_id not in self.replaced:
                for holding in all_holdings:
                    if holding.is_parent_of(movement):
                        self.parents[movement.movement_id] = holding

        transfers = by_kind[MovementKind.TRANSFER]
        for of_contract in grouped(attrgetter("movement.conid"), transfers).values():
            self._link_transfers(of_contract)

    def _link_transfers(self, steps: Iterable[_Acted]) -> None:
        """Pair what left one account with as much that came to another, of the nearest days.

        Args:
            steps: The transfers of a contract.
        """
        by_way = grouped(attrgetter("takes"), steps)
        leaving = [step.movement for step in by_way[True]]
        for step in by_way[False]:
            arrival = step.movement
            fits = [left for left in leaving if _fits(left, arrival)]
            for left in sorted(fits, key=lambda left: _days_between(left, arrival))[:1]:
                self._pair([arrival], [left])
                leaving.remove(left)

    def _link_action(self, steps: Iterable[_Acted]) -> None:
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
            self.replaced.update((row.movement_id, of_them) for row in rows)

    def add(self, posting: Posting) -> None:
        """Remember the end of an option, or what an action took."""
        movement = posting.movement
        if movement.movement_id in self.left:
            self.taken.setdefault(movement.movement_id, []).append(posting)
        elif posting.is_option and movement.kind in DELIVERY_KINDS and not posting.is_prior:
            delivered = movement.counter_conid or movement.underlying_conid
            place = (movement.account, movement.day, delivered)
            self.ends.setdefault(place, []).append(posting)
        elif posting.is_trade and movement.order_id is not None and posting.fraction == 1.0:
            self.traders[movement.order_id].add(posting.owner)

    def carries(self, movement: Movement) -> bool:
        """Return whether cost leaves with it for something else, or comes with it."""
        name = movement.movement_id
        return name in self.left or bool(self.replaced.get(name))

    def origin_of(self, movement: Movement) -> "_Origin":
        """Return what a movement came from, and who had it."""
        name = movement.movement_id
        if name in self.parents:
            return self.parents[name].origin_of(movement)
        if gone := self.replaced.get(name):
            taken = [posting for left in gone for posting in self.taken.get(left.movement_id, ())]
            is_clear = len(gone) == 1 or _has_one_owner(taken)
            if not is_clear:
                self.unpaired.update(left.movement_id for left in gone)
            return _Origin.of(taken, is_clear=is_clear)
        if not _is_delivery(movement):
            return _Origin()

        place = (movement.account, movement.day, movement.conid)
        ends = self.ends.get(place, [])
        if ends:
            self.arrived.add(place)
        of_option = [end for end in ends if end.movement.conid == movement.counter_conid]
        at_strike = [end for end in ends if end.movement.strike == movement.price]
        is_clear = bool(of_option or at_strike) or _has_one_owner(ends)
        return _Origin.of(of_option or at_strike or ends, is_clear=is_clear)

    def lost(self) -> list[Posting]:
        """Return, for each end of which nothing arrived, that what it left is not known.

        The same of what actions took, where others had what may be the origin of what came.
        """
        delivered = [
            (end, f"what {name_of(end.movement)} delivered is not known")
            for place, ends in self.ends.items()
            if place not in self.arrived
            for end in ends
        ]
        became = [
            (left, f"what {name_of(left.movement)} became by a corporate action is not known")
            for name in sorted(self.unpaired)
            for left in self.taken.get(name, ())
        ]
        return [
            replace(end, effect=Effect.PAYS, quantity=0.0, fraction=0.0, unclear=unclear)
            for end, unclear in (*delivered, *became)
        ]


class _Origin(NamedTuple):
    """What a movement came from.

    Attributes:
        postings: The ends of options that delivered it, or what an action took for it.
        shares: How it is divided among those who had that; None: not known, or it came from none.
    """

    postings: Sequence[Posting] = ()
    shares: _Shares | None = None

    @classmethod
    def of(cls, postings: Sequence[Posting], *, is_clear: bool) -> "_Origin":
        """Return the origin in some postings."""
        return cls(postings, _divided_by(postings) if is_clear else None)

    def of_owner(self, owner: str) -> tuple[str, ...]:
        """Return the ids of the postings of an owner; of all where it had none of them."""
        own = [posting.posting_id for posting in self.postings if posting.owner == owner]
        return tuple(own or (posting.posting_id for posting in self.postings))


def _fits(left: Movement, arrival: Movement) -> bool:
    """Return whether as much came to another account as left one, within a few days."""
    is_as_much = left.quantity == -(arrival.quantity or 0.0)
    is_near = _days_between(left, arrival) <= BOOKED
    return is_as_much and is_near and left.account != arrival.account


def _days_between(one: Movement, other: Movement) -> timedelta:
    return abs(one.day - other.day)


def _is_sold(movement: Movement, cash: float | None) -> bool:
    """Return whether cash is what was got for what a movement took, or paid for it if short."""
    return (cash or 0.0) * (movement.quantity or 0.0) < 0


def _terms_of(movement: Movement) -> tuple[date, float]:
    return movement.expiry or date.max, movement.strike or 0.0


def _has_one_owner(parts: Iterable[Posting]) -> bool:
    return len({part.owner for part in parts}) == 1


def _divided_by(parts: Iterable[Posting]) -> _Shares | None:
    """Return the share of each owner of some parts; None: they are of nothing."""
    sizes: _Shares = defaultdict(float)
    for part in parts:
        sizes[part.owner] += abs(part.quantity)
    total = sum(sizes.values())
    if total:
        return {owner: size / total for owner, size in sizes.items()}
    return None


class _Claim(NamedTuple):
    """The claim of a strategy on a contract: its leg, and from when on it counts."""

    leg: ActiveContract
    begin: datetime

    @property
    def owner(self) -> str:
        """Return the strategy."""
        return str(self.leg.strategy_id)

    def covers(self, movement: Movement) -> bool:
        """Return whether the contract was a leg at the time of a movement."""
        at = moment_of(movement)
        if self.leg.removed_at is not None and at > self.leg.removed_at + SLACK:
            return False
        if self.leg.since is not None and movement.day >= self.leg.since:
            return True
        return at >= self.begin


# A movement, with what was held before and after it.
_Step = tuple[Movement, float, float]


class _Holding:
    """A holding of an account: its movements in order, and what each owner has of it."""

    def __init__(
        self,
        movements: Sequence[Movement],
        legs: Iterable[ActiveContract],
        opening: Opening,
        sources: _Sources,
        of_contract: dict[str, "_Holding"],
        has: _Shares | None = None,
    ) -> None:
        self._sources = sources
        self._movements = movements
        self._opening = opening
        self._prior = opening.quantity
        self._first = opening.contract or movements[0]
        self._claims = _claims_on(legs, self._periods())
        self._of_contract = of_contract
        of_contract[self._first.account] = self
        self._has: _Shares = dict(has or {})
        self._last_owners: _Shares = {}
        self._parts: list[Posting] = []

    def parts(self) -> list[Posting]:
        """Return the parts of all movements."""
        if self._prior and not self._has:
            self._open_prior()

        for movement in self._movements:
            by = movement.quantity
            if by is None and movement.kind not in INCOME:
                self._lose_track(movement)
            elif not by or movement.kind in INCOME:
                self._pay(movement)
            elif movement.kind is MovementKind.CORPORATE_ACTION or self._sources.carries(movement):
                self._reorganize(movement, by)
            else:
                self._move(movement, by)
        return self._parts

    @property
    def _steps(self) -> Iterator[_Step]:
        held = self._prior
        for movement in self._movements:
            before = held
            held = rounded(held + (movement.quantity or 0.0))
            yield movement, before, held

    @cached_property
    def _at_end_of(self) -> dict[date, float]:
        """What is held at the end of each trading day on which something moved."""
        return {movement.session_date: after for movement, _, after in self._steps}

    def held_at(self, at: datetime) -> float:
        """Return what is held at a moment."""
        earlier = [after for step, _, after in self._steps if moment_of(step) <= at]
        return earlier[-1] if earlier else self._prior

    @property
    def acted(self) -> list[_Acted]:
        """The corporate actions and the transfers that changed what is held."""
        if _ACTS.isdisjoint(step.kind for step in self._movements):
            return []
        return [
            _Acted(step, before, not after or not self._at_end_of[step.session_date])
            for step, before, after in self._steps
            if step.kind in _ACTS and step.quantity
        ]

    def is_parent_of(self, movement: Movement) -> bool:
        """Return whether an action brought another contract for it.

        The words of an action begin with the symbol of what it acts on, and its number.
        """
        symbol, _, _number = (movement.description or "").partition("(")
        names = (movement.account, symbol.strip())
        return names == (self._first.account, self._first.symbol) and not self._first.is_option

    def origin_of(self, movement: Movement) -> "_Origin":
        """Return who had it when an action brought another contract for it."""
        at = moment_of(movement)
        parts = [part for part in self._parts if part.at <= at]
        held: _Shares = defaultdict(float)
        for part in parts:
            held[part.owner] += part.quantity
        held = {owner: quantity for owner, quantity in held.items() if rounded(quantity)}
        opened = [part for part in parts if part.opens and part.owner in held]
        return _Origin(opened, _scaled(held, 1.0 / sum(held.values())) if held else None)

    @property
    def place(self) -> tuple[bool, datetime, bool, Key]:
        """Return its place in the order: options first, and what an action brought after others.

        What several strategies claim comes after what one does.
        """
        is_option = any(movement.is_option for movement in (self._first, *self._movements))
        sources = self._sources
        brought = [
            moment_of(step)
            for step in self._movements
            if step.movement_id in sources.replaced or step.movement_id in sources.parents
        ]
        is_shared = len({claim.owner for claim in self._claims}) > 1
        return not is_option, min(brought, default=NEVER), is_shared, self._first.key

    @property
    def _total(self) -> float:
        return rounded(sum(self._has.values()))

    def _periods(self) -> list[tuple[datetime, datetime | None]]:
        """Return from when until when something was held, each time; None: it still is."""
        periods: list[tuple[datetime, datetime | None]] = []
        begin = None
        if self._prior:
            begin = moment_of(self._first)
        for movement, before, after in self._steps:
            if after and not before:
                begin = moment_of(movement)
            elif before and not after and begin is not None:
                periods.append((begin, moment_of(movement)))
                begin = None
        if begin is None:
            return periods
        return [*periods, (begin, None)]

    def _open_prior(self) -> None:
        """Divide what was held before the first movement to those that claim it."""
        prior = self._opening.contract
        if prior is None:
            at = min(filter(None, (moment_of(self._first), self._opening.seen_at)))
            day = exchange_date(at)
            prior = replace(
                self._first,
                kind=MovementKind.TRADE,
                quantity=self._prior,
                cash=times(self._opening.cost, -self._prior),
                fee=0.0,
                order_id=None,
                at=at,
                day=day,
                session_date=day,
            )
        unclear = None
        if prior.cash is None:
            unclear = (
                f"what {name_of(prior)} cost is not known: it was held before its first movement"
            )
        openers = self._openers(prior, self._prior)
        self._add_parts(prior, Effect.OPENS, openers, unclear=unclear, is_prior=True)

    def _move(self, movement: Movement, by: float) -> None:
        """Divide a movement: first it closes what is held on the other side, then it opens."""
        total = self._total
        origin = self._sources.origin_of(movement)
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
        self._last_owners = dict(self._has)
        closers = self._closers(movement, by, origin.shares)
        unclear = None
        if closers is None:
            unclear = f"it is not known whose {name_of(movement)} closed on {movement.day}"
            closers = self._as_claimed(movement, by)
        of_owners = {"unclear": unclear, "is_owner_unclear": unclear is not None}
        self._add_parts(movement, Effect.CLOSES, closers, origin, **of_owners)

    def _divided(self, by: float) -> _Shares:
        """Return a quantity, divided by what the owners have."""
        total = self._total
        return {owner: by * held / total for owner, held in self._has.items()}

    def _as_claimed(self, movement: Movement, by: float) -> _Shares:
        """Return a close of unknown owner so that what it leaves is as it is claimed, if it can."""
        left = self._openers(movement, self._total + by, {})
        closed = {owner: left.get(owner, 0.0) - held for owner, held in self._has.items()}
        has_no_new_owner = left.keys() <= closed.keys()
        is_same_way = all(part * by >= 0 for part in closed.values())
        if has_no_new_owner and is_same_way:
            return closed
        return self._divided(by)

    def _closers(
        self, movement: Movement, by: float, delivered_to: _Shares | None
    ) -> _Shares | None:
        """Return whose a close was; None: not known."""
        if len(self._has) == 1:
            return dict.fromkeys(self._has, by)

        of_order = self._sources.owners_of_order(movement) & self._has.keys()
        for owner in of_order if len(of_order) == 1 else ():
            if abs(self._has[owner]) >= abs(by) - QUANTITY_ROUNDING:
                return {owner: by}

        is_all = not rounded(by + self._total)
        if is_all or not self._at_end_of[movement.session_date]:
            return self._divided(by)
        if delivered_to is None:
            return None
        shares = _scaled(delivered_to, by)
        for owner, share in shares.items():
            held = self._has.get(owner, 0.0)
            if held * share >= 0 or abs(held) < abs(share) - QUANTITY_ROUNDING:
                return None
        return shares

    def _open(self, movement: Movement, by: float, origin: _Origin) -> None:
        transfers = [step for step in self._movements if step.kind is MovementKind.TRANSFER]
        at_cost = times(self._opening.cost, -(movement.quantity or 0.0))
        # The broker's cost counts before the value that the transfer states.
        if transfers[:1] == [movement] and not self._prior and at_cost is not None:
            movement = replace(movement, cash=at_cost)
        if origin.shares is not None:
            self._add_parts(movement, Effect.OPENS, _scaled(origin.shares, by), origin)
            return

        unclear = None
        if _is_delivery(movement):
            unclear = f"it is not known which option delivered {name_of(movement)}"
        of_owners = {"unclear": unclear, "is_owner_unclear": unclear is not None}
        openers = self._openers(movement, by)
        self._add_parts(movement, Effect.OPENS, openers, origin, **of_owners)

    def _openers(self, movement: Movement, by: float, has: _Shares | None = None) -> _Shares:
        """Return whose an opening is: of those that claim a quantity, as far as they lack it.

        Claims that go on come before those that ended, and those that name the account before
        others; of one rank, they share what is there by their quantities. One that names no account
        claims in each its part of what all hold.

        Args:
            has: What each owner has before; None: what it has now.
        """
        before = self._has
        if has is not None:
            before = has
        sized, whole = _counting(claim for claim in self._claims if claim.covers(movement))
        sized = [claim for claim in sized if (claim.leg.quantity or 0.0) * by > 0]
        held = sum(before.values()) + by
        openers: _Shares = defaultdict(float)
        claimed: _Shares = defaultdict(float)
        unclaimed = by
        for _rank, of_rank in groupby(sorted(sized, key=_rank_of), _rank_of):
            for claim in of_rank:
                part = 1.0
                if claim.leg.account is None:
                    part = self._part_of_accounts(movement, held)
                claimed[claim.owner] += (claim.leg.quantity or 0.0) * part

            missing_of = {o: size - before.get(o, 0.0) - openers[o] for o, size in claimed.items()}
            lacking = {owner: missing for owner, missing in missing_of.items() if missing * by > 0}
            total = sum(lacking.values())
            if not total:
                continue

            fraction = min(1.0, unclaimed / total)
            for owner, missing in lacking.items():
                openers[owner] += missing * fraction
            unclaimed -= total * fraction

        if rounded(unclaimed):
            takers = [claim.owner for claim in whole] or [UNATTRIBUTED]
            for owner in takers:
                openers[owner] += unclaimed / len(takers)
        return {owner: quantity for owner, quantity in openers.items() if quantity}

    def _part_of_accounts(self, movement: Movement, held: float) -> float:
        """Return which part of what all accounts hold this one has, which then holds so much."""
        at = moment_of(movement)
        everywhere = abs(held)
        for holding in self._of_contract.values():
            if holding is not self:
                everywhere += max(0.0, math.copysign(1.0, held) * holding.held_at(at))
        return abs(held) / everywhere if everywhere else 1.0

    def _reorganize(self, movement: Movement, by: float) -> None:
        """Divide what a corporate action took, brought or changed by what the owners have."""
        total = self._total
        if not total or self._sources.replaced.get(movement.movement_id):
            self._arrive(movement, by)
            return

        after = rounded(total + by)
        is_turned = total * after < 0  # more was taken than is known to have been held
        keeps = total * by > 0 or (after and movement.type in SPLITS)
        effect = Effect.CLOSES
        if movement.movement_id in self._sources.left:
            effect = Effect.LEAVES
        elif keeps and not is_turned:
            effect = Effect.KEEPS

        unclear = None
        if is_turned or (effect is Effect.CLOSES and self._is_lost(movement)):
            unclear = f"what {name_of(movement)} became by a corporate action is not known"
        self._last_owners = dict(self._has)
        self._add_parts(movement, effect, self._divided(by), unclear=unclear)

    def _arrive(self, movement: Movement, by: float) -> None:
        """Divide what an action brought: for a contract that it took, or for nothing.

        The cost of what came for one that is still held is not known, but that it paid nothing is.
        """
        origin = self._sources.origin_of(movement)
        if movement.movement_id in self._sources.parents and self._claims:
            is_of_nobody = (origin.shares or {}).keys() <= {UNATTRIBUTED}
            origin = _Origin() if is_of_nobody else origin

        if origin.shares is not None and movement.type != _RIGHTS:
            self._add_parts(movement, Effect.COMES, _scaled(origin.shares, by), origin)
            return

        openers = self._openers(movement, by)
        if origin.shares is not None:
            openers = _scaled(origin.shares, by)
        unclear = None
        if movement.type != _RIGHTS:
            unclear = f"what {name_of(movement)} cost is not known: a corporate action brought it"
        self._add_parts(movement, Effect.OPENS, openers, origin, unclear=unclear)

    def _is_lost(self, movement: Movement) -> bool:
        """Return whether it is not known what came for what an action took."""
        paid = known_sum([movement.cash, self._paid_later[movement.movement_id]])
        if paid is None or movement.type == _WORTHLESS:
            return False
        return not _is_sold(movement, paid)

    @cached_property
    def _paid_later(self) -> defaultdict[str | None, float]:
        """What rows without a quantity paid for others."""
        paid: defaultdict[str | None, float] = defaultdict(float)
        for movement in self._movements:
            if not movement.quantity and movement.kind not in INCOME:
                paid[self._paid_for(movement)] += movement.cash or 0.0
        return paid

    def _paid_for(self, movement: Movement) -> str | None:
        """Return the id of the movement whose cash has a row of its own; None: it is not known.

        That may come before or after it: on its day of a settlement, days later of an action.
        """
        of_event = [end for end in self._movements if end.quantity and _is_paid_by(movement, end)]
        nearest = sorted(of_event, key=lambda end: _days_between(end, movement))
        return nearest[0].movement_id if nearest else None

    def _pay(self, movement: Movement) -> None:
        """Divide cash of a holding among its owners, or the last ones."""
        pays_for = None
        effect = Effect.EARNS
        if (movement.type or "").lower() == COMMISSION_ADJUSTMENTS:
            effect = Effect.PAYS
        elif movement.kind not in INCOME:
            effect = Effect.PAYS
            pays_for = self._paid_for(movement)
        paid_for = [part for part in self._parts if part.movement.movement_id == pays_for]
        owners = _divided_by(paid_for) or self._has or self._last_owners or {UNATTRIBUTED: 1.0}
        total = sum(owners.values())
        for owner, held in owners.items():
            self._add(movement, effect, owner, fraction=held / total, pays_for=pays_for)

    def _lose_track(self, movement: Movement) -> None:
        """Make the money of all owners unknown: it is not known what a movement changed."""
        text = f"the quantity of {name_of(movement)} of {movement.day} is not known"
        claiming = [claim.owner for claim in self._claims]
        for owner in dict.fromkeys([*self._has] or claiming or [UNATTRIBUTED]):
            self._add(movement, Effect.LOSES, owner, unclear=text)

    def _add_parts(
        self,
        movement: Movement,
        effect: Effect,
        shares: _Shares,
        origin: _Origin = _Origin(),  # noqa: B008 - it is frozen
        **said: Any,
    ) -> None:
        whole = movement.quantity or 0.0
        for owner, quantity in shares.items():
            fraction = quantity / whole if whole else 1.0 / len(shares)
            came_from = origin.of_owner(owner)
            self._add(movement, effect, owner, fraction, quantity, came_from=came_from, **said)
            self._sources.add(self._parts[-1])

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
        posting = Posting(
            owner=owner,
            movement=movement,
            effect=effect,
            fraction=fraction,
            quantity=quantity,
            **said,
        )
        self._parts.append(posting)
        self._has[owner] = self._has.get(owner, 0.0) + quantity
        if not rounded(self._has[owner]):
            del self._has[owner]


def _scaled(shares: _Shares, by: float) -> _Shares:
    """Return how much of a quantity belongs to each, given the share of each."""
    return {owner: by * share for owner, share in shares.items()}


def _order_of(movement: Movement) -> tuple[datetime, bool, float, str]:
    """Return the sort key; of one moment, what opened or was delivered comes first.

    What an action sells of what it brings is less than that.
    """
    is_settled = movement.kind is MovementKind.CASH_SETTLEMENT and not movement.is_option
    size = 0.0
    if movement.kind is MovementKind.CORPORATE_ACTION:
        size = abs(movement.quantity or 0.0)
    is_late = is_settled or movement.open_close == CLOSED
    return moment_of(movement), is_late, -size, movement.movement_id


def _history(movements: Iterable[Movement], held: Opening | None) -> tuple[Opening, list[Movement]]:
    """Return what was held before the first movement of a holding, and its movements in order.

    What is gone, and nothing explains, is one as far as what is stated leaves it.
    """
    in_order = sorted(map(_paid_in_kind, movements), key=_order_of)
    if taken_back := cancelled_ids(in_order):
        in_order = [movement for movement in in_order if movement.movement_id not in taken_back]
    stated = [movement for movement in in_order if movement.kind is not MovementKind.UNEXPLAINED]
    opening = opening_of(stated, held)
    if len(stated) == len(in_order):
        return opening, stated

    total = opening.quantity + sum(movement.quantity or 0.0 for movement in stated)
    unexplained = [movement for movement in in_order if movement.kind is MovementKind.UNEXPLAINED]
    return opening, sorted([*stated, *_still_held(unexplained, total)], key=_order_of)


def _paid_in_kind(movement: Movement) -> Movement:
    """Return a movement whose cash is what it was worth to its owner: of a transfer its value."""
    if movement.kind is not MovementKind.TRANSFER:
        return movement
    return replace(movement, cash=times(movement.value, -1.0))


def _still_held(unexplained: Iterable[Movement], held: float) -> Iterator[Movement]:
    """Yield what is gone and nothing explains, as far as it is held."""
    for movement in unexplained:
        by = movement.quantity or 0.0
        if rounded(held) * by < 0:
            by = math.copysign(min(abs(held), abs(by)), by)
            held += by
            yield replace(movement, quantity=by)


def _is_paid_by(movement: Movement, end: Movement) -> bool:
    """Return whether a row without a quantity is the cash of what another one did."""
    if end.kind is not movement.kind:
        return False
    if None not in (end.action_id, movement.action_id):
        return end.action_id == movement.action_id
    is_near = end.type == movement.type and _days_between(end, movement) <= BOOKED
    is_action = movement.kind is MovementKind.CORPORATE_ACTION
    return end.day == movement.day or (is_action and is_near)


def _is_delivery(movement: Movement) -> bool:
    return movement.kind in DELIVERY_KINDS and not movement.is_option


def _claims_on(
    legs: Iterable[ActiveContract], periods: Sequence[tuple[datetime, datetime | None]]
) -> list[_Claim]:
    """Return the claims of legs; one on what is held already has it from when it was opened."""
    claims: list[_Claim] = []
    for leg in sorted(legs, key=attrgetter("added_at")):
        added = leg.added_at - SLACK
        opened = [
            begin
            for begin, end in periods
            if begin <= leg.added_at + SLACK and (end is None or end >= added)
        ]
        begin = added
        if leg.since is None:
            begin = min([added, *opened])
        claims.append(_Claim(leg, begin))
    return claims


def _rank_of(claim: _Claim) -> tuple[bool, bool]:
    return claim.leg.removed_at is not None, claim.leg.account is None


def _counting(claims: Iterable[_Claim]) -> tuple[list[_Claim], list[_Claim]]:
    """Return the newest form of each claim: those on a quantity, and those on the whole.

    Of those on the whole, what goes on comes before what ended.

    Args:
        claims: The oldest first.
    """
    newest = {(claim.owner, claim.leg.account): claim for claim in claims}
    is_whole = grouped(lambda claim: claim.leg.quantity is None, newest.values())
    whole = is_whole[True]
    return is_whole[False], [claim for claim in whole if claim.leg.removed_at is None] or whole[-1:]
