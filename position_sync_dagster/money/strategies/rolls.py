"""Rolls: positions that were traded away, and those that took their places; pure."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from operator import attrgetter

from position_sync_dagster.domain.holding import Key, grouped
from position_sync_dagster.domain.instrument import contract_name
from position_sync_dagster.domain.position_change import PositionChange
from position_sync_dagster.money.past.closes import SLACK, Cause, Closure
from position_sync_dagster.money.past.movements import Movement, MovementKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Roll:
    """A position that was traded away, and the one that took its place.

    Attributes:
        quantity: What was rolled, with its sign.
        complete: Whether nothing of the closed position is left.
        opened: The change that opened the other contract.
    """

    account: str
    at: datetime
    closed_conid: int
    closed_name: str
    quantity: float
    complete: bool
    opened: PositionChange

    @property
    def opened_name(self) -> str:
        """Return the new contract as a trader writes it."""
        return contract_name(self.opened)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnclearRoll:
    """Positions that were closed and opened; it is unclear which replaced which."""

    account: str
    closed: tuple[PositionChange, ...]
    opened: tuple[PositionChange, ...]

    def __str__(self) -> str:
        """Return which positions these are, for people."""
        closed = " and ".join(sorted(map(contract_name, self.closed)))
        opened = " and ".join(sorted(map(contract_name, self.opened)))
        return f"it is not clear which of {opened} took the place of {closed} of {self.account}"


@dataclass(slots=True, eq=False, kw_only=True)
class TradedChange:
    """A change of a quantity with the trades that made it.

    Attributes:
        trades: In order of time; each has one.
        openings: Of a close: what was opened of the same terms in another contract.
        successors: What of these may have taken its place, by the id of the change.
    """

    change: PositionChange
    trades: list[Movement]
    openings: Sequence["TradedChange"] = ()
    successors: dict[str, "TradedChange"] = field(default_factory=dict)

    @property
    def change_id(self) -> str:
        """The id of the change."""
        return self.change.change_id

    @property
    def orders(self) -> set[str]:
        """The permanent ids of the orders of the trades."""
        return {trade.order_id for trade in self.trades if trade.order_id is not None}

    @property
    def times(self) -> list[datetime]:
        """The times of the trades."""
        return [trade.at for trade in self.trades if trade.at is not None]


# What the old and the new contract of a roll have in common: account, underlying, type, right and
# quantity.
_Terms = tuple[object, ...]


def rolls_of(
    closures: Iterable[Closure],
    changes: Iterable[PositionChange],
    movements: Iterable[Movement],
    within: timedelta,
) -> tuple[list[Roll], list[UnclearRoll]]:
    """Return the rolls, oldest first, and what may be one.

    Both sides have the same account, underlying, type and right, and equal quantities. They have
    the same order, or trades that lie near each other. A position takes the place of at most one
    other, and at most one takes its place. If several fit, the one of the same order counts;
    without such a position the roll is unclear.

    Args:
        closures: The causes that count.
        movements: Those of the contracts; only trades with a time make a roll.
        within: How far apart the trades of two orders may be.
    """
    causes: defaultdict[str, set[Cause]] = defaultdict(set)
    for closure in closures:
        causes[closure.change_id].add(closure.cause)

    traded_changes: list[TradedChange] = []
    timed = [
        movement
        for movement in movements
        if movement.kind is MovementKind.TRADE and movement.at is not None
    ]
    trades = grouped(attrgetter("key"), sorted(timed, key=attrgetter("at", "movement_id")))
    for change in sorted(changes, key=attrgetter("seen_at", "change_id")):
        if causes[change.change_id] <= {Cause.TRADED}:
            made_by = trades_of(change, trades[change.key])
            traded_changes.append(TradedChange(change=change, trades=made_by))

    merged = _merged_by_order(traded_changes)
    closes = [side for side in merged if causes[side.change_id] and side.trades]
    _find_successors(closes, merged, within)
    return _decided(closes)


def trades_of(change: PositionChange, trades: Iterable[Movement]) -> list[Movement]:
    """Return those of a holding's trades, in order of time, that may have made a change."""
    begin = (change.since or change.seen_at) - SLACK
    end = change.seen_at + SLACK
    return [
        trade
        for trade in trades
        if trade.at is not None
        and begin <= trade.at <= end
        and (trade.quantity or 0.0) * change.by > 0
    ]


def _merged_by_order(sides: Iterable[TradedChange]) -> list[TradedChange]:
    """Return the changes; consecutive ones of a contract by one order are merged."""
    merged: list[TradedChange] = []
    last_of: dict[Key, TradedChange] = {}
    for side in sides:
        last = last_of.get(side.change.key)
        if last is None or not _continues(last, side):
            last_of[side.change.key] = side
            merged.append(side)
            continue

        first = last.change
        last.change = replace(side.change, before=first.before, since=first.since)
        last.trades = list(dict.fromkeys((*last.trades, *side.trades)))
    return merged


def _continues(first: TradedChange, then: TradedChange) -> bool:
    """Return whether two changes are parts of one order that was filled in parts."""
    is_one_order = len(then.orders) == 1 and then.orders == first.orders
    is_next = then.change.before == first.change.after
    is_same_way = then.change.by * first.change.by > 0
    return is_one_order and is_next and is_same_way


def _terms_of(change: PositionChange, quantity: float) -> _Terms:
    return change.account, change.symbol, change.sec_type, change.right, quantity


def _find_successors(
    closes: Sequence[TradedChange], sides: Iterable[TradedChange], within: timedelta
) -> None:
    """Find what may have taken the place of each close: by its order, else by the time."""
    opened = [side for side in sides if side.trades and side.change.before * side.change.after >= 0]
    openings_of = grouped(lambda side: _terms_of(side.change, side.change.by), opened)

    taken: set[str] = set()
    for close in closes:
        openings = openings_of[_terms_of(close.change, close.change.closed)]
        close.openings = [
            opening for opening in openings if opening.change.conid != close.change.conid
        ]
        close.successors = {
            opening.change_id: opening
            for opening in close.openings
            if opening.orders & close.orders
        }
        taken |= close.successors.keys()

    for close in closes:
        if close.successors:
            continue
        for opening in close.openings:
            apart = (abs(at - then) for at in close.times for then in opening.times)
            if opening.change_id not in taken and min(apart) <= within:
                close.successors[opening.change_id] = opening


def _decided(closes: Sequence[TradedChange]) -> tuple[list[Roll], list[UnclearRoll]]:
    """Return a roll for each close with one successor of its own; the others are unclear."""
    predecessors: defaultdict[str, dict[str, TradedChange]] = defaultdict(dict)
    for close in closes:
        for change_id in close.successors:
            predecessors[change_id][close.change_id] = close

    rolls: list[Roll] = []
    unclear: dict[frozenset[str], UnclearRoll] = {}
    for close in closes:
        openings = list(close.successors.values())
        rivals: dict[str, TradedChange] = {}
        for opening in openings:
            rivals |= predecessors[opening.change_id]

        if len(openings) == 1 and len(rivals) == 1:
            rolls.append(_roll(close, openings[0]))
        elif openings:
            change_ids = frozenset((*rivals, *close.successors))
            closed = [rival.change for rival in rivals.values()]
            opened = [opening.change for opening in openings]
            unclear[change_ids] = UnclearRoll(
                account=close.change.account, closed=tuple(closed), opened=tuple(opened)
            )
    return rolls, list(unclear.values())


def _roll(close: TradedChange, opening: TradedChange) -> Roll:
    return Roll(
        account=close.change.account,
        at=max(opening.times),
        closed_conid=close.change.conid,
        closed_name=contract_name(close.change),
        quantity=close.change.closed,
        complete=close.change.after == 0,
        opened=opening.change,
    )
