"""The audit trail, `trace` and `history`: what belongs to an id, and past values of a holding.

The rows are the record of what was written; Dagster's events are an index of them.
"""

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from typing import Annotated, Any

import polars as pl
import typer

from position_sync_dagster.cli import options
from position_sync_dagster.cli.app import app
from position_sync_dagster.dagster_files import dagster_home
from position_sync_dagster.domain.instrument import parse_conid
from position_sync_dagster.domain.leg import Leg, few
from position_sync_dagster.domain.queue_request import QueuedPosition
from position_sync_dagster.domain.reconciliation import Break
from position_sync_dagster.errors import AmbiguousIdError, UnknownIdError
from position_sync_dagster.lake.schema import legs_of
from position_sync_dagster.money.as_of import breaks_at, lasted
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.reports.columns import printable
from position_sync_dagster.money.reports.provenance import LedgerProvenance
from position_sync_dagster.terminal import output

# Maximum number of ids in the error about an ambiguous prefix.
CANDIDATES = 5


def find_trace(lake: MoneyLake, text: str, *, limit: int) -> dict[str, Any]:
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
    wrote_rows = pl.col("session_id").is_in(_named(written.rows, "session_id"))
    ran_in_run = pl.col("run_id") == traced_id
    return {
        "kind": kind,
        "id": traced_id,
        "run_ids": run_ids,
        "sessions": lake.sessions.history(None, wrote_rows | ran_in_run),
        "requests": requests,
        "batches": written.batches.to_dicts(),
        "batch_count": written.batch_count,
        "rows": written.rows.to_dicts(),
        "row_count": written.count,
    }


# The kinds of ids in the order in which they are searched for: a row may have the id of its
# request, which it names too. For a run a column of every file is read.
KINDS = ("UPDATE", "REQUEST", "BATCH", "RUN")


def find_id(lake: MoneyLake, ledger: LedgerProvenance, text: str) -> tuple[str, str]:
    """Find the id that is the text or begins with it, and its kind.

    Raises:
        UnknownIdError, AmbiguousIdError.
    """
    beginning = repr(text[:80])
    for kind in KINDS if text else ():
        if kind == "REQUEST":
            ids = [request.request_id for request in lake.queue.sync.beginning_with(text)]
        else:
            ids = ledger.ids_beginning_with(f"{kind.lower()}_id", text)

        if text in ids:
            return kind, text
        if len(ids) == 1:
            return kind, ids[0]
        if ids:
            raise AmbiguousIdError(
                f"{len(ids)} ids begin with {beginning}: {few(ids, CANDIDATES)}.",
                remedy="Give more characters of the id.",
            )

    raise UnknownIdError(
        f"No run, batch, row or request has an id that begins with {beginning}.",
        remedy="Copy the id from Dagster, from `position-sync history` or from a table.",
    )


def _requests(lake: MoneyLake, ids: Iterable[str]) -> list[QueuedPosition]:
    """Return the requests with these ids."""
    return [
        request
        for id_ in ids
        for request in lake.queue.sync.beginning_with(id_)
        if request.request_id == id_
    ]


def _named(rows: pl.DataFrame, column: str) -> list[str]:
    """Return the ids in a column, each once, in the order of the rows."""
    return rows.get_column(column).drop_nulls().unique(maintain_order=True).to_list()


def read_history(
    lake: MoneyLake, account: str, conid: int, *, day: date | None = None, limit: int
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

    breaks = [
        brk for brk in lake.breaks.all_breaks() if brk.account == account and brk.conid == conid
    ]

    is_of_holding = (pl.col("account") == account) & (pl.col("conid") == conid)
    return {
        "account": account,
        "conid": conid,
        "values": [_past_value(row, memberships, breaks) for row in rows.iter_rows(named=True)],
        "more": more,
        "closes": lake.closures.current(is_of_holding),
    }


def _past_value(
    row: dict[str, Any], memberships: Iterable[Leg], breaks: Iterable[Break]
) -> dict[str, Any]:
    at = row["timestamp"]
    strategies = {
        leg.strategy_id for leg in memberships if lasted(leg.added_at, leg.removed_at, at)
    }
    open_breaks = [
        {"break_id": brk.break_id, "type": brk.type.value, "state": _state(brk, at)}
        for brk in breaks_at(breaks, at)
    ]
    return {"row": row, "strategies": sorted(strategies), "breaks": open_breaks}


def _state(brk: Break, at: datetime) -> str:
    if brk.accepted_at is not None and brk.accepted_at <= at:
        return "ACCEPTED"
    if brk.confirmed_at is not None and brk.confirmed_at <= at:
        return "CONFIRMED"
    return "OPENED"


@app.command()
def trace(
    id_: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="The id of a run, a batch, a row or a request, or its beginning."
        ),
    ],
    limit: options.Limit = 10,
    json: options.Json = False,
    home: options.HomeFolder = None,
) -> None:
    """Show what belongs to an id: run, session, request, batches and rows, in both directions."""
    _, lake = options.opened(home)
    traced = find_trace(lake, id_, limit=limit)
    events = _events_of(traced["batches"])
    if json:
        output.print_json({**traced, "events": events})
        return
    _print_trace(traced)
    output.show(None, [f"event: {event}" for event in events], json=False)


def _events_of(batches: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return Dagster's events that report batches; none without a Dagster."""
    committed_at = {  # rows of older releases lack either
        batch["version"]: batch["committed_at"]
        for batch in batches
        if batch["version"] and batch["committed_at"]
    }
    home = dagster_home()
    if not committed_at or not (home / "history").is_dir():
        return []
    from position_sync_dagster.defs.drain import events_with

    return events_with(home, committed_at)


# What a trace has on a terminal of each kind of thing; times are in UTC.
_TRACED = {
    "sessions": ("session_id", "gateway_id", "owner", "state", "started_at"),
    "requests": (
        "request_id", "status", "reason", "account", "conid", "symbol", "created_at", "update_id",
        "confirmed_at", "error_message",
    ),
    "batches": ("batch_id", "version", "rows", "committed_at"),
    "rows": ("update_id", "account", "conid", "position", "market_price"),
}  # fmt: skip


def _print_trace(traced: Mapping[str, Any]) -> None:
    """Print a trace as tables; what `--limit` leaves out is counted."""
    typer.echo(f"{traced['kind'].lower()} {traced['id']}")
    typer.echo(f"runs: {', '.join(traced['run_ids']) or 'none'}")
    counts = {"batches": traced["batch_count"], "rows": traced["row_count"]}
    for name, columns in _TRACED.items():
        shown = len(traced[name])
        count = counts.get(name, shown)
        last = "" if count == shown else f", the last {shown:,} (--limit shows more)"
        typer.echo(f"{name}: {count:,}{last}")
        if shown:
            output.print_table(traced[name], columns)


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
    """Show each value of a holding with its source, batch, run, request, break and strategy."""
    account, conid = parse_holding(holding)
    _, lake = options.opened(home)
    past = read_history(lake, account, conid, day=day and day.date(), limit=limit)
    if json:
        output.print_json(past)
    else:
        _print_history(past)


def parse_holding(text: str) -> tuple[str, int]:
    """Return account and conid of a holding.

    >>> parse_holding("DU1234567:728937835")
    ('DU1234567', 728937835)
    """
    account, _, conid = text.rpartition(":")
    if not account:
        raise typer.BadParameter(f"{text[:80]!r} is no holding; write DU1234567:728937835.")
    return account, parse_conid(conid)


# What a value and a close have on a terminal; times are in UTC.
_VALUE = (
    "timestamp", "position", "market_price", "price_kind", "market_value", "currency", "source",
    "value_source", "update_id", "strategies", "breaks", "note",
)  # fmt: skip
_CLOSE = ("closed_at", "quantity", "cause", "stage", "detail", "realized_pnl", "currency")


def _print_history(past: Mapping[str, Any]) -> None:
    """Print the values of a holding, each with what it belongs to, and why it closed."""
    values = past["values"]
    typer.echo(f"{past['account']}:{past['conid']} {printable(values[-1]['row']['symbol'])}")
    if past["more"]:
        typer.echo(f"the newest {len(values):,} values; --limit shows more")

    rows = []
    for value in values:
        breaks = [f"{brk['type']} {brk['state']} {brk['break_id']}" for brk in value["breaks"]]
        rows.append({**value["row"], "strategies": value["strategies"], "breaks": breaks})
    output.print_table(rows, _VALUE)
    if past["closes"]:
        output.print_table(past["closes"], _CLOSE)
