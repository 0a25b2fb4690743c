"""Every option leg of an Interactive Brokers account, valued on a fixed budget of lines.

The public names below are imported when they are first used, so that importing the package is
cheap. The package works without Dagster: see docs/library.md.
"""

from importlib import import_module
from typing import TYPE_CHECKING

_HOMES = {
    "component": ("PositionSyncComponent",),
    "domain.broker_position": ("BrokerPosition", "Completeness"),
    "domain.clock": ("RetryPolicy",),
    "domain.leg": ("ActiveContract", "LegState"),
    "domain.reconciliation": ("Discrepancy", "DiscrepancyType", "ReconciliationResult"),
    "domain.update": (
        "PositionUpdate",
        "PositionUpdateHandler",
        "QueuedPosition",
        "QueueRequest",
        "QueueStatus",
        "Reason",
    ),
    "errors": ("PositionSyncError",),
    "gateway.connection": ("GatewayConnection", "IBConnectionManager"),
    "lake.lake": ("Lake",),
    "lake.position_queue": ("PositionQueue",),
    "lake.strategy_registry": ("StrategyRegistry",),
    "lake.position_updates": ("DeltaLakePositionWriter", "PositionUpdatesTable"),
    "settings": ("Settings", "load_settings"),
    "sync.reports.reconciliation": ("PositionReconciler", "ReconciliationService"),
    "sync.stream.streamer": ("IBPositionStreamer", "StreamTables"),
    "sync.drain": ("QueueWorker", "WorkerStats"),
}

_EXPORTS = {name: home for home, names in _HOMES.items() for name in names}

if TYPE_CHECKING:
    from position_sync_dagster.component import PositionSyncComponent as PositionSyncComponent
    from position_sync_dagster.domain.broker_position import BrokerPosition as BrokerPosition
    from position_sync_dagster.domain.broker_position import Completeness as Completeness
    from position_sync_dagster.domain.clock import RetryPolicy as RetryPolicy
    from position_sync_dagster.domain.leg import ActiveContract as ActiveContract
    from position_sync_dagster.domain.leg import LegState as LegState
    from position_sync_dagster.domain.reconciliation import Discrepancy as Discrepancy
    from position_sync_dagster.domain.reconciliation import DiscrepancyType as DiscrepancyType
    from position_sync_dagster.domain.reconciliation import (
        ReconciliationResult as ReconciliationResult,
    )
    from position_sync_dagster.domain.update import PositionUpdate as PositionUpdate
    from position_sync_dagster.domain.update import PositionUpdateHandler as PositionUpdateHandler
    from position_sync_dagster.domain.update import QueuedPosition as QueuedPosition
    from position_sync_dagster.domain.update import QueueRequest as QueueRequest
    from position_sync_dagster.domain.update import QueueStatus as QueueStatus
    from position_sync_dagster.domain.update import Reason as Reason
    from position_sync_dagster.errors import PositionSyncError as PositionSyncError
    from position_sync_dagster.gateway.connection import GatewayConnection as GatewayConnection
    from position_sync_dagster.gateway.connection import IBConnectionManager as IBConnectionManager
    from position_sync_dagster.lake.lake import Lake as Lake
    from position_sync_dagster.lake.position_queue import PositionQueue as PositionQueue
    from position_sync_dagster.lake.position_updates import (
        DeltaLakePositionWriter as DeltaLakePositionWriter,
    )
    from position_sync_dagster.lake.position_updates import (
        PositionUpdatesTable as PositionUpdatesTable,
    )
    from position_sync_dagster.lake.strategy_registry import (
        StrategyRegistry as StrategyRegistry,
    )
    from position_sync_dagster.settings import Settings as Settings
    from position_sync_dagster.settings import load_settings as load_settings
    from position_sync_dagster.sync.drain import QueueWorker as QueueWorker
    from position_sync_dagster.sync.drain import WorkerStats as WorkerStats
    from position_sync_dagster.sync.reports.reconciliation import (
        PositionReconciler as PositionReconciler,
    )
    from position_sync_dagster.sync.reports.reconciliation import (
        ReconciliationService as ReconciliationService,
    )
    from position_sync_dagster.sync.stream.streamer import IBPositionStreamer as IBPositionStreamer
    from position_sync_dagster.sync.stream.streamer import StreamTables as StreamTables

__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> object:
    """Import a public name at its first use (PEP 562)."""
    home = _EXPORTS.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    # Dagster reads each name listed here to find components, in each run of each project that has
    # this package installed. Reading all public names would import the whole package, which takes a
    # third of a second.
    return sorted({*globals(), "PositionSyncComponent"})
