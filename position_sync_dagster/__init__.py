"""Every option leg of an Interactive Brokers account, valued on a fixed budget of lines.

To change …, open … – the `__init__.py` of a folder has a line for each of its modules:

- what an operator may set, as an interval, the lease of a login or the type of market data:
  `settings.py`; every other number is a constant in capital letters of the module that applies it
- what is pure: which price, route, line, back-off; the columns of most tables: `domain/`
- what a message or a code of IB means, and what is asked of IB: `gateway/`
- a table: how it is read, written, merged and kept: `lake/`
- the stream, the drain, ages of values, reconciliation, trading days: `sync/`
- what Dagster runs and shows, and when: `defs/`; groups, tags and keys of assets: `component.py`;
  the code location of this project, with its owners and tags: `definitions.py`
- the gateways file, its fields and what is refused in it: `settings.py` (`load_gateways`); how any
  YAML file of a person is read, and the texts of its mistakes: `yaml_file.py`
- errors, each with its remedy: `errors.py`; what is logged once: `outage_log.py`; where Dagster's
  home and our documents are, and the files that ticks leave for `doctor`: `dagster_files.py`
- what follows from the tables: `money/`; what people see: `web/`, `cli/`, `terminal/`;
  which programs run: `processes/`, `demo.py`; Dagster's webserver with our pages: `webserver.py`

The public names below are imported when they are first used, so that importing the package is
cheap; `__init__.pyi` lists them for type checkers. It works without Dagster: see docs/library.md.
"""

from importlib import import_module

_HOMES = {
    "component": ("PositionSyncComponent",),
    "defs.assets.past_days": ("exchange_partitions",),
    "defs.assets.table_asset": ("Derived", "derived_asset", "replacement_metadata"),
    "defs.checks.evaluation": ("judged", "table_check"),
    "defs.composition": ("Extension",),
    "defs.resources": ("PositionSyncResource",),
    "defs.tick": ("Work",),
    "domain.execution": ("Asked", "Execution"),
    "domain.holding": ("BrokerPosition", "Completeness"),
    "domain.instrument": ("Right",),
    "domain.leg": ("ActiveContract", "LegState"),
    "domain.position_update": ("PositionUpdate", "PositionUpdateHandler"),
    "domain.queue_request": (
        "Outcome",
        "ProcessingAttempt",
        "QueuedPosition",
        "QueueRequest",
        "QueueStatus",
        "Reason",
        "RetryPolicy",
    ),
    "domain.reconciliation": ("Discrepancy", "DiscrepancyType", "ReconciliationResult"),
    "errors": (
        "AmbiguousRemovalError",
        "BrokenTableError",
        "BrokerUnavailableError",
        "ClientIdInUseError",
        "ClockSetBackError",
        "CommitContentionError",
        "ForeignTableError",
        "GatewayError",
        "GatewayLostError",
        "GatewayRefusedError",
        "GatewayTimeoutError",
        "GatewaysFileError",
        "InvalidLegError",
        "InvalidRequestError",
        "LakeError",
        "LakeNotWritableError",
        "LeaseLostError",
        "LoginOwnedError",
        "MissingExtraError",
        "NewerRowError",
        "NewerTableError",
        "NotAGatewayError",
        "PositionSyncError",
        "RequestStateError",
        "SettingsError",
        "StalledError",
        "StoreError",
        "StrategiesFileError",
        "TokenError",
        "TooManyAccountsError",
        "TradingModeError",
        "UnknownIdError",
        "UnknownLegError",
        "UnknownRequestError",
        "UnreadableSourceError",
        "UserError",
    ),
    "gateway.connection": ("GatewayConnection", "IBConnectionManager"),
    "lake.derived": ("derive",),
    "lake.lake": ("Lake",),
    "lake.position_queue": ("PositionQueue",),
    "lake.position_updates": ("DeltaLakePositionWriter", "PositionUpdatesTable"),
    "lake.schema": ("TableSpec", "columns_of"),
    "lake.strategy_registry": ("StrategyRegistry",),
    "money.as_of": ("MomentError",),
    "money.lake": ("MoneyLake",),
    "money.past.flex_fields": ("ForeignStatementError", "StatementError"),
    "money.past.flex_service": ("FlexServiceError",),
    "money.reports.known_names": ("UnknownNameError", "UnknownStrategyError"),
    "money.risk.model_greeks": ("ModelGreeks",),
    "settings": ("Settings", "load_settings"),
    "sync.drain": ("QueueWorker", "WorkerStats"),
    "sync.exchange_days": ("exchange_of",),
    "sync.reconciliation": ("PositionReconciler", "ReconciliationService"),
    "sync.stream.ownership": ("Ownership",),
    "sync.stream.router": ("StreamTables",),
    "sync.stream.streamer": ("IBPositionStreamer", "stream"),
}

_EXPORTS = {name: home for home, names in _HOMES.items() for name in names}

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
