"""The commands that run programs: `dev` for your own gateway, `demo`, `record` and `money`."""

import os
import shutil
import socket
import sys
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Annotated

import typer

from ib_gateway_simulator.recording import program
from position_sync_dagster import dagster_files, errors
from position_sync_dagster.cli import options
from position_sync_dagster.demo.run import LiveDisplay, Options, look_at, stop_if_closed
from position_sync_dagster.demo.run import run as run_demo
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.strategies_file import load_strategies
from position_sync_dagster.processes import ports, supervisor
from position_sync_dagster.processes.child_process import ChildProcess
from position_sync_dagster.processes.home import MARKER, HomeError, exclusive_use
from position_sync_dagster.processes.stop_request import StopRequest, StopRequested
from position_sync_dagster.settings import PREFIX, Settings, load_settings, read_env_file
from position_sync_dagster.sync.reports.exchange_days import require_known
from position_sync_dagster.sync.reports.figures import FiguresReader
from position_sync_dagster.terminal.text import printable

UI_URL = f"{PREFIX}UI_URL"
LOG_NAME = "dagster-dev.log"
STARTING_INTERVAL_S = 1.0
# Seconds between two reads of the tables: while the UI starts, and afterwards.
INTERVAL_S = 5.0

CONNECT_TIMEOUT_S = 2.0


def dev(
    ui_port: Annotated[int, options.port("Port of the Dagster UI.")] = 3000,
    end_with: options.EndWith = None,
) -> None:
    """Run Dagster against your own TWS or IB Gateway, as the settings say.

    A terminal shows the live status, and Dagster's output goes to a file that the status names.
    Otherwise Dagster's output and each change are lines of text.

    It runs until you stop it: with Ctrl-C, SIGTERM, or by closing the terminal. The exit code is
    then 0.
    """
    run(ui_port=ui_port, end_with=end_with)


def run(*, ui_port: int, end_with: int | None) -> None:
    """Run Dagster's programs until a request to stop.

    Raises:
        SettingsError: A setting, or the gateways file, is malformed, or the exchange is not known.
        StrategiesFileError: A strategies file is configured and cannot be read.
        PortTakenError: The UI's port is taken.
        HomeError, HomeInUseError: The home cannot be used, or another one runs in it.
        ChildEndedError: Dagster has ended.
        UnsafeStoreError: The object store of the tables has no conditional put.
    """
    settings = load_settings()
    options.warn_of_unknown_settings()
    require_files(settings)
    require_known(settings.calendar)
    ports.require_free(ui_port, purpose="Dagster UI", option="--ui-port")
    live = sys.stdout.isatty() and sys.stderr.isatty()
    home = dagster_files.dagster_home()
    with (
        StopRequest(end_with=end_with) as stop,
        exclusive_use(home, purpose="position-sync dev"),
    ):
        put_instance(home)
        log = home / LOG_NAME if live else None
        known = "ui_url" in settings.model_fields_set
        address = settings.ui_url if known else supervisor.url(ui_port)
        try:
            with supervisor.start(
                env={**variables_of_the_folder(), **os.environ, UI_URL: address, MARKER: str(home)},
                dagster_home=home,
                ui_port=ui_port,
                cwd=Path.cwd(),
                log=log,
            ) as dagster:
                watch(dagster, settings, ui_port, stop, log)
        except StopRequested as request:
            with suppress(StopRequested):  # the terminal is closed
                write_lines(f"Ended ({request.reason}).")


# What a `dagster.yaml` of an earlier release names: its launcher and its queue of runs.
FORMER_CLASSES = "position_sync_dagster.dagster_host"


def put_instance(home: Path) -> None:
    """Copy our `dagster.yaml` into the package's own home; one of your own is kept if it works.

    Raises:
        HomeError: A home of your own has that of an old release.
    """
    file = home / "dagster.yaml"
    former = file.exists() and FORMER_CLASSES in file.read_text(encoding="utf-8")
    if home == dagster_files.own_dagster_home() and (former or not file.exists()):
        shutil.copyfile(dagster_files.instance_file(), file)
    elif former:
        raise HomeError(
            f"{file} names classes of an earlier release, in {FORMER_CLASSES}.",
            remedy=f"Copy {dagster_files.instance_file()} there, or remove both.",
        )


def variables_of_the_folder() -> dict[str, str]:
    """Return what `.env` holds for other libraries, such as AWS_REGION; we read our settings."""
    if not os.path.exists(".env"):
        return {}
    found = read_env_file(Path(".env"))
    return {name: text for name, text in found.items() if not name.startswith(PREFIX)}


def require_files(settings: Settings) -> None:
    """Read the files of gateways and strategies that are configured.

    Raises:
        GatewaysFileError: It is missing or has a mistake.
        StrategiesFileError: It is missing or has a mistake. Without it the stream would follow what
            the registry held before, and nobody would notice.
    """
    _ = settings.logins  # reads the file
    if settings.strategies_file is not None:
        load_strategies(settings.strategies_file)


def watch(
    dagster: ChildProcess, settings: Settings, ui_port: int, stop: StopRequest, log: Path | None
) -> None:
    """Show the status on a terminal, with the last message above it; else each change as lines.

    Args:
        log: The file of Dagster's output; None where this output is no terminal.

    Raises:
        StopRequested: This process shall stop, or the terminal is closed.
        ChildEndedError: Dagster has ended.
    """
    lake, ui, serving, next_probe = Lake.of(settings), supervisor.url(ui_port), False, 0.0
    reader, screen = FiguresReader(lake, settings), LiveDisplay() if log else None
    problems: dict[str, str | None] = {}
    states: dict[str, str] = {}
    notes: list[tuple[str, str]] = []
    with screen or nullcontext():
        while True:
            dagster.check()
            news: list[str] = []
            if not serving and supervisor.is_serving(ui_port):
                serving = True
                news += [] if screen else [f"The Dagster UI is at {ui}"]
            # Each probe is a connection that the gateway logs.
            if time.monotonic() >= next_probe:
                next_probe = time.monotonic() + (INTERVAL_S if serving else STARTING_INTERVAL_S)
                news += probe_gateways(settings, problems)
            if screen is None:
                before, states = states, session_states(settings, lake)
                news += [f"Gateway {k}: {v}" for k, v in states.items() if v != before.get(k)]
                write_lines("\n".join(news))
            else:
                notes = [("", line) for text in news for line in text.splitlines()] or notes
                addresses = [
                    ("Dagster UI", ui if serving else "starting"),
                    ("money page", f"{ui}/money" if serving else "starting"),
                    ("logs", str(log)),
                ]
                look = look_at(
                    lambda: reader.read(utc_now()) if lake.exists else None,
                    notes=notes,
                    addresses=addresses,
                )
                screen.show(look)
            interval_s = LiveDisplay.interval_s if screen else INTERVAL_S
            stop.pause(interval_s if serving else STARTING_INTERVAL_S)


def probe_gateways(settings: Settings, problems: dict[str, str | None]) -> list[str]:
    """Probe the port of each gateway until something listens there; return what has changed.

    Args:
        problems: What was found before, by address, and what is found now.
    """
    try:
        logins = settings.logins
    except errors.SettingsError:  # the session states show it
        return []
    news = []
    for login in logins:
        address = login.gateway_address
        before = problems.get(address, "")
        if before is None:
            continue
        found = problems[address] = gateway_problem(login.gateway_host, login.gateway_port)
        if found is not None and found != before:
            news.append(found)
        elif found is None and before:
            news.append(f"Something listens at {address} now.")
    return news


def gateway_problem(host: str, port: int) -> str | None:
    """Return why nothing answers at a gateway's port, and what to do; None where something does."""
    try:
        socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S).close()
        return None
    except ConnectionRefusedError:
        why = "nothing listens there"
    except (socket.gaierror, UnicodeError):  # the latter: no name of a host
        why = "the address is not known"
    except OSError:
        why = "there is no answer"
    return (
        f"No gateway at {host}:{port}: {why}.\n"
        "  Start TWS or IB Gateway and log in; in its API settings enable socket clients and\n"
        "  compare the port. Another address: POSITION_SYNC_GATEWAY_HOST and\n"
        "  POSITION_SYNC_GATEWAY_PORT (TWS live 7496, paper 7497; Gateway live 4001, paper 4002),\n"
        "  in the environment or in .env. Everything keeps running, and the stream keeps trying."
    )


def session_states(settings: Settings, lake: Lake) -> dict[str, str]:
    """Return the state and the detail of each gateway's current session, by gateway id.

    If the gateways file or the table cannot be read, the value is the text of the error.
    """
    try:
        sessions = (lake.sessions.current(login.gateway_id) for login in settings.logins)
        return {
            one.gateway_id: f"{one.state} – {one.detail}" if one.detail else str(one.state)
            for one in sessions
            if one is not None
        }
    except errors.SettingsError as error:
        return {"file": str(error)}
    except errors.LakeError as error:
        return {"tables": str(error)}


def write_lines(text: str) -> None:
    """Write lines to stderr with a prefix that sets them apart from Dagster's own lines.

    Raises:
        StopRequested: The terminal is closed.
    """
    with stop_if_closed():
        for line in text.splitlines():
            sys.stderr.write(f"position-sync: {printable(line)}\n")
        sys.stderr.flush()


def demo(
    seconds: Annotated[
        float | None,
        typer.Option(
            "--for",
            min=1,
            metavar="SECONDS",
            help="Run unattended for this time, then compare the figures with the wanted ones.",
        ),
    ] = None,
    ui_port: Annotated[
        int | None, options.port("Port of the Dagster UI.", default="3000 or the next free")
    ] = None,
    gateway_port: Annotated[
        int | None,
        options.port(
            "Port of the simulated gateway.",
            default="that of the start before, 17497, or the next free",
        ),
    ] = None,
    control_port: Annotated[
        int | None, options.port("Port of the simulator's controls.", default="any free")
    ] = None,
    home: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder of the demo's tables and settings.",
            show_default=".demo; of an installed package, where the platform keeps data",
        ),
    ] = None,
    calm: Annotated[
        bool, typer.Option("--calm", help="Without fills, rolls and outages; only prices move.")
    ] = False,
    empty: Annotated[
        bool, typer.Option("--empty", help="Begin a new home without a strategy.")
    ] = False,
    json: options.Json = False,
    end_with: options.EndWith = None,
) -> None:
    """Run the whole system on a simulated gateway: 200 option legs, 20 of them streamed.

    After 40 s the simulated market has events: fills, rolls, an outage of some seconds every
    10 min.

    Without --for it runs until you stop it: with Ctrl-C, SIGTERM, or by closing the terminal. The
    exit code is then 0.

    With --for the exit code is 0 if all figures are met and 1 if not. If it is stopped before its
    time, the code is 128 plus the number of the signal: 130 after Ctrl-C.
    """
    sys.exit(
        run_demo(
            Options(
                home=home or dagster_files.demo_home(),
                seconds=seconds,
                ui_port=ui_port,
                gateway_port=gateway_port,
                control_port=control_port,
                as_json=json,
                end_with=end_with,
                calm=calm,
                empty=empty,
            )
        )
    )


def record(
    out: Annotated[Path, typer.Option(metavar="FILE", help="The recording; a new file.")],
    minutes: Annotated[
        float, typer.Option(min=0.01, max=1440, help="How long to record; Ctrl-C ends it earlier.")
    ] = 30.0,
    port: Annotated[
        int, options.port("Port for the client, on 127.0.0.1; 0: any free.", least=0)
    ] = 0,
    login: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which login of the gateways file.")
    ] = None,
    keep_quantities: Annotated[
        bool, typer.Option("--keep-quantities", help="Write quantities and amounts as they are.")
    ] = False,
    home: options.HomeFolder = None,
) -> None:
    """Record what a client and the gateway of the settings say to each other.

    The client connects to the printed port instead of the gateway's. Account ids, names,
    quantities and amounts are replaced before they are written; orders are never passed on.
    """
    settings = options.settings_for(home).for_login(login)
    gateway = (settings.gateway_host, settings.gateway_port)
    raise typer.Exit(
        program.run(out, gateway, port=port, minutes=minutes, keep_quantities=keep_quantities)
    )


def money(
    port: Annotated[int, options.port("Port of the page.")] = 3001,
    home: options.HomeFolder = None,
) -> None:
    """Show the money page of the tables in a browser, without Dagster, until Ctrl-C.

    It only reads, at 127.0.0.1. The server of `dev` and `demo` has the same page, at /money.
    """
    # The other commands of this module start without a web server.
    import uvicorn
    from starlette.applications import Starlette
    from starlette.middleware import Middleware

    from ib_gateway_simulator.loopback_guard import LoopbackGuard
    from position_sync_dagster.web.money_page import money_routes
    from position_sync_dagster.web.served_figures import PageFigures

    settings, _lake = options.opened(home)
    ports.require_free(port, purpose="money page", option="--port")
    routes = money_routes(
        dagster=False,
        home=None if home is None else str(home),
        open_figures=lambda: PageFigures(settings),
    )
    app = Starlette(routes=routes, middleware=[Middleware(LoopbackGuard)])
    typer.echo(f"The money page is at http://{ports.LOOPBACK}:{port}/money (Ctrl-C ends it).")
    uvicorn.run(app, host=ports.LOOPBACK, port=port, log_level="warning")
