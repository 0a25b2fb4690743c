"""By what holdings differ from their movements, decided once: UNEXPLAINED; pure."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import accumulate
from math import copysign
from operator import attrgetter
from typing import NamedTuple

from polars import DataFrame, coalesce, col, concat, min_horizontal

from position_sync_dagster.domain.clock import A_DAY
from position_sync_dagster.domain.exchange_time import NEW_YORK
from position_sync_dagster.domain.holding import KEY, Key, grouped
from position_sync_dagster.money.past.closes import NOT_VALUED, SLACK
from position_sync_dagster.money.past.movement_sources import unexplained_movement
from position_sync_dagster.money.past.movements import (
    BOOKED,
    Movement,
    MovementKind,
    lead_of,
    moment_of,
    rounded,
)
from position_sync_dagster.money.past.opening import Seen

# What ends all that is held of a contract.
_LEAVING_NOTHING = frozenset({MovementKind.EXPIRATION, MovementKind.CASH_SETTLEMENT})


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


class _Moved(NamedTuple):
    """Movements with one tolerance, in order, and sums of what they bring and what they take.

    Attributes:
        tolerance: How far from its moment one may be seen.
    """

    tolerance: timedelta
    moments: Sequence[datetime]
    brought: Sequence[float]
    taken: Sequence[float]

    def until(self, at: datetime) -> int:
        """Return how many of them are not later than a moment."""
        return bisect_right(self.moments, at)

    def since(self, at: datetime) -> int:
        """Return how many of them are earlier than a moment."""
        return bisect_left(self.moments, at)

    def came(self, first: int, end: int) -> float:
        """Return what some of them bring."""
        return self.brought[max(first, end)] - self.brought[first]

    def went(self, first: int, end: int) -> float:
        """Return what some of them take, which is negative."""
        return self.taken[max(first, end)] - self.taken[first]


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
    held = sorted(stated, key=attrgetter("at"))
    if not held:
        return []
    differences = _Comparison(before, movements).differences(held)
    return [unexplained_movement(contract, each.by, each.at) for each in differences if each.by]


class _Comparison:
    """What is held beside what movements make.

    A trade may be seen a little earlier or later. What the broker books may be seen days later, but
    is not waited for once all that is explained was held. It may also have been seen days earlier:
    what differed until then differs no more.

    Attributes:
        _settled: How many bookings were seen, the oldest first.
        _found: What differs, so far.
        _unexplained: The sum of it.
    """

    def __init__(self, before: float, movements: Sequence[Movement]) -> None:
        changing = [movement for movement in movements if movement.change]
        self._moments = [*map(moment_of, changing)]
        self._sums = [*accumulate(map(attrgetter("change"), changing), initial=before)]

        by_tolerance = grouped(_tolerance_of, changing)
        self._booked = _moved(BOOKED, by_tolerance[BOOKED])
        self._bookings = by_tolerance[BOOKED]
        self._traded = [_moved(each, by_tolerance[each]) for each in (SLACK, A_DAY)]
        self._settled = 0
        self._found: list[_Difference] = []
        self._unexplained = 0.0

    def differences(self, stated: Sequence[Held]) -> list[_Difference]:
        """Return the differences that remain.

        Args:
            stated: What the broker said, in order.
        """
        for held in stated:
            self._compare(held)
        self._replace()
        return self._found

    def _compare(self, held: Held) -> None:
        """Find what differs since the statement before."""
        explained = self._sums[bisect_right(self._moments, held.at)]
        by = rounded(held.quantity - explained - self._unexplained)
        less, more = self._traded_near(held)
        if by and less <= by <= more:
            return  # what differed before is no other for it

        booked = self._booked.until(held.at)
        is_exact = not by or any(each.by == -by for each in self._found)
        if is_exact:
            self._settled = max(self._settled, booked)
        else:
            waiting = max(self._settled, self._booked.since(held.at - BOOKED))
            more -= self._booked.went(waiting, booked)
            less -= self._booked.came(waiting, booked)
            by = rounded(by - max(less, min(by, more)))
        self._add(held.at, by)

    def _traded_near(self, held: Held) -> tuple[float, float]:
        """Return by how much less, and more, may be held by trades seen earlier, later or not."""
        less = more = 0.0
        for moved in self._traded:
            first = moved.since(held.at - moved.tolerance)
            middle = moved.until(held.at)
            end = moved.until(held.until + moved.tolerance)
            more += moved.came(middle, end) - moved.went(first, middle)
            less += moved.went(middle, end) - moved.came(first, middle)
        return less, more

    def _add(self, at: datetime, by: float) -> None:
        """Add a difference, or take it from those of the other direction, the latest first."""
        self._unexplained += by
        opposite = [each for each in self._found if by and each.by == -by]
        if opposite:
            self._found.remove(opposite[-1])
            return

        while self._found and self._found[-1].by * by < 0:
            last = self._found.pop()
            by = rounded(by + last.by)
            if by * last.by > 0:
                at = last.at
        if by:
            self._found.append(_Difference(at, by))

    def _replace(self) -> None:
        """Take what was booked for what differed before it: nothing says that it still differs.

        What expires leaves nothing: where something is left, the other part went without a cause.
        """
        for booking in self._bookings[self._settled :]:
            if booking.kind in _LEAVING_NOTHING and rounded(self._sums[-1]):
                continue

            left = booking.change
            for number, each in enumerate(self._found):
                if each.by * left > 0 and _may_be(booking, each):
                    part = copysign(min(abs(each.by), abs(left)), left)
                    self._found[number] = each._replace(by=rounded(each.by - part))
                    left = rounded(left - part)


def _may_be(booking: Movement, difference: _Difference) -> bool:
    """Return whether what was booked may have been seen before.

    An action is booked whenever the broker gets to it.
    """
    at = moment_of(booking)
    is_action = booking.kind is MovementKind.CORPORATE_ACTION and booking.change == difference.by
    return difference.at < at and (is_action or at <= difference.at + BOOKED)


def _moved(tolerance: timedelta, movements: Sequence[Movement]) -> _Moved:
    """Return movements, in order, with their sums."""
    changes = [movement.change for movement in movements]
    return _Moved(
        tolerance=tolerance,
        moments=[*map(moment_of, movements)],
        brought=[*accumulate((max(change, 0.0) for change in changes), initial=0.0)],
        taken=[*accumulate((min(change, 0.0) for change in changes), initial=0.0)],
    )


def _tolerance_of(movement: Movement) -> timedelta:
    """Return how far from its moment it may be seen."""
    return max(lead_of(movement), SLACK)


def held_of(movements: DataFrame, seen: Seen) -> DataFrame:
    """Return how much was held when it changed, as the broker said it; pure.

    That is what was held at closes, and right before and after each change that the gateway showed.

    Args:
        movements: Rows of `movements`.
        seen: What tables have of the holdings.
    """
    # There are two clocks: what was traded then may have an earlier time.
    before = seen.changes.with_columns(position="before", until=coalesce("since", "seen_at"))
    before = before.with_columns(at=col.until - SLACK)
    after = seen.changes.with_columns(position="after", at="seen_at", until="seen_at")
    closes = seen.daily.join(movements, on=KEY, how="semi")
    closes = closes.with_columns(at=min_horizontal("timestamp", "closed_at"))
    day = col.at.dt.convert_time_zone(str(NEW_YORK)).dt.truncate("1d")
    closes = closes.with_columns(until=day.dt.offset_by("1d").dt.convert_time_zone("UTC"))

    columns = [*KEY, "position", "at", "until"]
    stated = concat([rows.select(*columns, "sec_type") for rows in (before, after, closes)])
    return stated.filter(~col.sec_type.is_in(NOT_VALUED)).select(columns)


def held_in(rows: DataFrame) -> dict[Key, list[Held]]:
    """Return what rows of `held_of` state of each holding."""
    return {
        (account, conid): [Held(*row) for row in of_key]
        for (account, conid), of_key in rows.rows_by_key(KEY).items()
    }
