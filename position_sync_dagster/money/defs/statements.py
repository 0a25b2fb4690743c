"""The broker's statements, what they name, and why holdings closed.

One step imports `flex_statements`, XML files in a folder, `executions` and `statement_events`, the
trades in them and what else they name, and `movements`, what they say together. `closures` has a
check of its own.
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import dagster as dg

from position_sync_dagster.dagster_files import LAUNCHED_BY
from position_sync_dagster.defs.assets import table_asset
from position_sync_dagster.defs.assets.table_asset import Derived, derived_asset
from position_sync_dagster.defs.checks.evaluation import failed, passed, table_check
from position_sync_dagster.defs.closing import job_of, scheduled
from position_sync_dagster.defs.composition import Composition
from position_sync_dagster.defs.resources import (
    WRITTEN_BY,
    PositionSyncResource,
    dagster_failures,
)
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.lake.schema import CONTRACTS
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past import explain_closes, movement_book, statement_folder
from position_sync_dagster.money.past.closes import Closure
from position_sync_dagster.money.past.flex_service import LaterError
from position_sync_dagster.money.past.statement_days import FOLDER
from position_sync_dagster.money.strategies import leg_followers
from position_sync_dagster.money.tables import CLOSURES, EXECUTIONS, MOVEMENTS, STATEMENT_EVENTS
from position_sync_dagster.settings import Settings

IMPORT_JOB = "import_statements"
IMPORT = table_asset.Writer(IMPORT_JOB, "the job import_statements, by import_statements_nightly")

# Maximum number of statements that a failing check names.
FAULTS_SHOWN = 20


def folder() -> None:
    """Activity Flex statements of the broker, XML files of a folder: its own record of past days.

    Written by the job import_statements, which downloads the queries of the settings and of the
    gateways file, or by a person who puts a file into POSITION_SYNC_FLEX_FOLDER.

    How to read it: an event has the number of statements in the folder.

    Errors: a download that fails, and a file that cannot be read or is of a foreign account, are
    left out and named by the check files_are_readable; so is a row. The others are imported.
    """


def executions() -> None:
    """The trades in the broker's statements, with commission, realized profit and its codes.

    Written by the job import_statements, each night; executions of the day (source GATEWAY) by the
    stream, when a holding changes.

    How to read it: an execution is stored once, however many statements name it alike. If a later
    statement says something else, it has a further row: movements has each trade once, in its
    newest wording. A trade that was cancelled has a row with the opposite quantity (code Ca).
    """


def events() -> None:
    """What the broker's statements name besides positions and trades, and the days that they cover.

    Written by the job `import_statements`, each night.

    How to read it: one row per event: exercises, assignments and expiries (OPTION_EVENT), corporate
    actions, transfers, interest, fees and dividends (CASH), and the days whose trades a statement
    has (PERIOD). `attributes` has everything that the broker wrote. A corrected event has a further
    row.
    """


def movements() -> None:
    """What moved holdings and cash, each movement once, whichever source says it.

    Written by the job import_statements, with the trades of the day by the stream, each hour with
    closures, and before a day is explained by close_day (profit_explained).

    How to read it: a statement counts before the gateway, a newer statement before an older one.
    Profits, books and campaigns are made of these rows, and of what follows from closures alone.
    The lineage shows no edge of one source: daily_positions says on which side a transfer was, and
    the multiplier of a contract without details.
    """


# When a failed import begins again: the service refuses for ten minutes who asked too often.
RETRIES = dg.RetryPolicy(max_retries=3, delay=600)

# Not daily_positions, which changes after each close: all that follows would be shown as stale
# until the next import.
_SOURCES_OF_MOVEMENTS = (EXECUTIONS.name, STATEMENT_EVENTS.name, CONTRACTS.name)

_from_statements = partial(table_asset.external_table, writer=IMPORT, kinds=("deltalake", "python"))


@dg.multi_asset(
    name="statements",
    specs=[
        table_asset.external(
            FOLDER,
            kinds={"xml"},
            metadata={"written_by": IMPORT.words},
            tags={WRITTEN_BY: IMPORT_JOB},
        )(folder),
        _from_statements(EXECUTIONS, FOLDER)(executions),
        _from_statements(STATEMENT_EVENTS, FOLDER)(events),
        _from_statements(MOVEMENTS, *_SOURCES_OF_MOVEMENTS)(movements),
    ],
    check_specs=[
        dg.AssetCheckSpec(
            "files_are_readable",
            asset=FOLDER,
            description="Whether the download succeeded, and each file of the folder is a "
            "statement of an account of the lake.",
        )
    ],
    can_subset=True,
    config_schema={},  # without it, Launchpad would take any value
    retry_policy=RETRIES,
)
def imported(
    context: dg.AssetExecutionContext, position_sync: PositionSyncResource
) -> Iterator[dg.MaterializeResult[None]]:
    """Download each query of settings and logins, and import the folder, also if one fails.

    What a later attempt may mend is tried again, three times: the event of a retry says what
    failed. After that, a download that failed fails the check alone, which names each.
    """
    with dagster_failures():
        lake = position_sync.lake_of(MoneyLake)
        failures, done = statement_folder.download_and_import(
            lake, position_sync.settings, context.run.run_id
        )
        if context.retry_number < RETRIES.max_retries:
            for failure in failures:  # a file that says so stays as it is
                if isinstance(failure, LaterError):
                    raise failure

    for error in done.unreadable:
        context.log.warning(f"A statement was left out: {error}")

    of_folder: dict[str, float | str] = {"statements": len(done.found)}
    of_folder |= table_asset.known(downloaded=done.downloaded)
    metadata_of: dict[str, dict[str, Any]] = {FOLDER: of_folder}
    added = {lake.executions.table: done.executions, lake.statement_events.table: done.events}
    for table, rows in added.items():
        metadata_of[table.spec.name] = {"added": rows, **table_asset.state_of(table)}
    metadata_of[MOVEMENTS.name] = table_asset.state_of(lake.movements.table)

    files_check = judge_files(len(done.found), done.unreadable)
    followed = dg.DataVersion(table_asset.UNCHANGING)  # that of the events of ticks
    selected = {key.path[-1]: key for key in context.selected_asset_keys}
    for name, metadata in metadata_of.items():
        if name in selected:
            yield dg.MaterializeResult(
                asset_key=selected[name],
                metadata=metadata,
                data_version=followed,
                check_results=[files_check] if name == FOLDER else (),
            )


def importing(composition: Composition[MoneyLake], timezone: str) -> dg.Definitions:
    """Return the job that imports statements, and its schedule.

    Dagster loads either the assets of a module or its function with `dg.definitions`: that of
    `explained_days` calls this one.
    """

    @scheduled(composition.automation, IMPORT_JOB, "0 6 * * 2-6", timezone)
    def import_statements_nightly(
        _context: dg.ScheduleEvaluationContext,
    ) -> dg.RunRequest | dg.SkipReason:
        """Download and import the broker's statements at night, if there are any."""
        settings = composition.read_settings()
        queries, mistakes = statement_folder.flex_queries(settings)
        if not queries and not mistakes and not settings.flex_folder.is_dir():
            return dg.SkipReason(
                "No statements: POSITION_SYNC_FLEX_FOLDER is no folder, and no "
                "POSITION_SYNC_FLEX_TOKEN with a query is set, nor one of a login."
            )
        return dg.RunRequest(tags={LAUNCHED_BY: "import_statements_nightly"})

    job = job_of(
        IMPORT_JOB,
        "Download each Flex query of the settings and of the gateways file, and store trades and "
        "cash of all statements. A download that fails is tried again, three times.",
    )
    return dg.Definitions(jobs=[job], schedules=[import_statements_nightly])


def judge_files(found: int, unreadable: Sequence[PositionSyncError]) -> dg.AssetCheckResult:
    """Return the result of the check for the download and the files of the folder; pure.

    Args:
        found: The number of statements that can be used.
        unreadable: What cannot.
    """
    if not unreadable:
        return passed(f"All {found} statements of the folder can be used.")

    first = unreadable[:FAULTS_SHOWN]
    causes = " ".join(error.what for error in first)
    return failed(
        f"{len(unreadable)} statements or rows of them are left out: {causes}",
        what_to_do=first[0].remedy,
        left_out=len(unreadable),
        errors=[*map(str, first)],
    )


# How far back movements are derived each hour.
RECENT = timedelta(days=7)

# Maximum number of closes that the failing check names.
MOST_NAMED = 10


@derived_asset(
    CLOSURES,
    deps=["position_changes", "movements", "statement_events", "contracts", "position_updates"],
)
def closures(lake: MoneyLake, settings: Settings, run_id: str | None) -> Derived:
    """Why each holding closed: its cause, with the evidence.

    The causes are traded, expired worthless, assigned, exercised, settled in cash, split,
    transferred, and unexplained.

    Written by the stream, seconds after a close, and by the sensor drain_queue after each import of
    statements.

    How to read it: a cause is PROVISIONAL until a statement of the broker says it (STATED). Both
    rows are kept: of the rows of a change_id those with the greatest judged_at count, and their
    quantities add up to what was closed. What no fact explains is UNEXPLAINED, and opens a break.
    """
    book = movement_book.MovementBook(lake, run_id=run_id)
    # Of what a process that was killed had stored; the job close_day derives all of them anew.
    moved = book.update(since=(utc_now() - RECENT).date())
    causes = explain_closes.CloseExplainer(lake, run_id=run_id).explain()
    rolls = leg_followers.RollFollower(lake, settings).follow()

    metadata: dict[str, Any] = {"added": causes.rows}
    metadata |= table_asset.state_of(lake.closures.table)
    metadata["unexplained"] = len(causes.unexplained)
    metadata["movements"] = moved.rows
    if rolls.due:
        metadata["rolls_followed"] = "; ".join(map(str, rolls.due))
    if rolls.refused:
        metadata["rolls_refused"] = "; ".join(rolls.refused)

    return Derived(
        metadata=metadata,
        checks={closes_are_explained.check_key: judge_causes(causes.unexplained)},
    )


@table_check(CLOSURES.name)
def closes_are_explained(lake: MoneyLake, settings: Settings) -> dg.AssetCheckResult:
    """Whether the cause of each close is known."""
    derived_table = closures.derive(lake, settings, None)
    return derived_table.checks[closes_are_explained.check_key]


def judge_causes(unexplained: Sequence[Closure]) -> dg.AssetCheckResult:
    """Return the result of the check for the closes without a cause; pure."""
    if not unexplained:
        return passed("The cause of each close is known.")

    count = len(unexplained)
    newest_first = unexplained[: -MOST_NAMED - 1 : -1]
    named = "; ".join(map(_described_close, newest_first))
    return failed(
        f"{count} closes have no known cause. {named}",
        what_to_do="Look these up in TWS (Trades, Corporate Actions) or the broker's message "
        "centre. The statement of the next night explains most; accept the others with "
        "`position-sync breaks accept`.",
        unexplained=count,
    )


def _described_close(closure: Closure) -> str:
    text = f"{closure.quantity:+g} {closure.name}"
    text += f" of {closure.account} at {closure.closed_at:%Y-%m-%d %H:%M}"
    return f"{text} UTC: {closure.detail}"
