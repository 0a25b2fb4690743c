"""Rolled legs: positions that an order traded away, and those that took their places; pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain
from operator import attrgetter

from position_sync_dagster.domain.holding import Key, grouped
from position_sync_dagster.domain.instrument import contract_name
from position_sync_dagster.domain.position_change import PositionChange
from position_sync_dagster.money.past.closes import Cause, Closure, trades_of
from position_sync_dagster.money.past.movements import Movement
from position_sync_dagster.money.past.structures import SERIES, replaces


@dataclass(frozen=True, slots=True, kw_only=True)
class Roll:
    """A position that was traded away by an order, and the one that took its place.

    Attributes:
        closed, opened: One change each; of a roll that is not clear all that may be meant.
        at: When the last trade was made.
        is_clear: Whether it is known which took whose place.
        order: The permanent id of the order.
    """

    closed: tuple[PositionChange, ...]
    opened: tuple[PositionChange, ...]
    at: datetime
    is_clear: bool
    order: str

    @property
    def quantity(self) -> float:
        """What was rolled, with its sign."""
        return self.closed[0].closed

    @property
    def is_complete(self) -> bool:
        """Whether nothing of the closed position is left."""
        return self.closed[0].after == 0

    def __str__(self) -> str:
        """Return which positions may be meant, for people."""
        closed = " and ".join(sorted(map(contract_name, self.closed)))
        opened = " and ".join(sorted(map(contract_name, self.opened)))
        closed += f" of {self.closed[0].account}"
        return f"it is not clear which of {opened} took the place of {closed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TradedChange:
    """A change of a quantity that trades made; the parts of one order are one change.

    Attributes:
        orders: The permanent ids of the orders that may have made it.
        at: When the last trade was made.
    """

    change: PositionChange
    orders: frozenset[str]
    at: datetime

    @property
    def terms(self) -> tuple[object, ...]:
        """What both sides of a roll have in common."""
        change = self.change
        return *SERIES(change), change.closed or change.by

    def with_part(self, before: "TradedChange") -> "TradedChange | None":
        """Return the change with the part before it; None if that is of another order."""
        is_one_order = len(self.orders | before.orders) == 1
        is_next = before.change.after == self.change.before
        if not is_one_order or not is_next or self.change.by * before.change.by < 0:
            return None
        first = before.change
        return replace(self, change=replace(self.change, before=first.before, since=first.since))


def rolled_legs(
    closures: Iterable[Closure], changes: Iterable[PositionChange], movements: Iterable[Movement]
) -> list[Roll]:
    """Return the rolls, oldest first, those that are not clear among them.

    A leg follows one: it is asked of changes seconds old, before they have owners, and one contract
    must have taken the place of one. What an owner rolled is the question of `rolls_of`.

    Both sides have the same order, series and quantity. Where an order closed or opened several of
    the same terms, or several orders closed or opened the same one, the roll is unclear.

    Args:
        closures: The causes that count.
        movements: Those of the contracts; only trades with a time make a roll.
    """
    causes = defaultdict[str, set[Cause]](set)
    for closure in closures:
        causes[closure.change_id].add(closure.cause)

    trades = grouped(attrgetter("key"), movements)
    sides_of: defaultdict[Key, list[TradedChange]] = defaultdict(list)
    for change in sorted(changes, key=attrgetter("seen_at", "change_id")):
        side = _traded(change, trades[change.key])
        if side is None or causes[change.change_id] - {Cause.TRADED}:
            continue

        sides = sides_of[change.key]
        whole = side.with_part(sides[-1]) if sides else None
        if whole is None:
            sides.append(side)
        else:
            sides[-1] = whole

    # The parts of an order that have the same terms.
    parts_of = defaultdict[tuple[str, tuple[object, ...]], list[TradedChange]](list)
    for side in chain.from_iterable(sides_of.values()):
        for order in side.orders:
            parts_of[order, side.terms].append(side)

    rolls: dict[frozenset[str], Roll] = {}
    for (order, _terms), parts in parts_of.items():
        changes_of_order = [side.change for side in parts]
        closed = tuple(change for change in changes_of_order if causes[change.change_id])
        opened = tuple(change for change in changes_of_order if not change.closed)
        if replaces({change.key for change in closed}, {change.key for change in opened}):
            ids = frozenset(change.change_id for change in changes_of_order)
            at = max(side.at for side in parts)
            is_clear = len(closed) == len(opened) == 1
            rolls[ids] = Roll(closed=closed, opened=opened, at=at, is_clear=is_clear, order=order)

    # What two orders closed together has several successors.
    uses = Counter(chain.from_iterable(rolls))
    judged = []
    for ids, roll in rolls.items():
        if any(uses[change_id] > 1 for change_id in ids):
            roll = replace(roll, is_clear=False)
        judged.append(roll)
    return sorted(judged, key=attrgetter("at"))


def _traded(change: PositionChange, trades: Iterable[Movement]) -> TradedChange | None:
    """Return a change with the orders that may have made it; None without any."""
    times = []
    orders = set()
    for trade in trades_of(change, trades):
        if trade.at is not None and trade.order_id is not None:
            times.append(trade.at)
            orders.add(trade.order_id)
    if not orders:
        return None
    return TradedChange(change=change, orders=frozenset(orders), at=max(times))
