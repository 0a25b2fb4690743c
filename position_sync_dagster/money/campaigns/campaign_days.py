"""How campaigns stood at the ends of their days, and what they earned from.

Both are sums of columns of `profit_explained` over the trading days of a campaign. They are told
where these add up to its profit: then the days are its own, and none of them is missing. Of an open
one each day has to be recorded, until the newest that is.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import accumulate, chain
from operator import itemgetter
from typing import Any, TypeVar

from polars import DataFrame, col

from position_sync_dagster.domain.holding import grouped
from position_sync_dagster.domain.leg import UNATTRIBUTED
from position_sync_dagster.money.campaigns.closed_campaign import ClosedCampaign
from position_sync_dagster.money.campaigns.open_campaigns import OpenCampaign
from position_sync_dagster.money.lake import MoneyLake, derived_rows
from position_sync_dagster.money.past.movements import known_sum
from position_sync_dagster.money.tables import PROFIT_EXPLAINED
from position_sync_dagster.sync.exchange_days import exchange_of

# A row of `profit_explained`.
Row = Mapping[str, Any]

AnyCampaign = TypeVar("AnyCampaign", ClosedCampaign, OpenCampaign)

# What the change of the prices brought, by its causes.
CAUSES = ("delta", "gamma", "vega", "theta", "repricing")

# Why nothing says what a structure earned from; how it stood, its cash and values say.
NOT_DIVIDED = "the days of what is in no strategy are not divided"

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
    recorded: Mapping[str, Collection[date]]
    rows: Mapping[tuple[str, str, str | None], Sequence[Row]]

    @classmethod
    def of(cls, explained: DataFrame, sessions: Sequence[date]) -> "ExplainedDays":
        """Return what rows of `profit_explained` say."""
        owner = ("strategy_id", "account", "currency")
        rows = explained.sort("session_date").rows_by_key(owner, named=True, include_key=True)
        recorded = explained.group_by("account").agg(col.session_date.unique())
        return cls(sessions, dict(recorded.iter_rows()), rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignDay:
    """A recorded trading day of a campaign, in one currency.

    Attributes:
        profit: What it earned on that day.
        stands: What it had earned at its end, since it began.
    """

    day: date
    currency: str | None
    profit: float
    stands: float


def with_days(campaign: AnyCampaign, days: ExplainedDays) -> AnyCampaign:
    """Return a campaign with how it stood and what it earned from; pure."""
    rows = _rows_of(campaign, days)
    if isinstance(rows, str):
        names = CAUSES if rows == NOT_DIVIDED else ("worst", "best", *CAUSES)
        return campaign.because(f"{', '.join(names)}: {rows}")

    ends = list(_ends_of(rows)) or [0.0]
    causes: dict[str, Any] = {name: known_sum(map(itemgetter(name), rows)) for name in CAUSES}
    campaign = replace(campaign, worst=min(ends), best=max(ends), **causes)
    if isinstance(campaign, OpenCampaign):
        campaign = replace(campaign, path=tuple(ends), stands=ends[-1], until=days.sessions[-1])

    unknown = [name for name, amount in causes.items() if amount is None]
    if not unknown:
        return campaign
    without = sum(None in causes_of_day for causes_of_day in map(itemgetter(*CAUSES), rows))
    why = f"{without} of its {len(rows)} days have no recorded greeks"
    return campaign.because(f"{', '.join(unknown)}: {why}")


def path_of(campaign: AnyCampaign, days: ExplainedDays) -> Iterator[CampaignDay]:
    """Yield the days of a campaign whose sum is its profit; none where a day lacks; pure."""
    rows = _rows_of(campaign, days)
    if isinstance(rows, str):
        return

    for row, stands in zip(rows, _ends_of(rows), strict=True):
        yield CampaignDay(
            day=row["session_date"],
            currency=campaign.currency,
            profit=row["profit"],
            stands=stands,
        )


def _ends_of(rows: Iterable[Row]) -> Iterable[float]:
    """Return what a campaign had earned at the end of each day."""
    return accumulate(map(itemgetter("profit"), rows))


def _rows_of(campaign: ClosedCampaign | OpenCampaign, days: ExplainedDays) -> list[Row] | str:
    """Return the days of a campaign, or why they do not say how it stood."""
    opened = campaign.opened
    closed = campaign.closed or date.max
    profit = 0.0 if isinstance(campaign, OpenCampaign) else campaign.profit
    if opened is None:
        return "it was held before all movements"
    if campaign.strategy_id == UNATTRIBUTED:
        return NOT_DIVIDED
    if profit is None:
        return "its profit is not known"

    sessions = [day for day in days.sessions if opened <= day <= closed]
    if not sessions and campaign.closed is None:
        return "none of its days is over"

    owners = [(campaign.strategy_id, name, campaign.currency) for name in campaign.accounts]
    of_owners = chain.from_iterable(days.rows.get(owner, ()) for owner in owners)
    of_accounts = [row for row in of_owners if opened <= row["session_date"] <= closed]
    recorded = set().union(*(days.recorded.get(name, ()) for name in campaign.accounts))
    if isinstance(campaign, OpenCampaign):
        # No profit shows that a row lacks: there is one of each account that had something.
        named = {(row["account"], row["session_date"]) for row in of_accounts}
        recorded = {
            day
            for day in sessions
            if all((name, day) in named for name in campaign.accounts_on(day))
        }

    rows = _by_day(of_accounts)
    unknown = [row["session_date"] for row in rows if row["profit"] is None]
    lacking = set(sessions).difference(recorded).union(unknown)
    if lacking:
        return f"{len(lacking)} of its {len(sessions)} days have no recorded profit"

    total = sum(row["profit"] for row in rows)
    if campaign.closed and abs(total - profit) > HALF_A_CENT:
        return f"its days add up to {total:.2f}, which is not its profit"
    return rows


def _by_day(rows: Iterable[Row]) -> list[Row]:
    """Return the sums of the rows of each day, in order."""
    by_day = grouped(itemgetter("session_date"), rows)
    return [
        {"session_date": day}
        | {name: known_sum(map(itemgetter(name), of_day)) for name in ("profit", *CAUSES)}
        for day, of_day in sorted(by_day.items())
    ]


def read_explained(
    lake: MoneyLake, calendar: str, campaigns: Sequence[AnyCampaign]
) -> ExplainedDays:
    """Read what is recorded of the days of campaigns; blocks.

    Args:
        lake: The tables.
        calendar: The exchange whose trading days count.
        campaigns: The campaigns. The days of open ones end with the newest that is recorded.
    """
    table = lake.derived_table(PROFIT_EXPLAINED)
    begun = (campaign.opened or campaign.closed for campaign in campaigns)
    first = min(filter(None, begun), default=date.max)
    since_first = col("partition.session_date") >= first
    columns = ["session_date", "strategy_id", "account", "currency", "profit", *CAUSES]
    explained = derived_rows(table, chosen=since_first, columns=columns)

    newest = max(explained["session_date"], default=date.min)
    last = max((campaign.closed or newest for campaign in campaigns), default=newest)
    sessions = exchange_of(calendar).trading_days(first, last) if first <= last else ()
    return ExplainedDays.of(explained, sessions)


def read_days_of(
    lake: MoneyLake, calendar: str, campaigns: Sequence[AnyCampaign]
) -> list[AnyCampaign]:
    """Return campaigns with what is recorded of their days; blocks."""
    days = read_explained(lake, calendar, campaigns)
    return [with_days(campaign, days) for campaign in campaigns]
