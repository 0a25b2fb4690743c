"""The command `position-sync audit verify`: rows, events and records against each other."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from position_sync_dagster.cli.options import HomeFolder, Json, existing, settings_for
from position_sync_dagster.terminal.output import print_json
from position_sync_dagster.terminal.text import printable

if TYPE_CHECKING:
    from position_sync_dagster.sync.audit.verify import Verification

SHOWN = 20
"""The number of findings on the terminal. JSON names all."""

app = typer.Typer(help="Compare rows, Dagster's events and the table `runs`.", no_args_is_help=True)


@app.callback()
def audit() -> None:
    """Compare rows, Dagster's events and the table `runs`."""


@app.command("verify")
def verify(
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Write missing records into `runs`, and observations for missing events.",
        ),
    ] = False,
    days: Annotated[
        int,
        typer.Option(
            min=1, max=36_500, help="Compare the runs that began so many days ago or later."
        ),
    ] = 1,
    grace: Annotated[
        float,
        typer.Option(
            min=0, max=86_400, help="Seconds in which a run may still write its record and event."
        ),
    ] = 120.0,
    json: Json = False,
    home: HomeFolder = None,
) -> None:
    """Compare rows, Dagster's events and the table `runs`, in all directions.

    A run that was killed between its commit and its event has rows that no event names. --repair
    mends the records and the events; rows are never changed. The exit code is 1 if anything is
    left that does not agree.
    """
    from position_sync_dagster.defs.ledger_events import (
        instance_at,
        log_missing_events,
        read_events,
    )
    from position_sync_dagster.domain.clock import utc_now
    from position_sync_dagster.lake import Lake
    from position_sync_dagster.last_work import dagster_home
    from position_sync_dagster.sync.audit.verify import MARGIN, repair_records
    from position_sync_dagster.sync.audit.verify import verify as compare

    settings = settings_for(home)
    lake = existing(Lake.of(settings))
    storage = dagster_home()
    instance = instance_at(storage)
    if instance is None:
        typer.echo(f"No Dagster storage is at {storage}: events are not compared.", err=True)

    def compared() -> "Verification":
        now = utc_now()
        since = (now - timedelta(days=days)).date()
        start = datetime.fromisoformat(f"{since}T00:00:00+00:00") - MARGIN
        events = None
        if instance is not None:
            keep = settings.keep_runs_days
            events = read_events(instance, since=start, now=now, keep_days=keep)
        return compare(lake, events, since=since, now=now, grace=timedelta(seconds=grace))

    try:
        found = left = compared()
        if repair and any(one.repairable for one in found.findings):
            repair_records(lake, found.findings)
            if instance is not None:
                log_missing_events(instance, found.findings)
            left = compared()
    finally:
        if instance is not None:
            instance.dispose()
    if json:
        doubled = left.doubled.surplus
        print_json({"found": found, "left": left.findings, "doubled": doubled, "repaired": repair})
    else:
        for line in as_lines(found, left, repair=repair):
            typer.echo(printable(line))
    raise typer.Exit(1 if left.findings or left.doubled.surplus else 0)


def as_lines(found: "Verification", left: "Verification", *, repair: bool) -> Iterator[str]:
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
        yield "`position-sync audit verify --repair` mends records and events."
    if left.doubled.surplus:
        yield f"{left.doubled}: `position-sync doctor --repair` removes them."
    if any(not finding.repairable for finding in left.findings):
        yield "Rows that are missing are not mended: see docs/audit.md."
