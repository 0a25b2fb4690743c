"""Modules for steps and checks that are imported lazily, and not when the definitions are loaded.

Each run loads the definitions in a process of its own, a few times a minute. Where it is not
forked from a process that has imported them (`dagster_host`), to import Polars, Delta Lake and the
services takes half a second, and most runs need few of them. Each name here imports its module at
the first use. Use it only inside functions and in quoted annotations.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any


class LazyModule:
    """A module that is imported at the first use of one of its attributes."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("_"):  # Dagster probes each name of a module for its own attributes
            raise AttributeError(attribute)
        return getattr(import_module(self._name), attribute)


if TYPE_CHECKING:
    import polars as pl
    import sqlalchemy as sql

    from position_sync_dagster.lake import derived, inspection
    from position_sync_dagster.lake import lake as tables
    from position_sync_dagster.lake.registry import strategies_file
    from position_sync_dagster.lake.schema import codec
    from position_sync_dagster.lake.storage import threads
    from position_sync_dagster.sync import audit, explain_closes, roll_legs, statements
    from position_sync_dagster.sync.drain import drain
    from position_sync_dagster.sync.reports import (
        closes,
        confirmations,
        exposure,
        limit_readings,
        money,
        overview,
        reconciliation,
    )
    from position_sync_dagster.sync.stream import service as stream_service
else:
    pl = LazyModule("polars")
    sql = LazyModule("sqlalchemy")
    derived = LazyModule("position_sync_dagster.lake.derived")
    inspection = LazyModule("position_sync_dagster.lake.inspection")
    tables = LazyModule("position_sync_dagster.lake.lake")
    strategies_file = LazyModule("position_sync_dagster.lake.registry.strategies_file")
    threads = LazyModule("position_sync_dagster.lake.storage.threads")
    codec = LazyModule("position_sync_dagster.lake.schema.codec")
    audit = LazyModule("position_sync_dagster.sync.audit")
    explain_closes = LazyModule("position_sync_dagster.sync.explain_closes")
    roll_legs = LazyModule("position_sync_dagster.sync.roll_legs")
    statements = LazyModule("position_sync_dagster.sync.statements")
    drain = LazyModule("position_sync_dagster.sync.drain.drain")
    closes = LazyModule("position_sync_dagster.sync.reports.closes")
    confirmations = LazyModule("position_sync_dagster.sync.reports.confirmations")
    exposure = LazyModule("position_sync_dagster.sync.reports.exposure")
    limit_readings = LazyModule("position_sync_dagster.sync.reports.limit_readings")
    money = LazyModule("position_sync_dagster.sync.reports.money")
    overview = LazyModule("position_sync_dagster.sync.reports.overview")
    reconciliation = LazyModule("position_sync_dagster.sync.reports.reconciliation")
    stream_service = LazyModule("position_sync_dagster.sync.stream.service")
