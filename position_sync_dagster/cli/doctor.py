"""The command `position-sync doctor`: find and repair commits that a power loss left torn."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from position_sync_dagster.cli.options import HomeFolder, Json, settings_for
from position_sync_dagster.terminal.output import print_json
from position_sync_dagster.terminal.typed import as_typed

if TYPE_CHECKING:
    from position_sync_dagster.lake.recovery.diagnosis import Diagnosis
    from position_sync_dagster.lake.recovery.repair import Repair

SHOWN = 5
"""The number of requests named on the terminal. JSON names all."""


def doctor(
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Restore each torn table to its last whole version."),
    ] = False,
    json: Json = False,
    home: HomeFolder = None,
) -> None:
    """Look for torn commits, which a power loss can leave. The exit code is 1 if any is found."""
    from position_sync_dagster.domain.clock import utc_now
    from position_sync_dagster.errors import LakeError
    from position_sync_dagster.lake import Lake
    from position_sync_dagster.lake.recovery.diagnosis import diagnose
    from position_sync_dagster.lake.recovery.repair import repair as take_back

    lake = Lake.of(settings_for(home))
    found = [diagnose(table) for table in lake.tables]
    repairs: dict[str, Repair] = {}
    failures: dict[str, str] = {}
    for one, table in zip(found, lake.tables, strict=True):
        if repair and one.repairable:
            try:
                done = take_back(table, utc_now())
            except LakeError as error:
                failures[one.table] = str(error)
                continue
            if done is not None:
                repairs[one.table] = done
    if json:
        print_json(as_data(found, repairs, failures))
    else:
        for line in as_lines(found, repairs, failures, repair=repair):
            typer.echo(line)
    raise typer.Exit(0 if all(one.healthy for one in found) else 1)


def as_data(
    found: "Iterable[Diagnosis]", repairs: "dict[str, Repair]", failures: dict[str, str]
) -> dict[str, object]:
    """Return the diagnoses and repairs as plain data."""
    listed = list(found)
    return {
        "healthy": all(one.healthy for one in listed),
        "tables": [
            {
                "table": one.table,
                "path": one.path,
                "version": one.version,
                "whole_version": one.whole_version,
                "healthy": one.healthy,
                "repairable": one.repairable,
                "tears": one.torn_files,
                "rows": one.rows,
                "requests": one.requests,
                "problem": failures.get(one.table, one.problem),
                "repair": repairs.get(one.table),
            }
            for one in listed
        ],
    }


def as_lines(
    found: "Iterable[Diagnosis]",
    repairs: "dict[str, Repair]",
    failures: dict[str, str],
    *,
    repair: bool,
) -> list[str]:
    """Return the diagnoses and repairs as lines for a person."""
    lines: list[str] = []
    advise = False
    for one in found:
        problem = failures.get(one.table, one.problem)
        if one.healthy:
            state = "not there yet" if one.version is None else f"whole at version {one.version}"
            lines.append(f"{one.table:<22} {state}")
            continue
        lines.append(f"{one.table:<22} {problem or f'torn at version {one.version}'}")
        for torn in one.torn_files:
            rows = "" if torn.rows is None else f" ({torn.rows} rows)"
            lines.append(f"  version {torn.version}: {torn.file} {torn.flaw}{rows}")
        lines += [f"  {line}" for line in _affected(one)]
        done = repairs.get(one.table)
        if done is not None:
            lines.append(
                f"  taken back to version {done.whole_version}; {done.saved} rows put back"
            )
        advise = advise or (one.repairable and not repair)
    if advise:
        lines.append(
            as_typed("Stop what writes to the lake, then run `position-sync doctor --repair`.")
        )
    return lines


def _affected(one: "Diagnosis") -> list[str]:
    if not one.repairable:
        if not one.torn_files:
            return []
        return ["no whole version is within reach of the log: restore the folder from a copy"]
    what = "its creation is" if one.whole_version == -1 else f"what came after {one.whole_version}"
    lines = [f"last whole version {one.whole_version}; {what} undone: {one.rows} rows can be read"]
    if one.requests:
        more = f" and {len(one.requests) - SHOWN} more" if len(one.requests) > SHOWN else ""
        lines.append(f"requests affected: {', '.join(one.requests[:SHOWN])}{more}")
    return lines
