"""The audit trail: everything that belongs to an id, and the past values of a holding.

The rows are the record of what was written; Dagster's events are an index of them.
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
from position_sync_dagster.domain.reconciliation import Break
from position_sync_dagster.domain.update import QueuedPosition
from position_sync_dagster.errors import AmbiguousIdError, UnknownIdError
from position_sync_dagster.lake.lake import Lake, breaks_at, lasted
from position_sync_dagster.lake.ledger_rows import (
    IN_ORDER,
    LastRows,
    LedgerProvenance,
    batches_of,
)
from position_sync_dagster.lake.schema.codec import legs_of
from position_sync_dagster.lake.schema.ids import new_ids

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
        run_ids: The runs that the rows name.
        rows: The last rows, as in the table; `row_count` is the number of all.
        batches: The last commits (`batch_id`, `version`, `rows` of the trace, `committed_at`), of
            which `version` is null for rows of older releases; `batch_count` is the number of all.
    """

    kind: IdKind
    id: str
    run_ids: tuple[str, ...]
    sessions: tuple[GatewaySession, ...]
    requests: tuple[QueuedPosition, ...]
    batches: tuple[dict[str, Any], ...]
    batch_count: int
    rows: tuple[dict[str, Any], ...]
    row_count: int


def trace(lake: Lake, text: str, *, limit: int) -> Trace:
    """Find everything that belongs to the id of a run, a batch, a row or a request.

    Args:
        lake: The tables.
        text: The id, or the beginning of it.
        limit: Maximum number of rows and of batches; the newest are returned.

    Raises:
        UnknownIdError: No table has such an id.
        AmbiguousIdError: Several ids begin with the text.
    """
    ledger = LedgerProvenance(lake.updates.table)
    kind, found = find_id(lake, ledger, text)
    requests: tuple[QueuedPosition, ...] = ()
    if kind is IdKind.RUN:
        written = ledger.of_run(found, limit=limit)
    elif kind is IdKind.REQUEST:
        requests = _requests(lake, [found])
        written = _last(_answers(ledger, *requests), limit)
    else:
        column = "batch_id" if kind is IdKind.BATCH else "update_id"
        written = _last(ledger.with_id(column, found), limit)
        requests = _requests(lake, _named(written.rows, "request_id"))
    of_sessions = pl.col("session_id").is_in(_named(written.rows, "session_id"))
    return Trace(
        kind=kind,
        id=found,
        run_ids=tuple([found] if kind is IdKind.RUN else _named(written.rows, "run_id")),
        sessions=tuple(lake.sessions.history(None, of_sessions | (pl.col("run_id") == found))),
        requests=requests,
        batches=_plain(written.batches),
        batch_count=written.batch_count,
        rows=_plain(written.rows),
        row_count=written.count,
    )


def find_id(lake: Lake, ledger: LedgerProvenance, text: str) -> tuple[IdKind, str]:
    """Find the id that begins with the text, and its kind.

    A run is searched for last: that reads a column of every file.

    Raises:
        UnknownIdError, AmbiguousIdError.
    """
    found: set[tuple[IdKind, str]] = set()
    if text:
        queue = lake.queue.sync
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
class HoldingHistory:
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
) -> HoldingHistory:
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
    return HoldingHistory(account=account, conid=conid, values=values, more=more, closes=closes)


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
