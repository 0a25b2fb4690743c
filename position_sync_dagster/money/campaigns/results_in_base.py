"""Results over currencies: each campaign by the rates of the day on which it closed."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from operator import attrgetter
from typing import Any, NamedTuple

from polars import col

from position_sync_dagster.domain.holding import grouped
from position_sync_dagster.money.campaigns.closed_campaign import ClosedCampaign
from position_sync_dagster.money.campaigns.results import (
    GROUP_OF,
    Grouping,
    GroupResult,
    results_of,
)
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past.closes import EventKind
from position_sync_dagster.money.sums import in_base


class DayRates(NamedTuple):
    """The base currency of each account, and what currencies were worth in it, by account, day."""

    bases: Mapping[str, str]
    of_day: Mapping[tuple[str, date], Mapping[str, float]]


def results_in_base(
    campaigns: Sequence[ClosedCampaign], by: Grouping, rates: DayRates
) -> list[GroupResult]:
    """Return the results of groups with a currency besides the base one, in that; pure."""
    by_campaign = grouped(attrgetter("campaign_id"), campaigns)
    converted = [_in_base(rows, rates) for rows in by_campaign.values()]
    by_group = grouped(GROUP_OF[by], [*campaigns, *converted])
    return [
        result
        for result in results_of(converted, by)
        if len({each.currency for each in by_group[result.group]} - {None}) > 1
    ]


def _in_base(rows: Sequence[ClosedCampaign], rates: DayRates) -> ClosedCampaign:
    """Return a campaign, which has a row for each currency, in the base one of its accounts.

    Each of these has its rates of the day: where nothing was left, the other one may have them.
    """
    first = rows[0]
    bases = sorted(filter(None, {*map(rates.bases.get, first.accounts)}))
    of_day: dict[str, float] = {}
    base = None
    if len(bases) == 1:
        [base] = bases
        for account in reversed(first.accounts):
            of_day |= rates.of_day.get((account, first.closed), {})
        of_day[base] = 1.0

    amounts: dict[str, Any] = {}
    reasons: dict[str, str | None] = {}
    for name in ("profit", "fees", "capital_at_risk", "worst"):
        rated = [(getattr(row, name), row.currency, of_day.get(row.currency or "")) for row in rows]
        amounts[name], reasons[name] = in_base(rated)

    if len(rows) > 1:
        amounts["worst"] = None  # each currency may have been at its worst on another day

    unknown = [row.profit_unknown for row in rows if row.profit_unknown]
    if len(bases) > 1:
        unknown = [f"its accounts have different base currencies: {', '.join(bases)}"]
    elif reasons["profit"] and not unknown:
        unknown = [f"{reasons['profit']} for {first.closed}"]
    return replace(first, currency=base, profit_unknown="; ".join(unknown) or None, **amounts)


def read_day_rates(lake: MoneyLake, campaigns: Sequence[ClosedCampaign]) -> DayRates:
    """Read the rates of the days on which campaigns closed in another currency; blocks.

    The rates of a statement count before those that the broker sent on the day.
    """
    newest = lake.account_values.latest().drop_nulls("currency")
    bases = dict(newest.select("account", "currency").iter_rows())
    days = sorted(
        {row.closed for row in campaigns if {row.currency} != {*map(bases.get, row.accounts)}}
    )
    if not days:
        return DayRates(bases, {})

    is_rate = (col.kind == EventKind.RATE.value) & col.day.is_in(days)
    stated = lake.statement_events.rows(days[0], is_rate).sort("stated_at", nulls_last=False)
    stated = stated.select("account", "day", "type", "currency", "amount").drop_nulls()
    of_day: defaultdict[tuple[str, date], dict[str, float]] = defaultdict(dict)
    for account, day, base, currency, rate in (*_sent_rates(lake, days), *stated.iter_rows()):
        if base == bases.setdefault(account, base):
            of_day[account, day][currency] = rate
    return DayRates(bases, of_day)


def _sent_rates(lake: MoneyLake, days: Sequence[date]) -> Iterator[tuple[Any, ...]]:
    """Yield the last rates that the broker sent of each account on days (UTC).

    They are account, date, base currency, currency and rate.
    """
    has_rates = col.currency.is_not_null() & col.exchange_rates.is_not_null()
    of_days = col("partition.date").is_in(days)
    rows = lake.account_values.table.rows(has_rates & col.date.is_in(days), of_days)
    newest = col("currency", "exchange_rates").sort_by("timestamp").last()
    newest_of_days = rows.group_by("account", "date").agg(newest)
    for account, day, base, rates in newest_of_days.iter_rows():
        for currency, rate in json.loads(rates).items():
            yield account, day, base, currency, rate
