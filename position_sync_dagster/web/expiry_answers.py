"""`/api/v1/expiry`: what expires, and which short options may be assigned early."""

from datetime import datetime
from typing import Any

from pydantic import Field

from position_sync_dagster.money.risk.deliveries import expiry_report
from position_sync_dagster.web.api_answers import ApiModel, Number
from position_sync_dagster.web.served_figures import SOON_DAYS, PageFigures


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
    gain: Number
    """What exercise gives its holder: the dividend, the interest until expiry, or what a sale
    lacks; null without an interest rate."""
    ex_date: datetime | None


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
