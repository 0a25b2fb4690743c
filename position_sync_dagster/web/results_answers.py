"""What `/api/v1` answers about results: groups, days, campaigns, and one campaign."""

from datetime import date
from typing import Annotated, Any, get_type_hints

from pydantic import BeforeValidator, ConfigDict, Field, create_model

from position_sync_dagster.domain.closed_campaign import ClosedCampaign
from position_sync_dagster.domain.instrument import parse_day
from position_sync_dagster.errors import InvalidLegError
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.schema import descriptions_of
from position_sync_dagster.risk.closed_campaigns import RolledContracts
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.reports.closed_campaigns import CampaignValue
from position_sync_dagster.sync.reports.one_campaign import (
    CampaignFill,
    CampaignLeg,
    read_campaign,
)
from position_sync_dagster.sync.reports.results import (
    DayResult,
    Grouping,
    GroupResult,
    read_campaigns,
    read_days,
    results_of,
)
from position_sync_dagster.web.api_answers import ApiModel


class RecordModel(ApiModel):
    """A record as an answer; its texts are given, and not looked for in its source."""

    model_config = ConfigDict(use_attribute_docstrings=False)


def answer_of(record: type, names: dict[str, str] | None = None) -> Any:
    """Return the shape of a record: its fields, with the texts of its docstring.

    Args:
        names: The names in JSON of fields that have another one.
    """
    texts = descriptions_of(record)
    fields: dict[str, Any] = {}
    for name, hint in get_type_hints(record).items():
        fields[(names or {}).get(name, name)] = (hint, Field(description=texts.get(name)))
    summary = (record.__doc__ or "").partition("\n")[0]
    return create_model(record.__name__, __base__=RecordModel, __doc__=summary, **fields)


GroupAnswer = answer_of(GroupResult, {"return_on_risk": "return"})
DayAnswer = answer_of(DayResult)
CampaignRow = answer_of(ClosedCampaign)
LegAnswer = answer_of(CampaignLeg)
FillAnswer = answer_of(CampaignFill)
RollAnswer = answer_of(RolledContracts)
ValueAnswer = answer_of(CampaignValue)


class ResultsAnswer(ApiModel):
    """Results of groups, and of days."""

    since: date | None
    by: Grouping
    results: list[GroupAnswer]  # type: ignore[valid-type]
    days: list[DayAnswer]  # type: ignore[valid-type]
    """For a calendar of the profit of days, and a curve of the realised profit (`total`)."""


class CampaignsAnswer(ApiModel):
    """Campaigns that are over, in the order in which they closed."""

    campaigns: list[CampaignRow]  # type: ignore[valid-type]


class CampaignAnswer(ApiModel):
    """One campaign."""

    campaigns: list[CampaignRow]  # type: ignore[valid-type]
    """Its row in each currency."""
    legs: list[LegAnswer]  # type: ignore[valid-type]
    fills: list[FillAnswer]  # type: ignore[valid-type]
    rolls: list[RollAnswer]  # type: ignore[valid-type]
    values: list[ValueAnswer]  # type: ignore[valid-type]


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


def answer_results(lake: Lake, query: ResultsQuery) -> dict[str, Any]:
    """Return the answer of `results`."""
    campaigns = read_campaigns(lake, query.since)
    results = [result.row for result in results_of(campaigns, query.by)]
    days = read_days(lake, campaigns, query.since)
    return {"since": query.since, "by": query.by, "results": results, "days": days}


def answer_campaigns(lake: Lake, query: CampaignsQuery) -> dict[str, Any]:
    """Return the answer of `campaigns`."""
    return {"campaigns": read_campaigns(lake, query.since, query.strategy)}


def answer_campaign(lake: Lake, settings: Settings, query: CampaignQuery) -> dict[str, Any]:
    """Return the answer of `campaign`.

    Raises:
        UnknownIdError: No campaign that is over has the name.
    """
    found = read_campaign(lake, settings, query.id)
    names = ("campaigns", "legs", "fills", "rolls", "values")
    return {name: getattr(found, name) for name in names}
