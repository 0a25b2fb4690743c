"""What the demo shows: a live table on a terminal, lines elsewhere, JSON for a program."""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from position_sync_dagster.demo.acceptance import AcceptanceResult
from position_sync_dagster.processes.stop_request import StopRequested

LINE_INTERVAL_S = 5.0

LabelledValues = Sequence[tuple[str, str]]


class Display(Protocol):
    """Show the demo to whoever watches; one that is gone is an OSError."""

    def note(self, text: str) -> None:
        """Show one remark."""

    def show(
        self, figures: LabelledValues, places: LabelledValues, status: Mapping[str, Any]
    ) -> None:
        """Show how things stand, and where to look further; called about once a second."""

    def event(self, name: str, values: Mapping[str, Any]) -> None:
        """Tell a program of something that happened."""

    def show_acceptance(self, results: Sequence[AcceptanceResult]) -> None:
        """Show whether the figures were met."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class _Quiet:
    def note(self, text: str) -> None:
        pass

    def event(self, name: str, values: Mapping[str, Any]) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass


class JsonDisplay(_Quiet):
    """One JSON object a line."""

    def __init__(self) -> None:
        self._next = 0.0

    def event(self, name: str, values: Mapping[str, Any]) -> None:
        sys.stdout.write(json.dumps({"event": name, **values}) + "\n")
        sys.stdout.flush()

    def show(
        self, figures: LabelledValues, places: LabelledValues, status: Mapping[str, Any]
    ) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + LINE_INTERVAL_S
            self.event("status", status)

    def show_acceptance(self, results: Sequence[AcceptanceResult]) -> None:
        figures = [
            {"name": f.name.strip(), "wanted": f.wanted, "found": f.found, "met": f.met}
            for f in results
        ]
        self.event("verdict", {"met": all(f.met for f in results), "figures": figures})


class LineDisplay(_Quiet):
    """A line every few seconds, for a log."""

    def __init__(self) -> None:
        self._next = 0.0
        self._places: LabelledValues = ()

    def note(self, text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def show(
        self, figures: LabelledValues, places: LabelledValues, status: Mapping[str, Any]
    ) -> None:
        if places != self._places:
            self._places = places
            self.note("\n".join(f"{label}: {value}" for label, value in places))
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + LINE_INTERVAL_S
            self.note("; ".join(f"{label}: {value}" for label, value in figures))

    def show_acceptance(self, results: Sequence[AcceptanceResult]) -> None:
        Console(width=100).print(acceptance_table(results))


class LiveDisplay:
    """A table that is drawn anew in place."""

    def __init__(self) -> None:
        self._console = Console()
        self._live = Live(console=self._console, auto_refresh=False)

    def note(self, text: str) -> None:
        self._console.print(Text(text))

    def event(self, name: str, values: Mapping[str, Any]) -> None:
        pass

    def show(
        self, figures: LabelledValues, places: LabelledValues, status: Mapping[str, Any]
    ) -> None:
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(style="bold cyan", no_wrap=True)
        table.add_column()
        for label, value in figures:
            table.add_row(label, Text(value))
        table.add_section()
        for label, value in places:
            table.add_row(label, Text(value, style="cyan" if "://" in value else ""))
        hint = Text("Ctrl-C ends it.", style="dim")
        self._live.update(Group(Text(""), table, Text(""), hint), refresh=True)

    def show_acceptance(self, results: Sequence[AcceptanceResult]) -> None:
        self._console.print(acceptance_table(results))

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()


def acceptance_table(results: Sequence[AcceptanceResult]) -> Table:
    """Give the verdict as a table."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("figure")
    table.add_column("wanted", justify="right")
    table.add_column("found", justify="right")
    table.add_column("")
    for result in results:
        mark = Text("met", style="green") if result.met else Text("missed", style="bold red")
        table.add_row(Text(result.name), Text(result.wanted), Text(result.found), mark)
    return table


class GuardedDisplay:
    """A display whose watcher may go away: a closed terminal or pipe is a wish to end."""

    def __init__(self, display: Display) -> None:
        self._display = display

    def note(self, text: str) -> None:
        """Show one remark."""
        with _or_stopped():
            self._display.note(text)

    def show(
        self, figures: LabelledValues, places: LabelledValues, status: Mapping[str, Any]
    ) -> None:
        """Show how things stand."""
        with _or_stopped():
            self._display.show(figures, places, status)

    def event(self, name: str, values: Mapping[str, Any]) -> None:
        """Tell a program of something that happened."""
        with _or_stopped():
            self._display.event(name, values)

    def show_acceptance(self, results: Sequence[AcceptanceResult]) -> None:
        """Show whether the figures were met."""
        with _or_stopped():
            self._display.show_acceptance(results)

    def __enter__(self) -> Self:
        with _or_stopped():
            self._display.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(OSError):
            self._display.__exit__(kind, error, trace)


@contextmanager
def _or_stopped() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StopRequested("nobody watches any more", 1) from error


def choose_display(*, as_json: bool) -> GuardedDisplay:
    """Give the display for where the output goes."""
    if as_json:
        return GuardedDisplay(JsonDisplay())
    return GuardedDisplay(LiveDisplay() if sys.stdout.isatty() else LineDisplay())
