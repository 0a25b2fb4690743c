"""The command `position-sync dev`: `dagster dev` for the user's own gateway."""

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from position_sync_dagster.cli.options import EndWith
from position_sync_dagster.errors import LakeError
from position_sync_dagster.processes import dagster_dev, ports
from position_sync_dagster.processes.checkout import PROJECT
from position_sync_dagster.processes.child_process import ChildProcess
from position_sync_dagster.processes.home_lock import exclusive_use
from position_sync_dagster.processes.probe import ProbeResult, advice, probe
from position_sync_dagster.processes.process_tree import MARKER
from position_sync_dagster.processes.stop_request import StopRequest, StopRequested
from position_sync_dagster.terminal.text import printable

if TYPE_CHECKING:
    from position_sync_dagster.settings import Settings

STARTING_INTERVAL_S = 1.0
INTERVAL_S = 5.0
"""Seconds between two reports, while the UI starts and afterwards."""


def dev(
    ui_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the Dagster UI.")] = 3000,
    end_with: EndWith = None,
) -> None:
    """Run Dagster against your own TWS or IB Gateway, as the settings say.

    It runs until you stop it: with Ctrl-C, SIGTERM, or by closing the terminal. The exit code is
    then 0.
    """
    sys.exit(run(ui_port=ui_port, end_with=end_with))


def run(*, ui_port: int, end_with: int | None = None) -> int:
    """Run `dagster dev` until a request to stop; return the exit code.

    Raises:
        SettingsError: A setting is malformed.
        PortTakenError: The UI's port is taken.
        HomeInUseError: Another `dagster dev` runs in the home.
        ChildEndedError: Dagster has ended.
    """
    from position_sync_dagster.settings import load_settings

    settings = load_settings()
    ports.require_free(ui_port, purpose="Dagster UI", option="--ui-port")
    dagster_home = Path(os.environ.get("DAGSTER_HOME") or PROJECT / "dagster_home").absolute()
    with (
        StopRequest(end_with=end_with) as stop,
        exclusive_use(dagster_home, purpose="position-sync dev") as lock,
    ):
        try:
            with dagster_dev.start(
                env={**os.environ, MARKER: str(dagster_home)},
                dagster_home=dagster_home,
                ui_port=ui_port,
                cwd=Path.cwd(),
                log=None,
                inherited_fds=[lock.fd],
            ) as dagster:
                watch(dagster, settings, ui_port, stop)
        except StopRequested as request:
            with suppress(StopRequested):  # the terminal is closed
                write_lines(f"Ended ({request.reason}).")
    return 0


def watch(dagster: ChildProcess, settings: "Settings", ui_port: int, stop: StopRequest) -> None:
    """Report each change: of the UI, of the gateway's port and of the gateway session.

    Raises:
        StopRequested: This process shall stop, or the terminal is closed.
        ChildEndedError: Dagster has ended.
    """
    serving = False
    gateway: ProbeResult | None = None
    session: str | None = None
    while True:
        dagster.check()
        if not serving and dagster_dev.is_serving(ui_port):
            serving = True
            write_lines(f"The Dagster UI is at {dagster_dev.url(ui_port)}")
        if gateway is not ProbeResult.OPEN:  # each probe is a connection that the gateway logs
            found = probe(settings.gateway_host, settings.gateway_port)
            if found is not ProbeResult.OPEN and found != gateway:
                write_lines(advice(settings.gateway_host, settings.gateway_port, found))
            elif found is ProbeResult.OPEN and gateway is not None:
                write_lines(f"Something listens at {settings.gateway_id} now.")
            gateway = found
        state = session_state(settings)
        if state != session and state is not None:
            write_lines(f"Gateway {settings.gateway_id}: {state}")
        session = state
        stop.pause(INTERVAL_S if serving else STARTING_INTERVAL_S)


def session_state(settings: "Settings") -> str | None:
    """Return the state of the current gateway session and its reason, None without a session."""
    from position_sync_dagster.lake import Lake

    try:
        session = Lake.of(settings).sessions.sync.current(settings.gateway_id)
    except LakeError as error:
        return str(error)
    if session is None:
        return None
    return f"{session.state} – {session.detail}" if session.detail else str(session.state)


def write_lines(text: str) -> None:
    """Write lines to stderr with a prefix that sets them apart from Dagster's own lines.

    Raises:
        StopRequested: The terminal is closed.
    """
    try:
        for line in text.splitlines():
            sys.stderr.write(f"position-sync: {printable(line)}\n")
        sys.stderr.flush()
    except OSError as error:
        raise StopRequested("the terminal is gone", 1) from error
