"""Rolls: a position that was closed, and as much of another contract opened for it; pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

from position_sync_dagster.domain.closures import Cause, Closure, PositionChange
from position_sync_dagster.domain.instrument import leg_name
from position_sync_dagster.domain.statement import Execution, current_executions


@dataclass(frozen=True, slots=True, kw_only=True)
class Roll:
    """A position that was traded away, and the one that took its place.

    Attributes:
        roll_id: The permanent id of the combo order, or an id of the executions.
        quantity: What was rolled, with its sign.
        complete: Whether nothing of the closed position is left.
        opened: The change that opened the other contract.
    """

    roll_id: str
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
        one = self.opened
        return leg_name(one.symbol, one.right, one.strike, one.expiry)


def rolls_of(
    closures: Iterable[Closure],
    changes: Iterable[PositionChange],
    executions: Iterable[Execution],
    within: timedelta,
) -> list[Roll]:
    """Return the rolls, oldest first.

    Both sides are of one order, or their executions lie near each other; and they are of one
    account, underlying, type and right, with equal quantities. Each position takes one place: where
    two might, the one of the same order, else neither.

    Args:
        closures: The causes that count.
        within: How far apart the executions of two orders may be.
    """
    by_id = {one.change_id: one for one in changes}
    made = current_executions(executions)
    of_change = {
        change_id: [one for one in made if _is_of(one, change)]
        for change_id, change in by_id.items()
    }
    found: list[Roll] = []
    taken: set[str] = set()
    traded = {one.change_id for one in closures if one.cause is Cause.TRADED}
    other = {one.change_id for one in closures if one.cause is not Cause.TRADED}
    closed = [by_id[name] for name in traded - other if name in by_id]
    for change in sorted(closed, key=lambda one: (one.seen_at, one.change_id)):
        sold = of_change[change.change_id]
        fitting = [
            one
            for one in by_id.values()
            if one.change_id not in taken and _fits(change, one) and of_change[one.change_id]
        ]
        orders = {one.order_id for one in sold} - {None}
        same = [
            one
            for one in fitting
            if orders & {other.order_id for other in of_change[one.change_id]}
        ]
        near = [one for one in fitting if _gap(sold, of_change[one.change_id]) <= within]
        chosen = same or near
        if len(chosen) != 1:
            continue
        bought = of_change[chosen[0].change_id]
        ids = sorted(one.execution_id for one in (*sold, *bought))
        common = sorted(orders & {one.order_id for one in bought} - {None}, key=str)
        found.append(
            Roll(
                roll_id=str(common[0]) if common else sha256(repr(ids).encode()).hexdigest()[:16],
                account=change.account,
                at=max(one.time for one in bought),
                closed_conid=change.conid,
                closed_name=leg_name(change.symbol, change.right, change.strike, change.expiry),
                quantity=change.closed,
                complete=change.after == 0,
                opened=chosen[0],
            )
        )
        taken.add(chosen[0].change_id)
    return found


SLACK = timedelta(minutes=2)


def _is_of(one: Execution, change: PositionChange) -> bool:
    """Return whether an execution is one of those that made a change."""
    begin = (change.since or change.seen_at) - SLACK
    return (
        (one.account, one.conid) == change.key
        and begin <= one.time <= change.seen_at + SLACK
        and one.change * change.by > 0
    )


def _fits(closed: PositionChange, opened: PositionChange) -> bool:
    """Return whether one contract may have taken the place of the other."""
    return (
        opened.conid != closed.conid
        and opened.before * opened.after >= 0
        and opened.by == closed.closed
        and (opened.account, opened.symbol, opened.sec_type, opened.right)
        == (closed.account, closed.symbol, closed.sec_type, closed.right)
    )


def _gap(some: Iterable[Execution], others: Iterable[Execution]) -> timedelta:
    """Return the time between the nearest executions of two groups."""
    listed = list(others)
    gaps = [abs(one.time - other.time) for one in some for other in listed]
    return min(gaps, default=timedelta.max)
