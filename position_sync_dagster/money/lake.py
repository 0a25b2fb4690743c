"""The lake with the tables of money."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Self, Unpack

import polars as pl
from polars import DataFrame, Expr, col

from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.execution import Execution
from position_sync_dagster.lake import schema
from position_sync_dagster.lake.derived import Replaced, derive
from position_sync_dagster.lake.lake import Lake, LakeOptions
from position_sync_dagster.lake.records import RecordsTable, add_unknown
from position_sync_dagster.lake.storage.data_files import EVERY
from position_sync_dagster.lake.storage.table import Table
from position_sync_dagster.money import tables as money_tables
from position_sync_dagster.money.past import closes
from position_sync_dagster.money.past.movements import Movement, MovementSource
from position_sync_dagster.money.strategies.strategies_file import RuledFile, saved_file
from position_sync_dagster.money.tables import ExpectedDividend
from position_sync_dagster.processes.heard.heard_lake import HeardLake
from position_sync_dagster.settings import Settings

# Where a row of a statement came from: the same fact may have several.
_WHO_STATED = ("run_id", "statement", "stated_at")

# Whether a movement is stated; older releases wrote what follows from causes of closes too.
IS_STATED = col.source != MovementSource.INFERRED.value


class MovementsTable(RecordsTable[Movement]):
    """The table `movements`, which is replaced as a whole.

    Example:
        lake.movements.rows(since=date(2026, 3, 2), only=col.account == "U1234567")
    """

    def __init__(self, table: Table) -> None:
        super().__init__(table, Movement)

    def rows(
        self,
        since: datetime | date | None = None,
        only: Expr = EVERY,
        columns: Collection[str] = (),
    ) -> DataFrame:
        """Return movements in order of day; only files are read that may have one of them.

        `movements_with_inferred` has what follows from causes of closes too.
        """
        rows = super().rows(since, only & IS_STATED).sort("day", "movement_id")
        return rows.select(columns or rows.columns)

    def derive(
        self,
        make: Callable[[], Iterable[Movement]],
        *,
        since: date | None = None,
        run_id: str | None = None,
    ) -> Replaced:
        """Make the table equal to what `make` reads; equal movements commit nothing.

        Args:
            make: Reads the sources of the movements since that day.
            since: Movements of earlier days stay; None: there are none.

        Raises:
            CommitContentionError: Other writers committed first each time; nothing was changed.
        """

        def rows() -> DataFrame:
            movements = schema.frame_of(self.table.spec, make())
            if since is None:
                return movements

            return pl.concat([self.rows(only=col.day < since), movements])

        return derive(self.table, rows, run_id=run_id)[1]


class DividendsTable(RecordsTable[ExpectedDividend]):
    """The table `dividends`: what was expected of underlyings, and since when."""

    def __init__(self, table: Table, clock: Clock = utc_now) -> None:
        super().__init__(table, ExpectedDividend)
        self._clock = clock

    def current(self) -> list[ExpectedDividend]:
        """Return the dividends that were seen last of each underlying and source, next first.

        Those that a clock ahead wrote do not count.
        """
        newest = col.seen_at.max().over("conid", "source")
        is_ahead = schema.is_ahead("seen_at", self._clock())
        rows = self.table.rows(~is_ahead).sort("conid", "source", "ex_date")
        rows = rows.filter(col.seen_at == newest)
        return schema.records_of(ExpectedDividend, rows)


class RiskScenariosTable:
    """The table `risk_scenarios`: what each strategy would lose, at each time it was computed."""

    def __init__(self, table: Table, clock: Clock = utc_now) -> None:
        self.table = table
        self._clock = clock

    def record(self, rows: Iterable[Mapping[str, object]]) -> int:
        """Store the rows of one time, each once, in one commit; return how many were new."""
        spec = self.table.spec
        frame = schema.frame_of(spec, rows)
        if frame.is_empty():
            return 0
        return add_unknown(self.table, frame, list(spec.key), {"action": "record"})

    def latest(self) -> DataFrame:
        """Return the rows of the newest time; those that a clock ahead wrote do not count."""
        is_ahead = schema.is_ahead("made_at", self._clock())
        newest = col.made_at.max()
        return self.table.rows(~is_ahead).filter(col.made_at == newest)


def judged_last(closures: DataFrame) -> DataFrame:
    """Return the rows that count: of each close those that were judged last."""
    last = col.judged_at.max().over("change_id")
    return closures.filter(col.judged_at.eq_missing(last))


class ClosuresTable(RecordsTable[closes.Closure]):
    """The table `closures`: the causes of closes, the provisional and the stated ones.

    A cause that counted before may count again: it is stored with the time of each judgement.
    """

    def __init__(self, table: Table) -> None:
        super().__init__(table, closes.Closure)

    def current_rows(
        self,
        only: Expr = EVERY,
        since: datetime | None = None,
        columns: Collection[str] = tuple(money_tables.CLOSURES.columns),
    ) -> DataFrame:
        """Return, for each close, the causes that count: those judged last.

        Args:
            only: Chooses rows; the others do not count.
            since: The earliest time at which closes were judged; None: any.
            columns: Names of columns. With `closed_at` the oldest come first.
        """
        names = {"change_id", "judged_at", "cause", *columns}
        counted = judged_last(self.rows(since, only, sorted(names)))
        if "closed_at" in columns:
            counted = counted.sort("closed_at", "change_id", "cause")
        return counted.select(list(columns))

    def current(self, only: Expr = EVERY, since: datetime | None = None) -> list[closes.Closure]:
        """Return the rows of `current_rows` as records."""
        return schema.records_of(closes.Closure, self.current_rows(only, since))


class MoneyLake(HeardLake):
    """The lake of the core, what gateways said, and the tables of money, all in one folder.

    Args:
        calendar: The exchange whose trading days movements belong to.
    """

    specs = (*HeardLake.specs, *money_tables.TABLES)
    derived_specs = (*HeardLake.derived_specs, *money_tables.DERIVED)

    def __init__(
        self,
        path: str | Path = "data/lake",
        *,
        calendar: str = "XNYS",
        **options: Unpack[LakeOptions],
    ) -> None:
        super().__init__(path, **options)
        self.calendar = calendar
        table = self.open_table
        self.executions = RecordsTable(table(money_tables.EXECUTIONS), Execution, _WHO_STATED)
        self.statement_events = RecordsTable(
            table(money_tables.STATEMENT_EVENTS), closes.StatementEvent, _WHO_STATED
        )
        self.closures = ClosuresTable(table(money_tables.CLOSURES))
        self.movements = MovementsTable(table(money_tables.MOVEMENTS))
        self.dividends = DividendsTable(table(money_tables.DIVIDENDS), self._clock)
        self.risk_scenarios = RiskScenariosTable(table(money_tables.RISK_SCENARIOS), self._clock)

    @classmethod
    def of(cls, settings: Settings, *, clock: Clock = utc_now) -> Self:
        """Return the lake that the settings name, with their fsync and their calendar."""
        return cls(settings.lake, calendar=settings.calendar, clock=clock, fsync=settings.fsync)

    def strategies_file(self, path: Path) -> RuledFile:
        """Open a strategies file, with its rules and limits; see `Lake.strategies_file`."""
        return saved_file(path)


def derived_rows(
    table: Table,
    only: Expr = EVERY,
    chosen: Expr = EVERY,
    columns: Sequence[str] | None = None,
) -> DataFrame:
    """Return rows of a derived table, as `Table.rows`; none where it was never made; blocks."""
    if table.exists():
        return table.rows(only, chosen, columns)
    empty = table.spec.empty
    return empty.select(columns or empty.columns)


def newest_day(table: Table) -> DataFrame:
    """Return the rows of the newest trading day of a table with a partition for each; blocks."""
    session = col("partition.session_date")
    return table.rows(chosen=session == session.max())


# A contract, and when something happened to it; None: its time is not known.
Moment = tuple[int, datetime | None]


def nearest_rows(
    lake: Lake,
    moments: Iterable[Moment],
    columns: Collection[str],
    only: Expr,
    *,
    before: timedelta = timedelta(),
    after: timedelta = timedelta(),
    **more: Expr,
) -> dict[Moment, dict[str, Any]]:
    """Return the row of the ledger right before, or right after, moments of contracts; blocks.

    It is read day by day. A moment without such a row is left out.

    Args:
        lake: The tables.
        moments: Contracts with the times of interest.
        columns: Those of the rows.
        only: Which rows count.
        before: How much earlier than its moment a row may be; 0: it is a later one.
        after: How much later.
        more: Further columns of these rows.
    """
    in_order = DataFrame([*moments], _MOMENTS, orient="row").unique()
    in_order = in_order.drop_nulls("at").sort("at")
    nearest: dict[Moment, dict[str, Any]] = {}
    if in_order.is_empty():
        return nearest

    recorded = lake.updates.sync.days()
    for (day,), of_day in in_order.group_by(col.at.dt.date(), maintain_order=True):
        if day not in recorded:
            continue

        first: datetime = of_day["at"][0]
        last: datetime = of_day["at"][-1]
        span = (first - before, last + after)
        conids = of_day["conid"].to_list()
        rows = lake.updates.sync.between(*span, conids, columns)
        rows = rows.filter(only).with_columns(**more)
        nearest_of_day = of_day.join_asof(
            rows,
            left_on="at", right_on="timestamp", by="conid",
            strategy="forward" if after else "backward", tolerance=before or after,
            coalesce=False, check_sortedness=False,  # Polars checks no groups, and warns of it
        )  # fmt: skip
        for row in nearest_of_day.drop_nulls("timestamp").to_dicts():
            nearest[row["conid"], row["at"]] = row
    return nearest


_MOMENTS: dict[str, pl.DataType] = {"conid": pl.Int64(), "at": pl.Datetime("us", "UTC")}
