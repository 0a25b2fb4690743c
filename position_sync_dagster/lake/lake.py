"""All tables of one lake, the broker's newest rows of each login, and the rows of a past moment."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Unpack

import polars as pl

from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.leg import ActiveContract
from position_sync_dagster.domain.reconciliation import Break
from position_sync_dagster.domain.retry import RetryPolicy
from position_sync_dagster.errors import MomentError
from position_sync_dagster.lake import records, schema
from position_sync_dagster.lake.account_values import AccountValuesTable
from position_sync_dagster.lake.breaks import ReconciliationBreaks
from position_sync_dagster.lake.broker_positions import BrokerPositionsTable
from position_sync_dagster.lake.contracts import ContractsTable
from position_sync_dagster.lake.derived import MovementsTable
from position_sync_dagster.lake.position_queue import PositionQueue
from position_sync_dagster.lake.position_updates import PositionUpdatesTable
from position_sync_dagster.lake.sessions import GatewaySessions
from position_sync_dagster.lake.storage import table as storage
from position_sync_dagster.lake.storage.object_store import LEASE_OPTIONS
from position_sync_dagster.lake.storage.table import Table, TableOptions
from position_sync_dagster.lake.strategy_registry import StrategyRegistry
from position_sync_dagster.settings import Settings


class Lake:
    """The tables of one folder or `s3://` URI, each opened at its first use.

    Args:
        path: A folder, absolute or relative to the working directory, or an `s3://` URI.
        clock: Returns the current time, for leases and ages.
        retry: Attempts and back-off of requests that fail.
        fsync: Whether a change is synced to the disk before the call returns.

    Attributes:
        registry, queue, updates: The tables active_strategies, position_queue, position_updates.
        derived_tables: The tables that are computed from the others; their first rows create them.

    The other tables have their names.

    >>> lake = Lake("data/lake")          # doctest: +SKIP
    >>> await lake.initialize()           # doctest: +SKIP
    >>> await lake.queue.counts()         # doctest: +SKIP
    """

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
        path_of = self.table_path
        table = self._table
        self.derived_tables = tuple(map(table, schema.DERIVED))
        self.registry = StrategyRegistry(path_of("active_strategies"), clock=clock, **options)
        self.queue = PositionQueue(path_of("position_queue"), retry=retry, clock=clock, **options)
        self.updates = PositionUpdatesTable(
            path_of("position_updates"),
            clock=clock,
            known=self.derived_table(schema.LATEST_POSITIONS),
            **options,
        )

        self.broker_positions = BrokerPositionsTable(table(schema.BROKER_POSITIONS))
        self.contracts = ContractsTable(table(schema.CONTRACTS))
        self.sessions = self.open_sessions()
        self.breaks = ReconciliationBreaks(table(schema.RECONCILIATION_BREAKS), clock)

        self.executions = records.ExecutionsTable(table(schema.EXECUTIONS))
        self.statement_events = records.events_table(table(schema.STATEMENT_EVENTS))
        self.position_changes = records.changes_table(table(schema.POSITION_CHANGES))
        self.closures = records.ClosuresTable(table(schema.CLOSURES))
        self.movements = MovementsTable(table(schema.MOVEMENTS))
        self.dividends = records.DividendsTable(table(schema.DIVIDENDS))
        self.risk_scenarios = records.RiskScenariosTable(table(schema.RISK_SCENARIOS))
        self.account_values = AccountValuesTable(table(schema.ACCOUNT_VALUES), clock)

    @classmethod
    def of(cls, settings: Settings, *, clock: Clock = utc_now) -> "Lake":
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
        the table in this process.
        """
        options = self._options.copy()
        options["storage_options"] = LEASE_OPTIONS | dict(options.get("storage_options") or {})
        table = Table(self.table_path("gateway_sessions"), schema.GATEWAY_SESSIONS, **options)
        return GatewaySessions(table, self._clock)

    @property
    def tables(self) -> tuple[Table, ...]:
        """Return every table, apart from the derived ones."""
        parts = (
            self.registry,
            self.queue,
            self.updates,
            self.broker_positions,
            self.contracts,
            self.sessions,
            self.breaks,
            self.executions,
            self.statement_events,
            self.position_changes,
            self.closures,
            self.movements,
            self.dividends,
            self.risk_scenarios,
            self.account_values,
        )
        return tuple(part.table for part in parts)

    def derived_table(self, spec: schema.TableSpec) -> Table:
        """Return one of `derived_tables`."""
        return next(table for table in self.derived_tables if table.spec is spec)

    @property
    def all_tables(self) -> tuple[Table, ...]:
        """Return every table that the program writes."""
        return (*self.tables, *self.derived_tables)

    def _table(self, spec: schema.TableSpec) -> Table:
        return Table(self.table_path(spec.name), spec, **self._options)

    def table_path(self, name: str) -> str:
        """Return the path of a table."""
        return f"{self.path}/{name}"

    async def initialize(self) -> None:
        """Create all tables, or check and migrate those that exist.

        May be called any number of times, by processes that race each other.
        """
        await asyncio.to_thread(self.initialize_sync)

    def initialize_sync(self) -> None:
        """Initialize as `initialize` does, and block."""
        # In parallel: in an object store each table takes dozens of requests in sequence.
        storage.together(Table.initialize, self.tables)
        self.registry.sync.refresh()

    def maintain(self, *, clean_now: bool = False) -> list[storage.MaintenanceResult]:
        """Maintain every table that is there; blocks. See `storage.table.maintain`."""
        results: list[storage.MaintenanceResult] = []
        for table in self.all_tables:
            if table in self.tables or table.exists():
                result = storage.maintain(table, clean_now=clean_now)
                results.append(result)
        return results


def broker_rows(lake: Lake, login: Settings) -> pl.DataFrame:
    """Return the rows of `broker_positions` of one login, for the accounts that it has now.

    The table keeps the rows of an account that moved to another login until the old login connects
    again.
    """
    rows = lake.broker_positions.rows(login.gateway_id)
    if login.accounts is None:
        return rows
    return rows.filter(pl.col("account").is_in(login.accounts))


def all_broker_rows(lake: Lake, settings: Settings) -> pl.DataFrame:
    """Return the rows of all logins, in the order of the logins, accounts and conids."""
    return pl.concat([broker_rows(lake, login) for login in settings.logins])


def rows_of_logins(rows: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    """Return the rows of the accounts that a login has now.

    Rows of accounts that the gateways file no longer names are history and count in no sum.
    """
    if settings.gateways_file is None:
        return rows
    accounts: set[str] = set()
    for login in settings.logins:
        accounts.update(login.accounts or ())
    return rows.filter(pl.col("account").is_in(accounts))


# No rows of `broker_positions`: the table keeps no reports of a past moment.
NO_HOLDINGS = schema.BROKER_POSITIONS.empty

MOMENT = "%Y-%m-%d %H:%M:%S UTC"


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """A moment, and which rows count.

    Attributes:
        at: The moment, with a time zone.
        as_known_now: Whether all rows with a timestamp at or before the moment count, also those
            that were committed later; otherwise only those that were committed by the moment.
    """

    at: datetime
    as_known_now: bool = False

    def __str__(self) -> str:
        """Return the line that stands above a report."""
        at = f"{self.at.astimezone(UTC):{MOMENT}}"
        if self.as_known_now:
            return f"What was true at {at}, as far as it is known now."
        return f"As of {at}: what had been committed by then."


def require_past(at: datetime, now: datetime) -> None:
    """Raise if a moment is in the future.

    Raises:
        MomentError: The moment is in the future.
    """
    if at > now:
        moment = at.astimezone(UTC)
        raise MomentError(
            f"{moment:{MOMENT}} is in the future; it is {now:{MOMENT}}.",
            remedy="Name a time that has passed, with its zone, such as 2026-03-09T15:30:00Z.",
        )


def rows_at(lake: Lake, settings: Settings, past: Past, now: datetime) -> pl.DataFrame:
    """Return the newest row of each holding of the logins at a moment; blocks.

    Raises:
        LakeError: A table cannot be used.
        MomentError: The moment is in the future, or before the first row.
    """
    require_past(past.at, now)
    ledger = lake.updates.sync
    rows = ledger.as_of(past.at, as_known_now=past.as_known_now)
    if rows.is_empty():
        moment = past.at.astimezone(UTC)
        raise MomentError(
            f"The ledger has no row of {moment:{MOMENT}}.",
            remedy="Name a later time, or start `position-sync dev`: it writes rows.",
        )
    return rows_of_logins(rows, settings)


def legs_at(lake: Lake, at: datetime) -> list[ActiveContract]:
    """Return the legs that were active at a moment, and whose contract is known; blocks."""
    legs = []
    for leg in schema.legs_of(lake.registry.table.rows()):
        if isinstance(leg, ActiveContract) and lasted(leg.added_at, leg.removed_at, at):
            active = replace(leg, removed_at=None)
            legs.append(active)
    return legs


def breaks_at(breaks: Iterable[Break], at: datetime) -> list[Break]:
    """Return the breaks that were open at a moment, oldest first; pure."""
    opened: list[Break] = []
    for difference in breaks:
        if lasted(difference.opened_at, difference.resolved_at, at):
            opened.append(difference)
    return sorted(opened, key=lambda difference: (difference.opened_at, difference.break_id))


def lasted(began: datetime, ended: datetime | None, at: datetime) -> bool:
    """Return whether something had begun by a moment and had not ended; None: it has no end."""
    return began <= at and (ended is None or at < ended)
