"""Recovery from a loss of power: find torn commits, and take a table back to a whole version.

`diagnose` examines a table on the disk, `repair` takes a torn one back, and `check_up` does both
for all tables of a lake.

A repair may be killed anywhere, and started again:

1. The rows of the undone commits are written to a file in a set-aside folder, and synced.
2. The log after the whole version is moved into that folder, the newest first. The table is torn
   until the last of these moves, so a repair that is started again does the same.
3. The rows are put back, each once. Rows that the table has already are skipped.
4. The file is renamed. Until then the table is refused, and a repair that is started again goes on.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path
from tempfile import mkdtemp
from time import sleep
from types import MappingProxyType
from urllib.parse import unquote

import polars as pl

from position_sync_dagster import errors
from position_sync_dagster.lake.queue.transitions import as_pending
from position_sync_dagster.lake.records import add_unknown
from position_sync_dagster.lake.schema.codec import LIVE_COLUMNS
from position_sync_dagster.lake.schema.table_spec import Kind, TableSpec
from position_sync_dagster.lake.schema.tables import DERIVED
from position_sync_dagster.lake.sessions import GatewaySessions
from position_sync_dagster.lake.storage import delta_log, maintenance
from position_sync_dagster.lake.storage.commit_errors import STORAGE_ERRORS, fail, to_lake_error
from position_sync_dagster.lake.storage.lifecycle_table import Change, LifecycleTable, Snapshot
from position_sync_dagster.lake.storage.opening import WRITER_LOCK, TableLocation, WriterLock
from position_sync_dagster.lake.storage.table import Table
from position_sync_dagster.lake.updates.append import append_rows
from position_sync_dagster.lake.updates.latest import LedgerFiles

READINGS = 4
"""How many readings must find a fault. A file that a writer replaces or deletes meanwhile looks
torn in one reading, but not in all."""

PAUSE_S = 1.0
"""The time between two readings, in seconds. The busiest table has one commit a second."""

_NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """The result of an examination of one table.

    Attributes:
        version: The newest version on the disk; None if there is no table.
        whole_version: The last version whose log and files are whole; -1 if even the creation of
            the table is torn, None if the log does not reach back to a whole version.
        torn_files: What is torn, oldest first.
        rows: Rows that the commits after the whole version wrote and that can be read.
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
    unfinished: tuple[Path, ...] = ()
    doubled: maintenance.DoubledRows = maintenance.NONE_DOUBLED
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
        if found.healthy or table.is_remote:
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
    try:
        if table.is_remote:
            return _open(table, unknown) if table.exists() else unknown
        return _examine(table, unknown) if Path(table.path).exists() else unknown
    except errors.LakeError as error:
        return replace(unknown, problem=str(error))
    except OSError as error:
        return replace(unknown, problem=str(to_lake_error(error, table.path)))


def _examine(table: Table, unknown: Diagnosis) -> Diagnosis:
    path = Path(table.path)
    log = delta_log.LogReader(path) if (path / delta_log.LOG).is_dir() else None
    unfinished = tuple(delta_log.unfinished_repairs(path))
    if log is None or log.newest < 0:
        foreign = TableLocation(table.path, table.spec, None).unexpected_content()
        problem = str(foreign) if foreign else None
        return replace(unknown, problem=problem, unfinished=unfinished)
    torn = log.torn_files()
    if not (torn or unfinished):
        return _open(table, unknown)
    whole = log.whole_version() if torn else log.newest
    return replace(
        unknown,
        version=log.newest,
        whole_version=whole,
        torn_files=tuple(torn),
        rows=0 if whole is None else undone_rows(log, whole, table.spec).height,
        unfinished=unfinished,
    )


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


def _open(table: Table, unknown: Diagnosis) -> Diagnosis:
    version, doubled = table.version(), maintenance.find_doubled(table)
    return replace(unknown, version=version, whole_version=version, doubled=doubled)


def put_back(table: Table, rows: pl.DataFrame, now: datetime) -> int:
    """Write the rows that the table does not hold; return how many.

    Raises:
        LakeError: The table cannot be written; try again later.
    """
    if rows.is_empty():
        return 0
    # A file from before a column was added lacks it; `diagonal_relaxed` fills it with null.
    empty = table.spec.empty
    completed = pl.concat([empty, rows], how="diagonal_relaxed").select(empty.columns)
    return _METHODS[table.spec.name](table, completed, now)


def _put_back_requests(table: Table, rows: pl.DataFrame, now: datetime) -> int:
    queue = LifecycleTable(table, lambda: now)
    return queue.change(lambda found: plan_restore(found, rows, now), {"action": "repair"})


def _put_back_values(table: Table, rows: pl.DataFrame, now: datetime) -> int:
    single = rows.unique(table.spec.key, keep="first", maintain_order=True)
    return append_rows(table, LedgerFiles(table), single, clock=lambda: now).rows


def _put_back_records(table: Table, rows: pl.DataFrame, _: datetime) -> int:
    single = rows.unique(maintain_order=True)
    return add_unknown(table, single, rows.columns, {"action": "repair"})


_METHODS: Mapping[str, Callable[[Table, pl.DataFrame, datetime], int]] = MappingProxyType(
    {
        "position_queue": _put_back_requests,
        "position_updates": _put_back_values,
        "account_values": _put_back_values,
    }
    | dict.fromkeys(
        ("executions", "statement_events", "position_changes", "closures", "runs"),
        _put_back_records,
    )
)


def plan_restore(snapshot: Snapshot, undone: pl.DataFrame, now: datetime) -> Change[int]:
    """Insert the undone requests that the table lacks as PENDING.

    The ledger recognizes a value that was already written for a request by its id. Afterwards a
    position may have several live requests until they are drained: it is not known which of them
    were acknowledged, and a later request must not be answered with the value of an earlier one.
    """
    newest = undone.sort("updated_at").unique("request_id", keep="last", maintain_order=True)
    unknown = newest.join(_known(snapshot, newest), on="request_id", how="anti")
    if unknown.is_empty():
        return Change(0)
    pending = as_pending(unknown, now).with_columns(*LIVE_COLUMNS)
    return Change(unknown.height, pending.select(snapshot.live.columns), replaced=False)


def _known(snapshot: Snapshot, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the ids of these requests that the table holds, live or finished."""
    name = "request_id"
    finished = snapshot.finished_with(name, rows.get_column(name), columns=[name])
    return pl.concat([snapshot.live.select(name), finished])


LOCK_S = 10.0
"""How long a repair waits for the writers of the table, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """The result of a repair of one table.

    Attributes:
        whole_version: The version that the table was taken back to.
        moved: Files that were moved to a folder `_torn-…` in the folder of the table.
        saved: Rows of undone commits that were written again: requests that the whole version
            lacked, values and records.
        kept: Rows of undone commits that are in a file only, for a person to compare.
        files: The files of the rows of undone commits.
    """

    whole_version: int
    moved: tuple[str, ...]
    saved: int
    kept: int
    files: tuple[Path, ...]


def repair(table: Table, now: datetime) -> Repair | None:
    """Take a table back to its last whole version; None when nothing is torn.

    With fsync on, a commit is acknowledged only when it and all commits before it are on the
    disk, so the undone commits were acknowledged to nobody. Their rows that can be read are put
    back nevertheless: a request that the whole version lacks is PENDING again, and values are
    written once each. Requests that the undone commits claimed or marked can be claimed again; a
    value that was already written is recognized by its `update_id`. Nothing is deleted: torn files
    are set aside, and the rows of the undone commits are kept in a file.

    Raises:
        BrokenTableError: The log does not reach back to a whole version.
        CommitContentionError: Another process writes to the table.
        LakeError: The table cannot be written. Start again; nothing is lost.
    """
    try:
        with WriterLock(table.path).exclusive(LOCK_S):
            found = diagnose(table, pause_s=0.0)
            if found.being_written:
                raise errors.CommitContentionError(
                    f"The table {table.path} is being written; nothing was changed.",
                    remedy="End what writes to the lake, then repair it.",
                )
            if not (found.torn_files or found.unfinished):
                return None
            moved, kept = _take_back(table, found, now) if found.torn_files else ((), [])
        saved = 0
        for file in delta_log.unfinished_repairs(Path(table.path)):
            rows = pl.read_parquet(file, glob=False, hive_partitioning=False)
            saved += put_back(Table(table.path, table.spec, use="repair"), rows, now)
            kept.append((delta_log.finish_repair(file), 0))
    except STORAGE_ERRORS as error:
        fail(error, table.path)
    return Repair(
        whole_version=-1 if found.whole_version is None else found.whole_version,
        moved=moved,
        saved=saved,
        kept=sum(rows for _, rows in kept),
        files=tuple(file for file, _ in kept),
    )


def _take_back(
    table: Table, found: Diagnosis, now: datetime
) -> tuple[tuple[str, ...], list[tuple[Path, int]]]:
    """Keep the rows of the undone commits and move their log aside.

    Returns:
        The files that were moved, and the files of rows that are not put back, with their rows.
    """
    whole = found.whole_version
    if whole is None:
        raise errors.BrokenTableError(
            f"The log of {table.path} reaches back to no whole version.",
            remedy="Restore the folder from a copy, or move it away to start with an empty table.",
        )
    log = delta_log.LogReader(Path(table.path))
    undone = undone_rows(log, whole, table.spec)
    aside = Path(mkdtemp(prefix=f"{delta_log.SET_ASIDE}-{now:%Y%m%dT%H%M%S%f}-", dir=log.table))
    kept = []
    if not undone.is_empty():
        # The rows of the other tables replace each other, and an undone row may be an older one.
        # The next connection or run writes them again, or a person compares them.
        comes_back = table.spec.name in _METHODS
        file = delta_log.keep_rows(aside, undone, put_back=comes_back)
        kept = [] if comes_back else [(file, undone.height)]
    moved = _files_to_move(log, whole, found)
    for name in moved:
        (aside / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(log.table / name, aside / name)
    delta_log.sync_paths(
        [log.table, log.log, aside, *(aside / Path(name).parent for name in moved)]
    )
    return tuple(sorted(moved)), kept


def _files_to_move(log: delta_log.LogReader, whole: int, found: Diagnosis) -> list[str]:
    """Return what to move, in an order in which the table is torn until the last move."""
    torn = {one.file for one in found.torn_files}
    if whole == delta_log.NO_VERSION:  # what is left would look like a table that lost its log
        stays = (delta_log.LOG, WRITER_LOCK, delta_log.SET_ASIDE)
        moved = sorted(name for name in os.listdir(log.table) if not name.startswith(stays))
    else:
        data = (name for name in torn if not name.startswith(f"{delta_log.LOG}/"))
        moved = sorted(name for name in data if (log.table / name).exists())
    names = []
    for version in sorted({*log.entries, *log.checkpoints}, reverse=True):
        if version in log.checkpoints and (version > whole or log.files_at(version) is None):
            names.append(delta_log.checkpoint_name(version))
        if version in log.entries and version > whole:
            names.append(delta_log.entry_name(version))
    pointer = f"{delta_log.LOG}/{delta_log.LAST_CHECKPOINT}"
    if (log.log / delta_log.LAST_CHECKPOINT).exists() and (names or pointer in torn):
        names.insert(0, delta_log.LAST_CHECKPOINT)
    return moved + [f"{delta_log.LOG}/{name}" for name in names]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkup:
    """The findings at one table, and its repair.

    Attributes:
        derived: Whether the table is computed from the others.
        writer: Who writes to the table, in words; None if no writer was found.
        repair: The repair that was made.
        removed: Number of duplicate rows that were removed; one of each is kept.
        failure: Why a repair was not made, or did not end.
        healthy: Whether nothing is wrong now.
    """

    found: Diagnosis
    derived: bool
    writer: str | None = None
    repair: Repair | None = None
    removed: int = 0
    failure: str | None = None
    healthy: bool = True


def check_up(
    tables: Sequence[Table],
    sessions: GatewaySessions,
    now: datetime,
    *,
    mend: bool,
    pause_s: float = PAUSE_S,
) -> list[Checkup]:
    """Examine tables; a table that does not exist is not created.

    Args:
        tables: All tables of a lake, the derived ones included.
        sessions: The table of sessions; its leases show who writes to the tables.
        now: The current time, for leases and for the names of set-aside folders.
        mend: Whether to repair what is torn. A table that is being written is left alone.
        pause_s: As for `diagnose`.
    """
    found = [diagnose(table, pause_s=pause_s) for table in tables]
    owner = None
    if not all(one.healthy for one in found):
        readable = any(
            one.table == sessions.table.spec.name and one.healthy and one.version is not None
            for one in found
        )
        owner = _owner(sessions, now) if readable else None
    return [
        _checked(one, table, owner, now, mend=mend)
        for one, table in zip(found, tables, strict=True)
    ]


def _checked(
    found: Diagnosis, table: Table, owner: str | None, now: datetime, *, mend: bool
) -> Checkup:
    checkup = Checkup(found=found, derived=table.spec in DERIVED, healthy=found.healthy)
    if found.healthy:
        return checkup
    writer = owner or ("another process" if found.being_written else None)
    checkup = replace(checkup, writer=writer)
    if not (mend and found.repairable):
        return checkup
    if writer is not None:
        return replace(checkup, failure=f"is not repaired while {writer} writes to it")
    try:
        done = None if table.is_remote else repair(table, now)
        removed = maintenance.remove_doubled(table)
        after = diagnose(table, pause_s=0.0)
    except errors.LakeError as error:
        return replace(checkup, failure=str(error))
    failure = after.problem
    if after.doubled.surplus:
        failure = f"{after.doubled}, and differ: compare them, and correct what wrote them"
    return replace(checkup, repair=done, removed=removed, healthy=after.healthy, failure=failure)


def _owner(sessions: GatewaySessions, now: datetime) -> str | None:
    """Return who holds the lease on a login, if that can be read."""
    try:
        alive = [one for one in sessions.history(None) if one.is_alive(now)]
    except errors.HeartbeatsUnavailableError:
        return "a stream or a refresh that only Postgres would name"
    except errors.LakeError:
        return None
    if not alive:
        return None
    return f"the {alive[0].owner.value.lower()} (process {alive[0].pid} on {alive[0].host})"
