"""Rows and legs with every number that a person sees."""

import io
from collections.abc import Sequence
from typing import Any

import polars as pl
from rich.console import Console, Group
from rich.text import Text

from position_sync_dagster.domain.leg import ActiveContract
from position_sync_dagster.domain.position_update import PositionUpdate
from position_sync_dagster.lake.schema import update_rows
from position_sync_dagster.money.as_of import NO_HOLDINGS
from position_sync_dagster.money.campaigns.closes_of_strategies import NO_CLOSES
from position_sync_dagster.money.reports.book import Book
from position_sync_dagster.money.reports.exposure import Claims, split
from position_sync_dagster.sync.confirmations import with_priced
from tests.support.spy_rows import NOW, row

__all__ = ["NOW", "book_of", "money", "priced_rows", "row", "shown"]


def priced_rows(rows: Sequence[PositionUpdate]) -> pl.DataFrame:
    """Return rows that the broker confirms nothing of, with their times."""
    return with_priced(update_rows(rows), NO_HOLDINGS, NOW)


def money(rows: list[PositionUpdate], legs: list[ActiveContract]) -> Book:
    """Return the money of rows that the broker confirms nothing of; a line streams conid 1."""
    return book_of(rows, legs, streamed=frozenset({1}))


def book_of(rows: Sequence[PositionUpdate], legs: Sequence[ActiveContract], **values: Any) -> Book:
    """Return the book of rows that the broker confirms nothing of."""
    priced = priced_rows(rows)
    claims = Claims(legs)
    closes = values.get("closes", NO_CLOSES)
    betas = values.pop("betas", None)
    parts = split(claims, priced, end_of=closes.end_of, betas=betas, owned=closes.owned)
    return Book(now=NOW, priced=priced, claims=claims, split=parts, **values)


def shown(table: Sequence[Text], width: int) -> list[str]:
    """Return the lines of a table on a terminal."""
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(Group(*table))
    return [line.rstrip() for line in console.export_text().splitlines()]
