"""The output of the demo: a live table on a terminal, lines in a log, or JSON for a program."""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from position_sync_dagster.demo.acceptance import AcceptanceResult
from position_sync_dagster.processes.stop_request import StopRequested
from position_sync_dagster.sync.reports.overview import Overview
from position_sync_dagster.terminal.board import Lines, StatusChange, board
from position_sync_dagster.terminal.text import printable

LINE_INTERVAL_S = 5.0
"""Seconds between two lines."""

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

    overview: Overview | None = None
    changes: Sequence[StatusChange] = ()
    notes: Lines = ()
    figures: Lines = ()
    addresses: Lines = ()
    status: Mapping[str, Any] = field(default_factory=dict)


class Display:
    """The base of the displays: shows nothing by itself.

    Each method raises `StopRequested` if the output was closed, so that the demo ends.

    Attributes:
        interval_s: Seconds between two looks once each leg has a current row.
    """

    interval_s = LINE_INTERVAL_S

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
        self._changes: Sequence[StatusChange] = ()

    def note(self, text: str) -> None:
        _write_line(text)

    def show(self, look: Look) -> None:
        if look.addresses != self._addresses:
            self._addresses = look.addresses
            self.note("\n".join(f"{label}: {value}" for label, value in look.addresses))
        for change in reversed(look.changes):
            if change not in self._changes:
                self.note(f"{change.at:%H:%M:%S} {printable(change.text)}")
        self._changes = look.changes
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + LINE_INTERVAL_S
            self.note("; ".join(f"{label}: {value}" for label, value in look.figures))

    def show_acceptance(self, results: Sequence[AcceptanceResult]) -> None:
        with _stop_if_closed():
            Console(width=100).print(acceptance_table(results))


class LiveDisplay(Display):
    """Redraws the board in place on a terminal."""

    interval_s = LOOK_INTERVAL_S

    def __init__(self) -> None:
        self._console = Console()
        self._live = Live(console=self._console, auto_refresh=False)
        self._size = self._console.size

    def note(self, text: str) -> None:
        with _stop_if_closed():
            self._console.print(Text(text))

    def show(self, look: Look) -> None:
        with _stop_if_closed():
            if self._console.size != self._size:
                # The terminal has wrapped the lines of the last frame: what is above is unknown.
                self._size = self._console.size
                self._console.clear()
            self._live.update(
                board(look.overview, look.changes, look.notes, look.addresses, self._console),
                refresh=True,
            )

    def show_acceptance(self, results: Sequence[AcceptanceResult]) -> None:
        with _stop_if_closed():
            self._console.print(acceptance_table(results))

    def __enter__(self) -> Self:
        with _stop_if_closed():
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
    with _stop_if_closed():
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


@contextmanager
def _stop_if_closed() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StopRequested("the output was closed", 1) from error
