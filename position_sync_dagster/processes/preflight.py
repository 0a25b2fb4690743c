"""The preflight of `doctor`: checks of this machine, the tables and the gateways."""

import asyncio
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from position_sync_dagster import errors, last_work, run_slots
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.gateway_session import GatewaySession
from position_sync_dagster.domain.leg import Leg
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.registry.strategies_file import load_strategies
from position_sync_dagster.processes import ports
from position_sync_dagster.processes.home import LOCK_FILE, living_holder
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync import preflight
from position_sync_dagster.sync.preflight import Finding, bad, bounded, good, warning

QUICK_S, TABLES_S = 3.0, 7.0
"""The time limits of one check of this machine and of the tables, in seconds. All of them and
`sync.preflight.WITHIN_S` together are less than a minute."""


def run_preflight(
    settings: Settings,
    environ: Mapping[str, str],
    *,
    env_file: str | None,
    dagster_home: Path,
    ui_port: int,
) -> list[Finding]:
    """Check everything within a minute; write nothing and keep no market data line.

    The exception is an object store: it gets probes, which are deleted at once.

    Args:
        environ: The environment of this process.
        env_file: The file with settings, None for none.
        dagster_home: Where Dagster keeps its state.
        ui_port: The port of the Dagster UI.
    """
    lake = Lake.of(settings)
    found = preflight.check_settings(settings, environ, env_file=env_file)
    found += bounded(
        "strategies file", lambda: preflight.check_strategies_file(settings), within_s=QUICK_S
    )
    found += bounded("tables", lambda: preflight.check_lake(lake), within_s=TABLES_S)
    found += bounded("disk", lambda: preflight.check_disk(settings.lake), within_s=QUICK_S)
    found += bounded("programs", lambda: check_programs(dagster_home), within_s=QUICK_S)
    found += bounded("Dagster home", lambda: check_dagster(dagster_home, ui_port), within_s=QUICK_S)
    try:
        logins = settings.logins
    except errors.GatewaysFileError:
        return found  # it has a finding of its own
    found += bounded(
        "runs at once", lambda: check_run_slots(dagster_home, len(logins)), within_s=QUICK_S
    )
    sessions: dict[str, GatewaySession] = {}
    legs: list[Leg] = []
    weeks: list[Finding] = []
    unread = bounded("tables", lambda: _read(lake, logins, sessions, legs, weeks), within_s=QUICK_S)
    if unread:
        # Who owns the login is not known: to connect could take a client id from a stream.
        text = "not asked: the tables do not say whether a stream owns the login"
        return [*found, *unread, bad("gateway", text, "Correct the tables first.")]
    return [*found, *weeks, *asyncio.run(_gateways(logins, sessions, legs))]


async def _gateways(
    logins: Sequence[Settings], sessions: Mapping[str, GatewaySession], legs: Sequence[Leg]
) -> list[Finding]:
    """Check all gateways at once: by the session of its owner, or by a connection without one.

    With several logins each finding names its login.
    """

    async def one(login: Settings) -> list[Finding]:
        session = sessions.get(login.gateway_id)
        if session is not None:
            return preflight.of_session(session)
        return await preflight.of_gateway(login, legs)

    found = await asyncio.gather(*(one(login) for login in logins))
    return [
        finding
        for login, of_login in zip(logins, found, strict=True)
        for finding in _named(login, logins, of_login)
    ]


def _named(login: Settings, logins: Sequence[Settings], found: list[Finding]) -> list[Finding]:
    """Return the findings of a login, which name it if there are several."""
    if len(logins) == 1:
        return found
    return [replace(one, check=f"{login.gateway_id}: {one.check}") for one in found]


def check_programs(home: Path) -> list[Finding]:
    """Return whether Dagster's programs work; none running after an end in order is good too."""
    programs = last_work.read(home)
    if programs.problems:
        return [
            bad("programs", text, "Then look at `position-sync status`.")
            for text in programs.problems
        ]
    if not programs.works:
        return [good("programs", "none runs")]
    first = programs.works[0]
    return [
        good("programs", f"the last {last_work.SAYS[first.program]} at {first.at:%H:%M:%S} UTC")
    ]


def check_run_slots(home: Path, logins: int) -> list[Finding]:
    """Return whether Dagster may have as many runs in progress at once as the logins need."""
    limit = run_slots.configured(home)
    error = run_slots.too_few(limit, logins)
    if error is not None:
        return [bad("runs at once", error.what, error.remedy)]
    text = "no limit, or one that follows the logins" if limit is None else f"at most {limit}"
    return [good("runs at once", f"{text}; {run_slots.needed(logins)} are needed")]


def check_dagster(home: Path, ui_port: int) -> list[Finding]:
    """Return the state of Dagster's home and of the UI's port."""
    # That of a demo is in the folder around it.
    locks = (home / LOCK_FILE, home.parent / LOCK_FILE)
    holders = (living_holder(lock.read_bytes()) for lock in locks if lock.is_file())
    holder = next((holder for holder in holders if holder is not None), None)
    found = []
    if not home.is_dir():
        found.append(good("Dagster home", f"{home} is created by the first start"))
    elif not os.access(home, os.W_OK | os.X_OK):
        remedy = "Correct its owner, or set DAGSTER_HOME elsewhere."
        found.append(bad("Dagster home", f"{home} cannot be written", remedy))
    elif stat.S_IMODE(home.stat().st_mode) & 0o077:
        text = f"{home} is open to other users of this machine"
        found.append(warning("Dagster home", text, f"chmod 700 {home}"))
    else:
        found.append(good("Dagster home", f"{home}, in use by {holder or 'nobody'}"))
    if ports.is_free(ui_port):
        return [*found, good("UI port", f"{ui_port} is free")]
    if holder is not None:
        return [*found, good("UI port", f"{ui_port} is taken, and {holder} runs")]
    remedy = "End the program that listens there, or choose another port with `dev --ui-port`."
    return [*found, warning("UI port", f"{ui_port} is taken", remedy)]


def _read(
    lake: Lake,
    logins: Sequence[Settings],
    sessions: dict[str, GatewaySession],
    legs: list[Leg],
    weeks: list[Finding],
) -> list[Finding]:
    """Read the sessions of living owners, active legs and weekly logins; create no table."""
    settings, now = logins[0], utc_now()
    try:
        for login in logins if lake.exists else ():
            session = lake.sessions.current(login.gateway_id)
            if session is None:
                continue
            of_login = preflight.of_login_week(
                session, now, lake.sessions.mode(), login.login_notice_h
            )
            weeks += _named(login, logins, of_login)
            if session.is_alive(now):
                sessions[login.gateway_id] = session
        if settings.strategies_file is not None:
            legs += load_strategies(settings.strategies_file)
        elif lake.exists:
            registry = lake.registry.sync
            legs += [*registry.get_all_active(), *registry.get_unresolved()]
    except errors.StrategiesFileError:
        pass  # it has a finding of its own
    except errors.PositionSyncError as error:
        return [bad("tables", error.what, error.remedy)]
    return []
