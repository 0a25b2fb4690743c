"""How campaigns stood at the ends of their days, and what they earned from.

Both are sums of columns of `profit_explained` over the trading days of a campaign. They are told
where these add up to its profit: then the days are its own, and none of them is missing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import accumulate
from typing import Any

import polars as pl

from position_sync_dagster.domain.leg import UNATTRIBUTED
from position_sync_dagster.money.campaigns.closed_campaign import ClosedCampaign
from position_sync_dagster.money.lake import MoneyLake, derived_rows
from position_sync_dagster.money.past.movements import known_sum
from position_sync_dagster.money.tables import PROFIT_EXPLAINED
from position_sync_dagster.sync.exchange_days import exchange_days

# What the change of the prices brought, by its causes.
CAUSES = ("delta", "gamma", "vega", "theta", "repricing")

# More than this is no rounding of a sum of money.
HALF_A_CENT = 0.005


@dataclass(frozen=True, slots=True)
class ExplainedDays:
    """What is recorded of the profits of trading days.

    Attributes:
        sessions: The trading days of the exchange, in order.
        recorded: Those of each account that are recorded.
        rows: The rows of each strategy, account and currency, in order of day.
    """

    sessions: Sequence[date]
    recorded: Mapping[str, set[date]]
    rows: Mapping[tuple[str, str, str | None], Sequence[Mapping[str, Any]]]

    @classmethod
    def of(cls, explained: pl.DataFrame, sessions: Sequence[date]) -> "ExplainedDays":
        """Return what rows of `profit_explained` say."""
        by_account = explained.rows_by_key("account", named=True)
        owner = ("strategy_id", "account", "currency")
        rows = explained.sort("session_date").rows_by_key(owner, named=True, include_key=True)
        recorded = {
            account: {row["session_date"] for row in of_account}
            for account, of_account in by_account.items()
        }
        return cls(sessions, recorded, rows)


def with_days(campaign: ClosedCampaign, days: ExplainedDays) -> ClosedCampaign:
    """Return a campaign with how it stood and what it earned from; pure."""
    opened = campaign.opened
    if opened is None:
        return _without(campaign, "it was held before all movements")
    if campaign.strategy_id == UNATTRIBUTED:
        return _without(campaign, "the days of what is in no strategy are not divided")
    if campaign.profit is None:
        return _without(campaign, "its profit is not known")

    owner = (campaign.strategy_id, campaign.account, campaign.currency)
    rows = [
        row for row in days.rows.get(owner, ()) if opened <= row["session_date"] <= campaign.closed
    ]
    sessions = [day for day in days.sessions if opened <= day <= campaign.closed]
    lacking = set(sessions) - days.recorded.get(campaign.account, set())
    lacking |= {row["session_date"] for row in rows if row["profit"] is None}
    if lacking:
        return _without(
            campaign, f"{len(lacking)} of its {len(sessions)} days have no recorded profit"
        )

    path = [*accumulate((row["profit"] for row in rows), initial=0.0)]
    if abs(path[-1] - campaign.profit) > HALF_A_CENT:
        return _without(campaign, f"its days add up to {path[-1]:.2f}, which is not its profit")

    ends = path[1:] or path
    causes: dict[str, Any] = {name: known_sum(row[name] for row in rows) for name in CAUSES}
    told = replace(campaign, worst=min(ends), best=max(ends), **causes)
    unknown = [name for name, amount in causes.items() if amount is None]
    if not unknown:
        return told
    without = sum(None in (row[name] for name in CAUSES) for row in rows)
    why = f"{without} of its {len(sessions)} days have no recorded greeks"
    return _because(told, f"{', '.join(unknown)}: {why}")


def _without(campaign: ClosedCampaign, why: str) -> ClosedCampaign:
    return _because(campaign, f"worst, best, {', '.join(CAUSES)}: {why}")


def _because(campaign: ClosedCampaign, reason: str) -> ClosedCampaign:
    reasons = filter(None, [campaign.why_unknown, reason])
    return replace(campaign, why_unknown="; ".join(reasons))


def read_days_of(
    lake: MoneyLake, calendar: str, campaigns: Sequence[ClosedCampaign]
) -> list[ClosedCampaign]:
    """Return campaigns with what is recorded of their days; blocks.

    Args:
        calendar: The exchange whose trading days count.
    """
    if not campaigns:
        return []

    columns = ["session_date", "strategy_id", "account", "currency", "profit", *CAUSES]
    explained = derived_rows(lake.derived_table(PROFIT_EXPLAINED), columns=columns)
    first = min(campaign.opened or campaign.closed for campaign in campaigns)
    last = max(campaign.closed for campaign in campaigns)
    sessions = exchange_days(calendar, first, last).trading_days(first, last)
    days = ExplainedDays.of(explained, sessions)
    return [with_days(campaign, days) for campaign in campaigns]
