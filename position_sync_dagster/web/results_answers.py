"""The answers of `/api/v1` about profit: of a day and why, and of campaigns, accounts and fills."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Annotated, Any

from polars import DataFrame
from pydantic import BeforeValidator

from position_sync_dagster.domain.instrument import parse_day
from position_sync_dagster.errors import InvalidLegError
from position_sync_dagster.lake.schema import TableSpec
from position_sync_dagster.money.campaigns.campaign_days import (
    path_of,
    read_days_of,
    read_explained,
)
from position_sync_dagster.money.campaigns.closed_campaign import ClosedCampaign
from position_sync_dagster.money.campaigns.open_campaigns import (
    OpenCampaign,
    read_open_campaigns,
)
from position_sync_dagster.money.campaigns.results import (
    DayResult,
    Grouping,
    GroupResult,
    read_campaigns,
    read_days,
    results_of,
)
from position_sync_dagster.money.campaigns.results_in_base import read_day_rates, results_in_base
from position_sync_dagster.money.cents import in_cents, split_in_cents
from position_sync_dagster.money.lake import MoneyLake, newest_day
from position_sync_dagster.money.profit.books import being_made
from position_sync_dagster.money.profit.profit import PROFIT_PARTS
from position_sync_dagster.money.profit.returns import Period, PeriodReturn, read_returns
from position_sync_dagster.money.profit.todays_profit import TodaysProfit, of_strategy
from position_sync_dagster.money.reports.fill_costs import (
    FillCost,
    FillGrouping,
    GroupCost,
    grouped_costs,
    read_fill_costs,
)
from position_sync_dagster.money.tables import BOOKS, PROFIT_EXPLAINED, BookedDay, ExplainedProfit
from position_sync_dagster.web.api_answers import ApiModel, ComputedAnswer, MomentQuery, NoQuery
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
    books_being_made: bool
    """What the books rest on changed after they were made; `explained` may be the newer."""


def closed_day(source: PageFigures, _query: NoQuery, now: datetime) -> dict[str, Any]:
    """Return the rows of the newest days; blocks.

    Raises:
        LakeError: A table cannot be used.
    """
    *parts, unexplained = PROFIT_PARTS
    # Books are committed last: what is read after them is as new, or newer.
    booked = _newest_rows(source.lake, BOOKS)
    profits = _newest_rows(source.lake, PROFIT_EXPLAINED)
    books_day, books = _newest(booked, "change", BOOKED_PARTS, "difference")
    explained_day, explained = _newest(profits, "profit", parts, unexplained)
    for row in explained:
        row["market"] = in_cents(row["market"])
    return {
        "at": source.figures(now).at,
        "explained_day": explained_day,
        "explained": explained,
        "books_day": books_day,
        "books": books,
        "books_being_made": being_made(source.lake, source.settings, booked),
    }


def _newest_rows(lake: MoneyLake, spec: TableSpec) -> DataFrame:
    """Return the rows of the newest day of a table; none where nothing wrote it yet."""
    table = lake.derived_table(spec)
    return newest_day(table) if table.exists() else spec.empty


def _newest(
    rows: DataFrame, total: str, parts: Sequence[str], rest: str
) -> tuple[date | None, list[dict[str, Any]]]:
    """Return the day of rows, and the rows in cents."""
    day = None if rows.is_empty() else rows["session_date"][0]
    return day, [split_in_cents(row, total, parts, rest) for row in rows.to_dicts()]


class WhyQuery(MomentQuery):
    """Which strategies."""

    strategy: str | None = None
    """Only this strategy; UNATTRIBUTED is what no strategy has."""


class WhyAnswer(ComputedAnswer):
    """Why the profit of today of strategies is what it is; of a large book once a minute."""

    rows: list[TodaysProfit]
    """By strategy, account and currency."""


def read_why(source: PageFigures, query: WhyQuery, now: datetime) -> dict[str, Any]:
    """Return the rows of the newest explanation; blocks.

    Raises:
        UnknownStrategyError: The strategy has no leg.
    """
    figures, rows = source.explained(now)
    book = figures.book
    return {"at": book.now, "rows": of_strategy(rows, query.strategy, book)}


class ResultsAnswer(ApiModel):
    """Results of groups, and of days."""

    since: date | None
    by: Grouping
    results: list[GroupResult]
    in_base: list[GroupResult]
    """Groups with several currencies, in the base one, by the rates of the days of the closes."""
    days: list[DayResult]
    """For a calendar of the profit of days, and a curve of the realised profit (`total`)."""


class ReturnsAnswer(ApiModel):
    """What accounts returned."""

    since: date | None
    by: Period
    returns: list[PeriodReturn]


class FillsAnswer(ApiModel):
    """What fills cost, in groups and by themselves."""

    since: date | None
    by: FillGrouping
    groups: list[GroupCost]
    fills: list[FillCost]


class CampaignsAnswer(ApiModel):
    """Campaigns that are over, in the order in which they closed."""

    campaigns: list[ClosedCampaign]
    paths: list[list[float]]
    """Of each campaign, what it had earned at the end of each of its days; empty: not known."""


class OpenCampaignsAnswer(ApiModel):
    """The campaigns of strategies that are open, by strategy and account."""

    at: datetime
    campaigns: list[OpenCampaign]


def _day(text: object) -> object:
    try:
        return None if text is None else parse_day(str(text), "day")
    except InvalidLegError as error:
        raise ValueError(error.what.rstrip(".")) from None


Day = Annotated[date | None, BeforeValidator(_day)]


class ResultsQuery(ApiModel):
    """Which campaigns, and how they are grouped."""

    since: Day = None
    """Only what closed on this day or later, such as 2026-01-02."""
    by: Grouping = Grouping.STRATEGY
    """How they are grouped; the month is that of the close."""


class ReturnsQuery(ApiModel):
    """Which days, and the periods of which returns are told."""

    since: Day = None
    """Only trading days from this one on, such as 2026-01-02."""
    by: Period = Period.ALL
    """all, year, month or day; each account in all comes first."""


class FillsQuery(ApiModel):
    """Which fills, and how they are grouped."""

    since: Day = None
    """Only those of this trading day or later, such as 2026-01-02."""
    by: FillGrouping = FillGrouping.STRATEGY
    """How they are grouped; hours are those of the exchange."""


class CampaignsQuery(ApiModel):
    """Which campaigns."""

    since: Day = None
    """Only what closed on this day or later, such as 2026-01-02."""
    strategy: str | None = None
    """Only those of this strategy; UNATTRIBUTED: of what was in none."""


class OpenCampaignsQuery(ApiModel):
    """Which open campaigns."""

    strategy: str | None = None
    """Only those of this strategy."""


class CampaignQuery(ApiModel):
    """Which campaign."""

    id: str
    """A `campaign_id`."""


def read_results(source: PageFigures, query: ResultsQuery, _now: datetime) -> dict[str, Any]:
    """Return the answer of `results`; blocks."""
    campaigns = read_campaigns(source.lake, query.since)
    rates = read_day_rates(source.lake, campaigns)
    return {
        **dict(query),
        "results": [result.row for result in results_of(campaigns, query.by)],
        "in_base": [result.row for result in results_in_base(campaigns, query.by, rates)],
        "days": read_days(source.lake, campaigns, query.since),
    }


def read_all_campaigns(
    source: PageFigures, query: CampaignsQuery, _now: datetime
) -> dict[str, Any]:
    """Return the answer of `campaigns`; blocks."""
    campaigns = read_campaigns(source.lake, query.since, query.strategy)
    days = read_explained(source.lake, source.settings.calendar, campaigns)
    paths = [[day.stands for day in path_of(campaign, days)] for campaign in campaigns]
    return {"campaigns": campaigns, "paths": paths}


def read_campaigns_so_far(
    source: PageFigures, query: OpenCampaignsQuery, now: datetime
) -> dict[str, Any]:
    """Return the answer of `open-campaigns`; blocks."""
    book = source.figures(now).book
    campaigns = read_open_campaigns(source.lake, book.closes.parts, query.strategy)
    with_days = read_days_of(source.lake, source.settings.calendar, campaigns)
    return {"at": book.now, "campaigns": with_days}


def read_account_returns(
    source: PageFigures, query: ReturnsQuery, _now: datetime
) -> dict[str, Any]:
    """Return the answer of `returns`; blocks."""
    return {
        **dict(query),
        "returns": read_returns(source.lake, source.settings, query.by, query.since),
    }


def read_fills(source: PageFigures, query: FillsQuery, _now: datetime) -> dict[str, Any]:
    """Return the answer of `fills`; blocks."""
    fills = read_fill_costs(source.lake, source.settings, query.since)
    return {
        **dict(query),
        "groups": grouped_costs(fills, query.by),
        "fills": fills,
    }
