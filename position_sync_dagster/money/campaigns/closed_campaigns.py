"""The rows of `closed_campaigns`: movements and strategies joined."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isclose, prod

from position_sync_dagster.domain.holding import grouped
from position_sync_dagster.domain.instrument import ContractDetails, Instrument, Right
from position_sync_dagster.domain.valuation import FACTOR_TOLERANCE
from position_sync_dagster.money.campaigns.campaigns import (
    Contract,
    TradedCampaign,
    capital_at_risk,
    closed_campaigns,
    end_of,
    entry_of,
    kind_in,
    money_of,
    part_reached,
    rolls_in,
    states_of,
)
from position_sync_dagster.money.campaigns.closed_campaign import ClosedCampaign
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.magnifiers import magnifier_of
from position_sync_dagster.money.past.movements import Movement, MovementSource
from position_sync_dagster.money.past.owned_parts import PostingBook
from position_sync_dagster.money.past.postings import Posting, name_of

DAYS_OF_A_YEAR = 365


@dataclass(eq=False, repr=False)
class CampaignBook:
    """All campaigns of a lake, as its tables say them now; blocks.

    Args:
        conids: Only what decides whose these contracts are; None: all.

    Example:
        rows = CampaignBook(lake).rows()
    """

    lake: MoneyLake
    conids: Collection[int] | None = None

    @cached_property
    def parts(self) -> list[Posting]:
        """The parts of movements with their owners, in order of time."""
        return PostingBook(self.lake).postings(self.conids)

    @cached_property
    def campaigns(self) -> list[TradedCampaign]:
        """The campaigns that are over, in the order in which they closed."""
        return closed_campaigns(self.parts)

    def rows(self) -> list[ClosedCampaign]:
        """Return the rows of `closed_campaigns`."""
        return [
            self._row(campaign, currency)
            for campaign in self.campaigns
            for currency in campaign.currencies
        ]

    def contracts_of(self, campaign: TradedCampaign) -> dict[int, Contract]:
        """Return what is known of the contracts of a campaign."""
        return {conid: self._contracts[conid] for conid in campaign.conids}

    def _row(self, campaign: TradedCampaign, currency: str | None) -> ClosedCampaign:
        money = money_of(campaign.parts_in(currency), campaign.fees_beside(currency))
        contracts = self.contracts_of(campaign)
        states = states_of(campaign)
        kind, why_no_kind = kind_in(states[0].lots, contracts)
        risk, why_no_risk = capital_at_risk(states, contracts, currency)

        reached, why_not_reached = part_reached(
            money.profit, entry_of(campaign, contracts, currency)
        )

        reasons = {"kind": why_no_kind, "capital_at_risk": why_no_risk}
        reasons["profit_reached"] = why_not_reached
        days = None
        if campaign.opened is None:
            reasons["opened"] = "it was held before all movements"
        else:
            days = (campaign.closed - campaign.opened).days
        if not risk and risk is not None:
            reasons["return_on_risk"] = "nothing was at risk"

        return_on_risk = return_per_year = None
        if risk and money.profit is not None:
            return_on_risk = money.profit / risk
        if return_on_risk is not None and days is not None:
            return_per_year = return_on_risk * DAYS_OF_A_YEAR / max(days, 1)

        symbols = {part.movement.symbol or "?" for part in campaign.parts}
        names = [contracts[conid].name for conid in campaign.conids]
        unknown = [f"{column}: {reason}" for column, reason in reasons.items() if reason]
        return ClosedCampaign(
            campaign_id=campaign.campaign_id,
            strategy_id=campaign.strategy_id,
            account=campaign.account,
            currency=currency,
            underlying=",".join(sorted(symbols)),
            kind=kind,
            opened=campaign.opened,
            closed=campaign.closed,
            days=days,
            ended=end_of(campaign),
            legs=len(campaign.conids),
            contracts="; ".join(names),
            conids=",".join(map(str, campaign.conids)),
            rolls=len(rolls_in(campaign, contracts)),
            profit=money.profit,
            fees=money.fees,
            premium_received=money.received,
            premium_paid=money.paid,
            capital_at_risk=risk,
            return_on_risk=return_on_risk,
            return_per_year=return_per_year,
            profit_reached=reached,
            profit_unknown=money.unknown,
            why_unknown="; ".join(unknown) or None,
        )

    # -- what is read -------------------------------------------------------------------------

    @cached_property
    def _contracts(self) -> dict[int, Contract]:
        """What is known of each contract: from its movements and its details."""
        moved = (part.movement for part in self.parts)
        by_conid = grouped(lambda movement: movement.key[1], moved)
        details = self.lake.contracts.get(by_conid)
        return {
            conid: contract_of(movements, details.get(conid))
            for conid, movements in by_conid.items()
        }


def contract_of(movements: Sequence[Movement], details: ContractDetails | None) -> Contract:
    """Return what is known of the contract of some movements; pure."""
    stated = next((movement for movement in movements if movement.right), movements[0])
    magnifier = magnifier_of(details, stated.sec_type, stated.currency)
    expiry = stated.expiry
    if details is not None:
        expiry = details.expiry or expiry

    multiplier = next((movement.multiplier for movement in movements if movement.multiplier), None)
    lacks_terms = stated.is_option and None in (stated.right, stated.strike, expiry)
    instrument = None
    if multiplier is not None and stated.currency is not None and not lacks_terms:
        instrument = Instrument(
            conid=stated.key[1],
            symbol=stated.symbol or f"{stated.conid}",
            sec_type=stated.sec_type or "",
            currency=stated.currency,
            multiplier=multiplier,
            right=Right(stated.right) if stated.right else None,
            strike=stated.strike,
            expiry=expiry,
        )
    return Contract(
        name=name_of(stated),
        instrument=instrument,
        magnifier=magnifier or _stated_magnifier(movements),
    )


def _stated_magnifier(movements: Iterable[Movement]) -> float | None:
    """Return 1 where a statement's price gives its cash: it writes strikes in the same unit."""
    for movement in movements:
        amounts = (movement.quantity, movement.price, movement.multiplier)
        if movement.source is MovementSource.STATEMENT and movement.cash and None not in amounts:
            notional = prod(amount or 0.0 for amount in amounts)
            if isclose(-movement.cash, notional, rel_tol=FACTOR_TOLERANCE):
                return 1.0
    return None
