"""The audit trail, `trace` and `history`: what belongs to an id, and past values of a holding.

The rows are the record of what was written; Dagster's events are an index of them.
"""

from collections.abc import Iterable
from datetime import date, datetime
from typing import Annotated, Any

import typer
from polars import col

from position_sync_dagster.cli import options
from position_sync_dagster.cli.app import app
from position_sync_dagster.domain.instrument import parse_conid
from position_sync_dagster.domain.queue_request import QueuedPosition
from position_sync_dagster.errors import UnknownIdError
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.reports import provenance
from position_sync_dagster.money.reports.columns import printable
from position_sync_dagster.terminal import output


def find_trace(lake: MoneyLake, id_: str) -> dict[str, Any]:
    """Find what belongs to the id of a batch, a row or a request.

    Returns:
        The `requests`, the `sessions`, and the `rows`, as in their tables.

    Raises:
        UnknownIdError: No table has such an id.
    """
    ledger = lake.updates.table
    requests = _requests(lake, [id_])
    if requests:
        rows = provenance.rows_of_request(ledger, requests[0])
    else:
        rows = provenance.rows_with_id(ledger, id_)
        requests = _requests(lake, rows["request_id"].drop_nulls().unique(maintain_order=True))
    if not requests and rows.is_empty():
        raise UnknownIdError(
            f"No batch, row or request has the id {id_[:80]!r}.",
            remedy="Copy the id from `position-sync history` or from a table.",
        )

    session_ids = rows["session_id"].drop_nulls().unique()
    wrote_rows = col.session_id.is_in(session_ids.to_list())
    return {
        "requests": requests,
        "sessions": lake.sessions.history(None, wrote_rows),
        "rows": rows.to_dicts(),
    }


def _requests(lake: MoneyLake, ids: Iterable[str]) -> list[QueuedPosition]:
    """Return the requests with these ids."""
    requests: list[QueuedPosition] = []
    for id_ in ids:
        candidates = lake.queue.sync.beginning_with(id_)
        requests += [request for request in candidates if request.request_id == id_]
    return requests


def read_history(
    lake: MoneyLake, account: str, conid: int, *, day: date | None = None, limit: int
) -> dict[str, Any]:
    """Read the newest values of a holding.

    Args:
        day: Only the values of this UTC date.
        limit: Maximum number of values.

    Returns:
        `values`, oldest first: rows as in the table. `more`: whether older values exist. `closes`:
        why it closed, each time, as far as that is known now.

    Raises:
        UnknownIdError: The holding has no row, on that day if one is given.
    """
    rows, more = provenance.rows_of_holding(
        lake.updates.table, account, conid, day=day, limit=limit
    )
    if rows.is_empty():
        when = "" if day is None else f" on {day.isoformat()}"
        raise UnknownIdError(
            f"The holding {account[:40]}:{conid} has no row{when}.",
            remedy="`position-sync positions --closed` lists accounts and conids; days are in UTC.",
        )

    is_of_holding = (col.account == account) & (col.conid == conid)
    return {
        "account": account,
        "conid": conid,
        "values": rows.to_dicts(),
        "more": more,
        "closes": lake.closures.current(is_of_holding),
    }


@app.command()
def trace(
    id_: Annotated[
        str, typer.Argument(metavar="ID", help="The id of a batch, a row or a request.")
    ],
    json: options.Json = False,
    home: options.HomeFolder = None,
) -> None:
    """Show what belongs to an id: requests, sessions and rows."""
    traced = find_trace(options.opened(home)[1], id_)
    if json:
        output.print_json(traced)
        return

    for name, columns in _TRACED.items():
        rows = traced[name]
        typer.echo(f"{name}: {len(rows):,}")
        if rows:
            output.print_table(rows, columns)


# What a trace has on a terminal of each kind of thing; times are in UTC.
_TRACED = {
    "sessions": ("session_id", "gateway_id", "owner", "state", "started_at"),
    "requests": (
        "request_id", "status", "reason", "account", "conid", "symbol", "created_at", "update_id",
        "confirmed_at", "error_message",
    ),
    "rows": (
        "update_id", "account", "conid", "position", "market_price", "batch_id", "run_id",
        "ledger_version", "committed_at",
    ),
}  # fmt: skip


@app.command()
def history(
    holding: Annotated[
        str, typer.Argument(metavar="ACCOUNT:CONID", help="The holding, as DU1234567:728937835.")
    ],
    day: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="Only the values of this date, in UTC."),
    ] = None,
    limit: options.Limit = 20,
    json: options.Json = False,
    home: options.HomeFolder = None,
) -> None:
    """Show each value of a holding with its source, batch, run and request, and why it closed."""
    account, conid = parse_holding(holding)
    _, lake = options.opened(home)
    past = read_history(lake, account, conid, day=day and day.date(), limit=limit)
    if json:
        output.print_json(past)
        return

    values = past["values"]
    typer.echo(f"{holding} {printable(values[-1]['symbol'])}")
    if past["more"]:
        typer.echo(f"the newest {len(values):,} values; --limit shows more")
    output.print_table(values, _VALUE)
    if past["closes"]:
        output.print_table(past["closes"], _CLOSE)


def parse_holding(text: str) -> tuple[str, int]:
    """Return account and conid of a holding.

    >>> parse_holding("DU1234567:728937835")
    ('DU1234567', 728937835)
    """
    account, _, conid = text.rpartition(":")
    if not account:
        raise typer.BadParameter(
            f"{text[:80]!r} is no holding; write DU1234567:728937835, as `positions` has account "
            "and conid."
        )
    return account, parse_conid(conid)


# What a value and a close have on a terminal; times are in UTC.
_VALUE = (
    "timestamp", "position", "market_price", "price_kind", "market_value", "currency", "source",
    "value_source", "update_id", "batch_id", "request_id", "run_id", "note",
)  # fmt: skip
_CLOSE = ("closed_at", "quantity", "cause", "stage", "detail", "realized_pnl", "currency")
