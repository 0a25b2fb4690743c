"""All tables of one lake, what changed in one, and the broker's newest rows of each login."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self, TypeVar, Unpack

import polars as pl
from deltalake import DeltaTable
from polars import DataFrame, col, concat

from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.position_change import PositionChange
from position_sync_dagster.domain.queue_request import RetryPolicy
from position_sync_dagster.errors import LakeError, TokenError
from position_sync_dagster.lake.account_values import AccountValuesTable
from position_sync_dagster.lake.breaks import ReconciliationBreaks
from position_sync_dagster.lake.broker_positions import BrokerPositionsTable
from position_sync_dagster.lake.contracts import ContractsTable
from position_sync_dagster.lake.followed_rows import VERSION_TOKEN, version_token
from position_sync_dagster.lake.position_queue import PositionQueue
from position_sync_dagster.lake.position_updates import PositionUpdatesTable
from position_sync_dagster.lake.records import RecordsTable
from position_sync_dagster.lake.schema import (
    ACCOUNT_VALUES,
    BROKER_POSITIONS,
    CONTRACTS,
    DERIVED,
    GATEWAY_SESSIONS,
    LATEST_POSITIONS,
    POSITION_CHANGES,
    RECONCILIATION_BREAKS,
    TABLES,
    TableSpec,
)
from position_sync_dagster.lake.sessions import GatewaySessions
from position_sync_dagster.lake.storage import merges
from position_sync_dagster.lake.storage.commit_errors import STORAGE_ERRORS
from position_sync_dagster.lake.storage.object_store import LEASE_OPTIONS, options_at
from position_sync_dagster.lake.storage.table import Table, TableOptions
from position_sync_dagster.lake.storage.threads import together
from position_sync_dagster.lake.strategies_file import StrategiesFile
from position_sync_dagster.lake.strategy_registry import StrategyRegistry
from position_sync_dagster.settings import Settings

_READ_WHOLE = "Read the whole table, without a token, and go on from the one that it has then."


# The ledger is followed row by row. The other tables are small, and committed only when a row
# differs: the token names a version of a table, and two versions are compared.
@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedRows:
    """What changed between two versions of a table.

    Attributes:
        rows: Rows that are new, or differ from those before.
        gone: Rows that were there before, in this form.
        token: Names the version that was read, for the next time.
    """

    rows: DataFrame
    gone: DataFrame
    token: str


class LakeOptions(TableOptions, total=False):
    """The options of a lake besides its path; see `Lake`."""

    clock: Clock
    retry: RetryPolicy | None


class Lake:
    """The tables of one folder or `s3://` URI, each opened at its first use.

    Args:
        path: A folder, absolute or relative to the working directory, or an `s3://` URI.
        clock: Returns the current time, for leases and ages.
        retry: Attempts and back-off of requests that fail.
        **options: `fsync`: whether a change is synced to the disk before the call returns.

    Attributes:
        registry: The table active_strategies.
        queue: The table position_queue.
        updates: The table position_updates.
        specs: What the tables hold.
        derived_specs: What those of `derived_tables` hold.
        derived_tables: The tables that are computed from the others.

    The other tables have their names.

    >>> lake = Lake("data/lake")          # doctest: +SKIP
    >>> await lake.initialize()           # doctest: +SKIP
    >>> await lake.queue.counts()         # doctest: +SKIP
    """

    specs: ClassVar[tuple[TableSpec, ...]] = TABLES
    derived_specs: ClassVar[tuple[TableSpec, ...]] = DERIVED

    def __init__(
        self,
        path: str | Path = "data/lake",
        *,
        clock: Clock = utc_now,
        retry: RetryPolicy | None = None,
        **options: Unpack[TableOptions],
    ) -> None:
        self.path = str(path).rstrip("/")
        self._clock = clock
        self._options = options
        self._opened: dict[str, Table] = {}  # by name; see `open_table`
        path_of = self.table_path
        table = self.open_table
        self.derived_tables = tuple(map(table, self.derived_specs))
        self.registry = StrategyRegistry(path_of("active_strategies"), clock=clock, **options)
        self.queue = PositionQueue(path_of("position_queue"), retry=retry, clock=clock, **options)
        self.updates = PositionUpdatesTable(
            path_of("position_updates"),
            clock=clock,
            known=self.derived_table(LATEST_POSITIONS),
            **options,
        )

        self.broker_positions = BrokerPositionsTable(table(BROKER_POSITIONS))
        self.contracts = ContractsTable(table(CONTRACTS))
        self.sessions = self.open_sessions()
        # These have opened their tables themselves: `open_table` returns the same ones.
        for part in (self.registry, self.queue, self.updates, self.sessions):
            self._opened[part.table.spec.name] = part.table

        self.breaks = ReconciliationBreaks(table(RECONCILIATION_BREAKS), clock)

        self.position_changes = RecordsTable(
            table(POSITION_CHANGES), PositionChange, same=POSITION_CHANGES.key
        )
        self.account_values = AccountValuesTable(table(ACCOUNT_VALUES), clock)

    @classmethod
    def of(cls, settings: Settings, *, clock: Clock = utc_now) -> Self:
        """Return the lake that the settings name, with their fsync."""
        return cls(settings.lake, clock=clock, fsync=settings.fsync)

    @property
    def exists(self) -> bool:
        """Return whether any of the tables exists.

        Raises:
            LakeError: The folder may not be read, or the store cannot be used.
        """
        return any(table.exists() for table in self.tables)

    def open_sessions(self) -> GatewaySessions:
        """Return a separate object for the table gateway_sessions.

        It has a lock of its own, so that the renewal of a lease does not wait for other uses of
        the table in this process. Its timeouts are short, so that a store that hangs shows before
        the lease ends.
        """
        options = self._options.copy()
        given = options.get("storage_options") or {}
        options["storage_options"] = {**LEASE_OPTIONS, **given}
        return GatewaySessions(
            Table(self.table_path("gateway_sessions"), GATEWAY_SESSIONS, **options), self._clock
        )

    @property
    def tables(self) -> tuple[Table, ...]:
        """Return every table of `specs`: all but the derived ones."""
        return tuple(map(self.open_table, self.specs))

    def derived_table(self, spec: TableSpec) -> Table:
        """Return one of `derived_tables`."""
        return self.open_table(spec)

    @property
    def all_tables(self) -> tuple[Table, ...]:
        """Return every table that the program writes."""
        return (*self.tables, *self.derived_tables)

    def open_table(self, spec: TableSpec) -> Table:
        """Return a table in the folder of this lake, the same object each time."""
        if spec.name not in self._opened:
            self._opened[spec.name] = Table(self.table_path(spec.name), spec, **self._options)
        return self._opened[spec.name]

    def table_path(self, name: str) -> str:
        """Return the path of a table."""
        return f"{self.path}/{name}"

    def strategies_file(self, path: Path) -> StrategiesFile:
        """Open a strategies file, which has the legs of the registry.

        A lake of an extension opens a class of its own here, which reads further fields.

        Raises:
            StrategiesFileError: It cannot be read, or has a mistake.
        """
        return StrategiesFile(path)

    async def initialize(self) -> None:
        """Create all tables, or check and migrate those that exist.

        May be called any number of times, by processes that race each other.
        """
        await asyncio.to_thread(self.initialize_sync)

    def initialize_sync(self) -> None:
        """Create all tables, or check and migrate those that exist; blocks.

        The registry is read too: it answers from memory which legs are active.
        """
        # In parallel: in an object store each table takes dozens of requests in sequence.
        together(Table.initialize, self.all_tables)
        self.registry.sync.refresh()

    def changed_rows(self, name: str, since: str | None = None) -> ChangedRows:
        """Return what changed in a table since a version that was read before; blocks.

        A row that changed is among `gone` as it was, and among `rows` as it is.

        Args:
            name: The table, such as `position_changes`; the ledger is followed by `updates.follow`.
            since: The `token` of the time before; None: all rows are new.

        Raises:
            TokenError: It is no token, of another table, or a restored backup took its rows back.
            LakeError: There is no such table or version: begin again without a token.
        """
        path = self.table_path(name)
        options = options_at(path, self._options.get("storage_options"))

        def read(number: int | None) -> tuple[str, DataFrame]:
            # The token and the rows of a version; None: of the newest.
            try:
                handle = DeltaTable(path, version=number, storage_options=options)
                return version_token(handle), pl.scan_delta(handle).collect()
            except (*STORAGE_ERRORS, pl.exceptions.PolarsError) as error:
                what = "" if number is None else f"version {number} of "
                raise LakeError(
                    f"There is no {what}the table {path}, or no longer.", remedy=_READ_WHOLE
                ) from error

        token, now = read(None)
        before = now.clear()
        if since is not None:
            match = VERSION_TOKEN.fullmatch(str(since))
            # `stored` is the token of what that version has now; None if `since` is no token.
            stored, rows = (None, now) if match is None else read(int(match[1]))
            if stored != since:
                raise TokenError(
                    f"{str(since)[:80]!r} names no rows of {path}: it is of another table or of an "
                    "earlier release, or a restored backup took its rows back.",
                    remedy=_READ_WHOLE,
                )
            # A column that a later release added is unknown in rows from before.
            before = concat([before, rows], how="diagonal").select(now.columns)

        changed = now.join(before, on=now.columns, how="anti", nulls_equal=True)
        gone = before.join(now, on=now.columns, how="anti", nulls_equal=True)
        return ChangedRows(rows=changed, gone=gone, token=token)

    def maintain(self, *, clean_now: bool = False) -> list[merges.MaintenanceResult]:
        """Maintain every table; blocks. See `merges.maintain`."""
        return [merges.maintain(table, clean_now=clean_now) for table in self.all_tables]


# The lake of the core, or one with further tables.
L = TypeVar("L", bound=Lake)
L_contra = TypeVar("L_contra", bound=Lake, contravariant=True)


def broker_rows(lake: Lake, login: Settings) -> DataFrame:
    """Return the rows of `broker_positions` of one login, for the accounts that it has now.

    The table keeps the rows of an account that moved to another login until the old login connects
    again. Without a gateways file no accounts are named (None), and all rows are of the one login.
    """
    rows = lake.broker_positions.rows(login.gateway_id)
    if login.accounts is None:
        return rows
    return rows.filter(col.account.is_in(login.accounts))


def all_broker_rows(lake: Lake, settings: Settings) -> DataFrame:
    """Return the rows of all logins, in the order of the logins, accounts and conids."""
    return concat([broker_rows(lake, login) for login in settings.logins])


def rows_of_logins(rows: DataFrame, settings: Settings) -> DataFrame:
    """Return the rows of the accounts that a login has now.

    Rows of accounts that the gateways file no longer names are history and count in no sum. Without
    such a file all rows count.
    """
    if settings.gateways_file is None:
        return rows
    accounts = {account for login in settings.logins for account in login.accounts or ()}
    return rows.filter(col.account.is_in(accounts))
