"""The commands that run programs: `dev` for your own gateway, `demo`, `record` and `money`."""

import os
import shutil
import sys
import time
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Annotated

import typer

from ib_gateway_simulator.recording import program
from position_sync_dagster import errors, places
from position_sync_dagster.cli import options
from position_sync_dagster.demo.display import LiveDisplay, look_at, stop_if_closed
from position_sync_dagster.demo.run import Options
from position_sync_dagster.demo.run import run as run_demo
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.strategies_file import load_strategies
from position_sync_dagster.processes import dagster_dev, ports
from position_sync_dagster.processes.child_process import ChildProcess
from position_sync_dagster.processes.home import MARKER, HomeError, exclusive_use
from position_sync_dagster.processes.stop_request import StopRequest, StopRequested
from position_sync_dagster.settings import PREFIX, Settings, load_settings, read_env_file
from position_sync_dagster.sync.reports.exchange_days import require_known
from position_sync_dagster.sync.reports.figures import Figures, FiguresReader
from position_sync_dagster.sync.stream.memory_and_threads import one_native_thread_each
from position_sync_dagster.terminal.text import printable

UI_URL = f"{PREFIX}UI_URL"
LOG_NAME = "dagster-dev.log"
STARTING_INTERVAL_S = 1.0
INTERVAL_S = 5.0
"""Seconds between two reads of the tables: while the UI starts, and afterwards."""


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
    home = places.dagster_home()
    with (
        StopRequest(end_with=end_with) as stop,
        exclusive_use(home, purpose="position-sync dev"),
    ):
        put_instance(home)
        log = home / LOG_NAME if live else None
        known = "ui_url" in settings.model_fields_set
        address = settings.ui_url if known else dagster_dev.url(ui_port)
        try:
            with dagster_dev.start(
                env={**variables_of_the_folder(), **os.environ, UI_URL: address, MARKER: str(home)},
                dagster_home=home,
                ui_port=ui_port,
                cwd=Path.cwd(),
                log=log,
            ) as dagster:
                output = LiveOutput(settings, log) if log else Output(settings)
                watch(dagster, settings, ui_port, stop, output)
        except StopRequested as request:
            with suppress(StopRequested):  # the terminal is closed
                write_lines(f"Ended ({request.reason}).")


FORMER_CLASSES = "position_sync_dagster.dagster_host"
"""What a `dagster.yaml` of an earlier release names: its launcher and its queue of runs."""


def put_instance(home: Path) -> None:
    """Copy our `dagster.yaml` into the package's own home; one of your own is kept if it works.

    Raises:
        HomeError: A home of your own has that of an old release.
    """
    file = home / "dagster.yaml"
    former = file.exists() and FORMER_CLASSES in file.read_text(encoding="utf-8")
    if home == places.own_dagster_home() and (former or not file.exists()):
        shutil.copyfile(places.instance_file(), file)
    elif former:
        raise HomeError(
            f"{file} names classes of an earlier release, in {FORMER_CLASSES}.",
            remedy=f"Copy {places.instance_file()} there, or remove both.",
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


class Output:
    """Writes each change as lines; the base of the live output.

    Attributes:
        interval_s: Seconds between two reads of the tables, once the UI answers.
        screen: The context in which the output is shown.
    """

    interval_s = INTERVAL_S

    def __init__(self, settings: Settings) -> None:
        self.screen: AbstractContextManager[object] = nullcontext()
        self._settings = settings
        self._sessions: dict[str, str] = {}

    def note(self, text: str) -> None:
        """Show a change.

        Raises:
            StopRequested: The terminal is closed.
        """
        write_lines(text)

    def serving(self, ui: str) -> None:
        """Show that the UI answers.

        Raises:
            StopRequested: The terminal is closed.
        """
        self.note(f"The Dagster UI is at {ui}")

    def look(self, ui: str) -> None:
        """Show the state of each gateway's session that has changed.

        Raises:
            StopRequested: The terminal is closed.
        """
        states = session_states(self._settings)
        for gateway_id, state in states.items():
            if state != self._sessions.get(gateway_id):
                self.note(f"Gateway {gateway_id}: {state}")
        self._sessions = states


class LiveOutput(Output):
    """Redraws the status of the demo in place, with the last message above it."""

    interval_s = LiveDisplay.interval_s

    def __init__(self, settings: Settings, log: Path) -> None:
        super().__init__(settings)
        self.screen = self._display = LiveDisplay()
        self._log = log
        self._notes: list[tuple[str, str]] = []
        self._lake = Lake.of(settings)
        self._reader = FiguresReader(self._lake, settings)

    def note(self, text: str) -> None:
        """Show a change above the status, until the next one.

        Raises:
            StopRequested: The terminal is closed.
        """
        self._notes = [("", line) for line in text.splitlines()]

    def serving(self, ui: str) -> None:
        """Do nothing: the status has the address, and the last note stays."""

    def look(self, ui: str) -> None:
        """Read the tables, and draw the status again.

        Raises:
            StopRequested: The terminal is closed.
        """
        page = f"{ui}/money" if "://" in ui else ui
        addresses = [("Dagster UI", ui), ("money page", page), ("logs", str(self._log))]
        self._display.show(look_at(self._read, notes=self._notes, addresses=addresses))

    def _read(self) -> Figures | None:
        return self._reader.read(utc_now()) if self._lake.exists else None


@one_native_thread_each()
def watch(
    dagster: ChildProcess, settings: Settings, ui_port: int, stop: StopRequest, output: Output
) -> None:
    """Report each change: of the UI, of each gateway's port and session.

    Raises:
        StopRequested: This process shall stop, or the terminal is closed.
        ChildEndedError: Dagster has ended.
    """
    serving = False
    gateways = ports.GatewayProbes()
    next_probe = 0.0
    with output.screen:
        while True:
            dagster.check()
            if not serving and dagster_dev.is_serving(ui_port):
                serving = True
                output.serving(dagster_dev.url(ui_port))
            # Each probe is a connection that the gateway logs.
            if time.monotonic() >= next_probe:
                next_probe = time.monotonic() + (INTERVAL_S if serving else STARTING_INTERVAL_S)
                for text in gateways.look(settings):
                    output.note(text)
            output.look(dagster_dev.url(ui_port) if serving else "starting")
            stop.pause(output.interval_s if serving else STARTING_INTERVAL_S)


def session_states(settings: Settings) -> dict[str, str]:
    """Return the state and the detail of each gateway's current session, by gateway id.

    If the gateways file or the table cannot be read, the value is the text of the error.
    """
    found = {}
    try:
        sessions = Lake.of(settings).sessions
        for login in settings.logins:
            session = sessions.current(login.gateway_id)
            if session is not None:
                detail = f" – {session.detail}" if session.detail else ""
                found[login.gateway_id] = f"{session.state}{detail}"
    except errors.SettingsError as error:
        return {"file": str(error)}
    except errors.LakeError as error:
        return {login.gateway_id: str(error) for login in settings.logins}
    return found


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
                home=home or places.demo_home(),
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
    from position_sync_dagster.web.page_figures import PageFigures

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
