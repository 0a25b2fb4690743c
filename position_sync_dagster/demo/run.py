"""The demo: simulator, Dagster, stream and queue in a home of their own, watched by this process.

All processes end with this one, in whatever way it ends: each runs under a keeper that reads a
pipe from here. Dagster's keeper also holds the simulator's pipe, so that the stream can end its
session while its gateway still answers.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import as_file, files
from pathlib import Path

from position_sync_dagster.demo import simulator_process
from position_sync_dagster.demo.acceptance import TIME_LIMIT_S, AcceptanceResult
from position_sync_dagster.demo.display import GuardedDisplay, choose_display
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.errors import LakeError
from position_sync_dagster.processes import dagster_dev, ports
from position_sync_dagster.processes.child_process import ChildProcess
from position_sync_dagster.processes.home import (
    Home,
    adopt_environment,
    environment_of,
    exclusive_use,
)
from position_sync_dagster.processes.stop_request import StopRequested, StopSignals
from position_sync_dagster.settings import PREFIX
from position_sync_dagster.terminal.status_lines import describe
from position_sync_dagster.terminal.text import printable

UI_PORT = 3000
GATEWAY_PORT = 17497
"""Neither one of TWS or IB Gateway, nor one that systems hand out."""

LOOK_INTERVAL_S = 1.0
"""Between two looks at the tables."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line said; None leaves the choice to the demo.

    Attributes:
        seconds: Run so long, then evaluate; None runs until somebody ends it.
        end_with: Process id of the parent with which to end.
    """

    home: Path = Path(".demo")
    seconds: float | None = None
    ui_port: int | None = None
    control_port: int | None = None
    as_json: bool = False
    end_with: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoRun:
    """The running programs of a demo, and where they are met."""

    home: Home
    is_first: bool
    since: datetime
    ui_port: int
    simulator: simulator_process.SimulatorPorts
    children: tuple[ChildProcess, ...]

    def check(self) -> None:
        """Raise if one of the programs has ended.

        Raises:
            ChildEndedError: It has.
        """
        for child in self.children:
            child.check()


def run(options: Options) -> int:
    """Run the demo; give the exit code.

    Raises:
        PositionSyncError: It could not start, or one of its programs ended.
    """
    display = choose_display(as_json=options.as_json)
    home = Home.at(options.home)
    results: tuple[AcceptanceResult, ...] = ()
    ending = time.monotonic()
    with StopSignals(end_with=options.end_with) as stop:
        try:
            try:
                with (
                    exclusive_use(home.path, purpose="position-sync demo") as lock,
                    started(home, options, lock.fd, display, stop) as demo_run,
                ):
                    try:
                        results = watch(demo_run, options, display, stop)
                    finally:
                        ending = time.monotonic()
            except StopRequested as request:
                display.note(f"Ended ({request.reason}) in {time.monotonic() - ending:.1f} s.")
                return request.code if options.seconds is not None else 0
            display.show_acceptance(results)
        except StopRequested as request:
            return request.code
    return 0 if all(result.met for result in results) else 1


@contextmanager
def started(
    home: Home, options: Options, lock_fd: int, display: GuardedDisplay, stop: StopSignals
) -> Iterator[DemoRun]:
    """Start the programs; end them, and all that came from them, when the block ends."""
    since = utc_now()
    ui_port, control_port = chosen_ports(options, display)
    is_first = home.is_new
    home.prepare()
    kept = {} if is_first else home.read_settings()
    wanted = int(kept.get(f"{PREFIX}GATEWAY_PORT", GATEWAY_PORT))
    with simulator_process.start(
        env=environment_of(home.path, {}),
        cwd=home.path,
        log=home.log_file("simulator"),
        port=ports.first_free(wanted),
        control_port=control_port,
        lock_fd=lock_fd,
    ) as gateway:
        if is_first:
            import_strategies(home.lake)
        found = simulator_process.wait_until_ready(gateway, stop)
        settings = home.update_settings(
            {
                f"{PREFIX}LAKE": str(home.lake),
                f"{PREFIX}GATEWAY_HOST": ports.LOOPBACK,
                f"{PREFIX}GATEWAY_PORT": str(found.gateway),
                f"{PREFIX}TRADING_MODE": "SIMULATED",
            }
        )
        adopt_environment(settings)
        stop.check()
        with dagster_dev.start(
            env=environment_of(home.path, settings),
            dagster_home=home.dagster_home,
            ui_port=ui_port,
            cwd=home.path,
            log=home.log_file("dagster"),
            inherited_fds=[lock_fd, gateway.pipe_fd],
        ) as dagster:
            yield DemoRun(
                home=home,
                is_first=is_first,
                since=since,
                ui_port=ui_port,
                simulator=found,
                children=(gateway, dagster),
            )


def chosen_ports(options: Options, display: GuardedDisplay) -> tuple[int, int]:
    """Give the UI's port and the control port, 0 for any.

    Raises:
        PortTakenError: One that was asked for by name is taken.
    """
    control_port = options.control_port or 0
    if control_port:
        ports.require_free(control_port, purpose="control port", option="--control-port")
    if options.ui_port is not None:
        purpose = "Dagster UI"
        return ports.require_free(
            options.ui_port, purpose=purpose, option="--ui-port"
        ), control_port
    ui_port = ports.first_free(UI_PORT)
    if ui_port != UI_PORT:
        display.note(f"Port {UI_PORT} is taken: the UI comes at {ui_port}.")
    return ui_port, control_port


def import_strategies(lake_path: Path) -> None:
    """Make the demo's strategies active, once: what a person changes afterwards stays."""
    from position_sync_dagster.lake import Lake
    from position_sync_dagster.lake.registry.strategies_file import load_strategies

    book = files("position_sync_dagster.simulator") / "books" / "demo_strategies.yaml"
    with as_file(book) as path:
        legs = load_strategies(path)
    lake = Lake(str(lake_path))
    lake.initialize_sync()
    lake.registry.sync.replace_all(legs)


def watch(
    demo_run: DemoRun, options: Options, display: GuardedDisplay, stop: StopSignals
) -> tuple[AcceptanceResult, ...]:
    """Show the demo until its time is over or somebody ends it; give the verdict.

    Raises:
        StopRequested: Somebody wants an end.
        ChildEndedError: One of the programs has ended.
    """
    from position_sync_dagster.demo.observation import Observer
    from position_sync_dagster.lake import Lake
    from position_sync_dagster.settings import load_settings

    places = addresses(demo_run)
    display.event("started", places | {"first": demo_run.is_first})
    settings = load_settings(_env_file=None)
    lake = Lake.of(settings)
    serving = False
    deadline = None if options.seconds is None else demo_run.since.timestamp() + options.seconds
    observer = Observer(
        lake, settings, control_port=demo_run.simulator.control, since=demo_run.since
    )
    with display:
        while deadline is None or time.time() < deadline:
            demo_run.check()
            if not serving and dagster_dev.is_serving(demo_run.ui_port):
                serving = True
                display.event("serving", {"ui": places["ui"]})
            figures: list[tuple[str, str]] = []
            status: dict[str, object] = {}
            try:
                found_status = observer.status()
                if observer.complete_after_s is None:
                    expectation, coverage = observer.observe()
                    figures.append(("current", f"{coverage.legs} of {expectation.legs} legs"))
                else:
                    figures.append(
                        ("current", f"all legs, after {observer.complete_after_s:.1f} s")
                    )
                figures += describe(found_status)
                status = found_status.to_dict() | {"complete_after_s": observer.complete_after_s}
            except (
                LakeError,
                simulator_process.SimulatorProcessError,
            ) as error:  # the next look may succeed
                figures.append(("trouble", printable(str(error))))
            display.show(figures, place_lines(places, options, serving=serving), status)
            stop.pause(LOOK_INTERVAL_S)
        limit_s = (options.seconds or 0) if demo_run.is_first else TIME_LIMIT_S
        return observer.evaluate(limit_s=limit_s)


def addresses(demo_run: DemoRun) -> dict[str, str]:
    """Say where the parts are met."""
    return {
        "ui": dagster_dev.url(demo_run.ui_port),
        "control": f"http://{ports.LOOPBACK}:{demo_run.simulator.control}",
        "gateway": f"{ports.LOOPBACK}:{demo_run.simulator.gateway}",
        "home": str(demo_run.home.path),
        "lake": str(demo_run.home.lake),
        "logs": str(demo_run.home.log_file("*")),
    }


def place_lines(
    places: dict[str, str], options: Options, *, serving: bool
) -> list[tuple[str, str]]:
    """Say for a person where to look further."""
    return [
        ("Dagster UI", places["ui"] if serving else "starting"),
        ("simulator", f"{places['control']}/stats"),
        ("tables", f"position-sync positions --home {options.home}"),
        ("logs", places["logs"]),
    ]
