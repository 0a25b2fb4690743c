"""The answers of `/api/v1` about what is held: their shapes, and what they say.

A leg with its values of today, the names that a search finds, curves, scenarios and expiry.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

from position_sync_dagster.errors import UnknownIdError
from position_sync_dagster.money.reports.book import BOOK_COLUMNS
from position_sync_dagster.money.reports.changes import DayChange
from position_sync_dagster.money.reports.figures import Figures
from position_sync_dagster.money.reports.provenance import rows_of_holding
from position_sync_dagster.money.risk.curve import (
    CurveRow,
    curve_keys,
    curves_of,
    expiries_to_come,
    first_drawn,
)
from position_sync_dagster.money.risk.deliveries import expiry_report
from position_sync_dagster.money.risk.priced_legs import Assumptions, PricedLegs
from position_sync_dagster.money.risk.recorded_risk import leg_notes
from position_sync_dagster.money.risk.scenario_file import Point, folder_of, read_scenarios
from position_sync_dagster.money.risk.scenarios import Breakdown, profits
from position_sync_dagster.money.trading_days import closed_day_note
from position_sync_dagster.web.api_answers import (
    ApiModel,
    ComputedAnswer,
    LeftOut,
    ListedLeg,
    MomentQuery,
    NoQuery,
    Number,
    Position,
    TradesQuery,
)
from position_sync_dagster.web.served_figures import SOON_DAYS, PageFigures

# The most values of a day that are returned, the newest.
MOST_VALUES = 1000


class LegQuery(MomentQuery):
    """Which leg."""

    account: str = Field(max_length=100)
    conid: int = Field(ge=0)


class LegValue(ApiModel):
    """A row of the ledger."""

    timestamp: datetime
    value_time: datetime | None
    """The time of the value at its source."""
    position: float
    market_price: Number
    market_value: Number
    daily_pnl: Number
    unrealized_pnl: Number
    delta: Number
    source: str
    """STREAM or QUEUE: which path wrote it."""
    value_source: str | None
    note: str | None
    update_id: str
    """`position-sync trace` finds by it, and by the next two, all that belongs to the row."""
    batch_id: str | None
    request_id: str | None
    run_id: str | None


class LegAnswer(ApiModel):
    """A leg at a moment, with its values since the day began."""

    at: datetime
    position: Position | None
    """Null: it is not held."""
    values: list[LegValue]
    """Of today, the oldest first."""
    more: bool
    """Whether today has older values."""
    changes: list[DayChange]
    """What happened to it today, the newest first."""


def read_leg(source: PageFigures, query: LegQuery, now: datetime) -> dict[str, Any]:
    """Return a leg with its values of today; blocks.

    Raises:
        UnknownIdError: It is not held, and has no value of today.
        LakeError: A table cannot be used.
    """
    figures = source.figures(now)
    held = figures.positions.filter(account=query.account, conid=query.conid)
    changes = list(_changes_of(figures, query))
    rows, more = rows_of_holding(
        source.lake.updates.table,
        query.account,
        query.conid,
        since=figures.day.since,
        until=figures.day.until,
        limit=MOST_VALUES,
    )
    if held.is_empty() and rows.is_empty():
        raise UnknownIdError(
            f"{query.account[:40]}:{query.conid} is not held, and has no value of today.",
            remedy="`position-sync positions --closed` lists accounts and conids.",
        )

    return {
        "at": figures.at,
        "position": next(held.select(BOOK_COLUMNS).iter_rows(named=True), None),
        "values": rows.select(*LegValue.model_fields).to_dicts(),
        "more": more,
        "changes": changes,
    }


def _changes_of(figures: Figures, query: LegQuery) -> Iterator[DayChange]:
    """Yield what happened to a leg, also where the account is not known."""
    for change in figures.changes:
        if change.account in (None, query.account) and query.conid in change.conids:
            yield change


# The most names that a search returns.
MOST_MATCHES = 20


class MatchKind(StrEnum):
    """What a name is of."""

    STRATEGY = "strategy"
    UNDERLYING = "underlying"
    LEG = "leg"


class SearchQuery(ApiModel):
    """What is looked for."""

    text: str = Field(default="", max_length=200)
    """Words that a name has, in any order, in upper or lower case."""


class Match(ApiModel):
    """A name that has all the words."""

    kind: MatchKind
    name: str
    account: str | None = None
    """Of a leg: its account."""
    conid: int | None = None
    """Of a leg: its contract."""


class SearchAnswer(ApiModel):
    """The first matches: strategies, then underlyings, then legs."""

    matches: list[Match]
    more: int
    """How many others there are."""


def search(source: PageFigures, query: SearchQuery, now: datetime) -> dict[str, Any]:
    """Return the names that have all words of a text; blocks."""
    words = query.text.casefold().split()
    matches = []
    for match in _names(source.figures(now)) if words else ():
        name = match.name.casefold()
        if all(word in name for word in words):
            matches.append(match.model_dump())

    shown = matches[:MOST_MATCHES]
    return {"matches": shown, "more": len(matches) - len(shown)}


def _names(figures: Figures) -> Iterator[Match]:
    """Yield every name that can be found."""
    for strategy in sorted({sums.name for sums in figures.book.strategies if sums.name}):
        yield Match(kind=MatchKind.STRATEGY, name=strategy)
    for underlying in sorted({sums.name for sums in figures.book.underlyings if sums.name}):
        yield Match(kind=MatchKind.UNDERLYING, name=underlying)
    for name, account, conid in figures.positions.select("name", "account", "conid").iter_rows():
        yield Match(kind=MatchKind.LEG, name=name, account=account, conid=conid)


class CurveQuery(TradesQuery):
    """Which holdings, on which day, at which volatilities; with trades: after them."""

    days: Annotated[float, Field(ge=0, le=3650)] = 0.0
    """Days that have passed on the chosen day."""
    vol: Annotated[float, Field(ge=-500, le=500)] = 0.0
    """Change of the volatilities on the chosen day, in points."""
    only: str | None = None
    """The one curve that is wanted, of `keys`; null: all.

    If it is not there: the first one that can be drawn, or else the first one.
    """


class CurveAnswer(ComputedAnswer):
    """The curves of what is chosen."""

    days: float
    vol: float
    closed_days: list[str]
    """That the chosen day is no trading day, with those beside it; empty: it is one."""
    keys: list[str]
    """The account, the currency and the underlying of each curve of what is chosen."""
    last_expiry: datetime | None
    """When the last of the chosen legs expires; null: none does."""
    curves: list[CurveRow]
    notes: list[str]
    """What priced each trade."""


def read_curve(source: PageFigures, query: CurveQuery, now: datetime) -> dict[str, Any]:
    """Return the curves of what a query chooses, with trades as it is after them; blocks."""
    changes = query.changes()
    notes: Sequence[str] = ()
    if changes:
        compared = source.compared(changes, now)
        book, notes = compared.after, compared.notes
        chosen = compared.after_legs.chosen(query.choice)
    else:
        book, chosen = source.risk_of(query.choice, now)

    keys = {"|".join(key): key for key in curve_keys(chosen)}
    wanted = [*keys.values()]
    if query.only in keys:
        wanted = [keys[query.only]]
    elif query.only is not None:
        first = first_drawn(chosen)
        wanted = [first] if first else wanted[:1]

    of_strategy: Sequence[str] = ()
    if query.strategy is not None:
        of_strategy = leg_notes(book).get(query.strategy, ())
    shift = Point(vol=query.vol, days=query.days)
    return {
        "at": book.now,
        "days": query.days,
        "vol": query.vol,
        "closed_days": closed_days(chosen.given, [shift]),
        "keys": [*keys],
        "last_expiry": max(expiries_to_come(chosen), default=None),
        "curves": curves_of(chosen, shift, of_strategy, wanted),
        "notes": notes,
    }


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


class ScenariosAnswer(ComputedAnswer):
    """The recorded scenarios: the usual ones, and those of scenarios.yaml."""

    names: list[str]
    rows: list[ScenarioRow]
    left_out: list[LeftOut]


def read_scenario_profits(source: PageFigures, _query: NoQuery, now: datetime) -> dict[str, Any]:
    """Return the profit of accounts, strategies and underlyings in the recorded scenarios."""
    points = read_scenarios(folder_of(source.settings.strategies_file)).recorded
    book, legs = source.risk_of_look(now)
    return {
        "at": book.now,
        "names": [point.name or "" for point in points],
        "rows": profits(legs, points),
        "left_out": left_out_of(legs),
    }


def closed_days(given: Assumptions, points: Iterable[Point]) -> list[str]:
    """Return which chosen days are no trading days, with those beside each."""
    chosen = dict.fromkeys(point.days for point in points)
    notes = (closed_day_note(given.calendar, given.now, days) for days in chosen)
    return [note for note in notes if note is not None]


def left_out_of(legs: PricedLegs) -> list[dict[str, Any]]:
    """Return how many legs have no price, by the reason."""
    return [{"reason": reason, "legs": count} for reason, count in legs.left_out().items()]


class ExpiryQuery(ApiModel):
    """Which legs."""

    days: int = Field(default=SOON_DAYS, ge=0, le=3650)
    """Only what expires within these days."""
    strategy: str | None = None
    """Only the legs of this strategy."""


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


class ExpiryAnswer(ComputedAnswer):
    """What expires, and what may be assigned early, at the present prices."""

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
