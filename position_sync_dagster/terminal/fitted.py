"""Tables that show as many of their columns as the width has room for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

WIDE = 110
"""From this width on, columns stand two spaces apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedColumn:
    """One column of a table.

    Attributes:
        cells: One text per row.
        rank: 0 for a column that is always there; of the others the lowest come first.
        signed: Whether a negative number is red and a positive one green.
        most: The most characters of a cell in a narrow table; None for no limit.
    """

    heading: str
    cells: Sequence[str]
    rank: int = 0
    justify: str = "right"
    signed: bool = False
    most: int | None = None


def choose_columns(columns: Sequence[FittedColumn], width: int) -> list[FittedColumn]:
    """Return the columns that fit, in their order."""
    gap = gap_of(width)
    chosen = [column for column in columns if column.rank == 0]
    room = width - sum(_width(column, width) + gap for column in chosen) + gap
    for column in sorted((c for c in columns if c.rank), key=lambda c: c.rank):
        needed = _width(column, width) + gap
        if needed > room:
            break  # a column of a higher rank does not take the place of this one
        chosen.append(column)
        room -= needed
    return [column for column in columns if any(column is one for one in chosen)]


def fitted_table(
    columns: Sequence[FittedColumn], width: int, *, totals: int = 0, title: str | None = None
) -> "Table":
    """Return a table of the columns that fit.

    Args:
        totals: So many rows at the end are totals.
    """
    from rich.table import Table
    from rich.text import Text

    chosen = choose_columns(columns, width)
    rows = max((len(column.cells) for column in chosen), default=0)
    table = Table(
        box=None,
        pad_edge=False,
        padding=(0, gap_of(width), 0, 0),
        header_style="bold",
        title=title,
        title_justify="left",
    )
    for column in chosen:
        table.add_column(
            column.heading,
            justify="right" if column.justify == "right" else "left",
            no_wrap=True,
            overflow="ellipsis",
        )
    for row in range(rows):
        style = "bold" if row >= rows - totals else ""
        table.add_row(
            *(
                Text(_cut(column, column.cells[row], width), style=_colour(column, row))
                for column in chosen
            ),
            style=style,
        )
    return table


def gap_of(width: int) -> int:
    """Return the spaces between two columns."""
    return 2 if width >= WIDE else 1


def _width(column: FittedColumn, width: int) -> int:
    from rich.cells import cell_len

    return max(cell_len(_cut(column, text, width)) for text in (column.heading, *column.cells))


def _cut(column: FittedColumn, text: str, width: int) -> str:
    if column.most is None or width >= WIDE or len(text) <= column.most:
        return text
    return text[: column.most - 1] + "…"


def _colour(column: FittedColumn, row: int) -> str:
    text = column.cells[row]
    if not column.signed or not any(char in "123456789" for char in text):
        return ""
    return "red" if text.startswith("-") else "green"
