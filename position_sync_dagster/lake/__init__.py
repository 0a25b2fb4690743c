"""The tables of the lake: the queue, the ledger of values, the registry, sessions and the others.

Import `Lake` for all tables at once, or a table from its own module; only this package imports
`deltalake`, and it imports `domain`, `settings` and `errors` of this project.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from position_sync_dagster.lake.lake import Lake

__all__ = ["Lake"]


def __getattr__(name: str) -> object:
    # Late: a module of this package that needs no Delta Lake is imported fast.
    if name == "Lake":
        from position_sync_dagster.lake.lake import Lake

        return Lake
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
