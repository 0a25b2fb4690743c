"""The newest value of each position out of a large ledger, beside DuckDB on the same files.

Of a ledger alone, and of one with the derived table `latest_positions` beside it, as a lake has it.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import polars as pl
from deltalake import DeltaTable

from benchmarks.bench import Bench
from benchmarks.outcome import Line
from benchmarks.queue.values import bulk_rows, now, updates
from benchmarks.timing import Samples
from position_sync_dagster.lake.derived import derive
from position_sync_dagster.lake.position_updates import PositionUpdatesTable
from position_sync_dagster.lake.schema import LATEST_POSITIONS
from position_sync_dagster.lake.storage.commits import write
from position_sync_dagster.lake.storage.merges import maintain
from position_sync_dagster.lake.storage.table import Table

DAYS = 20

# What maintenance leaves of a day's half a million rows.
FILES_A_DAY = 2

_BY_RANK = """
    SELECT * FROM read_parquet({files}, hive_partitioning = true)
    QUALIFY row_number() OVER (
        PARTITION BY account, conid ORDER BY timestamp DESC, update_id DESC) = 1
"""
_BY_MAXIMUM = """
    SELECT account, conid, max_by(rows, (timestamp, update_id))
    FROM read_parquet({files}, hive_partitioning = true) AS rows GROUP BY account, conid
"""


def newest(bench: Bench) -> None:
    """Read the newest row of 10,000 positions out of 10M rows, whole and after one more commit."""
    rows, positions = bench.size((10_000_000, 10_000), (100_000, 1_000))
    path = bench.new_folder("ledger")
    table = ledger_of(path, rows, positions)
    known = Table(bench.new_folder("latest"), LATEST_POSITIONS)
    known_rows = table.sync.latest().with_columns(confirmed_at="timestamp")
    derive(known, lambda: known_rows)
    queries = {"by rank": _BY_RANK, "by maximum": _BY_MAXIMUM}
    samples = Samples()
    for _ in range(bench.size(3, 1)):
        reader = PositionUpdatesTable(path)
        found = samples.time("whole", reader.sync.latest)
        assert found.height == positions, found.height
        beginning = PositionUpdatesTable(path, known=known)
        assert samples.time("known", beginning.sync.latest).equals(found)
        for name, query in queries.items():
            theirs = samples.time(name, _asking(table, query))
            assert theirs == positions, theirs
    for _ in range(bench.size(10, 3)):
        table.sync.append(updates(20, now()))
        samples.time("again", reader.sync.latest)
    best = min(queries, key=samples.median)
    _check_same(reader.sync.latest(), table)
    state = f"{positions:,} positions, {rows:,} rows"
    lines = [
        Line(
            what=what,
            state=state,
            ours=samples.median(name),
            samples=len(samples.of(name)),
            against=f"DuckDB, {best}",
            theirs=samples.median(best),
        )
        for what, name in (
            ("newest row per position, first read", "whole"),
            ("the same beside latest_positions", "known"),
            ("the same after one more commit", "again"),
        )
    ]
    bench.report.add("The ledger's newest rows", lines)


def ledger_of(path: Path, rows: int, positions: int) -> PositionUpdatesTable:
    """Make a ledger of 20 days, in bulk, with the files that maintenance leaves."""
    table = PositionUpdatesTable(path)
    table.sync.initialize()
    table.sync.append(updates(1, now() - timedelta(days=DAYS + 1)))
    per_file = rows // DAYS // FILES_A_DAY
    first_day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    for day in range(DAYS, 0, -1):
        for part in range(FILES_A_DAY):
            began = first_day - timedelta(days=day) + timedelta(days=1) / FILES_A_DAY * part
            step = timedelta(days=1) / FILES_A_DAY / per_file
            _append(table, bulk_rows(began, per_file, positions, step=step))
    maintain(table.table)
    return table


def _append(table: PositionUpdatesTable, frame: pl.DataFrame) -> None:
    def step(handle: DeltaTable) -> None:
        rows = frame.with_columns(
            ledger_version=pl.lit(handle.version() + 1, pl.Int64),
            committed_at=pl.col("timestamp").max(),
            clock_resets=pl.lit(0, pl.Int64),
        )
        write(handle, rows, {"action": "compact"})

    table.table.transact(step)


def _files(table: PositionUpdatesTable) -> list[str]:
    return table.table.snapshot(lambda handle: handle.file_uris())


def _asking(table: PositionUpdatesTable, query: str) -> Callable[[], int]:
    def ask() -> int:
        return _ask(table, query).height

    return ask


def _ask(table: PositionUpdatesTable, query: str) -> pl.DataFrame:
    with duckdb.connect() as connection:
        found = connection.sql(query.format(files=_files(table)))
        return pl.DataFrame(found.to_arrow_table())


def _check_same(ours: pl.DataFrame, table: PositionUpdatesTable) -> None:
    theirs = _ask(table, _BY_RANK).select("update_id")
    odd = ours.select("update_id").join(theirs, on="update_id", how="anti")
    assert odd.is_empty(), f"{odd.height} newest rows differ from DuckDB's"
