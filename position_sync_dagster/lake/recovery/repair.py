"""Take a torn table back to its last whole version, and put back what can still be read.

A repair may be killed anywhere, and started again:

1. The rows of the undone commits are written to a file in a set-aside folder, and synced.
2. The log after the whole version is moved into that folder, the newest first. The table is torn
   until the last of these moves, so a repair that is started again does the same.
3. The rows are put back. Each step knows what is there already.
4. The file is renamed. Until then the table is refused, and a repair that is started again goes on.
"""

import os
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path

import polars as pl

from position_sync_dagster.errors import BrokenTableError, CommitContentionError
from position_sync_dagster.lake.delta_log.commit_log import (
    LAST_CHECKPOINT,
    LOG,
    SET_ASIDE,
    checkpoint_name,
    entry_name,
)
from position_sync_dagster.lake.delta_log.durability import sync_paths
from position_sync_dagster.lake.delta_log.kept_rows import (
    finish_repair,
    keep_rows,
    unfinished_repairs,
)
from position_sync_dagster.lake.delta_log.log_reader import NO_VERSION, LogReader
from position_sync_dagster.lake.recovery.diagnosis import Diagnosis, diagnose, undone_rows
from position_sync_dagster.lake.recovery.put_back import is_put_back, put_back
from position_sync_dagster.lake.storage.commit_errors import STORAGE_ERRORS, to_lake_error
from position_sync_dagster.lake.storage.table import Table
from position_sync_dagster.lake.storage.writer_lock import WRITER_LOCK, WriterLock

LOCK_S = 10.0
"""How long a repair waits for the writers of the table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """The result of a repair of one table.

    Attributes:
        whole_version: The version that the table was taken back to.
        moved: Files that were moved to a folder `_torn-…` in the table's own.
        saved: Rows of undone commits that were written again: requests that the whole version
            did not know, values and records.
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
    back nevertheless: a request that the whole version does not know is PENDING again, and values
    are written once each. Requests that the undone commits claimed or marked are claimed again;
    their rows are known by their `update_id`. Nothing is deleted: what is torn is moved aside, and
    the rows of the undone commits are kept in a file.

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
        for file in unfinished_repairs(Path(table.path)):
            rows = pl.read_parquet(file, glob=False, hive_partitioning=False)
            saved += put_back(Table(table.path, table.spec, in_repair=True), rows, now)
            kept.append((finish_repair(file), 0))
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
    log = LogReader(Path(table.path))
    undone = undone_rows(log, whole, table.spec)
    aside = _new_folder(log.table, now)
    kept = []
    if not undone.is_empty():
        comes_back = is_put_back(table.spec)
        file = keep_rows(aside, undone, put_back=comes_back)
        kept = [] if comes_back else [(file, undone.height)]
    moved = _files_to_move(log, whole, found)
    for name in moved:
        (aside / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(log.table / name, aside / name)
    sync_paths([log.table, log.log, aside, *(aside / Path(name).parent for name in moved)])
    return tuple(sorted(moved)), kept


def _files_to_move(log: LogReader, whole: int, found: Diagnosis) -> list[str]:
    """Return what to move, in an order in which the table is torn until the last move."""
    torn = {one.file for one in found.torn_files}
    if whole == NO_VERSION:  # what is left would look like a table that lost its log
        stays = (LOG, WRITER_LOCK, SET_ASIDE)
        moved = sorted(name for name in os.listdir(log.table) if not name.startswith(stays))
    else:
        data = (name for name in torn if not name.startswith(f"{LOG}/"))
        moved = sorted(name for name in data if (log.table / name).exists())
    names = []
    for version in sorted({*log.entries, *log.checkpoints}, reverse=True):
        if version in log.checkpoints and (version > whole or log.files_at(version) is None):
            names.append(checkpoint_name(version))
        if version in log.entries and version > whole:
            names.append(entry_name(version))
    pointer = f"{LOG}/{LAST_CHECKPOINT}"
    if (log.log / LAST_CHECKPOINT).exists() and (names or pointer in torn):
        names.insert(0, LAST_CHECKPOINT)
    return moved + [f"{LOG}/{name}" for name in names]


def _new_folder(table: Path, now: datetime) -> Path:
    for number in count():
        folder = table / f"{SET_ASIDE}-{now:%Y%m%dT%H%M%S%f}-{number}"
        if not folder.exists():
            folder.mkdir()
            return folder
    raise AssertionError("unreachable")  # pragma: no cover
