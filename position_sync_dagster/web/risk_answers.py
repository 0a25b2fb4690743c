"""The answers `curve`, `scenarios` and `expiry` of `/api/v1`: their shapes, and what they say."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

from position_sync_dagster.money.risk.curve import CurveRow
from position_sync_dagster.money.risk.deliveries import expiry_report
from position_sync_dagster.money.risk.priced_legs import PricedLegs
from position_sync_dagster.money.risk.recorded_risk import curves_of_choice
from position_sync_dagster.money.risk.scenario_file import Point, folder_of, read_scenarios
from position_sync_dagster.money.risk.scenarios import Breakdown, profits
from position_sync_dagster.web.api_answers import ApiModel, LeftOut, NoQuery, Number, TradesQuery
from position_sync_dagster.web.served_figures import SOON_DAYS, PageFigures


class CurveQuery(TradesQuery):
    """Which holdings, on which day, at which volatilities; with trades: after them."""

    days: Annotated[float, Field(ge=0, le=3650)] = 0.0
    """Days that have passed on the chosen day."""
    vol: Annotated[float, Field(ge=-500, le=500)] = 0.0
    """Change of the volatilities on the chosen day, in points."""


class CurveAnswer(ApiModel):
    """The curves of what is chosen."""

    at: datetime
    days: float
    vol: float
    curves: list[CurveRow]
    notes: list[str]
    """What priced each trade."""


def read_curve(source: PageFigures, query: CurveQuery, now: datetime) -> dict[str, Any]:
    """Return the curves of what a query chooses, with trades as it is after them; blocks."""
    changes = query.changes()
    notes: Sequence[str] = ()
    if changes:
        compared = source.compared(changes, now)
        book, legs, notes = compared.after, compared.after_legs, compared.notes
    else:
        book, legs = source.risk(now)

    curves = curves_of_choice(book, legs, query.choice, Point(vol=query.vol, days=query.days))
    return {"at": book.now, "days": query.days, "vol": query.vol, "curves": curves, "notes": notes}


class ScenarioRow(ApiModel):
    """The profit of an account, a strategy or an underlying in each recorded scenario."""

    level: Breakdown
    name: str | None
    account: str
    currency: str
    profits: list[float | None]
    """In the order of the names; null: the legs that can be priced do not carry the sum."""
    left_out: list[int]
    """The legs that each sum leaves out."""
    known: list[int]
    """The legs that it has."""
    of: list[int]
    """All legs."""


class ScenariosAnswer(ApiModel):
    """The recorded scenarios: the usual ones, and those of scenarios.yaml."""

    at: datetime
    names: list[str]
    rows: list[ScenarioRow]
    left_out: list[LeftOut]


def read_scenario_profits(source: PageFigures, _query: NoQuery, now: datetime) -> dict[str, Any]:
    """Return the profit of accounts, strategies and underlyings in the recorded scenarios."""
    points = read_scenarios(folder_of(source.settings.strategies_file)).recorded
    book, legs = source.risk(now)
    return {
        "at": book.now,
        "names": [point.name or "" for point in points],
        "rows": profits(legs, points),
        "left_out": left_out_of(legs),
    }


def left_out_of(legs: PricedLegs) -> list[dict[str, Any]]:
    """Return how many legs have no price, by the reason."""
    return [{"reason": reason, "legs": count} for reason, count in legs.left_out().items()]


class ExpiryQuery(ApiModel):
    """Which legs."""

    days: int = Field(default=SOON_DAYS, ge=0, le=3650)
    """Only what expires within these days."""
    strategy: str | None = None
    """Only the legs of this strategy."""


class ListedLeg(ApiModel):
    """A part of a holding."""

    strategy_id: str
    account: str
    conid: int
    symbol: str
    currency: str
    leg: str


class ExpiringRow(ListedLeg):
    """What a leg leaves if it ended at the present price."""

    expires_at: datetime
    position: float
    units: Number
    """Shares or futures that come; below 0 they go."""
    cash: Number
    """Money that comes; below 0 it is needed."""
    missing: Number
    """Shares or futures that the account does not have."""
    is_pinned: bool | None
    is_cash_settled: bool | None
    is_in_the_morning: bool
    is_uncovered: bool | None
    reason: str | None
    """Why numbers are not known."""


class EarlyAssignment(ListedLeg):
    """A short option whose holder gains nothing more by selling it."""

    position: float
    extrinsic: float
    """What one unit is worth above its exercise."""
    ex_date: datetime | None
    """When the dividend goes for which a call is exercised."""


class NotJudged(ListedLeg):
    """A short option of which nothing can be said."""

    position: float
    in_the_money: bool | None
    reason: str


class Undated(ListedLeg):
    """An option whose expiry is not known."""

    reason: str


class ExpiryAnswer(ApiModel):
    """What expires, and what may be assigned early, at the present prices."""

    at: datetime
    days: int
    expiries: list[ExpiringRow]
    early_assignments: list[EarlyAssignment]
    not_judged: list[NotJudged]
    undated: list[Undated]


def read_expiry(source: PageFigures, query: ExpiryQuery, now: datetime) -> dict[str, Any]:
    """Return what expires within some days, as `position-sync expiry` lists it; blocks."""
    _book, legs = source.risk(now)
    report = expiry_report(legs, days=query.days, strategy=query.strategy)
    return {"at": legs.given.now, "days": query.days} | report
