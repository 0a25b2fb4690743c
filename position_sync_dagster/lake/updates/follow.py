"""Follow the ledger: what was committed since the last read, in order, each row once.

A reader stores a token, a text that names a place in the ledger, and goes on from there later, in
another process or after a restart. Merging and deleting files do not change what it reads: each row
has the version that added it (`ledger_version`), and every commit has a greater one than those
before it.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple

import polars as pl
from deltalake import DeltaTable

from position_sync_dagster.errors import TokenError
from position_sync_dagster.lake.storage.frames import data_files
from position_sync_dagster.lake.storage.table import Table
from position_sync_dagster.lake.storage.threads import offload
from position_sync_dagster.lake.updates.latest import ADDED, LatestRows
from position_sync_dagster.lake.updates.ledger_files import LedgerFiles, last_added

START, NOW = "start", "now"
"""Instead of a token: begin with the oldest row, or with the next commit."""

POLL_S = 0.5
"""How often a waiting reader looks for a new commit, in seconds."""

MOST_ROWS = 100_000
"""A reader that is far behind gets at most this many rows at a time, or one whole commit."""

ORDER = [ADDED, "timestamp", "update_id"]
"""The order in which rows are given."""

_FORMAT, _PARTS, _LEDGER_LENGTH = "ps1", 4, 13

_BEGIN_AGAIN = "Begin again without a token: with the newest row of each holding."


class Added(NamedTuple):
    """Rows of the ledger, and the place behind them.

    Attributes:
        rows: Rows of `position_updates`, in the order of ORDER.
        token: The place behind the rows: pass it as `since` to go on there.
    """

    rows: pl.DataFrame
    token: str


class Place(NamedTuple):
    """A place in a ledger, which a token names.

    Attributes:
        ledger: The beginning of the id that Delta gave the table.
        version: The `ledger_version` of the last rows that were read; 0 before the first.
        update_id: One of these rows; empty before the first.

    >>> Place("0193a1c2-7f3e", 812, "0193a1c3").token
    'ps1:0193a1c2-7f3e:812:0193a1c3'
    >>> Place.of("ps1:0193a1c2-7f3e:812:0193a1c3").version
    812
    """

    ledger: str
    version: int
    update_id: str

    @property
    def token(self) -> str:
        """Return the place as a text."""
        return f"{_FORMAT}:{self.ledger}:{self.version}:{self.update_id}"

    @classmethod
    def of(cls, token: str) -> "Place":
        """Return the place that a token names.

        Raises:
            TokenError: The text is no token.
        """
        parts = token.split(":", _PARTS - 1)
        if len(parts) == _PARTS and parts[0] == _FORMAT and parts[2].isdecimal():
            place = cls(parts[1], int(parts[2]), parts[3])
            if (place.version > 0) == bool(place.update_id):
                return place
        raise TokenError(
            f"{token[:80]!r} is no token of a ledger.",
            remedy=f"Pass a token as `follow` printed it, {START!r} or {NOW!r}. {_BEGIN_AGAIN}",
        )


Snapshot = tuple[int, int]
"""The key of a table's content; see `Table.cache_key`."""


class AddedRows:
    """What was added to one ledger, read once for all followers at the same place.

    The table serves one call at a time, and so do these methods, which take its open handle.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._files = LedgerFiles(table)
        self._files_of: tuple[Snapshot, pl.DataFrame] | None = None
        self._last: tuple[tuple[Snapshot, int], pl.DataFrame] | None = None

    def after(self, handle: DeltaTable, version: int) -> pl.DataFrame | None:
        """Return the rows of the commits after a version, the oldest first; None if there are none.

        They are at most MOST_ROWS, or one whole commit.
        """
        files = self._data_files(handle)
        if last_added(files) <= version:
            return None
        place = (self._table.cache_key(handle), version)
        if self._last is None or self._last[0] != place:
            self._last = (place, self._read(files, version))
        return self._last[1]

    def place(self, handle: DeltaTable, version: int) -> Place:
        """Return the place behind the rows of a version."""
        rows = self._files.added_after(self._data_files(handle), version - 1)
        rows = rows.filter(pl.col(ADDED) == version)
        ids = rows.select("update_id").collect().get_column("update_id")
        return Place(_ledger(handle), version, str(ids.max() or ""))

    def check(self, handle: DeltaTable, place: Place) -> None:
        """Check that the ledger has the row of a place.

        Raises:
            TokenError: It has not: it is another ledger, or the row was taken back by a repair.
        """
        if place.ledger != _ledger(handle):
            raise TokenError(
                f"The token is of another ledger than {self._table.path}.",
                remedy=f"Pass it with the lake that it was printed for. {_BEGIN_AGAIN}",
            )
        files = self._data_files(handle)
        if place.version and not self._files.has(
            files, pl.Series([place.update_id]), place.version
        ):
            raise TokenError(
                f"{self._table.path} has no row {place.update_id[:80]} of version {place.version}: "
                f"a repair or a restored backup took it back. The last version with rows is "
                f"{last_added(files)}.",
                remedy=_BEGIN_AGAIN,
            )

    def _data_files(self, handle: DeltaTable) -> pl.DataFrame:
        key = self._table.cache_key(handle)
        if self._files_of is None or self._files_of[0] != key:
            self._files_of = (key, data_files(handle))
        return self._files_of[1]

    def _read(self, files: pl.DataFrame, version: int) -> pl.DataFrame:
        rows = self._files.added_after(files, version)
        counts = rows.group_by(ADDED).len().sort(ADDED).collect()
        first = counts.item(0, ADDED)
        within = counts.filter(pl.col("len").cum_sum() <= MOST_ROWS).get_column(ADDED).max()
        return rows.filter(pl.col(ADDED) <= (within or first)).sort(ORDER).collect()


def _ledger(handle: DeltaTable) -> str:
    return str(handle.metadata().id)[:_LEDGER_LENGTH]


class Follower:
    """One reader of the ledger, at one place.

    Before its first read, and when the table was repaired or replaced, it checks that the ledger
    has the row that its place names: the same version may have other rows then.

    Args:
        table: The ledger.
        added: What was added to it.
        latest: Its newest rows, which a reader without a token begins with.
        since: A token; START for every row; NOW for what is committed after the first read, which
            has no rows then; None for the newest row of each holding first.

    Raises:
        TokenError: `since` is no token.
    """

    def __init__(
        self, table: Table, added: AddedRows, latest: LatestRows, since: str | None
    ) -> None:
        self._table = table
        self._added = added
        self._latest = latest
        self._seen: Snapshot | None = None
        self._since = since
        self._place = None if since in (None, START, NOW) else Place.of(since)

    def read(self) -> Added | None:
        """Return what was committed since the last read; None if nothing was.

        Raises:
            TokenError: The token is of another ledger, or of rows that a repair took back.
            LakeError: The table cannot be read; the next read goes on at the same place.
        """
        place = self._place
        if place is None:
            rows, through = self._latest.read_through()
            if self._since is not None:
                rows, through = rows.clear(), 0 if self._since == START else through
            place, seen = self._table.snapshot(lambda handle: self._place_behind(handle, through))
            self._place, self._seen = place, (seen[0], -1)
            return Added(rows.sort(ORDER), place.token)

        found, seen = self._table.snapshot(lambda handle: self._after(handle, place))
        if found is None:
            self._seen = seen
            return None
        self._seen = (seen[0], -1)  # there may be more
        last = found.row(-1, named=True)
        self._place = Place(place.ledger, last[ADDED], last["update_id"])
        return Added(found, self._place.token)

    def _place_behind(self, handle: DeltaTable, version: int) -> tuple[Place, Snapshot]:
        return self._added.place(handle, version), self._table.cache_key(handle)

    def _after(self, handle: DeltaTable, place: Place) -> tuple[pl.DataFrame | None, Snapshot]:
        key = self._table.cache_key(handle)
        if key == self._seen:
            return None, key
        if self._seen is None or self._seen[0] != key[0]:
            self._added.check(handle, place)
        return self._added.after(handle, place.version), key

    def rows(self, poll_s: float = POLL_S) -> Iterator[Added]:
        """Yield what is committed, for ever; blocks while there is nothing."""
        while True:
            found = self.read()
            if found is None:
                time.sleep(poll_s)
            else:
                yield found

    async def rows_async(self, poll_s: float = POLL_S) -> AsyncIterator[Added]:
        """Yield what is committed, for ever; other tasks run while there is nothing."""
        while True:
            found = await offload(self.read)
            if found is None:
                await asyncio.sleep(poll_s)
            else:
                yield found
