"""The verification of the audit trail: read the tables, compare them, and repair the records."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from position_sync_dagster.domain.run_record import RunRecord
from position_sync_dagster.domain.update import Source
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.storage.maintenance import DoubledRows, find_doubled
from position_sync_dagster.lake.updates.provenance import LedgerProvenance
from position_sync_dagster.sync.audit.comparison import (
    LEDGER,
    AuditFinding,
    Commit,
    Events,
    RunRows,
    compare,
)
from position_sync_dagster.sync.run_recorder import STREAM_STEP

SESSIONS_SEARCHED = 1000
MARGIN = timedelta(days=1)
"""Rows are read from this long before the first compared run, so that all rows of a run are read. A
run that began earlier is left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The result of a comparison.

    Attributes:
        since: Runs that began on this UTC date or later were compared.
        runs: The number of runs that wrote rows since then; `rows` is the number of those rows.
        events: The number of events read; None if only rows and records were compared.
        doubled: Rows that the ledger holds more than once; each is counted once.
    """

    since: date
    runs: int
    rows: int
    records: int
    events: int | None
    doubled: DoubledRows
    findings: tuple[AuditFinding, ...]


def verify(
    lake: Lake, events: Events | None, *, since: date, now: datetime, grace: timedelta
) -> Verification:
    """Compare rows, records and events of the runs since a date.

    Args:
        events: Those since `since` or earlier; None to compare rows and records only.
        grace: See `compare`.
    """
    # Records before rows: a run that ends in between seems to lack its record, but is within the
    # grace period.
    stored = lake.runs.since(since - MARGIN)
    written = rows_by_run(lake, since - MARGIN)
    earlier = {one.run_id for one in stored if one.started_at.date() < since}
    earlier |= {one.run_id for one in written if one.commits[0].at.date() < since}
    rows = [one for one in written if one.run_id not in earlier]
    records = [one for one in stored if one.run_id not in earlier]
    known = {one.run_id for one in rows} | {one.run_id for one in records}
    if events is not None:
        events = Events(
            events=tuple(
                event
                for event in events.events
                if event.run_id in known
                or (event.run_id not in earlier and event.at.date() >= since)
            ),
            runs=events.runs,
            kept_since=events.kept_since,
        )
    sessions = lake.sessions.history(SESSIONS_SEARCHED)
    alive = {s.run_id for s in sessions if s.run_id is not None and s.is_alive(now)}
    return Verification(
        since=since,
        runs=len(rows),
        rows=sum(one.rows for one in rows),
        records=len(records),
        events=None if events is None else len(events.events),
        doubled=find_doubled(lake.updates.table),
        findings=tuple(compare(rows, records, events, now=now, grace=grace, alive=alive)),
    )


def repair_records(lake: Lake, findings: Iterable[AuditFinding]) -> list[RunRecord]:
    """Write the records that repair findings, in one commit; return them.

    Raises:
        LakeError: The table `runs` cannot be used; nothing was written.
    """
    records = [one.record for one in findings if one.record is not None]
    lake.runs.record(records)
    return records


def rows_by_run(lake: Lake, since: date) -> list[RunRows]:
    """Return the rows in the ledger of each run since a date."""
    frame = LedgerProvenance(lake.updates.table).commits_by_run(since)
    return [
        RunRows(
            run_id=str(run_id),
            step=STREAM_STEP if rows["source"][0] == Source.STREAM else LEDGER,
            gateway_id=rows["gateway_id"][0] or None,
            session_id=rows["session_id"][0],
            commits=tuple(
                Commit(batch_id=batch_id, version=version, rows=count, at=at)
                for batch_id, version, count, at in rows.select(
                    "batch_id", "ledger_version", "rows", "committed_at"
                ).iter_rows()
            ),
        )
        for (run_id,), rows in frame.partition_by(
            "run_id", as_dict=True, maintain_order=True
        ).items()
    ]
