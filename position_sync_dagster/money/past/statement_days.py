"""What the broker's statements say of past days, which fills the gaps of the ledger."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cached_property
from itertools import chain

import polars as pl

from position_sync_dagster.domain.execution import FLEX
from position_sync_dagster.domain.holding import Key
from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past.closes import Statement, StatementPosition
from position_sync_dagster.money.past.movements import Section, counting_movements
from position_sync_dagster.money.past.stated_days import join_rows, stated_rows
from position_sync_dagster.money.past.statement_folder import (
    ServedAccounts,
    StatementFolder,
    Statements,
)
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.past_days import ClosedDay


class StatementDays:
    """The stated positions in the folder of statements, which is read once.

    Args:
        settings: The settings that name the folder.
        lake: Its accounts are those of which statements count; None: of every account.

    Example:
        ClosingService(lake, settings, stated=StatementDays(settings, lake))
    """

    def __init__(self, settings: Settings, lake: MoneyLake | None = None) -> None:
        accounts = None if lake is None else ServedAccounts(lake, settings)
        self._settings = settings
        self._folder = StatementFolder(settings.flex_folder, accounts)

    @cached_property
    def _contents(self) -> Statements:
        return self._folder.read()

    def days(self) -> set[date]:
        """Return the days that statements cover."""
        return set().union(*(statement.days for statement in self._contents.found))

    def unreadable(self) -> tuple[PositionSyncError, ...]:
        """Return the errors of files that cannot be read, or are of a foreign account."""
        return self._contents.unreadable

    def completed(
        self, rows: pl.DataFrame, day: date, *, opened: datetime, closed: datetime
    ) -> ClosedDay | None:
        """Return the rows of the ledger of a day, completed by the statements that cover it.

        A file may have several of them, and is read once.

        Raises:
            StatementError, FlexServiceError: A file cannot be read.
        """
        covering = (statement.file for statement in self._contents.found if day in statement.days)
        rows_of_files = map(self._folder.rows_of, dict.fromkeys(covering))
        statements = list(chain.from_iterable(rows_of_files))
        stated = _stated(statements, day, self._settings.sec_types)
        if not stated.accounts and not stated.positions and rows.is_empty():
            return None

        joined, differences = join_rows(
            rows,
            stated_rows(stated.positions, day, closed),
            stated.accounts,
            opened=opened,
            band=self._settings.value_band,
            traded=_traded(statements, closed, opened + timedelta(days=1)),
        )
        faults = chain.from_iterable(statement.left_out for statement in statements)
        return ClosedDay(
            closed_at=closed,
            rows=joined,
            stated=joined.filter(pl.col("value_source") == FLEX).height,
            files=tuple(stated.files),
            left_out=tuple(fault for fault, _remedy in faults),
            differences=tuple(differences),
        )


@dataclass(slots=True)
class _Positions:
    """What statements say of the holdings of a day.

    Attributes:
        accounts: The accounts whose holdings are stated, all of them.
        files: The statements that count.
        positions: The stated positions, each with its file.
    """

    accounts: set[str] = field(default_factory=set)
    files: list[str] = field(default_factory=list)
    positions: list[tuple[StatementPosition, str]] = field(default_factory=list)


def _stated(statements: Iterable[Statement], day: date, types: Collection[str]) -> _Positions:
    """Return what statements say of a day; of two for one account, the newer counts.

    Args:
        statements: The newest first.
        day: The day.
        types: The security types that are followed; others are left out, as in our own rows.
    """
    stated = _Positions()
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
