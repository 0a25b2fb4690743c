"""Torn commits: found on the disk, since a Delta reader may take one for a whole one."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from polars.exceptions import PolarsError

from position_sync_dagster.errors import BrokenTableError
from position_sync_dagster.lake.delta_log.commit_log import (
    LOG,
    DataFile,
    Entry,
    checkpoint_versions,
    entry_name,
    entry_versions,
    read_entry,
)

DOCTOR = (
    "Run `position-sync doctor` to see what is affected, and `position-sync doctor --repair` to "
    "go back to the last whole version."
)

_MAGIC = b"PAR1"
_LOOKS = 3
"""A file may be superseded and deleted between two looks; one that stays away is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tear:
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

    A process calls it when it opens a table: what is written while it lives cannot be torn by a
    loss of power that it survived.

    Raises:
        BrokenTableError: The message names the file and `position-sync doctor`.
    """
    found = recent_tears(table)
    for _ in range(_LOOKS - 1):
        if not found:
            return
        found = recent_tears(table)
    if found:
        tear = found[0]
        raise BrokenTableError(
            f"The table {table} is torn at version {tear.version}: {tear.file} {tear.flaw}.",
            remedy=DOCTOR,
        )


def recent_tears(table: Path) -> list[Tear]:
    """Find what is torn since the last checkpoint, by names and sizes alone."""
    log = table / LOG
    try:
        first = max(checkpoint_versions(log), default=-1) + 1
        last = max(entry_versions(log), default=-1)
    except FileNotFoundError:
        return []
    entries = [read_entry(log, version) for version in range(first, last + 1)]
    found = [entry_tear(entry) for entry in entries if entry.flaw]
    for version, file in replay(entries).values():
        flaw = file_flaw(table, file)
        if flaw:
            found.append(Tear(version=version, file=file.path, flaw=flaw, rows=file.rows))
    return sorted(found, key=lambda tear: (tear.version, tear.file))


def replay(entries: Iterable[Entry]) -> dict[str, tuple[int, DataFile]]:
    """Give the files, with their versions, that entries add and none of them removes."""
    files: dict[str, tuple[int, DataFile]] = {}
    for entry in entries:
        for path in entry.removed:
            files.pop(path, None)
        files |= {file.path: (entry.version, file) for file in entry.added}
    return files


def entry_tear(entry: Entry) -> Tear:
    """Give the tear of an entry with a flaw."""
    return Tear(
        version=entry.version,
        file=f"{LOG}/{entry_name(entry.version)}",
        flaw=entry.flaw or "",
        rows=sum(file.rows or 0 for file in entry.added) or None,
    )


def file_flaw(table: Path, file: DataFile, *, deep: bool = False) -> str | None:
    """Tell what is wrong with a data file; None for nothing.

    Args:
        deep: Read it whole, not only its name and size.
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
    """Tell what is wrong with a parquet file by reading all of it; None for nothing."""
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
