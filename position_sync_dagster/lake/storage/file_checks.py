"""Whether the data files that the log of a table names are whole: their sizes, and their footers.

The log has the size of each live file. At each look all sizes are compared: a look-up for each file
of a disk, one listing of an object store. A footer has to be read, and costs a request in a store:
each file has its moment in a round of twelve hours. Only the first look of a process at a local
table reads all footers.
"""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from urllib.parse import unquote
from zlib import crc32

import polars as pl

from position_sync_dagster import errors
from position_sync_dagster.lake.storage import commit_errors, object_store
from position_sync_dagster.lake.storage.durability import size_flaw, stored_size

# The time in which the footer of each file is read once, in seconds. With half a day, a program
# that does not run at the same hours of each day reads all of them within a day.
ROUND_S = 43_200.0

# How many footers of a store are read at once, and how many damaged files an error names.
_AT_ONCE = 8
_NAMED = 5


def due_footers(paths: Iterable[str], since: float, now: float) -> set[str]:
    """Return the files whose moment in the round lies between two times; pure.

    >>> due_footers(["a", "b"], since=0.0, now=ROUND_S) == {"a", "b"}
    True
    """
    share = (now - since) / ROUND_S
    start = since / ROUND_S
    return {path for path in paths if (crc32(path.encode()) / 2**32 - start) % 1 < share}


class FileChecks:
    """Examines the data files of one table; remembers whose footers could not be read.

    Args:
        path: The table's folder or URI.
        options: Those of the object store.
    """

    def __init__(self, path: str, options: Mapping[str, str] | None) -> None:
        self._path = path
        self._is_remote = object_store.is_remote(path)
        self._options = object_store.polars_options(options) if self._is_remote else None
        self._looked_at: float | None = None
        self._unreadable: set[str] = set()

    def flaws(self, files: pl.DataFrame, now: float) -> dict[str, str]:
        """Return what is wrong with live files, as a predicate ("is cut"), by their paths.

        Args:
            files: Rows of `data_files`.
            now: Seconds since the epoch.

        Raises:
            LakeError, OSError: The store does not answer, or the folder may not be read.
        """
        logged = dict(zip(map(unquote, files["path"]), files["size_bytes"], strict=True))
        stored = self._sizes(logged)
        of_sizes = {path: size_flaw(stored.get(path), size) for path, size in logged.items()}

        whole = [path for path, flaw in of_sizes.items() if flaw is None]
        of_footers = self._footer_flaws(sorted(self._due(whole, now)))

        self._looked_at = now
        self._unreadable = {path for path, flaw in of_footers.items() if flaw is not None}
        return {path: flaw for path, flaw in (of_sizes | of_footers).items() if flaw is not None}

    def _sizes(self, paths: Iterable[str]) -> Mapping[str, int | None]:
        if self._is_remote:
            return object_store.sizes_under(self._path)
        return {path: stored_size(f"{self._path}/{path}") for path in paths}

    def _due(self, paths: list[str], now: float) -> set[str]:
        if self._looked_at is not None:
            return due_footers(paths, self._looked_at, now) | self._unreadable.intersection(paths)
        return set() if self._is_remote else set(paths)

    def _footer_flaws(self, paths: list[str]) -> dict[str, str | None]:
        places = [f"{self._path}/{path}" for path in paths]
        read = partial(footer_flaw, options=self._options)
        if not self._is_remote:
            return dict(zip(paths, map(read, places), strict=True))
        with ThreadPoolExecutor(max_workers=_AT_ONCE, thread_name_prefix="footers") as pool:
            return dict(zip(paths, pool.map(read, places), strict=True))


def footer_flaw(place: str, options: dict[str, object] | None) -> str | None:
    """Return what is wrong with the footer of a data file.

    Raises:
        ComputeError, OSError: The object store does not answer.
    """
    try:
        pl.read_parquet_metadata(place, storage_options=options, credential_provider=None)
    except commit_errors.STORAGE_ERRORS as error:
        if commit_errors.is_of_store(str(error)):
            raise
        return f"cannot be read ({commit_errors.plain(str(error))})"
    return None


def damage_of(table: str, flaws: Mapping[str, str], files: int) -> errors.BrokenTableError:
    """Return the error that names damaged files of a table; pure."""
    named = "; ".join(f"{path} {flaw}" for path, flaw in sorted(flaws.items())[:_NAMED])
    more = f"; and {len(flaws) - _NAMED} more" if len(flaws) > _NAMED else ""
    return errors.BrokenTableError(
        f"The table {table} cannot be read whole: of {files} files, {len(flaws)} are damaged: "
        f"{named}{more}.",
        remedy="Put these files back from a copy, or restore the table from a backup.",
    )
