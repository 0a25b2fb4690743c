"""Maintenance of a table: merges of small files, checkpoints, retention."""

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import polars as pl
from deltalake import DeltaTable

from position_sync_dagster.errors import CommitContentionError, LakeError, LakeNotWritableError
from position_sync_dagster.lake.schema.codec import LIVE, new_part
from position_sync_dagster.lake.storage import table as storage
from position_sync_dagster.lake.storage.commit_errors import STORAGE_ERRORS, plain
from position_sync_dagster.lake.storage.table import Table

logger = logging.getLogger(__name__)

# Small files of one kind are merged when there are this many.
COMPACT_FROM = 32

WRITER_SMALL_BYTES = 1024 * 1024
# A file of this size or more is left alone: merging it again would cost more than it saves.
# Writers merge files below the first bound after their commits, `maintain` below the second.
SMALL_BYTES = 16 * 1024 * 1024

# Maximum number of parts that one commit merges; the others wait for the next compaction.
MAX_FILES = 512

# Maximum size that one merge reads, besides its first file, as a multiple of the size below which
# a file is small.
MAX_SMALL = 4

# A folder without files is removed after this time, in seconds.
EMPTY_S = 1_800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MaintenanceResult:
    """The result of one maintenance of one table.

    Attributes:
        compacted: Files that were merged into fewer.
        deleted: Files that were deleted: no version within the retention needs them.
        files: Data files of the newest version.
        version: The newest version.
        skipped: Which work was left for the next maintenance, and why; None when all was done.
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
    compacted, skipped = 0, None
    try:
        compacted = compact(table, SMALL_BYTES)
    except (CommitContentionError, LakeNotWritableError) as error:
        skipped = f"compaction: {error.what}"  # what is deleted next may make room
    # Only a full vacuum lists the folder. A lite one finds replaced files by their tombstones,
    # which the checkpoints of writers drop: it would leave most of them.
    vacuumed = table.snapshot(
        lambda handle: handle.vacuum(
            retention_hours=0 if clean_now else None,
            dry_run=False,
            enforce_retention_duration=not clean_now,
            full=True,
        )
    )
    table.remove_empty_folders(empty_for_s=0.0 if clean_now else EMPTY_S)
    table.snapshot(partial(_cut_log, table))
    files = table.snapshot(storage.data_files).height
    return MaintenanceResult(
        table=table.spec.name,
        compacted=compacted,
        deleted=len(vacuumed),
        files=files,
        version=table.version(),
        skipped=skipped,
    )


def compact_if_needed(table: Table) -> None:
    """Merge the smallest files after enough commits; writers call it after a commit.

    In an object store a merge takes up to 20 s: there it runs beside the writer, on a handle of its
    own, so that no flush waits for it.
    """
    if not table.take_compaction_due():
        return
    if table.is_remote:
        beside = Table(table.path, table.spec, storage_options=table.options)
        _merges.submit(_compact, beside)
    else:
        _compact(table)


_merges = ThreadPoolExecutor(max_workers=1, thread_name_prefix="merges")


def _compact(table: Table) -> None:
    try:
        compact(table, WRITER_SMALL_BYTES)
    except (*STORAGE_ERRORS, LakeError) as error:
        # The commit before it is whole; the next compaction merges more.
        logger.info("cannot compact %s now: %s", table.path, plain(str(error)))


def compact(table: Table, small_bytes: int) -> int:
    """Merge files smaller than `small_bytes`; return how many were merged.

    Only this function merges files. Each merge overwrites exactly the rows that it read: if another
    merge or change of these rows commits first, it fails and runs again. Delta's own OPTIMIZE does
    not conflict with another one (delta-rs 1.6): both add the merged rows, which are then in the
    table twice.

    Finished rows are merged by their parts, so that changes of live rows go on. Other tables are
    merged along their `order`: rows that are appended meanwhile come after the merged ones.
    """
    if "part" in table.spec.partition_by:
        buckets = set(table.snapshot(storage.data_files).get_column("partition.bucket")) - {LIVE}
        return sum(_merge_parts(table, bucket, small_bytes) for bucket in sorted(buckets))
    if not table.spec.order:
        return 0
    merged = 0
    while done := table.transact(lambda handle: _merge_in_order(table, handle, small_bytes)):
        merged += done
    return merged


def _merge_parts(table: Table, bucket: str, small_bytes: int) -> int:
    def step(handle: DeltaTable) -> int:
        files = storage.files_in(handle, bucket=bucket)
        sizes = files.group_by("partition.part").agg(
            pl.col("size_bytes").sum(), pl.len().alias("files")
        )
        small = sizes.filter(pl.col("size_bytes") < small_bytes).sort("partition.part")
        chosen = small.head(MAX_FILES)
        if chosen.height < COMPACT_FROM:
            return 0
        part = new_part(datetime.now(UTC))
        names = chosen.get_column("partition.part").to_list()
        rows = table.read_rows(files.filter(pl.col("partition.part").is_in(names)))
        ordered = rows.with_columns(part=pl.lit(part)).sort(table.spec.indexed[0])
        storage.overwrite(
            handle, ordered, storage.in_parts(bucket, [*names, part]), {"action": "compact"}
        )
        return int(chosen.get_column("files").sum())

    return table.transact(step)


def _merge_in_order(table: Table, handle: DeltaTable, small_bytes: int) -> int:
    """Merge the small files of one partition that follow each other; return how many.

    `maintain` leaves no two small files of a day that is over: else a few of each day would never
    be merged. Files are read side by side: in an object store, a predicate takes three requests for
    each, one after the other.
    """
    spec, files = table.spec, storage.data_files(handle)
    first, last = f"min.{spec.order}", f"max.{spec.order}"
    keys = [f"partition.{name}" for name in spec.partition_by]
    known = files.filter(pl.col(first).is_not_null(), pl.col(f"null_count.{spec.order}") == 0)
    small, enough = pl.col("size_bytes") < small_bytes, pl.col("files") >= COMPACT_FROM
    if small_bytes == SMALL_BYTES and keys and files.schema[keys[0]] == pl.Date:
        today = pl.lit(files.get_column(keys[0]).max(), pl.Date)
        enough |= (pl.col("files") > 1) & (pl.col(keys[0]) < today)
    runs = (
        known.sort(*keys, first, last)
        .with_columns(_run=(~small).cum_sum())  # a large file ends a run
        .filter(small)
        .with_columns(_bytes=pl.col("size_bytes").cum_sum().over(*keys, "_run"))
        .with_columns(_merge=(pl.col("_bytes") - 1) // (MAX_SMALL * small_bytes))
        .group_by(*keys, "_run", "_merge", maintain_order=True)
        .agg(pl.col(first).min(), pl.col(last).max(), pl.len().alias("files"))
        .filter(enough)
    )
    if runs.is_empty():
        return 0
    run = runs.row(0, named=True)
    until = storage.last_of(run[last])
    predicate = f"{spec.order} >= {_literal(run[first])} AND {spec.order} <= {_literal(until)}"
    for name, key in zip(spec.partition_by, keys, strict=True):
        predicate += f" AND {name} = {_literal(run[key])}"
    overlaps = storage.may_have(spec.order, run[first], until)
    within = files.filter(overlaps, *(pl.col(key).eq_missing(run[key]) for key in keys))
    in_range = pl.col(spec.order).is_between(run[first], until)
    rows = table.read_rows(within).filter(in_range).sort(spec.order)
    storage.overwrite(handle, rows, predicate, {"action": "compact"})
    return int(run["files"])


def _literal(value: object) -> str:
    if isinstance(value, int):
        return str(value)
    if isinstance(value, datetime):
        value = value.isoformat(timespec="microseconds")
    return storage.text_literal(str(value))


def _cut_log(table: Table, handle: DeltaTable) -> None:
    # Both on one handle: only entries that the checkpoint stands for are deleted.
    table.checkpoint(handle)
    handle.cleanup_metadata()
