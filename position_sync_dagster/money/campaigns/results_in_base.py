"""Results over currencies: each campaign by the rates of the day on which it closed."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

from polars import col

from position_sync_dagster.domain.holding import grouped
from position_sync_dagster.money.base_currency import Rates, in_base
from position_sync_dagster.money.campaigns.closed_campaign import ClosedCampaign
from position_sync_dagster.money.campaigns.results import (
    GROUP_OF,
    Grouping,
    GroupResult,
    results_of,
)
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past.closes import EventKind


@dataclass(frozen=True, slots=True, kw_only=True)
class DayRates:
    """The rates that are kept.

    Attributes:
        bases: The base currency of each account.
        of_day: What a unit of each currency was worth in it at the end of a day, by account and
            day.
    """

    bases: Mapping[str, str] = field(default_factory=dict)
    of_day: Mapping[tuple[str, date], Rates] = field(default_factory=dict)


def results_in_base(
    campaigns: Sequence[ClosedCampaign], by: Grouping, rates: DayRates
) -> list[GroupResult]:
    """Return the results of groups with a currency besides the base one, in that; pure."""
    group_of = GROUP_OF[by]
    converted = _in_base(campaigns, rates)
    currencies = defaultdict(set)
    for campaign in [*campaigns, *converted]:
        currencies[group_of(campaign)].add(campaign.currency)

    several = {group for group, named in currencies.items() if len(named - {None}) > 1}
    return [result for result in results_of(converted, by) if result.group in several]


# The amounts of a campaign that results are made of.
_AMOUNTS = ("profit", "fees", "capital_at_risk")


def _in_base(campaigns: Sequence[ClosedCampaign], rates: DayRates) -> list[ClosedCampaign]:
    """Return campaigns with one row each, in the base currency of the account."""
    converted = []
    for rows in grouped(lambda campaign: campaign.campaign_id, campaigns).values():
        first = rows[0]
        base = rates.bases.get(first.account)
        of_day = dict(rates.of_day.get((first.account, first.closed), {}))
        if base is not None:
            of_day[base] = 1.0

        changes: dict[str, Any] = {"currency": base}
        reasons = {}
        for name in _AMOUNTS:
            amounts = [(getattr(row, name), row.currency) for row in rows]
            changes[name], reasons[name] = in_base(amounts, of_day)

        unknown = [row.profit_unknown for row in rows if row.profit_unknown]
        if reasons["profit"] and not unknown:
            unknown = [f"{reasons['profit']} for {first.closed}"]
        changes["profit_unknown"] = "; ".join(unknown) or None
        converted.append(replace(first, **changes))
    return converted


def read_day_rates(lake: MoneyLake, campaigns: Sequence[ClosedCampaign]) -> DayRates:
    """Read the rates of the days on which campaigns closed in another currency; blocks.

    The rates of a statement count before those that the broker sent on the day.
    """
    newest = lake.account_values.latest().drop_nulls("currency")
    bases = dict(newest.select("account", "currency").iter_rows())
    days = sorted({row.closed for row in campaigns if row.currency != bases.get(row.account)})
    if not days:
        return DayRates(bases=bases)

    of_day: dict[tuple[str, date], dict[str, float]] = {}
    for account, day, base, sent in lake.account_values.rates_on(days).iter_rows():
        if base == bases.setdefault(account, base):
            of_day[account, day] = json.loads(sent)

    is_rate = (col.kind == EventKind.RATE.value) & col.day.is_in(days)
    stated = lake.statement_events.rows(days[0], is_rate).sort("stated_at", nulls_last=False)
    stated = stated.select("account", "day", "type", "currency", "amount").drop_nulls()
    for account, day, base, currency, rate in stated.iter_rows():
        if base == bases.setdefault(account, base):
            of_day.setdefault((account, day), {})[currency] = rate
    return DayRates(bases=bases, of_day=of_day)
