"""The statements of the broker: downloaded to a folder, read, checked and stored in the tables."""

import os
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import polars as pl
from pydantic import TypeAdapter

from position_sync_dagster import errors
from position_sync_dagster.domain.account_values import AccountSummary
from position_sync_dagster.domain.clock import NEVER
from position_sync_dagster.domain.closes import Statement
from position_sync_dagster.domain.position_update import trading_mode_of
from position_sync_dagster.gateway import flex
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.schema import content_id
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.movement_book import MovementBook, sections_of
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
        stored: Callable[[list[Statement]], None] = lambda _found: None,
    ) -> Statements:
        """Return what the files have; one that cannot be read does not affect the others.

        A file is parsed if it is new or was changed, and if the lake does not have its rows; one at
        a time.

        Args:
            refused: Refuses a file for what one of its statements is.
            lake_id: Names the tables that have the rows of files that were stored.
            store: Stores statements.
            stored: Called after all of them with the statements of all files, before the index says
                that the lake has them.
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
                    parsed = statements_in(path)
            except errors.PositionSyncError as error:
                unreadable.append(error)
                continue
            found += known.found
            if store is not None and is_due and parsed is not None:
                store(parsed)
                index[path.name] = replace(known, stored_in=known.stored_in | {lake_id})
        stored(found)
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
        parsed = statements_in(path)
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


def statements_in(path: Path) -> list[Statement]:
    """Return the statements of a file, with their rows.

    Raises:
        PositionSyncError: The file cannot be read, or is no statement.
    """
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

    Their executions are stored first: a day that is covered has no others. Then `movements` follows
    from all of them.
    """
    counts = Counter[str]()
    folder = StatementFolder(settings.flex_folder)
    book = MovementBook(lake, settings.calendar, run_id=run_id)
    before = book.covered_files()
    new: list[Statement] = []

    def store(found: list[Statement]) -> None:
        new.extend(replace(one, positions=()) for one in found)
        executions = (row for one in found for row in one.executions)
        events = (row for one in found for row in one.events)
        sections = (row for one in found for row in sections_of(one))
        values = (_identified(row, run_id) for one in found for row in one.cash)
        counts.update(
            executions=lake.executions.add(executions, run_id=run_id),
            events=lake.statement_events.add(events, run_id=run_id),
            account_values=lake.account_values.append(values).rows,
        )
        lake.statement_events.add(sections, run_id=run_id)

    def record_movements(found: list[Statement]) -> None:
        files = {one.file for one in new}
        if files & before:
            # What these files stated before may have replaced what others state.
            for file in sorted({one.file for one in found} - files):
                new.extend(
                    replace(one, positions=()) for one in statements_in(folder.folder / file)
                )
        book.update(new)

    tables = (lake.executions, lake.statement_events, lake.account_values, lake.movements)
    lake_id = " ".join(one.table.table_id() for one in tables)
    read = folder.read(
        foreign_to(lake, settings), lake_id=lake_id, store=store, stored=record_movements
    )
    return Imported(**read._asdict() | counts)


def _identified(cash: AccountSummary, run_id: str | None) -> AccountSummary:
    """Return the row of `account_values`; the same amounts of a day have the same id."""
    amounts = (cash.currency, cash.net_liquidation, cash.cash)
    row_id = content_id(cash.timestamp, cash.source.value, cash.account, *amounts)
    return replace(cash, row_id=row_id, run_id=run_id)
