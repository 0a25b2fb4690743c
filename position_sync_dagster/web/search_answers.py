"""`/api/v1/search`: strategies, underlyings and legs by a part of their names."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Any

from pydantic import Field

from position_sync_dagster.sync.reports.figures import Figures
from position_sync_dagster.web.api_answers import ApiModel

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


def search(figures: Figures, query: SearchQuery) -> dict[str, Any]:
    """Return the names that have all words of a text."""
    words = query.text.casefold().split()
    matches = []
    for match in _names(figures):
        name = match.name.casefold()
        if words and all(word in name for word in words):
            matches.append(match)

    shown = [match.model_dump() for match in matches[:MOST_MATCHES]]
    return {"matches": shown, "more": len(matches) - len(shown)}


def _names(figures: Figures) -> Iterator[Match]:
    """Yield every name that can be found."""
    for strategy in sorted({sums.name for sums in figures.book.strategies if sums.name}):
        yield Match(kind=MatchKind.STRATEGY, name=strategy)
    for underlying in sorted({sums.name for sums in figures.book.underlyings if sums.name}):
        yield Match(kind=MatchKind.UNDERLYING, name=underlying)
    for name, account, conid in figures.positions.select("name", "account", "conid").iter_rows():
        yield Match(kind=MatchKind.LEG, name=name, account=account, conid=conid)
