"""What type checkers read; `__init__.py` imports the same names when they are first used."""

from position_sync_dagster.component import PositionSyncComponent as PositionSyncComponent
from position_sync_dagster.defs.assets.past_days import exchange_partitions as exchange_partitions
from position_sync_dagster.defs.assets.table_asset import Derived as Derived
from position_sync_dagster.defs.assets.table_asset import derived_asset as derived_asset
from position_sync_dagster.defs.assets.table_asset import (
    replacement_metadata as replacement_metadata,
)
from position_sync_dagster.defs.checks.evaluation import judged as judged
from position_sync_dagster.defs.checks.evaluation import table_check as table_check
from position_sync_dagster.defs.composition import Extension as Extension
from position_sync_dagster.defs.resources import PositionSyncResource as PositionSyncResource
from position_sync_dagster.defs.tick import Work as Work
from position_sync_dagster.domain.execution import Asked as Asked
from position_sync_dagster.domain.execution import Execution as Execution
from position_sync_dagster.domain.holding import BrokerPosition as BrokerPosition
from position_sync_dagster.domain.holding import Completeness as Completeness
from position_sync_dagster.domain.instrument import Right as Right
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
from position_sync_dagster.domain.reconciliation import ReconciliationResult as ReconciliationResult
from position_sync_dagster.errors import AmbiguousRemovalError as AmbiguousRemovalError
from position_sync_dagster.errors import BrokenTableError as BrokenTableError
from position_sync_dagster.errors import BrokerUnavailableError as BrokerUnavailableError
from position_sync_dagster.errors import ClientIdInUseError as ClientIdInUseError
from position_sync_dagster.errors import ClockSetBackError as ClockSetBackError
from position_sync_dagster.errors import CommitContentionError as CommitContentionError
from position_sync_dagster.errors import ForeignTableError as ForeignTableError
from position_sync_dagster.errors import GatewayError as GatewayError
from position_sync_dagster.errors import GatewayLostError as GatewayLostError
from position_sync_dagster.errors import GatewayRefusedError as GatewayRefusedError
from position_sync_dagster.errors import GatewaysFileError as GatewaysFileError
from position_sync_dagster.errors import GatewayTimeoutError as GatewayTimeoutError
from position_sync_dagster.errors import InvalidLegError as InvalidLegError
from position_sync_dagster.errors import InvalidRequestError as InvalidRequestError
from position_sync_dagster.errors import LakeError as LakeError
from position_sync_dagster.errors import LakeNotWritableError as LakeNotWritableError
from position_sync_dagster.errors import LeaseLostError as LeaseLostError
from position_sync_dagster.errors import LoginOwnedError as LoginOwnedError
from position_sync_dagster.errors import MissingExtraError as MissingExtraError
from position_sync_dagster.errors import NewerRowError as NewerRowError
from position_sync_dagster.errors import NewerTableError as NewerTableError
from position_sync_dagster.errors import NotAGatewayError as NotAGatewayError
from position_sync_dagster.errors import PositionSyncError as PositionSyncError
from position_sync_dagster.errors import RequestStateError as RequestStateError
from position_sync_dagster.errors import SettingsError as SettingsError
from position_sync_dagster.errors import StalledError as StalledError
from position_sync_dagster.errors import StoreError as StoreError
from position_sync_dagster.errors import StrategiesFileError as StrategiesFileError
from position_sync_dagster.errors import TokenError as TokenError
from position_sync_dagster.errors import TooManyAccountsError as TooManyAccountsError
from position_sync_dagster.errors import TradingModeError as TradingModeError
from position_sync_dagster.errors import UnknownIdError as UnknownIdError
from position_sync_dagster.errors import UnknownLegError as UnknownLegError
from position_sync_dagster.errors import UnknownRequestError as UnknownRequestError
from position_sync_dagster.errors import UnreadableSourceError as UnreadableSourceError
from position_sync_dagster.errors import UserError as UserError
from position_sync_dagster.gateway.connection import GatewayConnection as GatewayConnection
from position_sync_dagster.gateway.connection import IBConnectionManager as IBConnectionManager
from position_sync_dagster.lake.derived import derive as derive
from position_sync_dagster.lake.lake import Lake as Lake
from position_sync_dagster.lake.position_queue import PositionQueue as PositionQueue
from position_sync_dagster.lake.position_updates import (
    DeltaLakePositionWriter as DeltaLakePositionWriter,
)
from position_sync_dagster.lake.position_updates import PositionUpdatesTable as PositionUpdatesTable
from position_sync_dagster.lake.schema import TableSpec as TableSpec
from position_sync_dagster.lake.schema import columns_of as columns_of
from position_sync_dagster.lake.strategy_registry import StrategyRegistry as StrategyRegistry
from position_sync_dagster.money.as_of import MomentError as MomentError
from position_sync_dagster.money.lake import MoneyLake as MoneyLake
from position_sync_dagster.money.past.flex_fields import (
    ForeignStatementError as ForeignStatementError,
)
from position_sync_dagster.money.past.flex_fields import StatementError as StatementError
from position_sync_dagster.money.past.flex_service import FlexServiceError as FlexServiceError
from position_sync_dagster.money.reports.known_names import UnknownNameError as UnknownNameError
from position_sync_dagster.money.reports.known_names import (
    UnknownStrategyError as UnknownStrategyError,
)
from position_sync_dagster.money.risk.model_greeks import ModelGreeks as ModelGreeks
from position_sync_dagster.settings import Settings as Settings
from position_sync_dagster.settings import load_settings as load_settings
from position_sync_dagster.sync.drain import QueueWorker as QueueWorker
from position_sync_dagster.sync.drain import WorkerStats as WorkerStats
from position_sync_dagster.sync.exchange_days import exchange_of as exchange_of
from position_sync_dagster.sync.reconciliation import PositionReconciler as PositionReconciler
from position_sync_dagster.sync.reconciliation import ReconciliationService as ReconciliationService
from position_sync_dagster.sync.stream.ownership import Ownership as Ownership
from position_sync_dagster.sync.stream.router import StreamTables as StreamTables
from position_sync_dagster.sync.stream.streamer import IBPositionStreamer as IBPositionStreamer
from position_sync_dagster.sync.stream.streamer import stream as stream
