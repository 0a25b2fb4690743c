"""Why the profit of a day is what it is: of today, and of the newest closed day with its books."""

from datetime import date, datetime
from typing import Any

import polars as pl

from position_sync_dagster.lake.schema import TableSpec
from position_sync_dagster.money.cents import split_in_cents
from position_sync_dagster.money.lake import MoneyLake, newest_day
from position_sync_dagster.money.profit.profit import PARTS
from position_sync_dagster.money.profit.todays_profit import TodaysProfit, of_strategy
from position_sync_dagster.money.reports.figures import Figures
from position_sync_dagster.money.tables import BOOKS, PROFIT_EXPLAINED, BookedDay, ExplainedProfit
from position_sync_dagster.web.api_answers import ApiModel, MomentQuery

# The parts of the change of a net liquidation that are known.
BOOKED_PARTS = ("profit", "income", "fees", "interest", "accruals", "rates", "owner")


class ClosedDayAnswer(ApiModel):
    """The newest day of `profit_explained`, and that of `books`."""

    at: datetime
    explained_day: date | None
    """Null: no day is explained yet."""
    explained: list[ExplainedProfit]
    books_day: date | None
    """Null: no statement says the net liquidation at two closes."""
    books: list[BookedDay]


def closed_day(lake: MoneyLake, at: datetime) -> dict[str, Any]:
    """Return the rows of the newest days; blocks.

    Raises:
        LakeError: A table cannot be used.
    """
    explained = _newest(lake, PROFIT_EXPLAINED)
    books = _newest(lake, BOOKS)
    return {
        "at": at,
        "explained_day": _day(explained),
        "explained": [_explained_in_cents(row) for row in explained.iter_rows(named=True)],
        "books_day": _day(books),
        "books": [_booked_in_cents(row) for row in books.iter_rows(named=True)],
    }


def _explained_in_cents(row: dict[str, Any]) -> dict[str, Any]:
    *parts, unexplained = PARTS
    return split_in_cents(row, "profit", parts, unexplained)


def _booked_in_cents(row: dict[str, Any]) -> dict[str, Any]:
    return split_in_cents(row, "change", BOOKED_PARTS, "difference")


def _newest(lake: MoneyLake, spec: TableSpec) -> pl.DataFrame:
    """Return the rows of the newest day of a table; none where nothing wrote it yet."""
    table = lake.derived_table(spec)
    return newest_day(table) if table.exists() else spec.empty


def _day(rows: pl.DataFrame) -> date | None:
    return None if rows.is_empty() else rows.get_column("session_date")[0]


class WhyQuery(MomentQuery):
    """Which strategies."""

    strategy: str | None = None
    """Only this strategy; UNATTRIBUTED is what no strategy has."""


class WhyAnswer(ApiModel):
    """Why the profit of today of strategies is what it is; computed once a minute."""

    at: datetime
    """The moment of all numbers."""
    rows: list[TodaysProfit]
    """By strategy, account and currency."""


def answer_why(figures: Figures, rows: list[TodaysProfit], query: WhyQuery) -> dict[str, Any]:
    """Return the rows of the newest explanation.

    Raises:
        UnknownStrategyError: The strategy has no leg.
    """
    book = figures.book
    return {"at": book.now, "rows": of_strategy(rows, query.strategy, book)}
