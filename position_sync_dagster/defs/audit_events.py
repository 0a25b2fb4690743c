"""Read the events of `position_updates` from Dagster's storage, and log missing ones."""

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from position_sync_dagster.defs.maintenance import deleted_through
from position_sync_dagster.defs.runs import utc
from position_sync_dagster.domain.run_record import RunRecord, RunResult
from position_sync_dagster.sync.audit.comparison import (
    LEDGER,
    AuditFinding,
    Events,
    RunEvent,
)

RUN = "audit/run_id"
"""Metadata of an observation that replaces a missing event: the run of that event."""

PAGE = 1000
"""Number of events read at once."""

_RESULTS = {
    dg.DagsterRunStatus.SUCCESS: RunResult.SUCCESS,
    dg.DagsterRunStatus.FAILURE: RunResult.FAILED,
    dg.DagsterRunStatus.CANCELED: RunResult.STOPPED,
}


def instance_at(home: Path) -> dg.DagsterInstance | None:
    """Return the Dagster instance of a home; None if no Dagster has run there.

    Nothing is created, since the path may be mistyped.
    """
    if not (home / "history").is_dir() and not (home / "dagster.yaml").is_file():
        return None
    return dg.DagsterInstance.from_config(str(home))


def read_events(
    instance: dg.DagsterInstance, *, since: datetime, now: datetime, keep_days: int
) -> Events:
    """Read the events of the ledger, and the runs that they name.

    Args:
        keep_days: Ended runs older than this may be deleted (POSITION_SYNC_KEEP_RUNS_DAYS).
    """
    wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(LEDGER), after_timestamp=since.timestamp())
    events = [
        event
        for fetch in (instance.fetch_materializations, instance.fetch_observations)
        for record in _pages(fetch, wanted)
        if (event := _event_of(record)) is not None
    ]
    return Events(
        events=tuple(events),
        runs=_runs(instance, since),
        kept_since=max(now - timedelta(days=keep_days), deleted_through(instance)),
    )


def log_missing_events(instance: dg.DagsterInstance, findings: Iterable[AuditFinding]) -> int:
    """Log an observation of `position_updates` for each missing event; return their number.

    It is not a materialization: nothing was written now, and an ended run accepts no event. The
    observation belongs to no run, and names the run of the rows.
    """
    count = 0
    for finding in findings:
        event = finding.event
        if event is None:
            continue
        instance.report_runless_asset_event(
            dg.AssetObservation(
                asset_key=LEDGER,
                description=f"Found by `position-sync audit verify`: {finding.detail}",
                metadata={
                    RUN: event.run_id,
                    "audit/rows": event.rows,
                    "audit/delta_version_from": event.version_from or 0,
                    "audit/delta_version": event.version_to or 0,
                },
            )
        )
        count += 1
    return count


def _pages(fetch: Callable[..., Any], wanted: dg.AssetRecordsFilter) -> Iterator[dg.EventLogRecord]:
    cursor, more = None, True
    while more:
        result = fetch(wanted, limit=PAGE, cursor=cursor)
        cursor, more = result.cursor, result.has_more
        yield from result.records


def _event_of(record: dg.EventLogRecord) -> RunEvent | None:
    entry = record.event_log_entry
    found = record.asset_materialization or entry.asset_observation
    if found is None:
        return None
    # A name may have a prefix, as in `stream/rows`.
    values = {name.rpartition("/")[2]: found.metadata[name].value for name in found.metadata}
    audited = found.metadata.get(RUN)
    run_id = str(audited.value) if audited is not None else entry.run_id
    rows, *versions = map(values.get, ("rows", "delta_version_from", "delta_version"))
    if not run_id or not isinstance(rows, int):
        return None
    return RunEvent(
        run_id=run_id,
        rows=rows,
        version_from=versions[0] if isinstance(versions[0], int) else None,
        version_to=versions[1] if isinstance(versions[1], int) else None,
        at=datetime.fromtimestamp(entry.timestamp, UTC),
    )


def _runs(instance: dg.DagsterInstance, since: datetime) -> dict[str, RunRecord]:
    """Return the runs that were created or changed since a time."""
    now = datetime.now(UTC)
    return {
        record.dagster_run.run_id: RunRecord(
            run_id=record.dagster_run.run_id,
            step=LEDGER,
            job=record.dagster_run.job_name,
            result=_RESULTS.get(record.dagster_run.status, RunResult.RUNNING),
            started_at=utc(record.start_time) or record.create_timestamp,
            ended_at=utc(record.end_time),
            recorded_at=now,
        )
        for record in instance.get_run_records(dg.RunsFilter(updated_after=since))
    }
