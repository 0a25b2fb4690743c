"""Examine a table on the disk: what is torn, and which version is the last whole one."""

from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from position_sync_dagster.errors import LakeError
from position_sync_dagster.lake.delta_log.commit_log import LOG
from position_sync_dagster.lake.delta_log.log_reader import DiskLog
from position_sync_dagster.lake.delta_log.torn_commits import Tear
from position_sync_dagster.lake.storage.commit_errors import to_lake_error
from position_sync_dagster.lake.storage.opening import TableLocation
from position_sync_dagster.lake.storage.partitions import LIVE_PREFIX
from position_sync_dagster.lake.storage.schemas import POSITION_QUEUE
from position_sync_dagster.lake.storage.table import Table

_STATE = ["request_id", "status", "attempts", "priority", "updated_at", "lease_token"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What was found at one table.

    Attributes:
        version: The newest version on the disk; None where no table is.
        whole_version: The last version of which everything is there; -1 when not even its
            creation is, None when the log does not reach back to one.
        tears: What is torn, oldest first.
        rows: Rows that the commits after the whole version wrote and that can be read.
        requests: Ids of the queue's requests that those commits added or changed.
        problem: Why the path holds no table that can be examined.
    """

    table: str
    path: str
    version: int | None = None
    whole_version: int | None = None
    tears: tuple[Tear, ...] = ()
    rows: int = 0
    requests: tuple[str, ...] = ()
    problem: str | None = None

    @property
    def healthy(self) -> bool:
        """Tell whether nothing was found."""
        return not self.tears and self.problem is None

    @property
    def repairable(self) -> bool:
        """Tell whether there is a whole version to go back to."""
        return bool(self.tears) and self.whole_version is not None


def diagnose(table: Table) -> Diagnosis:
    """Examine a table without changing it.

    A table that is not there is healthy; so is one in an object store, which keeps what it
    acknowledged.
    """
    told = Diagnosis(table=table.spec.name, path=table.path)
    if "://" in table.path or not Path(table.path).exists():
        return told
    try:
        return _examined(table, told)
    except OSError as error:
        return replace(told, problem=str(to_lake_error(error, table.path)))


def _examined(table: Table, told: Diagnosis) -> Diagnosis:
    log = DiskLog(Path(table.path)) if (Path(table.path) / LOG).is_dir() else None
    if log is None or log.newest < 0:
        odd = TableLocation(table.path, table.spec, None).odd_folder()
        return replace(told, problem=str(odd)) if odd else told
    tears = log.tears()
    if not tears:
        return _opened(table, told)
    whole = log.whole_version()
    told = replace(told, version=log.newest, whole_version=whole, tears=tuple(tears))
    if whole is None:
        return told
    loose = loose_rows(log, whole)
    requests = _changed(log, whole, loose) if table.spec is POSITION_QUEUE else ()
    return replace(told, rows=loose.height, requests=requests)


def loose_rows(log: DiskLog, whole: int) -> pl.DataFrame:
    """Give the rows that commits after a version wrote, as far as they can be read."""
    frames = [pl.read_parquet(path, glob=False) for path in log.loose_files(whole)]
    return pl.concat(frames, how="diagonal_relaxed") if frames else pl.DataFrame()


def _changed(log: DiskLog, whole: int, loose: pl.DataFrame) -> tuple[str, ...]:
    if loose.is_empty():
        return ()
    live = [log.table / name for name in log.state(whole) or {} if name.startswith(LIVE_PREFIX)]
    before = [pl.read_parquet(path, glob=False).select(_STATE) for path in live]
    after = loose.select(_STATE)
    if before:
        after = after.join(pl.concat(before), on=_STATE, how="anti", nulls_equal=True)
    return tuple(after.get_column("request_id").unique().sort())


def _opened(table: Table, told: Diagnosis) -> Diagnosis:
    try:
        version = table.version()
    except LakeError as error:
        return replace(told, problem=str(error))
    return replace(told, version=version, whole_version=version)
