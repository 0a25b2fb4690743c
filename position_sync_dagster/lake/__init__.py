"""The tables of the lake: the queue, the ledger of values, the registry, sessions and the others.

Import `Lake` for all tables at once, or a table from its own module. Only this package imports
`deltalake`; of this project it imports `domain`, `settings` and `errors`.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from position_sync_dagster.lake.lake import Lake

__all__ = ["Lake"]


def __getattr__(name: str) -> object:
    # At first use: modules of this package that do not need Delta Lake are imported fast.
    if name == "Lake":
        from position_sync_dagster.lake.lake import Lake

        return Lake
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
