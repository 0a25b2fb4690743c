"""Maintenance of a table: merges of small files, checkpoints, and what the retention deletes."""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import polars as pl
from deltalake import DeltaTable
from polars import DataFrame, col, lit

from position_sync_dagster.errors import CommitContentionError, LakeError, LakeNotWritableError
from position_sync_dagster.lake import schema
from position_sync_dagster.lake.storage import commit_errors, commits
from position_sync_dagster.lake.storage.commits import in_parts, text_literal
from position_sync_dagster.lake.storage.data_files import data_files, in_bucket, last_of, may_have

if TYPE_CHECKING:
    from position_sync_dagster.lake.storage.table import Table

logger = logging.getLogger(__name__)

WRITER_SMALL_BYTES = 1024 * 1024
# A file of this size or more is left alone: merging it again would cost more than it saves.
# Writers merge files below the first bound after their commits, `maintain` below the second.
SMALL_BYTES = 16 * 1024 * 1024

# Maximum number of parts that one commit merges.
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


def maintain(table: "Table", *, clean_now: bool = False) -> MaintenanceResult:
    """Merge small files, write a checkpoint, delete files older than the retention; blocks.

    Writers and readers may go on meanwhile. If a writer commits first, less is merged.

    Args:
        clean_now: Ignore the retention, for tests and for tables that nobody else has open.
    """
    compacted = 0
    skipped = None

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
    files = table.snapshot(data_files).height

    return MaintenanceResult(
        table=table.spec.name,
        compacted=compacted,
        deleted=len(vacuumed),
        files=files,
        version=table.version(),
        skipped=skipped,
    )


def compact_after_commit(table: "Table") -> None:
    """Merge the smallest files; what prevents it is logged, since the commit before it is whole."""
    try:
        compact(table, WRITER_SMALL_BYTES)
    except (*commit_errors.STORAGE_ERRORS, LakeError) as error:
        logger.warning(
            "cannot compact %s now: %s", table.path, commit_errors.to_lake_error(error, table.path)
        )


def compact(table: "Table", small_bytes: int) -> int:
    """Merge files smaller than `small_bytes`; return how many were merged.

    Only this function merges files. Each merge overwrites exactly the rows that it read: if another
    merge or change of these rows commits first, it fails and runs again. Delta's own OPTIMIZE does
    not conflict with another one (delta-rs 1.6): both add the merged rows, which are then in the
    table twice.

    Finished rows are merged by their parts, so that changes of live rows go on. Other tables are
    merged along their `order`: rows that are appended meanwhile come after the merged ones. A table
    without an order is only replaced, and not merged.
    """
    merge = _merge_parts if "part" in table.spec.partition_by else _merge_in_order
    merged = 0
    while table.spec.order and (done := table.transact(partial(merge, table, small_bytes))):
        merged += done
    return merged


def _merge_parts(table: "Table", small_bytes: int, handle: DeltaTable) -> int:
    """Merge the small finished parts of the first bucket that has enough; return how many files.

    0 where none has (`Upkeep.compact_from`); `compact` calls it until then. A part has the rows
    that one commit finished.
    """
    files = data_files(handle).filter(~in_bucket(schema.LIVE))
    by_part = ["partition.bucket", "partition.part"]
    sizes = files.group_by(by_part).agg(col.size_bytes.sum(), files=pl.len())
    small = sizes.filter(col.size_bytes < small_bytes)
    is_due = pl.len().over("partition.bucket") >= table.upkeep.compact_from
    many = small.filter(is_due).sort(by_part)
    if many.is_empty():
        return 0

    bucket = many.item(0, "partition.bucket")
    chosen = many.filter(col("partition.bucket") == bucket).head(MAX_FILES)
    [part] = schema.new_ids(datetime.now(UTC), 1)
    rows = table.scan_stored(files.join(chosen, on=by_part, how="semi")).collect()
    merged = rows.with_columns(part=lit(part))
    ordered = merged.sort(table.spec.indexed[0])  # by id, or by the time it began
    # Delta writes no row that the predicate does not choose: the new part is in it too.
    replaced = in_parts(bucket, [*chosen["partition.part"], part])
    commits.write(handle, ordered, {"action": "compact"}, predicate=replaced)

    return int(chosen["files"].sum())


def _merge_in_order(table: "Table", small_bytes: int, handle: DeltaTable) -> int:
    """Merge the first run of small files that is due; return how many files, 0 without one.

    `compact` calls it until then. Files are read side by side: in an object store, a predicate
    takes three requests for each, one after the other.
    """
    spec = table.spec
    files = data_files(handle)
    runs = _runs_of_small_files(table, files, small_bytes)
    if runs.is_empty():
        return 0

    run = runs.row(0, named=True)
    begin = run[f"min.{spec.order}"]
    end = last_of(run[f"max.{spec.order}"])
    terms = [f"{spec.order} >= {_literal(begin)}", f"{spec.order} <= {_literal(end)}"]
    within = files.filter(may_have(spec.order, begin, end))
    for name in spec.partition_by:
        value = run[f"partition.{name}"]
        terms.append(f"{name} = {_literal(value)}")
        within = within.filter(col(f"partition.{name}").eq_missing(value))

    stored = table.scan_stored(within)
    is_within = col(spec.order).is_between(begin, end)
    rows = stored.filter(is_within).sort(spec.order).collect()
    commits.write(handle, rows, {"action": "compact"}, predicate=" AND ".join(terms))
    return int(run["files"])


def _runs_of_small_files(table: "Table", files: DataFrame, small_bytes: int) -> DataFrame:
    """Return the runs of small files that are to be merged: their partition, span and number.

    A large file ends a run, and so does the size that one merge may read. In a run `maintain`
    leaves no two small files of a day that is over: else a few of each day would never be merged.

    A file without statistics of the column `order`, or with null there, is left alone: the
    predicate of a merge is a span of that column.
    """
    spec = table.spec
    first = f"min.{spec.order}"
    last = f"max.{spec.order}"
    keys = [f"partition.{name}" for name in spec.partition_by]
    has_no_null = col(f"null_count.{spec.order}") == 0
    has_span = col(first).is_not_null() & has_no_null
    in_order = files.filter(has_span).sort(*keys, first, last)

    # Small files between the same two large ones have one number in `large_before`.
    is_small = col.size_bytes < small_bytes
    small = in_order.with_columns(large_before=(~is_small).cum_sum()).filter(is_small)

    # Cut where the sum of sizes passes a multiple of what one merge may read.
    size = col.size_bytes.cum_sum().over(*keys, "large_before")
    merges = small.with_columns(merge=(size - 1) // (MAX_SMALL * small_bytes))
    runs = merges.group_by(*keys, "large_before", "merge", maintain_order=True).agg(
        col(first).min(), col(last).max(), files=pl.len()
    )

    is_due = col.files >= table.upkeep.compact_from
    has_days = bool(keys) and files.schema[keys[0]] == pl.Date
    if has_days and small_bytes == SMALL_BYTES:  # that is, in `maintain`
        newest_day = lit(files[keys[0]].max(), pl.Date)
        is_over = col(keys[0]) < newest_day
        is_due |= is_over & (col.files > 1)
    return runs.filter(is_due)


def _literal(value: object) -> str:
    """Return a value of the log's statistics, or of a partition, as an SQL literal."""
    if isinstance(value, int):
        return str(value)
    if isinstance(value, datetime):
        value = value.isoformat(timespec="microseconds")
    return text_literal(str(value))


def _cut_log(table: "Table", handle: DeltaTable) -> None:
    # First a checkpoint, on the same handle: only entries that it stands for are deleted.
    table.checkpoint(handle)
    handle.cleanup_metadata()
