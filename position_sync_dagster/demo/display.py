"""The output of the demo: a live table on a terminal, lines in a log, or JSON for a program."""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from position_sync_dagster.demo.acceptance import AcceptanceResult
from position_sync_dagster.processes.stop_request import StopRequested

LINE_INTERVAL_S = 5.0

Lines = Sequence[tuple[str, str]]
"""Labels with their values."""


class Display:
    """The base of the displays: shows nothing by itself.

    Each public method raises `StopRequested` if the output was closed: a demo that nobody can see
    any more ends. A display overrides the methods with an underscore.
    """

    def note(self, text: str) -> None:
        """Show a message."""
        with _stop_if_closed():
            self._note(text)

    def event(self, name: str, values: Mapping[str, Any]) -> None:
        """Report an event to a program that reads the output."""
        with _stop_if_closed():
            self._event(name, values)

    def show(self, figures: Lines, addresses: Lines, status: Mapping[str, Any]) -> None:
        """Show the current state. It is called about once a second.

        Args:
            figures: The state, for a person.
            addresses: Where a person finds more.
            status: The state, for a program.
        """
        with _stop_if_closed():
            self._show(figures, addresses, status)

    def show_acceptance(self, results: Sequence[AcceptanceResult]) -> None:
        """Show the results of the acceptance test."""
        with _stop_if_closed():
            self._show_acceptance(results)

    def __enter__(self) -> Self:
        with _stop_if_closed():
            self._start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(OSError):
            self._stop()

    def _note(self, text: str) -> None: ...

    def _event(self, name: str, values: Mapping[str, Any]) -> None: ...

    def _show(self, figures: Lines, addresses: Lines, status: Mapping[str, Any]) -> None: ...

    def _show_acceptance(self, results: Sequence[AcceptanceResult]) -> None: ...

    def _start(self) -> None: ...

    def _stop(self) -> None: ...


class JsonDisplay(Display):
    """Writes one JSON object per line."""

    def __init__(self) -> None:
        self._next = 0.0

    def _event(self, name: str, values: Mapping[str, Any]) -> None:
        _write_line(json.dumps({"event": name, **values}))

    def _show(self, figures: Lines, addresses: Lines, status: Mapping[str, Any]) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + LINE_INTERVAL_S
            self._event("status", status)

    def _show_acceptance(self, results: Sequence[AcceptanceResult]) -> None:
        figures = [
            {"name": r.name.strip(), "wanted": r.wanted, "found": r.found, "met": r.met}
            for r in results
        ]
        # Programs read this name and the names of its values.
        self._event("verdict", {"met": all(r.met for r in results), "figures": figures})


class LineDisplay(Display):
    """Writes a line every few seconds, for a log."""

    def __init__(self) -> None:
        self._next = 0.0
        self._addresses: Lines = ()

    def _note(self, text: str) -> None:
        _write_line(text)

    def _show(self, figures: Lines, addresses: Lines, status: Mapping[str, Any]) -> None:
        if addresses != self._addresses:
            self._addresses = addresses
            self._note("\n".join(f"{label}: {value}" for label, value in addresses))
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + LINE_INTERVAL_S
            self._note("; ".join(f"{label}: {value}" for label, value in figures))

    def _show_acceptance(self, results: Sequence[AcceptanceResult]) -> None:
        Console(width=100).print(acceptance_table(results))


class LiveDisplay(Display):
    """Draws a table again and again in the same place of a terminal."""

    def __init__(self) -> None:
        self._console = Console()
        self._live = Live(console=self._console, auto_refresh=False)

    def _note(self, text: str) -> None:
        self._console.print(Text(text))

    def _show(self, figures: Lines, addresses: Lines, status: Mapping[str, Any]) -> None:
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(style="bold cyan", no_wrap=True)
        table.add_column()
        for label, value in figures:
            table.add_row(label, Text(value))
        table.add_section()
        for label, value in addresses:
            table.add_row(label, Text(value, style="cyan" if "://" in value else ""))
        hint = Text("Ctrl-C ends it.", style="dim")
        self._live.update(Group(Text(""), table, Text(""), hint), refresh=True)

    def _show_acceptance(self, results: Sequence[AcceptanceResult]) -> None:
        self._console.print(acceptance_table(results))

    def _start(self) -> None:
        self._live.start()

    def _stop(self) -> None:
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
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


@contextmanager
def _stop_if_closed() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StopRequested("the output was closed", 1) from error
