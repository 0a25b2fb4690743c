"""What `/api/v1` answers about results: groups, days, campaigns, and one campaign."""

from datetime import date, datetime
from typing import Annotated, Any

from pydantic import BeforeValidator

from position_sync_dagster.domain.instrument import parse_day
from position_sync_dagster.errors import InvalidLegError
from position_sync_dagster.money.campaigns.closed_campaign import ClosedCampaign
from position_sync_dagster.money.campaigns.results import (
    DayResult,
    Grouping,
    GroupResult,
    read_campaigns,
    read_days,
    results_of,
)
from position_sync_dagster.money.profit.returns import Period, PeriodReturn, read_returns
from position_sync_dagster.money.reports.fill_costs import (
    FillCost,
    FillGrouping,
    GroupCost,
    grouped_costs,
    read_fill_costs,
)
from position_sync_dagster.web.api_answers import ApiModel
from position_sync_dagster.web.served_figures import PageFigures


class ResultsAnswer(ApiModel):
    """Results of groups, and of days."""

    since: date | None
    by: Grouping
    results: list[GroupResult]
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
    """How they are grouped; month and weekday are those of the close."""


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


class CampaignQuery(ApiModel):
    """Which campaign."""

    id: str
    """A `campaign_id`."""


def read_results(source: PageFigures, query: ResultsQuery, _now: datetime) -> dict[str, Any]:
    """Return the answer of `results`; blocks."""
    campaigns = read_campaigns(source.lake, query.since)
    return {
        "since": query.since,
        "by": query.by,
        "results": [result.row for result in results_of(campaigns, query.by)],
        "days": read_days(source.lake, campaigns, query.since),
    }


def read_account_returns(
    source: PageFigures, query: ReturnsQuery, _now: datetime
) -> dict[str, Any]:
    """Return the answer of `returns`; blocks."""
    return {
        "since": query.since,
        "by": query.by,
        "returns": read_returns(source.lake, source.settings, query.by, query.since),
    }


def read_fills(source: PageFigures, query: FillsQuery, _now: datetime) -> dict[str, Any]:
    """Return the answer of `fills`; blocks."""
    fills = read_fill_costs(source.lake, source.settings, query.since)
    return {
        "since": query.since,
        "by": query.by,
        "groups": grouped_costs(fills, query.by),
        "fills": fills,
    }
