"""The run of a demo: start the programs, show their state, test it, and end with an exit code.

The exit code is 0 for a run without a time limit, however it is stopped. A run with a time limit
ends with 0 if all figures of the acceptance test are met and with 1 if not. If it is stopped
before its time, nothing was tested, and the code says what stopped it: 128 + n for signal n.

The output is a live table on a terminal, lines in a log, or JSON for a program.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Self

import polars as pl
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from position_sync_dagster.demo import programs
from position_sync_dagster.demo.programs import DemoRun, Options
from position_sync_dagster.domain.broker_position import Key
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.leg import ActiveContract
from position_sync_dagster.domain.update import Source
from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.processes import ports, supervisor
from position_sync_dagster.processes.child_process import StopRequest, StopRequested
from position_sync_dagster.processes.home import Home, exclusive_use
from position_sync_dagster.settings import Settings, load_settings
from position_sync_dagster.sync.reports.confirmations import CONFIRMED
from position_sync_dagster.sync.reports.figures import Figures, FiguresReader
from position_sync_dagster.terminal.board import Lines, board, figures_of
from position_sync_dagster.terminal.text import command_as_typed, printable

# The time in seconds in which each leg must have a current row, if the tables already exist.
TIME_LIMIT_S = 60.0

# The path that values each leg.
Paths = Mapping[Key, str]


@dataclass(frozen=True, slots=True)
class AcceptanceResult:
    """One figure of the acceptance test: the wanted value and the value found."""

    name: str
    wanted: str
    found: str
    met: bool


def expect_paths(held: Iterable[Key], legs: Iterable[ActiveContract]) -> Paths:
    """Return the path that must value each leg held: an active conid streams in each account."""
    active = {leg.conid for leg in legs if leg.removed_at is None}
    return {key: Source.STREAM if key[1] in active else Source.QUEUE for key in held}


def current_paths(rows: pl.DataFrame, *, since: datetime) -> Paths:
    """Return the legs whose newest row was written at `since` or later, and the path that did it.

    A row of an earlier run counts if the broker has confirmed its value in this one.

    Args:
        rows: The newest row of each leg, with the time at which its source last confirmed it.
        since: The start of the run.
    """
    confirmed = pl.when(pl.col("position") != 0).then(CONFIRMED)
    recent = rows.filter(pl.max_horizontal("timestamp", confirmed) >= since)
    listed = recent.select("account", "conid", "source").iter_rows()
    return {(account, conid): source for account, conid, source in listed}


def is_complete(expected: Paths, found: Paths) -> bool:
    """Return whether each leg has a current row from its own path."""
    return expected.items() <= found.items()


def evaluate(
    expected: Paths,
    found: Paths,
    *,
    complete_after_s: float | None,
    limit_s: float,
    underlyings: int,
    counts: Mapping[str, Any],
) -> tuple[AcceptanceResult, ...]:
    """Compare the figures of a run with the figures that the demo promises.

    Args:
        expected: As `expect_paths` returns it.
        found: As `current_paths` returns it.
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

    wanted = Counter(expected.values())
    valued = Counter(path for key, path in expected.items() if found.get(key) == path)
    lines = len({conid for (_, conid), path in expected.items() if path == Source.STREAM})
    in_time = complete_after_s is not None and complete_after_s <= limit_s
    duration = "not complete" if complete_after_s is None else f"{complete_after_s:.1f} s"
    return (
        count("legs with a current row", len(expected), len(expected.keys() & found.keys())),
        *(count(f"  by {path}", wanted[path], valued[path]) for path in Source),
        AcceptanceResult("all current after", f"at most {limit_s:.0f} s", duration, in_time),
        AcceptanceResult(
            "peak of market data lines",
            f"{lines} legs + at most {underlyings} underlyings",
            str(counts["peak_lines"]),
            0 <= counts["peak_lines"] - lines <= underlyings,
        ),
        count("order messages at the broker", 0, len(counts["orders_received"])),
    )


# Seconds between two lines, before and after each leg has a current row: a read of the tables
# takes a quarter of a second of a processor.
LINE_INTERVAL_S, QUIET_INTERVAL_S = 5.0, 10.0

# Seconds between two reads of the tables, while a person watches or figures are still missing.
LOOK_INTERVAL_S = 2.0


class Display:
    """The base of the displays: shows nothing by itself but the acceptance test.

    Each method raises `StopRequested` if the output was closed, so that the demo ends.

    Attributes:
        interval_s: Seconds between two reads of the tables once each leg has a current row.
    """

    interval_s = QUIET_INTERVAL_S
    _next = 0.0

    def note(self, text: str) -> None:
        """Show a message."""

    def event(self, name: str, values: Mapping[str, Any]) -> None:
        """Report an event to a program that reads the output."""

    def show(self, overview: Figures | None, addresses: Lines, notes: Lines = ()) -> None:
        """Show the current state.

        Args:
            overview: What the tables have; None where they could not be read.
            addresses: Addresses, folders and commands, with their labels.
            notes: Why they could not be read.
        """

    def show_acceptance(self, results: Sequence[AcceptanceResult]) -> None:
        """Show the results of the acceptance test, as a table."""
        table = Table("figure", box=None, pad_edge=False, header_style="bold")
        table.add_column("wanted", justify="right")
        table.add_column("found", justify="right")
        table.add_column("")
        for result in results:
            mark = Text("met", style="green") if result.met else Text("missed", style="bold red")
            table.add_row(Text(result.name), Text(result.wanted), Text(result.found), mark)
        with stop_if_closed():
            Console(width=None if sys.stdout.isatty() else 100).print(table)

    def is_due(self) -> bool:
        """Return whether the last line is old enough for another one."""
        due = time.monotonic() >= self._next
        self._next = time.monotonic() + LINE_INTERVAL_S if due else self._next
        return due

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


class JsonDisplay(Display):
    """Writes one JSON object per line."""

    def event(self, name: str, values: Mapping[str, Any]) -> None:
        _write_line(json.dumps({"event": name, **values}))

    def show(self, overview: Figures | None, addresses: Lines, notes: Lines = ()) -> None:
        if overview is not None and self.is_due():
            self.event("status", overview.status.to_dict() | {"current": overview.current})

    def show_acceptance(self, results: Sequence[AcceptanceResult]) -> None:
        figures = [asdict(one) | {"name": one.name.strip()} for one in results]
        # Other programs read these names: keep them.
        self.event("verdict", {"met": all(one.met for one in results), "figures": figures})


class LineDisplay(Display):
    """Writes a line every few seconds, for a log."""

    _addresses: Lines = ()

    def note(self, text: str) -> None:
        _write_line(text)

    def show(self, overview: Figures | None, addresses: Lines, notes: Lines = ()) -> None:
        if addresses != self._addresses:
            self._addresses = addresses
            self.note("\n".join(f"{label}: {value}" for label, value in addresses))
        if self.is_due():
            figures = notes if overview is None else figures_of(overview)
            self.note("; ".join(f"{label}: {value}" for label, value in figures))


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

    def show(self, overview: Figures | None, addresses: Lines, notes: Lines = ()) -> None:
        changes = () if overview is None else overview.changes
        with stop_if_closed():
            if self._console.size != self._size:
                # The terminal has wrapped the lines of the last frame: what is above is unknown.
                self._size = self._console.size
                self._console.clear()
            self._live.update(
                board(overview, changes, notes, addresses, self._console), refresh=True
            )

    def __enter__(self) -> Self:
        with stop_if_closed():
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._live.stop()


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


def frames(
    check: Callable[[], None],
    ui_port: int,
    screen: Display,
    read: Callable[[], Figures | None],
    addresses: Lines,
) -> Iterator[bool]:
    """Show the state of Dagster's programs again and again; yield whether their pages answer.

    Args:
        check: Raises if a program has ended.
        read: Reads the tables; after an error, which is shown, the next read may succeed.
        addresses: What is shown below the addresses of the pages.

    Raises:
        StopRequested: The output was closed.
        ChildEndedError: One of the programs has ended.
    """
    serving, url = False, supervisor.url(ui_port)
    while True:
        check()
        serving = serving or supervisor.is_serving(ui_port)
        pages = [("Dagster UI", url), ("money page", f"{url}/money")]
        pages = pages if serving else [(label, "starting") for label, _ in pages]
        try:
            screen.show(read(), [*pages, *addresses])
        except PositionSyncError as error:
            trouble = [("trouble", printable(line)) for line in str(error).splitlines()]
            screen.show(None, [*pages, *addresses], trouble)
        yield serving


UI_PORT = 3000


def run(options: Options) -> int:
    """Run the demo and return the exit code.

    Raises:
        PositionSyncError: The demo could not start, or one of its programs ended.
    """
    screen = choose_display(as_json=options.as_json)
    home, stop = Home.at(options.home), StopRequest(end_with=options.end_with)
    ending = time.monotonic()
    try:
        with exclusive_use(home.dagster_home, purpose="position-sync demo"):
            ui_port = choose_ports(options, screen)
            with programs.start(home, options, ui_port=ui_port, stop=stop) as demo_run:
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


def choose_ports(options: Options, screen: Display) -> int:
    """Return the port of the UI.

    Raises:
        PortTakenError: A port that the options name is taken.
    """
    for port, purpose, option in (
        (options.gateway_port, "gateway", "--gateway-port"),
        (options.control_port, "control port", "--control-port"),
        (options.ui_port, "Dagster UI", "--ui-port"),
    ):
        if port:
            ports.require_free(port, purpose=purpose, option=option)
    ui_port = options.ui_port or ports.first_free(UI_PORT)
    if not options.ui_port and ui_port != UI_PORT:
        screen.note(f"Port {UI_PORT} is taken: the Dagster UI uses {ui_port}.")
    return ui_port


def watch(
    demo_run: DemoRun, options: Options, screen: Display, stop: StopRequest
) -> tuple[AcceptanceResult, ...]:
    """Show the state until the time limit; return the results of the acceptance test.

    Raises:
        StopRequested: This process shall stop, or the output was closed.
        ChildEndedError: One of the programs has ended.
    """
    addresses = demo_run.addresses()
    screen.event("started", addresses | {"first": demo_run.is_first})
    settings = load_settings(_env_file=None)
    observer = Observer(demo_run, settings)
    began = demo_run.since.timestamp()
    deadline = began + (options.seconds or float("inf"))
    # What is done once, so many seconds after the start, when the pages answer.
    due = [(0.0, "history", programs.record)] if demo_run.is_first else []
    if not options.calm:
        due.append((programs.STATED_S, "statement of the day", programs.state_the_day))
    shown = [
        ("simulator", f"{addresses['control']}/stats"),
        ("tables", command_as_typed("exposure", "--home", str(options.home), "--watch")),
        ("logs", addresses["logs"]),
    ]
    was_serving = False
    with screen:
        for serving in frames(demo_run.check, demo_run.ui_port, screen, observer.read, shown):
            if serving and not was_serving:
                was_serving = True
                screen.event("serving", {"ui": addresses["ui"]})
            if serving and due and time.time() - began >= due[0][0]:
                _, missing, act = due.pop(0)
                try:
                    act(settings, demo_run)
                except (OSError, ValueError, programs.SimulatorProcessError) as error:
                    screen.note(f"No {missing}: {printable(str(error))}")
            left_s = deadline - time.time()
            if left_s <= 0:
                break
            complete = observer.complete_after_s is not None
            stop.pause(min(left_s, screen.interval_s if complete else LOOK_INTERVAL_S))
        limit_s = (options.seconds or 0) if demo_run.is_first else TIME_LIMIT_S
        return observer.acceptance(limit_s=limit_s)


class Observer:
    """Reads the state of one run of the demo.

    Args:
        demo_run: The run; rows from before its start belong to an earlier one.
        settings: The settings of the demo's home.

    Attributes:
        complete_after_s: Seconds from the start until each leg had a current row; None until then.
    """

    def __init__(self, demo_run: DemoRun, settings: Settings) -> None:
        self._run, self._settings, self._lake = demo_run, settings, Lake.of(settings)
        self._reader = FiguresReader(self._lake, settings)
        self.complete_after_s: float | None = None

    def read(self) -> Figures:
        """Read the values of the live status, from the tables only what is new.

        Raises:
            LakeError: A table cannot be used.
            SimulatorProcessError: The simulator does not answer.
        """
        found = self._reader.read(utc_now())
        if self.complete_after_s is None:
            self._paths(found)
        return found

    def _paths(self, found: Figures) -> tuple[Paths, Paths]:
        """Return the path that each leg must have, and those that it has in this run."""
        expected = expect_paths(self._run.held(), found.book.legs)
        current = current_paths(found.book.priced, since=self._run.since)
        if self.complete_after_s is None and is_complete(expected, current):
            self.complete_after_s = (found.status.at - self._run.since).total_seconds()
        return expected, current

    def _underlyings(self, expected: Paths) -> int:
        """Return how many underlyings of the holdings need a line of their own."""
        most = self._settings.underlying_lines
        streamed = {conid for (_, conid), path in expected.items() if path == Source.STREAM}
        found = self._lake.contracts.get({conid for _, conid in expected}).values()
        needed = len({one.under_conid for one in found} - streamed - {None})
        return needed if most is None else min(most, needed)

    def acceptance(self, *, limit_s: float) -> tuple[AcceptanceResult, ...]:
        """Read the tables a last time, and return the results of the acceptance test."""
        expected, current = self._paths(self._reader.read(utc_now()))
        return evaluate(
            expected,
            current,
            complete_after_s=self.complete_after_s,
            limit_s=limit_s,
            underlyings=self._underlyings(expected),
            counts=self._run.ask("/stats"),
        )
