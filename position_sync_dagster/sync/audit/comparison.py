"""Rows, records and events of the same runs, compared in all directions; pure."""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import accumulate
from typing import Any

from position_sync_dagster.domain.run_record import RecordedBy, RunRecord, RunResult

LEDGER = "position_updates"


class FindingKind(StrEnum):
    """What does not agree.

    RECORD_MISSING: rows or an event name a run that `runs` lacks. RECORD_BEHIND: the record of a
    run that has ended says less than its rows. EVENT_MISSING: rows are in no event. ROWS_MISSING:
    a record or an event names rows that the ledger does not hold.
    """

    RECORD_MISSING = "RECORD_MISSING"
    RECORD_BEHIND = "RECORD_BEHIND"
    EVENT_MISSING = "EVENT_MISSING"
    ROWS_MISSING = "ROWS_MISSING"


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """One commit of a run to the ledger."""

    batch_id: str
    version: int | None
    rows: int
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRows:
    """What the ledger holds of a run; its commits are in the order of writing."""

    run_id: str
    step: str
    gateway_id: str | None
    session_id: str | None
    commits: tuple[Commit, ...]

    @property
    def rows(self) -> int:
        """The number of rows."""
        return sum(commit.rows for commit in self.commits)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEvent:
    """One event of the asset `position_updates`.

    Attributes:
        run_id: The run whose rows it names.
        version_from, version_to: It names the rows with a greater version than the first, up to
            the second.
    """

    run_id: str
    rows: int
    version_from: int | None
    version_to: int | None
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownRun:
    """A run as Dagster's storage knows it."""

    job: str
    started_at: datetime | None
    ended_at: datetime | None
    result: RunResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """What Dagster's storage holds.

    Attributes:
        runs: The runs that wrote rows or have an event, by id; pruned ones are absent.
        kept_since: Runs that ended earlier may have been deleted with their events.
    """

    events: tuple[RunEvent, ...]
    runs: Mapping[str, KnownRun]
    kept_since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFinding:
    """One disagreement about one run.

    Attributes:
        rows: How many rows it is about.
        record: The record that mends it; None where no record does.
        event: The event that mends it; None where no event does.
    """

    kind: FindingKind
    run_id: str
    rows: int
    detail: str
    record: RunRecord | None = None
    event: RunEvent | None = None

    @property
    def repairable(self) -> bool:
        """Whether a repair of the index mends it."""
        return self.record is not None or self.event is not None


def compare(
    ledger: Iterable[RunRows],
    records: Iterable[RunRecord],
    events: Events | None,
    *,
    now: datetime,
    grace: timedelta,
    alive: Collection[str],
) -> list[AuditFinding]:
    """Return every disagreement about runs that have ended.

    Args:
        records: The newest record of each step.
        events: None to compare rows and records only.
        grace: A run that was heard of so recently may still write its record and its event.
        alive: Runs that own a login now: they are in progress.
    """
    by_rows = {one.run_id: one for one in ledger}
    by_record = {one.run_id: one for one in records if one.table_name == LEDGER}
    by_event: dict[str, list[RunEvent]] = {}
    for event in events.events if events else ():
        by_event.setdefault(event.run_id, []).append(event)
    found: list[AuditFinding] = []
    for run_id in sorted({*by_rows, *by_record, *by_event}):
        rows, record = by_rows.get(run_id), by_record.get(run_id)
        named = by_event.get(run_id, [])
        if run_id in alive or last_sign(rows, record, named) > now - grace:
            continue
        known = events.runs.get(run_id) if events else None
        found += _record_findings(run_id, rows, record, named, known, now)
        if events is not None:
            found += _event_findings(run_id, rows, named, known, events.kept_since, now)
    return found


def last_sign(
    rows: RunRows | None, record: RunRecord | None, events: Sequence[RunEvent]
) -> datetime:
    """Return when a run was last heard of."""
    signs = [event.at for event in events]
    signs += [commit.at for commit in rows.commits] if rows else []
    if record is not None:
        # A repair is no sign of the run itself.
        by_run = record.recorded_by is RecordedBy.RUN
        signs.append(record.recorded_at if by_run else record.started_at)
    return max(signs)


def _record_findings(
    run_id: str,
    rows: RunRows | None,
    record: RunRecord | None,
    events: Sequence[RunEvent],
    known: KnownRun | None,
    now: datetime,
) -> list[AuditFinding]:
    held = rows.rows if rows else 0
    if record is None:
        first = rows.commits[0].at if rows else min(event.at for event in events)
        rebuilt = rebuilt_record(run_id, rows, known, started_at=first, now=now)
        what = f"{held} rows name it" if rows else "an event names it"
        return [_record_finding(FindingKind.RECORD_MISSING, rebuilt, held, f"no record; {what}")]
    said = record.rows or 0
    if said > held:
        detail = f"its record says {said} rows, the ledger holds {held}"
        return [
            AuditFinding(
                kind=FindingKind.ROWS_MISSING, run_id=run_id, rows=said - held, detail=detail
            )
        ]
    if said < held or record.is_running:
        mended = replace(record, recorded_at=now, recorded_by=RecordedBy.AUDIT, **_counts(rows))
        if record.is_running:
            mended = replace(mended, **_ending(known))
        detail = f"its record says {record.result}, {said} rows; the ledger holds {held}"
        return [_record_finding(FindingKind.RECORD_BEHIND, mended, held - said, detail)]
    return []


def _record_finding(kind: FindingKind, record: RunRecord, rows: int, detail: str) -> AuditFinding:
    return AuditFinding(kind=kind, run_id=record.run_id, rows=rows, detail=detail, record=record)


def _event_findings(
    run_id: str,
    rows: RunRows | None,
    events: Sequence[RunEvent],
    known: KnownRun | None,
    kept_since: datetime,
    now: datetime,
) -> list[AuditFinding]:
    commits = rows.commits if rows else ()
    numbered = sorted((c.version, c.rows) for c in commits if c.version is not None)
    versions = [version for version, _ in numbered]
    sums = [0, *accumulate(count for _, count in numbered)]
    named: set[int] = set()
    found = []
    for event in events:
        if event.version_from is None or event.version_to is None:
            span = range(0)
        else:
            ends = (bisect_right(versions, end) for end in (event.version_from, event.version_to))
            span = range(*ends)
        named.update(span)
        held = sums[span.stop] - sums[span.start]
        if event.rows > held:
            found.append(
                AuditFinding(
                    kind=FindingKind.ROWS_MISSING,
                    run_id=run_id,
                    rows=event.rows - held,
                    detail=f"an event names {event.rows} rows of versions {event.version_from} to "
                    f"{event.version_to}, the ledger holds {held}",
                )
            )
    unnamed = [numbered[at] for at in range(len(numbered)) if at not in named]
    pruned = known is None and not events and bool(commits) and commits[-1].at < kept_since
    if unnamed and not pruned:
        missing = RunEvent(
            run_id=run_id,
            rows=sum(count for _, count in unnamed),
            version_from=unnamed[0][0] - 1,
            version_to=unnamed[-1][0],
            at=now,
        )
        found.append(
            AuditFinding(
                kind=FindingKind.EVENT_MISSING,
                run_id=run_id,
                rows=missing.rows,
                detail=f"{missing.rows} rows in {len(unnamed)} commits are in no event",
                event=missing,
            )
        )
    return found


def rebuilt_record(
    run_id: str,
    rows: RunRows | None,
    known: KnownRun | None,
    *,
    started_at: datetime,
    now: datetime,
) -> RunRecord:
    """Return the record of a run as its rows, and Dagster where it knows the run, tell it.

    What only the run itself knew, such as the requests that it claimed, stays unknown.
    """
    record = RunRecord(
        run_id=run_id,
        step=rows.step if rows else LEDGER,
        job=known.job if known else None,
        result=RunResult.LOST,
        started_at=(known.started_at if known else None) or started_at,
        recorded_at=now,
        recorded_by=RecordedBy.AUDIT,
        gateway_id=rows.gateway_id if rows else None,
        session_id=rows.session_id if rows else None,
        table_name=LEDGER,
    )
    return replace(record, **_counts(rows), **_ending(known))


def _ending(known: KnownRun | None) -> dict[str, Any]:
    """Return how a run ended: LOST where Dagster does not know that it ended."""
    if known is None or known.result is RunResult.RUNNING:
        return {"result": RunResult.LOST, "ended_at": None}
    return {"result": known.result, "ended_at": known.ended_at}


def _counts(rows: RunRows | None) -> dict[str, Any]:
    if rows is None:
        return {"rows": 0, "commits": 0}
    versions = [commit.version for commit in rows.commits if commit.version is not None]
    return {
        "rows": rows.rows,
        "commits": len(rows.commits),
        "version_from": min(versions) - 1 if versions else None,
        "version_to": max(versions, default=None),
        "first_batch_id": rows.commits[0].batch_id,
        "last_batch_id": rows.commits[-1].batch_id,
    }
