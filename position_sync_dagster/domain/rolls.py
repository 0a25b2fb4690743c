"""Rolls: a position that was closed, and as much of another contract opened for it; pure."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256

from position_sync_dagster.domain.broker_position import Key
from position_sync_dagster.domain.closures import Cause, Closure, PositionChange
from position_sync_dagster.domain.instrument import contract_name
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
        return contract_name(self.opened)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnclearRoll:
    """Positions that were traded away, and those of which it is not clear which place they took."""

    account: str
    closed: tuple[PositionChange, ...]
    opened: tuple[PositionChange, ...]

    def __str__(self) -> str:
        """Return who they are, for people."""
        gone, new = (
            " and ".join(sorted(map(contract_name, ones))) for ones in (self.closed, self.opened)
        )
        return f"it is not clear which of {new} took the place of {gone} of {self.account}"


def rolls_of(
    closures: Iterable[Closure],
    changes: Iterable[PositionChange],
    executions: Iterable[Execution],
    within: timedelta,
) -> tuple[list[Roll], list[UnclearRoll]]:
    """Return the rolls, oldest first, and what may be one.

    Both sides are of one order, or their executions lie near each other; and they are of one
    account, underlying, type and right, with equal quantities. Each position takes one place: where
    two might, or where it might take two, the one of the same order, else none.

    Args:
        closures: The causes that count.
        within: How far apart the executions of two orders may be.
    """
    made = current_executions(executions)
    other = {one.change_id for one in closures if one.cause is not Cause.TRADED}
    traded = {one.change_id for one in closures if one.cause is Cause.TRADED} - other
    sides = _in_one_order(
        _Side(one, [execution for execution in made if _is_of(execution, one)])
        for one in sorted(changes, key=lambda one: (one.seen_at, one.change_id))
        if one.change_id not in other
    )
    closed = [side for side in sides if side.change.change_id in traded]
    opened = [side for side in sides if side.executions]
    fitting = [[new for new in opened if _fits(old.change, new.change)] for old in closed]
    same = [
        [new for new in found if old.orders & new.orders]
        for old, found in zip(closed, fitting, strict=True)
    ]
    taken = {new.change.change_id for found in same for new in found}
    choices = [
        ordered
        or [
            new
            for new in found
            if new.change.change_id not in taken and _gap(old.executions, new.executions) <= within
        ]
        for old, found, ordered in zip(closed, fitting, same, strict=True)
    ]
    wanted = Counter(new.change.change_id for found in choices for new in found)
    rolls: list[Roll] = []
    unclear: dict[tuple[str, ...], UnclearRoll] = {}
    for old, found in zip(closed, choices, strict=True):
        if len(found) == 1 and wanted[found[0].change.change_id] == 1:
            rolls.append(_roll(old, found[0]))
        elif found:
            ids = {new.change.change_id for new in found}
            rivals = tuple(
                one.change
                for one, theirs in zip(closed, choices, strict=True)
                if ids & {new.change.change_id for new in theirs}
            )
            key = (*(one.change_id for one in rivals), *sorted(ids))
            unclear[key] = UnclearRoll(
                account=old.change.account,
                closed=rivals,
                opened=tuple(new.change for new in found),
            )
    return rolls, list(unclear.values())


@dataclass(frozen=True, slots=True)
class _Side:
    """A change, and the executions that made it."""

    change: PositionChange
    executions: list[Execution]

    @property
    def orders(self) -> set[str]:
        return {one.order_id for one in self.executions if one.order_id is not None}


def _in_one_order(sides: Iterable[_Side]) -> list[_Side]:
    """Return the changes; those of a contract that follow each other under one order are one."""
    found: list[_Side] = []
    last_of: dict[Key, int] = {}
    for side in sides:
        place = last_of.get(side.change.key)
        before = found[place] if place is not None else None
        if (
            place is not None
            and before is not None
            and len(side.orders) == 1
            and side.orders == before.orders
            and side.change.before == before.change.after
            and side.change.by * before.change.by > 0
        ):
            change = replace(side.change, before=before.change.before, since=before.change.since)
            both = {one.execution_id: one for one in (*before.executions, *side.executions)}
            found[place] = _Side(change, list(both.values()))
            continue
        last_of[side.change.key] = len(found)
        found.append(side)
    return found


def _roll(old: _Side, new: _Side) -> Roll:
    ids = sorted(one.execution_id for one in (*old.executions, *new.executions))
    common = sorted(old.orders & new.orders)
    return Roll(
        roll_id=common[0] if common else sha256(repr(ids).encode()).hexdigest()[:16],
        account=old.change.account,
        at=max(one.time for one in new.executions),
        closed_conid=old.change.conid,
        closed_name=contract_name(old.change),
        quantity=old.change.closed,
        complete=old.change.after == 0,
        opened=new.change,
    )


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
