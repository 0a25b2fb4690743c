"""What type checkers read; `__init__.py` imports the same names when they are first used."""

from position_sync_dagster.component import PositionSyncComponent as PositionSyncComponent
from position_sync_dagster.domain.holding import BrokerPosition as BrokerPosition
from position_sync_dagster.domain.holding import Completeness as Completeness
from position_sync_dagster.domain.leg import ActiveContract as ActiveContract
from position_sync_dagster.domain.leg import LegState as LegState
from position_sync_dagster.domain.position_update import PositionUpdate as PositionUpdate
from position_sync_dagster.domain.position_update import (
    PositionUpdateHandler as PositionUpdateHandler,
)
from position_sync_dagster.domain.queue_request import Outcome as Outcome
from position_sync_dagster.domain.queue_request import ProcessingAttempt as ProcessingAttempt
from position_sync_dagster.domain.queue_request import QueuedPosition as QueuedPosition
from position_sync_dagster.domain.queue_request import QueueRequest as QueueRequest
from position_sync_dagster.domain.queue_request import QueueStatus as QueueStatus
from position_sync_dagster.domain.queue_request import Reason as Reason
from position_sync_dagster.domain.queue_request import RetryPolicy as RetryPolicy
from position_sync_dagster.domain.reconciliation import Discrepancy as Discrepancy
from position_sync_dagster.domain.reconciliation import DiscrepancyType as DiscrepancyType
from position_sync_dagster.domain.reconciliation import (
    ReconciliationResult as ReconciliationResult,
)
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
from position_sync_dagster.sync.reconciliation import (
    PositionReconciler as PositionReconciler,
)
from position_sync_dagster.sync.reconciliation import (
    ReconciliationService as ReconciliationService,
)
from position_sync_dagster.sync.stream.router import StreamTables as StreamTables
from position_sync_dagster.sync.stream.streamer import IBPositionStreamer as IBPositionStreamer
