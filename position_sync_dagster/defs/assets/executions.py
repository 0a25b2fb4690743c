"""The asset `executions`: the trades that the broker's statements name."""

import dagster as dg

from position_sync_dagster.defs.assets.table_asset import data_version, table_asset
from position_sync_dagster.defs.resources import PositionSyncResource
from position_sync_dagster.defs.run_history import IMPORT_JOB
from position_sync_dagster.lake.schema.tables import EXECUTIONS


@table_asset(
    EXECUTIONS,
    deps=["flex_statements"],
    job=IMPORT_JOB,
    description="""
The trades that the broker's statements name, with commission and realized profit.

- **Written by** the job `import_statements`, each night.
- **How to read it:** one row per execution; it is stored once, however many statements name it.
""",
)
def executions(
    context: dg.AssetExecutionContext, position_sync: PositionSyncResource
) -> dg.MaterializeResult[None]:
    """Store the executions of all statements that are not stored yet, in one commit.

    A file that cannot be read is left out: `flex_statements` names it.
    """
    from position_sync_dagster.sync.history.statements import StatementService

    service = StatementService(position_sync.lake, position_sync.settings)
    added = service.import_executions(run_id=context.run.run_id)
    table = position_sync.lake.executions.table
    version = table.version()
    return dg.MaterializeResult(
        metadata={
            "added": added,
            "dagster/row_count": table.count(),
            "dagster/uri": table.path,
            "delta_version": version,
        },
        data_version=data_version(version),
    )
