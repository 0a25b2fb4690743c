"""Everything that knows Delta Lake: tables, the registry, the queue, the ledger, maintenance."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from position_sync_dagster.lake.lake import Lake

__all__ = ["Lake"]


def __getattr__(name: str) -> object:
    # Late, so that a module of this package that needs no Delta Lake imports in no time.
    if name == "Lake":
        from position_sync_dagster.lake.lake import Lake

        return Lake
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
