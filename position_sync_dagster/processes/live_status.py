"""The live status of running programs, for `dev` and `demo`.

It is a table redrawn in place on a terminal, lines in a log, or JSON for a program.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.money.reports.columns import printable
from position_sync_dagster.money.reports.figures import Figures
from position_sync_dagster.processes import supervisor
from position_sync_dagster.processes.child_process import StopRequested
from position_sync_dagster.terminal.board import Lines, board, figures_of
from position_sync_dagster.terminal.output import print_table


@dataclass(frozen=True, slots=True)
class AcceptanceResult:
    """One figure of the acceptance test: the wanted value and the value found."""

    name: str
    wanted: str
    found: str
    met: bool


# Seconds between two reads of the tables, which take a quarter of a second of a processor each:
# while a person watches or figures are still missing, and otherwise.
LOOK_INTERVAL_S = 2.0
QUIET_INTERVAL_S = 10.0


class Display:
    """Writes a line for each read, for a log; the base of the other displays.

    Each method raises `StopRequested` if the output was closed, so that the demo ends.

    Attributes:
        interval_s: Seconds between two reads of the tables once each leg has a current row.
    """

    interval_s = QUIET_INTERVAL_S
    _addresses: Lines = ()

    def note(self, text: str) -> None:
        """Show a message."""
        _write_line(text)

    def event(self, name: str, values: Mapping[str, Any]) -> None:
        """Report an event to a program that reads the output."""

    def show(self, overview: Figures | None, addresses: Lines, notes: Lines = ()) -> None:
        """Show the current state.

        Args:
            overview: What the tables have; None where they could not be read.
            addresses: Addresses, folders and commands, with their labels.
            notes: Why they could not be read.
        """
        if addresses != self._addresses:
            self._addresses = addresses
            self.note("\n".join(_labelled(addresses)))

        if overview is not None:
            notes = figures_of(overview)
        self.note("; ".join(_labelled(notes)))

    def show_acceptance(self, results: Sequence[AcceptanceResult]) -> None:
        """Show the results of the acceptance test, as a table."""
        rows = []
        for result in results:
            row = asdict(result)
            row["outcome"] = "met" if result.met else "missed"
            rows.append(row)
        with stop_if_closed():
            print_table(rows, ("name", "wanted", "found", "outcome"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


def _labelled(lines: Lines) -> list[str]:
    return [f"{label}: {value}" for label, value in lines]


class JsonDisplay(Display):
    """Writes one JSON object per line."""

    def note(self, text: str) -> None: ...

    def event(self, name: str, values: Mapping[str, Any]) -> None:
        _write_line(json.dumps({"event": name, **values}))

    def show(self, overview: Figures | None, addresses: Lines, notes: Lines = ()) -> None:
        if overview is not None:
            self.event("status", overview.status.to_dict() | {"current": overview.current})

    def show_acceptance(self, results: Sequence[AcceptanceResult]) -> None:
        # Other programs read these names: keep them.
        figures = []
        for result in results:
            figure = asdict(result)
            figure["name"] = result.name.strip()
            figures.append(figure)
        self.event("verdict", {"met": all(result.met for result in results), "figures": figures})


class LiveDisplay(Display):
    """Redraws the board in place on a terminal."""

    interval_s = LOOK_INTERVAL_S

    def __init__(self) -> None:
        self._console = Console()
        self._live = Live(console=self._console, auto_refresh=False)

    def note(self, text: str) -> None:
        with stop_if_closed():
            self._console.print(Text(text))

    def show(self, overview: Figures | None, addresses: Lines, notes: Lines = ()) -> None:
        with stop_if_closed():
            self._live.update(board(overview, notes, addresses, self._console), refresh=True)

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
    return LiveDisplay() if sys.stdout.isatty() else Display()


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
    serves: Callable[[], bool],
    ui_port: int,
    screen: Display,
    read: Callable[[], Figures | None],
    addresses: Lines,
) -> Iterator[bool]:
    """Show the state of Dagster's programs again and again; yield whether their pages answer.

    Args:
        check: Raises if a program has ended.
        serves: Returns whether Dagster's own webserver answers.
        read: Reads the tables; after an error, which is shown, the next read may succeed.
        addresses: What is shown below the addresses of the pages.

    Raises:
        StopRequested: The output was closed.
        ChildEndedError: One of the programs has ended.
    """
    serving = False
    url = supervisor.url(ui_port)
    while True:
        check()
        serving = serving or serves()
        pages = [("Dagster UI", "starting"), ("money page", "starting")]
        if serving:
            pages = [("Dagster UI", url), ("money page", f"{url}/money")]

        try:
            screen.show(read(), [*pages, *addresses])
        except PositionSyncError as error:
            trouble = [("trouble", printable(line)) for line in str(error).splitlines()]
            screen.show(None, [*pages, *addresses], trouble)
        yield serving
