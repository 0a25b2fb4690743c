"""The run of a demo: start the programs, show their state, test it, and end with an exit code.

The exit code is 0 for a run without a time limit, however it is stopped. A run with a time limit
ends with 0 if all figures of the acceptance test are met and with 1 if not. If it is stopped
before its time, nothing was tested, and the code says what stopped it: 128 + n for signal n.

The output is a live table on a terminal, lines in a log, or JSON for a program.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import KW_ONLY, asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import polars as pl
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from position_sync_dagster.demo import programs
from position_sync_dagster.domain.broker_position import Key
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.leg import ActiveContract
from position_sync_dagster.domain.update import Source
from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.processes import ports, supervisor
from position_sync_dagster.processes.home import Home, exclusive_use
from position_sync_dagster.processes.stop_request import StopRequest, StopRequested
from position_sync_dagster.settings import Settings, load_settings
from position_sync_dagster.sync.reports.changes import DayChange
from position_sync_dagster.sync.reports.confirmations import CONFIRMED
from position_sync_dagster.sync.reports.figures import Figures, FiguresReader
from position_sync_dagster.terminal.board import Lines, board, figures_of
from position_sync_dagster.terminal.text import command_as_typed, printable

# The time in seconds in which each leg must have a current row, if the tables already exist.
TIME_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """The legs held at the broker, divided by the path that must value them."""

    streamed: frozenset[Key]
    queued: frozenset[Key]

    @property
    def legs(self) -> int:
        """The number of legs held."""
        return len(self.streamed) + len(self.queued)

    @property
    def lines(self) -> int:
        """The number of market data lines that the stream needs: one per conid."""
        return len({conid for _, conid in self.streamed})


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentLegs:
    """The number of legs whose value is of this run, by the path that wrote the newest row.

    A row of an earlier run counts if the broker has confirmed its value in this one.

    Attributes:
        legs: Legs with a current row from either path.
        streamed: Streamed legs whose newest row came from the stream.
        queued: Queued legs whose newest row came from the queue.
    """

    legs: int
    streamed: int
    queued: int


@dataclass(frozen=True, slots=True)
class AcceptanceResult:
    """One figure of the acceptance test: the wanted value and the value found."""

    name: str
    wanted: str
    found: str
    met: bool


def expect_paths(held: Iterable[Key], legs: Iterable[ActiveContract]) -> Expectation:
    """Divide the legs held by the registry: an active conid streams in each account."""
    held = frozenset(held)
    active = {leg.conid for leg in legs if leg.removed_at is None}
    streamed = frozenset(key for key in held if key[1] in active)
    return Expectation(streamed=streamed, queued=held - streamed)


def count_coverage(expectation: Expectation, rows: pl.DataFrame, *, since: datetime) -> CurrentLegs:
    """Count the legs whose newest row was written, or confirmed, at `since` or later.

    Args:
        expectation: The legs held.
        rows: The newest row of each leg, with the time at which its source last confirmed it.
        since: The start of the run.
    """
    confirmed = pl.when(pl.col("position") != 0).then(CONFIRMED)
    recent = rows.filter(pl.max_horizontal("timestamp", confirmed) >= since)
    listed = recent.select("account", "conid", "source").iter_rows()
    current = {(account, conid): source for account, conid, source in listed}
    streamed = sum(current.get(key) == Source.STREAM for key in expectation.streamed)
    queued = sum(current.get(key) == Source.QUEUE for key in expectation.queued)
    legs = len(current.keys() & (expectation.streamed | expectation.queued))
    return CurrentLegs(legs=legs, streamed=streamed, queued=queued)


def is_complete(expectation: Expectation, coverage: CurrentLegs) -> bool:
    """Return whether each leg has a current row from its own path."""
    return coverage.streamed == len(expectation.streamed) and coverage.queued == len(
        expectation.queued
    )


def evaluate(
    expectation: Expectation,
    coverage: CurrentLegs,
    *,
    complete_after_s: float | None,
    limit_s: float,
    underlyings: int,
    counts: Mapping[str, Any],
) -> tuple[AcceptanceResult, ...]:
    """Compare the figures of a run with the figures that the demo promises.

    Args:
        complete_after_s: Seconds from the start until each leg had a current row; None if that
            did not happen.
        limit_s: The time allowed for it, in seconds.
        underlyings: The number of underlyings of the holdings; each gets a line when the details
            of its options are known.
        counts: What the simulator counted, as its control port answers: `peak_lines` is the
            highest number of lines in use at once.
    """

    def count(name: str, wanted: int, found: int) -> AcceptanceResult:
        return AcceptanceResult(name, str(wanted), str(found), wanted == found)

    in_time = complete_after_s is not None and complete_after_s <= limit_s
    duration = "not complete" if complete_after_s is None else f"{complete_after_s:.1f} s"
    return (
        count("legs with a current row", expectation.legs, coverage.legs),
        count("  by STREAM", len(expectation.streamed), coverage.streamed),
        count("  by QUEUE", len(expectation.queued), coverage.queued),
        AcceptanceResult("all current after", f"at most {limit_s:.0f} s", duration, in_time),
        AcceptanceResult(
            "peak of market data lines",
            f"{expectation.lines} legs + at most {underlyings} underlyings",
            str(counts["peak_lines"]),
            0 <= counts["peak_lines"] - expectation.lines <= underlyings,
        ),
        count("order messages at the broker", 0, len(counts["orders_received"])),
    )


# Seconds between two lines, before and after each leg has a current row: a read of the tables
# takes a quarter of a second of a processor.
LINE_INTERVAL_S, QUIET_INTERVAL_S = 5.0, 10.0

# Seconds between two reads of the tables, while a person watches or figures are still missing.
LOOK_INTERVAL_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The result of one read of the tables.

    Attributes:
        overview: For a terminal; None while the tables cannot be read.
        changes: The last changes, the newest first.
        notes: Messages above the status, such as errors.
        figures: The state, as lines for a log.
        addresses: Addresses, folders and commands, with their labels.
        status: The state, for a program.
    """

    overview: Figures | None = None
    changes: Sequence[DayChange] = ()
    notes: Lines = ()
    figures: Lines = ()
    addresses: Lines = ()
    status: Mapping[str, Any] = field(default_factory=dict)


def look_at(read: Callable[[], Figures | None], *, notes: Lines, addresses: Lines) -> Look:
    """Read the tables, and return their state or the error: the next read may succeed."""
    try:
        overview = read()
    except PositionSyncError as error:
        trouble = [("trouble", printable(line)) for line in str(error).splitlines()]
        return Look(notes=[*notes, *trouble], figures=trouble, addresses=addresses)
    if overview is None:
        return Look(notes=notes, addresses=addresses)
    return Look(
        overview=overview,
        changes=overview.changes,
        notes=notes,
        figures=figures_of(overview),
        addresses=addresses,
        status=overview.status.to_dict() | {"current": overview.current},
    )


class Display:
    """The base of the displays: shows nothing by itself.

    Each method raises `StopRequested` if the output was closed, so that the demo ends.

    Attributes:
        interval_s: Seconds between two reads of the tables once each leg has a current row.
    """

    interval_s = QUIET_INTERVAL_S

    def note(self, text: str) -> None:
        """Show a message."""

    def event(self, name: str, values: Mapping[str, Any]) -> None:
        """Report an event to a program that reads the output."""

    def show(self, look: Look) -> None:
        """Show the current state."""

    def show_acceptance(self, results: Sequence[AcceptanceResult]) -> None:
        """Show the results of the acceptance test, as a table."""
        with stop_if_closed():
            Console(width=None if sys.stdout.isatty() else 100).print(acceptance_table(results))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


class JsonDisplay(Display):
    """Writes one JSON object per line."""

    def __init__(self) -> None:
        self._next = 0.0

    def event(self, name: str, values: Mapping[str, Any]) -> None:
        _write_line(json.dumps({"event": name, **values}))

    def show(self, look: Look) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + LINE_INTERVAL_S
            self.event("status", look.status)

    def show_acceptance(self, results: Sequence[AcceptanceResult]) -> None:
        figures = [asdict(one) | {"name": one.name.strip()} for one in results]
        # Other programs read these names: keep them.
        self.event("verdict", {"met": all(one.met for one in results), "figures": figures})


class LineDisplay(Display):
    """Writes a line every few seconds, for a log."""

    def __init__(self) -> None:
        self._next = 0.0
        self._addresses: Lines = ()
        self._changes: Sequence[DayChange] = ()

    def note(self, text: str) -> None:
        _write_line(text)

    def show(self, look: Look) -> None:
        if look.addresses != self._addresses:
            self._addresses = look.addresses
            self.note("\n".join(f"{label}: {value}" for label, value in look.addresses))
        for change in reversed(look.changes):
            if change not in self._changes:
                self.note(f"{change.at:%H:%M:%S} {printable(change.text)}")
        self._changes = look.changes or self._changes  # a read that failed has none
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + LINE_INTERVAL_S
            self.note("; ".join(f"{label}: {value}" for label, value in look.figures))


class LiveDisplay(Display):
    """Redraws the board in place on a terminal."""

    interval_s = LOOK_INTERVAL_S

    def __init__(self) -> None:
        self._console = Console()
        self._live = Live(console=self._console, auto_refresh=False)
        self._size = self._console.size

    def note(self, text: str) -> None:
        with stop_if_closed():
            self._console.print(Text(text))

    def show(self, look: Look) -> None:
        with stop_if_closed():
            if self._console.size != self._size:
                # The terminal has wrapped the lines of the last frame: what is above is unknown.
                self._size = self._console.size
                self._console.clear()
            self._live.update(
                board(look.overview, look.changes, look.notes, look.addresses, self._console),
                refresh=True,
            )

    def __enter__(self) -> Self:
        with stop_if_closed():
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._live.stop()


def acceptance_table(results: Sequence[AcceptanceResult]) -> Table:
    """Return the results of the acceptance test as a table."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("figure")
    table.add_column("wanted", justify="right")
    table.add_column("found", justify="right")
    table.add_column("")
    for result in results:
        mark = Text("met", style="green") if result.met else Text("missed", style="bold red")
        table.add_row(Text(result.name), Text(result.wanted), Text(result.found), mark)
    return table


def choose_display(*, as_json: bool) -> Display:
    """Return the display that suits the standard output."""
    if as_json:
        return JsonDisplay()
    return LiveDisplay() if sys.stdout.isatty() else LineDisplay()


def _write_line(text: str) -> None:
    with stop_if_closed():
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


@contextmanager
def stop_if_closed() -> Iterator[None]:
    """Raise `StopRequested` if the output, to which the block writes, was closed."""
    try:
        yield
    except OSError as error:
        raise StopRequested("the output was closed", 1) from error


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
    screen = choose_display(as_json=options.as_json)
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


def choose_ports(options: Options, screen: Display) -> tuple[int, programs.SimulatorPorts]:
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


def watch(
    demo_run: programs.DemoRun, options: Options, screen: Display, stop: StopRequest
) -> tuple[AcceptanceResult, ...]:
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
            if not serving and supervisor.is_serving(demo_run.ui_port):
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
            look = look_at(observer.overview, notes=(), addresses=shown)
            if look.overview is not None:
                times = {"complete_after_s": observer.complete_after_s}
                look = replace(look, status={**look.status, **times})
            screen.show(look)
            complete = observer.complete_after_s is not None
            pause_s = screen.interval_s if complete else LOOK_INTERVAL_S
            if deadline is not None:
                pause_s = min(pause_s, max(0.0, deadline - time.time()))
            stop.pause(pause_s)
        limit_s = (options.seconds or 0) if demo_run.is_first else TIME_LIMIT_S
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
        # Seconds from the start until each leg had a current row; None until then.
        self.complete_after_s: float | None = None

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

    def _coverage(self, found: Figures) -> tuple[Expectation, CurrentLegs]:
        """Compare the positions held with the rows of this run, and values published since."""
        expectation = expect_paths(programs.held(self.control_port), found.book.legs)
        coverage = count_coverage(expectation, found.book.priced, since=self.since)
        if self.complete_after_s is None and is_complete(expectation, coverage):
            self.complete_after_s = (found.status.at - self.since).total_seconds()
        return expectation, coverage

    def _underlyings(self, expectation: Expectation) -> int:
        """Return how many underlyings of the holdings need a line of their own."""
        most = self.settings.underlying_lines
        held = {conid for _account, conid in expectation.streamed | expectation.queued}
        streamed = {conid for _account, conid in expectation.streamed}
        found = {one.under_conid for one in self.lake.contracts.get(held).values()}
        needed = len(found - streamed - {None})
        return needed if most is None else min(most, needed)

    def acceptance(self, *, limit_s: float) -> tuple[AcceptanceResult, ...]:
        """Read the tables a last time, and return the results of the acceptance test."""
        expectation, coverage = self._coverage(self._overviews.read(utc_now()))
        return evaluate(
            expectation,
            coverage,
            complete_after_s=self.complete_after_s,
            limit_s=limit_s,
            underlyings=self._underlyings(expectation),
            counts=programs.stats(self.control_port),
        )
