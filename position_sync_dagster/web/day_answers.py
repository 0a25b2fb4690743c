"""Why the profit of a day is what it is: of today, and of the newest closed day with its books."""

from datetime import date, datetime
from typing import Any

from position_sync_dagster.lake.schema import TableSpec
from position_sync_dagster.money.cents import split_in_cents
from position_sync_dagster.money.lake import MoneyLake, newest_day
from position_sync_dagster.money.profit.profit import PARTS
from position_sync_dagster.money.profit.todays_profit import TodaysProfit, of_strategy
from position_sync_dagster.money.tables import BOOKS, PROFIT_EXPLAINED, BookedDay, ExplainedProfit
from position_sync_dagster.web.api_answers import ApiModel, MomentQuery, NoQuery
from position_sync_dagster.web.served_figures import PageFigures

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


def closed_day(source: PageFigures, _query: NoQuery, now: datetime) -> dict[str, Any]:
    """Return the rows of the newest days; blocks.

    Raises:
        LakeError: A table cannot be used.
    """
    *parts, unexplained = PARTS
    explained = _newest(source.lake, PROFIT_EXPLAINED)
    books = _newest(source.lake, BOOKS)
    return {
        "at": source.figures(now).at,
        "explained_day": _day(explained),
        "explained": [split_in_cents(row, "profit", parts, unexplained) for row in explained],
        "books_day": _day(books),
        "books": [split_in_cents(row, "change", BOOKED_PARTS, "difference") for row in books],
    }


def _newest(lake: MoneyLake, spec: TableSpec) -> list[dict[str, Any]]:
    """Return the rows of the newest day of a table; none where nothing wrote it yet."""
    table = lake.derived_table(spec)
    return newest_day(table).to_dicts() if table.exists() else []


def _day(rows: list[dict[str, Any]]) -> date | None:
    return rows[0]["session_date"] if rows else None


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


def read_why(source: PageFigures, query: WhyQuery, now: datetime) -> dict[str, Any]:
    """Return the rows of the newest explanation; blocks.

    Raises:
        UnknownStrategyError: The strategy has no leg.
    """
    figures, rows = source.explained(now)
    return {"at": figures.book.now, "rows": of_strategy(rows, query.strategy, figures.book)}
