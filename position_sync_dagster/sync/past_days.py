"""The holdings at the close of past days: own rows, completed by the broker's statements."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from itertools import chain

import polars as pl

from position_sync_dagster import errors
from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.execution import FLEX
from position_sync_dagster.domain.holding import Key
from position_sync_dagster.domain.reconciliation import Discrepancy
from position_sync_dagster.lake.derived import values_at_close
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.money.past.closes import Statement, StatementPosition
from position_sync_dagster.money.past.movements import Section, counting_movements
from position_sync_dagster.money.past.stated_days import join_rows, stated_rows
from position_sync_dagster.money.past.statement_folder import ServedAccounts, StatementFolder
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.exchange_days import closing_times, time_zone_of


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


@dataclass(slots=True)
class _StatedDay:
    """What statements say of the holdings of a day.

    Attributes:
        accounts: The accounts whose holdings are stated, all of them.
        files: The statements that count.
        positions: The stated positions, each with its file.
    """

    accounts: set[str] = field(default_factory=set)
    files: list[str] = field(default_factory=list)
    positions: list[tuple[StatementPosition, str]] = field(default_factory=list)


def _stated(statements: Iterable[Statement], day: date, types: Collection[str]) -> _StatedDay:
    """Return what statements say of a day; of two for one account, the newer counts.

    Args:
        statements: The newest first.
        day: The day.
        types: The security types that are followed; others are left out, as in our own rows.
    """
    stated = _StatedDay()
    incomplete: set[str] = set()
    for statement in statements:
        if day not in statement.days:
            continue

        positions = [position for position in statement.positions if position.day == day]
        accounts = {statement.account, *(position.account for position in positions)}
        new_accounts = accounts - stated.accounts
        if not new_accounts:
            continue

        stated.accounts |= new_accounts
        stated.files.append(statement.file)
        if statement.lacks_positions:
            incomplete |= new_accounts
        for position in positions:
            if position.account in new_accounts and position.sec_type in types:
                stated.positions.append((position, statement.file))

    stated.accounts -= incomplete
    return stated


def _traded(
    statements: Collection[Statement], first: datetime, last: datetime
) -> dict[Key, list[float]]:
    """Return by how much what happened between two times changed each holding, in order of time."""
    stated = chain.from_iterable(statement.movements for statement in statements)
    changes: list[tuple[datetime, Key, float]] = []
    for movement in counting_movements(stated, []):
        is_seen_at_once = movement.section in (Section.TRADES, Section.CORPORATE_ACTIONS)
        if is_seen_at_once and movement.quantity and movement.at and first < movement.at < last:
            changes.append((movement.at, movement.key, movement.quantity))

    changes_of_holdings: defaultdict[Key, list[float]] = defaultdict(list)
    for _at, key, quantity in sorted(changes):
        changes_of_holdings[key].append(quantity)
    return changes_of_holdings


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
        contents = folder.read()
        result = ClosedDays(unreadable=contents.unreadable)
        zone = time_zone_of(self.settings.calendar)
        for day in sorted(days):
            closed = closes[day]
            if closed > now:
                result.skipped[day] = f"it closes at {closed:%Y-%m-%d %H:%M} UTC"
                continue

            # A file may have several statements of the day: it is read once.
            files = dict.fromkeys(stated.file for stated in contents.found if day in stated.days)
            statements: list[Statement] = []
            for file in files:
                statements += folder.rows_of(file)

            opened = datetime.combine(day, time(), zone).astimezone(UTC)
            closed_day = self._day(day, closed, opened, statements)
            if closed_day is not None:
                result.filled[day] = closed_day
                continue

            for error in contents.unreadable:
                raise error
            result.skipped[day] = "no row of the ledger and no statement is of this day"
        return result

    def flat_days(self, days: Iterable[date]) -> set[date]:
        """Return those of the days that have no rows because nothing was held, as statements say.

        It is none of them while a file cannot be read that may say more of one.
        """
        stated_days: set[date] = set()
        for statement in StatementFolder(self.settings.flex_folder).read().found:
            stated_days.update(statement.days)

        try:
            filled = self.collect(stated_days.intersection(days)).filled
        except (errors.StatementError, errors.FlexServiceError):
            return set()
        return {day for day, closed_day in filled.items() if closed_day.rows.is_empty()}

    def record_differences(self, days: Mapping[date, ClosedDay], run_id: str | None = None) -> None:
        """Open, confirm and resolve the breaks of days."""
        for day, closed_day in days.items():
            differences = {f"statement:{day}": closed_day.differences}
            self.lake.breaks.record(differences, self.clock(), run_id=run_id)

    def _day(
        self, day: date, closed: datetime, opened: datetime, statements: Collection[Statement]
    ) -> ClosedDay | None:
        # Two row intervals are enough: an unchanged value has a row in each.
        span = timedelta(seconds=2 * self.settings.monitored_row_interval_s)
        rows_of_ledger = values_at_close(
            self.lake.updates.sync,
            day,
            opened=opened,
            closed=closed,
            confirmed=self.lake.queue.sync.confirmations(closed - span, closed),
        )
        stated = _stated(statements, day, self.settings.sec_types)
        if rows_of_ledger.is_empty() and not stated.accounts and not stated.positions:
            return None

        rows, differences = join_rows(
            rows_of_ledger,
            stated_rows(stated.positions, day, closed),
            stated.accounts,
            opened=opened,
            band=self.settings.value_band,
            traded=_traded(statements, closed, opened + timedelta(days=1)),
        )
        left_out: list[str] = []
        for statement in statements:
            left_out += (fault for fault, _remedy in statement.left_out)
        return ClosedDay(
            closed_at=closed,
            rows=rows,
            stated=rows.filter(pl.col("value_source") == FLEX).height,
            files=tuple(stated.files),
            left_out=tuple(left_out),
            differences=tuple(differences),
        )
