"""Delta, volatility and price of the underlying at entry: from the first rows after first fills.

What opens has no row before. A row counts that was written within a minute: what is later says
what became of it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any, TypeVar

from position_sync_dagster.money.campaigns.campaigns import Contracts, TradedCampaign, states_of
from position_sync_dagster.money.lake import MoneyLake, rows_around
from position_sync_dagster.money.past.movements import known_sum, times

# The most time from a fill to the row that tells of it.
WITHIN = timedelta(minutes=1)

# A contract, and when it was filled first.
Moment = tuple[int, datetime]

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What was known when something began; the columns of campaigns and lots."""

    entry_delta: float | None = None
    entry_implied_vol: float | None = None
    entry_underlying_price: float | None = None
    entry_after_s: float | None = None
    entry_unknown: str | None = None


def entry_of(legs: Iterable[EntryLeg], first_rows: Mapping[Moment, Row]) -> Entry:
    """Return what was known of legs when they were opened; pure.

    Args:
        legs: All that something began with.
        first_rows: The first row of the ledger after each moment.
    """
    delta: float | None = 0.0
    opened: list[tuple[EntryLeg, Row, float]] = []
    for leg in legs:
        size = times(leg.multiplier, leg.quantity)
        if size is None:
            return Entry(entry_unknown=f"the multiplier of {leg.name} is not known")
        if not leg.is_option:
            delta = known_sum([delta, size])
            continue

        if leg.at is None:
            return Entry(entry_unknown=f"when {leg.name} was filled is not known")
        row = first_rows.get((leg.conid, leg.at))
        if row is None:
            why = f"no delta of {leg.name} was recorded in the minute after its first fill"
            return Entry(entry_unknown=why)
        delta = known_sum([delta, times(row["delta"], size)])
        opened.append((leg, row, (row["timestamp"] - leg.at).total_seconds()))

    if not opened:
        return Entry(entry_unknown="it began without an option")

    contracts = sum(abs(leg.quantity) for leg, _row, _after in opened)
    weighted = (times(row["implied_vol"], abs(leg.quantity)) for leg, row, _after in opened)
    volatility = times(known_sum(weighted), 1 / contracts)
    first = min((row for _leg, row, _after in opened), key=itemgetter("timestamp"))
    price = first["underlying_price"]
    unknown = []
    if volatility is None:
        unknown.append("entry_implied_vol: a first row has none")
    if len({leg.symbol for leg, _row, _after in opened}) > 1:
        price = None
        unknown.append("entry_underlying_price: it has several underlyings")
    elif price is None:
        unknown.append("entry_underlying_price: the first row has none")
    return Entry(
        entry_delta=delta,
        entry_implied_vol=volatility,
        entry_underlying_price=price,
        entry_after_s=max(after for _leg, _row, after in opened),
        entry_unknown="; ".join(unknown) or None,
    )


def entry_legs(
    campaign: TradedCampaign, contracts: Contracts, currency: str | None
) -> list[EntryLeg]:
    """Return what a campaign had at its first close, in one currency; pure.

    Its kind is that of the same contracts. Within a day it is the most that it had.
    """
    fills = [part for part in campaign.parts if part.is_trade and part.opens]
    first_fills = {part.key[1]: part.movement.at for part in reversed(fills)}
    of_currency = {part.key[1]: part for part in campaign.parts_in(currency)}
    legs = []
    for conid, quantity in states_of(campaign)[0].lots.items():
        if conid not in of_currency:
            continue

        instrument = contracts[conid].instrument
        part = of_currency[conid]
        leg = EntryLeg(
            conid=conid,
            name=contracts[conid].name,
            symbol=part.movement.symbol,
            at=first_fills.get(conid),
            quantity=quantity,
            multiplier=None if instrument is None else instrument.multiplier,
            is_option=part.is_option,
        )
        legs.append(leg)
    return legs


# ---- what is read

# A campaign, open or over, or a lot.
Entered = TypeVar("Entered", bound=Any)


def read_entries(
    lake: MoneyLake, entered: Sequence[tuple[Entered, Sequence[EntryLeg]]]
) -> list[Entered]:
    """Return records with what was known when they began, by one read a day for all; blocks."""
    legs = [leg for _record, of_record in entered for leg in of_record if leg.is_option]
    moments = {(leg.conid, leg.at) for leg in legs if leg.at is not None}
    first_rows: dict[Moment, Row] = {}
    for of_day, rows in rows_around(lake, moments, _OF_ENTRY, after=WITHIN):
        first = of_day.join_asof(
            rows.drop_nulls("delta"), left_on="at", right_on="timestamp", by="conid",
            strategy="forward", tolerance=WITHIN,
            coalesce=False, check_sortedness=False,  # Polars checks no groups, and warns of it
        )  # fmt: skip
        for row in first.drop_nulls("timestamp").to_dicts():
            first_rows[row["conid"], row["at"]] = row

    return [with_entry(record, entry_of(legs, first_rows)) for record, legs in entered]


_OF_ENTRY = ("conid", "delta", "implied_vol", "underlying_price")


def with_entry(record: Entered, entry: Any) -> Entered:
    """Return a record with the columns of an entry, or of a record that has them; pure."""
    columns = {field.name: getattr(entry, field.name) for field in fields(Entry)}
    return replace(record, **columns)
