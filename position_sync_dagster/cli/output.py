"""What a command prints: JSON for a program, a table for a person."""

import dataclasses
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from enum import Enum
from pathlib import Path
from typing import Any

from position_sync_dagster.launch.text import printable


def as_json(value: Any) -> str:
    """Write a value as JSON: dates in ISO 8601, frozen values as objects."""
    return json.dumps(value, default=_plain, indent=2, ensure_ascii=False)


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


def print_table(
    columns: Mapping[str, str], rows: Iterable[Sequence[str]], *, title: str | None = None
) -> None:
    """Print rows as a table.

    Args:
        columns: Each heading with its justification, "left" or "right".
        rows: One text a column; shown as it is, never read as markup.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", title=title)
    for heading, justify in columns.items():
        table.add_column(heading, justify="right" if justify == "right" else "left")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console = Console()
    if not console.is_terminal:  # a pipe has no width: do not cut the rows to 80 columns
        console = Console(width=200)
    console.print(table)
