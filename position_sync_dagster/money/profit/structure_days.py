"""How structures of no strategy stood at the closes of their days: by cash, and what was left.

The explained days are not divided among them, so that nothing says what they earned from.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from operator import attrgetter
from typing import Any

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


def stands_at(
    structure: TradedCampaign, currency: str | None, day: date, worth: Worth
) -> float | None:
    """Return what a structure had earned at the close of a day, since it began; pure."""
    until_then = [part for part in structure.parts if part.session <= day]
    left = left_of(part for part in until_then if part.currency == currency)
    account = structure.account
    values = [times(worth.get((account, conid, day)), left[conid]) for conid in left]
    return known_sum([money_of(until_then, currency).profit, *values])


def with_stands(campaign: ClosedCampaign, stands: Sequence[float | None]) -> ClosedCampaign:
    """Return a campaign with the worst and the best of its closes, or why it has none; pure."""
    known = [amount for amount in stands if amount is not None]
    if stands and len(known) == len(stands):
        return replace(campaign, worst=min(known), best=max(known))
    lacking = f"{len(stands) - len(known)} of its {len(stands)} days have no recorded value"
    return because(campaign, f"worst, best: {lacking}")


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
    stood: dict[Any, Sequence[float | None]] = {
        _SAME(row): (row.worst, row.best) for row in recorded if row.worst is not None
    }
    structure_of = {structure.campaign_id: structure for structure in structures}
    new = [
        row
        for row in campaigns
        if row.strategy_id == UNATTRIBUTED and row.opened and _SAME(row) not in stood
    ]
    conids = {conid for row in new for conid in structure_of[row.campaign_id].conids}
    first = min(filter(None, map(attrgetter("opened"), new)), default=date.max)
    worth = _read_worth(lake, settings, conids, first)
    exchange = exchange_of(settings.calendar)

    def completed(row: ClosedCampaign) -> ClosedCampaign:
        if row.strategy_id != UNATTRIBUTED or row.opened is None:
            return row
        stands = stood.get(_SAME(row))
        if stands is None:
            structure = structure_of[row.campaign_id]
            days = exchange.trading_days(row.opened, row.closed)
            stands = [stands_at(structure, row.currency, day, worth) for day in days]
        return with_stands(row, stands)

    return list(map(completed, campaigns))


def _read_worth(lake: MoneyLake, settings: Settings, conids: set[int], since: date) -> Worth:
    """Read what contracts were worth at the closes since a day."""
    chosen = col("partition.session_date") >= since
    rows = derived_rows(lake.derived_table(DAILY_POSITIONS), one_of("conid", conids), chosen)
    rows = rows_to_explain(lake, settings, rows).filter(col.position != 0)
    worth = rows.select("account", "conid", "session_date", col.market_value / col.position)
    return {row[:3]: row[3] for row in worth.iter_rows()}
