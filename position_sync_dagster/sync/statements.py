"""The statements of the broker: downloaded to a folder, read, checked and stored in the tables.

The holdings at the close of past days are here as well: own rows, completed by the statements.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import polars as pl
from pydantic import TypeAdapter

from position_sync_dagster import errors
from position_sync_dagster.domain.account_values import AccountSummary
from position_sync_dagster.domain.clock import NEVER, Clock, utc_now
from position_sync_dagster.domain.closes import (
    FLEX,
    EventKind,
    Statement,
    StatementPosition,
    current_executions,
)
from position_sync_dagster.domain.holding import Key
from position_sync_dagster.domain.position_update import trading_mode_of
from position_sync_dagster.domain.reconciliation import Discrepancy
from position_sync_dagster.gateway import flex
from position_sync_dagster.lake.derived import join_rows, stated_rows, values_at_close
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.schema import content_id
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.reports.exchange_days import closing_times, time_zone_of
from position_sync_dagster.yaml_file import first_bytes, saved_state


def known_accounts(lake: Lake) -> set[str]:
    """Return the accounts of the broker's holdings, of the ledger and of the gateway's values."""
    held = lake.broker_positions.table.rows(columns=["account"])
    own = lake.updates.sync.latest().select("account")
    changed = lake.position_changes.table.rows(columns=["account"])  # also of what closed long ago
    valued = lake.account_values.latest().select("account")
    return set(pl.concat([held, own, changed, valued]).get_column("account").unique()) - {""}


# What finds the error of a statement that must not be used; it returns None for the others.
Refusal = Callable[[Statement], errors.PositionSyncError | None]


def foreign_to(lake: Lake, settings: Settings) -> Refusal:
    """Return what refuses statements of accounts that the tables do not know.

    Where the tables know no account yet, the trading mode of the settings decides.
    """
    known, mode = cache(partial(known_accounts, lake)), settings.trading_mode

    def error_of(one: Statement) -> errors.ForeignStatementError | None:
        for account in sorted(one.accounts - known()):
            if known():
                why = f"the tables hold {', '.join(sorted(known()))}"
            elif mode is not None and trading_mode_of(account) is not mode:
                why = f"the trading mode is {mode.value}"
            else:
                continue
            return errors.ForeignStatementError(
                f"{one.file} is a statement of the account {account}, and {why}.",
                remedy="Remove the file from the folder, or choose this account's lake.",
            )
        return None

    return error_of


@dataclass(slots=True, kw_only=True)
class _Known:
    """A file as the folder's index has it.

    Attributes:
        state: Size and time of change of the file.
        found: Its statements, without their rows.
        stored_in: The lakes that have its rows.
    """

    state: tuple[int, int]
    found: list[Statement]
    stored_in: set[str] = field(default_factory=set)


_INDEX = TypeAdapter(dict[str, _Known])
# The folder's index: files that are in it, and unchanged, are not parsed again.
INDEX_FILE = ".position-sync.json"


class Statements(NamedTuple):
    """The statements in the files of a folder, without their rows.

    Attributes:
        found: The newest first: of two for one day, the one that was made later counts.
        unreadable: The errors of other files and of rows, which name both. The others are used.
    """

    found: tuple[Statement, ...]
    unreadable: tuple[errors.PositionSyncError, ...]


@dataclass(eq=False, repr=False)
class StatementFolder:
    """Reads statements from the XML files of a folder; a missing folder has none.

    Example:
        statements = StatementFolder(Path("data/flex")).read()
    """

    folder: Path

    def read(
        self,
        refused: Refusal = lambda _one: None,
        *,
        lake_id: str = "",
        store: Callable[[list[Statement]], None] | None = None,
    ) -> Statements:
        """Return what the files have; one that cannot be read does not affect the others.

        A file is parsed if it is new or was changed, and if the lake does not have its rows; one at
        a time.

        Args:
            refused: Refuses a file for what one of its statements is.
            lake_id: Names the tables that have the rows of files that were stored.
            store: Stores statements.
        """
        try:
            paths = sorted(
                path
                for path in self.folder.iterdir()
                if path.suffix.lower() == ".xml" and not path.name.startswith(".")
            )
        except FileNotFoundError:
            paths = []
        except OSError as error:
            what = f"The folder {self.folder} cannot be read: {error.strerror}."
            remedy = "Make it readable, or correct POSITION_SYNC_FLEX_FOLDER."
            return Statements((), (errors.StatementError(what, remedy=remedy),))
        before, index = self._index(), dict[str, _Known]()
        found: list[Statement] = []
        unreadable: list[errors.PositionSyncError] = []
        for path in paths:
            try:
                known, parsed = self._look(path, before.get(path.name))
                index[path.name] = known
                if foreign := next(filter(None, map(refused, known.found)), None):
                    raise foreign
                is_due = store is not None and lake_id not in known.stored_in
                if is_due and parsed is None:
                    parsed = _statements_in(path)
            except errors.PositionSyncError as error:
                unreadable.append(error)
                continue
            found += known.found
            if store is not None and is_due and parsed is not None:
                store(parsed)
                index[path.name] = replace(known, stored_in=known.stored_in | {lake_id})
        if index != before:
            self._keep(index)
        found.sort(key=lambda one: (one.generated_at or NEVER, one.last, one.file), reverse=True)
        rows = [
            errors.StatementError(what, remedy=remedy)
            for one in found
            for what, remedy in one.left_out
        ]
        return Statements(tuple(found), (*unreadable, *rows))

    def first_day(self) -> date | None:
        """Return the first day that a statement covers."""
        return min((one.first for one in self.read().found), default=None)

    def write(self, name: str, data: bytes) -> None:
        """Write a file of the folder atomically.

        Raises:
            OSError: The folder cannot be written.
        """
        draft = self.folder / f".{name}.{os.getpid()}.draft"
        try:
            draft.write_bytes(data)
            draft.replace(self.folder / name)
        finally:
            with suppress(OSError):
                draft.unlink(missing_ok=True)

    def _look(self, path: Path, known: _Known | None) -> tuple[_Known, list[Statement] | None]:
        """Return what a file has, and its statements if it had to be parsed."""
        state = saved_state(path)[1:]
        if known is not None and known.state == state:
            return known, None
        parsed = _statements_in(path)
        return _Known(state=state, found=[one.without_rows() for one in parsed]), parsed

    def _index(self) -> dict[str, _Known]:
        try:
            return _INDEX.validate_json((self.folder / INDEX_FILE).read_bytes())
        except (OSError, ValueError):  # it is made anew
            return {}

    def _keep(self, index: dict[str, _Known]) -> None:
        """Store the index; in a folder that cannot be written, each read parses all files."""
        with suppress(OSError):
            self.write(INDEX_FILE, _INDEX.dump_json(index))


def _statements_in(path: Path) -> list[Statement]:
    return flex.read_statements(_content(path), path.name)


def _content(path: Path) -> bytes:
    """Return the content of a regular file.

    Raises:
        StatementError: It is no regular file, it cannot be read, or its name is not printable.
    """
    name = path.name
    try:
        if not name.isprintable():  # rows and messages contain it
            name = name.encode("ascii", "backslashreplace").decode()
            what, remedy = "has a name with unprintable characters", "Rename the file."
        elif path.stat().st_size > flex.LARGEST_STATEMENT:
            what = f"has more than {flex.LARGEST_STATEMENT // 2**20} MB"
            remedy = "Download fewer days at once."
        else:
            return first_bytes(path, flex.LARGEST_STATEMENT)
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        remedy = "Make it a readable file, or remove it from the folder."
    raise errors.StatementError(f"{name} {what}.", remedy=remedy)


class Imported(NamedTuple):
    """The statements of the folder, what could not be read, and the rows new in each table."""

    found: tuple[Statement, ...]
    unreadable: tuple[errors.PositionSyncError, ...]
    executions: int = 0
    events: int = 0
    account_values: int = 0


def download_and_import(
    lake: Lake, settings: Settings, run_id: str | None = None
) -> tuple[int | None, Imported]:
    """Download the query, then import the folder, whose files count also if that fails.

    Returns:
        The number of downloaded statements, None if the download failed; and what was imported,
        with the error of the download before those of files.
    """
    downloaded, failed = None, list[errors.PositionSyncError]()
    try:
        downloaded = download(settings, foreign_to(lake, settings))
    except (errors.FlexServiceError, errors.StatementError) as error:
        failed = [error]
    done = import_statements(lake, settings, run_id)
    return downloaded, done._replace(unreadable=(*failed, *done.unreadable))


def download(settings: Settings, refused: Refusal) -> int:
    """Download the query of the settings, if any, into the folder, under the query and its days.

    Returns:
        The number of its statements.

    Raises:
        PositionSyncError: The service gave no statement, what came cannot be read or is refused, or
            the folder cannot be written. The folder is unchanged.
    """
    token, query_id = settings.flex_token, settings.flex_query_id
    if token is None or not token.get_secret_value() or not query_id:
        return 0
    data = flex.FlexService().download(token.get_secret_value(), query_id)
    found = flex.read_statements(data, f"query {query_id}")
    for error in filter(None, map(refused, found)):
        raise error
    first, last = min(one.first for one in found), max(one.last for one in found)
    safe = "".join(letter for letter in query_id if letter.isalnum()) or "query"
    safe = safe.encode()[:100].decode(errors="ignore")
    try:
        settings.flex_folder.mkdir(parents=True, exist_ok=True)
        folder = StatementFolder(settings.flex_folder)
        folder.write(f"{safe}-{first:%Y%m%d}-{last:%Y%m%d}.xml", data)
    except OSError as error:
        raise errors.StatementError(
            f"query {query_id}: the folder {settings.flex_folder} cannot be written: "
            f"{error.strerror}.",
            remedy="Make room in it, make it writable, or correct POSITION_SYNC_FLEX_FOLDER.",
        ) from None
    return len(found)


def import_statements(lake: Lake, settings: Settings, run_id: str | None = None) -> Imported:
    """Store what statements say that the lake does not have: of new and of changed files.

    Their executions are stored first: a day that is covered has no others.
    """
    counts = Counter[str]()

    def store(found: list[Statement]) -> None:
        executions = (row for one in found for row in one.executions)
        events = (row for one in found for row in one.events)
        values = (_identified(row, run_id) for one in found for row in one.cash)
        counts.update(
            executions=lake.executions.add(executions, run_id=run_id),
            events=lake.statement_events.add(events, run_id=run_id),
            account_values=lake.account_values.append(values).rows,
        )

    tables = (lake.executions, lake.statement_events, lake.account_values)
    lake_id = " ".join(one.table.table_id() for one in tables)
    folder = StatementFolder(settings.flex_folder)
    read = folder.read(foreign_to(lake, settings), lake_id=lake_id, store=store)
    return Imported(**read._asdict() | counts)


def _identified(cash: AccountSummary, run_id: str | None) -> AccountSummary:
    """Return the row of `account_values`; the same amounts of a day have the same id."""
    amounts = (cash.currency, cash.net_liquidation, cash.cash)
    row_id = content_id(cash.timestamp, cash.source.value, cash.account, *amounts)
    return replace(cash, row_id=row_id, run_id=run_id)


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
        folder = StatementFolder(self.settings.flex_folder)
        read = folder.read(foreign_to(self.lake, self.settings))
        result = ClosedDays(unreadable=read.unreadable)
        zone = time_zone_of(self.settings.calendar)
        for day in sorted(days):
            closed = closes[day]
            if closed > now:
                result.skipped[day] = f"it closes at {closed:%Y-%m-%d %H:%M} UTC"
                continue
            opened = datetime.combine(day, time(), zone).astimezone(UTC)
            files = dict.fromkeys(one.file for one in read.found if day in one.days)
            stated = [one for name in files for one in _statements_in(folder.folder / name)]
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
