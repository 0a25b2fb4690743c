"""The acceptance of a demo: the figures promised and found, and how both are shown.

The output is a live table on a terminal, lines in a log, or JSON for a program.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Self

import polars as pl
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from position_sync_dagster.domain.broker_position import Key
from position_sync_dagster.domain.leg import ActiveContract
from position_sync_dagster.domain.update import Source
from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.processes.stop_request import StopRequested
from position_sync_dagster.sync.reports.changes import DayChange
from position_sync_dagster.sync.reports.confirmations import CONFIRMED
from position_sync_dagster.sync.reports.figures import Figures
from position_sync_dagster.terminal.board import Lines, board, figures_of
from position_sync_dagster.terminal.text import printable

TIME_LIMIT_S = 60.0
"""The time in seconds in which each leg must have a current row, if the tables already exist."""


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


LINE_INTERVAL_S, QUIET_INTERVAL_S = 5.0, 10.0
"""Seconds between two lines, before and after each leg has a current row: a read of the tables
takes a quarter of a second of a processor."""

LOOK_INTERVAL_S = 2.0
"""Seconds between two reads of the tables, while a person watches or figures are still missing."""


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
        """Show the results of the acceptance test."""

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

    def show_acceptance(self, results: Sequence[AcceptanceResult]) -> None:
        with stop_if_closed():
            Console(width=100).print(acceptance_table(results))


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

    def show_acceptance(self, results: Sequence[AcceptanceResult]) -> None:
        with stop_if_closed():
            self._console.print(acceptance_table(results))

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
