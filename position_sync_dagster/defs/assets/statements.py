"""The assets `flex_statements`, `executions` and `statement_events`, which one step imports.

These are the broker's statements, as XML files in a folder, the trades in them, and what else they
name.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from position_sync_dagster.defs.assets import table_asset
from position_sync_dagster.defs.checks.check_results import failed, passed
from position_sync_dagster.defs.resources import PositionSyncResource
from position_sync_dagster.defs.runs import IMPORT_JOB, dagster_failures
from position_sync_dagster.domain.statement import Statement
from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.lake.schema.tables import EXECUTIONS, STATEMENT_EVENTS
from position_sync_dagster.sync import statements

FOLDER = "flex_statements"
FILES_CHECK = "files_are_readable"

# Maximum number of statements that a failing check names.
FAULTS_SHOWN = 20

# Maximum number of statements listed with an event; the folder has all.
SHOWN = 400


def folder() -> None:
    """Activity Flex statements of the broker, XML files of a folder: its own record of past days.

    Written by the job import_statements, which downloads the query of the settings, or by a
    person who puts a file into POSITION_SYNC_FLEX_FOLDER.

    Errors: a download that fails, and a file that cannot be read or is of a foreign account, are
    left out and named by the check files_are_readable; so is a row. The others are imported.

    How to read it: an event lists the statements and the days that they cover. Net liquidation
    and cash of each day go to account_values (source FLEX).
    """


def executions() -> None:
    """The trades in the broker's statements, with commission, realized profit and its codes.

    Written by the job import_statements, each night; executions of the day (source GATEWAY) by the
    stream, when a holding changes.

    How to read it: an execution is stored once, however many statements name it alike. If a later
    statement says something else, it has a further row: Lake.executions.read() returns the rows
    that count. A trade that was cancelled has a row with the opposite quantity (code Ca).
    """


def events() -> None:
    """What the broker's statements name besides positions and trades, and the days that they cover.

    Written by the job `import_statements`, each night.

    How to read it: one row per event: exercises, assignments and expiries (OPTION_EVENT), corporate
    actions, transfers, interest, fees and dividends (CASH), and the days whose trades a statement
    has (PERIOD). `attributes` has everything that the broker wrote. A corrected event has a further
    row.
    """


@dg.multi_asset(
    name="statements",
    specs=[
        table_asset.external(FOLDER, kinds={"xml"}, metadata=table_asset.written_by(IMPORT_JOB))(
            folder
        ),
        *(
            table_asset.external(
                spec.name,
                FOLDER,
                kinds={"deltalake", "python"},
                metadata=table_asset.table_metadata(spec, job=IMPORT_JOB),
            )(described)
            for spec, described in ((EXECUTIONS, executions), (STATEMENT_EVENTS, events))
        ),
    ],
    check_specs=[
        dg.AssetCheckSpec(
            FILES_CHECK,
            asset=FOLDER,
            description="Whether the download succeeded, and each file of the folder is a "
            "statement of an account of the lake.",
        )
    ],
    can_subset=True,
    config_schema={},  # without it, Launchpad would take any value
)
@dagster_failures
def imported(
    context: dg.AssetExecutionContext, position_sync: PositionSyncResource
) -> Iterator[dg.MaterializeResult[None]]:
    """Download the query of the settings, and import the folder, also if that fails."""
    lake, settings = position_sync.lake, position_sync.settings
    downloaded, done = statements.download_and_import(lake, settings, context.run.run_id)
    for error in done.unreadable:
        context.log.warning(f"A statement was left out: {error}")
    listed = table_asset.event_table([_listed(one) for one in done.found[:SHOWN]])
    of_asset: dict[str, dict[str, Any]] = {
        FOLDER: {
            "statements": len(done.found),
            **table_asset.known(downloaded=downloaded),
            "account_rows": done.account_values,
            "listed": listed,
        }
    }
    for spec, added in ((EXECUTIONS, done.executions), (STATEMENT_EVENTS, done.events)):
        of_asset[spec.name] = {"added": added, **table_asset.state_of(lake, spec)}
    checks = [judge_files(len(done.found), done.unreadable)]
    for name, metadata in of_asset.items():
        if dg.AssetKey(name) in context.selected_asset_keys:
            yield dg.MaterializeResult(
                asset_key=name,
                metadata=metadata,
                data_version=dg.DataVersion(table_asset.FOLLOWED),  # that of the events of ticks
                check_results=checks if name == FOLDER else (),
            )


def judge_files(found: int, unreadable: Sequence[PositionSyncError]) -> dg.AssetCheckResult:
    """Return the result of the check for the download and the files of the folder; pure."""
    if not unreadable:
        return passed(f"All {found} statements of the folder can be used.")
    return failed(
        f"{len(unreadable)} statements or rows of them are left out: "
        + " ".join(error.what for error in unreadable[:FAULTS_SHOWN]),
        what_to_do=unreadable[0].remedy,
        left_out=len(unreadable),
        errors=[str(error) for error in unreadable[:FAULTS_SHOWN]],
    )


def _listed(one: Statement) -> dict[str, table_asset.Cell]:
    days = {"first": one.first.isoformat(), "last": one.last.isoformat()}
    return {"file": one.file, "account": one.account, **days}
