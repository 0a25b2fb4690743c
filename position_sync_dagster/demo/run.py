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

from position_sync_dagster.demo import display, simulator_process
from position_sync_dagster.demo.acceptance import TIME_LIMIT_S, Finding
from position_sync_dagster.demo.display import Watched
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.errors import LakeError
from position_sync_dagster.processes import dagster_dev, ports
from position_sync_dagster.processes.child_process import Child
from position_sync_dagster.processes.home import Home, adopt_environment, occupied, own_environment
from position_sync_dagster.processes.stop_request import Stop, Stopped
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
        seconds: Run so long, then judge; None runs until somebody ends it.
        end_with: Process id of the parent with which to end.
    """

    home: Path = Path(".demo")
    seconds: float | None = None
    ui_port: int | None = None
    control_port: int | None = None
    as_json: bool = False
    end_with: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """The running programs of a demo, and where they are met."""

    home: Home
    is_first: bool
    since: datetime
    ui_port: int
    simulator: simulator_process.Ports
    children: tuple[Child, ...]

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
    screen = display.choose(as_json=options.as_json)
    home = Home.at(options.home)
    findings: tuple[Finding, ...] = ()
    ending = time.monotonic()
    with Stop(end_with=options.end_with) as stop:
        try:
            try:
                with (
                    occupied(home.path, purpose="position-sync demo") as lock,
                    started(home, options, lock.fd, screen, stop) as session,
                ):
                    try:
                        findings = watch(session, options, screen, stop)
                    finally:
                        ending = time.monotonic()
            except Stopped as wish:
                screen.note(f"Ended ({wish.reason}) in {time.monotonic() - ending:.1f} s.")
                return wish.code if options.seconds is not None else 0
            screen.verdict(findings)
        except Stopped as wish:
            return wish.code
    return 0 if all(finding.met for finding in findings) else 1


@contextmanager
def started(
    home: Home, options: Options, lock_fd: int, screen: Watched, stop: Stop
) -> Iterator[Session]:
    """Start the programs; end them, and all that came from them, when the block ends."""
    since = utc_now()
    ui_port, control_port = chosen_ports(options, screen)
    is_first = home.is_new
    home.prepare()
    kept = {} if is_first else home.settings()
    wanted = int(kept.get(f"{PREFIX}GATEWAY_PORT", GATEWAY_PORT))
    with simulator_process.start(
        env=own_environment(home.path, {}),
        cwd=home.path,
        log=home.log("simulator"),
        port=ports.first_free(wanted),
        control_port=control_port,
        lock_fd=lock_fd,
    ) as gateway:
        if is_first:
            import_strategies(home.lake)
        found = simulator_process.wait_until_ready(gateway, stop)
        settings = home.keep_settings(
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
            env=own_environment(home.path, settings),
            dagster_home=home.dagster_home,
            ui_port=ui_port,
            cwd=home.path,
            log=home.log("dagster"),
            holds=[lock_fd, gateway.pipe_fd],
        ) as dagster:
            yield Session(
                home=home,
                is_first=is_first,
                since=since,
                ui_port=ui_port,
                simulator=found,
                children=(gateway, dagster),
            )


def chosen_ports(options: Options, screen: Watched) -> tuple[int, int]:
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
        screen.note(f"Port {UI_PORT} is taken: the UI comes at {ui_port}.")
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


def watch(session: Session, options: Options, screen: Watched, stop: Stop) -> tuple[Finding, ...]:
    """Show the demo until its time is over or somebody ends it; give the verdict.

    Raises:
        Stopped: Somebody wants an end.
        ChildEndedError: One of the programs has ended.
    """
    from position_sync_dagster.demo.observation import Watch
    from position_sync_dagster.lake import Lake
    from position_sync_dagster.settings import load_settings

    places = where(session)
    screen.event("started", places | {"first": session.is_first})
    settings = load_settings(_env_file=None)
    lake = Lake.of(settings)
    serving = False
    deadline = None if options.seconds is None else session.since.timestamp() + options.seconds
    tables = Watch(lake, settings, control_port=session.simulator.control, since=session.since)
    with screen:
        while deadline is None or time.time() < deadline:
            session.check()
            if not serving and dagster_dev.is_serving(session.ui_port):
                serving = True
                screen.event("serving", {"ui": places["ui"]})
            figures: list[tuple[str, str]] = []
            status: dict[str, object] = {}
            try:
                told = tables.status()
                if tables.complete_after_s is None:
                    expectation, coverage = tables.look()
                    figures.append(("current", f"{coverage.legs} of {expectation.legs} legs"))
                else:
                    figures.append(("current", f"all legs, after {tables.complete_after_s:.1f} s"))
                figures += describe(told)
                status = told.to_dict() | {"complete_after_s": tables.complete_after_s}
            except (
                LakeError,
                simulator_process.SimulatorError,
            ) as error:  # the next look may succeed
                figures.append(("trouble", printable(str(error))))
            screen.show(figures, worded(places, options, serving=serving), status)
            stop.pause(LOOK_INTERVAL_S)
        limit_s = (options.seconds or 0) if session.is_first else TIME_LIMIT_S
        return tables.judge(limit_s=limit_s)


def where(session: Session) -> dict[str, str]:
    """Say where the parts are met."""
    return {
        "ui": dagster_dev.address(session.ui_port),
        "control": f"http://{ports.LOOPBACK}:{session.simulator.control}",
        "gateway": f"{ports.LOOPBACK}:{session.simulator.gateway}",
        "home": str(session.home.path),
        "lake": str(session.home.lake),
        "logs": str(session.home.log("*")),
    }


def worded(places: dict[str, str], options: Options, *, serving: bool) -> list[tuple[str, str]]:
    """Say for a person where to look further."""
    return [
        ("Dagster UI", places["ui"] if serving else "starting"),
        ("simulator", f"{places['control']}/stats"),
        ("tables", f"position-sync positions --home {options.home}"),
        ("logs", places["logs"]),
    ]
