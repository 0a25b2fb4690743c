"""One campaign that is over: its fills and rolls, and how it stood."""

from dataclasses import dataclass
from datetime import date, datetime

from position_sync_dagster.errors import UnknownIdError, shown
from position_sync_dagster.money.campaigns.campaign_days import (
    CampaignDay,
    path_of,
    read_explained,
)
from position_sync_dagster.money.campaigns.campaigns import (
    Contracts,
    RolledContracts,
    rolls_in,
)
from position_sync_dagster.money.campaigns.closed_campaign import ClosedCampaign
from position_sync_dagster.money.campaigns.closed_campaigns import CampaignBook
from position_sync_dagster.money.campaigns.results import read_campaigns
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past.movements import MovementKind
from position_sync_dagster.money.past.owned_parts import PostingBook
from position_sync_dagster.money.past.postings import Posting


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignFill:
    """What moved a contract of a campaign, as far as it belongs to the campaign.

    Attributes:
        at: When it happened; None: only the day is known.
        price: Of one unit.
        cash: What it brought, without the fee; None: not known.
        fee: Positive was paid. Unit: `fee_currency`.
        opens: Whether it opened something.
        movement_id: The row of `movements`.
        unknown: Why it is not known what it brought.
    """

    at: datetime | None
    day: date
    conid: int
    contract: str
    kind: MovementKind
    quantity: float
    price: float | None
    cash: float | None
    fee: float | None
    currency: str | None
    opens: bool
    order_id: str | None
    movement_id: str
    unknown: str | None
    fee_currency: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OneCampaign:
    """A campaign; it has a row in each of its currencies."""

    campaigns: tuple[ClosedCampaign, ...]
    fills: tuple[CampaignFill, ...]
    rolls: tuple[RolledContracts, ...]
    days: tuple[CampaignDay, ...]


def read_campaign(lake: MoneyLake, calendar: str, campaign_id: str) -> OneCampaign:
    """Read one campaign; blocks.

    Args:
        lake: The tables.
        calendar: The exchange whose trading days count.
        campaign_id: Its name.

    Raises:
        UnknownIdError: There is none of this name.
    """
    rows = [row for row in read_campaigns(lake) if row.campaign_id == campaign_id]
    if not rows:
        raise UnknownIdError(
            f"No campaign that is over has the name {shown(campaign_id)}.",
            remedy="Take the name from `position-sync results --list`.",
        )

    conids = {int(conid) for conid in rows[0].conids.split(",")}
    book = CampaignBook(lake, PostingBook(lake).postings(conids))
    campaign = next(each for each in book.campaigns if each.campaign_id == campaign_id)
    days = read_explained(lake, calendar, rows)
    return OneCampaign(
        campaigns=tuple(rows),
        fills=tuple(_fill(part, book.contracts) for part in campaign.parts),
        rolls=tuple(rolls_in(campaign, book.contracts)),
        days=tuple(day for row in rows for day in path_of(row, days)),
    )


def _fill(part: Posting, contracts: Contracts) -> CampaignFill:
    movement = part.movement
    return CampaignFill(
        at=movement.at,
        day=movement.session_date,
        conid=part.conid,
        contract=contracts[part.conid].name,
        kind=movement.kind,
        quantity=part.quantity,
        price=movement.price,
        cash=None if part.unknown else part.cash,
        fee=part.fee,
        currency=movement.currency,
        opens=part.opens,
        order_id=movement.order_id,
        movement_id=movement.movement_id,
        unknown=part.unknown,
        fee_currency=movement.fee_currency,
    )
