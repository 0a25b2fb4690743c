"""Queues with a past: finished requests in bulk, or many commits with their maintenance."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
from deltalake import DeltaTable

from benchmarks.bench import Bench
from benchmarks.queue.contestant import BATCH
from benchmarks.queue.lake_queue import ACCOUNT, FIRST_CONID, LakeQueue
from position_sync_dagster.lake.schema import POSITION_QUEUE, new_ids
from position_sync_dagster.lake.storage.commits import write
from position_sync_dagster.lake.storage.data_files import data_files
from position_sync_dagster.lake.storage.merges import SMALL_BYTES, maintain
from position_sync_dagster.lake.storage.table import Table

# Drains between two turns of maintenance: an hour of one drain every 5 s.
UPKEEP_EVERY = 720

# Drains in the half hour for which the tables keep their log and replaced files.
RETENTION_DRAINS = UPKEEP_EVERY // 2

_PROBE_ROWS = 20_000


def lake_of_finished(bench: Bench, rows: int) -> LakeQueue:
    """Give our queue with finished requests, made once a run."""
    return bench.kept(
        f"finished-{rows}", lambda: queue_with_finished(bench.new_folder("lake"), rows)
    )


def lake_of_commits(bench: Bench, commits: int, *, hurried: bool = False) -> LakeQueue:
    """Give our queue after many commits, made once a run."""
    return bench.kept(
        f"commits-{commits}-{hurried}",
        lambda: queue_with_commits(bench.new_folder("lake"), commits, hurried=hurried),
    )


def queue_with_finished(path: Path, rows: int) -> LakeQueue:
    """Make a queue that has finished so many requests.

    They are written in bulk into the files that maintenance leaves of an hour-by-hour past: parts
    in order of time, each just over the size from which maintenance lets a file be. A turn of
    maintenance afterwards finds nothing to do.
    """
    contestant = LakeQueue(path)
    if rows:
        _write_parts(contestant, rows)
        done = maintain(contestant.queue.table, clean_now=True)
        assert done.compacted == 0, done
    assert sum(contestant.counts().values()) == rows
    return contestant


def queue_with_commits(path: Path, commits: int, *, hurried: bool = False) -> LakeQueue:
    """Make a queue that has lived through so many commits, maintained as in production.

    Args:
        hurried: The commits came within minutes, and the table keeps them for half an hour as it
            always does. Otherwise what it keeps shrinks as the time between two drains does.
    """
    contestant = LakeQueue(path)
    table, drains, began = contestant.queue.table, 0, time.monotonic()
    while table.version() < commits:
        contestant.run(1)
        drains += 4
        if drains % 40 == 0 and drains <= 200 and not hurried:
            keep_for(table, (time.monotonic() - began) / drains * RETENTION_DRAINS)
        if drains % UPKEEP_EVERY == 0:
            maintain(table)
    return contestant


def keep_for(table: Table, seconds: float) -> None:
    """Let a table keep its log and replaced files for so long, at least a second."""
    text = f"interval {max(1, round(seconds))} seconds"
    wanted = {"delta.logRetentionDuration": text, "delta.deletedFileRetentionDuration": text}

    def step(handle: DeltaTable) -> None:
        found = handle.metadata().configuration
        if any(found.get(name) != value for name, value in wanted.items()):
            handle.alter.set_table_properties(wanted)

    table.transact(step)


def finished_rows(first_at: datetime, rows: int, part: str) -> pl.DataFrame:
    """Give requests that were enqueued, claimed in batches and finished, in order of time."""
    index = pl.int_range(rows, eager=True)
    created = pl.lit(first_at) + pl.duration(milliseconds="index")
    batches = [token.replace("-", "") for token in new_ids(first_at, -(-rows // BATCH))]
    frame = pl.DataFrame({"request_id": new_ids(first_at, rows), "index": index})
    finished = frame.select(
        "request_id",
        account=pl.lit(ACCOUNT),
        conid=FIRST_CONID + pl.col("index") % 180,
        symbol=pl.format("SYM{}", pl.col("index") % 40),
        priority=pl.lit(2, pl.Int64),
        status=pl.lit("SUCCESS"),
        attempts=pl.lit(0, pl.Int64),
        created_at=created,
        updated_at=created + pl.duration(seconds=3),
        available_at=pl.lit(None, pl.Datetime("us", "UTC")),
        lease_owner=pl.lit("drain-worker-1"),
        lease_token=pl.Series(batches).gather(index // BATCH),
        lease_expires_at=pl.lit(None, pl.Datetime("us", "UTC")),
        error_message=pl.lit(None, pl.String),
        reason=pl.lit("REFRESH"),
        bucket=pl.lit("SUCCESS"),
        part=pl.lit(part),
    )
    kinds = POSITION_QUEUE.polars
    empty = [pl.lit(None, kind).alias(name) for name, kind in kinds.items() if name not in finished]
    return finished.with_columns(empty).select(list(kinds)).cast(dict(kinds))  # type: ignore[arg-type]


def _write_parts(contestant: LakeQueue, rows: int) -> None:
    began = datetime.now(UTC) - timedelta(days=30)
    per_part = _rows_of_a_full_part(contestant.queue.table.path, began)
    for first in range(0, rows, per_part):
        at = began + timedelta(seconds=first)
        frame = finished_rows(at, min(per_part, rows - first), *new_ids(at, 1))

        def step(handle: DeltaTable, frame: pl.DataFrame = frame) -> None:
            write(handle, frame, {"action": "compact"})

        contestant.queue.table.transact(step)


def _rows_of_a_full_part(path: str, at: datetime) -> int:
    probe = LakeQueue(Path(path + "-probe"))
    frame = finished_rows(at, _PROBE_ROWS, *new_ids(at, 1))
    probe.queue.table.transact(lambda handle: write(handle, frame, {}))
    size = int(probe.queue.table.snapshot(data_files).get_column("size_bytes").sum())
    return int(1.2 * SMALL_BYTES / size * _PROBE_ROWS)
