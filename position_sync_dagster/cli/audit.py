"""The commands of the audit trail: `trace` and `history`."""

from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from itertools import chain
from typing import Annotated

import typer

from position_sync_dagster.cli import options
from position_sync_dagster.dagster_files import dagster_home
from position_sync_dagster.sync import audit as audit_trail
from position_sync_dagster.terminal import output
from position_sync_dagster.terminal.text import number, quantity

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
    found = audit_trail.trace(options.opened(home)[1], id_, limit=limit)
    versions = [one["version"] for one in found.batches if one["version"] is not None]
    events = _events_of(versions)
    lines = chain(trace_lines(found), (f"event    {one}" for one in events))
    output.show({**asdict(found), "events": events}, lines, json=json)


def _events_of(versions: list[int]) -> list[str]:
    """Return Dagster's events that report these versions of the ledger; none without a Dagster."""
    home = dagster_home()
    if not versions or not (home / "history").is_dir():
        return []
    from position_sync_dagster.defs.drain import events_with

    return events_with(home, versions)


def trace_lines(found: audit_trail.Trace) -> Iterator[str]:
    """Return a trace as lines of at most 80 columns; only a reason may be longer."""
    yield f"{found.kind.lower():<8} {found.id}"
    if found.kind != "RUN":
        yield from (f"run      {run_id}" for run_id in found.run_ids)
    for session in found.sessions:
        yield f"session  {session.session_id}"
        yield (
            f"         {session.owner} {session.state}, {session.gateway_id}, "
            f"since {stamp(session.started_at)}"
        )
    for request in found.requests:
        if found.kind != "REQUEST":
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
    if not found.row_count:
        yield "rows     none in position_updates"
        return
    yield f"batches  {found.batch_count:,}{_last(len(found.batches), found.batch_count)}"
    for batch in found.batches:
        version = "–" if batch["version"] is None else f"v{batch['version']}"
        at = stamp(batch["committed_at"])
        yield f"  {batch['batch_id']} {version:>8} {batch['rows']:>5} rows  {at}"
    yield f"rows     {found.row_count:,}{_last(len(found.rows), found.row_count)}"
    for row in found.rows:
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
    found = audit_trail.history(lake, account, conid, day=on, limit=limit)
    output.show(found, history_lines(found), json=json)


def parse_holding(text: str) -> tuple[str, int]:
    """Return account and conid of a holding.

    >>> parse_holding("DU1234567:728937835")
    ('DU1234567', 728937835)
    """
    account, _, conid = text.rpartition(":")
    # A conid has at most 10 digits.
    if not account or not conid.isascii() or not conid.isdigit() or len(conid) > 10:
        raise typer.BadParameter(f"{text[:80]!r} is no holding; write DU1234567:728937835.")
    return account, int(conid)


def history_lines(found: audit_trail.HoldingHistory) -> Iterator[str]:
    """Return a history as lines of at most 80 columns."""
    symbol = found.values[-1].row["symbol"]
    yield f"{found.account}:{found.conid} {symbol}"
    if found.more:
        yield f"the newest {len(found.values):,} values; --limit shows more"
    for one in found.values:
        yield from _value_lines(one)
    for close in found.closes:
        profit = "" if close.realized_pnl is None else f"  {close.realized_pnl:+,.2f}"
        yield f"{stamp(close.closed_at)}  closed {close.quantity:+g}: {close.cause}, {close.stage}"
        yield f"    why       {close.detail}{profit and f'{profit} {close.currency}'}"


def _value_lines(one: audit_trail.PastValue) -> Iterator[str]:
    row = one.row
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
        "strategy": ", ".join(one.strategies),
        "break": ", ".join(f"{b['type']} {b['state']} {b['break_id']}" for b in one.breaks),
        "note": row["note"],
    }
    for name, value in links.items():
        if value:
            yield f"    {name:<9} {value}"
