"""Take a torn table back to its last whole version, and put back what can still be read."""

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

from position_sync_dagster.errors import BrokenTableError
from position_sync_dagster.lake.delta_log.commit_log import (
    LAST_CHECKPOINT,
    LOG,
    SET_ASIDE,
    checkpoint_name,
    entry_name,
)
from position_sync_dagster.lake.delta_log.durability import sync_paths
from position_sync_dagster.lake.delta_log.log_reader import NO_VERSION, LogReader
from position_sync_dagster.lake.delta_log.torn_commits import TornFile
from position_sync_dagster.lake.queue.transitions.request_rows import as_pending
from position_sync_dagster.lake.recovery.diagnosis import diagnose, undone_rows
from position_sync_dagster.lake.schema.codec import updates_of
from position_sync_dagster.lake.schema.partitions import LIVE_COLUMNS
from position_sync_dagster.lake.schema.tables import POSITION_QUEUE, POSITION_UPDATES
from position_sync_dagster.lake.storage.commit_errors import to_lake_error
from position_sync_dagster.lake.storage.lifecycle_table import Change, LifecycleTable, Snapshot
from position_sync_dagster.lake.storage.table import Table
from position_sync_dagster.lake.storage.writer_lock import WRITER_LOCK, WriterLock
from position_sync_dagster.lake.updates.ledger import SyncUpdates

LOCK_S = 10.0
"""How long a repair waits for the writers of the table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """The result of a repair of one table.

    Attributes:
        moved: Files that were moved to a folder `_torn-…` in the table's own.
        saved: Rows of undone commits that were written again: requests that the whole version
            did not know, and values.
    """

    whole_version: int
    moved: tuple[str, ...]
    saved: int


def repair(table: Table, now: datetime) -> Repair | None:
    """Take a table back to its last whole version; None when nothing is torn.

    With fsync on, a commit is acknowledged only when it and all commits before it are on the
    disk, so the undone commits were acknowledged to nobody. Their rows that can be read are put
    back nevertheless: a request that the whole version does not know is PENDING again, and values
    are written once each. Requests that the undone commits claimed or marked are claimed again;
    their rows are known by their `update_id`. Nothing is deleted: the torn files of the log are
    moved aside.

    Raises:
        BrokenTableError: The log does not reach back to a whole version.
        CommitContentionError: Another process writes all the time.
    """
    with WriterLock(table.path).exclusive(LOCK_S):
        found = diagnose(table)
        if not found.torn_files:
            return None
        whole = found.whole_version
        if whole is None:
            raise BrokenTableError(
                f"The log of {table.path} reaches back to no whole version.",
                remedy="Restore the folder from a copy, or move it away to start with an empty "
                "table.",
            )
        log = LogReader(Path(table.path))
        undone = undone_rows(log, whole)
        moved = _move_aside(log, whole, found.torn_files, now)
    return Repair(whole_version=whole, moved=moved, saved=_put_back(table, undone, now))


def plan_restore(snapshot: Snapshot, undone: pl.DataFrame, now: datetime) -> Change[int]:
    """Add unknown requests as PENDING, unless another live request is for the same position."""
    newest = undone.sort("updated_at").unique("request_id", keep="last", maintain_order=True)
    ids = newest.get_column("request_id").to_list()
    if not ids:
        return Change(0)
    finished = snapshot.finished_with("request_id", ids, columns=["request_id"])
    known = pl.concat([snapshot.live.select("request_id"), finished])
    restored = (
        newest.join(known, on="request_id", how="anti")
        .unique(["account", "conid"], keep="last", maintain_order=True)
        .join(snapshot.live, on=["account", "conid"], how="anti", nulls_equal=True)
        .pipe(as_pending, now)
        .with_columns(*LIVE_COLUMNS)
    )
    if restored.is_empty():
        return Change(0)
    after = pl.concat([snapshot.live, restored.select(snapshot.live.columns)])
    return Change(restored.height, after)


def _put_back(table: Table, undone: pl.DataFrame, now: datetime) -> int:
    if undone.is_empty():
        return 0
    if table.spec is POSITION_QUEUE:
        queue = LifecycleTable(table, lambda: now)
        return queue.change(lambda found: plan_restore(found, undone, now), {"action": "repair"})
    if table.spec is POSITION_UPDATES:
        ledger = SyncUpdates(table)
        # A file of an older release lacks columns; `diagonal_relaxed` fills them with null.
        empty = pl.DataFrame(schema=POSITION_UPDATES.polars)
        values = pl.concat([empty, undone], how="diagonal_relaxed").select(empty.columns)
        batches = values.partition_by("batch_id")
        return sum(ledger.append(updates_of(batch)).rows for batch in batches)
    return 0


def _move_aside(
    log: LogReader, whole: int, torn: tuple[TornFile, ...], now: datetime
) -> tuple[str, ...]:
    names = [entry_name(v) for v in log.entries if v > whole]
    names += [checkpoint_name(v) for v, kept in log.checkpoints.items() if v > whole or not kept]
    pointer = f"{LOG}/{LAST_CHECKPOINT}"
    if (log.log / LAST_CHECKPOINT).exists() and (names or pointer in {one.file for one in torn}):
        names.append(LAST_CHECKPOINT)
    moved = [f"{LOG}/{name}" for name in names]
    if whole == NO_VERSION:  # what is left would look like a table that lost its log
        kept = (LOG, WRITER_LOCK, SET_ASIDE)
        moved += [name for name in os.listdir(log.table) if not name.startswith(kept)]
    aside = log.table / f"{SET_ASIDE}-{now:%Y%m%dT%H%M%S%f}"
    try:
        for name in moved:
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(log.table / name, aside / name)
        sync_paths([log.table, log.log, aside, aside / LOG])
    except OSError as error:
        raise to_lake_error(error, str(log.table)) from error
    return tuple(sorted(moved))
