"""The maintenance job: keep the tables fast, and some of Dagster's runs, events and results.

Dagster deletes a run with its events, but has no call for old events without a run, nor for old
results of checks. They are deleted here from the tables of its storage, which are the same in
SQLite and Postgres. An instance may serve other projects as well: theirs are kept.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

import dagster as dg
import sqlalchemy as sql

from position_sync_dagster.dagster_files import LAUNCHED_BY
from position_sync_dagster.defs.composition import Composition, composition_of
from position_sync_dagster.defs.dagster_internals import (
    REPOSITORY_LABEL_TAG,
    SqlEventLogStorage,
    SqliteEventLogStorage,
)
from position_sync_dagster.defs.resources import (
    ENDED,
    STREAM_JOB,
    PositionSyncResource,
    dagster_failures,
)
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.lake.lake import L, Lake

# The run id of an event without a run.
NO_RUN = ""


def delete_old_runs(
    instance: dg.DagsterInstance, jobs: Iterable[str], before: datetime, location: Mapping[str, str]
) -> int:
    """Delete the ended runs of these jobs that were created before a time; return their number.

    Args:
        location: The tag of a code location (`location_tag`): jobs of others may have these names.
    """
    deleted = 0
    for job in jobs:
        run_ids = instance.get_run_ids(
            dg.RunsFilter(
                job_name=job, statuses=[*ENDED], created_before=before, tags=dict(location)
            )
        )
        for run_id in run_ids:
            instance.delete_run(run_id)
        deleted += len(run_ids)
    return deleted


def location_tag(run: dg.DagsterRun) -> dict[str, str]:
    """Return the tag that all runs of a run's code location have; none of one without location."""
    origin = run.remote_job_origin
    return {REPOSITORY_LABEL_TAG: origin.repository_origin.get_label()} if origin else {}


# Results of checks have no asset in the table of events: the table of results names theirs.
_OWN_RESULTS = """
    SELECT evaluation_event_storage_id FROM asset_check_executions
    WHERE asset_key IN :own AND evaluation_event_storage_id IS NOT NULL
"""
_OWN_EVENTS = f"run_id = '' AND (asset_key IN :own OR id IN ({_OWN_RESULTS}))"
_OLD_EVENTS = f"""
    SELECT id FROM event_logs WHERE {_OWN_EVENTS} AND timestamp < :before AND id NOT IN (
        SELECT MAX(id) FROM event_logs
        WHERE run_id = '' AND asset_key IN :own GROUP BY dagster_event_type, asset_key)
"""  # noqa: S608 - of constants
DELETE_TAGS = f"DELETE FROM asset_event_tags WHERE event_id IN ({_OLD_EVENTS})"  # noqa: S608
DELETE_EVENTS = f"DELETE FROM event_logs WHERE id IN ({_OLD_EVENTS})"  # noqa: S608
DELETE_RESULTS = """
    DELETE FROM asset_check_executions
    WHERE asset_key IN :own AND evaluation_event_timestamp < :before AND id NOT IN (
        SELECT MAX(id) FROM asset_check_executions GROUP BY asset_key, check_name, partition)
"""

# SQLite has each event a second time, in a file for the log of a run, without a table of results:
# there the text of a result names its asset.
DELETE_COPIES = """
    DELETE FROM event_logs WHERE run_id = '' AND asset_key IN :own AND id NOT IN (
        SELECT MAX(id) FROM event_logs WHERE run_id = '' GROUP BY dagster_event_type, asset_key)
"""
DELETE_COPIES_OF_RESULTS = """
    DELETE FROM event_logs
    WHERE run_id = '' AND dagster_event_type = 'ASSET_CHECK_EVALUATION' AND event LIKE :text
"""


def delete_old_events(
    instance: dg.DagsterInstance, assets: Iterable[dg.AssetKey], before: datetime
) -> int:
    """Delete old events without a run, and old results of checks; return their number.

    The newest event of each type and asset stays, and so does the newest result of each check.
    Nothing is deleted from a storage that is no SQL database: its tables are not known here.

    Args:
        instance: The Dagster instance.
        assets: The keys of the assets; the events of others are kept.
        before: Events before this time are old.
    """
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        return 0
    keys = [key.to_string() for key in assets]
    of_own: sql.BindParameter[str] = sql.bindparam("own", keys, expanding=True)
    old = sql.bindparam("before", before.astimezone(UTC).replace(tzinfo=None), sql.DateTime)

    with storage.index_connection() as connection:
        connection.execute(sql.text(DELETE_TAGS).bindparams(of_own, old))
        events = connection.execute(sql.text(DELETE_EVENTS).bindparams(of_own, old))
        results = connection.execute(sql.text(DELETE_RESULTS).bindparams(of_own, old))

    # SQLite has each event a second time, by run: of those without a run nobody reads the copies.
    if isinstance(storage, SqliteEventLogStorage):
        with storage.run_connection(NO_RUN) as connection:
            connection.execute(sql.text(DELETE_COPIES).bindparams(of_own))
            for key in keys:
                connection.execute(sql.text(DELETE_COPIES_OF_RESULTS).bindparams(text=f"%{key}%"))

    return events.rowcount + results.rowcount


MAINTENANCE_JOB = "maintain_lake"


# Runs of `close_day` are kept: they record which days are filled.
PRUNED_JOBS = (STREAM_JOB, MAINTENANCE_JOB)


@dg.op(tags={"domain": "upkeep"}, config_schema={})
@dagster_failures()
def maintain_tables(context: dg.OpExecutionContext, position_sync: PositionSyncResource) -> None:
    """Compact files, write checkpoints and clean the log of every table.

    Work that was left for the next maintenance, such as a compaction that failed, is a warning:
    a table that is never compacted gets slower.
    """
    for result in position_sync.lake.maintain():
        context.log.info(
            f"{result.table}: {result.compacted} files merged, {result.deleted} deleted, "
            f"{result.files} left at version {result.version}"
        )
        if result.skipped:
            context.log.warning(f"{result.table}: {result.skipped}")


def maintenance_job(composition: Composition[L]) -> dg.JobDefinition:
    """Return the job, which also deletes the old history of a composition's jobs and assets."""
    pruned_jobs = (*PRUNED_JOBS, *composition.extension.short_jobs)  # not `close_day`

    @dg.op(tags={"domain": "upkeep"}, config_schema={})
    @dagster_failures()
    def forget_old_history(
        context: dg.OpExecutionContext, position_sync: PositionSyncResource
    ) -> None:
        """Delete runs, events and results of checks that are older than `history_days`.

        Runs of `close_day` stay, and so does the newest event and result of each asset and check.
        """
        kept = position_sync.settings.history_days
        before = utc_now() - timedelta(days=kept)
        location = location_tag(context.run)
        deleted = delete_old_runs(context.instance, pruned_jobs, before, location)
        events = delete_old_events(context.instance, composition.own_assets(), before)
        context.log.info(
            f"Deleted {deleted} runs, and {events} events and results of checks, that are older "
            f"than {kept} days."
        )

    @dg.job(name=MAINTENANCE_JOB, executor_def=dg.in_process_executor, tags={"domain": "upkeep"})
    def maintain_lake() -> None:
        """Merge small files of the tables, and delete old runs and events: both stay fast."""
        maintain_tables()
        forget_old_history()

    return maintain_lake


@dg.definitions
def maintenance(context: dg.ComponentLoadContext) -> dg.Definitions:
    """Define the job and its schedule."""
    composition = composition_of(context, Lake)
    # SQLite makes a file of 150 kB for each run: with one each hour, a third of Dagster's history
    # would be maintenance.
    every_four_hours = dg.ScheduleDefinition(
        name="maintain_every_four_hours",
        job_name=MAINTENANCE_JOB,
        cron_schedule="37 */4 * * *",
        tags={LAUNCHED_BY: "maintain_every_four_hours"},
        description="Merge small files of the tables each four hours, and delete Dagster's runs "
        "and events that are older than POSITION_SYNC_HISTORY_DAYS.",
        default_status=dg.DefaultScheduleStatus(composition.automation.status),
        owners=composition.automation.owners,
    )
    return dg.Definitions(jobs=[maintenance_job(composition)], schedules=[every_four_hours])
