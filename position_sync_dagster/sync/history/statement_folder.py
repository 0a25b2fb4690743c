"""The folder of the broker's statements: read, and extended by downloads."""

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from position_sync_dagster.domain.records.statement import Statement
from position_sync_dagster.domain.update import TradingMode, trading_mode_of
from position_sync_dagster.errors import (
    FlexServiceError,
    ForeignStatementError,
    PositionSyncError,
    StatementError,
)
from position_sync_dagster.gateway.flex.statement_reader import first_day, read_statements

_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statements:
    """What the files of a folder say.

    Attributes:
        found: The newest first: of two for one day, the one that was made later counts.
        unreadable: What is wrong with the other files, each named.
    """

    found: tuple[Statement, ...]
    unreadable: tuple[PositionSyncError, ...]

    def require_readable(self) -> None:
        """Raise for the first file that cannot be read.

        Raises:
            StatementError, FlexServiceError: As `read_statements`.
        """
        if self.unreadable:
            raise self.unreadable[0]


class StatementFolder:
    """Reads statements from the XML files of a folder; one that is absent has none.

    Example:
        statements = StatementFolder(Path("data/flex")).read()
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self) -> Statements:
        """Read every file."""
        found: list[Statement] = []
        unreadable: list[PositionSyncError] = []
        for path in self._files():
            try:
                found += read_statements(_content(path), path.name)
            except (StatementError, FlexServiceError) as error:
                unreadable.append(error)
        found.sort(key=lambda one: (one.generated_at or _NEVER, one.last, one.file), reverse=True)
        return Statements(found=tuple(found), unreadable=tuple(unreadable))

    def first_day(self) -> date | None:
        """Return the first day that a statement covers, reading only the start of each file."""
        days = (first_day(path) for path in self._files())
        return min((day for day in days if day is not None), default=None)

    def store(
        self, data: bytes, query_id: str, *, check: Callable[[list[Statement]], None]
    ) -> list[Statement]:
        """Store a downloaded statement under its query and days, if it can be read.

        The file appears whole or not at all; the same statement again replaces it.

        Args:
            check: Refuses statements by an error before anything is stored.

        Raises:
            StatementError, FlexServiceError: It is no statement; nothing was stored.
        """
        found = read_statements(data, f"query {query_id}")
        if not found:
            raise StatementError(
                f"query {query_id}: the answer has no statement of an account.",
                remedy="Choose at least one account in the Flex query.",
            )
        check(found)
        first, last = min(one.first for one in found), max(one.last for one in found)
        safe = "".join(letter for letter in query_id if letter.isalnum()) or "query"
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{safe}-{first:%Y%m%d}-{last:%Y%m%d}.xml"
        draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
        try:
            draft.write_bytes(data)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
        return read_statements(data, path.name)

    def _files(self) -> Iterator[Path]:
        if self._folder.is_dir():
            yield from sorted(
                path
                for path in self._folder.iterdir()
                if path.suffix.lower() == ".xml" and not path.name.startswith(".")
            )


def refuse_foreign(
    statements: Iterable[Statement], accounts: Collection[str], mode: TradingMode | None
) -> None:
    """Raise for a statement of an account that the tables do not know.

    Args:
        accounts: The accounts that the tables know; where there are none yet, the mode decides.
        mode: The trading mode of the settings, None for any.

    Raises:
        ForeignStatementError: It names file and account.
    """
    for one in statements:
        named = {one.account, *(row.account for row in one.positions)}
        named |= {row.account for row in one.executions}
        for account in sorted(named):
            if accounts and account not in accounts:
                why = f"the tables hold {', '.join(sorted(accounts))}"
            elif not accounts and mode is not None and trading_mode_of(account) is not mode:
                why = f"the trading mode is {mode.value}"
            else:
                continue
            raise ForeignStatementError(
                f"{one.file} is a statement of the account {account}, and {why}.",
                remedy="Remove the file from the folder, or choose this account's lake.",
            )


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StatementError(
            f"{path.name} cannot be read: {error.strerror}.", remedy="Make the file readable."
        ) from None
