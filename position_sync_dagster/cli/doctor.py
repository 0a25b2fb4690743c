"""The commands about the tables and what they need: `doctor` and `maintain`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from position_sync_dagster.cli import options
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.recovery import Checkup, check_up
from position_sync_dagster.places import dagster_home
from position_sync_dagster.processes.preflight import Level, run_preflight
from position_sync_dagster.terminal import output
from position_sync_dagster.terminal.text import as_typed

UI_PORT = 3000
REMEDIES = {
    "active_strategies": "compare them with `position-sync strategies list`, and add again what is "
    "missing",
    "broker_positions": "the next connection to the gateway writes them again",
    "contracts": "the next connection to the gateway writes them again",
    "gateway_sessions": "they record past leases, and nothing needs them",
    "reconciliation_breaks": "the next reconciliation finds them again; accept again what was "
    "accepted",
    "latest_positions": "the next run of the asset computes them again",
    "strategy_exposure": "the next run of the asset computes them again",
    "daily_positions": "record their days again, by a backfill of the asset",
}
"""The remedy for rows that a repair could not put back and keeps in a file, by table."""


def doctor(
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Restore each torn table to its last whole version."),
    ] = False,
    tables: Annotated[
        bool, typer.Option("--tables", help="Check only the tables, and show each.")
    ] = False,
    move_heartbeats: Annotated[
        bool,
        typer.Option(
            "--move-heartbeats",
            help="Record that owners renew their leases where POSITION_SYNC_HEARTBEATS says. End "
            "every program of the lake before.",
        ),
    ] = False,
    ui_port: Annotated[
        int | None,
        options.port("Port of the UI to check.", default="that of POSITION_SYNC_UI_URL, 3000"),
    ] = None,
    json: options.Json = False,
    home: options.HomeFolder = None,
) -> None:
    """Check everything that a start needs: settings, clocks, disk, tables, ports, gateway, legs.

    Each line is good, info (what only you can see), a warning or bad, and says what to do. It ends
    within a minute, writes nothing, and takes one market data line at a time for moments, unless a
    stream owns the login. The exit code is 1 if anything is bad.

    With --tables or --repair it only looks at the tables: for torn commits, which a loss of power
    can leave, and for rows that are there twice. The exit code is 1 if something is still wrong at
    the end, and 0 after a repair that succeeded.
    """
    if move_heartbeats:
        settings, lake = options.opened(home)
        lake.sessions.record_place(moved=True)
        said = f"From now on, heartbeats are in {settings.heartbeats}."
        output.show({"heartbeats": settings.heartbeats}, [said], json=json)
        return
    if not (tables or repair):
        raise typer.Exit(look_at_everything(ui_port, home, json=json))

    settings = options.settings_for(home)
    if repair:
        lake = Lake.of(settings)
    else:
        lake = Lake(settings.lake, heartbeats=settings.heartbeats, use="look")
    results = check_up(lake.all_tables, lake.sessions, utc_now(), mend=repair)
    output.show(as_data(results), as_lines(results, repair=repair), json=json)
    raise typer.Exit(0 if all(one.healthy for one in results) else 1)


def look_at_everything(ui_port: int | None, home: Path | None, *, json: bool) -> int:
    """Print what the preflight finds; return 1 if anything is bad."""
    settings = options.settings_for(home, warn=False)
    found = run_preflight(
        settings,
        os.environ,
        env_file=".env" if home is None else None,
        dagster_home=dagster_home(),
        ui_port=ui_port or urlsplit(settings.ui_url).port or UI_PORT,
    )
    bad = any(one.level is Level.BAD for one in found)
    lines = (
        line
        for one in found
        for line in (
            f"{one.level:<8} {one.check:<16} {one.text}",
            *([f"{'':<25} {one.remedy}"] if one.remedy else []),
        )
    )
    output.show({"good": not bad, "findings": found}, lines, json=json)
    return int(bad)


_FOUND = ("table", "path", "version", "whole_version", "repairable", "unfinished", "rows")


def as_data(results: Sequence[Checkup]) -> dict[str, object]:
    """Return the diagnoses and repairs as plain data."""
    return {
        "healthy": all(one.healthy for one in results),
        "tables": [
            {name: getattr(one.found, name) for name in _FOUND}
            | {name: getattr(one, name) for name in ("healthy", "removed", "writer", "repair")}
            | {
                "tears": one.found.torn_files,
                "doubled": one.found.doubled.surplus,
                "problem": one.failure or one.found.problem,
            }
            for one in results
        ],
    }


def as_lines(results: Sequence[Checkup], *, repair: bool) -> list[str]:
    """Return the diagnoses and repairs as lines for a person."""
    lines: list[str] = []
    writers: list[str] = []
    advise = False
    for one in results:
        found = one.found
        if found.healthy:
            state = (
                "not there yet" if found.version is None else f"whole at version {found.version}"
            )
            lines.append(f"{found.table:<22} {state}")
            continue
        lines.append(f"{found.table:<22} {one.failure or found.flaw}")
        for torn in found.torn_files:
            rows = "" if torn.rows is None else f" ({torn.rows} rows)"
            lines.append(f"  version {torn.version}: {torn.file} {torn.flaw}{rows}")
        lines += [f"  {line}" for line in (*_affected(one), *_repaired(one))]
        writers += [one.writer] if one.writer else []
        advise = advise or (found.repairable and not repair)
    if writers:
        lines.append(f"End what writes to the lake ({writers[0]}), then run this command again.")
    elif advise:
        lines.append(
            as_typed("Stop what writes to the lake, then run `position-sync doctor --repair`.")
        )
    return lines


def _affected(one: Checkup) -> list[str]:
    found = one.found
    lines = [f"rows that are still to be put back: {file}" for file in found.unfinished]
    if not found.torn_files:
        return lines
    if not found.repairable:
        remedy = "restore the folder from a copy"
        if one.derived:
            remedy = f"move the folder away; {REMEDIES[found.table]}"
        return [*lines, f"the log has no whole version: {remedy}"]
    whole = found.whole_version
    what = "the creation of the table" if whole == -1 else f"the commits after {whole}"
    lines.append(
        f"last whole version {whole}; a repair undoes {what}; {found.rows} undone rows can be read"
    )
    return lines


def _repaired(one: Checkup) -> list[str]:
    done = one.repair
    removed = f"{one.removed:,} rows removed: each was an exact copy of another one"
    if done is None:
        return [removed] if one.removed else []
    lines = [f"taken back to version {done.whole_version}; {done.saved} rows put back"]
    if not done.moved:
        lines = [f"the interrupted repair is finished; {done.saved} rows put back"]
    if one.removed:
        lines.append(removed)
    if done.kept:
        remedy = REMEDIES.get(one.found.table, "compare them, and write again what is missing")
        lines.append(f"{done.kept} rows are kept in {done.files[0]}: {remedy}")
    return lines


def maintain(json: options.Json = False, home: options.HomeFolder = None) -> None:
    """Merge small files of each table, and delete files that no version in the retention needs.

    Dagster does this every hour while it runs. Other programs may read and write at the same
    time. The output shows the number of files merged and deleted, the files and the version
    afterwards, the number of duplicate rows (`doctor --repair` removes them), and why a part was
    skipped until the next time.
    """
    results = options.opened(home)[1].maintain()
    if json:
        output.print_json(results)
        return
    output.print_table(
        [
            {
                "table": result.table,
                "compacted": f"{result.compacted:,}",
                "deleted": f"{result.deleted:,}",
                "files": f"{result.files:,}",
                "version": str(result.version),
                "doubled": f"{result.doubled.surplus:,}",
                "skipped": result.skipped or "",
            }
            for result in results
        ],
        right=("compacted", "deleted", "files", "version", "doubled"),
    )
