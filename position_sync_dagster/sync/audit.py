"""The audit trail: find everything that belongs to an id, and find missing records.

The rows are the record of what was written. The table `runs` and Dagster's events are an index of
the rows: what they record about the ledger can be derived from the rows. Nothing is written here:
the command writes the records that `verify` derives.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any

import polars as pl
from polars.datatypes import DataType, DataTypeClass

from position_sync_dagster.domain.closures import Closure
from position_sync_dagster.domain.gateway_session import (
    GatewaySession,
    RecordedBy,
    RunRecord,
    RunResult,
)
from position_sync_dagster.domain.instrument import parse_conid
from position_sync_dagster.domain.leg import Leg
from position_sync_dagster.domain.reconciliation import Break
from position_sync_dagster.domain.update import QueuedPosition, Source
from position_sync_dagster.errors import AmbiguousIdError, UnknownIdError
from position_sync_dagster.lake.lake import Lake, breaks_at, lasted
from position_sync_dagster.lake.schema.codec import legs_of
from position_sync_dagster.lake.schema.ids import new_ids
from position_sync_dagster.lake.storage.maintenance import DoubledRows, find_doubled
from position_sync_dagster.lake.updates.provenance import (
    IN_ORDER,
    LastRows,
    LedgerProvenance,
    batches_of,
)
from position_sync_dagster.sync.run_recorder import STREAM_STEP, LedgerCounts

CANDIDATES = 5
"""Maximum number of ids in the error about an ambiguous prefix."""


class IdKind(StrEnum):
    """The kind of an id."""

    RUN = "RUN"
    BATCH = "BATCH"
    UPDATE = "UPDATE"
    REQUEST = "REQUEST"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Everything that belongs to one id.

    Attributes:
        runs: The newest record of each step of its runs; empty where `runs` has none.
        run_ids: The runs that the rows name.
        rows: The last rows, as in the table; `row_count` is the number of all.
        batches: The last commits (`batch_id`, `version`, `rows` of the trace, `committed_at`), of
            which `version` is null for rows of older releases; `batch_count` is the number of all.
    """

    kind: IdKind
    id: str
    run_ids: tuple[str, ...]
    runs: tuple[RunRecord, ...]
    sessions: tuple[GatewaySession, ...]
    requests: tuple[QueuedPosition, ...]
    batches: tuple[dict[str, Any], ...]
    batch_count: int
    rows: tuple[dict[str, Any], ...]
    row_count: int


def trace(lake: Lake, text: str, *, limit: int) -> Trace:
    """Find everything that belongs to the id of a run, a batch, a row or a request.

    Args:
        text: The id, or the beginning of it.
        limit: Maximum number of rows and of batches; the newest are returned.

    Raises:
        UnknownIdError: No table has such an id.
        AmbiguousIdError: Several ids begin with the text.
    """
    ledger = LedgerProvenance(lake.updates.table)
    kind, found = find_id(lake, ledger, text)
    runs: tuple[RunRecord, ...] = ()
    requests: tuple[QueuedPosition, ...] = ()
    if kind is IdKind.RUN:
        runs = tuple(lake.runs.get(found))
        first, last = _dates(runs)
        written = ledger.of_run(found, first=first, last=last, limit=limit)
    elif kind is IdKind.REQUEST:
        requests = _requests(lake, [found])
        written = _last(_answers(ledger, *requests), limit)
    else:
        column = "batch_id" if kind is IdKind.BATCH else "update_id"
        written = _last(ledger.with_id(column, found), limit)
        requests = _requests(lake, _named(written.rows, "request_id"))
    run_ids = [found] if kind is IdKind.RUN else _named(written.rows, "run_id")
    of_sessions = {*_named(written.rows, "session_id"), *(one.session_id for one in runs)}
    return Trace(
        kind=kind,
        id=found,
        run_ids=tuple(run_ids),
        runs=runs or tuple(record for one in run_ids for record in lake.runs.get(one)),
        sessions=tuple(
            lake.sessions.history(
                None, pl.col("session_id").is_in(of_sessions) | (pl.col("run_id") == found)
            )
        ),
        requests=requests,
        batches=_plain(written.batches),
        batch_count=written.batch_count,
        rows=_plain(written.rows),
        row_count=written.count,
    )


def find_id(lake: Lake, ledger: LedgerProvenance, text: str) -> tuple[IdKind, str]:
    """Find the id that begins with the text, and its kind.

    A run without a record is searched for last: that reads a column of every file.

    Raises:
        UnknownIdError, AmbiguousIdError.
    """
    found: set[tuple[IdKind, str]] = set()
    if text:
        queue = lake.queue.sync
        found |= {(IdKind.RUN, r.run_id) for r in lake.runs.beginning_with(text)}
        found |= {(IdKind.BATCH, i) for i in ledger.ids_beginning_with("batch_id", text)}
        found |= {(IdKind.UPDATE, i) for i in ledger.ids_beginning_with("update_id", text)}
        found |= {(IdKind.REQUEST, r.request_id) for r in queue.beginning_with(text)}
        if not found:
            found |= {(IdKind.RUN, i) for i in ledger.ids_beginning_with("run_id", text)}
    exact = {one for one in found if one[1] == text}
    candidates = sorted(exact or found)
    ids = {one[1] for one in candidates}
    if not ids:
        raise UnknownIdError(
            f"No run, batch, row or request has an id that begins with {text[:80]!r}.",
            remedy="Copy the id from Dagster, from `position-sync history` or from a table.",
        )
    if len(ids) > 1:
        named = ", ".join(f"{kind.lower()} {one}" for kind, one in candidates[:CANDIDATES])
        raise AmbiguousIdError(
            f"{len(ids)} ids begin with {text[:80]!r}: {named}"
            + (", …" if len(candidates) > CANDIDATES else "."),
            remedy="Give more characters of the id.",
        )
    return max(candidates)  # a row may have the id of its request: the row names the request too


def _requests(lake: Lake, ids: Iterable[str]) -> tuple[QueuedPosition, ...]:
    """Return the requests with these ids."""
    queue = lake.queue.sync
    return tuple(r for one in ids for r in queue.beginning_with(one) if r.request_id == one)


def _answers(ledger: LedgerProvenance, request: QueuedPosition) -> pl.DataFrame:
    """Return the rows written for a request, and the older row that answers it."""
    near = new_ids(request.created_at, 1)
    since = (request.created_at - timedelta(days=1)).date()
    rows = ledger.of_request(request.request_id, [request.request_id, *near], since)
    answer = request.update_id
    if answer is None or answer in rows.get_column("update_id"):
        return rows
    return pl.concat([ledger.with_id("update_id", answer), rows]).sort(IN_ORDER)


def _last(rows: pl.DataFrame, limit: int) -> LastRows:
    """Return the last rows and batches, and count all."""
    batches = batches_of(rows.lazy()).collect()
    return LastRows(
        count=rows.height,
        batch_count=batches.height,
        batches=batches.tail(limit),
        rows=rows.tail(limit),
    )


def _named(rows: pl.DataFrame, column: str) -> list[str]:
    """Return the ids in a column, each once, in the order of the rows."""
    return rows.get_column(column).drop_nulls().unique(maintain_order=True).to_list()


def _dates(records: tuple[RunRecord, ...]) -> tuple[date | None, date | None]:
    """Return the dates between which the rows of a run lie, with one day added on each side."""
    if not records:
        return None, None
    day = timedelta(days=1)
    ends = [record.ended_at for record in records]
    last = None if None in ends else max(end for end in ends if end is not None)
    first = min(record.started_at for record in records)
    return (first - day).date(), None if last is None else (last + day).date()


def _plain(frame: pl.DataFrame) -> tuple[dict[str, Any], ...]:
    return tuple(frame.iter_rows(named=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class PastValue:
    """One row of a holding.

    Attributes:
        row: The row, as in the table.
        strategies: The strategies of the leg at the time of the row.
        breaks: The breaks of the holding that were open then: id, type and state.
    """

    row: dict[str, Any]
    strategies: tuple[str, ...]
    breaks: tuple[dict[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The newest values of a holding, oldest first.

    Attributes:
        more: Whether older values exist.
        closes: Why it closed, each time, as far as that is known now.
    """

    account: str
    conid: int
    values: tuple[PastValue, ...]
    more: bool
    closes: tuple[Closure, ...] = ()


def history(
    lake: Lake, account: str, conid: int, *, day: date | None = None, limit: int
) -> History:
    """Read the newest values of a holding.

    Args:
        day: Only the values of this UTC date.
        limit: Maximum number of values.

    Raises:
        UnknownIdError: The holding has no row, on that day if one is given.
        InvalidLegError: The conid is not valid.
    """
    parse_conid(conid)
    ledger = LedgerProvenance(lake.updates.table)
    rows, more = ledger.of_holding(account, conid, day=day, limit=limit)
    if rows.is_empty():
        when = "" if day is None else f" on {day.isoformat()}"
        raise UnknownIdError(
            f"The holding {account[:40]}:{conid} has no row{when}.",
            remedy="`position-sync positions --closed` lists accounts and conids; days are in UTC.",
        )
    memberships = [
        leg
        for leg in legs_of(lake.registry.table.rows())
        if leg.conid == conid and leg.account in (None, account)
    ]
    breaks = [
        one
        for one in (*lake.breaks.open_breaks(), *lake.breaks.closed_breaks(None))
        if (one.account, one.conid) == (account, conid)
    ]
    values = tuple(_past_value(row, memberships, breaks) for row in rows.iter_rows(named=True))
    of_holding = (pl.col("account") == account) & (pl.col("conid") == conid)
    closes = tuple(lake.closures.current(of_holding))
    return History(account=account, conid=conid, values=values, more=more, closes=closes)


def _past_value(
    row: dict[str, Any], memberships: Iterable[Leg], breaks: Iterable[Break]
) -> PastValue:
    at = row["timestamp"]
    held = {leg.strategy_id for leg in memberships if lasted(leg.added_at, leg.removed_at, at)}
    return PastValue(
        row=row,
        strategies=tuple(sorted(held)),
        breaks=tuple(
            {"break_id": one.break_id, "type": one.type.value, "state": _state(one, at)}
            for one in breaks_at(breaks, at)
        ),
    )


def _state(one: Break, at: datetime) -> str:
    if one.accepted_at is not None and one.accepted_at <= at:
        return "ACCEPTED"
    confirmed = one.confirmed_at is not None and one.confirmed_at <= at
    return "CONFIRMED" if confirmed else "OPENED"


LEDGER = "position_updates"
SESSIONS_COMPARED = 1000
MARGIN = timedelta(days=1)
"""Rows are read from this long before the first compared run, so that all rows of a run are read. A
run that began earlier is left out."""

_NO_ROWS = asdict(LedgerCounts())
"""The columns of a record that follow from the rows of its run, for a run without rows."""


class FindingKind(StrEnum):
    """The kind of a disagreement.

    RECORD_MISSING: rows name a run that `runs` lacks. RECORD_BEHIND: the record of a run that has
    ended says less than its rows. EVENT_MISSING: rows are in no event. ROWS_MISSING: a record or an
    event names rows that the ledger does not hold.
    """

    RECORD_MISSING = "RECORD_MISSING"
    RECORD_BEHIND = "RECORD_BEHIND"
    EVENT_MISSING = "EVENT_MISSING"
    ROWS_MISSING = "ROWS_MISSING"


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """The events of the ledger and the runs in Dagster's storage.

    Attributes:
        named: One row per event: `run_id`, `rows`, `version_from`, `version_to` and `at`. An event
            names the rows of its run in the versions after the first, up to and including the
            second.
        runs: The runs that Dagster still knows, by id, as records without counts.
        kept_since: Runs that ended earlier may have been deleted with their events.
    """

    named: pl.DataFrame
    runs: Mapping[str, RunRecord]
    kept_since: datetime


EVENT_COLUMNS: dict[str, DataType | DataTypeClass] = {
    "run_id": pl.String,
    "rows": pl.Int64,
    "version_from": pl.Int64,
    "version_to": pl.Int64,
    "at": pl.Datetime("us", "UTC"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFinding:
    """One disagreement about one run.

    Attributes:
        rows: The number of rows concerned.
        version_from, version_to: The versions of the ledger concerned, if the kind is of events.
        record: The record that follows from the rows; None if a new record repairs nothing.
    """

    kind: FindingKind
    run_id: str
    rows: int
    detail: str
    version_from: int | None = None
    version_to: int | None = None
    record: RunRecord | None = None

    @property
    def repairable(self) -> bool:
        """Whether writing a record or an event repairs it."""
        return self.kind is not FindingKind.ROWS_MISSING


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
        events: The events since that date; None to compare rows and records only.
        grace: A run with a newer sign of life than this is skipped: its record may still come.
    """
    # Records before rows: a run that ends in between seems to lack its record, but is within the
    # grace period.
    stored = lake.runs.since(since - MARGIN)
    commits = LedgerProvenance(lake.updates.table).commits_by_run(since - MARGIN)
    begun = [*stored, *records_of_rows(commits, now).values()]
    earlier = {one.run_id for one in begun if one.started_at.date() < since}
    records = [one for one in stored if one.run_id not in earlier]
    commits = _without(commits, earlier)
    if events is not None:
        events = replace(events, named=_without(events.named, earlier))
    sessions = lake.sessions.history(SESSIONS_COMPARED)
    alive = {s.run_id for s in sessions if s.run_id is not None and s.is_alive(now)}
    return Verification(
        since=since,
        runs=commits.get_column("run_id").n_unique(),
        rows=int(commits.get_column("rows").sum()),
        records=len(records),
        events=None if events is None else events.named.height,
        doubled=find_doubled(lake.updates.table),
        findings=tuple(compare(commits, records, events, now=now, grace=grace, alive=alive)),
    )


def compare(
    commits: pl.DataFrame,
    records: Iterable[RunRecord],
    events: Events | None,
    *,
    now: datetime,
    grace: timedelta,
    alive: Collection[str],
) -> list[AuditFinding]:
    """Return every disagreement about runs that have ended; pure.

    Args:
        commits: See `LedgerProvenance.commits_by_run`.
        records: The newest record of each step.
        events: None to compare rows and records only.
        grace: A run with a newer sign of life than this is skipped: its record may still come.
        alive: Runs that own a login now; they are in progress.
    """
    recorded = {one.run_id: one for one in records if one.table_name == LEDGER}
    signs = [commits.select("run_id", at="committed_at")]
    if events is not None:
        signs.append(events.named.select("run_id", "at"))
    recent = pl.concat(signs).filter(pl.col("at") > now - grace)
    # A record that a repair wrote shows nothing about the run's life.
    in_progress = {*alive, *recent.get_column("run_id")} | {
        one.run_id
        for one in recorded.values()
        if one.recorded_by is RecordedBy.RUN and one.recorded_at > now - grace
    }
    commits = _without(commits, in_progress)
    rows = records_of_rows(commits, now)
    known = {} if events is None else events.runs
    found: list[AuditFinding] = []
    for run_id in {*rows, *recorded} - in_progress:
        record = recorded.get(run_id)
        new = rebuilt(record or rows[run_id], rows.get(run_id), known.get(run_id), now)
        found += _record_findings(record, new)
    if events is not None:
        found += _event_findings(
            commits, replace(events, named=_without(events.named, in_progress))
        )
    return sorted(found, key=lambda one: one.run_id)


def records_of_rows(commits: pl.DataFrame, now: datetime) -> dict[str, RunRecord]:
    """Return the records of runs as their rows show them; what only the run knew is null."""
    source, version = pl.col("source").first(), pl.col("ledger_version")
    runs = commits.group_by("run_id", maintain_order=True).agg(
        pl.col("session_id").first(),
        gateway_id=pl.col("gateway_id").first().replace("", None),
        step=pl.when(source == Source.STREAM).then(pl.lit(STREAM_STEP)).otherwise(pl.lit(LEDGER)),
        started_at=pl.col("committed_at").first(),
        rows=pl.col("rows").sum(),
        commits=pl.len().cast(pl.Int64),
        version_from=version.min() - 1,
        version_to=version.max(),
        first_batch_id=pl.col("batch_id").first(),
        last_batch_id=pl.col("batch_id").last(),
    )
    return {
        row["run_id"]: RunRecord(
            **row,
            job=None,
            result=RunResult.RUNNING,
            recorded_at=now,
            recorded_by=RecordedBy.AUDIT,
            table_name=LEDGER,
        )
        for row in runs.iter_rows(named=True)
    }


def rebuilt(
    record: RunRecord, rows: RunRecord | None, known: RunRecord | None, now: datetime
) -> RunRecord:
    """Return the record of a run with the counts of its rows.

    If the run recorded no end, the result is that of Dagster, or LOST.

    Args:
        record: The newest record of the run; without one, the same as `rows`.
        rows: The record as the rows show it; None without rows.
        known: The run as Dagster knows it.
    """
    if record is rows and known is not None:
        record = replace(record, job=known.job, started_at=known.started_at)
    if record.is_running:
        ended = known if known is not None and not known.is_running else None
        record = replace(
            record,
            result=ended.result if ended else RunResult.LOST,
            ended_at=ended.ended_at if ended else None,
        )
    counts = _NO_ROWS if rows is None else {name: getattr(rows, name) for name in _NO_ROWS}
    return replace(record, recorded_at=now, recorded_by=RecordedBy.AUDIT, **counts)


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


def _event_findings(commits: pl.DataFrame, events: Events) -> Iterator[AuditFinding]:
    version = pl.col("ledger_version")
    named = events.named.with_row_index("event")
    covered = (
        commits.select("run_id", "ledger_version", "rows")
        .join_where(
            named.select("event", "version_from", "version_to", named_run="run_id"),
            version > pl.col("version_from"),
            version <= pl.col("version_to"),
        )
        .filter(pl.col("run_id") == pl.col("named_run"))
    )
    held = covered.group_by("event").agg(held=pl.col("rows").sum())
    held = named.join(held, on="event", how="left").with_columns(pl.col("held").fill_null(0))
    for event in held.filter(pl.col("rows") > pl.col("held")).iter_rows(named=True):
        first, last = event["version_from"], event["version_to"]
        yield AuditFinding(
            kind=FindingKind.ROWS_MISSING,
            run_id=event["run_id"],
            rows=event["rows"] - event["held"],
            detail=f"an event names {event['rows']} rows of versions {first} to {last}, the ledger "
            f"holds {event['held']}",
        )
    # A run that Dagster does not know may have been deleted by its age, with its events.
    kept = pl.col("run_id").is_in([*events.runs, *named.get_column("run_id")])
    kept |= pl.col("committed_at").max().over("run_id") >= events.kept_since
    missing = (
        commits.filter(kept, version.is_not_null())
        .join(covered, on=["run_id", "ledger_version"], how="anti")
        .group_by("run_id")
        .agg(pl.col("rows").sum(), commits=pl.len(), first=version.min() - 1, last=version.max())
    )
    for run_id, rows, count, first, last in missing.iter_rows():
        yield AuditFinding(
            kind=FindingKind.EVENT_MISSING,
            run_id=run_id,
            rows=rows,
            version_from=first,
            version_to=last,
            detail=f"{rows} rows in {count} commits are in no event",
        )


def _without(rows: pl.DataFrame, run_ids: Collection[str]) -> pl.DataFrame:
    return rows.filter(~pl.col("run_id").is_in(list(run_ids)))
