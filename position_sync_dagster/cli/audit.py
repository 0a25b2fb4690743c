"""The audit trail, `trace` and `history`: what belongs to an id, and past values of a holding.

The rows are the record of what was written; Dagster's events are an index of them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
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
from position_sync_dagster.lake.ledger_rows import LedgerProvenance
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
    kind, traced_id = find_id(lake, ledger, text)
    requests: list[QueuedPosition] = []
    if kind == "REQUEST":
        requests = _requests(lake, [traced_id])
        written = ledger.of_request(requests[0], limit=limit)
    else:
        written = ledger.with_id(f"{kind.lower()}_id", traced_id, limit=limit)
        if kind != "RUN":
            requests = _requests(lake, _named(written.rows, "request_id"))

    run_ids = [traced_id] if kind == "RUN" else _named(written.rows, "run_id")
    session_ids = _named(written.rows, "session_id")
    wrote_rows = pl.col("session_id").is_in(session_ids)
    ran_in_run = pl.col("run_id") == traced_id
    sessions = lake.sessions.history(None, wrote_rows | ran_in_run)
    return {
        "kind": kind,
        "id": traced_id,
        "run_ids": run_ids,
        "sessions": sessions,
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
    beginning = _ids_beginning_with(lake, ledger, text) if text else set()
    exact = {(kind, id_) for kind, id_ in beginning if id_ == text}
    candidates = sorted(exact or beginning)
    ids = {id_ for _, id_ in candidates}
    beginning_of_ids = repr(text[:80])
    if not ids:
        raise UnknownIdError(
            f"No run, batch, row or request has an id that begins with {beginning_of_ids}.",
            remedy="Copy the id from Dagster, from `position-sync history` or from a table.",
        )

    if len(ids) > 1:
        first = [f"{kind.lower()} {id_}" for kind, id_ in candidates[:CANDIDATES]]
        named = ", ".join(first)
        end = ", …" if len(candidates) > CANDIDATES else "."
        raise AmbiguousIdError(
            f"{len(ids)} ids begin with {beginning_of_ids}: {named}{end}",
            remedy="Give more characters of the id.",
        )
    return max(candidates)  # a row may have the id of its request: the row names the request too


def _ids_beginning_with(lake: Lake, ledger: LedgerProvenance, text: str) -> set[tuple[str, str]]:
    """Return kind and id of all that begin with the text; runs only where nothing else does."""
    beginning = {
        ("REQUEST", request.request_id) for request in lake.queue.sync.beginning_with(text)
    }
    for kind in ("BATCH", "UPDATE", "RUN"):
        if kind == "RUN" and beginning:
            break

        for id_ in ledger.ids_beginning_with(f"{kind.lower()}_id", text):
            beginning.add((kind, id_))
    return beginning


def _requests(lake: Lake, ids: Iterable[str]) -> list[QueuedPosition]:
    """Return the requests with these ids."""
    requests: list[QueuedPosition] = []
    for id_ in ids:
        for request in lake.queue.sync.beginning_with(id_):
            if request.request_id == id_:
                requests.append(request)
    return requests


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

    memberships = []
    for leg in legs_of(lake.registry.table.rows()):
        if leg.conid == conid and leg.account in (None, account):
            memberships.append(leg)

    breaks = []
    for brk in lake.breaks.all_breaks():
        if brk.account == account and brk.conid == conid:
            breaks.append(brk)

    values = [_past_value(row, memberships, breaks) for row in rows.iter_rows(named=True)]
    is_of_account = pl.col("account") == account
    is_of_contract = pl.col("conid") == conid
    closes = lake.closures.current(is_of_account & is_of_contract)
    past: dict[str, Any] = {"account": account, "conid": conid}
    past["values"] = values
    past["more"] = more
    past["closes"] = closes
    return past


def _past_value(
    row: dict[str, Any], memberships: Iterable[Leg], breaks: Iterable[Break]
) -> dict[str, Any]:
    at = row["timestamp"]
    strategies = set()
    for leg in memberships:
        if lasted(leg.added_at, leg.removed_at, at):
            strategies.add(leg.strategy_id)

    open_breaks = []
    for brk in breaks_at(breaks, at):
        state = _state(brk, at)
        open_breaks.append({"break_id": brk.break_id, "type": brk.type.value, "state": state})
    return {"row": row, "strategies": sorted(strategies), "breaks": open_breaks}


def _state(brk: Break, at: datetime) -> str:
    if brk.accepted_at is not None and brk.accepted_at <= at:
        return "ACCEPTED"
    if brk.confirmed_at is not None and brk.confirmed_at <= at:
        return "CONFIRMED"
    return "OPENED"


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
    _, lake = options.opened(home)
    traced = find_trace(lake, id_, limit=limit)
    committed_at = {batch["version"]: batch["committed_at"] for batch in traced["batches"]}
    events = _events_of(committed_at)

    lines = [*trace_lines(traced), *(f"event    {event}" for event in events)]
    output.show({**traced, "events": events}, lines, json=json)


def _events_of(committed_at: Mapping[int | None, datetime | None]) -> list[str]:
    """Return Dagster's events that report versions of the ledger; none without a Dagster.

    Args:
        committed_at: The time of each version; rows of older releases lack either.
    """
    times_of_versions: dict[int, datetime] = {}
    for version, at in committed_at.items():
        if version is not None and at is not None:
            times_of_versions[version] = at

    home = dagster_home()
    if not times_of_versions or not (home / "history").is_dir():
        return []
    from position_sync_dagster.defs.drain import events_with

    return events_with(home, times_of_versions)


def trace_lines(trace: Mapping[str, Any]) -> Iterator[str]:
    """Return a trace as lines of at most 80 columns; only a reason may be longer."""
    kind = trace["kind"]
    yield f"{kind.lower():<8} {trace['id']}"
    if kind != "RUN":
        yield from (f"run      {run_id}" for run_id in trace["run_ids"])

    for session in trace["sessions"]:
        owner = f"{session.owner} {session.state}"
        since = stamp(session.started_at)
        yield f"session  {session.session_id}"
        yield f"         {owner}, {session.gateway_id}, since {since}"

    for request in trace["requests"]:
        if kind != "REQUEST":
            yield f"request  {request.request_id}"
        yield from _request_lines(request)

    if not trace["row_count"]:
        yield "rows     none in position_updates"
        return
    yield from _batch_lines(trace["batches"], trace["batch_count"])
    yield from _row_lines(trace["rows"], trace["row_count"])


def _request_lines(request: QueuedPosition) -> Iterator[str]:
    account = request.account or "any account"
    holding = f"{account}:{request.conid} {request.symbol}"
    created_at = stamp(request.created_at)
    yield f"         {request.status}, {request.reason}, {holding}, {created_at}"
    if request.update_id:
        yield f"         answered by the row {request.update_id}"
    if request.confirmed_at:
        yield f"         the broker confirmed its value at {stamp(request.confirmed_at)} UTC"
    if request.error_message:
        yield f"         {request.error_message}"


def _batch_lines(batches: Sequence[Mapping[str, Any]], count: int) -> Iterator[str]:
    yield f"batches  {count:,}{_last(len(batches), count)}"
    for batch in batches:
        version = "–" if batch["version"] is None else f"v{batch['version']}"
        name = f"{batch['batch_id']} {version:>8}"
        at = stamp(batch["committed_at"])
        yield f"  {name} {batch['rows']:>5} rows  {at}"


def _row_lines(rows: Sequence[Mapping[str, Any]], count: int) -> Iterator[str]:
    yield f"rows     {count:,}{_last(len(rows), count)}"
    for row in rows:
        holding = f"{row['account']}:{row['conid']}"
        value = f"{quantity(row['position'])} × {number(row['market_price'])}"
        yield f"  {row['update_id']}  {holding} {value}"


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
    _, lake = options.opened(home)
    utc_date = None if day is None else day.date()
    past = read_history(lake, account, conid, day=utc_date, limit=limit)
    output.show(past, history_lines(past), json=json)


def parse_holding(text: str) -> tuple[str, int]:
    """Return account and conid of a holding.

    >>> parse_holding("DU1234567:728937835")
    ('DU1234567', 728937835)
    """
    account, _, conid = text.rpartition(":")
    if not account:
        raise typer.BadParameter(f"{text[:80]!r} is no holding; write DU1234567:728937835.")
    return account, parse_conid(conid)


def history_lines(past: Mapping[str, Any]) -> Iterator[str]:
    """Return a history as lines of at most 80 columns."""
    values = past["values"]
    yield f"{past['account']}:{past['conid']} {values[-1]['row']['symbol']}"
    if past["more"]:
        yield f"the newest {len(values):,} values; --limit shows more"

    for value in values:
        yield from _value_lines(value)

    for close in past["closes"]:
        profit = ""
        if close.realized_pnl is not None:
            profit = f"  {close.realized_pnl:+,.2f} {close.currency}"
        cause = f"{close.cause}, {close.stage}"
        yield f"{stamp(close.closed_at)}  closed {close.quantity:+g}: {cause}"
        yield f"    why       {close.detail}{profit}"


def _value_lines(value: dict[str, Any]) -> Iterator[str]:
    row = value["row"]
    kind = f" {row['price_kind']}" if row["price_kind"] else ""
    price = f"{number(row['market_price'])}{kind}"
    worth = f"{number(row['market_value'])} {row['currency']}"
    source = f"{row['source']}/{row['value_source']}"
    held = f"{stamp(row['timestamp'])}  {quantity(row['position'])}"
    yield f"{held} × {price} = {worth}  {source}"

    breaks = [f"{brk['type']} {brk['state']} {brk['break_id']}" for brk in value["breaks"]]
    links = {"row": row["update_id"], "batch": row["batch_id"], "run": row["run_id"]}
    links["request"] = row["request_id"]
    links["strategy"] = ", ".join(value["strategies"])
    links["break"] = ", ".join(breaks)
    links["note"] = row["note"]
    for name, link in links.items():
        if link:
            yield f"    {name:<9} {link}"
