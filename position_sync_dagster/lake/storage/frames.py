"""The rows of an open table as Polars frames: read, replaced and appended."""

import errno
import os
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import unquote

import polars as pl
from deltalake import (
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    Transaction,
    write_deltalake,
)

from position_sync_dagster.lake.object_store import polars_options
from position_sync_dagster.lake.schema.ids import literal
from position_sync_dagster.lake.schema.table_spec import TableSpec
from position_sync_dagster.lake.storage.delta_log import TRANSACTIONS

_NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)

SPARE_BYTES = 64 * 1024
"""Room for what a commit writes besides its rows: footers of files, the log entry, folders."""


def check_room(table: str, needed: float = 0) -> None:
    """Check that a local disk has room for a commit of `needed` bytes.

    On a full disk the writer of parquet files panics, which prints pages of native backtraces at
    each attempt.

    Args:
        table: The table's path or URI; an object store is not checked.
        needed: Bytes of the rows.

    Raises:
        OSError: Less is free than `needed` and `SPARE_BYTES` (ENOSPC).
    """
    if table.startswith("file://"):
        table = unquote(table.removeprefix("file://"))
    if "://" in table:
        return
    disk = os.statvfs(table)
    if disk.f_bavail * disk.f_frsize < needed + SPARE_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def scan(
    handle: DeltaTable,
    spec: TableSpec,
    predicate: str | None = None,
    columns: list[str] | None = None,
) -> pl.DataFrame:
    """Read rows of one snapshot, in no particular order."""
    frame = pl.DataFrame(handle.scan(columns=columns, predicate=predicate))
    wanted = columns or list(spec.columns)
    return frame.select(wanted) if frame.width else pl.DataFrame(schema=spec.polars).select(wanted)


FILE = "file"
"""The column of `scan_files` with the path or URI of the file of each row."""


def uri_of(table: str, path: str) -> str:
    """Return the path or URI of a data file; the log has its path as a part of a URL."""
    return f"{table}/{unquote(path)}"


def scan_files(
    table: str, spec: TableSpec, options: Mapping[str, str] | None, files: pl.DataFrame
) -> pl.LazyFrame:
    """Return the stored columns of data files, which are read side by side, and the column FILE.

    In an object store each file takes one request, where `scan` takes three, one file after the
    other.

    Args:
        table: The path or URI of the table.
        spec: The table.
        options: Those of Delta's client.
        files: Rows of `data_files`, at least one.
    """
    return pl.scan_parquet(
        [uri_of(table, path) for path in files.get_column("path")],
        schema=spec.stored,
        missing_columns="insert",
        glob=False,
        hive_partitioning=False,
        include_file_paths=FILE,
        storage_options=polars_options(table, options),
        credential_provider=None,
    )


def overwrite(
    handle: DeltaTable,
    frame: pl.DataFrame,
    predicate: str,
    commit_info: Mapping[str, str],
    transactions: list[Transaction] | None = None,
) -> None:
    """Replace the rows that match the predicate.

    Conflicts with every commit that changes or adds rows that match it.
    """
    check_room(handle.table_uri, frame.estimated_size())
    write_deltalake(
        handle,
        frame,
        mode="overwrite",
        predicate=predicate,
        commit_properties=_properties(commit_info, transactions),
        post_commithook_properties=_NO_HOOKS,
    )


def append(
    handle: DeltaTable,
    frame: pl.DataFrame,
    commit_info: Mapping[str, str],
    transactions: list[Transaction] | None = None,
) -> None:
    """Append rows; conflicts only with a commit that names the same application transaction."""
    check_room(handle.table_uri, frame.estimated_size())
    write_deltalake(
        handle,
        frame,
        mode="append",
        commit_properties=_properties(commit_info, transactions),
        post_commithook_properties=_NO_HOOKS,
    )


def data_files(handle: DeltaTable) -> pl.DataFrame:
    """Return one row for each data file of the snapshot, from the log alone."""
    return pl.DataFrame(handle.get_add_actions(flatten=True))


def rows_between(
    spec: TableSpec, partition: Mapping[str, object], first: object, last: object
) -> str:
    """Return the predicate of the rows of one partition from one value of `order` to another.

    Args:
        spec: The table.
        partition: The values of partition columns.
        first: The smallest value in the log's statistics, which cut times to milliseconds; None
            for the rows without a value.
        last: The greatest value in these statistics; all of its millisecond is included.
    """
    last = last_of(last)
    terms = [
        f"{name} IS NULL" if value is None else f"{name} = {literal(value)}"
        for name, value in partition.items()
    ]
    if first is None:
        terms.append(f"{spec.order} IS NULL")
    else:
        terms += [f"{spec.order} >= {literal(first)}", f"{spec.order} <= {literal(last)}"]
    return " AND ".join(terms)


def last_of(greatest: Any) -> Any:
    """Return the last value that the greatest one in the log's statistics may stand for.

    They cut times to milliseconds.
    """
    return greatest + timedelta(milliseconds=1) if isinstance(greatest, datetime) else greatest


def count_rows(handle: DeltaTable) -> int:
    """Return the number of rows of the snapshot, from the log alone."""
    files = data_files(handle)
    return 0 if files.is_empty() else int(files.get_column("num_records").sum())


def files_in(handle: DeltaTable, **partition: str) -> pl.DataFrame:
    """Return one row for each data file of a partition; no path is ever given twice."""
    files = data_files(handle)
    if files.is_empty():  # then it has no partition columns
        return pl.DataFrame(schema={"path": pl.String, "num_records": pl.Int64})
    return files.filter(pl.col(f"partition.{name}") == value for name, value in partition.items())


def _properties(
    commit_info: Mapping[str, str], transactions: list[Transaction] | None
) -> CommitProperties:
    metadata = {**commit_info, TRANSACTIONS: str(len(transactions or []))}
    return CommitProperties(custom_metadata=metadata, app_transactions=transactions)
