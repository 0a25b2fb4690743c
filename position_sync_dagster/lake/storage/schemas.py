"""The schema of every table of the lake, its version and its physical layout."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType

import polars as pl
from deltalake import Field, Schema
from deltalake.schema import PrimitiveType

NAME_PROPERTY = "positionSync.table"
VERSION_PROPERTY = "positionSync.schemaVersion"
MODE_PROPERTY = "positionSync.tradingMode"


class Kind(StrEnum):
    """A column's type, as Delta names it."""

    TEXT = "string"
    COUNT = "long"
    NUMBER = "double"
    MOMENT = "timestamp"
    DAY = "date"


_POLARS: Mapping[Kind, pl.DataType] = MappingProxyType(
    {
        Kind.TEXT: pl.String(),
        Kind.COUNT: pl.Int64(),
        Kind.NUMBER: pl.Float64(),
        Kind.MOMENT: pl.Datetime("us", "UTC"),
        Kind.DAY: pl.Date(),
    }
)

RETENTION: Mapping[str, str] = MappingProxyType(
    {
        "delta.checkpointInterval": "10",
        "delta.logRetentionDuration": "interval 10 minutes",
        "delta.deletedFileRetentionDuration": "interval 30 minutes",
    }
)
"""Ten versions a checkpoint keeps an open at a few milliseconds; half an hour outlives every
reader of a snapshot. Ten minutes of log bound it at one commit a second to 600 entries: each
commit lists that folder."""


@dataclass(frozen=True)
class TableSpec:
    """What a table is: its name, columns, partitions and the columns with file statistics.

    Attributes:
        version: Grows by one with each added column; older tables are migrated forward.
        indexed: Columns with minimum and maximum per file in the log. Few, since each costs
            bytes in every commit and checkpoint.
    """

    name: str
    version: int
    columns: Mapping[str, Kind]
    partition_by: tuple[str, ...] = ()
    indexed: tuple[str, ...] = ()
    properties: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def polars(self) -> pl.Schema:
        """Give the schema of a frame of this table."""
        return pl.Schema({name: _POLARS[kind] for name, kind in self.columns.items()})

    @cached_property
    def delta(self) -> Schema:
        """Give the schema as Delta Lake takes it."""
        return Schema(
            [Field(name, PrimitiveType(kind.value)) for name, kind in self.columns.items()]
        )

    @property
    def configuration(self) -> dict[str, str]:
        """Give the table properties of a new table."""
        return {
            **RETENTION,
            NAME_PROPERTY: self.name,
            VERSION_PROPERTY: str(self.version),
            "delta.dataSkippingStatsColumns": ",".join(self.indexed),
            **self.properties,
        }


_T, _N, _F, _M, _D = Kind.TEXT, Kind.COUNT, Kind.NUMBER, Kind.MOMENT, Kind.DAY

_SPLIT = {"bucket": _T, "part": _T}
"""Live rows and finished ones never share a file, and each finishing commit has its own part:
every change is an overwrite whose predicate names partitions only."""

ACTIVE_STRATEGIES = TableSpec(
    name="active_strategies",
    version=1,
    columns={
        "strategy_id": _T,
        "account": _T,
        "conid": _N,
        "symbol": _T,
        "right": _T,
        "strike": _F,
        "expiry": _D,
        "quantity": _F,
        "priority": _N,
        "added_at": _M,
        "removed_at": _M,
        **_SPLIT,
    },
    partition_by=("bucket", "part"),
    indexed=("added_at", "removed_at"),
)

POSITION_QUEUE = TableSpec(
    name="position_queue",
    version=1,
    columns={
        "request_id": _T,
        "account": _T,
        "conid": _N,
        "symbol": _T,
        "priority": _N,
        "status": _T,
        "attempts": _N,
        "created_at": _M,
        "updated_at": _M,
        "available_at": _M,
        "lease_owner": _T,
        "lease_token": _T,
        "lease_expires_at": _M,
        "error_message": _T,
        "reason": _T,
        **_SPLIT,
    },
    partition_by=("bucket", "part"),
    indexed=("request_id", "created_at", "updated_at"),
)

POSITION_UPDATES = TableSpec(
    name="position_updates",
    version=1,
    columns={
        "update_id": _T,
        "account": _T,
        "conid": _N,
        "symbol": _T,
        "sec_type": _T,
        "right": _T,
        "strike": _F,
        "expiry": _D,
        "multiplier": _F,
        "currency": _T,
        "position": _F,
        "market_price": _F,
        "price_kind": _T,
        "bid": _F,
        "ask": _F,
        "market_value": _F,
        "average_cost": _F,
        "unrealized_pnl": _F,
        "realized_pnl": _F,
        "daily_pnl": _F,
        "implied_vol": _F,
        "delta": _F,
        "gamma": _F,
        "vega": _F,
        "theta": _F,
        "underlying_price": _F,
        "timestamp": _M,
        "value_time": _M,
        "date": _D,
        "source": _T,
        "value_source": _T,
        "market_data_type": _N,
        "gateway_id": _T,
        "trading_mode": _T,
        "request_id": _T,
        "session_id": _T,
        "fencing_token": _N,
        "run_id": _T,
        "batch_id": _T,
    },
    partition_by=("date",),
    indexed=("update_id", "timestamp", "batch_id"),
)

BROKER_POSITIONS = TableSpec(
    name="broker_positions",
    version=1,
    columns={
        "gateway_id": _T,
        "account": _T,
        "conid": _N,
        "symbol": _T,
        "sec_type": _T,
        "currency": _T,
        "multiplier": _F,
        "right": _T,
        "strike": _F,
        "expiry": _D,
        "local_symbol": _T,
        "trading_class": _T,
        "exchange": _T,
        "position": _F,
        "average_cost": _F,
        "market_price": _F,
        "market_value": _F,
        "unrealized_pnl": _F,
        "realized_pnl": _F,
        "daily_pnl": _F,
        "value_source": _T,
        "value_time": _M,
        "received_at": _M,
        "position_time": _M,
        "snapshot_id": _T,
        "completeness": _T,
        "confirmed_at": _M,
        "trading_mode": _T,
        "session_id": _T,
        "fencing_token": _N,
    },
    partition_by=("gateway_id",),
    indexed=("confirmed_at", "fencing_token"),
)

CONTRACTS = TableSpec(
    name="contracts",
    version=1,
    columns={
        "conid": _N,
        "symbol": _T,
        "sec_type": _T,
        "currency": _T,
        "local_symbol": _T,
        "trading_class": _T,
        "exchange": _T,
        "under_conid": _N,
        "multiplier": _F,
        "price_magnifier": _N,
        "right": _T,
        "strike": _F,
        "last_trade_date": _D,
        "last_trade_time": _T,
        "time_zone": _T,
        "trading_hours": _T,
        "seen_at": _M,
    },
    indexed=("conid",),
)

GATEWAY_SESSIONS = TableSpec(
    name="gateway_sessions",
    version=1,
    columns={
        "gateway_id": _T,
        "owner": _T,
        "session_id": _T,
        "run_id": _T,
        "host": _T,
        "pid": _N,
        "fencing_token": _N,
        "started_at": _M,
        "heartbeat_at": _M,
        "expires_at": _M,
        "state": _T,
        "state_since": _M,
        "lines_in_use": _N,
        "line_limit": _N,
        "detail": _T,
        **_SPLIT,
    },
    partition_by=("bucket", "part"),
    indexed=("started_at",),
)

RECONCILIATION_BREAKS = TableSpec(
    name="reconciliation_breaks",
    version=1,
    columns={
        "break_id": _T,
        "gateway_id": _T,
        "account": _T,
        "conid": _N,
        "symbol": _T,
        "type": _T,
        "expected": _F,
        "actual": _F,
        "detail": _T,
        "state": _T,
        "opened_at": _M,
        "confirmed_at": _M,
        "resolved_at": _M,
        "accepted_at": _M,
        "accepted_by": _T,
        "note": _T,
        "snapshot_id": _T,
        "run_id": _T,
        "last_seen_at": _M,
        **_SPLIT,
    },
    partition_by=("bucket", "part"),
    indexed=("opened_at",),
)

TABLES = (
    ACTIVE_STRATEGIES,
    POSITION_QUEUE,
    POSITION_UPDATES,
    BROKER_POSITIONS,
    CONTRACTS,
    GATEWAY_SESSIONS,
    RECONCILIATION_BREAKS,
)
