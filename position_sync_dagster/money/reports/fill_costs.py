"""What fills cost: each price against the quote right before it, and the fees beside it.

A fill has a quote where a trusted line had one: of what closes or scales a holding. What opens a
leg without a line has none. A combination counts as one: without the quote of one of its legs, the
prices of the others say nothing.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from operator import attrgetter
from zoneinfo import ZoneInfo

from polars import col

from position_sync_dagster.domain.clock import NEVER
from position_sync_dagster.domain.holding import grouped
from position_sync_dagster.domain.position_update import Source, ValueOrigin
from position_sync_dagster.domain.streamed_holding import ROW_INTERVAL_S
from position_sync_dagster.money.campaigns.closed_campaigns import CampaignBook
from position_sync_dagster.money.lake import MoneyLake, nearest_rows
from position_sync_dagster.money.magnifiers import VALUED, magnifier_in, quoted_in_cents
from position_sync_dagster.money.past.causes import cancelled_ids
from position_sync_dagster.money.past.movements import known_sum
from position_sync_dagster.money.past.postings import Posting, name_of
from position_sync_dagster.money.reports.columns import Row
from position_sync_dagster.money.reports.exposure import FEEDS
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.exchange_days import time_zone_of

# A streamed holding has a row at least this often, with a moment for its flush: what is older is no
# quote of a line that was there.
OLDEST_QUOTE = timedelta(seconds=ROW_INTERVAL_S + 10)


class FillGrouping(StrEnum):
    """By what fills are grouped; hours are those of the exchange."""

    ORDER = "order"
    STRATEGY = "strategy"
    HOUR = "hour"
    UNDERLYING = "underlying"
    MONTH = "month"


@dataclass(frozen=True, slots=True, kw_only=True)
class FillCost:
    """An execution, or the part of it that one strategy has, and what it cost.

    Attributes:
        order: The order; an execution without one is its own.
        hour: The hour at which it was made; None: its time is not known.
        right, strike, expiry: Those of the contract, where it has them.
        price, bid, ask, mid: Of one unit, in the major unit of the currency.
        quoted_at: When the row with the quote was written.
        slippage: What was paid above mid, or received below it; negative was better. Unit:
            `currency`.
        spread: What the whole width of the quote would have cost. Unit: `currency`.
        part_of_spread: The first as a part of the second: 0.5 is the other side of the market;
            None also of a quote without a width.
        fee: Positive was paid; None: not known.
        cost: Slippage and fee.
        opens: Whether it opened something.
        why_unknown: Why slippage is null.
    """

    at: datetime | None
    day: date
    hour: str | None
    account: str
    conid: int
    contract: str
    underlying: str
    sec_type: str | None
    right: str | None
    strike: float | None
    expiry: date | None
    strategy: str
    order: str
    movement_id: str
    currency: str
    quantity: float
    price: float | None
    bid: float | None = None
    ask: float | None = None
    mid: float | None = None
    quoted_at: datetime | None = None
    slippage: float | None = None
    spread: float | None = None
    part_of_spread: float | None = None
    fee: float | None
    cost: float | None = None
    opens: bool
    why_unknown: str | None = None

    @property
    def month(self) -> str:
        """The month of the trading day, such as 2026-03."""
        return f"{self.day:%Y-%m}"


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupCost:
    """What the fills of a group cost, in one currency.

    Attributes:
        known: How many of them have a quote: slippage, part_of_spread, fees and cost are of these.
        fills: How many there are.
        fees: Fees of those with a quote; None: one is not known.
        cost: Slippage and fees of those.
        fees_without_quote: Fees of the others; None: one is not known.
        why_unknown: Why the others have no quote, or no fee, and how many.
    """

    group: str | None
    currency: str
    known: int
    fills: int
    slippage: float | None
    part_of_spread: float | None
    fees: float | None
    cost: float | None
    fees_without_quote: float | None
    why_unknown: str | None


def grouped_costs(fills: Iterable[FillCost], by: FillGrouping) -> list[GroupCost]:
    """Return what the fills of each group and currency cost; pure."""
    groups = grouped(attrgetter(by.value, "currency"), fills)
    costs = [_group_cost(*key, of_group) for key, of_group in groups.items()]
    return sorted(costs, key=lambda cost: (cost.group or "", cost.currency))


def _group_cost(group: str | None, currency: str, fills: Sequence[FillCost]) -> GroupCost:
    with_quote = [fill for fill in fills if fill.slippage is not None]
    without = [fill for fill in fills if fill.slippage is None]

    def summed(name: str) -> float | None:
        if with_quote:
            return known_sum(map(attrgetter(name), with_quote))
        return None

    slippage = summed("slippage")
    spread = summed("spread")
    part_of_spread = None
    if slippage is not None and spread:
        part_of_spread = slippage / spread

    reasons = Counter(map(attrgetter("why_unknown"), without))
    reasons.update("the fee is not known" for fill in fills if fill.fee is None)
    why_unknown = "; ".join(f"{count}: {why}" for why, count in reasons.most_common())
    return GroupCost(
        group=group,
        currency=currency,
        known=len(with_quote),
        fills=len(fills),
        slippage=slippage,
        part_of_spread=part_of_spread,
        fees=summed("fee"),
        cost=summed("cost"),
        fees_without_quote=known_sum(map(attrgetter("fee"), without)),
        why_unknown=why_unknown or None,
    )


def fill_cost(fill: FillCost, quote: Row) -> FillCost:
    """Return a fill with what it cost against the quote before it; pure.

    Args:
        fill: What was filled.
        quote: The row of the ledger before it, with `magnifier`; empty: there is none.
    """
    why = _why_unknown(fill, quote)
    if why is not None or fill.price is None:
        return replace(fill, why_unknown=why)

    bid = quote["bid"] / quote["magnifier"]
    ask = quote["ask"] / quote["magnifier"]
    mid = (bid + ask) / 2
    slippage = fill.quantity * (fill.price - mid) * quote["multiplier"]
    spread = abs(fill.quantity) * (ask - bid) * quote["multiplier"]
    part_of_spread = None
    if spread:
        part_of_spread = slippage / spread
    return replace(
        fill,
        bid=bid,
        ask=ask,
        mid=mid,
        quoted_at=quote["timestamp"],
        slippage=slippage,
        spread=spread,
        part_of_spread=part_of_spread,
        cost=known_sum([slippage, fill.fee]),
    )


def _why_unknown(fill: FillCost, quote: Row) -> str | None:
    """Return why it is not known what a fill cost; None: it is."""
    if fill.at is None or fill.price is None:
        return "its time, or its price, is not known"
    if not quote:
        return "no line had a quote right before it"
    if quote["value_source"] != ValueOrigin.TICK or None in (quote["bid"], quote["ask"]):
        return "its line was not trusted, or had no quote with two sides"
    if quote["market_data_type"] in FEEDS:
        return "its market data was delayed or frozen"
    if quote["bid"] > quote["ask"]:
        return "its quote was crossed"
    if not quote["magnifier"]:
        return "the unit of its quote is not known"
    return None


def combinations_as_one(fills: Sequence[FillCost]) -> list[FillCost]:
    """Return fills where those of a combination have a slippage only if each of its legs has; pure.

    How the broker divides the price of a combination among its legs says nothing.
    """
    incomplete: dict[str, str] = {}
    for order, of_order in grouped(attrgetter("order"), fills).items():
        without = [fill.contract for fill in of_order if fill.slippage is None]
        if without and len(set(map(attrgetter("conid"), of_order))) > 1:
            incomplete[order] = f"another leg of its order has no quote: {without[0]}"

    costs = []
    for fill in fills:
        why = incomplete.get(fill.order)
        if why is not None and fill.slippage is not None:
            fill = replace(fill, slippage=None, cost=None, part_of_spread=None, why_unknown=why)
        costs.append(fill)
    return costs


# ---- what is read


def read_fill_costs(
    lake: MoneyLake, settings: Settings, since: date | None = None
) -> list[FillCost]:
    """Read what each execution cost, in order of time; blocks.

    Args:
        since: The first trading day; None: any.
    """
    zone = time_zone_of(settings.calendar)
    first_day = since or date.min
    trades = [part for part in CampaignBook(lake).parts if part.is_trade and part.quantity]
    taken_back = cancelled_ids([part.movement for part in trades])
    fills = []
    for part in trades:
        if part.session < first_day or part.movement.movement_id in taken_back:
            continue

        fills.append(_fill(part, zone))

    is_streamed = (col.position != 0) & (col.source == Source.STREAM.value)
    magnifier = magnifier_in(quoted_in_cents(lake.contracts))
    moment_of = attrgetter("conid", "at")
    quotes = nearest_rows(
        lake,
        map(moment_of, fills),
        _QUOTED,
        is_streamed,
        before=OLDEST_QUOTE,
        magnifier=magnifier,
    )
    costs = [fill_cost(fill, quotes.get(moment_of(fill), {})) for fill in fills]
    costs.sort(key=lambda fill: (fill.day, fill.at or NEVER, fill.movement_id))
    return combinations_as_one(costs)


def _fill(part: Posting, zone: ZoneInfo) -> FillCost:
    movement = part.movement
    at = movement.at
    hour = None
    if at is not None:
        hour = f"{at.astimezone(zone):%H}:00"

    fee = part.fee
    # Of another currency, which is never added, or of one that is not known.
    if fee and movement.fee_currency != movement.currency:
        fee = None
    return FillCost(
        at=at,
        day=movement.session_date,
        hour=hour,
        account=movement.account,
        conid=part.conid,
        contract=name_of(movement),
        underlying=movement.symbol or "",
        sec_type=movement.sec_type,
        right=movement.right,
        strike=movement.strike,
        expiry=movement.expiry,
        strategy=part.owner,
        order=movement.order_id or movement.movement_id,
        movement_id=movement.movement_id,
        currency=movement.currency or "",
        quantity=part.quantity,
        price=movement.price,
        fee=fee,
        opens=part.opens,
    )


_QUOTED = ["conid", "source", "bid", "ask", "value_source", "market_data_type", *VALUED]
