"""What Dagster shows of every table: owner, kinds, columns; written once."""

import dagster as dg

from position_sync_dagster.lake.derived import DerivedTable, Replaced
from position_sync_dagster.lake.storage.columns import Kind
from position_sync_dagster.lake.storage.schemas import TableSpec

OWNERS = ["team:position-sync"]
GROUP = "positions"
DERIVED = "derived"
KINDS = {"deltalake", "python"}
TAGS = {"domain": "positions"}

DATA_VERSION = "dagster/data_version"
"""The tag by which an event that no asset function returned carries its Delta version."""

_TYPES = {
    Kind.TEXT: "string",
    Kind.COUNT: "int",
    Kind.NUMBER: "float",
    Kind.MOMENT: "timestamp (UTC)",
    Kind.DAY: "date",
}


def columns_of(spec: TableSpec) -> dict[str, dg.TableSchemaMetadataValue]:
    """Give a table's columns as an asset's metadata."""
    columns = [dg.TableColumn(name, _TYPES[kind]) for name, kind in spec.columns.items()]
    return {"dagster/column_schema": dg.MetadataValue.table_schema(dg.TableSchema(columns))}


def data_version(version: int | None) -> dg.DataVersion | None:
    """Give a Delta version as the asset's data version."""
    return None if version is None else dg.DataVersion(str(version))


def written(table: DerivedTable, result: Replaced) -> dict[str, float | str]:
    """Tell a replacement of a derived table in numbers."""
    return {
        "rows": result.rows,
        "dagster/uri": table.path,
        "delta_version": result.version,
        "changed": int(result.changed),
    }
