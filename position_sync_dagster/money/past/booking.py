"""Booking: which openings a close takes, and where cost goes; pure.

One function with two groupings: by owner, for strategies, and by account, as the broker matches.
They differ where several own one contract: of one's close the account takes what was opened first,
whoever had it. Neither is used for the other.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from itertools import chain
from math import copysign
from operator import attrgetter
from typing import NamedTuple

from position_sync_dagster.domain.holding import Key, grouped
from position_sync_dagster.money.past.movements import known_sum, rounded, times
from position_sync_dagster.money.past.postings import Effect, Posting, name_of


class EdgeKind(StrEnum):
    """How a posting is joined to what was opened before.

    CLOSES: it took it, and realised. CAME_FROM: it has its cost and its day. PAYS: money alone.
    EARNS: income alone.
    """

    CLOSES = "CLOSES"
    CAME_FROM = "CAME_FROM"
    PAYS = "PAYS"
    EARNS = "EARNS"


class Share(NamedTuple):
    """How much of what a posting moved, with that part of its money.

    Attributes:
        posting: Of what is held: the posting that opened it first.
        quantity: With its sign.
        cash: What it brought after fees; None: not known.
        fees: Positive was paid; None: not known.
        why_unknown: Why its money is not known.
        brought_by: The posting that brought it last, by a corporate action; None: it is as it was
            opened.
        paid: Of what left for something else: what was paid for that, below 0; it is cost of it.
    """

    posting: Posting
    quantity: float
    cash: float | None
    fees: float | None
    why_unknown: str | None = None
    brought_by: Posting | None = None
    paid: float = 0.0

    @property
    def key(self) -> Key:
        """Return account and conid of what is held."""
        return (self.brought_by or self.posting).key

    def part(self, quantity: float) -> "Share":
        """Return the part of it that has so much."""
        if quantity == self.quantity:
            return self
        fraction = quantity / self.quantity
        cash = times(self.cash, fraction)
        return self._replace(quantity=quantity, cash=cash, fees=times(self.fees, fraction))

    def with_all(self, shares: Sequence["Share"]) -> "Share":
        """Return it with what several have, itself among them."""
        return self._replace(
            quantity=_quantity_of(shares),
            cash=known_sum(share.cash for share in shares),
            fees=known_sum(share.fees for share in shares),
            why_unknown=next((share.why_unknown for share in shares if share.why_unknown), None),
        )

    @property
    def nothing(self) -> "Share":
        """Return nothing of it: the opening of money alone."""
        return self._replace(quantity=0.0, cash=0.0, fees=0.0, why_unknown=None)

    def unknown(self, why: str | None) -> "Share":
        """Return it with unknown money."""
        return self._replace(cash=None, fees=None, why_unknown=self.why_unknown or why)


class Edge(NamedTuple):
    """What a posting did to a part of what was opened before.

    Attributes:
        opened: That part, as it was held; None of money alone.
        by: The part of the posting: what it closed or paid, or what came for it.
    """

    kind: EdgeKind
    opened: Share | None
    by: Share

    @property
    def gain(self) -> float | None:
        """What it realised; None: not known."""
        if self.kind is EdgeKind.CAME_FROM:
            return 0.0
        if self.opened is None:
            return self.by.cash
        return known_sum([self.opened.cash, self.by.cash])


Group = Hashable


def of_owner(posting: Posting) -> Group:
    """Return the grouping by owner."""
    return posting.owner, posting.key


def of_account(posting: Posting) -> Group:
    """Return the grouping by account."""
    return posting.key


@dataclass(slots=True, eq=False, kw_only=True)
class Booking:
    """What closes took, and what is left.

    Attributes:
        edges: In order of time.
        held: What is held of each group, the first one first.
    """

    edges: list[Edge] = field(default_factory=list)
    held: defaultdict[Group, deque[Share]] = field(default_factory=lambda: defaultdict(deque))


def booked(
    postings: Iterable[Posting],
    group_of: Callable[[Posting], Group],
    *,
    is_pooled: bool = False,
) -> Booking:
    """Return what closes took of what was opened before.

    Args:
        postings: All of each group.
        group_of: `of_owner`, or `of_account`.
        is_pooled: Whether what is held of a group has one average cost; else what was opened first
            closes first.
    """
    entries = _entries(postings, group_of)
    booker = _Booker(is_pooled=is_pooled)
    for entry in entries:
        if entry.effect is Effect.LEAVES:
            names = map(attrgetter("posting_id"), entry.postings)
            booker.departures |= dict.fromkeys(names, _Departure(entry.at))

    arrivals = [entry for entry in entries if entry.effect is Effect.COMES]
    brought = {(entry.group, entry.at) for entry in arrivals}
    for entry in arrivals:
        for departure in booker.left_for(entry):
            departure.arrived[entry.group] += entry.share.quantity

    def order_of(entry: _Entry) -> tuple[datetime, int]:
        """Return the sort key: what comes is after what left for it, and before what it sells."""
        if entry.effect is Effect.COMES:
            return max(map(attrgetter("at"), (entry, *booker.left_for(entry)))), 1
        is_sold_of_it = entry.effect is Effect.CLOSES and (entry.group, entry.at) in brought
        return entry.at, 2 if is_sold_of_it else 0

    for entry in sorted(entries, key=order_of):
        booker.add(entry)
    return booker


class _Entry(NamedTuple):
    """The postings of one movement in one group.

    Attributes:
        share: All of them as one.
    """

    group: Group
    share: Share
    postings: Sequence[Posting]

    @property
    def effect(self) -> Effect:
        """Return what they do to what is held."""
        return self.share.posting.effect

    @property
    def at(self) -> datetime:
        """Return when they did it."""
        return self.share.posting.at


@dataclass(slots=True, eq=False)
class _Departure:
    """What left for something else.

    Attributes:
        arrived: How much came for it of each group.
        taken: What it took.
    """

    at: datetime
    arrived: defaultdict[Group, float] = field(default_factory=lambda: defaultdict(float))
    taken: Sequence[Share] = ()


def _entries(postings: Iterable[Posting], group_of: Callable[[Posting], Group]) -> list[_Entry]:
    """Return the entries of postings, with the money that is a part of each."""
    is_by_account = group_of is of_account

    def movement_in_group(posting: Posting) -> tuple[Group, str, bool]:
        return (
            group_of(posting),
            posting.pays_for or posting.movement.movement_id,
            posting.is_prior,
        )

    return [
        _Entry(group, _whole(of_movement, is_by_account=is_by_account), of_movement)
        for (group, *_movement), of_movement in grouped(movement_in_group, postings).items()
    ]


def _whole(postings: Sequence[Posting], *, is_by_account: bool) -> Share:
    """Return the postings of one movement as one."""
    shares = [_share_of(posting, is_by_account=is_by_account) for posting in postings]
    if len(shares) == 1:
        return shares[0]
    return max(shares, key=lambda share: abs(share.quantity)).with_all(shares)


def _share_of(posting: Posting, *, is_by_account: bool) -> Share:
    """Return all of a posting; of an account it is known whose it was."""
    why_unknown = posting.unknown
    if is_by_account and posting.is_owner_unclear:
        why_unknown = posting.why_no_money
    if why_unknown is not None:
        return Share(posting, posting.quantity, None, None, why_unknown)
    fees = posting.fee_in(posting.currency) or 0.0
    return Share(posting, posting.quantity, (posting.cash or 0.0) - fees, fees)


@dataclass(slots=True, eq=False, kw_only=True)
class _Booker(Booking):
    """Books one entry after the other.

    Attributes:
        departures: By the ids of what left.
    """

    is_pooled: bool
    departures: dict[str, _Departure] = field(default_factory=dict)

    def left_for(self, entry: _Entry) -> Iterable[_Departure]:
        """Return what left for what came."""
        names = chain.from_iterable(posting.came_from for posting in entry.postings)
        return dict.fromkeys(filter(None, map(self.departures.get, names)))

    def add(self, entry: _Entry) -> None:
        """Book what a movement did to what is held of a group."""
        share = entry.share
        match entry.effect:
            case Effect.OPENS | Effect.CLOSES:
                self._trade(entry)

            case Effect.KEEPS:
                held = self.held[entry.group]
                total = _quantity_of(held)
                ratio = (total + share.quantity) / total if total else 1.0
                self._bring(entry, held, ratio)

            case Effect.LEAVES:
                self._leave(entry)
            case Effect.COMES:
                self._come(entry)
            case Effect.EARNS:
                self._pay(share, EdgeKind.EARNS)
            case Effect.PAYS:
                self._pay(share)
            case Effect.LOSES:
                self._lose(entry)
                self._pay(share)

    def _trade(self, entry: _Entry) -> None:
        """Close what is held on the other side, and open what is left."""
        held = self.held[entry.group]
        share = entry.share
        while held and held[0].quantity * share.quantity < 0:
            first = held.popleft()
            size = min(abs(first.quantity), abs(share.quantity))
            closing = share.part(copysign(size, share.quantity))
            opened = first.part(-closing.quantity)
            self.edges.append(Edge(kind=EdgeKind.CLOSES, opened=opened, by=closing))

            still_held = first.quantity + closing.quantity
            if rounded(still_held):
                held.appendleft(first.part(still_held))
            if not rounded(share.quantity - closing.quantity):
                break
            share = share.part(share.quantity - closing.quantity)
        else:
            self._open(held, share)

        if share.posting.is_owner_unclear and entry.group != of_account(share.posting):
            self._lose(entry)

    def _open(self, held: deque[Share], share: Share) -> None:
        if self.is_pooled and held:
            pool = held.pop()
            share = pool.with_all([pool, share])
        held.append(share)

    def _pay(self, share: Share, kind: EdgeKind = EdgeKind.PAYS) -> None:
        """Record money that changed no quantity, or that it is not known what changed."""
        if share.cash != 0:
            self.edges.append(Edge(kind=kind, opened=None, by=share._replace(quantity=0.0)))

    def _lose(self, entry: _Entry) -> None:
        """Make unknown what is held of a group."""
        why = entry.share.why_unknown
        self.held[entry.group] = deque(opened.unknown(why) for opened in self.held[entry.group])

    def _leave(self, entry: _Entry) -> None:
        """Take, in proportion, what goes to what comes for it."""
        held = self.held[entry.group]
        total = _quantity_of(held)
        fraction = min(1.0, -entry.share.quantity / total) if total else 0.0
        taken = _paying(entry, _parts_of(held, fraction))
        self.departures[entry.postings[0].posting_id].taken = taken
        kept = _parts_of(held, 1.0 - fraction)
        self.held[entry.group] = deque(part for part in kept if rounded(part.quantity))
        self._receive(entry)

    def _come(self, entry: _Entry) -> None:
        """Bring what has the cost and the day of what left for it."""
        left = self.left_for(entry)
        taken = [opened for departure in left for opened in departure.taken]
        total = _quantity_of(taken)
        if not total or any(len(departure.arrived) > 1 for departure in left):
            why = (
                f"what {name_of(entry.share.posting.movement)} cost is not known: "
                "a corporate action brought it"
            )
            self._open(self.held[entry.group], entry.share.unknown(why))
            return

        # It may come in several rows.
        whole = max((departure.arrived[entry.group] for departure in left), key=abs)
        arrived = _parts_of(taken, entry.share.quantity / whole)
        self._bring(entry, arrived, whole / total)

    def _receive(self, entry: _Entry) -> None:
        """Realise what an action paid beside what it brings; what is paid for that is its cost."""
        if entry.share.cash is None or entry.share.cash > 0:
            self._pay(entry.share)

    def _bring(self, entry: _Entry, shares: Iterable[Share], ratio: float) -> None:
        """Hold instead of some shares so many times as much, at their cost."""
        held = self.held[entry.group]
        opened = _paying(entry, shares)
        if entry.effect is Effect.KEEPS:
            held.clear()
        for share in opened:
            brought = share._replace(
                quantity=share.quantity * ratio,
                cash=known_sum([share.cash, share.paid]),
                brought_by=entry.share.posting,
                paid=0.0,
            )
            self.edges.append(Edge(kind=EdgeKind.CAME_FROM, opened=share, by=brought))
            self._open(held, brought)

        # It keeps its day: what was opened first closes first, whatever was held before it came.
        self.held[entry.group] = deque(sorted(held, key=attrgetter("posting.at")))
        self._receive(entry)


def _quantity_of(shares: Iterable[Share]) -> float:
    """Return how much some shares have together."""
    return sum(share.quantity for share in shares)


def _parts_of(shares: Iterable[Share], fraction: float) -> list[Share]:
    """Return such a part of each share."""
    return [share.part(share.quantity * fraction) for share in shares]


def _paying(entry: _Entry, shares: Iterable[Share]) -> list[Share]:
    """Return shares with what an entry paid for what comes for them, by their quantities."""
    paid = min(entry.share.cash or 0.0, 0.0)
    shares = [*shares]
    total = _quantity_of(shares)
    if not paid or not total:
        return shares
    return [share._replace(paid=share.paid + paid * share.quantity / total) for share in shares]
