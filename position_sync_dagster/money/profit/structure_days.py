"""How structures of no strategy stood at the closes of their days: by cash, and what was left.

The explained days are not divided among them, so that nothing says what they earned from.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from operator import attrgetter

from polars import col

from position_sync_dagster.domain.leg import UNATTRIBUTED
from position_sync_dagster.lake.schema import DAILY_POSITIONS, one_of
from position_sync_dagster.money.campaigns.campaign_days import because
from position_sync_dagster.money.campaigns.campaigns import TradedCampaign, left_of, money_of
from position_sync_dagster.money.campaigns.closed_campaign import ClosedCampaign
from position_sync_dagster.money.lake import MoneyLake, derived_rows
from position_sync_dagster.money.past.movements import known_sum, times
from position_sync_dagster.money.profit.profit import rows_to_explain
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.exchange_days import exchange_of

# What a contract or share was worth, by account, conid and trading day; null is unknown.
Worth = Mapping[tuple[str, int, date], float | None]

# What is the same as long as a structure is.
_SAME = attrgetter("campaign_id", "currency", "closed", "profit")


def stands_of(
    structure: TradedCampaign, currency: str | None, days: Iterable[date], worth: Worth
) -> list[float | None]:
    """Return what a structure had earned at the closes of days, since it began; pure."""
    stands = []
    for day in days:
        until_then = [part for part in structure.parts if part.session <= day]
        left = left_of(part for part in until_then if part.currency == currency)
        values = [
            times(worth.get((structure.account, conid, day)), quantity)
            for conid, quantity in left.items()
        ]
        stands.append(known_sum([money_of(until_then, currency).profit, *values]))
    return stands


def with_stands(campaign: ClosedCampaign, stands: Sequence[float | None]) -> ClosedCampaign:
    """Return a campaign with the worst and the best of its closes, or why it has none; pure."""
    known = [amount for amount in stands if amount is not None]
    if stands and len(known) == len(stands):
        return replace(campaign, worst=min(known), best=max(known))

    why = f"{len(stands) - len(known)} of its {len(stands)} days have no recorded value"
    if campaign.opened is None:
        why = "it was held before all movements"
    elif campaign.profit is None:
        why = "its profit is not known"
    return because(campaign, f"worst, best: {why}")


def read_structure_days(
    lake: MoneyLake,
    settings: Settings,
    structures: Iterable[TradedCampaign],
    campaigns: Sequence[ClosedCampaign],
    recorded: Iterable[ClosedCampaign],
) -> list[ClosedCampaign]:
    """Return campaigns; those of no strategy with how they stood, if their closes say it; blocks.

    Args:
        structures: All campaigns that are over, also those of strategies.
        campaigns: Their rows.
        recorded: Those of before: what is known of them is not read again.
    """
    known = {_SAME(row): row for row in recorded if row.worst is not None}
    new = [
        row
        for row in campaigns
        if row.strategy_id == UNATTRIBUTED and row.opened and _SAME(row) not in known
    ]
    by_id = {structure.campaign_id: structure for structure in structures}
    conids = {conid for row in new for conid in by_id[row.campaign_id].conids}
    first = min(filter(None, map(attrgetter("opened"), new)), default=date.max)
    worth = _read_worth(lake, settings, conids, first)
    exchange = exchange_of(settings.calendar)

    def completed(row: ClosedCampaign) -> ClosedCampaign:
        if row.strategy_id != UNATTRIBUTED:
            return row
        before = known.get(_SAME(row))
        if before is not None:
            return with_stands(row, [before.worst, before.best])
        days = exchange.trading_days(row.opened, row.closed) if row.opened else ()
        return with_stands(row, stands_of(by_id[row.campaign_id], row.currency, days, worth))

    return [completed(row) for row in campaigns]


def _read_worth(lake: MoneyLake, settings: Settings, conids: set[int], since: date) -> Worth:
    """Read what contracts were worth at the closes since a day."""
    if not conids:
        return {}
    table = lake.derived_table(DAILY_POSITIONS)
    rows = derived_rows(table, one_of("conid", conids), col("partition.session_date") >= since)
    rows = rows_to_explain(lake, settings, rows).filter(col.position != 0)
    worth = rows.select("account", "conid", "session_date", col.market_value / col.position)
    return {row[:3]: row[3] for row in worth.iter_rows()}
