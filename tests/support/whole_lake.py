"""The lake with all tables: without money, where that cannot be imported, those of the core."""

try:
    from position_sync_dagster.money.lake import MoneyLake as WholeLake
except ModuleNotFoundError:
    from position_sync_dagster.lake.lake import Lake as WholeLake  # type: ignore[assignment]

__all__ = ["WholeLake"]
