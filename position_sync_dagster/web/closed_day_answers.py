"""`/api/v1/closed-day`: where the profit of the newest closed day came from, and its books."""

from datetime import date, datetime
from typing import Any

import polars as pl

from position_sync_dagster.lake.derived import newest_day
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.schema import BOOKS, PROFIT_EXPLAINED, TableSpec
from position_sync_dagster.web.api_answers import ApiModel


class ExplainedRow(ApiModel):
    """The profit of a strategy on a trading day, and its parts; null is not known."""

    strategy_id: str
    account: str
    currency: str
    profit: float | None
    delta: float | None
    gamma: float | None
    vega: float | None
    theta: float | None
    repricing: float | None
    trades: float | None
    fees: float | None
    assignments: float | None
    cash: float | None
    unexplained: float | None
    why_unknown: str | None


class BooksRow(ApiModel):
    """Why the net liquidation of an account moved on a trading day; null is not known."""

    account: str
    currency: str | None
    change: float
    profit: float | None
    income: float | None
    fees: float | None
    interest: float | None
    accruals: float | None
    rates: float | None
    owner: float | None
    difference: float | None
    why_unknown: str | None


class ClosedDayAnswer(ApiModel):
    """The newest day of `profit_explained`, and that of `books`."""

    at: datetime
    explained_day: date | None
    """Null: no day is explained yet."""
    explained: list[ExplainedRow]
    books_day: date | None
    """Null: no statement says the net liquidation at two closes."""
    books: list[BooksRow]


def closed_day(lake: Lake, at: datetime) -> dict[str, Any]:
    """Return the rows of the newest days; blocks.

    Raises:
        LakeError: A table cannot be used.
    """
    explained = _newest(lake, PROFIT_EXPLAINED)
    books = _newest(lake, BOOKS)
    explained_rows = explained.select(*ExplainedRow.model_fields).to_dicts()
    books_rows = books.select(*BooksRow.model_fields).to_dicts()
    return {
        "at": at,
        "explained_day": _day(explained),
        "explained": explained_rows,
        "books_day": _day(books),
        "books": books_rows,
    }


def _newest(lake: Lake, spec: TableSpec) -> pl.DataFrame:
    """Return the rows of the newest day of a table; none where nothing wrote it yet."""
    table = lake.derived_table(spec)
    return newest_day(table) if table.exists() else spec.empty


def _day(rows: pl.DataFrame) -> date | None:
    return None if rows.is_empty() else rows.get_column("session_date")[0]
