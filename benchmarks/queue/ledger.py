"""Appending to the ledger: the second's worth of a stream, and a large flush."""

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import polars as pl
from deltalake import write_deltalake

from benchmarks.bench import Bench
from benchmarks.outcome import Line
from benchmarks.queue.values import now, updates
from benchmarks.timing import Samples
from position_sync_dagster.lake.position_updates import PositionUpdatesTable, identified
from position_sync_dagster.lake.schema import update_rows
from position_sync_dagster.lake.storage.merges import maintain

# Rows of one second: how many of a hundred lines tick in it.
STREAMED = 20

FLUSH = 5_000


def appends(bench: Bench) -> None:
    """Append 20 rows each second and 5,000 at once, beside raw Parquet and bare Delta."""
    table = ledger_with_past(bench.new_folder("ledger"), bench.size(1_000, 20))
    paced = Samples()
    _compare(table, bench, paced, STREAMED, bench.size(30, 3), pause_s=bench.size(1.0, 0.0))
    tight = Samples()
    _compare(table, bench, tight, STREAMED, bench.size(60, 3))
    large = Samples()
    _compare(table, bench, large, FLUSH, bench.size(20, 3))
    lines = [
        line
        for what, samples in (
            (f"append {STREAMED} rows, one append a second", paced),
            (f"append {STREAMED} rows, one after the other", tight),
            (f"append {FLUSH:,} rows", large),
        )
        for line in _lines(what, f"{table.sync.count():,} rows", samples)
    ]
    bench.report.add("The ledger's appends", lines)


def ledger_with_past(path: Path, commits: int) -> PositionUpdatesTable:
    """Make a ledger with an hour or so of a stream in it, maintained."""
    table = PositionUpdatesTable(path)
    table.sync.initialize()
    began = now() - timedelta(seconds=commits)
    for second in range(commits):
        table.sync.append(updates(STREAMED, began + timedelta(seconds=second)))
    maintain(table.table)
    return table


def _compare(
    table: PositionUpdatesTable,
    bench: Bench,
    samples: Samples,
    rows: int,
    rounds: int,
    *,
    pause_s: float = 0.0,
) -> None:
    folder = bench.new_folder("baselines")
    folder.mkdir()
    bare = folder / "delta"
    write_deltalake(bare, update_rows(updates(1, now())).clear(), partition_by=["date"])
    for number in range(rounds):
        time.sleep(pause_s)
        values = updates(rows, now())
        frame = samples.time(
            "frame",
            lambda values=values: identified(values),  # type: ignore[misc]
        )
        samples.time("ours", lambda values=values: table.sync.append(values))  # type: ignore[misc]
        samples.time("parquet", _writing(frame, folder / f"{number}.parquet"))
        samples.time(
            "bare",
            lambda frame=frame: write_deltalake(bare, frame, mode="append"),  # type: ignore[misc]
        )


def _writing(frame: pl.DataFrame, path: Path) -> Callable[[], None]:
    def write() -> None:
        frame.write_parquet(path, compression="snappy")

    return write


def _lines(what: str, state: str, samples: Samples) -> list[Line]:
    return [
        Line(
            what=what,
            state=state,
            ours=samples.median("ours"),
            samples=len(samples.of("ours")),
            against=against,
            theirs=samples.median(name),
        )
        for name, against in (
            ("parquet", "raw Parquet file"),
            ("bare", "bare Delta append"),
            ("frame", "making its frame alone"),
        )
    ]
