"""What can be checked without the gateway: settings, clock, files, tables, disk."""

import os
import shutil
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from position_sync_dagster.errors import GatewaysFileError, LakeError
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.recovery.diagnosis import diagnose
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.preflight.finding import Finding, bad, good, warning
from position_sync_dagster.sync.reports.attention import strategies_problem
from position_sync_dagster.unknown_settings import warnings_of

LITTLE_DISK, TOO_LITTLE_DISK = 5 * 2**30, 2**29
"""Bytes: a day of a streamed book takes a few hundred MB before it is compacted."""


def check_settings(
    settings: Settings, environ: Mapping[str, str], *, env_file: str | None
) -> list[Finding]:
    """Return a finding for each unknown name; settings that are malformed never come here."""
    lines = warnings_of(environ, env_file=env_file)
    if lines:
        remedy = "Correct the name, or remove it."
        return [warning("settings", line, remedy) for line in lines]
    mode = settings.trading_mode or "the mode that is found"
    try:
        logins = settings.logins
    except GatewaysFileError as error:
        return [bad("gateways file", error.what, error.remedy)]
    found = [
        good("gateway", f"{login.gateway_id} at {login.gateway_address}")
        for login in logins
        if settings.gateways_file is not None
    ]
    named = settings.gateway_address if settings.gateways_file is None else settings.gateways_file
    return [good("settings", f"gateway {named}, lake {settings.lake}, {mode}"), *found]


def check_time_zone(now: datetime) -> list[Finding]:
    """Return the time zone of this process; nothing depends on it."""
    local = now.astimezone()
    offset = f"{local:%z}"
    return [
        good("time zone", f"{local.tzname()} (UTC{offset}); all times in the tables are in UTC")
        if time.tzname
        else warning("time zone", "unknown", "Set TZ.")
    ]


def check_strategies_file(settings: Settings) -> list[Finding]:
    """Return whether the strategies file can be read."""
    if settings.strategies_file is None:
        return [good("strategies file", "none is configured: the registry's table decides")]
    problem = strategies_problem(settings.strategies_file)
    if problem is not None:
        return [bad("strategies file", problem, "Correct the file.")]
    return [good("strategies file", f"{settings.strategies_file} can be read")]


def check_lake(lake: Lake) -> list[Finding]:
    """Return whether the tables and their place can be used."""
    return [*check_tables(lake), *check_store(lake)]


def check_tables(lake: Lake) -> list[Finding]:
    """Return whether each table is whole, as `position-sync doctor --tables` diagnoses it."""
    if not lake.exists:
        return [good("tables", f"none at {lake.path} yet: the first start makes them")]
    ill = [one for one in map(diagnose, lake.all_tables) if not one.healthy]
    if not ill:
        return [
            good("tables", f"{len(lake.all_tables)} at {lake.path}, each whole or not there yet")
        ]
    remedy = "Run `position-sync doctor --tables`, which shows each and says what to do."
    return [bad("tables", f"{one.table}: {one.flaw}", remedy) for one in ill]


def check_store(lake: Lake) -> list[Finding]:
    """Return whether an object store keeps two writers apart; nothing for a folder."""
    if "://" not in lake.path:
        return []
    try:
        lake.sessions.table.prove_store()
    except LakeError as error:
        return [bad("store", error.what, error.remedy)]
    return [good("store", "it refuses the second of two writers (conditional put)")]


def check_disk(path: str) -> list[Finding]:
    """Return how much room the disk of the lake has, and whether it can be written."""
    if "://" in path:
        return [good("disk", f"the lake is in an object store ({path})")]
    folder = Path(path).absolute()
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        return [bad("disk", f"{folder} cannot be written", "Set POSITION_SYNC_LAKE elsewhere.")]
    free = shutil.disk_usage(folder).free
    text = f"{free / 2**30:.1f} GiB free at {folder}"
    remedy = "Free some, or set POSITION_SYNC_LAKE to another disk."
    if free < TOO_LITTLE_DISK:
        return [bad("disk", text, remedy)]
    return [warning("disk", text, remedy) if free < LITTLE_DISK else good("disk", text)]
