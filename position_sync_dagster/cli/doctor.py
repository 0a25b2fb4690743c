"""The commands about the tables and what they need: `doctor` and `maintain`."""

import os
from dataclasses import asdict
from typing import Annotated

import typer

from position_sync_dagster.cli import options
from position_sync_dagster.cli.app import app, print_error
from position_sync_dagster.dagster_files import dagster_home
from position_sync_dagster.errors import LakeError
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past.statement_folder import forget_files
from position_sync_dagster.processes.preflight import Level, check_lake, run_preflight
from position_sync_dagster.processes.repair import set_torn_aside
from position_sync_dagster.terminal import output


@app.command()
def doctor(
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Set torn commits of tables aside."),
    ] = False,
    files: Annotated[
        bool,
        typer.Option("--files", help="Read each data file of all tables."),
    ] = False,
    json: options.Json = False,
    home: options.HomeFolder = None,
) -> None:
    """Check everything that a start needs: settings, clocks, disk, tables, gateway.

    Each line is good, a warning or bad, and says what to do. It ends
    within a minute, writes nothing, and takes one market data line at a time for moments, unless a
    stream owns the login. The exit code is 1 if anything is bad.

    With --files it only examines the tables, and has no time limit: each data file that a log names
    is there, has its size, and can be read from its first row to its last. It is the proof after a
    restore.

    With --repair it only sets torn last commits of local tables aside, which a loss of power can
    leave; and the next import reads all statements of the folder again.
    """
    if repair:
        settings = options.settings_for(home)
        set_aside: list[dict[str, object]] = []
        exit_code = 0
        for table in MoneyLake.of(settings).all_tables:
            try:
                torn = set_torn_aside(table)
                set_aside += [{"table": table.spec.name, **asdict(entry)} for entry in torn]
            except LakeError as error:  # it keeps no other table from being repaired
                exit_code = print_error(error)

        forget_files(settings)
        output.show_rows(set_aside, json=json, none="No table has a torn last commit.")
        raise typer.Exit(exit_code)

    settings = options.settings_for(home, warn=False)
    if files:
        findings = check_lake(MoneyLake(settings.lake, use="look"), files=True)
    else:
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
