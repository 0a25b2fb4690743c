"""The holdings at the close of past days: own rows, completed by a source of stated positions.

`values_at_close` decides which row of the ledger is the value at a close, and how old it may be.
"""

from collections.abc import Collection, Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import ClassVar, Generic

import polars as pl
from polars import DataFrame, Expr, col, lit, when

from position_sync_dagster.domain import streamed_holding
from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.exchange_time import beginning_of
from position_sync_dagster.domain.holding import GREEKS_COLUMNS
from position_sync_dagster.domain.position_update import GreeksSource, ValueOrigin
from position_sync_dagster.domain.reconciliation import Discrepancy
from position_sync_dagster.errors import PositionSyncError, UnreadableSourceError
from position_sync_dagster.lake.lake import L, Lake
from position_sync_dagster.lake.schema import DAILY_POSITIONS
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.confirmations import OF_BROKER
from position_sync_dagster.sync.exchange_days import closing_times, time_zone_of

# Maximum age of the row that has the value at a close, in days: a long weekend.
VALUE_BACK_DAYS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedDay:
    """The rows of one trading day, from the ledger and from a source of stated positions.

    Attributes:
        rows: In the schema of `daily_positions`.
        of_source: What the source says of the day besides its rows, for the event.
    """

    closed_at: datetime
    rows: DataFrame
    of_source: Mapping[str, int | str] = field(default_factory=dict)
    differences: tuple[Discrepancy, ...] = ()


@dataclass(slots=True)
class ClosedDays:
    """The result for each requested day.

    Attributes:
        skipped: Why a day has no rows: it is not over, or neither the ledger nor the source has
            anything of it.
        unreadable: The errors of what the source cannot read.
    """

    filled: dict[date, ClosedDay] = field(default_factory=dict)
    skipped: dict[date, str] = field(default_factory=dict)
    unreadable: tuple[PositionSyncError, ...] = ()


@dataclass(eq=False, repr=False)
class ClosingService(Generic[L]):
    """Collects the rows of past trading days, and records what differs.

    A subclass has a source of stated positions, such as files of the broker, which fills the gaps
    of the ledger. This one has none.

    Attributes:
        assets: The assets that the source reads.
        source_name: The breaks of a day are recorded under it.
        remedy: What a person does about a span of days that the source does not have.

    Example:
        days = ClosingService(lake, settings).collect([date(2026, 3, 5)])
    """

    assets: ClassVar[tuple[str, ...]] = ()
    source_name: ClassVar[str] = "stated"
    remedy: ClassVar[str] = ""

    lake: L
    settings: Settings
    _: KW_ONLY
    clock: Clock = utc_now

    @classmethod
    def days_of_anyone(cls, settings: Settings) -> set[date]:
        """Return the days of which the source says something, of whatever account.

        The days that Dagster offers begin at the first of them.
        """
        return set()

    def stated_days(self) -> set[date]:
        """Return the days of which the source says something of this lake."""
        return set()

    def unreadable(self) -> tuple[PositionSyncError, ...]:
        """Return the errors of what cannot be read, and may say something of any day."""
        return ()

    def completed(
        self, rows: DataFrame, day: date, *, opened: datetime, closed: datetime
    ) -> ClosedDay | None:
        """Return the rows of the ledger of a day with what the source says; None if it is silent.

        Raises:
            UnreadableSourceError: It cannot be read.
        """
        return None

    def collect(self, days: Collection[date]) -> ClosedDays:
        """Return the rows of each day, or why there are none; nothing is written.

        Raises:
            NoTradingDayError: One of the days is no trading day.
            UnreadableSourceError: A day has no source, and what may be its source cannot be read,
                or is of a foreign account.
        """
        now = self.clock()
        closes = closing_times(self.settings.calendar, days)
        unreadable = self.unreadable()
        result = ClosedDays(unreadable=unreadable)
        for day in sorted(days):
            if closes[day] > now:
                result.skipped[day] = f"it closes at {closes[day]:%Y-%m-%d %H:%M} UTC"
                continue

            closed_day = self._day(day, closes[day])
            if closed_day is not None:
                result.filled[day] = closed_day
                continue

            # What cannot be read may be the source of this day.
            if unreadable:
                raise unreadable[0]
            result.skipped[day] = "no row of the ledger is of this day, and nothing is stated of it"
        return result

    def flat_days(self, days: Collection[date]) -> set[date]:
        """Return those of the days that have no rows because nothing was held, as the source says.

        It returns none while something cannot be read: that may say that something was held. For
        no days the source is not read.
        """
        if not days:
            return set()
        try:
            filled = self.collect(self.stated_days().intersection(days)).filled
        except UnreadableSourceError:
            return set()
        return {day for day, closed_day in filled.items() if closed_day.rows.is_empty()}

    def record_differences(self, days: Mapping[date, ClosedDay], run_id: str | None = None) -> None:
        """Open, confirm and resolve the breaks of days."""
        for day, closed_day in days.items():
            self.lake.breaks.record(
                {f"{self.source_name}:{day}": closed_day.differences}, self.clock(), run_id=run_id
            )

    def _day(self, day: date, closed: datetime) -> ClosedDay | None:
        """Return what ledger and source have of a day; None if neither has anything of it."""
        opened = beginning_of(day, time_zone_of(self.settings.calendar))
        rows = values_at_close(self.lake, day, opened=opened, closed=closed)
        of_ledger = None if rows.is_empty() else ClosedDay(closed_at=closed, rows=rows)
        # What a subclass makes of them with its source; without one it is None.
        return self.completed(rows, day, opened=opened, closed=closed) or of_ledger


def values_at_close(lake: Lake, day: date, *, opened: datetime, closed: datetime) -> DataFrame:
    """Return the last row at or before a close of each holding held then or closed that day.

    A holding whose last row is older than `VALUE_BACK_DAYS` is left out. Greeks that this package
    computed are left out too: a close has values of the broker alone.

    Args:
        opened: Local midnight at the start of the trading day.
        closed: The close of the exchange on that day.
    """
    was_held = col.position != 0
    is_of_day = col.timestamp >= opened.astimezone(UTC)
    of_close = lake.updates.sync.last_before(closed, VALUE_BACK_DAYS).filter(was_held | is_of_day)

    # A row may have answered requests after it was written: they confirmed its value. Two row
    # intervals are enough: an unchanged value has a row in each.
    span = timedelta(seconds=2 * streamed_holding.MONITORED_ROW_INTERVAL_S)
    confirmed = lake.queue.sync.confirmations(closed - span, closed)
    with_confirmed = of_close.join(confirmed, on="update_id", how="left")

    is_reported = col.greeks_source.ne_missing(GreeksSource.MODEL)
    greeks = [when(is_reported).then(name).alias(name) for name in GREEKS_COLUMNS]
    with_greeks = with_confirmed.with_columns(greeks)

    close = lit(closed)
    age = close - pl.max_horizontal(_valued_at(), "confirmed_at")
    return with_greeks.with_columns(
        session_date=lit(day),
        closed_at=close.dt.cast_time_unit("us"),
        age_s=age.dt.total_milliseconds() / 1000,
    ).select(*DAILY_POSITIONS.columns)


def _valued_at() -> Expr:
    """Return the time of a row's value: the broker's own time if it is earlier than the row.

    A row of the account feed may have been written long after the broker sent its value. Delayed
    and frozen data are older than their rows, by an unknown time where they have none of their own.
    """
    origin = col.value_source
    is_of_feed = origin.is_in(OF_BROKER)
    is_held = col.position != 0
    is_earlier = col.value_time < col.timestamp

    is_of_line = origin == ValueOrigin.TICK
    is_delayed = (col.market_data_type > 1).fill_null(value=False)  # 1: live data
    has_own_time = (is_of_feed & is_held & is_earlier) | (is_of_line & is_delayed)
    return when(has_own_time).then("value_time").otherwise("timestamp")
