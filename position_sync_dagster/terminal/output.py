"""Print the result of a command: JSON or a table, once or again and again until Ctrl-C."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from typing import Any

from rich.cells import cell_len
from rich.console import Console, Group
from rich.live import Live
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


# Characters; in a terminal of this width or more, two spaces separate the columns.
WIDE = 110


def fitted_table(
    columns: Iterable[Column], rows: Sequence[Row], width: int, *, totals: int = 0
) -> list[Text]:
    """Return a table of the columns that fit, in their order, one line of text a row.

    The live status draws it again and again; a table of Rich, which measures each cell, takes four
    times as long.

    Args:
        totals: The number of rows at the end that are totals.
    """
    gap = 2 if width >= WIDE else 1
    filled: list[_FilledColumn] = []
    for column in columns:
        cells = column.cells(rows)
        if any(cells):
            texts = [_cut(column, text, width) for text in (column.heading, *cells)]
            filled.append(_FilledColumn(column, texts, max(map(cell_len, texts))))

    shown = _columns_that_fit(filled, width, gap)
    first_total = len(rows) - totals + 1
    lines = []
    for number in range(len(rows) + 1):
        is_heading = number == 0
        cells_of_line = [column.cell(number, coloured=not is_heading) for column in shown]
        line = Text(" " * gap).join(cells_of_line)
        line.style = "bold" if is_heading or number >= first_total else ""
        line.no_wrap = True
        line.overflow = "ellipsis"
        lines.append(line)
    return lines


@dataclass(frozen=True, slots=True)
class _FilledColumn:
    """A column, its heading and cells as texts, and the width of the longest one."""

    column: Column
    texts: list[str]
    width: int

    def cell(self, number: int, *, coloured: bool) -> Text:
        """Return the cell of a line of the table; the first line is that of the headings."""
        text = self.texts[number]
        cell = Text(text, style=_colour(self.column, text) if coloured else "")
        cell.align("left" if self.column.left else "right", self.width)
        return cell


def _columns_that_fit(columns: list[_FilledColumn], width: int, gap: int) -> list[_FilledColumn]:
    """Return the columns that fit into the width, lowest rank first, in their own order."""
    room = width + gap
    chosen = set()
    for place in sorted(range(len(columns)), key=lambda place: columns[place].column.rank):
        room -= columns[place].width + gap
        if columns[place].column.rank and room < 0:
            break  # a column of a higher rank does not take the place of this one
        chosen.add(place)
    return [columns[place] for place in sorted(chosen)]


def _cut(column: Column, text: str, width: int) -> str:
    if column.most is None or width >= WIDE or len(text) <= column.most:
        return text
    # Names of strategies begin alike: what tells them apart is at their end.
    end = column.most // 2
    return f"{text[: column.most - 1 - end]}…{text[-end:]}"


def _colour(column: Column, text: str) -> str:
    if not column.signed or not any(char in "123456789" for char in text):
        return ""
    return "red" if text.startswith("-") else "green"


def dim_line(text: str) -> Text:
    """Return a note below a table, on one line."""
    return Text(foreign(text, 1000), style="dim", no_wrap=True, overflow="ellipsis")


def show_rows(
    rows: Sequence[Any],
    names: Sequence[str],
    *,
    json: bool,
    none: str,
    lines: Iterable[str] = (),
) -> None:
    """Print rows: as JSON, or some values of them as a table with lines below it.

    Args:
        names: The values of the table.
        none: What a person reads if there are no rows.
    """
    if json:
        print_json(rows)
    elif rows:
        print_table(rows, names)
        show(None, lines, json=False)
    else:
        show(None, [none], json=False)


def print_table(rows: Sequence[Any], names: Sequence[str]) -> None:
    """Print values of rows as a table that is never cut; a terminal wraps a line that is too long.

    The headings are the names in JSON. What no row has is not shown.

    Args:
        rows: One row or more: records, or values by name.
        names: The values to print.
    """
    read = itemgetter if isinstance(rows[0], Mapping) else attrgetter
    columns = []
    texts: list[dict[str, str]] = [{} for _row in rows]
    for name in names:
        values = [*map(read(name), rows)]
        if all(value is None for value in values):
            continue
        is_text = not any(isinstance(value, int | float) for value in values)
        columns.append(Column(name.replace("_", " "), name, 0, itemgetter(name), left=is_text))
        for row, value in zip(texts, values, strict=True):
            row[name] = readable(value)

    console = Console()
    for line in fitted_table(columns, texts, sys.maxsize):
        line.rstrip()
        line.overflow = "ignore"
        console.print(line, soft_wrap=True)


# Characters: wide enough for each column. A pipe has no width, and Rich would take 80.
PIPE_WIDTH = 200


INTERVAL_S = 2.0


def in_view(lines: Sequence[Text | str], height: int) -> list[Text | str]:
    """Return what a screen of so many lines shows: headings and totals stay, the last rows go."""
    if len(lines) <= height:
        return [*lines]

    rows = [
        number for number, line in enumerate(lines) if isinstance(line, Text) and not line.style
    ]
    surplus = len(lines) - height + 1
    hidden = rows[-surplus:]
    shown = [line for number, line in enumerate(lines) if number not in hidden]
    return [*shown, dim_line(f"{len(hidden)} rows have no place on this screen")]


def print_or_watch(render: Callable[[int], Iterable[Text | str]], *, watch: bool) -> None:
    """Print the lines that `render` returns for a width; with `watch`, until Ctrl-C.

    The width is that of the terminal, or that of the variable COLUMNS. In a pipe each result is
    printed below the one before.
    """
    has_width = sys.stdout.isatty() or "COLUMNS" in os.environ
    output = Console(width=None if has_width else PIPE_WIDTH)
    if not watch:
        output.print(Group(*render(output.width)))
        return

    live = Live(console=output, auto_refresh=False, vertical_overflow="crop", screen=True)
    with suppress(KeyboardInterrupt), live if output.is_terminal else nullcontext():
        while True:
            lines = [*render(output.width)]
            if live.is_started:
                live.update(Group(*in_view(lines, output.height)), refresh=True)
            else:
                output.print(Group(*lines))
            time.sleep(INTERVAL_S)
