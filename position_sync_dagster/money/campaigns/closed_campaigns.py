"""The rows of `closed_campaigns`: movements and strategies joined."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import isclose, prod
from operator import attrgetter

from position_sync_dagster.domain.holding import grouped
from position_sync_dagster.domain.instrument import ContractDetails, Instrument, Right
from position_sync_dagster.domain.leg import UNATTRIBUTED
from position_sync_dagster.domain.valuation import FACTOR_TOLERANCE
from position_sync_dagster.lake.schema import fields_of
from position_sync_dagster.money.campaigns.campaigns import (
    Contract,
    TradedCampaign,
    as_opened,
    capital_at_risk,
    closed_campaigns,
    cost_per_share,
    end_of,
    kind_in,
    money_of,
    part_reached,
    parts_with_shares,
    rolls_in,
    states_of,
)
from position_sync_dagster.money.campaigns.closed_campaign import (
    CampaignColumns,
    ClosedCampaign,
)
from position_sync_dagster.money.campaigns.entry_values import (
    entry_legs,
    read_entries,
    with_entry,
)
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.magnifiers import magnifier_of
from position_sync_dagster.money.past.movements import Movement, MovementSource, first_reasons
from position_sync_dagster.money.past.owned_parts import PostingBook
from position_sync_dagster.money.past.postings import Posting, name_of

DAYS_OF_A_YEAR = 365

# What shows that a campaign has the fills that it had when it was recorded.
_FILLS = attrgetter(
    "campaign_id", "currency", "conids", "premium_received", "premium_paid", "fees"
)  # fmt: skip


@dataclass(eq=False, repr=False)
class CampaignBook:
    """All campaigns of a lake, as its tables say them now; blocks.

    Args:
        postings: Those of which they are; None: all.

    Example:
        rows = CampaignBook(lake).rows()
    """

    lake: MoneyLake
    postings: Sequence[Posting] | None = None

    @cached_property
    def parts(self) -> Sequence[Posting]:
        """The parts of movements with their owners, in order of time."""
        if self.postings is None:
            return PostingBook(self.lake).postings()
        return self.postings

    @cached_property
    def campaigns(self) -> list[TradedCampaign]:
        """The campaigns that are over, in the order in which they closed."""
        return closed_campaigns(self.parts)

    def rows(self, recorded: Iterable[ClosedCampaign] = ()) -> list[ClosedCampaign]:
        """Return the rows of `closed_campaigns`.

        Args:
            recorded: Those of before: what was known when they began stays as it is.
        """
        entries = {
            _FILLS(row): row
            for row in recorded
            if row.entry_after_s is not None or row.entry_unknown is not None
        }
        rows = []
        new = []
        for campaign in self.campaigns:
            for currency in campaign.currencies:
                row = self._row(campaign, currency)
                rows.append(row)
                if _FILLS(row) not in entries:
                    new.append((row, entry_legs(campaign, currency)))

        entries |= {_FILLS(row): row for row in read_entries(self.lake, new)}
        return [_as_recorded(row, entries[_FILLS(row)]) for row in rows]

    def columns_of(
        self, campaign: TradedCampaign, currency: str | None, *, is_open: bool
    ) -> tuple[CampaignColumns, float | None]:
        """Return the columns that a campaign has in one currency, whether it is open or over.

        Also what it brought, of an open one without the value of what is left; None: not known.
        """
        money = money_of(campaign.parts, currency)
        contracts = self.contracts
        states = states_of(campaign, currency)
        kind, why_no_kind = kind_in(states[0].lots, contracts)
        risk, why_no_risk = capital_at_risk(states, contracts, currency)
        shares = campaign.parts_in(currency)
        if not is_open:
            shares = parts_with_shares(campaign, states, currency)
        cost, why_no_cost = cost_per_share(shares)
        reasons = {
            "kind": why_no_kind,
            "capital_at_risk": why_no_risk,
            "cost_per_share": why_no_cost,
            "fees": first_reasons(campaign.fees_beside(currency)),
        }
        if campaign.opened is None:
            reasons["opened"] = "it was held before all movements"

        symbols = {part.movement.symbol or "?" for part in campaign.parts}
        names = [contracts[conid].name for conid in campaign.conids]
        unknown = [f"{column}: {reason}" for column, reason in reasons.items() if reason]
        columns = CampaignColumns(
            campaign_id=campaign.campaign_id,
            strategy_id=campaign.strategy_id,
            account=",".join(campaign.accounts),
            currency=currency,
            underlying=",".join(sorted(symbols)),
            kind=kind,
            opened=campaign.opened,
            legs=len(campaign.conids),
            contracts="; ".join(names),
            conids=",".join(map(str, campaign.conids)),
            rolls=len(rolls_in(campaign, contracts)),
            fees=money.fees,
            premium_received=money.received,
            premium_paid=money.paid,
            capital_at_risk=risk,
            cost_per_share=cost,
            profit_unknown=money.unknown,
            why_unknown="; ".join(unknown) or None,
        )
        return columns, money.profit

    def _row(self, campaign: TradedCampaign, currency: str | None) -> ClosedCampaign:
        columns, profit = self.columns_of(campaign, currency, is_open=False)
        days = None
        if campaign.opened is not None:
            days = (campaign.closed - campaign.opened).days

        risk = columns.capital_at_risk
        return_on_risk = return_per_year = None
        if risk and profit is not None:
            return_on_risk = profit / risk
        if return_on_risk is not None and days is not None:
            return_per_year = return_on_risk * DAYS_OF_A_YEAR / max(days, 1)
        if risk == 0:
            columns = columns.because("return_on_risk: nothing was at risk")

        reached, why_unknown = part_reached(profit, as_opened(campaign, self.contracts, currency))
        if why_unknown:
            columns = columns.because(f"profit_reached: {why_unknown}")
        return ClosedCampaign(
            **fields_of(columns),
            closed=campaign.closed,
            days=days,
            ended=end_of(campaign),
            profit=profit,
            return_on_risk=return_on_risk,
            return_per_year=return_per_year,
            profit_reached=reached,
        )

    # -- what is read -------------------------------------------------------------------------

    @cached_property
    def contracts(self) -> dict[int, Contract]:
        """What is known of each contract: from its movements and its details."""
        moved = (part.movement for part in self.parts)
        by_conid = grouped(lambda movement: movement.key[1], moved)
        details = self.lake.contracts.get(by_conid)
        return {
            conid: contract_of(movements, details.get(conid))
            for conid, movements in by_conid.items()
        }


def _as_recorded(row: ClosedCampaign, recorded: ClosedCampaign) -> ClosedCampaign:
    """Return a row with what is known since it was recorded: how it began, and how it stood."""
    row = with_entry(row, recorded)
    is_as_before = (row.closed, row.profit) == (recorded.closed, recorded.profit)
    if row.strategy_id != UNATTRIBUTED or not is_as_before:
        return row  # the days of strategies are explained anew
    return replace(row, worst=recorded.worst, best=recorded.best)


def contract_of(movements: Sequence[Movement], details: ContractDetails | None) -> Contract:
    """Return what is known of the contract of some movements; pure."""
    stated = next((movement for movement in movements if movement.right), movements[0])
    fitting = _stated_magnifier(movements)
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
        magnifier=magnifier_of(details, stated.sec_type, stated.currency, fitting),
    )


def _stated_magnifier(movements: Iterable[Movement]) -> float | None:
    """Return 1 where a statement's price gives its cash: it writes strikes in the same unit."""
    for movement in movements:
        amounts = (movement.quantity, movement.price, movement.multiplier)
        if movement.source is MovementSource.STATEMENT and movement.cash and None not in amounts:
            notional = prod(amount or 0.0 for amount in amounts)  # none of them is None
            if isclose(-movement.cash, notional, rel_tol=FACTOR_TOLERANCE):
                return 1.0
    return None
