"""Print the result of a command: JSON or a table, once or again and again until Ctrl-C."""

import json
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from position_sync_dagster.sync.reports.status import plain
from position_sync_dagster.terminal.text import foreign

# Maximum length of a line, in characters: a text of others may have any length.
MOST_OF_A_LINE = 4000


def as_json(value: Any) -> str:
    r"""Return a value as JSON: dates in ISO 8601, dataclasses as objects.

    Control characters are escaped, because a terminal would obey them. The value stays the same.

    >>> as_json("\u00e9 \x9b2J")
    '"é \\u009b2J"'
    """
    return escaped(json.dumps(value, default=_plain, indent=2, ensure_ascii=False))


def escaped(text: str) -> str:
    """Return JSON with its control characters escaped; the value stays the same."""
    if text.isascii() and "\x7f" not in text:
        return text  # JSON escapes the others itself
    return "".join(
        char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in text
    )


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else plain(value)


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    sys.stdout.write(as_json(value) + "\n")


def show(data: Any, lines: Iterable[str], *, json: bool) -> None:
    """Print a result: as JSON for a program, or as lines for a person.

    A text of others in a line stays in it, whatever characters it has.
    """
    if json:
        print_json(data)
        return
    for line in lines:
        sys.stdout.write(f"{foreign(line, MOST_OF_A_LINE)}\n")


def print_table(
    rows: Sequence[Mapping[str, str]], notes: Sequence[str] = (), *, right: Collection[str]
) -> None:
    """Print rows as a table that is never cut; a terminal wraps a line that is too long.

    Args:
        rows: One row or more: each a text by heading, all with the same headings.
        notes: A note for each row, on the next line; an empty one has no line.
        right: The headings of the columns that are aligned to the right.
    """
    listed = [[foreign(cell) for cell in row.values()] for row in rows]
    headings = [*rows[0]]
    widths = [max(map(cell_len, cells)) for cells in zip(headings, *listed, strict=True)]

    def line(cells: Iterable[str]) -> str:
        padded = []
        for cell, width, heading in zip(cells, widths, headings, strict=True):
            space = " " * (width - cell_len(cell))
            padded.append(space + cell if heading in right else cell + space)
        return "  ".join(padded).rstrip()

    console = Console()
    console.print(Text(line(headings), style="bold"), soft_wrap=True)
    for cells, note in zip(listed, notes or [""] * len(listed), strict=True):
        console.print(Text(line(cells)), soft_wrap=True)
        if note:
            console.print(Text(f"  {foreign(note, MOST_OF_A_LINE)}"), soft_wrap=True)


# Characters: wide enough for each column. A pipe has no width, and Rich would take 80.
PIPE_WIDTH = 200


INTERVAL_S = 2.0


def print_or_watch(render: Callable[[int], RenderableType], *, watch: bool) -> None:
    """Print what `render` returns for the width of the output; with `watch`, until Ctrl-C.

    In a pipe each result is printed below the one before.
    """
    output = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
    if not watch:
        output.print(render(output.width))
        return
    try:
        if output.is_terminal:
            _watch_in_place(output, render)
        while True:
            output.print(render(output.width))
            time.sleep(INTERVAL_S)
    except KeyboardInterrupt:
        return


def _watch_in_place(output: Console, render: Callable[[int], RenderableType]) -> NoReturn:
    with Live(console=output, auto_refresh=False, vertical_overflow="crop", screen=True) as live:
        while True:
            live.update(render(output.width), refresh=True)
            time.sleep(INTERVAL_S)
