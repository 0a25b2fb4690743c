"""How structures of no strategy stood at the closes of their days: by cash, and what was left.

The explained days are not divided among them, so that nothing says what they earned from.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta

from polars import col

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.leg import UNATTRIBUTED
from position_sync_dagster.lake.schema import DAILY_POSITIONS, one_of
from position_sync_dagster.money.campaigns.campaigns import TradedCampaign, left_of, money_of
from position_sync_dagster.money.campaigns.closed_campaign import ClosedCampaign
from position_sync_dagster.money.lake import MoneyLake, derived_rows
from position_sync_dagster.money.magnifiers import VALUED
from position_sync_dagster.money.past.movements import known_sum, times
from position_sync_dagster.money.past.structures import is_between_accounts
from position_sync_dagster.money.profit.profit import rows_to_explain
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.exchange_days import exchange_of

# What a contract or share was worth, by account, conid and trading day; null is unknown.
Worth = Mapping[tuple[str, int, date], float | None]

# The marks of a day may be corrected for so long: `LATE_DAYS` of `defs/closing.py`, and a weekend.
CORRECTED_WITHIN = timedelta(days=14)

_COLUMNS = ("account", "conid", "session_date", "closed_at", "age_s", *VALUED)


def stands_at(
    structure: TradedCampaign, currency: str | None, day: date, worth: Worth
) -> float | None:
    """Return what a structure had earned at the close of a day, since it began; pure."""
    if is_between_accounts(structure.parts, day):
        return None

    until_then = [part for part in structure.parts if part.session <= day]
    left = left_of(part for part in until_then if part.currency == currency)
    values = []
    for conid, quantity in left.items():
        worths = (worth.get((account, conid, day)) for account in structure.accounts)
        known = (of_one for of_one in worths if of_one is not None)
        values.append(times(next(known, None), quantity))
    return known_sum([*values, money_of(until_then, currency).profit])


def with_stands(
    campaign: ClosedCampaign, structure: TradedCampaign, days: Iterable[date], worth: Worth
) -> ClosedCampaign:
    """Return a campaign with the worst and the best of its closes, or why it has none; pure."""
    stands = [stands_at(structure, campaign.currency, day, worth) for day in days]
    known = [amount for amount in stands if amount is not None]
    if stands and len(known) == len(stands):
        return replace(campaign, worst=min(known), best=max(known))
    lacking = len(stands) - len(known)
    return campaign.because(
        f"worst, best: {lacking} of its {len(stands)} days have no recorded value"
    )


def read_structure_days(
    lake: MoneyLake,
    settings: Settings,
    structures: Iterable[TradedCampaign],
    campaigns: Sequence[ClosedCampaign],
) -> list[ClosedCampaign]:
    """Return campaigns; those of no strategy with how they stood, if their closes say it; blocks.

    Args:
        structures: All campaigns that are over, also those of strategies.
        campaigns: Their rows. What is known of those that closed long ago is not read again.
    """
    structure_of = {structure.campaign_id: structure for structure in structures}
    corrected_since = utc_now().date() - CORRECTED_WITHIN
    opened = {
        row.campaign_id: row.opened
        for row in campaigns
        if row.strategy_id == UNATTRIBUTED
        and row.opened
        and row.profit is not None
        and not (_is_whole(row) and row.closed < corrected_since)
    }
    conids = {conid for name in opened for conid in structure_of[name].conids}
    first = min(opened.values(), default=date.max)
    worth = _read_worth(lake, settings, conids, first)
    exchange = exchange_of(settings.calendar)

    def completed(row: ClosedCampaign) -> ClosedCampaign:
        if row.strategy_id != UNATTRIBUTED:
            return row
        if row.profit is None:
            return row.because("worst, best: its profit is not known")
        since = opened.get(row.campaign_id)
        if since is None:
            return row
        structure = structure_of[row.campaign_id]
        # What is paid after its end is in its profit too.
        last = max(part.session for part in structure.parts)
        unknown = replace(row, worst=None, best=None)
        return with_stands(unknown, structure, exchange.trading_days(since, last), worth)

    return list(map(completed, campaigns))


def _is_whole(row: ClosedCampaign) -> bool:
    """Return whether the recorded path of a campaign leads to its profit, which it ends with."""
    if row.worst is None or row.profit is None or row.best is None:
        return False
    return row.worst <= row.profit <= row.best


def _read_worth(lake: MoneyLake, settings: Settings, conids: set[int], since: date) -> Worth:
    """Read what contracts were worth at the closes since a day."""
    chosen = col("partition.session_date") >= since
    table = lake.derived_table(DAILY_POSITIONS)
    rows = derived_rows(table, one_of("conid", conids), chosen, _COLUMNS)
    rows = rows_to_explain(lake, settings, rows).filter(col.position != 0)
    rows = rows.select("account", "conid", "session_date", col.market_value / col.position)
    return {row[:3]: row[3] for row in rows.iter_rows()}
