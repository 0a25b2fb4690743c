"""The holdings at the close of past days: own rows, completed by the broker's statements."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from itertools import chain

import polars as pl

from position_sync_dagster import errors
from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.closes import (
    FLEX,
    EventKind,
    Statement,
    StatementPosition,
    current_executions,
)
from position_sync_dagster.domain.holding import Key
from position_sync_dagster.domain.reconciliation import Discrepancy
from position_sync_dagster.lake.derived import join_rows, stated_rows, values_at_close
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.exchange_days import closing_times, time_zone_of
from position_sync_dagster.sync.statement_folder import ServedAccounts, StatementFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedDay:
    """The rows of one trading day, from the ledger and from statements.

    Attributes:
        rows: In the schema of `daily_positions`.
        stated: The number of rows that come from a statement.
        files: The statements that cover the day.
        left_out: What is wrong of the rows of these that cannot be read: the day is incomplete.
    """

    closed_at: datetime
    rows: pl.DataFrame
    stated: int
    files: tuple[str, ...]
    left_out: tuple[str, ...]
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
    unreadable: tuple[errors.PositionSyncError, ...] = ()


def _stated(
    statements: Iterable[Statement], day: date, types: Collection[str]
) -> tuple[set[str], list[str], list[tuple[StatementPosition, str]]]:
    """Return the accounts, files and positions of a day; of two for one account, the newer counts.

    An account of which a position cannot be read is not among them.

    Args:
        statements: The newest first.
        day: The day.
        types: The security types that are followed; others are left out, as in our own rows.
    """
    accounts: set[str] = set()
    lacking: set[str] = set()
    files: list[str] = []
    positions: list[tuple[StatementPosition, str]] = []
    for one in statements:
        if day not in one.days:
            continue
        rows = [row for row in one.positions if row.day == day]
        new = {one.account, *(row.account for row in rows)} - accounts
        accounts |= new
        lacking |= new if one.lacks_positions else set()
        files += [one.file] if new else []
        positions += [(r, one.file) for r in rows if r.account in new and r.sec_type in types]
    return accounts - lacking, files, positions


def _traded(
    statements: Collection[Statement], first: datetime, last: datetime
) -> dict[Key, list[float]]:
    """Return by how much what happened between two times changed each holding, in order of time."""
    trades = current_executions(chain.from_iterable(one.executions for one in statements))
    changes = [(one.time, one.account, one.conid, one.change) for one in trades]
    actions = {
        (one.event_id, one.conid): (one.time, one.account, one.conid, one.quantity)
        for one in chain.from_iterable(one.events for one in statements)
        if one.kind is EventKind.CORPORATE_ACTION and one.time and one.conid and one.quantity
    }
    found: defaultdict[Key, list[float]] = defaultdict(list)
    for at, account, conid, change in sorted([*changes, *actions.values()]):
        if first < at < last:
            found[account, conid].append(change)
    return found


@dataclass(eq=False, repr=False)
class ClosingService:
    """Collects the rows of past trading days, and records what differs.

    Example:
        days = ClosingService(lake, settings).collect([date(2026, 3, 5)])
    """

    lake: Lake
    settings: Settings
    _: KW_ONLY
    clock: Clock = utc_now

    def collect(self, days: Collection[date]) -> ClosedDays:
        """Return the rows of each day, or why there are none; nothing is written.

        Raises:
            NoTradingDayError: One of the days is no trading day.
            StatementError, FlexServiceError: A day has no source, and a file of the folder, which
                may be its source, cannot be read or is of a foreign account.
        """
        now = self.clock()
        closes = closing_times(self.settings.calendar, days)
        accounts = ServedAccounts(self.lake, self.settings)
        folder = StatementFolder(self.settings.flex_folder, accounts)
        read = folder.read()
        result = ClosedDays(unreadable=read.unreadable)
        zone = time_zone_of(self.settings.calendar)
        for day in sorted(days):
            closed = closes[day]
            if closed > now:
                result.skipped[day] = f"it closes at {closed:%Y-%m-%d %H:%M} UTC"
                continue
            opened = datetime.combine(day, time(), zone).astimezone(UTC)
            files = dict.fromkeys(one.file for one in read.found if day in one.days)
            stated = [one for name in files for one in folder.rows_of(name)]
            found = self._day(day, closed, opened, stated)
            if found is None:
                for error in read.unreadable:
                    raise error
                result.skipped[day] = "no row of the ledger and no statement is of this day"
            else:
                result.filled[day] = found
        return result

    def flat_days(self, days: Iterable[date]) -> set[date]:
        """Return those of the days that have no rows because nothing was held, as statements say.

        It is none of them while a file cannot be read that may say more of one.
        """
        read = StatementFolder(self.settings.flex_folder).read()
        stated = {day for one in read.found for day in one.days}
        with suppress(errors.StatementError, errors.FlexServiceError):
            filled = self.collect(stated.intersection(days)).filled
            return {day for day, found in filled.items() if found.rows.is_empty()}
        return set()

    def record_differences(self, days: Mapping[date, ClosedDay], run_id: str | None = None) -> None:
        """Open, confirm and resolve the breaks of days."""
        for day, found in days.items():
            differences = {f"statement:{day}": found.differences}
            self.lake.breaks.record(differences, self.clock(), run_id=run_id)

    def _day(
        self, day: date, closed: datetime, opened: datetime, statements: Collection[Statement]
    ) -> ClosedDay | None:
        # Two row intervals are enough: an unchanged value has a row in each.
        span = timedelta(seconds=2 * self.settings.monitored_row_interval_s)
        own = values_at_close(
            self.lake.updates.sync,
            day,
            opened=opened,
            closed=closed,
            confirmed=self.lake.queue.sync.confirmations(closed - span, closed),
        )
        covered, files, positions = _stated(statements, day, self.settings.sec_types)
        if own.is_empty() and not covered and not positions:
            return None
        theirs = stated_rows(positions, day, closed)
        rows, differences = join_rows(
            own,
            theirs,
            covered,
            opened=opened,
            band=self.settings.value_band,
            traded=_traded(statements, closed, opened + timedelta(days=1)),
        )
        return ClosedDay(
            closed_at=closed,
            rows=rows,
            stated=rows.filter(pl.col("value_source") == FLEX).height,
            files=tuple(files),
            left_out=tuple(what for one in statements for what, _remedy in one.left_out),
            differences=tuple(differences),
        )
