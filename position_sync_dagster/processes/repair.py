"""Damaged tables: each data file is read for it, and torn last commits are set aside."""

import os
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.parse import unquote

import polars as pl

from position_sync_dagster.errors import LakeError
from position_sync_dagster.lake.storage.commit_errors import STORAGE_ERRORS, to_lake_error
from position_sync_dagster.lake.storage.commits import retried
from position_sync_dagster.lake.storage.durability import (
    LOG,
    SET_ASIDE,
    TornFile,
    entry_name,
    names_besides_log,
    sync_paths,
    torn_entries,
)
from position_sync_dagster.lake.storage.object_store import FileSystem, delta_options
from position_sync_dagster.lake.storage.table import CONTENTION_S, Table
from position_sync_dagster.lake.storage.threads import together


def examine_files(table: Table) -> list[LakeError | None]:
    """Read each data file that the log names; return why it is not whole, or None if it is.

    Raises:
        LakeError: The log cannot be read.
    """
    files = table.read(lambda files: files)
    return together(partial(_damage_of, table), files.iter_slices(1))


def _damage_of(table: Table, file: pl.DataFrame) -> LakeError | None:
    path = unquote(file.item(0, "path"))
    files = FileSystem(table.path, delta_options(table.options))
    try:
        if files.open_input_file(path).size() != file.item(0, "size_bytes"):
            raise OSError("the log says another size")
        # Each column is read for it, and none is kept.
        table.scan_stored(file).select(pl.all().null_count()).collect()
    except STORAGE_ERRORS as error:
        return to_lake_error(error, f"{table.path}/{path}")

    return None


def set_torn_aside(table: Table) -> list[TornFile]:
    """Set aside what keeps a local table from being opened; return it; see `remove_torn`.

    Raises:
        LakeError: A file cannot be moved.
    """
    if table.is_remote:
        return []

    remove = partial(remove_torn, Path(table.path))
    return retried(remove, path=table.path, contention_s=CONTENTION_S)


def remove_torn(table: Path) -> list[TornFile]:
    """Set aside the torn last entries of a table; return them.

    Where no other entry is left, nobody was told that the table was made: its data files are set
    aside as well, so that it can be created. What is set aside stays in the folder of the table,
    under names that begin with `SET_ASIDE`.
    """
    entries = torn_entries(table)
    if not entries:
        return []

    log = table / LOG
    aside = [log / entry_name(torn.version) for torn in entries]
    if entries[-1].version == 0:
        aside += [table / name for name in names_besides_log(table)]

    for path in aside:
        target = table / f"{SET_ASIDE}{path.name}"
        while target.exists():
            target = target.with_name(f"{target.name}-")
        with suppress(FileNotFoundError):  # an entry whose name never came to the disk
            os.replace(path, target)
    sync_paths([log, table])
    return entries
