"""The commands about the tables and what they need: `doctor` and `maintain`."""

import os
from dataclasses import asdict
from typing import Annotated

import typer

from position_sync_dagster.cli import options
from position_sync_dagster.cli.app import app
from position_sync_dagster.dagster_files import dagster_home
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past.statement_folder import forget_files
from position_sync_dagster.processes.preflight import Level, run_preflight
from position_sync_dagster.terminal import output


@app.command()
def doctor(
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Set torn commits of tables aside."),
    ] = False,
    json: options.Json = False,
    home: options.HomeFolder = None,
) -> None:
    """Check everything that a start needs: settings, clocks, disk, tables, gateway.

    Each line is good, a warning or bad, and says what to do. It ends
    within a minute, writes nothing, and takes one market data line at a time for moments, unless a
    stream owns the login. The exit code is 1 if anything is bad.

    With --repair it only sets torn last commits of local tables aside, which a loss of power can
    leave; and the next import reads all statements of the folder again.
    """
    if repair:
        settings = options.settings_for(home)
        set_aside = [
            {"table": table.spec.name, **asdict(torn)}
            for table in MoneyLake.of(settings).all_tables
            for torn in table.remove_torn()
        ]
        forget_files(settings)
        output.show_rows(set_aside, json=json, none="No table has a torn last commit.")
        return

    settings = options.settings_for(home, warn=False)
    findings = run_preflight(
        settings,
        os.environ,
        env_file=".env" if home is None else None,
        dagster_home=dagster_home(),
    )

    lines: list[str] = []
    for finding in findings:
        lines.append(f"{finding.level:<8} {finding.check:<16} {finding.text}")
        if finding.remedy:
            lines.append(f"{'':<25} {finding.remedy}")

    is_bad = any(finding.level is Level.BAD for finding in findings)
    output.show({"good": not is_bad, "findings": findings}, lines, json=json)
    raise typer.Exit(is_bad)


@app.command()
def maintain(json: options.Json = False, home: options.HomeFolder = None) -> None:
    """Merge small files of each table, and delete files that no version in the retention needs.

    Dagster does this every four hours while it runs. Other programs may read and write at the same
    time. The output shows the number of files merged and deleted, the files and the version
    afterwards, and why a part was skipped until the next time.
    """
    _, lake = options.opened(home)
    results = [asdict(result) for result in lake.maintain()]
    output.show_rows(results, json=json, none="")
