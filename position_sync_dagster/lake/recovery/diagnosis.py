"""Examine a table on the disk: what is torn, and which version is the last whole one."""

from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from position_sync_dagster.errors import LakeError
from position_sync_dagster.lake.delta_log.commit_log import LOG
from position_sync_dagster.lake.delta_log.log_reader import LogReader
from position_sync_dagster.lake.delta_log.torn_commits import TornFile
from position_sync_dagster.lake.schema.partitions import LIVE_PREFIX
from position_sync_dagster.lake.schema.tables import POSITION_QUEUE
from position_sync_dagster.lake.storage.commit_errors import to_lake_error
from position_sync_dagster.lake.storage.opening import TableLocation
from position_sync_dagster.lake.storage.table import Table

_COMPARED = ["request_id", "status", "attempts", "priority", "updated_at", "lease_token"]
"""Columns by which a request is changed or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """The result of an examination of one table.

    Attributes:
        version: The newest version on the disk; None where no table is.
        whole_version: The last version of which everything is there; -1 when not even its
            creation is, None when the log does not reach back to one.
        torn_files: What is torn, oldest first.
        rows: Rows that the commits after the whole version wrote and that can be read.
        requests: Ids of the queue's requests that those commits added or changed.
        problem: Why the path holds no table that can be examined.
    """

    table: str
    path: str
    version: int | None = None
    whole_version: int | None = None
    torn_files: tuple[TornFile, ...] = ()
    rows: int = 0
    requests: tuple[str, ...] = ()
    problem: str | None = None

    @property
    def healthy(self) -> bool:
        """Return whether nothing wrong was found."""
        return not self.torn_files and self.problem is None

    @property
    def repairable(self) -> bool:
        """Return whether there is a whole version to go back to."""
        return bool(self.torn_files) and self.whole_version is not None


def diagnose(table: Table) -> Diagnosis:
    """Examine a table without changing it.

    A table that does not exist is healthy. So is a table in an object store, since a store keeps
    what it acknowledged.
    """
    unknown = Diagnosis(table=table.spec.name, path=table.path)
    if "://" in table.path or not Path(table.path).exists():
        return unknown
    try:
        return _examine(table, unknown)
    except OSError as error:
        return replace(unknown, problem=str(to_lake_error(error, table.path)))


def _examine(table: Table, unknown: Diagnosis) -> Diagnosis:
    log = LogReader(Path(table.path)) if (Path(table.path) / LOG).is_dir() else None
    if log is None or log.newest < 0:
        foreign = TableLocation(table.path, table.spec, None).unexpected_content()
        return replace(unknown, problem=str(foreign)) if foreign else unknown
    torn = log.torn_files()
    if not torn:
        return _open(table, unknown)
    whole = log.whole_version()
    found = replace(unknown, version=log.newest, whole_version=whole, torn_files=tuple(torn))
    if whole is None:
        return found
    undone = undone_rows(log, whole)
    requests = _changed_requests(log, whole, undone) if table.spec is POSITION_QUEUE else ()
    return replace(found, rows=undone.height, requests=requests)


def undone_rows(log: LogReader, whole: int) -> pl.DataFrame:
    """Return the rows that commits after a version wrote, as far as they can be read."""
    frames = [pl.read_parquet(path, glob=False) for path in log.undone_files(whole)]
    return pl.concat(frames, how="diagonal_relaxed") if frames else pl.DataFrame()


def _changed_requests(log: LogReader, whole: int, undone: pl.DataFrame) -> tuple[str, ...]:
    if undone.is_empty():
        return ()
    live = [log.table / name for name in log.files_of(whole) or {} if name.startswith(LIVE_PREFIX)]
    before = [pl.read_parquet(path, glob=False).select(_COMPARED) for path in live]
    after = undone.select(_COMPARED)
    if before:
        after = after.join(pl.concat(before), on=_COMPARED, how="anti", nulls_equal=True)
    return tuple(after.get_column("request_id").unique().sort())


def _open(table: Table, unknown: Diagnosis) -> Diagnosis:
    try:
        version = table.version()
    except LakeError as error:
        return replace(unknown, problem=str(error))
    return replace(unknown, version=version, whole_version=version)
