"""What strategies have earned so far, and what their last campaigns promised; pure.

It is what their parts of movements brought, and the value of what is left of them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from operator import attrgetter
from typing import NamedTuple

from polars import DataFrame, Float64, Int64, String, coalesce, col, concat, when

from position_sync_dagster.domain.holding import KEY, QUANTITY_ROUNDING, Key, grouped
from position_sync_dagster.domain.instrument import ContractDetails
from position_sync_dagster.domain.leg import UNATTRIBUTED
from position_sync_dagster.money.campaigns.campaigns import (
    AsOpened,
    Contracts,
    TradedCampaign,
    as_opened,
    cost_per_share,
    last_campaigns,
    open_campaigns,
)
from position_sync_dagster.money.campaigns.closed_campaigns import contract_of
from position_sync_dagster.money.past.booking import EdgeKind, Share, booked, of_owner
from position_sync_dagster.money.past.movements import Movement, known_sum, times
from position_sync_dagster.money.past.postings import Posting


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveMoney:
    """What the postings of one strategy and currency brought; None: not known.

    Attributes:
        realised: The profit of what is closed, and income, after fees, also those for contracts of
            other currencies.
        closes: How often something was closed.
        closes_without_profit: Of how many of these the profit is not known.
        since: When the first of them was; None: there are none.
        fees: All fees in the currency.
        other_fees: Those of its contracts in a currency of none, which are in no profit.
        lots: What is left of each contract, at its average cost.
    """

    realised: float | None = 0.0
    closes: int = 0
    closes_without_profit: int = 0
    since: datetime | None = None
    fees: float | None = 0.0
    other_fees: Mapping[str, float | None] = field(default_factory=dict)
    lots: Mapping[Key, Share] = field(default_factory=dict)


# A strategy and a currency.
StrategyKey = tuple[str, str | None]


def live_money(postings: Iterable[Posting]) -> dict[StrategyKey, LiveMoney]:
    """Return what each strategy has earned in each currency, by average cost.

    Args:
        postings: Of all movements of their contracts.
    """
    of_strategies = [posting for posting in postings if posting.owner != UNATTRIBUTED]
    booking = booked(of_strategies, of_owner, is_pooled=True)
    edges_of = grouped(attrgetter("by.posting.owner", "by.posting.currency"), booking.edges)
    held = chain.from_iterable(booking.held.values())
    held_of = grouped(attrgetter("posting.owner", "posting.currency"), held)

    money = {}
    for owner, of_strategy in grouped(attrgetter("owner"), of_strategies).items():
        by_currency = grouped(attrgetter("currency"), of_strategy)
        for currency, of_currency in by_currency.items():
            others = (posting for posting in of_strategy if posting.currency != currency)
            fees = known_sum(posting.fee_in(currency) for posting in of_currency)
            fees_of_others = known_sum(posting.fee_in(currency) for posting in others)
            elsewhere = grouped(attrgetter("charged_elsewhere"), of_currency)

            edges = edges_of[owner, currency]
            closing = [edge for edge in edges if edge.kind is EdgeKind.CLOSES]
            money[owner, currency] = LiveMoney(
                realised=known_sum([*(edge.gain for edge in edges), times(fees_of_others, -1.0)]),
                closes=len(closing),
                closes_without_profit=sum(edge.gain is None for edge in closing),
                since=min(posting.at for posting in of_currency),
                fees=known_sum([fees, fees_of_others]),
                other_fees={
                    charged_in: known_sum(posting.fee for posting in charged)
                    for charged_in, charged in elsewhere.items()
                    if charged_in is not None and charged_in not in by_currency
                },
                lots={share.key: share for share in held_of[owner, currency]},
            )
    return money


def open_profits(
    lots: DataFrame, holdings: DataFrame, priced: DataFrame
) -> dict[StrategyKey, float | None]:
    """Return what is open of each strategy in each currency would earn; None: not known.

    Args:
        lots: What is left of their movements (`lot_rows`).
        holdings: Their parts of holdings: account, conid, position, share and unrealized_pnl.
        priced: All holdings: account, conid, position and market_value.
    """
    own = holdings.select(*_LOT, own=col.position * col.share, unrealized=col.unrealized_pnl)
    held = coalesce("own", "position", 0.0)  # a holding without a row is not held
    rows = lots.join(own, on=_LOT, how="left")
    rows = rows.join(priced.select(*KEY, "position", "market_value"), on=KEY, how="left")

    gained = col.quantity * col.market_value / col.position - col.cost
    # A trade that no movement names yet; the broker has its cost.
    is_another = (col.own - col.quantity).abs() >= QUANTITY_ROUNDING
    is_of_broker = col.own.is_not_null() & (is_another | col.cost.is_null())
    of_lots = rows.select(
        *_OF_STRATEGY,
        amount=when(is_of_broker).then("unrealized").otherwise(gained),
        is_less=held / col.quantity < 1 - QUANTITY_ROUNDING,
    )

    # Of what no movement explains the broker says it.
    without_movements = own.join(lots, on=_LOT, how="anti")
    of_broker = without_movements.select(*_OF_STRATEGY, amount="unrealized", is_less=False)
    amounts = concat([of_lots, of_broker]).group_by(_OF_STRATEGY)
    return {
        (strategy, currency): None if is_less else known_sum(profits)
        for strategy, currency, profits, is_less in amounts.agg("amount", col.is_less.any()).rows()
    }


def lot_rows(money: Mapping[StrategyKey, "StrategyMoney"]) -> DataFrame:
    """Return what is left of the contracts of strategies, in rows."""
    rows = [
        (*of_strategy, *key, lot.quantity, times(lot.cash, -1.0))
        for of_strategy, amounts in money.items()
        for key, lot in amounts.earned.lots.items()
    ]
    return DataFrame(rows, _LOTS, orient="row")


# What is left of contracts, in columns.
_OF_STRATEGY = ("strategy_id", "currency")
_LOT = (*_OF_STRATEGY, *KEY)
_LOTS = {
    "strategy_id": String, "currency": String, "account": String, "conid": Int64,
    "quantity": Float64, "cost": Float64,
}  # fmt: skip


class LatestCampaign(NamedTuple):
    """The last campaign of a strategy in one currency.

    Attributes:
        is_open: Whether something of it is held still.
        realised: The profit of what is closed of it, after fees; None: not known.
    """

    entry: AsOpened
    is_open: bool
    realised: float | None


class StrategyMoney(NamedTuple):
    """What the movements of a strategy say of its money in one currency.

    Attributes:
        earned: What it has earned in all its campaigns.
        cost_per_share: What its shares cost with all that its open campaigns brought; None: it has
            none, or that is not known.
        latest: Its last campaign; None: it has none in the currency.
    """

    earned: LiveMoney = LiveMoney()
    cost_per_share: float | None = None
    latest: LatestCampaign | None = None


MoneyByCurrency = Mapping[str | None, StrategyMoney]

# What the money of a strategy follows from: its parts, and for each contract of its last campaign
# the movements of all that had it, and its details.
_Sources = tuple[Sequence[Posting], Mapping[int, tuple[Sequence[Movement], ContractDetails | None]]]

# The money of strategies as it was computed last, and from what.
Remembered = dict[str, tuple[_Sources, MoneyByCurrency]]


def money_of_strategies(
    parts: Sequence[Posting], details: Mapping[int, ContractDetails], remembered: Remembered
) -> dict[StrategyKey, StrategyMoney]:
    """Return the money of each strategy in each currency.

    A change concerns few strategies of a book: only their money is computed again.

    Args:
        parts: All parts of movements of their contracts, in order of time.
        details: The details of the contracts of their last campaigns.
        remembered: What was computed before; it is brought up to date.
    """
    movements_of = grouped(attrgetter("conid"), (part.movement for part in parts))
    campaigns = last_campaigns(parts)
    money: dict[StrategyKey, StrategyMoney] = {}
    parts_of = grouped(attrgetter("owner"), parts)
    parts_of.pop(UNATTRIBUTED, None)

    for gone in remembered.keys() - parts_of.keys():
        remembered.pop(gone, None)

    for strategy, owned in parts_of.items():
        campaign = campaigns.get(strategy)
        conids = campaign.conids if campaign else ()
        of_contracts = {conid: (movements_of[conid], details.get(conid)) for conid in conids}
        sources = (owned, of_contracts)

        computed_from, by_currency = remembered.get(strategy, (None, {}))
        if computed_from != sources:
            contracts = {conid: contract_of(*stated) for conid, stated in of_contracts.items()}
            by_currency = _money_of_strategy(owned, campaign, contracts)
            remembered[strategy] = (sources, by_currency)
        money |= {(strategy, currency): amounts for currency, amounts in by_currency.items()}
    return money


def _money_of_strategy(
    parts: Sequence[Posting], campaign: TradedCampaign | None, contracts: Contracts
) -> MoneyByCurrency:
    """Return the money of a strategy in each currency."""
    # Options alone have no cost per share.
    has_shares = any(part.quantity and not part.is_option for part in parts)
    current = open_campaigns(parts) if has_shares else []
    of_open = chain.from_iterable(of_account.parts for of_account in current)
    open_parts = grouped(attrgetter("currency"), of_open)

    earned_ever = live_money(parts)
    earned_lately = earned_ever
    if campaign is None or len(campaign.parts) < len(parts):
        earned_lately = live_money(campaign.parts if campaign else ())
    money = {}
    for (strategy, currency), earned in earned_ever.items():
        lately = earned_lately.get((strategy, currency))
        latest = None
        if campaign and lately:
            latest = LatestCampaign(
                as_opened(campaign, contracts, currency), campaign.is_open, lately.realised
            )
        cost, _why = cost_per_share(open_parts[currency])
        money[currency] = StrategyMoney(earned, cost, latest)
    return money
