"""The run of a demo: start the programs, read and show their state, and end with an exit code.

The exit code is 0 for a run without a time limit, however it is stopped. A run with a time limit
ends with 0 if all figures of the acceptance test are met and with 1 if not. If it is stopped
before its time, nothing was tested, and the code says what stopped it: 128 + n for signal n.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, replace
from datetime import datetime
from pathlib import Path

from position_sync_dagster.demo import display, programs
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.processes import dagster_dev, ports
from position_sync_dagster.processes.home import Home, exclusive_use
from position_sync_dagster.processes.stop_request import StopRequest, StopRequested
from position_sync_dagster.settings import Settings, load_settings
from position_sync_dagster.sync.reports.figures import Figures, FiguresReader
from position_sync_dagster.sync.stream.memory_and_threads import one_native_thread_each
from position_sync_dagster.terminal.text import command_as_typed, printable

UI_PORT = 3000


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of the command line; None leaves the choice to the demo.

    Attributes:
        seconds: The time limit in seconds, after which the acceptance test decides. None runs
            until a request to stop.
        end_with: The process id of a parent. When it ends, the demo ends.
        calm: Whether the simulated day has no fills and no outages.
        empty: Whether a new home begins without a strategy: every holding is queued.
    """

    home: Path = Path(".demo")
    seconds: float | None = None
    ui_port: int | None = None
    gateway_port: int | None = None
    control_port: int | None = None
    as_json: bool = False
    end_with: int | None = None
    calm: bool = False
    empty: bool = False


def run(options: Options) -> int:
    """Run the demo and return the exit code.

    Raises:
        PositionSyncError: The demo could not start, or one of its programs ended.
    """
    screen = display.choose_display(as_json=options.as_json)
    home = Home.at(options.home)
    ending = time.monotonic()
    with StopRequest(end_with=options.end_with) as stop:
        try:
            with exclusive_use(home.path, purpose="position-sync demo"):
                ui_port, wanted = choose_ports(options, screen)
                with programs.start(
                    home,
                    ui_port=ui_port,
                    wanted=wanted,
                    stop=stop,
                    calm=options.calm,
                    empty=options.empty,
                ) as demo_run:
                    try:
                        results = watch(demo_run, options, screen, stop)
                    finally:
                        ending = time.monotonic()
            screen.show_acceptance(results)
        except StopRequested as request:
            with suppress(StopRequested):  # the output is closed
                screen.note(f"Ended ({request.reason}) in {time.monotonic() - ending:.1f} s.")
            return 0 if options.seconds is None else request.exit_code
    return 0 if all(result.met for result in results) else 1


def choose_ports(options: Options, screen: display.Display) -> tuple[int, programs.SimulatorPorts]:
    """Return the UI's port, and the simulator's as `programs.start` takes them.

    Raises:
        PortTakenError: A port that the options name is taken.
    """
    for port, purpose, option in (
        (options.gateway_port, "gateway", "--gateway-port"),
        (options.control_port, "control port", "--control-port"),
        (options.ui_port, "Dagster UI", "--ui-port"),
    ):
        if port is not None:
            ports.require_free(port, purpose=purpose, option=option)
    wanted = programs.SimulatorPorts(
        gateway=options.gateway_port or 0, control=options.control_port or 0
    )
    ui_port = options.ui_port or ports.first_free(UI_PORT)
    if options.ui_port is None and ui_port != UI_PORT:
        screen.note(f"Port {UI_PORT} is taken: the Dagster UI uses {ui_port}.")
    return ui_port, wanted


@one_native_thread_each()
def watch(
    demo_run: programs.DemoRun, options: Options, screen: display.Display, stop: StopRequest
) -> tuple[display.AcceptanceResult, ...]:
    """Show the state until the time limit; return the results of the acceptance test.

    Raises:
        StopRequested: This process shall stop, or the output was closed.
        ChildEndedError: One of the programs has ended.
    """
    addresses = demo_run.addresses()
    screen.event("started", addresses | {"first": demo_run.is_first})
    settings = load_settings(_env_file=None)
    observer = Observer(
        Lake.of(settings),
        settings,
        control_port=demo_run.simulator.control,
        since=demo_run.since,
    )
    serving, unstated = False, not options.calm
    began = demo_run.since.timestamp()
    deadline = None if options.seconds is None else began + options.seconds

    def attempt(missing: str, act: Callable[..., None], *ports: int) -> None:
        try:
            act(settings, demo_run.ui_port, *ports)
        except (OSError, ValueError, programs.SimulatorProcessError) as error:
            screen.note(f"No {missing}: {printable(str(error))}")

    with screen:
        while deadline is None or time.time() < deadline:
            demo_run.check()
            if not serving and dagster_dev.is_serving(demo_run.ui_port):
                serving = True
                screen.event("serving", {"ui": addresses["ui"]})
                if demo_run.is_first:
                    attempt("history", programs.record)
            if serving and unstated and time.time() - began >= programs.STATED_S:
                unstated = False
                attempt("statement of the day", programs.state_the_day, demo_run.simulator.control)
            shown = [
                ("Dagster UI", addresses["ui"] if serving else "starting"),
                ("money page", f"{addresses['ui']}/money" if serving else "starting"),
                ("simulator", f"{addresses['control']}/stats"),
                ("tables", command_as_typed("exposure", "--home", str(options.home), "--watch")),
                ("logs", addresses["logs"]),
            ]
            look = display.look_at(observer.overview, notes=(), addresses=shown)
            if look.overview is not None:
                times = {"complete_after_s": observer.complete_after_s}
                look = replace(look, status={**look.status, **times})
            screen.show(look)
            complete = observer.complete_after_s is not None
            pause_s = screen.interval_s if complete else display.LOOK_INTERVAL_S
            if deadline is not None:
                pause_s = min(pause_s, max(0.0, deadline - time.time()))
            stop.pause(pause_s)
        limit_s = (options.seconds or 0) if demo_run.is_first else display.TIME_LIMIT_S
        return observer.acceptance(limit_s=limit_s)


@dataclass(eq=False, repr=False)
class Observer:
    """Reads the state of one run of the demo.

    Args:
        lake: The tables.
        settings: The settings of the demo's home.
        control_port: The control port of the simulator, which knows the positions held.
        since: The start of the run. Older rows belong to an earlier run.
    """

    lake: Lake
    settings: Settings
    _: KW_ONLY
    control_port: int
    since: datetime

    def __post_init__(self) -> None:
        self._overviews = FiguresReader(self.lake, self.settings)
        self.complete_after_s: float | None = None
        """Seconds from the start until each leg had a current row; None until then."""

    def overview(self) -> Figures:
        """Read the values of the live status, from the tables only what is new.

        Raises:
            LakeError: A table cannot be used.
            SimulatorProcessError: The simulator does not answer.
        """
        found = self._overviews.read(utc_now())
        if self.complete_after_s is None:
            self._coverage(found)
        return found

    def _coverage(self, found: Figures) -> tuple[display.Expectation, display.CurrentLegs]:
        """Compare the positions held with the rows of this run, and values published since."""
        expectation = display.expect_paths(programs.held(self.control_port), found.book.legs)
        coverage = display.count_coverage(expectation, found.book.priced, since=self.since)
        if self.complete_after_s is None and display.is_complete(expectation, coverage):
            self.complete_after_s = (found.status.at - self.since).total_seconds()
        return expectation, coverage

    def _underlyings(self, expectation: display.Expectation) -> int:
        """Return how many underlyings of the holdings need a line of their own."""
        most = self.settings.underlying_lines
        held = {conid for _account, conid in expectation.streamed | expectation.queued}
        streamed = {conid for _account, conid in expectation.streamed}
        found = {one.under_conid for one in self.lake.contracts.get(held).values()}
        needed = len(found - streamed - {None})
        return needed if most is None else min(most, needed)

    def acceptance(self, *, limit_s: float) -> tuple[display.AcceptanceResult, ...]:
        """Read the tables a last time, and return the results of the acceptance test."""
        expectation, coverage = self._coverage(self._overviews.read(utc_now()))
        return display.evaluate(
            expectation,
            coverage,
            complete_after_s=self.complete_after_s,
            limit_s=limit_s,
            underlyings=self._underlyings(expectation),
            counts=programs.stats(self.control_port),
        )
