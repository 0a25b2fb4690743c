"""The results of campaigns that are over, by group: formulas over `closed_campaigns`.

A currency is never added to another here (`results_in_base` does). Where the profit of a campaign
is not known, no sum of its group is.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from enum import StrEnum
from math import fsum
from operator import attrgetter
from statistics import median
from typing import Annotated, Any

from polars import col
from pydantic import Field

from position_sync_dagster.domain.holding import grouped
from position_sync_dagster.lake.schema import records_of
from position_sync_dagster.money.campaigns.closed_campaign import ClosedCampaign
from position_sync_dagster.money.lake import MoneyLake, derived_rows
from position_sync_dagster.money.past.movements import first_reasons, known_sum
from position_sync_dagster.money.sums import sum_if_known
from position_sync_dagster.money.tables import CLOSED_CAMPAIGNS, PROFIT_EXPLAINED


class Grouping(StrEnum):
    """By what campaigns are grouped; the month is that of the close."""

    KIND = "kind"
    UNDERLYING = "underlying"
    STRATEGY = "strategy"
    MONTH = "month"


GROUP_OF: dict[Grouping, Callable[[ClosedCampaign], str | None]] = {
    Grouping.KIND: lambda campaign: campaign.kind,
    Grouping.UNDERLYING: lambda campaign: campaign.underlying,
    Grouping.STRATEGY: lambda campaign: campaign.strategy_id,
    Grouping.MONTH: lambda campaign: f"{campaign.closed:%Y-%m}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupResult:
    """The result of a group of campaigns in one currency.

    Attributes:
        group: Its name; None: of campaigns whose kind is not known.
        currency: Currency of the money.
        number: The campaigns.
        wins: Those with a profit above 0.
        win_rate: Wins as a part of all, 0 to 1.
        profit: Their profit after fees.
        fees: Their fees; positive was paid.
        average_win: The average profit of those above 0; None: there is none.
        average_loss: The average profit of those below 0, negative; None: there is none.
        expectancy: The average profit of all.
        profit_factor: Profits of wins for each unit that was lost; None: nothing was lost.
        return_on_risk: Profit as a part of the capital at risk of all; `return` in JSON.
        drawdown: How far their realised profit fell below its highest, at the end of a day.
        wins_with_days: How many of the wins have recorded days: the next two are of these.
        median_worst_of_wins: How those that won stood at the end of their worst day: the middle
            one of them; above 0 it was never down. None: of none it is known.
        worst_of_wins: How the one of them stood that had been down most.
        unknown: The campaigns whose profit is not known: then no number of money is.
        why_unknown: What is not known.
    """

    group: str | None
    currency: str | None
    number: int
    wins: int | None = None
    win_rate: float | None = None
    profit: float | None = None
    fees: float | None
    average_win: float | None = None
    average_loss: float | None = None
    expectancy: float | None = None
    profit_factor: float | None = None
    return_on_risk: Annotated[float | None, Field(serialization_alias="return")] = None
    drawdown: float | None = None
    wins_with_days: int | None = None
    median_worst_of_wins: float | None = None
    worst_of_wins: float | None = None
    unknown: int
    why_unknown: str | None

    @property
    def row(self) -> dict[str, Any]:
        """The result for a program."""
        row = asdict(self)
        row["return"] = row.pop("return_on_risk")
        return row


def results_of(campaigns: Iterable[ClosedCampaign], by: Grouping) -> list[GroupResult]:
    """Return the result of each group and currency; pure."""
    group_of = GROUP_OF[by]
    groups = grouped(lambda campaign: (group_of(campaign), campaign.currency), campaigns)
    results = [_result(*key, of_group) for key, of_group in groups.items()]
    return sorted(
        results,
        key=lambda result: (result.group is None, result.group or "", result.currency or ""),
    )


def _result(
    group: str | None, currency: str | None, campaigns: Sequence[ClosedCampaign]
) -> GroupResult:
    number = len(campaigns)
    fees = known_sum(campaign.fees for campaign in campaigns)
    known = [campaign.profit for campaign in campaigns if campaign.profit is not None]
    result = GroupResult(
        group=group,
        currency=currency,
        number=number,
        fees=fees,
        unknown=number - len(known),
        why_unknown=None,
    )
    if result.unknown:
        reasons = [
            f"{campaign.campaign_id}: {campaign.profit_unknown}"
            for campaign in campaigns
            if campaign.profit_unknown
        ]
        return replace(result, why_unknown=first_reasons(reasons))

    wins = [profit for profit in known if profit > 0]
    losses = [profit for profit in known if profit < 0]
    worst_of_wins = [
        campaign.worst
        for campaign in campaigns
        if campaign.worst is not None and (campaign.profit or 0.0) > 0  # all are known
    ]
    won = fsum(wins)
    lost = -fsum(losses)
    profit = fsum(known)
    at_risk = known_sum(campaign.capital_at_risk for campaign in campaigns)
    no_return = "return: the capital at risk of a campaign is not known"

    return replace(
        result,
        wins=len(wins),
        win_rate=len(wins) / number,
        profit=profit,
        average_win=won / len(wins) if wins else None,
        average_loss=-lost / len(losses) if losses else None,
        expectancy=profit / number,
        profit_factor=won / lost if losses else None,
        return_on_risk=profit / at_risk if at_risk else None,
        drawdown=max(day.drawdown or 0.0 for day in days_of(campaigns, ())),  # all are known
        wins_with_days=len(worst_of_wins),
        median_worst_of_wins=median(worst_of_wins) if worst_of_wins else None,
        worst_of_wins=min(worst_of_wins, default=None),
        why_unknown=None if at_risk else no_return,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DayResult:
    """The profit of a trading day in one currency.

    Attributes:
        profit: That of all holdings, as `profit_explained` has it; None: not known, or not
            recorded.
        realised: That of the campaigns that closed on it; None: of one it is not known.
        campaigns: How many closed on it.
        total: What was realised from the first day to it; None: of a campaign it is not known.
        drawdown: How far the total is below its highest.
    """

    day: date
    currency: str | None
    profit: float | None
    realised: float | None
    campaigns: int
    total: float | None
    drawdown: float | None


def days_of(
    campaigns: Iterable[ClosedCampaign], profits: Iterable[tuple[date, str, float | None]]
) -> list[DayResult]:
    """Return each trading day and currency of which something is known, in order; pure.

    Args:
        campaigns: Those that closed.
        profits: The profit of days, by currency.
    """
    profit_of = {(day, currency): amount for day, currency, amount in profits}
    closed = grouped(attrgetter("closed", "currency"), campaigns)

    totals: defaultdict[str | None, float | None] = defaultdict(float)
    highest: defaultdict[str | None, float] = defaultdict(float)
    days = []
    for day, currency in sorted({*profit_of, *closed}, key=lambda key: (key[0], key[1] or "")):
        of_day = closed[day, currency]
        realised = known_sum(campaign.profit for campaign in of_day)
        total = totals[currency] = known_sum([totals[currency], realised])
        # From the first amount on that is not known, neither is the total.
        highest[currency] = max(highest[currency], total or 0.0)
        result = DayResult(
            day=day,
            currency=currency,
            profit=profit_of.get((day, currency)),
            realised=realised,
            campaigns=len(of_day),
            total=total,
            drawdown=None if total is None else highest[currency] - total,
        )
        days.append(result)
    return days


# ---- what is read


def read_campaigns(
    lake: MoneyLake, since: date | None = None, strategy: str | None = None
) -> list[ClosedCampaign]:
    """Read the campaigns that closed on a day or later, in the order in which they closed; blocks.

    Args:
        since: The first day; None: any.
        strategy: The strategy; None: all, and what is in none.
    """
    closed = col.closed >= (since or date.min)
    rows = derived_rows(lake.derived_table(CLOSED_CAMPAIGNS), closed)
    if strategy is not None:
        rows = rows.filter(strategy_id=strategy)
    return records_of(ClosedCampaign, rows.sort("closed", "campaign_id", "currency"))


def read_days(
    lake: MoneyLake, campaigns: Iterable[ClosedCampaign], since: date | None = None
) -> list[DayResult]:
    """Read the profit of each trading day, with what campaigns realised on it; blocks."""
    chosen = col("partition.session_date") >= (since or date.min)
    table = lake.derived_table(PROFIT_EXPLAINED)
    rows = derived_rows(table, chosen=chosen, columns=["session_date", "currency", "profit"])
    rows = rows.group_by("session_date", "currency").agg(sum_if_known(col.profit))
    return days_of(campaigns, rows.iter_rows())
