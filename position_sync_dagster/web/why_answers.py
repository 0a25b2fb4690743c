"""`/api/v1/why`: why today's profit of each strategy is what it is."""

from datetime import datetime
from typing import Any

from position_sync_dagster.sync.reports.todays_profit import TodaysProfit, of_strategy
from position_sync_dagster.web.api_answers import ApiModel
from position_sync_dagster.web.served_figures import ExplainedFigures


class WhyQuery(ApiModel):
    """Which strategies."""

    strategy: str | None = None
    """Only this strategy; UNATTRIBUTED is what no strategy has."""


class WhyAnswer(ApiModel):
    """Why the profit of today of strategies is what it is; computed once a minute."""

    at: datetime
    """The moment of all numbers."""
    rows: list[TodaysProfit]
    """By strategy, account and currency."""


def answer_why(explained: ExplainedFigures, query: WhyQuery) -> dict[str, Any]:
    """Return the rows of the newest explanation.

    Raises:
        UnknownStrategyError: The strategy has no leg.
    """
    book = explained.figures.book
    return {"at": book.now, "rows": of_strategy(explained.rows, query.strategy, book)}
