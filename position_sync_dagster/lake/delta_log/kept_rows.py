"""Rows of undone commits, kept in a file beside the table until a repair has put them back.

The file is written before anything of the table is moved. While its name says that rows are to be
put back, the repair is not finished: whoever opens the table is refused, and the next repair goes
on. So a repair may be killed anywhere.
"""

import os
from pathlib import Path

import polars as pl

from position_sync_dagster.errors import BrokenTableError
from position_sync_dagster.lake.delta_log.commit_log import SET_ASIDE
from position_sync_dagster.lake.delta_log.durability import sync_paths

TO_PUT_BACK = "rows_to_put_back.parquet"
"""The name of the file while its rows are not back in the table."""

KEPT = "rows.parquet"
"""The name of the file afterwards, and where no row is put back."""


def keep_rows(folder: Path, rows: pl.DataFrame, *, put_back: bool) -> Path:
    """Write rows to a file in a set-aside folder, whole or not at all, and sync it."""
    file = folder / (TO_PUT_BACK if put_back else KEPT)
    partial = folder / f"{KEPT}.part"
    rows.write_parquet(partial)
    sync_paths([partial])
    os.replace(partial, file)
    sync_paths([folder, folder.parent])
    return file


def unfinished_repairs(table: Path) -> list[Path]:
    """Return the files of rows that are still to be put back, oldest first."""
    return sorted(table.glob(f"{SET_ASIDE}-*/{TO_PUT_BACK}"))


def finish_repair(file: Path) -> Path:
    """Rename a file whose rows are back in the table; another process may have done it."""
    kept = file.with_name(KEPT)
    try:
        os.replace(file, kept)
    except FileNotFoundError:
        return kept
    sync_paths([file.parent])
    return kept


def refuse_unfinished(table: Path) -> None:
    """Refuse a table whose repair was interrupted: acknowledged rows are missing in it.

    Raises:
        BrokenTableError: The message names the rows and `position-sync doctor --repair`.
    """
    for file in unfinished_repairs(table):
        raise BrokenTableError(
            f"A repair of the table {table} was interrupted: the rows in {file} are not back yet.",
            remedy="Run `position-sync doctor --repair` again; it goes on where it ended. To go "
            f"on without these rows, rename that file to {KEPT}.",
        )
