"""The lake with all tables; where the core is tested alone (`core_alone`), those of the core."""

import sys

if "tests.support.core_alone" not in sys.modules:
    from position_sync_dagster.money.lake import MoneyLake as WholeLake
else:
    from position_sync_dagster.lake.lake import Lake as WholeLake  # type: ignore[assignment]

__all__ = ["WholeLake"]
