"""The holdings at the close of past days: own rows, completed by the broker's statements."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta

import polars as pl

from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.reconciliation import Discrepancy
from position_sync_dagster.domain.statement import FLEX, Statement, StatementPosition
from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.lake.derived import join_rows, stated_rows, values_at_close
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.reports.exchange_days import closing_times, time_zone_of
from position_sync_dagster.sync.statements import StatementFolder, Statements, known_accounts

STATEMENT_BREAKS = "statement:"
"""Prefix of the gateway_id of breaks between rows and a statement; the day follows it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedDay:
    """The rows of one trading day, from the ledger and from statements.

    Attributes:
        rows: In the schema of `daily_positions`.
        written: The number of our own rows that were written on the day.
        stated: The number of rows that come from a statement.
        files: The statements that cover the day.
    """

    closed_at: datetime
    rows: pl.DataFrame
    written: int
    stated: int
    files: tuple[str, ...]
    differences: tuple[Discrepancy, ...]


@dataclass(slots=True)
class ClosedDays:
    """The result for each requested day.

    Attributes:
        skipped: Why a day has no rows: it is not over, or the ledger and the statements have
            nothing of it.
        unreadable: The errors of files in the folder that cannot be read.
    """

    filled: dict[date, ClosedDay] = field(default_factory=dict)
    skipped: dict[date, str] = field(default_factory=dict)
    unreadable: tuple[PositionSyncError, ...] = ()


class _Stated:
    """Positions of the statements by day; of two for one account and day, the newer counts.

    Args:
        types: The security types that are followed; others are left out, as in our own rows.
    """

    def __init__(
        self, statements: Collection[Statement], days: Collection[date], types: Collection[str]
    ) -> None:
        wanted = set(days)
        self.accounts: dict[date, set[str]] = {}
        self.files: dict[date, list[str]] = {}
        self.positions: dict[date, list[tuple[StatementPosition, str]]] = {}
        for one in statements:  # the newest first
            taken: set[tuple[date, str]] = set()
            for day in sorted(one.days & wanted):
                named = {row.account for row in one.positions if row.day == day} | {one.account}
                new = named - self.accounts.setdefault(day, set())
                if new:
                    taken |= {(day, account) for account in new}
                    self.accounts[day] |= new
                    self.files.setdefault(day, []).append(one.file)
            for row in one.positions:
                if (row.day, row.account) in taken and row.sec_type in types:
                    self.positions.setdefault(row.day, []).append((row, one.file))


class ClosingService:
    """Collects the rows of past trading days, and records what differs.

    Example:
        days = ClosingService(lake, settings).collect([date(2026, 3, 5)])
    """

    def __init__(self, lake: Lake, settings: Settings, *, clock: Clock = utc_now) -> None:
        self._lake = lake
        self._settings = settings
        self._clock = clock

    def collect(self, days: Collection[date]) -> ClosedDays:
        """Return the rows of each day, or why there are none; nothing is written.

        Raises:
            NoTradingDayError: One of the days is no trading day.
            StatementError, FlexServiceError: A day has no source, and a file of the folder, which
                may be its source, cannot be read or is of a foreign account.
        """
        now = self._clock()
        closes = closing_times(self._settings.calendar, days)
        read = StatementFolder(self._settings.flex_folder).read()
        concerned = [one for one in read.found if one.days & set(days)]
        read = Statements(found=tuple(concerned), unreadable=read.unreadable)
        if concerned:
            known = known_accounts(self._lake)
            read = read.without_foreign(known, self._settings.trading_mode)
        stated = _Stated(read.found, days, self._settings.sec_types)
        result = ClosedDays(unreadable=read.unreadable)
        zone = time_zone_of(self._settings.calendar)
        for day in sorted(days):
            closed = closes[day]
            if closed > now:
                result.skipped[day] = f"it closes at {closed:%Y-%m-%d %H:%M} UTC"
                continue
            found = self._day(
                day, closed, datetime.combine(day, time(), zone).astimezone(UTC), stated
            )
            if found is None:
                read.require_readable()
                result.skipped[day] = "no row of the ledger and no statement is of this day"
            else:
                result.filled[day] = found
        return result

    def record_differences(self, days: Mapping[date, ClosedDay], run_id: str | None = None) -> int:
        """Open, confirm and resolve the breaks of days; return how many differences there are."""
        breaks = self._lake.breaks
        known = {one.gateway_id for one in breaks.open_breaks()}
        for day, found in days.items():
            name = f"{STATEMENT_BREAKS}{day}"
            if found.differences or name in known:
                breaks.record(name, found.differences, at=self._clock(), run_id=run_id)
        return sum(len(found.differences) for found in days.values())

    def _day(
        self, day: date, closed: datetime, opened: datetime, stated: _Stated
    ) -> ClosedDay | None:
        # Two row intervals are enough: an unchanged value has a row in each.
        span = timedelta(seconds=2 * self._settings.monitored_row_interval_s)
        own = values_at_close(
            self._lake.updates.sync,
            day,
            opened=opened,
            closed=closed,
            confirmed=self._lake.queue.sync.confirmations(closed - span, closed),
        )
        covered = stated.accounts.get(day, set())
        if own.is_empty() and not covered:
            return None
        theirs = stated_rows(stated.positions.get(day, ()), day, closed)
        joined = join_rows(own, theirs, covered, opened=opened, band=self._settings.value_band)
        from_statement = joined.rows.filter(pl.col("value_source") == FLEX).height
        return ClosedDay(
            closed_at=closed,
            rows=joined.rows,
            written=own.filter(pl.col("timestamp") >= opened).height,
            stated=from_statement,
            files=tuple(stated.files.get(day, ())),
            differences=joined.differences,
        )
