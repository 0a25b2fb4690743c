"""The asset of a table: everything that all assets share is stated here once."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dagster as dg

from position_sync_dagster.defs.audit.recorded_runs import recorded
from position_sync_dagster.defs.dagster_failures import dagster_failures
from position_sync_dagster.lake.derived import DerivedTable, Replaced
from position_sync_dagster.lake.schema.columns import Kind
from position_sync_dagster.lake.schema.table_spec import TableSpec

OWNERS = ["team:position-sync"]
KINDS = {"deltalake", "python"}
TAGS = {"domain": "positions"}

POSITIONS = "positions"
"""The group of the assets that the queue and the stream write."""

DERIVED = "derived"
"""The group of the assets that are derived from `position_updates`."""

DATA_VERSION = "dagster/data_version"
"""The tag for the Delta version of an event that no asset function returned."""

_TYPES = {
    Kind.TEXT: "string",
    Kind.COUNT: "int",
    Kind.NUMBER: "float",
    Kind.MOMENT: "timestamp (UTC)",
    Kind.DAY: "date",
}


def table_asset(
    spec: TableSpec,
    *,
    group: str,
    description: str,
    deps: Sequence[str] = (),
    metadata: "Mapping[str, dg.RawMetadataValue] | None" = None,
    partitions_def: dg.PartitionsDefinition[str] | None = None,
    backfill_policy: dg.BackfillPolicy | None = None,
    output_required: bool = True,
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Return `dg.asset` with the owners, kinds, tags and columns that every table shows.

    Each run of the asset is recorded in the table `runs`.

    Args:
        spec: The table; the asset has its name.
        group: POSITIONS or DERIVED.
        metadata: Shown beside the columns.
        output_required: Whether each run materializes all that it was asked for.

    Example:
        @table_asset(LATEST_POSITIONS, group=DERIVED, deps=["position_updates"], description="…")
        def latest_positions(position_sync: PositionSyncResource) -> dg.MaterializeResult: ...
    """
    asset = dg.asset(
        name=spec.name,
        group_name=group,
        owners=OWNERS,
        kinds=KINDS,
        tags=TAGS,
        metadata={**_columns(spec), **(metadata or {})},
        description=description,
        deps=deps,
        partitions_def=partitions_def,
        backfill_policy=backfill_policy,
        output_required=output_required,
    )

    def decorate(function: Callable[..., Any]) -> dg.AssetsDefinition:
        return asset(dagster_failures(recorded(spec.name, spec.name)(function)))

    return decorate


def data_version(version: int | None) -> dg.DataVersion | None:
    """Return a Delta version as the asset's data version."""
    return None if version is None else dg.DataVersion(str(version))


def replacement_metadata(table: DerivedTable, result: Replaced) -> "dict[str, dg.RawMetadataValue]":
    """Return the metadata of a derived table that was replaced."""
    return {
        "rows": result.rows,
        "dagster/uri": table.path,
        "delta_version": result.version,
        "changed": result.changed,
    }


def _columns(spec: TableSpec) -> "dict[str, dg.RawMetadataValue]":
    columns = [dg.TableColumn(name, _TYPES[kind]) for name, kind in spec.columns.items()]
    return {"dagster/column_schema": dg.MetadataValue.table_schema(dg.TableSchema(columns))}
