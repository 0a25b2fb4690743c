"""Delta, volatility and price of the underlying at entry: from the first rows after first fills.

What opens has no row before. A row counts that was written within a minute: what is later says
what became of it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from operator import attrgetter, itemgetter
from typing import Any, TypeVar

from polars import col

from position_sync_dagster.domain.holding import grouped
from position_sync_dagster.money.campaigns.campaigns import TradedCampaign, states_of
from position_sync_dagster.money.lake import Moment, MoneyLake, nearest_rows
from position_sync_dagster.money.past.movements import known_sum, times
from position_sync_dagster.money.past.postings import Posting, name_of

# The most time from a fill to the row that tells of it.
WITHIN = timedelta(minutes=1)

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryLeg:
    """A contract that something began with.

    Attributes:
        at: When it was filled first; None: not known.
        quantity: How much of it there was, with its sign.
        multiplier: None: not known.
        is_option: What is none has a delta of 1.
    """

    conid: int
    name: str
    symbol: str | None
    at: datetime | None
    quantity: float
    multiplier: float | None
    is_option: bool = True

    @property
    def size(self) -> float | None:
        """Return how many units of the underlying it was of; None: not known."""
        return times(self.multiplier, self.quantity)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What was known when something began; the columns of campaigns and lots."""

    entry_delta: float | None = None
    entry_implied_vol: float | None = None
    entry_underlying_price: float | None = None
    entry_after_s: float | None = None
    entry_unknown: str | None = None


def entry_of(legs: Collection[EntryLeg], first_rows: Mapping[Moment, Row]) -> Entry:
    """Return what was known of legs when they were opened; pure.

    Args:
        legs: All that something began with.
        first_rows: The first row of the ledger after each moment.
    """
    for leg in legs:
        why = _why_unknown(leg, first_rows)
        if why is not None:
            return Entry(entry_unknown=why)

    are_options = grouped(attrgetter("is_option"), legs)
    options = are_options[True]
    if not options:
        return Entry(entry_unknown="it began without an option")

    rows = [first_rows[leg.conid, leg.at] for leg in options]
    size_of = attrgetter("size")
    deltas = map(times, map(size_of, options), map(itemgetter("delta"), rows))
    weights = [abs(leg.quantity) for leg in options]
    weighted = known_sum(map(times, map(itemgetter("implied_vol"), rows), weights))
    volatility = times(weighted, 1 / sum(weights))
    price = min(rows, key=itemgetter("timestamp"))["underlying_price"]

    unknown = {}
    if volatility is None:
        unknown["entry_implied_vol"] = "a first row has none"
    if price is None:
        unknown["entry_underlying_price"] = "the first row has none"
    if len({leg.symbol for leg in options}) > 1:
        price = None
        unknown["entry_underlying_price"] = "it has several underlyings"
    return Entry(
        entry_delta=known_sum([*deltas, *map(size_of, are_options[False])]),
        entry_implied_vol=volatility,
        entry_underlying_price=price,
        entry_after_s=max((row["timestamp"] - row["at"]).total_seconds() for row in rows),
        entry_unknown="; ".join(f"{name}: {why}" for name, why in unknown.items()) or None,
    )


def _why_unknown(leg: EntryLeg, first_rows: Mapping[Moment, Row]) -> str | None:
    if leg.multiplier is None:
        return f"the multiplier of {leg.name} is not known"
    if not leg.is_option:
        return None
    if leg.at is None:
        return f"when {leg.name} was filled is not known"
    if (leg.conid, leg.at) not in first_rows:
        return f"no delta of {leg.name} was recorded in the minute after its first fill"
    return None


def entry_legs(campaign: TradedCampaign, currency: str | None) -> list[EntryLeg]:
    """Return what a campaign had at its first close, in one currency; pure.

    Its kind is that of the same contracts. Within a day it is the most that it had.
    """
    moved = [part for part in campaign.parts_in(currency) if part.quantity]
    first_parts = {part.conid: part for part in reversed(moved)}
    lots = states_of(campaign, currency)[0].lots
    return [_leg(part, lots[conid]) for conid, part in first_parts.items() if conid in lots]


def _leg(opening: Posting, quantity: float) -> EntryLeg:
    movement = opening.movement
    return EntryLeg(
        conid=opening.conid,
        name=name_of(movement),
        symbol=movement.symbol,
        at=movement.at if opening.is_trade else None,
        quantity=quantity,
        multiplier=movement.multiplier,
        is_option=opening.is_option,
    )


# ---- what is read

# A campaign, open or over, or a lot.
Entered = TypeVar("Entered", bound=Any)


def read_entries(
    lake: MoneyLake, entered: Sequence[tuple[Entered, Sequence[EntryLeg]]]
) -> list[Entered]:
    """Return records with what was known when they began, by one read a day for all; blocks."""
    legs = [leg for _record, of_record in entered for leg in of_record if leg.is_option]
    moments = [(leg.conid, leg.at) for leg in legs]
    first_rows = nearest_rows(lake, moments, _OF_ENTRY, col.delta.is_not_null(), after=WITHIN)
    return [with_entry(record, entry_of(legs, first_rows)) for record, legs in entered]


_OF_ENTRY = ("conid", "delta", "implied_vol", "underlying_price")


def with_entry(record: Entered, entry: Any) -> Entered:
    """Return a record with the columns of an entry, or of a record that has them; pure."""
    return replace(record, **{field.name: getattr(entry, field.name) for field in fields(Entry)})
