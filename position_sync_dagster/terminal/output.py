"""Values as text for a terminal, and results of commands: JSON or a table, once or until Ctrl-C."""

import dataclasses
import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Any, NoReturn

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text


def printable(text: str) -> str:
    r"""Return text with its control characters escaped, which a terminal would obey.

    >>> printable("AAPL\x1b[2J")
    'AAPL\\x1b[2J'
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def number(value: float | None, digits: int = 2) -> str:
    """Return a number for a table. An unknown number is a dash, never a zero.

    >>> number(1234.5), number(None)
    ('1,234.50', '–')
    """
    return "–" if value is None else f"{value:,.{digits}f}"


def quantity(value: float | None) -> str:
    """Return a quantity without needless decimals; an unknown one is a dash.

    >>> quantity(-3.0), quantity(0.5)
    ('-3', '0.5')
    """
    return "–" if value is None else f"{value:,.10g}"


def amount(value: float | None) -> str:
    """Return an amount of money or a greek in few characters; an unknown one is a dash.

    >>> amount(-12345.6), amount(12.34), amount(23456789.0), amount(0.004), amount(None)
    ('-12,346', '12.3', '23.46m', '0.004', '–')
    """
    if value is None:
        return "–"
    size = abs(value)
    if size >= 1e7:
        return f"{value / 1e6:,.2f}m"
    if size >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 0.95 or value == 0 else f"{value:.2g}"


def age(since: datetime | None, now: datetime) -> str:
    """Return the time from `since` to `now`; an unknown one is a dash."""
    return "–" if since is None else duration((now - since).total_seconds())


def duration(seconds: float | None) -> str:
    """Return a length of time: in seconds up to two minutes, then in whole minutes.

    >>> duration(0.42), duration(119), duration(120), duration(7300), duration(200000)
    ('0.4 s', '119 s', '2 min', '2 h 1 min', '2 d 7 h')
    """
    if seconds is None:
        return "–"
    seconds = max(seconds, 0.0)
    whole = round(seconds)
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if whole < 120:
        return f"{whole} s"
    length = timedelta(seconds=whole)
    hours, rest = divmod(length.seconds, 3600)
    if length.days:
        return f"{length.days} d {hours} h"
    return f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min"


NEAR_S = 5.0
"""Greeks whose age differs by less than this from that of the price are not shown apart."""


def greeks_age(greeks_s: float | None, price_s: float | None) -> str:
    """Return the age of greeks where it differs from that of the price, else nothing.

    >>> greeks_age(71.0, 0.8), greeks_age(1.5, 0.8), greeks_age(71.0, None), greeks_age(None, 0.8)
    ('71 s', '', '71 s', '')
    """
    if greeks_s is None or (price_s is not None and abs(greeks_s - price_s) < NEAR_S):
        return ""
    return duration(greeks_s)


NAME = "position-sync"
_MENTION = re.compile(r"(?<=`)position-sync(?= )")


def program_as_typed(argv0: str | None = None, cwd: Path | None = None) -> str:
    """Return the shortest way to type the program from the working directory.

    Args:
        argv0: The path that started it; None: that of this process.
        cwd: None: the working directory.
    """
    started = Path(argv0 if argv0 is not None else sys.argv[0])
    if started.name != NAME:
        return NAME
    path, folder = started.absolute(), (cwd or Path.cwd())
    found = shutil.which(NAME)
    if found is not None and Path(found).absolute() == path:
        return NAME
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)


def as_typed(text: str) -> str:
    """Return a text whose commands, in back quotes, can be typed as they stand."""
    program = program_as_typed()
    return _MENTION.sub(lambda _: program, text)


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
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    raise TypeError(f"{type(value).__name__} has no JSON form")


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    sys.stdout.write(as_json(value) + "\n")


def print_table(rows: Sequence[Mapping[str, str]], *, right: Collection[str]) -> None:
    """Print rows as a table.

    Args:
        rows: One row or more: each a text by heading, all with the same headings.
        right: The headings of the columns that are aligned to the right.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in rows[0]:
        table.add_column(heading, justify="right" if heading in right else "left")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row.values()))
    console().print(table)


def print_table_with_notes(
    rows: Sequence[Mapping[str, str]], notes: Sequence[str], *, right: Collection[str]
) -> None:
    """Print rows as a table that is never cut, each with a note on the next line.

    A terminal wraps a line that is too long.

    Args:
        rows: As for `print_table`.
        notes: The note of each row; an empty one has no line.
        right: As for `print_table`.
    """
    listed = [[printable(cell) for cell in row.values()] for row in rows]
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
    for cells, note in zip(listed, notes, strict=True):
        console.print(Text(line(cells)), soft_wrap=True)
        if note:
            console.print(Text(f"  {printable(note)}"), soft_wrap=True)


PIPE_WIDTH = 200
"""Characters. A pipe has no width, and Rich would cut the rows to 80 columns."""


def console() -> Console:
    """Return a console for the standard output; a pipe is wide enough for each column."""
    found = Console()
    return found if sys.stdout.isatty() else Console(width=PIPE_WIDTH)


INTERVAL_S = 2.0


def print_or_watch(render: Callable[[int], RenderableType], *, watch: bool) -> None:
    """Print what `render` returns for the width of the output; with `watch`, until Ctrl-C.

    In a pipe each result is printed below the one before.
    """
    output = console()
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
