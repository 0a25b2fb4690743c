"""Old runs in Dagster's storage: which ones may be deleted, and how."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

import dagster as dg

MAX_RUNS = 500
"""Runs deleted by one maintenance run. An hour makes at most 720; the next run goes on."""


def old_runs(
    instance: dg.DagsterInstance, job_names: Iterable[str], *, before: datetime
) -> Iterator[str]:
    """Return the ids of ended runs of some jobs, at most MAX_RUNS of them.

    Args:
        before: Only runs that were created earlier.
    """
    left = MAX_RUNS
    for job_name in job_names:
        records = instance.get_run_records(
            dg.RunsFilter(
                job_name=job_name,
                created_before=before,
                statuses=[
                    dg.DagsterRunStatus.SUCCESS,
                    dg.DagsterRunStatus.FAILURE,
                    dg.DagsterRunStatus.CANCELED,
                ],
            ),
            limit=left,
            ascending=True,
        )
        left -= len(records)
        yield from (record.dagster_run.run_id for record in records)


def delete_run(instance: dg.DagsterInstance, run_id: str) -> None:
    """Delete a run with its events, its logs and the SQLite file that holds its events."""
    instance.compute_log_manager.delete_logs(prefix=[run_id])
    instance.delete_run(run_id)
    shard_of = getattr(instance.event_log_storage, "path_for_shard", None)
    if shard_of is not None:
        Path(shard_of(run_id)).unlink(missing_ok=True)
