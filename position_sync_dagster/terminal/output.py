"""Print the result of a command: JSON or a table."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import fields
from io import StringIO
from operator import attrgetter, itemgetter
from typing import Any

from rich.cells import cell_len
from rich.console import Console, Group
from rich.padding import Padding
from rich.text import Text

from position_sync_dagster.money.reports.columns import Column, Row, foreign, readable
from position_sync_dagster.money.reports.status import plain

# Maximum length of a line, in characters: a text of others may have any length.
MOST_OF_A_LINE = 4000


def as_json(value: Any) -> str:
    r"""Return a value as JSON: dates in ISO 8601, dataclasses as objects, money in cents.

    Control characters are escaped, because a terminal would obey them. The value stays the same.

    >>> as_json("\u00e9 \x9b2J")
    '"é \\u009b2J"'
    """
    return escaped(json.dumps(plain(value), indent=2, ensure_ascii=False))


def escaped(text: str) -> str:
    """Return JSON with its control characters escaped; the value stays the same."""
    if text.isascii() and "\x7f" not in text:
        return text  # JSON escapes the others itself
    return "".join(map(_escaped_character, text))


def _escaped_character(character: str) -> str:
    if character.isprintable() or character == "\n":
        return character
    return json.dumps(character)[1:-1]


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    sys.stdout.write(as_json(value) + "\n")


def print_above(texts: Iterable[str], *, json: bool) -> None:
    """Print what to know of numbers: with JSON to stderr, so that the JSON has the same shape."""
    for text in texts:
        print(text, file=sys.stderr if json else sys.stdout)


def show(data: Any, lines: Iterable[str], *, json: bool) -> None:
    """Print a result: as JSON for a program, or as lines for a person.

    A text of others in a line stays in it, whatever characters it has.
    """
    if json:
        print_json(data)
        return
    for line in lines:
        sys.stdout.write(f"{foreign(line, MOST_OF_A_LINE)}\n")


# Characters between two columns.
GAP = 2


def fitted_table(columns: Iterable[Column], rows: Sequence[Row], width: int) -> list[Text]:
    """Return a table of the first columns that fit, one line of text a row.

    The live status draws it again and again; a table of Rich, which measures each cell, takes four
    times as long.
    """
    return _fitted(columns, rows, width)[0]


def noted_table(columns: Iterable[Column], rows: Sequence[Row], width: int) -> Iterator[Text]:
    """Yield a table of the first columns that fit, and a note that names the others."""
    lines, others = _fitted(columns, rows, width)
    yield from lines
    if others:
        names = ", ".join(column.heading for column in others)
        yield Text(f"Not at this width: {names}. A wider terminal or a pipe has all.", style="dim")


def _fitted(
    columns: Iterable[Column], rows: Sequence[Row], width: int
) -> tuple[list[Text], list[Column]]:
    """Return a table of the first columns that fit, and the columns with a text that do not."""
    room = width + GAP
    shown: list[list[Text]] = []
    others: list[Column] = []
    for column in columns:
        cells = column.cells(rows)
        if not any(cells):
            continue

        texts = [column.heading, *cells]
        widest = max(map(cell_len, texts))
        room -= widest + GAP
        if others or (room < 0 and shown):
            others.append(column)
        else:
            shown.append([_cell(column, text, widest) for text in texts])

    between = Text(" " * GAP, no_wrap=True, overflow="ellipsis")
    heading, *lines = map(between.join, zip(*shown, strict=True))
    heading.stylize("bold")
    return [heading, *lines], others


def _cell(column: Column, text: str, width: int) -> Text:
    cell = Text(text, style=_colour(column, text))
    cell.align("left" if column.left else "right", width)
    return cell


def _colour(column: Column, text: str) -> str:
    if not column.signed or not any(char in "123456789" for char in text):
        return ""
    return "red" if text.startswith("-") else "green"


def dim_line(text: str) -> Text:
    """Return a note below a table, on one line."""
    return Text(foreign(text, 1000), style="dim", no_wrap=True, overflow="ellipsis")


def show_rows(
    rows: Sequence[Any],
    names: Sequence[str] = (),
    *,
    json: bool,
    none: str,
    lines: Iterable[str] = (),
) -> None:
    """Print rows: as JSON, or some values of them as a table with lines below it.

    Args:
        names: The values of the table; all, if none are named.
        none: What a person reads if there are no rows.
    """
    if json:
        print_json(rows)
    elif rows:
        print_table(rows, names)
        show(None, lines, json=False)
    else:
        show(None, [none], json=False)


def print_table(rows: Sequence[Any], names: Sequence[str] = ()) -> None:
    """Print values of rows as a table that is never cut.

    The headings are the names in JSON. What no row has is not shown. Columns that a terminal has no
    room for are below each row, with their names.

    Args:
        rows: One row or more: values by name, or records.
        names: The values to print; all, if none are named.
    """
    is_mapping = isinstance(rows[0], Mapping)
    read = itemgetter if is_mapping else attrgetter
    if not names and is_mapping:
        names = [*rows[0]]
    elif not names:
        names = [field.name for field in fields(rows[0])]

    columns = []
    texts: list[dict[str, str]] = [{} for _row in rows]
    for name in names:
        values = [*map(read(name), rows)]
        if all(value is None for value in values):
            continue
        title = name.replace("_", " ")
        is_text = not any(isinstance(value, int | float) for value in values)
        columns.append(Column(title, name, itemgetter(name), left=is_text))
        for row, value in zip(texts, values, strict=True):
            row[name] = readable(value, name)

    console = Console()
    width = console.width if _has_width() else sys.maxsize
    [heading, *lines], others = _fitted(columns, texts, width)
    _print_line(console, heading)
    for row, line in zip(texts, lines, strict=True):
        _print_line(console, line)
        below = "; ".join(_texts_below(row, others))
        if below:
            console.print(Padding(Text(below, style="dim"), _INDENTED))


# The room above, right, below and left of what is below a row.
_INDENTED = (0, 0, 0, 2 * GAP)

# What is not repeated below a row: an unknown value, and that something is not so.
_NOTHING = (readable(None), readable(False), "")


def _texts_below(row: Mapping[str, str], others: Iterable[Column]) -> Iterator[str]:
    """Yield the values of a row that have no room in its line, with their names."""
    for column in others:
        text = row[column.name]
        if text not in _NOTHING:
            yield f"{column.heading}: {text}"


def _print_line(console: Console, line: Text) -> None:
    line.rstrip()
    line.overflow = "ignore"
    console.print(line, soft_wrap=True)


# Characters: wide enough for each column. A pipe has no width, and Rich would take 80.
PIPE_WIDTH = 200


def _has_width() -> bool:
    """Return whether the output is a terminal, or the variable COLUMNS says how wide it is."""
    return sys.stdout.isatty() or "COLUMNS" in os.environ


def print_fitted(render: Callable[[int], Iterable[Text | str]]) -> None:
    """Print the lines that `render` returns for a width.

    It is that of the terminal, or that of the variable COLUMNS.
    """
    output = Console()
    if not _has_width():
        output = Console(width=PIPE_WIDTH)
    output.print(Group(*render(output.width)))


class _Page(StringIO):
    """What a command prints, for the terminal to which the command writes."""

    def isatty(self) -> bool:
        """Return whether it is for a terminal, which has colours and a width."""
        return sys.__stdout__ is not None and sys.__stdout__.isatty()


# Seconds between two looks of somebody who watches.
WATCH_EVERY_S = 2.0


def show_again(show: Callable[[], None]) -> None:
    """Print again and again, on a terminal in the same place, until Ctrl-C."""
    with suppress(KeyboardInterrupt):
        while True:
            page = _Page()
            with redirect_stdout(page):
                show()
            Console().clear()
            sys.stdout.write(page.getvalue())
            sys.stdout.flush()
            time.sleep(WATCH_EVERY_S)
