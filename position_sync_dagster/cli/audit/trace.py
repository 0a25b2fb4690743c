"""The command `position-sync trace`: from an id to everything that belongs to it."""

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from position_sync_dagster.cli.options import HomeFolder, Json, existing, settings_for
from position_sync_dagster.terminal.output import print_json
from position_sync_dagster.terminal.text import number, printable, quantity

if TYPE_CHECKING:
    from position_sync_dagster.domain.run_record import RunRecord
    from position_sync_dagster.sync.audit.trace import Trace

Limit = Annotated[
    int, typer.Option(min=1, max=100_000, help="The highest number of rows to show, the last ones.")
]


def trace(
    id_: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="The id of a run, a batch, a row or a request, or its beginning."
        ),
    ],
    limit: Limit = 10,
    json: Json = False,
    home: HomeFolder = None,
) -> None:
    """Show what belongs to an id: run, session, request, batches and rows, in both directions."""
    from position_sync_dagster.lake import Lake
    from position_sync_dagster.sync.audit.trace import trace as find

    found = find(existing(Lake.of(settings_for(home))), id_, limit=limit)
    if json:
        print_json(found)
        return
    for line in as_lines(found):
        typer.echo(printable(line))


def as_lines(found: "Trace") -> Iterator[str]:
    """Return a trace as lines that fit 80 columns, but for long reasons."""
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
        version = "–" if batch.version is None else f"v{batch.version}"
        yield f"  {batch.batch_id} {version:>8} {batch.rows:>5} rows  {stamp(batch.committed_at)}"
    yield f"rows     {found.row_count:,}{_last(len(found.rows), found.row_count)}"
    for row in found.rows:
        value = f"{quantity(_float(row, 'position'))} × {number(_float(row, 'market_price'))}"
        yield f"  {row['update_id']}  {row['account']}:{row['conid']} {value}"


def stamp(at: datetime | None) -> str:
    """Return a UTC time in full seconds; an unknown one is a dash."""
    return "–" if at is None else f"{at:%Y-%m-%d %H:%M:%S}"


def _record_lines(record: "RunRecord") -> Iterator[str]:
    rebuilt = ", rebuilt from its rows" if record.recorded_by == "AUDIT" else ""
    yield f"{record.job or 'job unknown'} / {record.step}: {record.result}{rebuilt}"
    until = stamp(record.ended_at)
    yield f"{stamp(record.started_at)} to {until} UTC" + (
        f" on {record.host}" if record.host else ""
    )
    counts = {
        "rows": record.rows,
        "commits": record.commits,
        "claimed": record.claimed,
        "succeeded": record.succeeded,
        "failed": record.failed,
        "released": record.released,
        "enqueued": record.enqueued,
    }
    known = [f"{value:,} {name}" for name, value in counts.items() if value is not None]
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


def _float(row: dict[str, object], name: str) -> float | None:
    value = row[name]
    return value if isinstance(value, float) else None
