"""Modules that steps and checks use, and that loading the definitions must not import.

Each run loads the definitions in a process of its own, a few times a minute. Polars, Delta Lake and
the services take half a second of that, and most runs need few of them. Each name here stands for
its module, which is imported when it is used for the first time. It may be used inside of functions
and in quoted annotations.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = [
    "closing",
    "codec",
    "confirmations",
    "day_report",
    "derived",
    "inspection",
    "overview",
    "partitions",
    "pl",
    "reconciliation",
    "refresh",
    "sql",
    "statements",
    "strategies_file",
    "stream_service",
    "tables",
]


class LazyModule:
    """A module that is imported when an attribute of it is used for the first time."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("_"):  # Dagster looks for its own marks on each name of a module
            raise AttributeError(attribute)
        return getattr(import_module(self._name), attribute)


if TYPE_CHECKING:
    import polars as pl
    import sqlalchemy as sql

    from position_sync_dagster.lake import derived, inspection
    from position_sync_dagster.lake import lake as tables
    from position_sync_dagster.lake.registry import strategies_file
    from position_sync_dagster.lake.schema import codec, partitions
    from position_sync_dagster.sync import closing, statements
    from position_sync_dagster.sync.drain import refresh
    from position_sync_dagster.sync.reports import confirmations, overview, reconciliation
    from position_sync_dagster.sync.reports import day as day_report
    from position_sync_dagster.sync.stream import service as stream_service
else:
    pl = LazyModule("polars")
    sql = LazyModule("sqlalchemy")
    derived = LazyModule("position_sync_dagster.lake.derived")
    inspection = LazyModule("position_sync_dagster.lake.inspection")
    tables = LazyModule("position_sync_dagster.lake.lake")
    strategies_file = LazyModule("position_sync_dagster.lake.registry.strategies_file")
    codec = LazyModule("position_sync_dagster.lake.schema.codec")
    partitions = LazyModule("position_sync_dagster.lake.schema.partitions")
    closing = LazyModule("position_sync_dagster.sync.closing")
    statements = LazyModule("position_sync_dagster.sync.statements")
    refresh = LazyModule("position_sync_dagster.sync.drain.refresh")
    confirmations = LazyModule("position_sync_dagster.sync.reports.confirmations")
    overview = LazyModule("position_sync_dagster.sync.reports.overview")
    reconciliation = LazyModule("position_sync_dagster.sync.reports.reconciliation")
    day_report = LazyModule("position_sync_dagster.sync.reports.day")
    stream_service = LazyModule("position_sync_dagster.sync.stream.service")
