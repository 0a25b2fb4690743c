"""The statements of the broker: downloaded to a folder, read, checked and stored in the tables.

The holdings at the close of past days are here as well: own rows, completed by the statements.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import polars as pl
from pydantic import TypeAdapter

from position_sync_dagster import errors
from position_sync_dagster.domain.broker_position import AccountSource, AccountSummary, Key
from position_sync_dagster.domain.clock import NEVER, Clock, utc_now
from position_sync_dagster.domain.instrument import NEW_YORK
from position_sync_dagster.domain.reconciliation import Discrepancy
from position_sync_dagster.domain.statement import (
    FLEX,
    EventKind,
    Statement,
    StatementCash,
    StatementPosition,
    current_executions,
)
from position_sync_dagster.domain.update import TradingMode, trading_mode_of
from position_sync_dagster.gateway import flex
from position_sync_dagster.lake.derived import join_rows, stated_rows, values_at_close
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.schema.codec import content_id
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


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedFile:
    """What a file of the folder has for one account; the statement itself is read when needed.

    Attributes:
        days: The days whose positions it states.
        accounts: The accounts that it names.
        positions, executions: How many it has.
        left_out: The rows that cannot be read: for each, what is wrong and the remedy.
    """

    file: str
    account: str
    first: date
    last: date
    generated_at: datetime | None
    days: frozenset[date]
    accounts: frozenset[str]
    positions: int
    executions: int
    left_out: tuple[tuple[str, str], ...] = ()

    @staticmethod
    def of(one: Statement) -> "StatedFile":
        """Return what a statement has."""
        named = {row.account for row in one.positions} | {row.account for row in one.executions}
        return StatedFile(
            file=one.file,
            account=one.account,
            first=one.first,
            last=one.last,
            generated_at=one.generated_at,
            days=one.days,
            accounts=frozenset(named | {one.account, *(row.account for row in one.events)}),
            positions=len(one.positions),
            executions=len(one.executions),
            left_out=one.left_out,
        )


@dataclass(slots=True, kw_only=True)
class _Known:
    """A file as the folder's index has it.

    Attributes:
        state: Size and time of change of the file.
        found: What it has.
        stored_in: The lakes that have its rows.
    """

    state: tuple[int, int]
    found: list[StatedFile]
    stored_in: set[str] = field(default_factory=set)


_INDEX = TypeAdapter(dict[str, _Known])
# The folder's index: files that are in it, and unchanged, are not parsed again.
INDEX_FILE = ".position-sync.json"

# The size of files whose rows are stored with one commit; a larger file has one of its own.
AT_ONCE_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Statements:
    """The statements in the files of a folder.

    Attributes:
        found: The newest first: of two for one day, the one that was made later counts.
        unreadable: The errors of other files and of rows, which name both. The others are used.
    """

    found: tuple[StatedFile, ...]
    unreadable: tuple[errors.PositionSyncError, ...]

    def require_readable(self) -> None:
        """Raise for the first file or row that cannot be read.

        Raises:
            StatementError, FlexServiceError: As `read_statements`.
        """
        if self.unreadable:
            raise self.unreadable[0]

    def without_foreign(self, accounts: Collection[str], mode: TradingMode | None) -> "Statements":
        """Return the statements, with files that name a foreign account moved to `unreadable`.

        Args:
            accounts, mode: As `foreign_error` takes them.
        """
        foreign: dict[str, errors.PositionSyncError] = {}
        for one in self.found:
            if (error := foreign_error(one, accounts, mode)) is not None:
                foreign.setdefault(one.file, error)
        return Statements(
            found=tuple(one for one in self.found if one.file not in foreign),
            unreadable=(*self.unreadable, *foreign.values()),
        )


@dataclass(eq=False, repr=False)
class StatementFolder:
    """Reads statements from the XML files of a folder; a missing folder has none.

    Example:
        statements = StatementFolder(Path("data/flex")).read()
    """

    folder: Path

    def read(
        self,
        *,
        lake_id: str = "",
        store: Callable[[list[Statement]], None] | None = None,
        is_foreign: Callable[[StatedFile], object] = lambda _one: None,
    ) -> Statements:
        """Return what the files have; one that cannot be read does not affect the others.

        A file is parsed if it is new or was changed, and if the lake does not have its rows; one at
        a time, apart from those that are stored with one commit.

        Args:
            lake_id: Names the tables that have the rows of files that were stored.
            store: Stores statements.
            is_foreign: Returns what is wrong about a file that is not to be stored.
        """
        try:
            paths = self._files()
        except errors.StatementError as error:
            return Statements(found=(), unreadable=(error,))
        before, index = self._index(), dict[str, _Known]()
        unreadable: list[errors.PositionSyncError] = []
        waiting: list[tuple[_Known, list[Statement]]] = []

        def flush() -> None:
            if waiting and store is not None:
                store([one for _known, listed in waiting for one in listed])
                for known, _listed in waiting:
                    known.stored_in.add(lake_id)
                waiting.clear()
                self._keep(before | index)

        for path in paths:
            try:
                known, parsed = self._look(path, before.get(path.name))
                index[path.name] = known
                is_new = store is not None and lake_id not in known.stored_in
                if is_new and not any(map(is_foreign, known.found)):
                    waiting.append((known, parsed or _statements_in(path)))
                    if sum(one.state[0] for one, _listed in waiting) >= AT_ONCE_BYTES:
                        flush()
            except (errors.StatementError, errors.FlexServiceError) as error:
                unreadable.append(error)
        flush()
        if index != before:
            self._keep(index)
        found = [one for known in index.values() for one in known.found]
        found.sort(key=lambda one: (one.generated_at or NEVER, one.last, one.file), reverse=True)
        unreadable += [
            errors.StatementError(what, remedy=remedy)
            for one in found
            for what, remedy in one.left_out
        ]
        return Statements(found=tuple(found), unreadable=tuple(unreadable))

    def statements(self, files: Iterable[str]) -> Iterator[Statement]:
        """Yield the statements of some files, of which one at a time is in memory."""
        for name in dict.fromkeys(files):
            yield from _statements_in(self.folder / name)

    def _look(self, path: Path, known: _Known | None) -> tuple[_Known, list[Statement] | None]:
        """Return what a file has, and its statements if it had to be parsed."""
        state = saved_state(path)[1:]
        if known is not None and known.state == state:
            return known, None
        parsed = _statements_in(path)
        return _Known(state=state, found=[StatedFile.of(one) for one in parsed]), parsed

    def _index(self) -> dict[str, _Known]:
        try:
            return _INDEX.validate_json((self.folder / INDEX_FILE).read_bytes())
        except (OSError, ValueError):  # it is made anew
            return {}

    def _keep(self, index: dict[str, _Known]) -> None:
        """Store the index; in a folder that cannot be written, each read parses all files."""
        with suppress(OSError):
            self._write(INDEX_FILE, _INDEX.dump_json(index))

    def _write(self, name: str, data: bytes) -> None:
        draft = self.folder / f".{name}.{os.getpid()}.draft"
        try:
            draft.write_bytes(data)
            draft.replace(self.folder / name)
        finally:
            with suppress(OSError):
                draft.unlink(missing_ok=True)

    def first_day(self) -> date | None:
        """Return the first day that a statement covers."""
        return min((one.first for one in self.read().found), default=None)

    def store(
        self, data: bytes, query_id: str, *, check: Callable[[list[StatedFile]], None]
    ) -> int:
        """Store a downloaded answer under its query and days, if it can be read.

        The file is written atomically. The same statement, stored again, replaces it.

        Args:
            check: Called before anything is stored; raises an error to refuse the statements.

        Returns:
            The number of statements in it.

        Raises:
            StatementError, FlexServiceError: It is no statement, or the folder cannot be written;
                nothing was stored.
        """
        found = flex.read_statements(data, f"query {query_id}")
        check([StatedFile.of(one) for one in found])
        first, last = min(one.first for one in found), max(one.last for one in found)
        safe = "".join(letter for letter in query_id if letter.isalnum()) or "query"
        safe = safe.encode()[:100].decode(errors="ignore")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._write(f"{safe}-{first:%Y%m%d}-{last:%Y%m%d}.xml", data)
        except OSError as error:
            raise errors.StatementError(
                f"query {query_id}: the folder {self.folder} cannot be written: {error.strerror}.",
                remedy="Make room in it, make it writable, or correct POSITION_SYNC_FLEX_FOLDER.",
            ) from None
        return len(found)

    def _files(self) -> list[Path]:
        try:
            return sorted(
                path
                for path in self.folder.iterdir()
                if path.suffix.lower() == ".xml" and not path.name.startswith(".")
            )
        except FileNotFoundError:
            return []
        except OSError as error:
            raise errors.StatementError(
                f"The folder {self.folder} cannot be read: {error.strerror}.",
                remedy="Make it readable, or correct POSITION_SYNC_FLEX_FOLDER.",
            ) from None


def _statements_in(path: Path) -> list[Statement]:
    return flex.read_statements(_content(path), path.name)


def foreign_error(
    one: StatedFile, accounts: Collection[str], mode: TradingMode | None
) -> errors.ForeignStatementError | None:
    """Return the error of a statement of an account that the tables do not know.

    Args:
        one: The statement.
        accounts: The accounts that the tables know; where there are none yet, the mode decides.
        mode: The trading mode of the settings, None for any.

    Returns:
        An error that names file and account; None for a statement that may be stored.
    """
    for account in sorted(one.accounts):
        if accounts and account not in accounts:
            why = f"the tables hold {', '.join(sorted(accounts))}"
        elif not accounts and mode is not None and trading_mode_of(account) is not mode:
            why = f"the trading mode is {mode.value}"
        else:
            continue
        return errors.ForeignStatementError(
            f"{one.file} is a statement of the account {account}, and {why}.",
            remedy="Remove the file from the folder, or choose this account's lake.",
        )
    return None


def _content(path: Path) -> bytes:
    """Return the content of a regular file.

    Raises:
        StatementError: It is no regular file, it cannot be read, or its name is not printable.
    """
    if not path.name.isprintable():  # rows and messages contain it
        name = path.name.encode("ascii", "backslashreplace").decode()
        raise errors.StatementError(
            f"{name} has a name with unprintable characters.", remedy="Rename the file."
        )
    try:
        if path.stat().st_size > flex.LARGEST_STATEMENT:
            raise errors.StatementError(
                f"{path.name} has more than {flex.LARGEST_STATEMENT // 2**20} MB.",
                remedy="Download fewer days at once.",
            )
        return first_bytes(path, flex.LARGEST_STATEMENT)
    except OSError as error:
        raise errors.StatementError(
            f"{path.name} cannot be read: {error.strerror}.",
            remedy="Make it a readable file, or remove it from the folder.",
        ) from None


# The time in New York that the values of a statement's day get: a statement has only the date.
STATED_AT = time(16, 0)


class Imported(NamedTuple):
    """The statements of the folder, and how many rows of them were new in each table."""

    read: Statements
    executions: int
    events: int
    account_values: int


class StatementService:
    """Downloads the query of the settings, reads the folder, and stores what it says.

    Example:
        StatementService(lake, settings).import_new()
    """

    def __init__(
        self, lake: Lake, settings: Settings, *, service: flex.FlexService | None = None
    ) -> None:
        self._lake = lake
        self._settings = settings
        self._folder = StatementFolder(settings.flex_folder)
        self._service = service or flex.FlexService()

    def download(self) -> int:
        """Download the query of the settings, if any; return the number of statements.

        Raises:
            FlexServiceError: The service gave no statement.
            StatementError: What came cannot be read, or is of a foreign account. In both cases
                the folder is unchanged.
        """
        token, query_id = self._settings.flex_token, self._settings.flex_query_id
        if token is None or not token.get_secret_value() or not query_id:
            return 0
        data = self._service.download(token.get_secret_value(), query_id)
        return self._folder.store(data, query_id, check=self._refuse_foreign)

    def download_and_import(self, run_id: str | None = None) -> tuple[int | None, Imported]:
        """Download the query, then import the folder, whose files count also if that fails.

        Returns:
            The number of downloaded statements, None if the download failed; and what was imported,
            with the error of the download before those of files.
        """
        downloaded, failed = None, list[errors.PositionSyncError]()
        try:
            downloaded = self.download()
        except (errors.FlexServiceError, errors.StatementError, errors.SettingsError) as error:
            failed = [error]
        done = self.import_new(run_id)
        read = replace(done.read, unreadable=(*failed, *done.read.unreadable))
        return downloaded, done._replace(read=read)

    def import_new(self, run_id: str | None = None) -> Imported:
        """Store what statements say that the lake does not have: of new and of changed files.

        Their executions are stored first: a day that is covered has no others.
        """
        own = self._own()
        tables = (self._lake.executions, self._lake.statement_events, self._lake.account_values)
        counts = [(0, 0, 0)]
        read = self._folder.read(
            lake_id=" ".join(one.table.table_id() for one in tables),
            store=lambda found: counts.append(self._store(found, run_id)),
            is_foreign=lambda one: foreign_error(one, *own),
        ).without_foreign(*own)
        return Imported(read, *map(sum, zip(*counts, strict=True)))

    def _store(self, found: list[Statement], run_id: str | None) -> tuple[int, int, int]:
        lake = self._lake
        executions = (row for one in found for row in one.executions)
        events = (row for one in found for row in one.events)
        periods = (period for one in found if (period := one.period()) is not None)
        values = (summary_of(cash, run_id) for one in found for cash in one.cash)
        return (
            lake.executions.add(executions, run_id=run_id),
            lake.statement_events.add(chain(events, periods), run_id=run_id),
            lake.account_values.append(values).rows,
        )

    def _own(self) -> tuple[set[str], TradingMode | None]:
        return known_accounts(self._lake), self._settings.trading_mode

    def _refuse_foreign(self, found: list[StatedFile]) -> None:
        own = self._own()
        Statements(found=tuple(found), unreadable=()).without_foreign(*own).require_readable()


def summary_of(cash: StatementCash, run_id: str | None = None) -> AccountSummary:
    """Return the row of `account_values`; the same amounts of a day have the same id."""
    at = datetime.combine(cash.day, STATED_AT, NEW_YORK).astimezone(UTC)
    amounts = (cash.currency, cash.net_liquidation, cash.cash)
    return AccountSummary(
        row_id=content_id(at, AccountSource.FLEX.value, cash.account, *amounts),
        account=cash.account,
        currency=cash.currency,
        net_liquidation=cash.net_liquidation,
        cash=cash.cash,
        timestamp=at,
        source=AccountSource.FLEX,
        trading_mode=trading_mode_of(cash.account).value,
        run_id=run_id,
    )


# Prefix of the gateway_id of breaks between rows and a statement; the day follows it.
STATEMENT_BREAKS = "statement:"


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
        read = folder.read()
        concerned = tuple(one for one in read.found if one.days & set(days))
        read = replace(read, found=concerned)
        if concerned:
            known = known_accounts(self.lake)
            read = read.without_foreign(known, self.settings.trading_mode)
        result = ClosedDays(unreadable=read.unreadable)
        zone = time_zone_of(self.settings.calendar)
        for day in sorted(days):
            closed = closes[day]
            if closed > now:
                result.skipped[day] = f"it closes at {closed:%Y-%m-%d %H:%M} UTC"
                continue
            opened = datetime.combine(day, time(), zone).astimezone(UTC)
            files = [one.file for one in read.found if day in one.days]
            found = self._day(day, closed, opened, list(folder.statements(files)))
            if found is None:
                read.require_readable()
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
        breaks = self.lake.breaks
        known = {one.gateway_id for one in breaks.open_breaks()}
        for day, found in days.items():
            name = f"{STATEMENT_BREAKS}{day}"
            if found.differences or name in known:
                breaks.record({name: found.differences}, self.clock(), run_id=run_id)

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
        joined = join_rows(
            own,
            theirs,
            covered,
            opened=opened,
            band=self.settings.value_band,
            traded=_traded(statements, closed, opened + timedelta(days=1)),
        )
        return ClosedDay(
            closed_at=closed,
            rows=joined.rows,
            stated=joined.rows.filter(pl.col("value_source") == FLEX).height,
            files=tuple(files),
            left_out=tuple(what for one in statements for what, _remedy in one.left_out),
            differences=joined.differences,
        )
