"""The trace of an id: the run, session, batch, request and rows that belong together.

The history of a holding: each value with its source, its strategies and its open breaks.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any

import polars as pl

from position_sync_dagster.domain.closures import Closure
from position_sync_dagster.domain.gateway_session import GatewaySession
from position_sync_dagster.domain.instrument import parse_conid
from position_sync_dagster.domain.leg import Leg
from position_sync_dagster.domain.request import QueuedPosition
from position_sync_dagster.domain.run_record import RunRecord
from position_sync_dagster.errors import AmbiguousIdError, UnknownIdError
from position_sync_dagster.lake.breaks import Break
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.queue.lookup import beginning_with
from position_sync_dagster.lake.schema.codec import legs_of
from position_sync_dagster.lake.schema.ids import new_ids
from position_sync_dagster.lake.updates.provenance import IN_ORDER, LedgerProvenance, batches_of

SESSIONS_SEARCHED = 100_000
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
    if kind is IdKind.RUN:
        return _of_run(lake, ledger, found, limit)
    if kind is IdKind.REQUEST:
        return _of_request(lake, ledger, found, limit)
    column = "batch_id" if kind is IdKind.BATCH else "update_id"
    return _of_rows(lake, kind, found, ledger.with_id(column, found), limit)


def find_id(lake: Lake, ledger: LedgerProvenance, text: str) -> tuple[IdKind, str]:
    """Find the id that begins with the text, and its kind.

    A run without a record is searched for last: that reads a column of every file.

    Raises:
        UnknownIdError, AmbiguousIdError.
    """
    found: set[tuple[IdKind, str]] = set()
    if text:
        store = lake.queue.sync.store
        found |= {(IdKind.RUN, r.run_id) for r in lake.runs.beginning_with(text)}
        found |= {(IdKind.BATCH, i) for i in ledger.ids_beginning_with("batch_id", text)}
        found |= {(IdKind.UPDATE, i) for i in ledger.ids_beginning_with("update_id", text)}
        found |= {(IdKind.REQUEST, r.request_id) for r in beginning_with(store, text)}
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


def _of_run(lake: Lake, ledger: LedgerProvenance, run_id: str, limit: int) -> Trace:
    records = tuple(lake.runs.get(run_id))
    first, last = _dates(records)
    written = ledger.of_run(run_id, first=first, last=last, limit=limit)
    named = written.rows.get_column("session_id").drop_nulls()
    wanted = {*named, *(r.session_id for r in records if r.session_id)}
    return Trace(
        kind=IdKind.RUN,
        id=run_id,
        run_ids=(run_id,),
        runs=records,
        sessions=_sessions(lake, wanted, {run_id}),
        requests=(),
        batches=_plain(written.batches),
        batch_count=written.batch_count,
        rows=_plain(written.rows),
        row_count=written.count,
    )


def _of_request(lake: Lake, ledger: LedgerProvenance, request_id: str, limit: int) -> Trace:
    """Return the trace of a request: the rows written for it, and the older row that answers it."""
    (request,) = (
        one
        for one in beginning_with(lake.queue.sync.store, request_id)
        if one.request_id == request_id
    )
    near = new_ids(request.created_at, 1)
    since = (request.created_at - timedelta(days=1)).date()
    rows = ledger.of_request(request_id, [request_id, *near], since)
    answer = request.update_id
    if answer is not None and answer not in rows.get_column("update_id"):
        rows = pl.concat([ledger.with_id("update_id", answer), rows]).sort(IN_ORDER)
    return _of_rows(lake, IdKind.REQUEST, request_id, rows, limit, (request,))


def _of_rows(
    lake: Lake,
    kind: IdKind,
    found: str,
    rows: pl.DataFrame,
    limit: int,
    requests: tuple[QueuedPosition, ...] = (),
) -> Trace:
    batches = batches_of(rows.lazy()).collect()
    shown = rows.tail(limit)
    run_ids = tuple(shown.get_column("run_id").drop_nulls().unique(maintain_order=True))
    if not requests:
        asked = shown.get_column("request_id").drop_nulls().unique(maintain_order=True)
        store = lake.queue.sync.store
        requests = tuple(r for one in asked for r in beginning_with(store, one))
    return Trace(
        kind=kind,
        id=found,
        run_ids=run_ids,
        runs=tuple(record for one in run_ids for record in lake.runs.get(one)),
        sessions=_sessions(lake, set(shown.get_column("session_id").drop_nulls()), set()),
        requests=requests,
        batches=_plain(batches.tail(limit)),
        batch_count=batches.height,
        rows=_plain(shown),
        row_count=rows.height,
    )


def _dates(records: tuple[RunRecord, ...]) -> tuple[date | None, date | None]:
    """Return the dates between which the rows of a run lie, with one day added on each side."""
    if not records:
        return None, None
    day = timedelta(days=1)
    ends = [record.ended_at for record in records]
    last = None if None in ends else max(end for end in ends if end is not None)
    first = min(record.started_at for record in records)
    return (first - day).date(), None if last is None else (last + day).date()


def _sessions(lake: Lake, ids: set[str], run_ids: set[str]) -> tuple[GatewaySession, ...]:
    if not ids and not run_ids:
        return ()
    sessions = lake.sessions.history(SESSIONS_SEARCHED)
    return tuple(s for s in sessions if s.session_id in ids or s.run_id in run_ids)


def _plain(frame: pl.DataFrame) -> tuple[dict[str, Any], ...]:
    return tuple(frame.iter_rows(named=True))


BREAKS_SEARCHED = 100_000


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
        for one in (
            *lake.breaks.open_breaks(),
            *lake.breaks.closed_breaks(BREAKS_SEARCHED),
        )
        if (one.account, one.conid) == (account, conid)
    ]
    values = tuple(
        PastValue(
            row=row,
            strategies=strategies_at(memberships, row["timestamp"]),
            breaks=breaks_at(breaks, row["timestamp"]),
        )
        for row in rows.iter_rows(named=True)
    )
    of_holding = (pl.col("account") == account) & (pl.col("conid") == conid)
    closes = tuple(lake.closures.current(of_holding))
    return History(account=account, conid=conid, values=values, more=more, closes=closes)


def strategies_at(memberships: Iterable[Leg], at: datetime) -> tuple[str, ...]:
    """Return the strategies to which a leg belonged at a time; pure."""
    return tuple(
        sorted(
            {
                leg.strategy_id
                for leg in memberships
                if (leg.added_at is None or leg.added_at <= at)
                and (leg.removed_at is None or at < leg.removed_at)
            }
        )
    )


def breaks_at(breaks: Iterable[Break], at: datetime) -> tuple[dict[str, str], ...]:
    """Return the breaks that were open at a time, with the state that they had then; pure."""
    return tuple(
        {"break_id": one.break_id, "type": one.type.value, "state": _state(one, at)}
        for one in breaks
        if one.opened_at <= at and (one.resolved_at is None or at < one.resolved_at)
    )


def _state(one: Break, at: datetime) -> str:
    if one.accepted_at is not None and one.accepted_at <= at:
        return "ACCEPTED"
    confirmed = one.confirmed_at is not None and one.confirmed_at <= at
    return "CONFIRMED" if confirmed else "OPENED"
