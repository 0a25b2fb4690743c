"""The asset of a table: everything that all assets share is stated here once."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from position_sync_dagster.defs.audit.recorded_runs import recorded
from position_sync_dagster.defs.dagster_failures import dagster_failures
from position_sync_dagster.lake.schema.table_spec import Kind, TableSpec

if TYPE_CHECKING:
    from position_sync_dagster.lake.derived import DerivedTable, Replaced

OWNERS = ["team:position-sync"]
KINDS = {"deltalake", "python"}
TAGS = {"domain": "positions"}

LOCATION = "position_sync_dagster"
"""The name of the code location, as in `workspace.yaml`: links to jobs need it."""

POSITIONS = "positions"
"""The one group of all assets. With several groups, Dagster's lineage page shows closed boxes until
a person opens each of them; with one it shows every asset at first sight."""

DATA_VERSION = "dagster/data_version"
"""The tag for the Delta version of an event that no asset function returned."""

QUARTER_HOURLY = dg.FreshnessPolicy.time_window(
    fail_window=timedelta(minutes=40), warn_window=timedelta(minutes=20)
)
"""For what is materialized at least once in a quarter of an hour."""

Lineage = Mapping[str, Sequence[tuple[str, str]]]
"""Column → the columns that it is made of, each as (asset, column)."""

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
    description: str,
    deps: Sequence[str] = (),
    metadata: "Mapping[str, dg.RawMetadataValue] | None" = None,
    lineage: Lineage | None = None,
    job: str | None = None,
    freshness: dg.FreshnessPolicy | None = None,
    partitions_def: dg.PartitionsDefinition[str] | None = None,
    backfill_policy: dg.BackfillPolicy | None = None,
    output_required: bool = True,
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Return `dg.asset` with the owners, kinds, tags and columns that every table shows.

    Each run of the asset is recorded in the table `runs`.

    Args:
        spec: The table; the asset has its name.
        metadata: Shown beside the columns.
        output_required: Whether each run materializes all that it was asked for.
        lineage: Of a derived table, where each column comes from.
        job: The job that writes the table, to link it.
        freshness: How old the newest materialization may be.

    Example:
        @table_asset(LATEST_POSITIONS, deps=["position_updates"], description="…")
        def latest_positions(position_sync: PositionSyncResource) -> dg.MaterializeResult: ...
    """

    def decorate(function: Callable[..., Any]) -> dg.AssetsDefinition:
        code = inspect.unwrap(function).__code__
        return dg.asset(
            name=spec.name,
            group_name=POSITIONS,
            owners=OWNERS,
            kinds=KINDS,
            tags=TAGS,
            metadata={
                **table_metadata(spec, lineage=lineage, job=job),
                **code_reference(code.co_filename, code.co_firstlineno),
                **(metadata or {}),
            },
            description=description,
            deps=deps,
            freshness_policy=freshness,
            partitions_def=partitions_def,
            backfill_policy=backfill_policy,
            output_required=output_required,
        )(dagster_failures(recorded(spec.name, spec.name)(function)))

    return decorate


def table_metadata(
    spec: TableSpec, *, lineage: Lineage | None = None, job: str | None = None
) -> "dict[str, dg.RawMetadataValue]":
    """Return the definition's metadata of a table: name, columns, their origin, and its job.

    The URI is added when the definitions are loaded, since only the settings know it.
    """
    metadata: dict[str, dg.RawMetadataValue] = {
        "dagster/table_name": spec.name,
        "dagster/column_schema": dg.MetadataValue.table_schema(
            dg.TableSchema(
                [
                    dg.TableColumn(name, _TYPES[kind], description=spec.descriptions.get(name))
                    for name, kind in spec.columns.items()
                ]
            )
        ),
    }
    if lineage is not None:
        metadata.update(column_lineage(lineage))
    if job is not None:
        metadata["written_by"] = dg.MetadataValue.job(job, location_name=LOCATION)
    return metadata


def column_lineage(lineage: Lineage) -> "dict[str, dg.RawMetadataValue]":
    """Return the origin of columns as metadata; the UI reads it from definitions and events."""
    deps = {
        column: [
            dg.TableColumnDep(asset_key=asset, column_name=source) for asset, source in sources
        ]
        for column, sources in lineage.items()
    }
    return {"dagster/column_lineage": dg.TableColumnLineage(deps)}


def code_reference(file: str, line: int) -> "dict[str, dg.RawMetadataValue]":
    """Return the place in the code that defines an asset as metadata."""
    reference = dg.LocalFileCodeReference(file_path=file, line_number=line)
    return {"dagster/code_references": dg.CodeReferencesMetadataValue(code_references=[reference])}


def data_version(version: int | None) -> dg.DataVersion | None:
    """Return a Delta version as the asset's data version."""
    return None if version is None else dg.DataVersion(str(version))


def replacement_metadata(
    table: "DerivedTable", result: "Replaced"
) -> "dict[str, dg.RawMetadataValue]":
    """Return the metadata of a derived table that was replaced."""
    return {
        "rows": result.rows,
        "dagster/uri": table.path,
        "delta_version": result.version,
        "changed": result.changed,
    }
