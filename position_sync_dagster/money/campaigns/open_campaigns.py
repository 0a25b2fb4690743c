"""The campaigns of strategies that are open: what they brought so far, and how they stood."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import chain

from position_sync_dagster.lake.schema import fields_of
from position_sync_dagster.money.campaigns.campaigns import open_campaigns
from position_sync_dagster.money.campaigns.closed_campaign import CampaignColumns
from position_sync_dagster.money.campaigns.closed_campaigns import CampaignBook
from position_sync_dagster.money.campaigns.entry_values import entry_legs, read_entries
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past.postings import Posting


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenCampaign(CampaignColumns):
    """What a strategy brought since the first trade after which it always had something.

    Attributes:
        brought: What it brought so far, after fees, without the value of what is left; null where
            a price, a multiplier or a fee is not known. Unit: `currency`.
        profit_unknown: Why that is null.
        cost_per_share: What each of the shares that it has cost, with all that it brought; of a
            future one unit of it. Null also where it has none. Unit: `currency`.
        until: The newest recorded trading day; null where none of it is recorded.
        stands: What it had earned at the end of that day. Unit: `currency`.
        path: What it had earned at the end of each day until then. Unit: `currency`.
    """

    brought: float | None
    until: date | None = None
    stands: float | None = None
    path: tuple[float, ...] | None = None

    @property
    def closed(self) -> None:
        """None: it is open."""


def read_open_campaigns(
    lake: MoneyLake, postings: Sequence[Posting], strategy: str | None = None
) -> list[OpenCampaign]:
    """Return the open campaigns, by strategy and account; blocks.

    Args:
        lake: The tables.
        postings: Those of strategies, in order of time.
        strategy: The strategy; None: all.
    """
    campaigns = [
        campaign
        for campaign in open_campaigns(postings)
        if strategy in (None, campaign.strategy_id)
    ]
    parts = chain.from_iterable(campaign.parts for campaign in campaigns)
    book = CampaignBook(lake, [*parts])
    entered = []
    for campaign in campaigns:
        for currency in campaign.currencies:
            columns, brought = book.columns_of(campaign, currency, is_open=True)
            row = OpenCampaign(**fields_of(columns), brought=brought)
            entered.append((row, entry_legs(campaign, currency)))
    return read_entries(lake, entered)
