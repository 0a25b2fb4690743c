"""The assets `flex_statements`, `executions` and `statement_events`.

These are the broker's statements, as XML files in a folder, the trades in them, and what else they
name.
"""

import dagster as dg

from position_sync_dagster.defs.assets import table_asset
from position_sync_dagster.defs.checks.check_results import failed, passed
from position_sync_dagster.defs.resources import PositionSyncResource
from position_sync_dagster.defs.runs import IMPORT_JOB
from position_sync_dagster.lake.schema.tables import EXECUTIONS, STATEMENT_EVENTS
from position_sync_dagster.lake.storage import table as storage
from position_sync_dagster.sync import statements


@table_asset.table_asset(EXECUTIONS, deps=["flex_statements"], job=IMPORT_JOB)
def executions(
    context: dg.AssetExecutionContext, position_sync: PositionSyncResource
) -> dg.MaterializeResult[None]:
    """The trades in the broker's statements, with commission, realized profit and its codes.

    Written by the job import_statements, each night; executions of the day (source GATEWAY) by the
    stream, when a holding changes.

    How to read it: an execution is stored once, however many statements name it alike. If a later
    statement says something else, it has a further row: Lake.executions.read() returns the rows
    that count. A trade that was cancelled has a row with the opposite quantity (code Ca).
    """
    service = statements.StatementService(position_sync.lake, position_sync.settings)
    added = service.import_new(context.run.run_id).executions
    return _added(position_sync.lake.executions.table, added)


@table_asset.table_asset(STATEMENT_EVENTS, deps=["flex_statements"], job=IMPORT_JOB)
def statement_events(
    context: dg.AssetExecutionContext, position_sync: PositionSyncResource
) -> dg.MaterializeResult[None]:
    """What the broker's statements name besides positions and trades, and the days that they cover.

    Written by the job `import_statements`, each night.

    How to read it: one row per event: exercises, assignments and expiries (OPTION_EVENT), corporate
    actions, transfers, interest, fees and dividends (CASH), and the days whose trades a statement
    has (PERIOD). `attributes` has everything that the broker wrote. A corrected event has a further
    row.
    """
    service = statements.StatementService(position_sync.lake, position_sync.settings)
    added = service.import_new(context.run.run_id).events
    return _added(position_sync.lake.statement_events.table, added)


def _added(table: storage.Table, added: int) -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(
        metadata={
            "added": added,
            "dagster/row_count": table.count(),
            "dagster/uri": table.path,
            "delta_version": table.version(),
        },
        data_version=dg.DataVersion(table_asset.FOLLOWED),
    )


FILES_CHECK = "files_are_readable"

# Maximum number of statements that a failing check names.
FAULTS_SHOWN = 20

# Maximum number of statements listed with an event; the folder has all.
SHOWN = 400


@table_asset.described_asset(
    "flex_statements",
    kinds={"xml"},
    metadata=table_asset.written_by(IMPORT_JOB),
    check_specs=[
        dg.AssetCheckSpec(
            FILES_CHECK,
            asset="flex_statements",
            description="Whether the download succeeded, and each file of the folder is a "
            "statement of an account of the lake.",
        )
    ],
)
def flex_statements(
    context: dg.AssetExecutionContext, position_sync: PositionSyncResource
) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Activity Flex statements of the broker, XML files of a folder: its own record of past days.

    Written by the job import_statements, which downloads the query of the settings, or by a
    person who puts a file into POSITION_SYNC_FLEX_FOLDER.

    Errors: a download that fails, and a file that cannot be read or is of a foreign account, are
    left out and named by the check files_are_readable; so is a row. The others are imported.

    How to read it: an event lists the statements and the days that they cover. Net liquidation
    and cash of each day go to account_values (source FLEX).
    """
    service = statements.StatementService(position_sync.lake, position_sync.settings)
    downloaded, done = service.download_and_import(context.run.run_id)
    read, found = done.read, done.read.found
    for error in read.unreadable:
        context.log.warning(f"A statement was left out: {error}")
    days = {day for one in found for day in one.days}
    return dg.MaterializeResult(
        metadata={
            "statements": len(found),
            "days": len(days),
            "first_day": min(days).isoformat() if days else "",
            "last_day": max(days).isoformat() if days else "",
            **table_asset.known(downloaded=downloaded),
            "executions": done.executions,
            "events": done.events,
            "account_rows": done.account_values,
            "dagster/uri": str(position_sync.settings.flex_folder.absolute()),
            "listed": table_asset.event_table([_listed(one) for one in found[:SHOWN]]),
        },
        data_version=dg.DataVersion(table_asset.FOLLOWED),  # that of the events of ticks
        check_results=[judge_files(read)],
    )


def judge_files(read: statements.Statements) -> dg.AssetCheckResult:
    """Return the result of the check for the download and the files of the folder; pure."""
    if not read.unreadable:
        return passed(f"All {len(read.found)} statements of the folder can be used.")
    return failed(
        f"{len(read.unreadable)} statements or rows of them are left out: "
        + " ".join(error.what for error in read.unreadable[:FAULTS_SHOWN]),
        what_to_do=read.unreadable[0].remedy,
        left_out=len(read.unreadable),
        errors=[str(error) for error in read.unreadable[:FAULTS_SHOWN]],
    )


def _listed(one: statements.StatedFile) -> dict[str, table_asset.Cell]:
    return {
        "file": one.file,
        "account": one.account,
        "first": one.first.isoformat(),
        "last": one.last.isoformat(),
        "positions": one.positions,
        "executions": one.executions,
    }
