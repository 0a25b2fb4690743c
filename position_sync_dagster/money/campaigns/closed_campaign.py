"""A campaign that is over: a row of the table `closed_campaigns`."""

from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum
from typing import Self


class CampaignEnd(StrEnum):
    """How a campaign ended.

    CLOSED: by trades. EXPIRED: by an expiry without value, or one that was settled in cash.
    ASSIGNED, EXERCISED: by a delivery. TRANSFERRED: to another broker.
    """

    CLOSED = "closed"
    EXPIRED = "expired"
    ASSIGNED = "assigned"
    EXERCISED = "exercised"
    TRANSFERRED = "transferred"


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignColumns:
    """What a campaign has in one currency, whether it is over or open.

    Attributes:
        campaign_id: Names it; the same each time it is computed.
        strategy_id: The strategy; UNATTRIBUTED of a structure that was in none.
        account: IB account; several, after a transfer between them, are separated by commas.
        currency: ISO code of the currency of the money; a campaign in two currencies has two rows,
            also if the second is that of fees alone.
        underlying: Symbol of the underlying; several are separated by commas.
        kind: The structure that it was when it began, as `strategies propose` names it; null where
            that has no name.
        opened: The trading day of the first trade; null where that is before all movements.
        legs: How many contracts it had, with those that rolls and deliveries left.
        contracts: Which these are, as a trader writes them.
        conids: Their contract ids, separated by commas.
        rolls: How often options took the place of others, by one order or on one trading day.
        fees: Commissions; positive was paid. Unit: `currency`.
        premium_received: What sold options brought. Unit: `currency`.
        premium_paid: What bought options cost. Unit: `currency`.
        capital_at_risk: The greatest loss that was possible at the next expiry, as it stood at any
            close, given what the campaign had brought until then, without fees; null where it had
            no bound, or a price or the cost of a corporate action is not known. Unit: `currency`.
        cost_per_share: What each of its shares had cost, with all that it had brought until the
            last close at which it had them, after fees; of a future one unit of it. Null also where
            it never had any. Unit: `currency`.
        profit_unknown: Why profit and fees are null.
        why_unknown: Which other columns are null, and why; also which fee `fees` may lack, since
            nothing says in which currency it was charged.
        worst: The least that it stood at the end of a trading day, with what it had earned since
            it began; null where a day has no recorded profit, or value. Unit: `currency`.
        best: The most that it stood at the end of a trading day. Unit: `currency`.
        delta: What the moves of the underlyings brought, by profit_explained. Unit: `currency`.
        gamma: What the change of delta during these brought. Unit: `currency`.
        vega: What the changes of the implied volatilities brought. Unit: `currency`.
        theta: What the time that passed brought. Unit: `currency`.
        repricing: What else the changes of the prices brought. Unit: `currency`.
        entry_delta: Delta of all that it had at its first close, each option by its first row after
            its first fill, a share as 1. Unit: shares of the underlying.
        entry_implied_vol: The average of the implied volatilities of these options, by contracts.
            Unit: part of one, a year.
        entry_underlying_price: Price of the underlying in the first of these rows. Unit: as quoted.
        entry_after_s: How long after a first fill the latest of these rows was written. Unit: s.
        entry_unknown: Which of these are null, and why.
    """

    campaign_id: str
    strategy_id: str
    account: str
    currency: str | None
    underlying: str
    kind: str | None
    opened: date | None
    legs: int
    contracts: str
    conids: str
    rolls: int
    fees: float | None
    premium_received: float | None
    premium_paid: float | None
    capital_at_risk: float | None
    cost_per_share: float | None = None
    profit_unknown: str | None
    why_unknown: str | None
    worst: float | None = None
    best: float | None = None
    delta: float | None = None
    gamma: float | None = None
    vega: float | None = None
    theta: float | None = None
    repricing: float | None = None
    entry_delta: float | None = None
    entry_implied_vol: float | None = None
    entry_underlying_price: float | None = None
    entry_after_s: float | None = None
    entry_unknown: str | None = None

    @property
    def accounts(self) -> list[str]:
        """Return its accounts, the first one first."""
        return self.account.split(",")

    def because(self, reason: str) -> Self:
        """Return it with one more reason why something of it is not known."""
        return replace(self, why_unknown="; ".join(filter(None, [self.why_unknown, reason])))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedCampaign(CampaignColumns):
    """What a strategy, or a structure in no strategy, brought from its first trade until it ended.

    Attributes:
        closed: The trading day at whose close nothing was left.
        days: Calendar days from opened to closed.
        ended: How it ended: closed, expired, assigned, exercised or transferred.
        profit: What it brought: trades, deliveries, corporate actions, dividends of what was held,
            less fees. Null where a price, a multiplier or a fee is not known. Unit: `currency`.
        return_on_risk: Profit as a part of capital_at_risk: 0.1 is 10 %. Unit: part of one.
        return_per_year: That for 365 days; less than a day counts as one. Unit: part of one, a
            year.
        profit_reached: The profit as a part of the greatest that was possible as it was opened, of
            a credit structure its credit; null where that had no bound or is not known, or the
            profit is not known. Unit: part of one.
    """

    closed: date
    days: int | None
    ended: CampaignEnd
    profit: float | None
    return_on_risk: float | None
    return_per_year: float | None = None
    profit_reached: float | None = None
