"""Whether the data files that the log of a table names have the sizes that it says.

All sizes are compared at each look: a look-up for each file of a disk, one listing of an object
store. Nothing of a file is read.
"""

from collections.abc import Mapping
from urllib.parse import unquote

import polars as pl

from position_sync_dagster import errors
from position_sync_dagster.lake.storage import object_store
from position_sync_dagster.lake.storage.durability import size_flaw, stored_size

# How many damaged files an error names.
_NAMED = 5


def damage_of(table: str, files: pl.DataFrame) -> errors.BrokenTableError | None:
    """Return the error that names the damaged files of a table; None where all are whole.

    Args:
        table: The table's folder or URI.
        files: Rows of `data_files`.

    Raises:
        LakeError, OSError: The store does not answer, or the folder may not be read.
    """
    logged = dict(zip(map(unquote, files["path"]), files["size_bytes"], strict=True))
    stored: Mapping[str, int | None]
    if object_store.is_remote(table):
        stored = object_store.sizes_under(table)
    else:
        stored = {path: stored_size(f"{table}/{path}") for path in logged}

    flaws = {path: size_flaw(stored.get(path), size) for path, size in sorted(logged.items())}
    damaged = [f"{path} {flaw}" for path, flaw in flaws.items() if flaw is not None]
    if not damaged:
        return None

    more = f"; and {len(damaged) - _NAMED} more" if len(damaged) > _NAMED else ""
    return errors.BrokenTableError(
        f"The table {table} cannot be read whole: of {len(flaws)} files, {len(damaged)} are "
        f"damaged: {'; '.join(damaged[:_NAMED])}{more}.",
        remedy="Put these files back from a copy, or restore the table from a backup.",
    )
