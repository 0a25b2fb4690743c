"""Take a torn table back to its last whole version, and put back what can still be read."""

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

from position_sync_dagster.domain.request import QueueStatus
from position_sync_dagster.errors import BrokenTableError
from position_sync_dagster.lake.delta_log.commit_log import (
    ASIDE,
    LAST_CHECKPOINT,
    LOG,
    checkpoint_name,
    entry_name,
)
from position_sync_dagster.lake.delta_log.durability import sync_now
from position_sync_dagster.lake.delta_log.log_reader import NEVER, DiskLog
from position_sync_dagster.lake.recovery.diagnosis import Diagnosis, diagnose, loose_rows
from position_sync_dagster.lake.storage.codec import moment, updates_of
from position_sync_dagster.lake.storage.commit_errors import to_lake_error
from position_sync_dagster.lake.storage.ids import id_literals
from position_sync_dagster.lake.storage.lifecycle_table import Change, LifecycleTable, Snapshot
from position_sync_dagster.lake.storage.partitions import LIVE_COLUMNS
from position_sync_dagster.lake.storage.schemas import POSITION_QUEUE, POSITION_UPDATES
from position_sync_dagster.lake.storage.table import Table
from position_sync_dagster.lake.storage.writer_lock import WRITER_LOCK, WriterLock
from position_sync_dagster.lake.updates.ledger import SyncUpdates

LOCK_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """What a repair did to one table.

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

    A commit was acknowledged once it and all before it were on the disk, so that what is undone
    was promised to nobody. Whatever of it can be read is put back nevertheless: a request that
    the whole version does not know is PENDING again, and values are written once each. Requests
    that the undone commits claimed or marked are claimed again; their rows are known by their
    `update_id`. Nothing is deleted: the torn files of the log are moved aside.

    Raises:
        BrokenTableError: The log reaches back to no whole version.
        CommitContentionError: Another process writes all the time.
    """
    with WriterLock(table.path).exclusive(LOCK_S):
        found = diagnose(table)
        if not found.tears:
            return None
        if found.whole_version is None:
            raise BrokenTableError(
                f"The log of {table.path} reaches back to no whole version.",
                remedy="Restore the folder from a copy, or move it away to start with an empty "
                "table.",
            )
        log = DiskLog(Path(table.path))
        loose = loose_rows(log, found.whole_version)
        moved = _move_aside(log, found, now)
    return Repair(
        whole_version=found.whole_version, moved=moved, saved=_put_back(table, loose, now)
    )


def plan_requests(view: Snapshot, loose: pl.DataFrame, now: datetime) -> Change[int]:
    """Put requests that are not known back as PENDING, where nobody asks for their position."""
    newest = loose.sort("updated_at").unique("request_id", keep="last", maintain_order=True)
    ids = newest.get_column("request_id").to_list()
    if not ids:
        return Change(0)
    ended = view.finished(f"request_id IN ({id_literals(ids)})")
    known = pl.concat([f.select("request_id") for f in (view.live, ended)])
    back = (
        newest.join(known, on="request_id", how="anti")
        .unique(["account", "conid"], keep="last", maintain_order=True)
        .join(view.live, on=["account", "conid"], how="anti", nulls_equal=True)
        .with_columns(
            *LIVE_COLUMNS,
            status=pl.lit(QueueStatus.PENDING.value),
            updated_at=moment(now),
            available_at=pl.lit(None, pl.Datetime("us", "UTC")),
            lease_owner=pl.lit(None, pl.String),
            lease_token=pl.lit(None, pl.String),
            lease_expires_at=pl.lit(None, pl.Datetime("us", "UTC")),
        )
    )
    if back.is_empty():
        return Change(0)
    return Change(back.height, pl.concat([view.live, back.select(view.live.columns)]))


def _put_back(table: Table, loose: pl.DataFrame, now: datetime) -> int:
    if loose.is_empty():
        return 0
    if table.spec is POSITION_QUEUE:
        lifecycle = LifecycleTable(table, lambda: now)
        return lifecycle.change(lambda view: plan_requests(view, loose, now), {"action": "repair"})
    if table.spec is POSITION_UPDATES:
        ledger = SyncUpdates(table)
        whole = loose.with_columns(date=pl.col("timestamp").dt.date())
        batches = whole.select(list(POSITION_UPDATES.columns)).partition_by("batch_id")
        return sum(ledger.append(updates_of(batch)).rows for batch in batches)
    return 0


def _move_aside(log: DiskLog, found: Diagnosis, now: datetime) -> tuple[str, ...]:
    whole = found.whole_version if found.whole_version is not None else NEVER
    names = [entry_name(v) for v in log.entries if v > whole]
    names += [checkpoint_name(v) for v, kept in log.checkpoints.items() if v > whole or not kept]
    pointer = f"{LOG}/{LAST_CHECKPOINT}"
    if (log.log / LAST_CHECKPOINT).exists() and (
        names or pointer in {tear.file for tear in found.tears}
    ):
        names.append(LAST_CHECKPOINT)
    moved = [f"{LOG}/{name}" for name in names]
    if whole == NEVER:  # what is left would look like a table that lost its log
        kept = (LOG, WRITER_LOCK, ASIDE)
        moved += [name for name in os.listdir(log.table) if not name.startswith(kept)]
    aside = log.table / f"{ASIDE}-{now:%Y%m%dT%H%M%S%f}"
    try:
        for name in moved:
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(log.table / name, aside / name)
        sync_now([log.table, log.log, aside, aside / LOG])
    except OSError as error:
        raise to_lake_error(error, str(log.table)) from error
    return tuple(sorted(moved))
