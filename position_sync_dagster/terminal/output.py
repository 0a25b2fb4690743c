"""Print the result of a command: JSON or a table."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from operator import attrgetter, itemgetter
from typing import Any

from rich.cells import cell_len
from rich.console import Console, Group
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
    return "".join(
        char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in text
    )


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


# Characters between two columns.
GAP = 2


def fitted_table(columns: Iterable[Column], rows: Sequence[Row], width: int) -> list[Text]:
    """Return a table of the first columns that fit, one line of text a row.

    The live status draws it again and again; a table of Rich, which measures each cell, takes four
    times as long.
    """
    room = width + GAP
    shown: list[list[Text]] = []
    for column in columns:
        cells = column.cells(rows)
        if not any(cells):
            continue

        texts = [column.heading, *cells]
        widest = max(map(cell_len, texts))
        room -= widest + GAP
        if room < 0 and shown:
            break
        shown.append([_cell(column, text, widest) for text in texts])

    between = Text(" " * GAP, no_wrap=True, overflow="ellipsis")
    heading, *lines = map(between.join, zip(*shown, strict=True))
    heading.stylize("bold")
    return [heading, *lines]


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
    """Print values of rows as a table that is never cut; a terminal wraps a line that is too long.

    The headings are the names in JSON. What no row has is not shown.

    Args:
        rows: One row or more: values by name, or records.
        names: The values to print; all, if none are named.
    """
    is_mapping = isinstance(rows[0], Mapping)
    read = itemgetter if is_mapping else attrgetter
    if not names:
        names = [*rows[0]] if is_mapping else [field.name for field in fields(rows[0])]
    columns = []
    texts: list[dict[str, str]] = [{} for _row in rows]
    for name in names:
        values = [*map(read(name), rows)]
        if all(value is None for value in values):
            continue
        is_text = not any(isinstance(value, int | float) for value in values)
        columns.append(Column(name.replace("_", " "), name, itemgetter(name), left=is_text))
        for row, value in zip(texts, values, strict=True):
            row[name] = readable(value, name)

    console = Console()
    for line in fitted_table(columns, texts, sys.maxsize):
        line.rstrip()
        line.overflow = "ignore"
        console.print(line, soft_wrap=True)


# Characters: wide enough for each column. A pipe has no width, and Rich would take 80.
PIPE_WIDTH = 200


def print_fitted(render: Callable[[int], Iterable[Text | str]]) -> None:
    """Print the lines that `render` returns for a width.

    It is that of the terminal, or that of the variable COLUMNS.
    """
    output = Console()
    if not sys.stdout.isatty() and "COLUMNS" not in os.environ:
        output = Console(width=PIPE_WIDTH)
    output.print(Group(*render(output.width)))
