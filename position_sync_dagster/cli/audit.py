"""The audit trail, `trace` and `history`: what belongs to an id, and past values of a holding.

The rows are the record of what was written; Dagster's events are an index of them.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime
from itertools import chain
from typing import Annotated, Any

import polars as pl
import typer

from position_sync_dagster.cli import options
from position_sync_dagster.dagster_files import dagster_home
from position_sync_dagster.domain.instrument import parse_conid
from position_sync_dagster.domain.leg import Leg
from position_sync_dagster.domain.queue_request import QueuedPosition
from position_sync_dagster.domain.reconciliation import Break
from position_sync_dagster.errors import AmbiguousIdError, UnknownIdError
from position_sync_dagster.lake.lake import Lake, breaks_at, lasted
from position_sync_dagster.lake.provenance import LedgerProvenance
from position_sync_dagster.lake.schema import legs_of
from position_sync_dagster.terminal import output
from position_sync_dagster.terminal.text import number, quantity

# Maximum number of ids in the error about an ambiguous prefix.
CANDIDATES = 5


def find_trace(lake: Lake, text: str, *, limit: int) -> dict[str, Any]:
    """Find everything that belongs to the id of a run, a batch, a row or a request.

    Args:
        lake: The tables.
        text: The id, or the beginning of it.
        limit: Maximum number of rows and of batches; the newest are returned.

    Returns:
        The `kind`: RUN, BATCH, UPDATE or REQUEST. `run_ids`: the runs that the rows name. `rows`:
        the last ones, as in the table, of `row_count`. `batches`: the last commits (`batch_id`,
        `version`, `rows` of the trace, `committed_at`), of `batch_count`; `version` is null for
        rows of older releases. The `sessions` and `requests`.

    Raises:
        UnknownIdError: No table has such an id.
        AmbiguousIdError: Several ids begin with the text.
    """
    ledger = LedgerProvenance(lake.updates.table)
    kind, found = find_id(lake, ledger, text)
    requests: list[QueuedPosition] = []
    if kind == "REQUEST":
        requests = _requests(lake, [found])
        written = ledger.of_request(requests[0], limit=limit)
    else:
        written = ledger.with_id(f"{kind.lower()}_id", found, limit=limit)
        if kind != "RUN":
            requests = _requests(lake, _named(written.rows, "request_id"))
    of_sessions = pl.col("session_id").is_in(_named(written.rows, "session_id"))
    return {
        "kind": kind,
        "id": found,
        "run_ids": [found] if kind == "RUN" else _named(written.rows, "run_id"),
        "sessions": lake.sessions.history(None, of_sessions | (pl.col("run_id") == found)),
        "requests": requests,
        "batches": written.batches.to_dicts(),
        "batch_count": written.batch_count,
        "rows": written.rows.to_dicts(),
        "row_count": written.count,
    }


def find_id(lake: Lake, ledger: LedgerProvenance, text: str) -> tuple[str, str]:
    """Find the id that begins with the text, and its kind.

    A run is searched for last: that reads a column of every file.

    Raises:
        UnknownIdError, AmbiguousIdError.
    """
    found: set[tuple[str, str]] = set()
    if text:
        found |= {("REQUEST", one.request_id) for one in lake.queue.sync.beginning_with(text)}
        for kind in ("BATCH", "UPDATE", "RUN"):
            if kind != "RUN" or not found:
                begin = ledger.ids_beginning_with(f"{kind.lower()}_id", text)
                found |= {(kind, one) for one in begin}
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


def _requests(lake: Lake, ids: Iterable[str]) -> list[QueuedPosition]:
    """Return the requests with these ids."""
    queue = lake.queue.sync
    return [r for one in ids for r in queue.beginning_with(one) if r.request_id == one]


def _named(rows: pl.DataFrame, column: str) -> list[str]:
    """Return the ids in a column, each once, in the order of the rows."""
    return rows.get_column(column).drop_nulls().unique(maintain_order=True).to_list()


def read_history(
    lake: Lake, account: str, conid: int, *, day: date | None = None, limit: int
) -> dict[str, Any]:
    """Read the newest values of a holding.

    Args:
        day: Only the values of this UTC date.
        limit: Maximum number of values.

    Returns:
        `values`, oldest first: for each its `row`, as in the table, and what held at its time: the
        `strategies` of the leg, and the open `breaks` of the holding, each with its id, type and
        state. `more`: whether older values exist. `closes`: why it closed, each time, as far as
        that is known now.

    Raises:
        UnknownIdError: The holding has no row, on that day if one is given.
    """
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
    known = lake.breaks.all_breaks()
    breaks = [one for one in known if (one.account, one.conid) == (account, conid)]
    of_holding = (pl.col("account") == account) & (pl.col("conid") == conid)
    return {
        "account": account,
        "conid": conid,
        "values": [_past_value(row, memberships, breaks) for row in rows.iter_rows(named=True)],
        "more": more,
        "closes": lake.closures.current(of_holding),
    }


def _past_value(
    row: dict[str, Any], memberships: Iterable[Leg], breaks: Iterable[Break]
) -> dict[str, Any]:
    at = row["timestamp"]
    return {
        "row": row,
        "strategies": sorted(
            {leg.strategy_id for leg in memberships if lasted(leg.added_at, leg.removed_at, at)}
        ),
        "breaks": [
            {"break_id": one.break_id, "type": one.type.value, "state": _state(one, at)}
            for one in breaks_at(breaks, at)
        ],
    }


def _state(one: Break, at: datetime) -> str:
    if one.accepted_at is not None and one.accepted_at <= at:
        return "ACCEPTED"
    confirmed = one.confirmed_at is not None and one.confirmed_at <= at
    return "CONFIRMED" if confirmed else "OPENED"


Limit = Annotated[
    int, typer.Option(min=1, max=100_000, help="Show at most this many rows, the last ones.")
]


def trace(
    id_: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="The id of a run, a batch, a row or a request, or its beginning."
        ),
    ],
    limit: Limit = 10,
    json: options.Json = False,
    home: options.HomeFolder = None,
) -> None:
    """Show what belongs to an id: run, session, request, batches and rows, in both directions."""
    found = find_trace(options.opened(home)[1], id_, limit=limit)
    events = _events_of({one["version"]: one["committed_at"] for one in found["batches"]})
    lines = chain(trace_lines(found), (f"event    {one}" for one in events))
    output.show({**found, "events": events}, lines, json=json)


def _events_of(versions: Mapping[int | None, datetime | None]) -> list[str]:
    """Return Dagster's events that report these versions of the ledger; none without a Dagster."""
    home = dagster_home()
    known = {one: at for one, at in versions.items() if one is not None and at is not None}
    if not known or not (home / "history").is_dir():
        return []
    from position_sync_dagster.defs.drain import events_with

    return events_with(home, known)


def trace_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Return a trace as lines of at most 80 columns; only a reason may be longer."""
    yield f"{found['kind'].lower():<8} {found['id']}"
    if found["kind"] != "RUN":
        yield from (f"run      {run_id}" for run_id in found["run_ids"])
    for session in found["sessions"]:
        yield f"session  {session.session_id}"
        yield (
            f"         {session.owner} {session.state}, {session.gateway_id}, "
            f"since {stamp(session.started_at)}"
        )
    for request in found["requests"]:
        if found["kind"] != "REQUEST":
            yield f"request  {request.request_id}"
        yield (
            f"         {request.status}, {request.reason}, {request.account or 'any account'}:"
            f"{request.conid} {request.symbol}, {stamp(request.created_at)}"
        )
        if request.update_id:
            yield f"         answered by the row {request.update_id}"
        if request.confirmed_at:
            yield f"         the broker confirmed its value at {stamp(request.confirmed_at)} UTC"
        if request.error_message:
            yield f"         {request.error_message}"
    if not found["row_count"]:
        yield "rows     none in position_updates"
        return
    yield f"batches  {found['batch_count']:,}{_last(len(found['batches']), found['batch_count'])}"
    for batch in found["batches"]:
        version = "–" if batch["version"] is None else f"v{batch['version']}"
        at = stamp(batch["committed_at"])
        yield f"  {batch['batch_id']} {version:>8} {batch['rows']:>5} rows  {at}"
    yield f"rows     {found['row_count']:,}{_last(len(found['rows']), found['row_count'])}"
    for row in found["rows"]:
        value = f"{quantity(row['position'])} × {number(row['market_price'])}"
        yield f"  {row['update_id']}  {row['account']}:{row['conid']} {value}"


def stamp(at: datetime | None) -> str:
    """Return a UTC time to the second; a dash if it is unknown."""
    return "–" if at is None else f"{at:%Y-%m-%d %H:%M:%S}"


def _last(shown: int, count: int) -> str:
    return "" if shown == count else f", the last {shown:,} (--limit shows more)"


def history(
    holding: Annotated[
        str, typer.Argument(metavar="ACCOUNT:CONID", help="The holding, as DU1234567:728937835.")
    ],
    day: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="Only the values of this date, in UTC."),
    ] = None,
    limit: Annotated[
        int,
        typer.Option(min=1, max=100_000, help="Show at most this many values, the newest ones."),
    ] = 20,
    json: options.Json = False,
    home: options.HomeFolder = None,
) -> None:
    """Show each value of a holding with its source, batch, run, request, break and strategy."""
    account, conid = parse_holding(holding)
    on, lake = day and day.date(), options.opened(home)[1]
    found = read_history(lake, account, conid, day=on, limit=limit)
    output.show(found, history_lines(found), json=json)


def parse_holding(text: str) -> tuple[str, int]:
    """Return account and conid of a holding.

    >>> parse_holding("DU1234567:728937835")
    ('DU1234567', 728937835)
    """
    account, _, conid = text.rpartition(":")
    if not account:
        raise typer.BadParameter(f"{text[:80]!r} is no holding; write DU1234567:728937835.")
    return account, parse_conid(conid)


def history_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Return a history as lines of at most 80 columns."""
    symbol = found["values"][-1]["row"]["symbol"]
    yield f"{found['account']}:{found['conid']} {symbol}"
    if found["more"]:
        yield f"the newest {len(found['values']):,} values; --limit shows more"
    for one in found["values"]:
        yield from _value_lines(one)
    for close in found["closes"]:
        profit = "" if close.realized_pnl is None else f"  {close.realized_pnl:+,.2f}"
        yield f"{stamp(close.closed_at)}  closed {close.quantity:+g}: {close.cause}, {close.stage}"
        yield f"    why       {close.detail}{profit and f'{profit} {close.currency}'}"


def _value_lines(one: dict[str, Any]) -> Iterator[str]:
    row = one["row"]
    kind = f" {row['price_kind']}" if row["price_kind"] else ""
    yield (
        f"{stamp(row['timestamp'])}  {quantity(row['position'])} × "
        f"{number(row['market_price'])}{kind} = {number(row['market_value'])} "
        f"{row['currency']}  {row['source']}/{row['value_source']}"
    )
    links = {
        "row": row["update_id"],
        "batch": row["batch_id"],
        "run": row["run_id"],
        "request": row["request_id"],
        "strategy": ", ".join(one["strategies"]),
        "break": ", ".join(f"{b['type']} {b['state']} {b['break_id']}" for b in one["breaks"]),
        "note": row["note"],
    }
    for name, value in links.items():
        if value:
            yield f"    {name:<9} {value}"
