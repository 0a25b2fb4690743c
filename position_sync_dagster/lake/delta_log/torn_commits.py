"""Torn commits: files that are not as the log says, since a loss of power came before a sync.

With fsync on, only commits that nobody acknowledged yet can be torn: the newest few, between
their writing and their sync. With fsync off, or on a disk that confirms what it has not written,
any commit can be. A Delta reader may take a torn commit for a whole one, so it is searched for.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import polars as pl
from polars.exceptions import PolarsError

from position_sync_dagster.errors import BrokenTableError
from position_sync_dagster.lake.delta_log.commit_log import (
    LOG,
    DataFile,
    Files,
    LogEntry,
    checkpoint_versions,
    entry_name,
    entry_versions,
    read_entry,
    replay,
)

DOCTOR = (
    "Run `position-sync doctor --tables` to see what is affected, and `position-sync doctor "
    "--repair` to go back to the last whole version."
)

_MAGIC = b"PAR1"
_READS = 3
"""A file may be superseded and deleted between two reads; one that stays away is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TornFile:
    """One file that is not as the log says.

    Attributes:
        version: The version that it belongs to.
        file: Relative to the table.
        flaw: "is missing", "is empty", "is cut" or "cannot be read".
        rows: Rows in it, as the log counts them; None when unknown.
    """

    version: int
    file: str
    flaw: str
    rows: int | None = None


def refuse_torn(table: Path) -> None:
    """Refuse a table of which a commit since its last checkpoint is torn.

    A process calls it when it opens a table: commits that are written while it runs cannot be torn
    by a loss of power that it survived. It compares names and sizes only.

    Raises:
        BrokenTableError: The message names the file and `position-sync doctor`.
    """
    for _ in range(_READS):
        found = _torn_since_checkpoint(table)
        if not found:
            return
    torn = found[0]
    raise BrokenTableError(
        f"The table {table} is torn at version {torn.version}: {torn.file} {torn.flaw}.",
        remedy=DOCTOR,
    )


def torn_files(
    entries: Iterable[LogEntry],
    base: Files | None,
    flaw_of: Callable[[DataFile], str | None],
) -> list[TornFile]:
    """Return the torn entries, and the torn ones of the files that the last entry leaves.

    Args:
        entries: All entries after `base`, ascending.
        base: The files of the checkpoint before them; None without one.
        flaw_of: Returns what is wrong with a data file; None if nothing is.
    """
    listed = list(entries)
    found = [
        TornFile(
            version=entry.version,
            file=f"{LOG}/{entry_name(entry.version)}",
            flaw=entry.flaw,
            rows=sum(file.rows or 0 for file in entry.added) or None,
        )
        for entry in listed
        if entry.flaw
    ]
    for version, file in replay(listed, base).values():
        flaw = flaw_of(file)
        if flaw:
            found.append(TornFile(version=version, file=file.path, flaw=flaw, rows=file.rows))
    return found


def data_file_flaw(table: Path, file: DataFile, *, deep: bool) -> str | None:
    """Return what is wrong with a data file; None if nothing is.

    Args:
        deep: Read the file whole, not only its name and size.
    """
    path = table / file.path
    try:
        size = path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    if size != file.size:
        return "is empty" if size == 0 else "is cut"
    return parquet_flaw(path, file.rows) if deep else None


def parquet_flaw(path: Path, rows: int | None = None) -> str | None:
    """Return what is wrong with a parquet file, by reading all of it; None if nothing is."""
    with path.open("rb") as opened:
        if opened.read(4) != _MAGIC:
            return "cannot be read"
        opened.seek(-4, 2)
        if opened.read(4) != _MAGIC:
            return "is cut"
    try:
        height = pl.read_parquet(path, glob=False, hive_partitioning=False).height
    except (PolarsError, OSError):
        return "cannot be read"
    return "cannot be read" if rows is not None and height != rows else None


def _torn_since_checkpoint(table: Path) -> list[TornFile]:
    log = table / LOG
    try:
        first = max(checkpoint_versions(log), default=-1) + 1
        last = max(entry_versions(log), default=-1)
    except FileNotFoundError:
        return []
    entries = [read_entry(log, version) for version in range(first, last + 1)]
    found = torn_files(entries, None, partial(data_file_flaw, table, deep=False))
    return sorted(found, key=lambda torn: (torn.version, torn.file))
