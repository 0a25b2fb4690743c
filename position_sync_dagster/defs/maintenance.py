"""The maintenance job: maintain the lake's tables, and keep Dagster's storage small.

Dagster can delete a run with its events, but not results of checks, events without a run, or tags
of runs that were deleted from SQLite. This module deletes these from the tables of its storages,
which are the same in SQLite and Postgres. Otherwise they grow by tens of megabytes a day. SQLite
reuses freed pages: its files stop growing, and need no VACUUM. An instance may serve other projects
as well: their runs, events and ticks are kept.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg

from position_sync_dagster.dagster_host import dagster_internals
from position_sync_dagster.defs import runs
from position_sync_dagster.defs.assets.table_asset import GATEWAY
from position_sync_dagster.defs.libraries import sql
from position_sync_dagster.defs.resources import PositionSyncResource
from position_sync_dagster.lake.schema import tables as specs

CHUNK = 200
"""Rows per transaction: SQLite has one writer at a time, and the others wait for it."""

ENDED = [
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.CANCELED,
]

NEWEST = 10
"""Minimum number of ended runs kept per job: they have the newest observations of the tables."""

MAINTENANCE_JOB = "maintain_lake"

PRUNED_JOBS = (runs.DRAIN_JOB, runs.STREAM_JOB, MAINTENANCE_JOB, runs.DERIVE_JOB)
"""Jobs with many runs. Runs of `close_day` are kept: they record which days are filled."""

OWN_ASSETS = (
    *(
        spec.name
        for spec in (*specs.TABLES, *specs.DERIVED)
        if spec is not specs.RUNS  # a table without an asset
    ),
    GATEWAY,
    "flex_statements",
)
"""The assets whose old events are deleted."""

OWN_SENSORS = ("drain_queue", "refresh_derived", "supervise_stream", "tell_people")
"""The sensors whose old ticks are deleted."""

LONGEST = timedelta(minutes=45)
"""Time limit of the deletion of runs; the run of the next hour continues it. Two runs at once would
delete the same runs."""

KEPT_TICKS = {
    "SKIPPED": timedelta(hours=6),
    "STARTED": timedelta(days=1),
    "SUCCESS": timedelta(days=3),
    "FAILURE": timedelta(days=14),
}
"""How long ticks of sensors are kept. A tick without work leaves 1.7 KB, every 5 s. Dagster's own
retention searches for old ticks after each tick: a tenth of the processor time of an idle
daemon."""

WHAT_TO_DO = "Stop all writers of the lake, run `position-sync doctor --repair`, and report it."

_DELETED_THROUGH = "position_sync/deleted_through"
"""Key in Dagster's storage with the end time of the latest deleted run."""

Connect = Callable[[], AbstractContextManager["sql.Connection"]]


def forget_old_events(instance: dg.DagsterInstance, *, before: datetime, keep: int) -> int:
    """Delete old results of checks, and old events without a run; return their number.

    Only those of `OWN_ASSETS` are deleted. The newest result of each check and status stays, and so
    does the newest event of each type and asset. The event of a check's result names no asset: it
    is a copy of the result that nothing shows. It is deleted whatever the asset of the check is.

    Args:
        before: Events before this time are old.
        keep: Events that are followed by this many of their kind are old as well.
    """
    internals = dagster_internals.EVENT_TABLES.load()
    if internals is None:
        return 0
    found = 0
    storage, run_storage = instance.event_log_storage, instance.run_storage
    own = [dg.AssetKey(name).to_string() for name in OWN_ASSETS]
    if isinstance(storage, internals.SqlEventLogStorage):
        index = storage.index_connection
        checks, logged = internals.AssetCheckExecutionsTable, internals.SqlEventLogStorageTable
        c = checks.c
        kinds = [c.asset_key, c.check_name, c.partition, c.execution_status]
        old = _old_ids(
            index, c.evaluation_event_timestamp, kinds, before, keep, [c.asset_key.in_(own)]
        )
        found += _delete(index, c.id, old)
        c, tagged = logged.c, internals.AssetEventTagsTable.c.event_id
        no_run = internals.RUNLESS_RUN_ID
        # SQLite stores them twice, in the index and in a file of their own.
        for connect in (index, lambda: storage.run_connection(no_run)):
            kinds = [c.dagster_event_type, c.asset_key]
            where = [c.run_id == no_run, sql.or_(c.asset_key.in_(own), c.asset_key.is_(None))]
            old = _old_ids(connect, c.timestamp, kinds, before, keep, where)
            _delete(connect, tagged, old)
            found += _delete(connect, c.id, old)
    if isinstance(run_storage, internals.SqlRunStorage):
        # Postgres deletes them with the run.
        c, known = internals.RunTagsTable.c, sql.select(internals.RunsTable.c.run_id)
        with run_storage.connect() as connection:
            query = sql.select(c.id).where(c.run_id.not_in(known))
            left = connection.execute(query).scalars().all()
        _delete(run_storage.connect, c.id, left)
    return found


def _old_ids(
    connect: Connect,
    at: "sql.Column[datetime]",
    kinds: "Sequence[sql.Column[str]]",
    before: datetime,
    keep: int,
    where: "Iterable[sql.ColumnElement[bool]]" = (),
) -> list[int]:
    """Return the ids of old rows, without the newest of each kind."""
    ids = at.table.c.id
    newer = sql.func.row_number().over(partition_by=kinds, order_by=ids.desc()) - 1
    rows = sql.select(ids, at.label("at"), newer.label("newer")).where(*where).subquery()
    early = rows.c.at < before.astimezone(UTC).replace(tzinfo=None)
    old = sql.select(rows.c.id).where(rows.c.newer > 0, sql.or_(early, rows.c.newer >= keep))
    with connect() as connection:
        return list(connection.execute(old).scalars())


def _delete(connect: Connect, column: "sql.Column[int]", values: Sequence[int]) -> int:
    """Delete the rows with these values, in chunks; return the number of values."""
    for first in range(0, len(values), CHUNK):
        some = values[first : first + CHUNK]
        with connect() as connection:
            connection.execute(column.table.delete().where(column.in_(some)))
    return len(values)


def forget_old_ticks(instance: dg.DagsterInstance, *, now: datetime) -> None:
    """Delete the ticks of `OWN_SENSORS` that are older than `KEPT_TICKS` allows."""
    internals = dagster_internals.TICKS.load()
    if internals is None or instance.schedule_storage is None:
        return
    for state in instance.all_instigator_state():
        if state.instigator_type.value != "SENSOR" or state.instigator_name not in OWN_SENSORS:
            continue
        for status, kept in KEPT_TICKS.items():
            instance.purge_ticks(
                state.instigator_origin_id,
                state.selector_id,
                (now - kept).timestamp(),
                [internals.TickStatus[status]],
            )


def old_runs(
    instance: dg.DagsterInstance, job_names: Iterable[str], *, before: datetime, keep: int
) -> list[str]:
    """Return the ids of ended runs of some jobs, the oldest of each job first.

    The run with the newest materialization of an asset is not among them.

    Args:
        before: Runs that were created earlier are old.
        keep: Runs that are followed by this many others of their job are old as well.
    """
    found: list[str] = []
    for name in job_names:
        ids = instance.get_run_ids(dg.RunsFilter(job_name=name, statuses=ENDED))
        early = instance.get_run_ids(
            dg.RunsFilter(job_name=name, statuses=ENDED, created_before=before)
        )
        old = {*ids[keep:], *early} - {*ids[:NEWEST]}
        found += [run_id for run_id in reversed(ids) if run_id in old]
    held = {
        record.asset_entry.last_materialization_record.run_id
        for record in instance.get_asset_records()
        if record.asset_entry.last_materialization_record is not None
    }
    return [run_id for run_id in found if run_id not in held]


def lost_runs(instance: dg.DagsterInstance) -> list[str]:
    """Return the ids of deleted runs whose SQLite files still exist.

    Dagster leaves the files when a user deletes a run, or when a deletion is killed.
    """
    internals = dagster_internals.EVENT_TABLES.load()
    storage = instance.event_log_storage
    if internals is None or not isinstance(storage, internals.SqliteEventLogStorage):
        return []
    # List the files first: a new run is among the runs before it has a file.
    there = storage.get_all_run_ids()
    return sorted({*there} - {*instance.get_run_ids()})


def delete_run(instance: dg.DagsterInstance, run_id: str) -> None:
    """Delete a run with its events, its logs and the SQLite files that hold its events."""
    _record_end(instance, run_id)
    instance.compute_log_manager.delete_logs(prefix=[run_id])
    # Before the run itself: after a kill, a run without its events is found again.
    instance.event_log_storage.delete_events(run_id)
    instance.delete_run(run_id)
    shard_of = getattr(instance.event_log_storage, "path_for_shard", None)
    if shard_of is not None:
        for ending in ("", "-wal", "-shm"):  # a killed process leaves the last two
            Path(f"{shard_of(run_id)}{ending}").unlink(missing_ok=True)


def _record_end(instance: dg.DagsterInstance, run_id: str) -> None:
    """Store when a run ended before it is deleted: its rows then have no event."""
    record = instance.get_run_record_by_id(run_id)
    ended = record.end_time if record is not None else None
    if ended is not None and datetime.fromtimestamp(ended, UTC) > deleted_through(instance):
        instance.daemon_cursor_storage.set_cursor_values({_DELETED_THROUGH: str(ended)})


def deleted_through(instance: dg.DagsterInstance) -> datetime:
    """Return the end time of the latest deleted run; the earliest possible time without any."""
    values = instance.daemon_cursor_storage.get_cursor_values({_DELETED_THROUGH})
    return datetime.fromtimestamp(float(values.get(_DELETED_THROUGH, 0.0)), UTC)


@dg.op(tags={"domain": "upkeep"}, config_schema={})
@runs.dagster_failures
@runs.recorded("maintain_tables")
def maintain_tables(context: dg.OpExecutionContext, position_sync: PositionSyncResource) -> None:
    """Compact files, write checkpoints and clean the log of every table.

    Raises:
        Failure: A table has duplicate rows. The maintenance is completed before this is raised.
    """
    results = position_sync.lake.maintain()
    for result in results:
        context.log.info(
            f"{result.table}: {result.compacted} files merged, {result.deleted} deleted, "
            f"{result.files} left at version {result.version}"
            + (f"; {result.skipped}" if result.skipped else "")
        )
    doubled = [f"{one.table}: {one.doubled}." for one in results if one.doubled.surplus]
    if doubled:
        raise dg.Failure(" ".join([*doubled, WHAT_TO_DO]), allow_retries=False)


@dg.op(tags={"domain": "upkeep"}, config_schema={})
@runs.dagster_failures
@runs.recorded("forget_old_runs")
def forget_old_runs(context: dg.OpExecutionContext, position_sync: PositionSyncResource) -> None:
    """Delete old runs with their events and logs, and old events without a run; rows are kept."""
    settings, began = position_sync.settings, datetime.now(UTC)
    before = began - timedelta(days=settings.keep_runs_days)
    old = lost_runs(context.instance)
    old += old_runs(context.instance, PRUNED_JOBS, before=before, keep=settings.keep_runs)
    deleted = 0
    for run_id in old:
        if datetime.now(UTC) > began + LONGEST:
            break
        delete_run(context.instance, run_id)
        deleted += 1
    context.log.info(
        f"Deleted {deleted} of {len(old)} runs: those older than {settings.keep_runs_days} days, "
        f"and of each job all but the newest {settings.keep_runs}."
    )
    events = forget_old_events(context.instance, before=before, keep=settings.keep_runs)
    forget_old_ticks(context.instance, now=began)
    context.log.info(f"Deleted {events} old results of checks and events without a run.")


@dg.job(
    name=MAINTENANCE_JOB,
    executor_def=dg.in_process_executor,
    tags={"domain": "upkeep"},
)
def maintain_lake() -> None:
    """Keep the tables fast and Dagster's storage small."""
    maintain_tables()
    forget_old_runs()


every_hour = dg.ScheduleDefinition(
    name="every_hour",
    job=maintain_lake,
    cron_schedule="37 * * * *",
    description="At 37 minutes past each hour: merges small files of the tables, and deletes "
    "Dagster runs and events that are older than the settings keep.",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
