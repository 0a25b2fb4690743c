"""Compare the rows, the records and the events of runs; pure."""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import accumulate

from position_sync_dagster.domain.run_record import RecordedBy, RunRecord, RunResult

LEDGER = "position_updates"


class FindingKind(StrEnum):
    """The kind of a disagreement.

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
    """The rows of a run in the ledger, by commit in the order of writing."""

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
        version_from, version_to: It names the rows of the versions after the first, up to and
            including the second.
    """

    run_id: str
    rows: int
    version_from: int | None
    version_to: int | None
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """The events and runs in Dagster's storage.

    Attributes:
        runs: The runs that Dagster still knows, by id, as records without counts.
        kept_since: Runs that ended earlier may have been deleted with their events.
    """

    events: tuple[RunEvent, ...]
    runs: Mapping[str, RunRecord]
    kept_since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFinding:
    """One disagreement about one run.

    Attributes:
        rows: The number of rows concerned.
        record: The record that repairs it; None if no record can.
        event: The event that repairs it; None if no event can.
    """

    kind: FindingKind
    run_id: str
    rows: int
    detail: str
    record: RunRecord | None = None
    event: RunEvent | None = None

    @property
    def repairable(self) -> bool:
        """Whether writing a record or an event repairs it."""
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
        grace: A run with a newer sign of life than this is skipped: its record may still come.
        alive: Runs that own a login now; they are in progress.
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
        rebuilt = rebuilt_record(run_id, rows, record, named, known, now)
        found += _record_findings(record, rebuilt)
        if events is not None:
            found += _event_findings(run_id, rows, named, known, events.kept_since, now)
    return found


def last_sign(
    rows: RunRows | None, record: RunRecord | None, events: Sequence[RunEvent]
) -> datetime:
    """Return the time of the last sign of life of a run."""
    signs = [event.at for event in events]
    signs += [commit.at for commit in rows.commits] if rows else []
    if record is not None:
        # A record that a repair wrote shows nothing about the run's life.
        by_run = record.recorded_by is RecordedBy.RUN
        signs.append(record.recorded_at if by_run else record.started_at)
    return max(signs)


def rebuilt_record(
    run_id: str,
    rows: RunRows | None,
    record: RunRecord | None,
    events: Sequence[RunEvent],
    known: RunRecord | None,
    now: datetime,
) -> RunRecord:
    """Return the record of a run, rebuilt from its rows.

    Values that rows lack, such as the claimed requests, come from the existing record, or are
    unknown. If the run recorded no end, the result is that of Dagster, or LOST.
    """
    commits = rows.commits if rows else ()
    versions = [commit.version for commit in commits if commit.version is not None]
    if record is None:
        first = commits[0].at if commits else min(event.at for event in events)
        record = RunRecord(
            run_id=run_id,
            step=rows.step if rows else LEDGER,
            job=known.job if known else None,
            result=RunResult.RUNNING,
            started_at=known.started_at if known else first,
            recorded_at=now,
            gateway_id=rows.gateway_id if rows else None,
            session_id=rows.session_id if rows else None,
            table_name=LEDGER,
        )
    if record.is_running:
        ended = known if known is not None and not known.is_running else None
        record = replace(
            record,
            result=ended.result if ended else RunResult.LOST,
            ended_at=ended.ended_at if ended else None,
        )
    return replace(
        record,
        recorded_at=now,
        recorded_by=RecordedBy.AUDIT,
        rows=rows.rows if rows else 0,
        commits=len(commits),
        version_from=min(versions) - 1 if versions else None,
        version_to=max(versions, default=None),
        first_batch_id=commits[0].batch_id if commits else None,
        last_batch_id=commits[-1].batch_id if commits else None,
    )


def _record_findings(record: RunRecord | None, rebuilt: RunRecord) -> Iterator[AuditFinding]:
    said, held = (record.rows or 0 if record else 0), rebuilt.rows or 0
    if record is None:
        kind, detail = FindingKind.RECORD_MISSING, f"no record; {held} rows name it"
    elif said > held:
        kind = FindingKind.ROWS_MISSING
        detail = f"its record says {said} rows, the ledger holds {held}"
    elif said < held or record.is_running:
        kind = FindingKind.RECORD_BEHIND
        detail = f"its record says {record.result}, {said} rows; the ledger holds {held}"
    else:
        return
    yield AuditFinding(
        kind=kind,
        run_id=rebuilt.run_id,
        rows=abs(held - said),
        detail=detail,
        record=None if kind is FindingKind.ROWS_MISSING else rebuilt,
    )


def _event_findings(
    run_id: str,
    rows: RunRows | None,
    events: Sequence[RunEvent],
    known: RunRecord | None,
    kept_since: datetime,
    now: datetime,
) -> Iterator[AuditFinding]:
    commits = rows.commits if rows else ()
    numbered = sorted((one.version, one.rows) for one in commits if one.version is not None)
    versions = [version for version, _rows in numbered]
    sums = [0, *accumulate(count for _version, count in numbered)]
    named: set[int] = set()
    for event in events:
        if event.version_from is None or event.version_to is None:
            first = end = 0
        else:
            first = bisect_right(versions, event.version_from)
            end = bisect_right(versions, event.version_to)
        named.update(range(first, end))
        held = sums[end] - sums[first]
        if event.rows > held:
            yield AuditFinding(
                kind=FindingKind.ROWS_MISSING,
                run_id=run_id,
                rows=event.rows - held,
                detail=f"an event names {event.rows} rows of versions {event.version_from} to "
                f"{event.version_to}, the ledger holds {held}",
            )
    left = [one for at, one in enumerate(numbered) if at not in named]
    deleted = known is None and not events and bool(commits) and commits[-1].at < kept_since
    if left and not deleted:
        missing = RunEvent(
            run_id=run_id,
            rows=sum(count for _version, count in left),
            version_from=left[0][0] - 1,
            version_to=left[-1][0],
            at=now,
        )
        yield AuditFinding(
            kind=FindingKind.EVENT_MISSING,
            run_id=run_id,
            rows=missing.rows,
            detail=f"{missing.rows} rows in {len(left)} commits are in no event",
            event=missing,
        )
