"""Examine a table on the disk: find torn files and the last whole version."""

from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from time import sleep
from urllib.parse import unquote

import polars as pl

from position_sync_dagster.errors import LakeError
from position_sync_dagster.lake.object_store import is_remote
from position_sync_dagster.lake.schema.lifecycle_partitions import LIVE_PREFIX
from position_sync_dagster.lake.schema.table_spec import Kind, TableSpec
from position_sync_dagster.lake.schema.tables import POSITION_QUEUE
from position_sync_dagster.lake.storage import delta_log
from position_sync_dagster.lake.storage.commit_errors import to_lake_error
from position_sync_dagster.lake.storage.maintenance import NONE_DOUBLED, DoubledRows, find_doubled
from position_sync_dagster.lake.storage.opening import TableLocation
from position_sync_dagster.lake.storage.table import Table

READINGS = 4
"""How many readings must find a fault. A file that a writer replaces or deletes meanwhile looks
torn in one reading, but not in all."""

PAUSE_S = 1.0
"""The time between two readings, in seconds. The busiest table has one commit a second."""

_NULL = "__HIVE_DEFAULT_PARTITION__"

_COMPARED = ["request_id", "status", "attempts", "priority", "updated_at", "lease_token"]
"""The columns that are compared to see whether a request was changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """The result of an examination of one table.

    Attributes:
        version: The newest version on the disk; None if there is no table.
        whole_version: The last version whose log and files are whole; -1 if even the creation of
            the table is torn, None if the log does not reach back to a whole version.
        torn_files: What is torn, oldest first.
        rows: Rows that the commits after the whole version wrote and that can be read.
        requests: Ids of the queue's requests that those commits added or changed.
        unfinished: Files of rows that an interrupted repair has not put back yet.
        doubled: Rows that the table has more than once.
        being_written: Whether another process committed between the readings.
        problem: Why the table at the path cannot be examined.
    """

    table: str
    path: str
    version: int | None = None
    whole_version: int | None = None
    torn_files: tuple[delta_log.TornFile, ...] = ()
    rows: int = 0
    requests: tuple[str, ...] = ()
    unfinished: tuple[Path, ...] = ()
    doubled: DoubledRows = NONE_DOUBLED
    being_written: bool = False
    problem: str | None = None

    @property
    def healthy(self) -> bool:
        """Return whether nothing wrong was found."""
        return not (self.torn_files or self.unfinished or self.doubled.surplus) and not self.problem

    @property
    def flaw(self) -> str:
        """Return what is wrong, in a few words."""
        if self.problem:
            return self.problem
        if self.torn_files:
            return f"torn at version {self.version}"
        if self.doubled.surplus:
            return str(self.doubled)
        return "a repair of it was interrupted"

    @property
    def repairable(self) -> bool:
        """Return whether there is a whole version to go back to, or another repair to make."""
        if self.torn_files:
            return self.whole_version is not None
        return bool(self.unfinished or self.doubled.surplus)


def diagnose(table: Table, *, pause_s: float = PAUSE_S) -> Diagnosis:
    """Examine a table without changing it.

    A table that does not exist is healthy. A table in an object store is opened, but not searched
    for torn commits: a store keeps what it acknowledged. Others may write meanwhile: only a fault
    that every reading finds counts.

    Args:
        pause_s: The time between two readings of a table in which something is wrong.
    """
    found = _read(table)
    versions = {found.version}
    torn = _flaws(found)
    for _ in range(READINGS - 1):
        if found.healthy or is_remote(table.path):
            break
        sleep(pause_s)
        found = _read(table)
        versions.add(found.version)
        torn &= _flaws(found)
    found = replace(found, being_written=len(versions) > 1)
    if found.torn_files and not torn:
        return Diagnosis(
            table=found.table,
            path=found.path,
            version=found.version,
            being_written=True,
            problem="is written too fast to be examined",
        )
    return found


def _flaws(found: Diagnosis) -> set[tuple[str, str]]:
    return {(torn.file, torn.flaw) for torn in found.torn_files}


def _read(table: Table) -> Diagnosis:
    unknown = Diagnosis(table=table.spec.name, path=table.path)
    if is_remote(table.path):
        return _examine_remote(table, unknown)
    if not Path(table.path).exists():
        return unknown
    try:
        return _examine(table, unknown)
    except OSError as error:
        return replace(unknown, problem=str(to_lake_error(error, table.path)))


def _examine_remote(table: Table, unknown: Diagnosis) -> Diagnosis:
    try:
        found = table.exists()
    except LakeError as error:
        return replace(unknown, problem=str(error))
    return _open(table, unknown) if found else unknown


def _examine(table: Table, unknown: Diagnosis) -> Diagnosis:
    log = (
        delta_log.LogReader(Path(table.path))
        if (Path(table.path) / delta_log.LOG).is_dir()
        else None
    )
    unfinished = tuple(delta_log.unfinished_repairs(Path(table.path)))
    if log is None or log.newest < 0:
        foreign = TableLocation(table.path, table.spec, None).unexpected_content()
        problem = str(foreign) if foreign else None
        return replace(unknown, problem=problem, unfinished=unfinished)
    torn = log.torn_files()
    if not torn:
        if unfinished:
            newest = log.newest
            return replace(unknown, version=newest, whole_version=newest, unfinished=unfinished)
        return _open(table, unknown)
    whole = log.whole_version()
    found = replace(
        unknown,
        version=log.newest,
        whole_version=whole,
        torn_files=tuple(torn),
        unfinished=unfinished,
    )
    if whole is None:
        return found
    undone = undone_rows(log, whole, table.spec)
    requests = _changed_requests(log, whole, undone) if table.spec is POSITION_QUEUE else ()
    return replace(found, rows=undone.height, requests=requests)


def undone_rows(log: delta_log.LogReader, whole: int, spec: TableSpec) -> pl.DataFrame:
    """Return the rows that commits after a version wrote, as far as they can be read."""
    frames = [
        pl.read_parquet(path, glob=False, hive_partitioning=False).with_columns(
            *_partition(path.relative_to(log.table), spec)
        )
        for path in log.undone_files(whole)
    ]
    return pl.concat(frames, how="diagonal_relaxed") if frames else pl.DataFrame()


def _partition(file: Path, spec: TableSpec) -> list[pl.Expr]:
    """Return the partition columns, which are in the path of a data file and not in the file."""
    named = dict(folder.split("=", 1) for folder in file.parts[:-1] if "=" in folder)
    values: dict[str, str | date | None] = {}
    for name, text in named.items():
        if name in spec.partition_by:
            value = None if text == _NULL else unquote(text)
            is_day = value is not None and spec.columns[name] is Kind.DAY
            values[name] = date.fromisoformat(str(value)) if is_day else value
    return [pl.lit(value, spec.polars[name]).alias(name) for name, value in values.items()]


def _changed_requests(
    log: delta_log.LogReader, whole: int, undone: pl.DataFrame
) -> tuple[str, ...]:
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
        doubled = find_doubled(table)
    except LakeError as error:
        return replace(unknown, problem=str(error))
    return replace(unknown, version=version, whole_version=version, doubled=doubled)
