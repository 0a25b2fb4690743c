"""The statements of the broker: downloaded to a folder, read, checked and stored in the tables."""

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from polars import concat
from pydantic import SecretStr, TypeAdapter

from position_sync_dagster.domain.clock import NEVER
from position_sync_dagster.domain.position_update import TradingMode, trading_mode_of
from position_sync_dagster.errors import GatewaysFileError, PositionSyncError
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past.closes import Statement
from position_sync_dagster.money.past.flex import every_account, read_statements
from position_sync_dagster.money.past.flex_fields import ForeignStatementError, StatementError
from position_sync_dagster.money.past.flex_service import (
    LARGEST_STATEMENT,
    FlexService,
    FlexServiceError,
)
from position_sync_dagster.money.past.movement_book import MovementBook
from position_sync_dagster.settings import Settings
from position_sync_dagster.yaml_file import first_bytes, open_regular, saved_state


@dataclass(eq=False, repr=False)
class ServedAccounts:
    """Decides of which accounts statements are read: those that the tables know.

    Where the tables know no account yet, the trading mode of the settings or the lake decides.

    Example:
        served = ServedAccounts(lake, settings)
        served("U1234567")
    """

    lake: MoneyLake
    settings: Settings

    def __call__(self, account: str) -> bool:
        """Return whether the account is served."""
        if self._known:
            return account in self._known
        return self._mode is None or trading_mode_of(account) is self._mode

    @property
    def name(self) -> str:
        """Return what names the tables that statements are stored in, and these accounts."""
        lake = self.lake
        tables = (lake.executions, lake.statement_events, lake.movements)
        ids = [table.table.table_id() for table in tables]
        return " ".join((_INDEX_FORMAT, *ids, *sorted(self._known)))

    @cached_property
    def _mode(self) -> TradingMode | None:
        return self.settings.trading_mode or self.lake.sessions.mode()

    @cached_property
    def _known(self) -> frozenset[str]:
        """The accounts of the broker's holdings, of the ledger and of the gateway's values."""
        lake = self.lake
        held = lake.broker_positions.table.rows(columns=["account"])
        recorded = lake.updates.sync.latest().select("account")
        changed = lake.position_changes.table.rows(columns=["account"])  # also what closed long ago
        valued = lake.account_values.latest().select("account")
        rows = concat([held, recorded, changed, valued])
        return frozenset(rows["account"]) - {""}

    def check(self, statements: Sequence[Statement]) -> None:
        """Refuse a file of which no account is served.

        Raises:
            ForeignStatementError: It is such a file.
        """
        if any(statement.accounts for statement in statements):
            return

        foreign = sorted({statement.account for statement in statements})
        listed = ", ".join(foreign[:5])
        reason = f"the trading mode is {self._mode}"
        if self._known:
            reason = f"the tables hold {', '.join(sorted(self._known))}"
        raise ForeignStatementError(
            f"{statements[0].file} is a statement of the account {listed}, and {reason}.",
            remedy="Remove the file from the folder, or choose this account's lake. If it is the "
            "account's alias or a masked id, choose in the Flex query not to display it in place "
            "of the account id.",
        )


# A file as the folder's index has it: its size and time of change, and its statements without rows.
_IndexedFile = tuple[tuple[int, int], list[Statement]]

# The index has the files whose rows the tables of a lake have, after what names these tables and
# the accounts that were served: unchanged files are not parsed again.
_INDEX = TypeAdapter(tuple[str, dict[str, _IndexedFile]])
INDEX_FILE = ".position-sync.json"

# Grows with each release that reads more of a file: then all are read again.
_INDEX_FORMAT = "3"

# The largest index, in bytes; a statement takes about a thousand.
_LARGEST_INDEX = 64 * 2**20

# The endings of what people download instead of XML.
_NO_XML = {".csv", ".txt", ".tsv", ".htm", ".html", ".pdf", ".zip", ".gz", ".xls", ".xlsx"}


class Statements(NamedTuple):
    """The statements in the files of a folder, without their rows, and what an import stored.

    Attributes:
        found: The newest first: of two for one day, the one that was made later counts.
        unreadable: The errors of other files and of rows, which name both. The others are used.
        executions, events: The rows new in each table.
        downloaded: How many statements were downloaded before; None: there were queries, and each
            of them failed.
    """

    found: tuple[Statement, ...]
    unreadable: tuple[PositionSyncError, ...]
    executions: int = 0
    events: int = 0
    downloaded: int | None = 0


@dataclass(eq=False, repr=False)
class StatementFolder:
    """Reads statements from the XML files of a folder; a missing folder has none.

    Args:
        folder: The folder.
        accounts: Those of which rows are read; None: of every account.

    Example:
        statements = StatementFolder(Path("data/flex")).read()
    """

    folder: Path
    accounts: ServedAccounts | None = None
    _parsed: dict[str, list[Statement]] = field(default_factory=dict, init=False)
    _files: dict[str, _IndexedFile] = field(default_factory=dict, init=False)

    def read(self, with_rows: list[Statement] | None = None) -> Statements:
        """Return what the files have; one that cannot be read does not affect the others.

        A file is parsed, one at a time, unless the index of the same tables and accounts has it as
        it is.

        Args:
            with_rows: Gets the statements of the files that are parsed, with their rows.
        """
        try:
            paths = sorted(path for path in self.folder.iterdir() if path.name[0] != ".")
        except FileNotFoundError:
            paths = []
        except OSError as error:
            unreadable_folder = StatementError(
                f"The folder {self.folder} cannot be read: {error.strerror}.",
                remedy="Make it readable, or correct POSITION_SYNC_FLEX_FOLDER.",
            )
            return Statements((), (unreadable_folder,))

        indexed_files = self._indexed_files()
        statements: list[Statement] = []
        unreadable: list[PositionSyncError] = []

        for path in paths:
            try:
                if not _is_statement_file(path):
                    continue
                state = saved_state(path)[1:]
                indexed_state, stated = indexed_files.get(path.name, (None, []))
                if indexed_state != state:
                    parsed = statements_in(path, self.accounts or every_account)
                    stated = [statement.without_rows() for statement in parsed]
                    if with_rows is not None:
                        with_rows += parsed

                self._files[path.name] = (state, stated)
                if self.accounts is not None:
                    self.accounts.check(stated)
                statements += stated
            except PositionSyncError as error:
                unreadable.append(error)

        return _newest_first(statements, unreadable)

    def remember(self, accounts: ServedAccounts) -> None:
        """Store in the index that the tables have the rows of the files that were read.

        In a folder that cannot be written, each read parses all files.
        """
        with suppress(OSError):
            self.write(INDEX_FILE, _INDEX.dump_json((accounts.name, self._files)))

    def rows_of(self, file: str) -> list[Statement]:
        """Return the statements of a file of the folder, with their rows; it is parsed once.

        Raises:
            PositionSyncError: The file cannot be read, or is no statement.
        """
        if file not in self._parsed:
            path = self.folder / file
            self._parsed[file] = statements_in(path, self.accounts or every_account)
        return self._parsed[file]

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

    def _indexed_files(self) -> dict[str, _IndexedFile]:
        """Return the files of the index; none where it is of other tables or accounts."""
        try:
            data = first_bytes(self.folder / INDEX_FILE, _LARGEST_INDEX)
            tables, files = _INDEX.validate_json(data)
        except (OSError, ValueError):  # it is made anew
            return {}
        if self.accounts is None or tables == self.accounts.name:
            return files
        return {}


def _is_statement_file(path: Path) -> bool:
    """Return whether a file is named as XML.

    Raises:
        StatementError: It is what people download instead.
    """
    ending = path.suffix.lower()
    if ending in _NO_XML:
        raise StatementError(
            f"{_printable(path.name)} is no XML file, and is not read.",
            remedy="In the Flex query choose the format XML, and download it again; or remove the "
            "file from the folder.",
        )
    return ending == ".xml"


def _printable(name: str) -> str:
    if name.isprintable():
        return name
    return name.encode("ascii", "backslashreplace").decode()


def _newest_first(
    statements: Iterable[Statement], unreadable: Iterable[PositionSyncError]
) -> Statements:
    """Return the statements of served accounts in order, and the errors of files and rows."""
    served = [statement for statement in statements if statement.accounts]
    served.sort(key=lambda made: (made.generated_at or NEVER, made.last, made.file), reverse=True)

    of_rows = [
        StatementError(fault, remedy=remedy)
        for statement in served
        for fault, remedy in statement.left_out
    ]
    return Statements(tuple(served), (*unreadable, *of_rows))


def statements_in(path: Path, serves: Callable[[str], bool]) -> list[Statement]:
    """Return the statements of a file, with their rows.

    Args:
        path: The file.
        serves: Whether the rows of an account are read.

    Raises:
        PositionSyncError: The file cannot be read, or is no statement.
    """
    name = _printable(path.name)
    if name != path.name:  # rows and messages contain it
        raise StatementError(
            f"{name} has a name with unprintable characters.",
            remedy="Rename the file.",
        )
    try:
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size > LARGEST_STATEMENT:
                raise StatementError(
                    f"{name} has more than {LARGEST_STATEMENT // 2**20} MB.",
                    remedy="Download fewer days at once.",
                )
            return read_statements(file, name, serves=serves)
    except OSError as error:
        raise StatementError(
            f"{name} cannot be read: {error.strerror}.",
            remedy="Make it a readable file, or remove it from the folder.",
        ) from None


class FlexQuery(NamedTuple):
    """A query that is downloaded.

    Attributes:
        token: The token of the Flex Web Service.
        query_id: The query.
        login: The login of the gateways file that names it; None: the settings do.
    """

    token: SecretStr
    query_id: str
    login: str | None

    @property
    def name(self) -> str:
        """Return what messages call it."""
        if self.login is None:
            return f"query {self.query_id}"
        return f"query {self.query_id} of {self.login}"

    def file_name(self, statements: Sequence[Statement]) -> str:
        """Return the name of the file that these statements of it are stored in."""
        first = min(statement.first for statement in statements)
        last = max(statement.last for statement in statements)
        letters = "".join(filter(str.isalnum, f"{self.login or ''}{self.query_id}")) or "query"
        name = letters.encode()[:100].decode(errors="ignore")
        return f"{name}-{first:%Y%m%d}-{last:%Y%m%d}.xml"


def flex_queries(settings: Settings) -> tuple[list[FlexQuery], list[PositionSyncError]]:
    """Return the queries of the settings, then those of each login, each with its token once.

    Also the error of a gateways file that cannot be read: the queries of the settings are there.
    """
    named_by: list[tuple[str | None, Settings]] = [(None, settings)]
    mistakes: list[PositionSyncError] = []
    try:
        named_by += [(login.gateway_id, login) for login in settings.logins]
    except GatewaysFileError as error:
        mistakes = [error]

    queries: dict[tuple[SecretStr, str], FlexQuery] = {}
    for login, names in named_by:
        token = names.flex_token
        if not token:  # also of an empty text
            continue

        for query_id in filter(None, map(str.strip, (names.flex_query_id or "").split(","))):
            queries.setdefault((token, query_id), FlexQuery(token, query_id, login))
    return [*queries.values()], mistakes


def download_and_import(
    lake: MoneyLake, settings: Settings, run_id: str | None = None
) -> tuple[list[PositionSyncError], Statements]:
    """Download each query, then import the folder, whose files count also if one fails.

    Returns:
        The errors of downloads, and what was imported, where they stand before those of files.
    """
    queries, failures = flex_queries(settings)
    served = ServedAccounts(lake, settings)
    downloaded = []
    for query in queries:
        try:
            downloaded.append(download(query, settings, served))
        except (FlexServiceError, StatementError) as error:
            failures.append(error)

    done = import_statements(lake, settings, run_id)
    number = None if failures and not downloaded else sum(downloaded)
    return failures, done._replace(downloaded=number, unreadable=(*failures, *done.unreadable))


def download(query: FlexQuery, settings: Settings, served: ServedAccounts) -> int:
    """Download a query into the folder, under its login, its id and its days.

    Returns:
        The number of its statements.

    Raises:
        PositionSyncError: The service gave no statement, what came cannot be read or is of no
            account that is served, or the folder cannot be written. The folder is unchanged.
    """
    token = query.token.get_secret_value()
    data = FlexService().download(token, query.query_id, query.name)
    statements = read_statements(data, query.name, serves=served)
    served.check(statements)

    try:
        settings.flex_folder.mkdir(parents=True, exist_ok=True)
        StatementFolder(settings.flex_folder).write(query.file_name(statements), data)
    except OSError as error:
        raise StatementError(
            f"{query.name}: the folder {settings.flex_folder} cannot be written: {error.strerror}.",
            remedy="Make room in it, make it writable, or correct POSITION_SYNC_FLEX_FOLDER.",
        ) from None
    return len(statements)


def import_statements(lake: MoneyLake, settings: Settings, run_id: str | None = None) -> Statements:
    """Store what statements say that the lake does not have: of new and of changed files.

    Each table gets one commit. The days that a statement covers are stored after what it moved: a
    day that is covered has nothing else. At last the index says that the files were read. The lake
    is bound to the trading mode of the accounts.

    Raises:
        TradingModeError: The accounts are of another mode than the lake, or of several.
    """
    served = ServedAccounts(lake, settings)
    folder = StatementFolder(settings.flex_folder, served)
    statements: list[Statement] = []
    read = folder.read(statements)
    if not statements:
        return read

    accounts = chain.from_iterable(statement.accounts for statement in statements)
    for mode in sorted(set(map(trading_mode_of, accounts))):
        lake.sessions.claim_mode(mode)

    executions = [execution for statement in statements for execution in statement.executions]
    events = [event for statement in statements for event in statement.events]
    MovementBook(lake, run_id=run_id).update(statements)
    new_executions = lake.executions.add(executions, run_id=run_id)
    new_events = lake.statement_events.add(events, run_id=run_id)
    folder.remember(served)
    return read._replace(executions=new_executions, events=new_events)


def forget_files(settings: Settings) -> None:
    """Remove the index, so that the next import reads all files again.

    What statements state is stored anew then: also what a table has lost.
    """
    (settings.flex_folder / INDEX_FILE).unlink(missing_ok=True)
