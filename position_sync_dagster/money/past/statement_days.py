"""What the broker's statements say of past days, which fills the gaps of the ledger.

Rows of `daily_positions` that they state are joined with our own.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from itertools import accumulate, chain
from operator import attrgetter

from polars import DataFrame, col, concat

from position_sync_dagster.domain.holding import KEY, Key, grouped
from position_sync_dagster.domain.position_update import PriceKind, trading_mode_of
from position_sync_dagster.domain.reconciliation import Discrepancy, DiscrepancyType
from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.lake.schema import DAILY_POSITIONS, fields_of, frame_of, one_of
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past.closes import FLEX, Statement, StatementPosition
from position_sync_dagster.money.past.movements import (
    Movement,
    Section,
    counting_movements,
    rounded,
)
from position_sync_dagster.money.past.statement_folder import (
    ServedAccounts,
    StatementFolder,
    Statements,
)
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.past_days import ClosedDay, ClosingService

# The folder of statements, as an asset.
FOLDER = "flex_statements"


class StatementDays(ClosingService[MoneyLake]):
    """Past days with the positions in the folder of statements, which is read once."""

    assets = (FOLDER,)
    source_name = "statement"
    remedy = "Put statements of {} into the folder of POSITION_SYNC_FLEX_FOLDER."

    @cached_property
    def _folder(self) -> StatementFolder:
        return StatementFolder(self.settings.flex_folder, ServedAccounts(self.lake, self.settings))

    @cached_property
    def _contents(self) -> Statements:
        return self._folder.read()

    @classmethod
    def days_of_anyone(cls, settings: Settings) -> set[date]:
        """Return the days that statements cover, of whatever account."""
        return _days_of(StatementFolder(settings.flex_folder).read())

    def stated_days(self) -> set[date]:
        """Return the days that statements of the accounts of the lake cover."""
        return _days_of(self._contents)

    def unreadable(self) -> tuple[PositionSyncError, ...]:
        """Return the errors of files that cannot be read, or are of a foreign account."""
        return self._contents.unreadable

    def completed(
        self, rows: DataFrame, day: date, *, opened: datetime, closed: datetime
    ) -> ClosedDay | None:
        """Return the rows of the ledger of a day, completed by the statements that cover it.

        A file may have several of them, and is read once.

        Raises:
            StatementError, FlexServiceError: A file cannot be read.
        """
        covering = (statement.file for statement in self._contents.found if day in statement.days)
        rows_of_files = map(self._folder.rows_of, dict.fromkeys(covering))
        statements = list(chain.from_iterable(rows_of_files))
        accounts, files, positions = _stated(statements, day, self.settings.sec_types)
        if not accounts and not positions and rows.is_empty():
            return None

        joined, differences = join_rows(
            rows,
            stated_rows(positions, day, closed),
            accounts,
            opened=opened,
            traded=_traded(statements, closed, opened + timedelta(days=1)),
        )
        said: dict[str, int | str] = {
            "from_statement": joined.filter(value_source=FLEX).height,
            "statements": ", ".join(files),
        }
        # A plot of zeros alone has no use.
        rows_left_out = sum(len(statement.left_out) for statement in statements)
        if rows_left_out:
            said["rows_left_out"] = rows_left_out
        return ClosedDay(
            closed_at=closed, rows=joined, of_source=said, differences=tuple(differences)
        )


def _days_of(statements: Statements) -> set[date]:
    return set().union(*(statement.days for statement in statements.found))


def _stated(
    statements: Iterable[Statement], day: date, types: Collection[str]
) -> tuple[set[str], list[str], list[StatementPosition]]:
    """Return what statements say of a day; of two for one account, the newer counts.

    Args:
        statements: The newest first.
        day: The day.
        types: The security types that are followed; others are left out, as in our own rows.

    Returns:
        The accounts all of whose holdings are stated, the statements that count, and the positions.
    """
    counting: dict[str, Statement] = {}
    for statement in statements:
        if day in statement.days:
            of_day = {row.account for row in statement.positions if row.day == day}
            counting = dict.fromkeys({statement.account, *of_day}, statement) | counting

    complete = {account for account, newest in counting.items() if not newest.lacks_positions}
    listed = [
        row
        for account, newest in counting.items()
        for row in newest.positions
        if (row.account, row.day) == (account, day) and row.sec_type in types
    ]
    return complete, sorted({newest.file for newest in counting.values()}), listed


def _traded(
    statements: Collection[Statement], first: datetime, last: datetime
) -> defaultdict[Key, list[Movement]]:
    """Return what changed each holding between two times, in order of time."""
    stated = chain.from_iterable(statement.movements for statement in statements)
    seen_at_once = (Section.TRADES, Section.CORPORATE_ACTIONS)
    changing = [
        movement
        for movement in counting_movements(stated, [])
        if movement.section in seen_at_once and movement.quantity
        if movement.at is not None and first < movement.at < last
    ]
    return grouped(attrgetter("key"), sorted(changing, key=attrgetter("at", "quantity")))


def stated_rows(positions: Iterable[StatementPosition], day: date, closed: datetime) -> DataFrame:
    """Return the positions of statements as rows of a day, in the schema of `daily_positions`.

    Args:
        positions: The positions.
        closed: The close of the day, in UTC: the time of the broker's values.
    """
    of_day = {
        "session_date": day,
        "closed_at": closed,
        "timestamp": closed,
        "value_time": closed,
        "age_s": 0.0,
        "source": FLEX,
        "value_source": FLEX,
        "gateway_id": "",
    }

    rows = [
        fields_of(position)
        | of_day
        | {
            "update_id": f"{FLEX}:{position.account}:{position.conid}:{day}",
            "price_kind": None if position.market_price is None else PriceKind.MARK,
            "trading_mode": trading_mode_of(position.account),
            "batch_id": position.statement,
            "note": f"from the broker's statement {position.statement}",
        }
        for position in positions
    ]
    return frame_of(DAILY_POSITIONS, rows)


def join_rows(
    valued: DataFrame,
    stated: DataFrame,
    covered: Collection[str],
    *,
    opened: datetime,
    traded: defaultdict[Key, list[Movement]],
) -> tuple[DataFrame, list[Discrepancy]]:
    """Return our own rows of a day, completed by the broker's statement, and where they differ.

    A row that was written on the day is kept. A row from before the day is replaced by that of the
    statement. Accounts that no statement covers are left alone. A statement has the quantities of
    the end of its day: where trades after the close lead to them, ours are those of the close.

    Args:
        valued: As `values_at_close` returns them.
        stated: As `stated_rows` returns them.
        covered: The accounts that the statements cover; a position they do not list is not held.
        opened: Local midnight at the start of the day.
        traded: What changed each holding after the close, in order of time.
    """
    is_covered = one_of("account", covered)
    written = col.timestamp >= opened.astimezone(UTC)
    fresh = valued.filter(written | ~is_covered)
    compared = fresh.filter(is_covered).select(_COMPARED)
    of_seen = stated.join(compared, on="account", how="semi").select(_COMPARED)
    pairs = compared.join(of_seen, on=KEY, how="full", suffix="_stated", coalesce=True)

    traded_later: list[Key] = []
    differences: list[Discrepancy] = []
    for account, conid, symbol, mine, stated_symbol, theirs in pairs.sort(KEY).iter_rows():
        # What only one side lists, the other does not hold.
        by = rounded((theirs or 0.0) - (mine or 0.0))
        changes = map(attrgetter("change"), traded[account, conid])
        if by in map(rounded, accumulate(changes)):
            traded_later.append((account, conid))  # both are right
        elif by:
            detail = _LISTED_ALONE if mine is None else _DIFFERS
            holding = (account, conid, symbol or stated_symbol or "")
            differences.append(
                Discrepancy(DiscrepancyType.STATEMENT, *holding, theirs, mine, detail)
            )

    later = DataFrame(traded_later, pairs.select(KEY).schema, orient="row")
    stated_alone = stated.join(fresh, on=KEY, how="anti").join(later, on=KEY, how="anti")
    return concat([fresh, stated_alone]).sort(KEY), differences


_COMPARED = [*KEY, "symbol", "position"]

_DIFFERS = "the quantity differs from the broker's statement"
_LISTED_ALONE = "the broker's statement lists it, and we have no row of the day"
