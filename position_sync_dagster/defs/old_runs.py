"""Old runs in Dagster's storage: which ones may be deleted, and how."""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg

ENDED = [
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.CANCELED,
]

NEWEST = 10
"""Ended runs of each job that stay at any age: they hold the newest observations of the tables."""

_DELETED_THROUGH = "position_sync/deleted_through"
"""The key in Dagster's storage of the time when the last of the deleted runs had ended."""


def old_runs(
    instance: dg.DagsterInstance, job_names: Iterable[str], *, before: datetime, keep: int
) -> list[str]:
    """Return the ids of ended runs of some jobs, the oldest of each job first.

    The run with the newest materialization of an asset is none of them.

    Args:
        before: Runs that were created earlier are old.
        keep: Runs of a job that are followed by as many others of it are old, too.
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
    """Return the ids of runs that are deleted, and whose SQLite files are still there.

    Dagster leaves them when a person deletes a run, and a deletion may be killed.
    """
    from dagster._core.storage.event_log import SqliteEventLogStorage

    storage = instance.event_log_storage
    if not isinstance(storage, SqliteEventLogStorage):
        return []
    # The files first: a run that begins now is among the runs before it has a file.
    there = storage.get_all_run_ids()
    return sorted({*there} - {*instance.get_run_ids()})


def delete_run(instance: dg.DagsterInstance, run_id: str) -> None:
    """Delete a run with its events, its logs and the SQLite files that hold its events."""
    _record_end(instance, run_id)
    instance.compute_log_manager.delete_logs(prefix=[run_id])
    # Before the run: one that is left without its events is found again.
    instance.event_log_storage.delete_events(run_id)
    instance.delete_run(run_id)
    shard_of = getattr(instance.event_log_storage, "path_for_shard", None)
    if shard_of is not None:
        for ending in ("", "-wal", "-shm"):  # the last two are left by a process that was killed
            Path(f"{shard_of(run_id)}{ending}").unlink(missing_ok=True)


def _record_end(instance: dg.DagsterInstance, run_id: str) -> None:
    """Remember when the run ended, before it is deleted: its rows miss their event from then on."""
    record = instance.get_run_record_by_id(run_id)
    ended = record.end_time if record is not None else None
    if ended is not None and datetime.fromtimestamp(ended, UTC) > deleted_through(instance):
        instance.daemon_cursor_storage.set_cursor_values({_DELETED_THROUGH: str(ended)})


def deleted_through(instance: dg.DagsterInstance) -> datetime:
    """Return when the last of the deleted runs had ended; the beginning of time without any."""
    values = instance.daemon_cursor_storage.get_cursor_values({_DELETED_THROUGH})
    return datetime.fromtimestamp(float(values.get(_DELETED_THROUGH, 0.0)), UTC)
