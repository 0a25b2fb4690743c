"""Take a torn table back to its last whole version, and put back what can still be read.

A repair may be killed anywhere, and started again:

1. The rows of the undone commits are written to a file in a set-aside folder, and synced.
2. The log after the whole version is moved into that folder, the newest first. The table is torn
   until the last of these moves, so a repair that is started again does the same.
3. The rows are put back, each once. Rows that the table has already are skipped.
4. The file is renamed. Until then the table is refused, and a repair that is started again goes on.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path
from types import MappingProxyType

import polars as pl
from deltalake import DeltaTable, Transaction

from position_sync_dagster.domain.update import OwnUpdates
from position_sync_dagster.errors import BrokenTableError, CommitContentionError
from position_sync_dagster.lake.account_values import AccountValuesTable
from position_sync_dagster.lake.queue.transitions import as_pending
from position_sync_dagster.lake.recovery.diagnosis import Diagnosis, diagnose, undone_rows
from position_sync_dagster.lake.schema.codec import account_summaries_of, updates_of
from position_sync_dagster.lake.schema.ids import id_literals
from position_sync_dagster.lake.schema.lifecycle_partitions import LIVE_COLUMNS
from position_sync_dagster.lake.schema.table_spec import TableSpec
from position_sync_dagster.lake.storage import delta_log
from position_sync_dagster.lake.storage.commit_errors import STORAGE_ERRORS, to_lake_error
from position_sync_dagster.lake.storage.frames import append, scan
from position_sync_dagster.lake.storage.lifecycle_table import Change, LifecycleTable, Snapshot
from position_sync_dagster.lake.storage.table import Table
from position_sync_dagster.lake.storage.writer_lock import WRITER_LOCK, WriterLock
from position_sync_dagster.lake.updates.ledger import SyncUpdates

_IDS_AT_ONCE = 1000
"""Maximum ids in one predicate; many thousands overflow the stack of the library that parses it."""


def is_put_back(spec: TableSpec) -> bool:
    """Return whether the undone rows of a table can be put back.

    The rows of the other tables replace each other, and an undone row may be an older one. The
    next connection, reconciliation or run writes them again, or a person compares them.
    """
    return spec.name in _METHODS


def put_back(table: Table, rows: pl.DataFrame, now: datetime) -> int:
    """Write the rows that the table does not hold; return how many.

    Raises:
        LakeError: The table cannot be written; try again later.
    """
    if rows.is_empty():
        return 0
    # A file from before a column was added lacks it; `diagonal_relaxed` fills it with null.
    empty = pl.DataFrame(schema=table.spec.polars)
    completed = pl.concat([empty, rows], how="diagonal_relaxed").select(empty.columns)
    return _METHODS[table.spec.name](table, completed, now)


def _put_back_requests(table: Table, rows: pl.DataFrame, now: datetime) -> int:
    queue = LifecycleTable(table, lambda: now)
    return queue.change(lambda found: plan_restore(found, rows, now), {"action": "repair"})


def _put_back_values(table: Table, rows: pl.DataFrame, _: datetime) -> int:
    ledger = SyncUpdates(table)
    batches = rows.partition_by("batch_id", maintain_order=True)
    return sum(ledger.append(OwnUpdates(updates_of(batch))).rows for batch in batches)


def _put_back_account_values(table: Table, rows: pl.DataFrame, _: datetime) -> int:
    return AccountValuesTable(table).append(account_summaries_of(rows)).rows


def _put_back_records(table: Table, rows: pl.DataFrame, _: datetime) -> int:
    def step(handle: DeltaTable) -> int:
        known = scan(handle, table.spec)
        new = rows.unique(maintain_order=True).join(
            known, on=rows.columns, how="anti", nulls_equal=True
        )
        if not new.is_empty():
            transaction = Transaction(table.spec.name, handle.version() + 1)
            append(handle, new, {"action": "repair"}, [transaction])
        return new.height

    return table.transact(step)


_METHODS: Mapping[str, Callable[[Table, pl.DataFrame, datetime], int]] = MappingProxyType(
    {
        "position_queue": _put_back_requests,
        "position_updates": _put_back_values,
        "account_values": _put_back_account_values,
        "executions": _put_back_records,
        "statement_events": _put_back_records,
        "position_changes": _put_back_records,
        "closures": _put_back_records,
        "runs": _put_back_records,
    }
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
    ids = rows.get_column("request_id").sort().to_list()
    found = [snapshot.live.select("request_id")]
    for first in range(0, len(ids), _IDS_AT_ONCE):
        chunk = id_literals(ids[first : first + _IDS_AT_ONCE])
        found.append(snapshot.finished(f"request_id IN ({chunk})").select("request_id"))
    return pl.concat(found)


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
                raise CommitContentionError(
                    f"The table {table.path} is being written; nothing was changed.",
                    remedy="End what writes to the lake, then repair it.",
                )
            if not (found.torn_files or found.unfinished):
                return None
            moved, kept = _take_back(table, found, now) if found.torn_files else ((), [])
        saved = 0
        for file in delta_log.unfinished_repairs(Path(table.path)):
            rows = pl.read_parquet(file, glob=False, hive_partitioning=False)
            saved += put_back(Table(table.path, table.spec, in_repair=True), rows, now)
            kept.append((delta_log.finish_repair(file), 0))
    except STORAGE_ERRORS as error:
        raise to_lake_error(error, table.path) from error
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
        raise BrokenTableError(
            f"The log of {table.path} reaches back to no whole version.",
            remedy="Restore the folder from a copy, or move it away to start with an empty table.",
        )
    log = delta_log.LogReader(Path(table.path))
    undone = undone_rows(log, whole, table.spec)
    aside = _new_folder(log.table, now)
    kept = []
    if not undone.is_empty():
        comes_back = is_put_back(table.spec)
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


def _new_folder(table: Path, now: datetime) -> Path:
    for number in count():
        folder = table / f"{delta_log.SET_ASIDE}-{now:%Y%m%dT%H%M%S%f}-{number}"
        if not folder.exists():
            folder.mkdir()
            return folder
    raise AssertionError("unreachable")  # pragma: no cover
