"""Read the events of `position_updates` from Dagster's storage, and log missing ones."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from position_sync_dagster.defs.libraries import audit, pl
from position_sync_dagster.defs.maintenance import deleted_through
from position_sync_dagster.defs.runs import columns_of_event, utc
from position_sync_dagster.domain.gateway_session import RunRecord, RunResult
from position_sync_dagster.errors import PositionSyncError

RUN = "audit/run_id"
"""Metadata of an observation that replaces a missing event: the run of that event."""

PAGE = 1000
"""Number of events read at once."""

_RESULTS = {
    dg.DagsterRunStatus.SUCCESS: RunResult.SUCCESS,
    dg.DagsterRunStatus.FAILURE: RunResult.FAILED,
    dg.DagsterRunStatus.CANCELED: RunResult.STOPPED,
}


class DagsterStorageError(PositionSyncError):
    """Dagster's storage cannot be used: its configuration, its files or its database."""


@contextmanager
def _named() -> Iterator[None]:
    """Convert any error, which libraries of four kinds raise here, to one that names the cause."""
    try:
        yield
    except Exception as error:
        raise DagsterStorageError(
            f"Dagster's storage cannot be used: {' '.join(str(error).split())[:300]}",
            remedy="Correct dagster.yaml in the folder that DAGSTER_HOME names, or start its "
            "database.",
        ) from error


@_named()
def instance_at(home: Path) -> dg.DagsterInstance | None:
    """Return the Dagster instance of a home; None if no Dagster has run there.

    Nothing is created, since the path may be mistyped.
    """
    if not (home / "history").is_dir() and not (home / "dagster.yaml").is_file():
        return None
    return dg.DagsterInstance.from_config(str(home))


@_named()
def read_events(
    instance: dg.DagsterInstance, *, since: datetime, now: datetime, keep_days: int
) -> "audit.Events":
    """Read the events of the ledger, and the runs that they name.

    Args:
        keep_days: Ended runs older than this may be deleted (POSITION_SYNC_KEEP_RUNS_DAYS).
    """
    wanted = dg.AssetRecordsFilter(
        asset_key=dg.AssetKey(audit.LEDGER), after_timestamp=since.timestamp()
    )
    named = [
        event
        for fetch in (instance.fetch_materializations, instance.fetch_observations)
        for record in _pages(fetch, wanted)
        if None not in (event := _event_of(record))[:2]
    ]
    runs = instance.get_run_records(dg.RunsFilter(updated_after=since))
    return audit.Events(
        named=pl.DataFrame(named, audit.EVENT_COLUMNS, orient="row"),
        runs={record.dagster_run.run_id: _known(record, now) for record in runs},
        kept_since=max(now - timedelta(days=keep_days), deleted_through(instance)),
    )


@_named()
def log_missing_events(
    instance: dg.DagsterInstance, findings: "Iterable[audit.AuditFinding]"
) -> None:
    """Log an observation of `position_updates` for each missing event.

    It is not a materialization: nothing was written now, and an ended run accepts no event. The
    observation belongs to no run, and names the run of the rows.
    """
    for finding in findings:
        if finding.kind is not audit.FindingKind.EVENT_MISSING:
            continue
        instance.report_runless_asset_event(
            dg.AssetObservation(
                asset_key=audit.LEDGER,
                description=f"Found by `position-sync audit verify`: {finding.detail}",
                metadata={
                    RUN: finding.run_id,
                    "audit/rows": finding.rows,
                    "audit/delta_version_from": finding.version_from,
                    "audit/delta_version": finding.version_to,
                },
            )
        )


def _pages(fetch: Callable[..., Any], wanted: dg.AssetRecordsFilter) -> Iterator[dg.EventLogRecord]:
    cursor, more = None, True
    while more:
        result = fetch(wanted, limit=PAGE, cursor=cursor)
        cursor, more = result.cursor, result.has_more
        yield from result.records


def _event_of(record: dg.EventLogRecord) -> tuple[Any, ...]:
    """Return an event as a row of `audit.EVENT_COLUMNS`; what it does not name is None."""
    entry = record.event_log_entry
    found = record.asset_materialization or entry.asset_observation
    metadata = found.metadata if found is not None else {}
    columns, replaced = columns_of_event(metadata), metadata.get(RUN)
    return (
        (entry.run_id if replaced is None else replaced.value) or None,
        *(columns.get(name) for name in ("rows", "version_from", "version_to")),
        utc(entry.timestamp),
    )


def _known(record: dg.RunRecord, now: datetime) -> RunRecord:
    return RunRecord(
        run_id=record.dagster_run.run_id,
        step=audit.LEDGER,
        job=record.dagster_run.job_name,
        result=_RESULTS.get(record.dagster_run.status, RunResult.RUNNING),
        started_at=utc(record.start_time) or record.create_timestamp,
        ended_at=utc(record.end_time),
        recorded_at=now,
    )
