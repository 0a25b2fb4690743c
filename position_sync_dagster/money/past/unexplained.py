"""By what holdings differ from their movements, decided once: UNEXPLAINED; pure."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import accumulate
from operator import attrgetter
from typing import NamedTuple

from polars import DataFrame, coalesce, col, concat, min_horizontal

from position_sync_dagster.domain.clock import A_DAY
from position_sync_dagster.domain.exchange_time import NEW_YORK
from position_sync_dagster.domain.holding import KEY, Key
from position_sync_dagster.money.past.closes import NOT_VALUED, SLACK
from position_sync_dagster.money.past.movement_sources import unexplained_movement
from position_sync_dagster.money.past.movements import (
    BOOKED,
    Movement,
    MovementKind,
    moment_of,
    rounded,
)
from position_sync_dagster.money.past.opening import Seen


class Held(NamedTuple):
    """How much the broker said that was held.

    Attributes:
        quantity: With its sign.
        at: When it was held.
        until: Until when it may have been so: a statement has what was held at the end of a day.
    """

    quantity: float
    at: datetime
    until: datetime


class _Difference(NamedTuple):
    """By how much more is held than movements make, with a sign, and when that was seen first."""

    at: datetime
    by: float


def unexplained_of(
    contract: Movement, before: float, movements: Sequence[Movement], stated: Iterable[Held]
) -> list[Movement]:
    """Return what came or went and no movement says, without cash.

    What differs no more is none: a movement came late, or as much is held as before.

    Args:
        contract: A movement of the contract.
        before: What was held before the first movement.
        movements: All of a holding, in order.
        stated: What the broker said of it.
    """
    moments = [*map(moment_of, movements)]
    sums = [*accumulate(map(attrgetter("change"), movements), initial=before)]
    differences: list[_Difference] = []
    for held in sorted(stated, key=attrgetter("at")):
        explained = sums[bisect_right(moments, held.at)] + sum(each.by for each in differences)
        by = rounded(held.quantity - explained)
        if by:
            by = _beyond(by, held, movements)
        at = held.at
        while differences and differences[-1].by * by < 0:
            last = differences.pop()
            by = rounded(by + last.by)
            if by * last.by > 0:
                at = last.at
        if by:
            differences.append(_Difference(at, by))
    return [unexplained_movement(contract, each.by, each.at) for each in differences]


def _beyond(by: float, held: Held, movements: Iterable[Movement]) -> float:
    """Return by how much a holding differs beyond what it may have of movements near it, or not."""
    more = less = 0.0
    for movement in movements:
        at = moment_of(movement)
        tolerance = _tolerance_of(movement)
        if held.at - tolerance <= at <= held.until + tolerance:
            change = movement.change if at > held.at else -movement.change
            more += max(change, 0.0)
            less += min(change, 0.0)
    return rounded(by - max(less, min(by, more)))


def _tolerance_of(movement: Movement) -> timedelta:
    """Return how far from its moment it may be seen."""
    if movement.kind is not MovementKind.TRADE:
        return BOOKED
    return A_DAY if movement.at is None else SLACK


def held_of(movements: DataFrame, seen: Seen, unexplained: DataFrame) -> DataFrame:
    """Return how much was held when it changed, as the broker said it; pure.

    That is what was held right before and after a change at closes, and before each that the
    gateway showed; after it, if no cause of it is known.

    Args:
        movements: Rows of `movements`.
        seen: What tables have of the holdings.
        unexplained: The rows of `closures` of changes without a cause.
    """
    # There are two clocks: what was traded then may have an earlier time.
    before = seen.changes.with_columns(position="before", until=coalesce("since", "seen_at"))
    before = before.with_columns(at=col.until - SLACK)
    gone = seen.changes.join(unexplained, on="change_id", how="semi")
    gone = gone.with_columns(position="after", at="seen_at", until="seen_at")
    closes = seen.daily.join(movements, on=KEY, how="semi")
    closes = closes.with_columns(at=min_horizontal("timestamp", "closed_at"))
    day = col.at.dt.convert_time_zone(str(NEW_YORK)).dt.truncate("1d")
    closes = closes.with_columns(until=day.dt.offset_by("1d").dt.convert_time_zone("UTC"))

    columns = [*KEY, "position", "at", "until"]
    stated = concat([rows.select(*columns, "sec_type") for rows in (before, gone, closes)])
    return stated.filter(~col.sec_type.is_in(NOT_VALUED)).select(columns)


def held_in(rows: DataFrame) -> dict[Key, list[Held]]:
    """Return what rows of `held_of` state of each holding."""
    return {
        (account, conid): [Held(*row) for row in of_key]
        for (account, conid), of_key in rows.rows_by_key(KEY).items()
    }
