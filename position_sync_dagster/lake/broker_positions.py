"""The newest positions and values that the broker reported, written by the login's owner."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, Unpack

import polars as pl
from deltalake import DeltaTable

from position_sync_dagster.domain.broker_position import BrokerPosition
from position_sync_dagster.domain.gateway_session import GatewaySession
from position_sync_dagster.domain.update import TradingMode
from position_sync_dagster.lake.published_rows import (
    DECIDING,
    CachedRows,
    CachedValues,
    is_fragmented,
    last_time,
    newest,
    read_rows,
    rows_to_publish,
    values_of,
)
from position_sync_dagster.lake.schema.ids import text_literal
from position_sync_dagster.lake.schema.tables import BROKER_POSITIONS
from position_sync_dagster.lake.storage.fencing import fence, newest_token, refuse_stale_owner
from position_sync_dagster.lake.storage.frames import append, files_in, overwrite, scan
from position_sync_dagster.lake.storage.table import Table, TableOptions
from position_sync_dagster.lake.storage.threads import offloaded
from position_sync_dagster.lake.storage.trading_mode import check_mode


class Published(NamedTuple):
    """What the owner of a login published last.

    Attributes:
        session_id: The session that published it; None for an owner without a lease.
        captured_at: When that session took the rows from its account feed, by its clock.
    """

    rows: list[BrokerPosition]
    session_id: str | None = None
    captured_at: datetime | None = None


_Read = tuple[str, tuple[str, ...]]
"""A gateway, and the columns that are read of its rows, in the order of the table."""
_EVERY = tuple(BROKER_POSITIONS.columns)


class SyncBrokerPositions:
    """The table as plain calls, for callers that may block; see `BrokerPositionsTable`."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._replaced: dict[str, tuple[int, int | None]] = {}
        self._cached: dict[_Read, tuple[tuple[int, int], CachedRows]] = {}
        self._values: dict[str, tuple[int, CachedRows, CachedValues, Published]] = {}
        self._confirmations: dict[str, tuple[frozenset[str], pl.Series]] = {}

    def initialize(self) -> None:
        """Create the table, or check and migrate the one that is there."""
        self.table.initialize()

    def replace(
        self,
        gateway_id: str,
        positions: Iterable[BrokerPosition],
        session: GatewaySession | None = None,
        *,
        captured_at: datetime | None = None,
        accounts_confirmed_at: Mapping[str, datetime | None] | None = None,
    ) -> int:
        """Make the gateway's rows equal to these, in one commit, and return the table's version.

        Rows with position 0 are stored as they are: each records that a holding was closed.

        Args:
            gateway_id: The gateway.
            positions: Its rows.
            session: The lease of the writer.
            captured_at: When the rows were taken from the account feed.
            accounts_confirmed_at: As of `update`.

        Raises:
            LeaseLostError: An owner with a newer session has written already.
            TradingModeError: The table holds accounts of another trading mode.
        """
        rows = rows_to_publish(
            gateway_id, list(positions), session, captured_at, accounts_confirmed_at or {}
        )

        def step(handle: DeltaTable) -> int:
            check_mode(handle, _modes_of(rows), self.table.path)
            if session is not None:
                fence(handle, gateway_id, session.fencing_token)
            numbered = rows.with_columns(published_version=pl.lit(handle.version() + 1, pl.Int64))
            overwrite(handle, numbered, _rows_of(gateway_id), _commit_info(session))
            self._replaced[gateway_id] = self._base(handle, session)
            return handle.version()

        return self.table.transact(step)

    def update(
        self,
        gateway_id: str,
        changed: Iterable[BrokerPosition],
        session: GatewaySession | None = None,
        *,
        captured_at: datetime | None = None,
        accounts_confirmed_at: Mapping[str, datetime | None],
    ) -> int | None:
        """Add the rows that changed since the last commit; return the table's version.

        The other rows stay as they are. Now and then all rows are written anew, without those
        that have a newer one.

        Args:
            gateway_id: The gateway.
            changed: The rows that changed.
            session: The lease of the writer.
            captured_at: When the rows were taken from the account feed.
            accounts_confirmed_at: Until when the broker has confirmed each account. With the
                completeness of the rows, it holds for all rows of the account.

        Returns:
            None if nothing was written: the table has no rows that this session wrote, so that
            all of them must be replaced.

        Raises:
            LeaseLostError: An owner with a newer session has written already.
            TradingModeError: The table holds accounts of another trading mode.
        """
        rows = rows_to_publish(
            gateway_id, list(changed), session, captured_at, accounts_confirmed_at
        )

        def step(handle: DeltaTable) -> int | None:
            check_mode(handle, _modes_of(rows), self.table.path)
            stored = newest_token(handle, gateway_id) if session is not None else None
            if session is not None:
                refuse_stale_owner(session.fencing_token, stored, gateway_id)
            if self._replaced.get(gateway_id) != self._base(handle, session):
                return None
            if session is not None and stored != session.fencing_token:
                return None
            numbered = rows.with_columns(published_version=pl.lit(handle.version() + 1, pl.Int64))
            if is_fragmented(files_in(handle, gateway_id=gateway_id), rows.height):
                stored_rows = scan(handle, BROKER_POSITIONS, _rows_of(gateway_id))
                overwrite(
                    handle,
                    newest(pl.concat([stored_rows, numbered])),
                    _rows_of(gateway_id),
                    _commit_info(session),
                )
            else:
                append(handle, numbered, _commit_info(session))
            return handle.version()

        return self.table.transact(step)

    def read(self, gateway_id: str) -> list[BrokerPosition]:
        """Return the gateway's rows, in the order of account and conid."""
        return list(self.published(gateway_id).rows)

    def published(self, gateway_id: str) -> Published:
        """Return the gateway's rows, in the order of account and conid, and who published them.

        The same object is returned until the table changes: do not change it.
        """
        (generation, _version), found = self._current(gateway_id)
        known = self._values.get(gateway_id)
        if known is None or known[0] != generation or known[1] is not found:
            before = known[2] if known is not None and known[0] == generation else None
            values = values_of(found.stated, before)
            newest_row = found.frame.sort("published_version").tail(1)
            who = next(newest_row.select("session_id", "captured_at").iter_rows(), ())
            published = Published(list(values.rows.values()), *who)
            known = self._values[gateway_id] = (generation, found, values, published)
        return known[3]

    def rows(self, gateway_id: str, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Return the gateway's rows as a frame, in the order of account and conid.

        Args:
            gateway_id: The gateway.
            columns: The columns to read; all by default.
        """
        stated = self._current(gateway_id, columns)[1].stated
        return stated if columns is None else stated.select(columns)

    def _current(
        self, gateway_id: str, columns: Sequence[str] | None = None
    ) -> tuple[tuple[int, int], CachedRows]:
        """Return what was read of the newest version, and which version of which table it is."""
        # Who has read all columns follows them, and not a few of them beside.
        if columns is None or (gateway_id, _EVERY) in self._cached:
            read = _EVERY
        else:
            read = tuple(name for name in _EVERY if name in {*DECIDING, *columns})
        wanted = (gateway_id, read)

        def step(handle: DeltaTable) -> tuple[tuple[int, int], CachedRows]:
            cached, key = self._cached.get(wanted), self.table.cache_key(handle)
            if cached is None or cached[0] != key:
                same_table = cached is not None and cached[0][0] == key[0]
                before = cached[1] if cached and same_table else None
                found = _read(handle, gateway_id, list(read), before)
                cached = self._cached[wanted] = (key, found)
            return cached

        return self.table.snapshot(step)

    def newest_confirmation(self, gateway_id: str, now: datetime) -> datetime | None:
        """Return when the broker last confirmed an account of the gateway; None: never.

        The rows are read once for all calls, until the owner of the gateway writes again.

        Args:
            gateway_id: The gateway.
            now: Later times, from before the clock was set back, are ignored as long as there are
                others.
        """

        def step(handle: DeltaTable) -> pl.Series:
            files, known = _paths_of(handle, gateway_id), self._confirmations.get(gateway_id)
            if known is None or known[0] != files:
                columns = ["confirmed_at", "account_confirmed_at"]
                rows = scan(handle, BROKER_POSITIONS, _rows_of(gateway_id), columns)
                times = pl.concat([rows.get_column(name).rename("at") for name in columns])
                known = self._confirmations[gateway_id] = (files, times.unique())
            return known[1]

        return last_time(self.table.snapshot(step), now)

    def version(self) -> int:
        """Return the table's newest version."""
        return self.table.version()

    def _base(self, handle: DeltaTable, session: GatewaySession | None) -> tuple[int, int | None]:
        """Return what must be the same for changes to be added to rows that were replaced."""
        generation, _version = self.table.cache_key(handle)
        return (generation, session.fencing_token if session else None)


class BrokerPositionsTable:
    """The table `broker_positions`: the newest row of each (gateway_id, account, conid) counts.

    Args:
        delta_lake_path: Folder or `s3://` URI of the table.

    Attributes:
        sync: The same table as plain, blocking calls.
    """

    def __init__(
        self,
        delta_lake_path: str | Path = "data/lake/broker_positions",
        **options: Unpack[TableOptions],
    ) -> None:
        self.table = Table(delta_lake_path, BROKER_POSITIONS, **options)
        self.sync = SyncBrokerPositions(self.table)

    initialize = offloaded(SyncBrokerPositions.initialize)
    replace = offloaded(SyncBrokerPositions.replace)
    update = offloaded(SyncBrokerPositions.update)
    read = offloaded(SyncBrokerPositions.read)
    published = offloaded(SyncBrokerPositions.published)
    rows = offloaded(SyncBrokerPositions.rows)
    version = offloaded(SyncBrokerPositions.version)


def _read(
    handle: DeltaTable, gateway_id: str, columns: list[str], before: CachedRows | None
) -> CachedRows:
    """Read a gateway's rows; of files that were read before, nothing."""
    files = _paths_of(handle, gateway_id)
    if before is not None and files == before.files:
        return before  # another gateway's rows changed
    if before is None or not before.covers(files):
        return read_rows(files, scan(handle, BROKER_POSITIONS, _rows_of(gateway_id), columns), None)
    added = f"{_rows_of(gateway_id)} AND published_version > {before.through}"
    return read_rows(files, scan(handle, BROKER_POSITIONS, added, columns), before)


def _paths_of(handle: DeltaTable, gateway_id: str) -> frozenset[str]:
    return frozenset(files_in(handle, gateway_id=gateway_id).get_column("path"))


def _modes_of(rows: pl.DataFrame) -> list[TradingMode]:
    return [TradingMode(mode) for mode in rows.get_column("trading_mode").unique()]


def _commit_info(session: GatewaySession | None) -> dict[str, str]:
    return {"session_id": session.session_id} if session else {}


def _rows_of(gateway_id: str) -> str:
    return f"gateway_id = {text_literal(gateway_id)}"
