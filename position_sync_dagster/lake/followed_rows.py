"""Readers that follow a table: what came since a token; of the ledger, what was added to it.

A reader stores a token and goes on from there later, in another process or after a restart. Merging
and deleting files do not change what it reads: each row has the version that added it
(`ledger_version`), and every commit has a greater one than those before it.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import NamedTuple

from deltalake import DeltaTable
from polars import DataFrame, col

from position_sync_dagster.errors import TokenError
from position_sync_dagster.lake.ledger_rows import (
    LatestRows,
    added_after,
    added_by,
    last_added,
)
from position_sync_dagster.lake.schema import POSITION_UPDATES, part_named
from position_sync_dagster.lake.storage.data_files import data_files
from position_sync_dagster.lake.storage.table import Table
from position_sync_dagster.lake.storage.threads import offload

# Instead of a token: begin with the oldest row, or with the next commit.
START = "start"
NOW = "now"

# How often a waiting reader looks for a new commit, in seconds.
LEDGER_POLL_S = 0.5

MOST_ROWS = 100_000

# The order in which rows are given.
ORDER = ["ledger_version", "timestamp", "update_id"]

_ID_LENGTH = 13
_TOKEN = re.compile(r"ps(?:1|2:([0-9]{1,18})):([^:]*):([0-9]{1,18}):(.*)", re.DOTALL)
_COMMITTED_AT = col.committed_at.dt.epoch("us").alias("at")

_BEGIN_AGAIN = "Begin again without a token: with the newest row of each holding."


class Added(NamedTuple):
    """Rows of the ledger, and the place behind them.

    Attributes:
        rows: Rows of `position_updates`, in the order of ORDER.
        token: The place behind the rows: pass it as `since` to go on there.
    """

    rows: DataFrame
    token: str


class Place(NamedTuple):
    """A place in a ledger, which a token names.

    Attributes:
        ledger_id: The beginning of the id that Delta gave the table.
        version: The `ledger_version` of the last rows that were read; 0 before the first.
        update_id: One of these rows; empty before the first.
        committed_us: When it was committed, in Unix microseconds: in a restored backup the same row
            may be written again in the same version. None in a token of an older release.

    >>> Place("0193a1c2-7f3e", 812, "0193a1c3", 1772200000000000).token
    'ps2:1772200000000000:0193a1c2-7f3e:812:0193a1c3'
    >>> Place.of("ps1:0193a1c2-7f3e:812:0193a1c3").version
    812
    """

    ledger_id: str
    version: int
    update_id: str
    committed_us: int | None = None

    @property
    def token(self) -> str:
        """Return the place as a text; ps1 is the form of older releases, without a time."""
        form = "ps1" if self.committed_us is None else f"ps2:{self.committed_us}"
        return f"{form}:{self.ledger_id}:{self.version}:{self.update_id}"

    @classmethod
    def of(cls, token: str) -> "Place":
        """Return the place that a token names.

        Raises:
            TokenError: The text is no token.
        """
        match = _TOKEN.fullmatch(token)
        if match is not None:
            committed, ledger_id, digits, update_id = match.groups()
            version = int(digits)
            # Only the place before the first row has neither a version nor a row.
            has_row = bool(update_id)
            if has_row == (version > 0):
                committed_us = int(committed) if committed else None
                return cls(ledger_id, version, update_id, committed_us)

        raise TokenError(
            f"{token[:80]!r} is no token of a ledger.",
            remedy=f"Pass a token as `follow` printed it, {START!r} or {NOW!r}. {_BEGIN_AGAIN}",
        )


class AddedRows:
    """What was added to one ledger, read once for all followers at the same place.

    Args:
        table: The ledger.
        most_rows: A follower that is far behind gets at most so many rows, or one whole commit.
    """

    def __init__(self, table: Table, most_rows: int = MOST_ROWS) -> None:
        self._table = table
        self._most_rows = most_rows
        # The last two answers of `after`, by the key of the table's content and the place.
        self._answers: dict[object, Added | None] = {}

    def after(self, handle: DeltaTable, place: Place) -> Added | None:
        """Return the first rows behind a place; None without any.

        They are at most `most_rows`, or one whole commit.

        Raises:
            TokenError: The ledger does not have the row that the place names.
        """
        key = (self._table.cache_key(handle), place)
        answer = None
        if key not in self._answers:
            files = data_files(handle)
            self._check(handle, files, place)
            if last_added(files) > place.version:
                rows = self._read(files, place.version)
                last_row = rows.select("ledger_version", "update_id", _COMMITTED_AT).row(-1)
                answer = Added(rows, Place(place.ledger_id, *last_row).token)

            # The last two are kept: a follower asks at its place, then at the next one. The others
            # ask the same after it, and nothing is read again.
            self._answers = dict([*self._answers.items(), (key, answer)][-2:])
        return self._answers[key]

    def place(self, handle: DeltaTable, version: int) -> Place:
        """Return the place behind the rows of a version.

        It names the last of them; any other would do: `_check` looks whether it is still there.
        """
        ledger_id = _id_of(handle)
        added = added_by(self._table, data_files(handle), version)
        in_order = added.select("update_id", _COMMITTED_AT).sort("update_id")
        last = in_order.tail(1).collect()
        if last.is_empty():
            return Place(ledger_id, version, "")

        return Place(ledger_id, version, *last.row(0))

    def _check(self, handle: DeltaTable, files: DataFrame, place: Place) -> None:
        """Check that the ledger has the row of a place; before the first row there is none.

        In a restored backup the same row may have been written again in the same version: it has
        another time then. A token of an older release has no time to compare.

        Raises:
            TokenError: The ledger is another one, or somebody took the row back.
        """
        if place.ledger_id != _id_of(handle):
            raise TokenError(
                f"The token is of another ledger than {self._table.path}.",
                remedy=f"Pass it with the lake that it was printed for. {_BEGIN_AGAIN}",
            )
        if not place.version:
            return

        added = added_by(self._table, files, place.version)
        of_id = added.filter(col.update_id == place.update_id)
        committed_at = of_id.select(_COMMITTED_AT).collect()["at"]
        if committed_at.is_empty() or place.committed_us not in (None, *committed_at):
            update_id = place.update_id[:80]
            last = last_added(files)
            raise TokenError(
                f"{self._table.path} has no row {update_id} of version {place.version}: a repair "
                f"or a restored backup took it back. The last version with rows is {last}.",
                remedy=_BEGIN_AGAIN,
            )

    def _read(self, files: DataFrame, version: int) -> DataFrame:
        """Read the first rows after a version; files that can only have later ones are not read.

        Commits are read whole, since a place lies behind a version: one at least, and more while
        they are within `most_rows`. There is a later row: `after` has looked.
        """
        smallest = "min.ledger_version"
        # Of the files in the order of their first rows, those within `most_rows`, and one more; if
        # no commit is whole in them, twice as many.
        later = files.filter(col("max.ledger_version") > version).sort(smallest)
        is_within = col.num_records.cum_sum() <= self._most_rows
        file_count = later.filter(is_within).height + 1
        rows_by_commit = POSITION_UPDATES.empty
        while rows_by_commit.is_empty():  # no commit is whole in so few files
            rows = added_after(self._table, later.head(file_count), version)
            if file_count < later.height:  # a commit may have rows in several files
                next_file_begins = later.item(file_count, smallest)
                rows = rows.filter(col.ledger_version < next_file_begins)
            rows_by_commit = rows.group_by("ledger_version").len().sort("ledger_version").collect()
            file_count *= 2

        whole_commits = rows_by_commit.filter(col.len.cum_sum() <= self._most_rows)
        last = whole_commits["ledger_version"].max() or rows_by_commit.item(0, "ledger_version")
        return rows.filter(col.ledger_version <= last).sort(ORDER).collect()


def _id_of(handle: DeltaTable) -> str:
    return str(handle.metadata().id)[:_ID_LENGTH]


# A token of a table beside the ledger, with the number of a version.
VERSION_TOKEN = re.compile(r"pv1:[^:]*:([0-9]{1,18}):[0-9a-f]*")


def version_token(handle: DeltaTable) -> str:
    """Return the token of a version: with the id of the table, and the hash of its data files.

    After a backup was restored, the same version may have other rows, in files of other names.
    """
    paths = data_files(handle)["path"].sort()
    of_files = part_named("".join(paths))
    return f"pv1:{_id_of(handle)}:{handle.version()}:{of_files}"


class Follower:
    """One reader of the ledger, at one place.

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
        self._since = since
        # The last row that was read; None: nothing was read yet.
        self._place = None if since in (None, START, NOW) else Place.of(since)

    def read(self) -> Added | None:
        """Return what was committed since the last read; None if nothing was.

        The first read without a token returns the rows that `since` chooses, maybe none.

        Raises:
            TokenError: The token is of another ledger, or of rows that were taken back.
            LakeError: The table cannot be read; the next read goes on at the same place.
        """
        place = self._place
        if place is None:  # nothing was read yet, and there is no token
            # `through`: the version up to which the ledger was read for the newest rows.
            rows, through = self._latest.read_through()
            # NOW and START begin without these rows: behind them, or before the first one.
            if self._since is not None:
                rows = rows.clear()
            if self._since == START:
                through = 0
            self._place = self._table.snapshot(lambda handle: self._added.place(handle, through))
            return Added(rows.sort(ORDER), self._place.token)

        added = self._table.snapshot(lambda handle: self._added.after(handle, place))
        if added is not None:
            self._place = Place.of(added.token)
        return added

    async def rows_async(self, poll_s: float = LEDGER_POLL_S) -> AsyncIterator[Added]:
        """Yield what is committed, for ever; other tasks run while there is nothing."""
        while True:
            added = await offload(self.read)
            if added is None:
                await asyncio.sleep(poll_s)
            else:
                yield added
