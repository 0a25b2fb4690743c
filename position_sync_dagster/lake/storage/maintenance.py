"""Maintenance of a table: compaction, checkpoints and retention keep it fast as it grows."""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl
from deltalake import DeltaTable

from position_sync_dagster.errors import CommitContentionError, LakeError, LakeNotWritableError
from position_sync_dagster.lake.object_store.answers import plain
from position_sync_dagster.lake.schema.ids import new_part
from position_sync_dagster.lake.schema.partitions import LIVE, in_parts
from position_sync_dagster.lake.storage.commit_errors import STORAGE_ERRORS
from position_sync_dagster.lake.storage.frames import (
    check_room,
    data_files,
    files_in,
    overwrite,
    scan,
)
from position_sync_dagster.lake.storage.table import Table

logger = logging.getLogger(__name__)

COMPACT_FROM = 32
"""The number of small files of one kind from which they are merged."""

WRITER_SMALL_BYTES = 1024 * 1024
SMALL_BYTES = 16 * 1024 * 1024
"""A file of this size or more is left alone: merging it again would cost more than it saves.
Writers merge files below the first bound after their commits, `maintain` below the second."""

MAX_FILES = 512
"""Files that one commit merges; the others wait for the next compaction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaintenanceResult:
    """The result of one maintenance of one table.

    Attributes:
        compacted: Files that were merged into fewer.
        deleted: Files that were deleted: no version within the retention needs them.
        files: Data files of the newest version.
        version: The newest version.
        skipped: Why a part was left for the next maintenance; None when all was done.
    """

    table: str
    compacted: int
    deleted: int
    files: int
    version: int
    skipped: str | None = None


def maintain(table: Table, *, clean_now: bool = False) -> MaintenanceResult:
    """Merge small files, write a checkpoint, delete files older than the retention; blocks.

    Writers and readers may go on meanwhile. If a writer commits first, less is merged.

    Args:
        clean_now: Ignore the retention, for tests and for tables that nobody else has open.
    """
    skipped = None
    compacted = 0
    full = False
    try:
        compacted = compact(table, SMALL_BYTES)
    except CommitContentionError:
        skipped = "compaction: other writers committed first each time"
    except LakeNotWritableError:
        full = True
    deleted = table.snapshot(lambda handle: _clean(table, handle, clean_now=clean_now))
    if full:  # the deleted files may have made room
        compacted = compact(table, SMALL_BYTES)
    files, version = table.snapshot(lambda handle: (data_files(handle).height, handle.version()))
    return MaintenanceResult(
        table=table.spec.name,
        compacted=compacted,
        deleted=deleted,
        files=files,
        version=version,
        skipped=skipped,
    )


def compact_if_needed(table: Table) -> None:
    """Merge the smallest files after enough commits; writers call it after a commit."""
    if not table.take_compaction_due():
        return
    try:
        compact(table, WRITER_SMALL_BYTES)
    except (*STORAGE_ERRORS, LakeError) as error:
        # The commit before it is whole; the next compaction merges more.
        logger.info("cannot compact %s now: %s", table.path, plain(str(error)))


def compact(table: Table, small_bytes: int) -> int:
    """Merge files smaller than `small_bytes`; return how many were merged.

    Finished rows of a table with parts are merged by an overwrite of those parts alone, which does
    not conflict with changes of the live rows. The other tables use Delta's own compaction.
    """
    if "part" in table.spec.partition_by:
        return sum(_merge_parts(table, bucket, small_bytes) for bucket in _buckets(table))
    return table.transact(lambda handle: _compact_by_delta(handle, small_bytes))


def _buckets(table: Table) -> list[str]:
    files = table.snapshot(data_files)
    if files.is_empty():
        return []
    return sorted(set(files.get_column("partition.bucket")) - {LIVE})


def _merge_parts(table: Table, bucket: str, small_bytes: int) -> int:
    def step(handle: DeltaTable) -> int:
        files = files_in(handle, bucket=bucket)
        sizes = files.group_by("partition.part").agg(
            pl.col("size_bytes").sum(), pl.len().alias("files")
        )
        small = sizes.filter(pl.col("size_bytes") < small_bytes).sort("partition.part")
        chosen = small.head(MAX_FILES)
        if chosen.height < COMPACT_FROM:
            return 0
        part = new_part(datetime.now(UTC))
        names = chosen.get_column("partition.part").to_list()
        rows = scan(handle, table.spec, in_parts(bucket, names))
        ordered = rows.with_columns(part=pl.lit(part)).sort(table.spec.indexed[0])
        overwrite(handle, ordered, in_parts(bucket, [*names, part]), {"action": "compact"})
        return int(chosen.get_column("files").sum())

    return table.transact(step)


def _compact_by_delta(handle: DeltaTable, small_bytes: int) -> int:
    files = data_files(handle)
    if files.is_empty() or not _fragmented(files, small_bytes):
        return 0
    small = files.get_column("size_bytes").filter(files.get_column("size_bytes") < small_bytes)
    check_room(handle.table_uri, int(small.sum()))
    metrics = handle.optimize.compact(target_size=small_bytes)
    return int(metrics["numFilesRemoved"])


def _fragmented(files: pl.DataFrame, small_bytes: int) -> bool:
    small = files.filter(pl.col("size_bytes") < small_bytes)
    keys = [name for name in files.columns if name.startswith("partition.")]
    if not keys:
        return small.height >= COMPACT_FROM
    return bool((small.group_by(keys).len().get_column("len") >= COMPACT_FROM).any())


def _clean(table: Table, handle: DeltaTable, *, clean_now: bool) -> int:
    # Only a full vacuum lists the folder. A lite one finds replaced files by their tombstones,
    # which the checkpoints of writers drop: it would leave most of them.
    deleted = handle.vacuum(
        retention_hours=0 if clean_now else None,
        dry_run=False,
        enforce_retention_duration=not clean_now,
        full=True,
    )
    table.checkpoint(handle)
    handle.cleanup_metadata()
    return len(deleted)
