"""What changed in a table since a program read it, for the tables beside the ledger.

The ledger is followed by tokens (`followed_rows.py`). The others are small, and committed only when
a row differs: the version of a table is the token, and two versions of it are compared.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl
from deltalake import DeltaTable

from position_sync_dagster.errors import LakeError
from position_sync_dagster.lake.storage.commit_errors import STORAGE_ERRORS
from position_sync_dagster.lake.storage.object_store import delta_options, is_remote


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedRows:
    """What changed between two versions of a table.

    Attributes:
        rows: Rows that are new, or differ from those before.
        gone: Rows that were there before, in this form.
        token: The version that was read, for the next time.
    """

    rows: pl.DataFrame
    gone: pl.DataFrame
    token: int


def changed_rows(
    path: str, since: int | None, storage_options: Mapping[str, str] | None = None
) -> ChangedRows:
    """Return what changed in a table since a version; blocks.

    A row that changed is among `gone` as it was, and among `rows` as it is.

    Args:
        path: The folder or URI of the table.
        since: The token of the time before; None: all rows are new.

    Raises:
        LakeError: There is no such table or version: begin again with None.
    """
    options = delta_options(storage_options) if is_remote(path) else None

    def version(number: int | None) -> tuple[int, pl.DataFrame]:
        try:
            handle = DeltaTable(path, version=number, storage_options=options)
            return handle.version(), pl.scan_delta(handle).collect()
        except (*STORAGE_ERRORS, pl.exceptions.PolarsError) as error:
            what = "" if number is None else f"version {number} of "
            raise LakeError(
                f"There is no {what}the table {path}, or no longer.",
                remedy="Read the whole table, and go on from its version.",
            ) from error

    token, now = version(None)
    before = now.clear()
    if since is not None:
        # A column that a later release added is unknown in rows from before.
        before = pl.concat([before, version(since)[1]], how="diagonal").select(now.columns)
    return ChangedRows(
        rows=now.join(before, on=now.columns, how="anti", nulls_equal=True),
        gone=before.join(now, on=now.columns, how="anti", nulls_equal=True),
        token=token,
    )
