"""The commands of the audit trail: `trace`, `history` and `audit verify`."""

from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from position_sync_dagster.cli import options
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.gateway_session import RunRecord
from position_sync_dagster.places import dagster_home
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
    output.show(found, trace_lines(found), json=json)


def trace_lines(found: audit_trail.Trace) -> Iterator[str]:
    """Return a trace as lines of at most 80 columns; only a reason may be longer."""
    yield f"{found.kind.lower():<8} {found.id}"
    if found.kind != "RUN" and not found.run_ids and found.row_count:
        yield "run      none: the rows were written without Dagster"
    recorded = {record.run_id for record in found.runs}
    for run_id in found.run_ids:
        if found.kind != "RUN":
            yield f"run      {run_id}"
        if run_id not in recorded:
            yield "         not in `runs`: `position-sync audit verify --repair` adds it"
        for record in found.runs:
            if record.run_id == run_id:
                yield from (f"         {line}" for line in _record_lines(record))
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


_COUNTS = ("rows", "commits", "claimed", "succeeded", "failed", "released", "enqueued")


def _record_lines(record: RunRecord) -> Iterator[str]:
    rebuilt = ", rebuilt from its rows" if record.recorded_by == "AUDIT" else ""
    yield f"{record.job or 'job unknown'} / {record.step}: {record.result}{rebuilt}"
    until = stamp(record.ended_at)
    yield f"{stamp(record.started_at)} to {until} UTC" + (
        f" on {record.host}" if record.host else ""
    )
    counts = ((getattr(record, name), name) for name in _COUNTS)
    known = [f"{value:,} {name}" for value, name in counts if value is not None]
    if known:
        yield ", ".join(known)
    if record.version_to is not None:
        first = "–" if record.version_from is None else str(record.version_from)
        yield f"{record.table_name} versions {first} to {record.version_to}"
    if record.partitions:
        yield f"days {record.partitions}"
    if record.reason:
        yield record.reason


def _last(shown: int, count: int) -> str:
    return "" if shown == count else f", the last {shown:,} (--limit shows more)"


SHOWN = 20
"""The number of findings that the terminal shows; JSON has all."""

app = typer.Typer(no_args_is_help=True)


@app.callback()
def audit() -> None:
    """Compare rows, Dagster's events and the table `runs`."""


@app.command("verify")
def verify(
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Rebuild records in `runs` from the rows, and log events that are missing.",
        ),
    ] = False,
    days: Annotated[
        int,
        typer.Option(min=1, max=36_500, help="Compare the runs that began within this many days."),
    ] = 1,
    grace: Annotated[
        float,
        typer.Option(
            min=0,
            max=86_400,
            help="Seconds that a run has to write its record and event before it is compared.",
        ),
    ] = 120.0,
    json: options.Json = False,
    home: options.HomeFolder = None,
) -> None:
    """Compare rows, Dagster's events and the table `runs`, in all directions.

    A run that was killed between its commit and its event has rows that no event names. --repair
    rebuilds records and events from the rows, which are never changed. The exit code is 1 if a
    difference is left.
    """
    from position_sync_dagster.defs import audit_events

    settings, lake = options.opened(home)
    storage = dagster_home()
    instance = audit_events.instance_at(storage)
    if instance is None:
        typer.echo(f"No Dagster storage is at {storage}: events are not compared.", err=True)

    def compared() -> audit_trail.Verification:
        now = utc_now()
        since = (now - timedelta(days=days)).date()
        events = None
        if instance is not None:
            start = datetime(since.year, since.month, since.day, tzinfo=UTC)
            keep = settings.keep_runs_days
            events = audit_events.read_events(instance, since=start, now=now, keep_days=keep)
        within = timedelta(seconds=grace)
        return audit_trail.verify(lake, events, since=since, now=now, grace=within)

    with instance or nullcontext():
        found = left = compared()
        if repair:
            lake.runs.record(one.record for one in found.findings if one.record is not None)
            if instance is not None:
                audit_events.log_missing_events(instance, found.findings)
            left = compared()
    doubled = left.doubled.surplus
    data = {"found": found, "left": left.findings, "doubled": doubled, "repaired": repair}
    output.show(data, verification_lines(found, left, repair=repair), json=json)
    raise typer.Exit(1 if left.findings or doubled else 0)


def verification_lines(
    found: audit_trail.Verification, left: audit_trail.Verification, *, repair: bool
) -> Iterator[str]:
    """Return the result as lines for a person."""
    events = "not read" if found.events is None else f"{found.events:,}"
    yield f"since     {found.since} (UTC)"
    yield f"runs      {found.runs:,} wrote {found.rows:,} rows"
    yield f"records   {found.records:,}"
    yield f"events    {events}"
    yield f"findings  {len(found.findings):,}"
    for finding in found.findings[:SHOWN]:
        yield f"  {finding.run_id} {finding.kind}"
        yield f"    {finding.detail}"
    if len(found.findings) > SHOWN:
        yield f"  … and {len(found.findings) - SHOWN:,} more; --json names all"
    if repair:
        yield f"left      {len(left.findings):,}"
    elif any(finding.repairable for finding in found.findings):
        yield "`position-sync audit verify --repair` rebuilds records and events from the rows."
    if left.doubled.surplus:
        yield f"{left.doubled}: `position-sync doctor --repair` removes them."
    if any(not finding.repairable for finding in left.findings):
        yield "Missing rows cannot be repaired here: see docs/audit.md."


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


def history_lines(found: audit_trail.History) -> Iterator[str]:
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
