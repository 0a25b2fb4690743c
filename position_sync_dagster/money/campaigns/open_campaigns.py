"""The campaigns of strategies that are open: what they brought so far, and how they stood."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import chain, pairwise
from operator import attrgetter
from typing import Annotated

from pydantic import Field

from position_sync_dagster.domain.holding import grouped
from position_sync_dagster.lake.schema import fields_of
from position_sync_dagster.money.campaigns.campaigns import TradedCampaign, open_campaigns
from position_sync_dagster.money.campaigns.closed_campaign import CampaignColumns
from position_sync_dagster.money.campaigns.closed_campaigns import CampaignBook
from position_sync_dagster.money.campaigns.entry_values import entry_legs, read_entries
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past.postings import Posting
from position_sync_dagster.money.past.structures import is_held

# An account, and days on all of which something was held in it, or moved.
Stay = tuple[str, date, date]


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
        stays: In which of its accounts something of the currency was, and when; not told outside.
    """

    brought: float | None
    stays: Annotated[Sequence[Stay], Field(exclude=True)]
    until: date | None = None
    stands: float | None = None
    path: tuple[float, ...] | None = None

    @property
    def closed(self) -> None:
        """None: it is open."""

    def accounts_on(self, day: date) -> set[str]:
        """Return the accounts in which something of the currency was on a day."""
        return {account for account, first, last in self.stays if first <= day <= last}


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
            stays = _stays_in(campaign, currency)
            row = OpenCampaign(**fields_of(columns), brought=brought, stays=stays)
            entered.append((row, entry_legs(campaign, currency)))
    return read_entries(lake, entered)


def _stays_in(campaign: TradedCampaign, currency: str | None) -> list[Stay]:
    """Return when something of a currency was in which account; a fee is there on its day alone."""
    stays = []
    for account, parts in grouped(attrgetter("movement.account"), campaign.parts).items():
        in_currency = [part for part in parts if part.currency == currency]
        moved_on = sorted({part.session for part in in_currency})
        for session, next_session in pairwise([*moved_on, date.max]):
            is_left = is_held(part for part in in_currency if part.session <= session)
            stays.append((account, session, next_session if is_left else session))

        charged = [part for part in parts if part.charged_elsewhere == currency]
        stays += [(account, part.session, part.session) for part in charged]
    return stays
