"""A leg with its values of today and its events; and the search, which finds legs by name."""

from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import Field

from position_sync_dagster.errors import UnknownIdError
from position_sync_dagster.money.reports.book import COLUMNS
from position_sync_dagster.money.reports.changes import DayChange
from position_sync_dagster.money.reports.figures import Figures
from position_sync_dagster.money.reports.provenance import rows_of_holding
from position_sync_dagster.web.api_answers import ApiModel, Number, Position
from position_sync_dagster.web.served_figures import PageFigures

# The most values of a day that are returned, the newest.
MOST_VALUES = 1000


class LegQuery(ApiModel):
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
    changes = [
        change
        for change in figures.changes
        if change.account in (None, query.account) and query.conid in change.conids
    ]
    rows, more = rows_of_holding(
        source.lake.updates.table,
        query.account,
        query.conid,
        since=figures.day.since,
        limit=MOST_VALUES,
    )
    if held.is_empty() and rows.is_empty():
        raise UnknownIdError(
            f"{query.account[:40]}:{query.conid} is not held, and has no value of today.",
            remedy="`position-sync positions --closed` lists accounts and conids.",
        )

    return {
        "at": figures.at,
        "position": next(held.select(COLUMNS).iter_rows(named=True), None),
        "values": rows.select(*LegValue.model_fields).to_dicts(),
        "more": more,
        "changes": changes,
    }


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
