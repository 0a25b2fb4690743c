"""The first day of the ledger, for the definitions: without Polars, which takes long to import."""

from contextlib import suppress
from datetime import date
from pathlib import Path


def first_ledger_day(path: str) -> date | None:
    """Return the first UTC date with rows, from the names of the partitions alone.

    Args:
        path: Of the ledger, which need not exist; a remote one is not listed.
    """
    days: list[date] = []
    with suppress(OSError):
        for folder in Path(path).glob("date=*"):
            with suppress(ValueError):
                days.append(date.fromisoformat(folder.name.removeprefix("date=")))
    return min(days, default=None)
