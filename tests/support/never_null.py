"""Columns that are null although their tables say never."""

from collections.abc import Iterable
from pathlib import Path

import polars as pl
from deltalake import DeltaTable

from position_sync_dagster.lake.schema import TableSpec


def null_where_never(lake: str | Path, specs: Iterable[TableSpec]) -> dict[str, list[str]]:
    """Return the columns of each table that are null in a row though its description says never."""
    wrong = {}
    for spec in specs:
        if DeltaTable.is_deltatable(f"{lake}/{spec.name}"):
            rows = pl.read_delta(f"{lake}/{spec.name}")
            never = [name for name, column in spec.described.items() if not column.nullable]
            wrong[spec.name] = [name for name in never if rows[name].has_nulls()]
    return {name: columns for name, columns in wrong.items() if columns}
