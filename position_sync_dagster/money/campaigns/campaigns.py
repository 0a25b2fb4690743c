"""Campaigns, over or open, of the parts of movements that belong to them; pure.

A strategy's campaign begins with its first trade, and ends at the first close at which the strategy
has nothing of any contract: rolls and what assignments leave belong to it. A structure of no
strategy that has an option is one too. Each goes along with what a transfer takes to another own
account.

What a strategy has earned so far is what its parts brought, and the value of what is left of them.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from itertools import groupby
from operator import attrgetter
from types import MappingProxyType

from position_sync_dagster.domain.holding import grouped
from position_sync_dagster.domain.instrument import Instrument
from position_sync_dagster.domain.leg import UNATTRIBUTED
from position_sync_dagster.money.campaigns.closed_campaign import CampaignEnd
from position_sync_dagster.money.past.movements import (
    MovementKind,
    first_reasons,
    known_sum,
    rounded,
    times,
)
from position_sync_dagster.money.past.postings import Posting
from position_sync_dagster.money.past.structures import (
    is_between_accounts,
    is_held,
    joined_by_transfers,
    rolls_of,
    stays_of,
    structures_of,
)
from position_sync_dagster.money.strategies.proposals import (
    SINGLE,
    Piece,
    greatest_value,
    kind_of,
    least_value,
    single_kind,
)


@dataclass(frozen=True, slots=True)
class TradedCampaign:
    """The parts of movements of one campaign, in order of time."""

    parts: Sequence[Posting]

    @property
    def strategy_id(self) -> str:
        """Return its strategy, or UNATTRIBUTED."""
        return self.parts[0].owner

    @property
    def accounts(self) -> list[str]:
        """Return its accounts, the first one first."""
        return list(dict.fromkeys(part.movement.account for part in self.parts))

    @property
    def campaign_id(self) -> str:
        """Return its name, which does not depend on the source of its movements."""
        first = self.parts[0]
        name = f"{self.strategy_id}:{first.movement.account}:{first.session}"
        if self.strategy_id != UNATTRIBUTED:
            return name
        return f"{name}:{first.conid}"

    @property
    def opened(self) -> date | None:
        """Return the trading day of its first trade; None: it was held before all movements."""
        if any(part.is_prior for part in self.parts):
            return None
        return self.parts[0].session

    @property
    def closed(self) -> date:
        """Return the trading day at whose close nothing was left."""
        moved = [part for part in self.parts if part.quantity]
        return max(part.session for part in moved or self.parts)

    @property
    def is_open(self) -> bool:
        """Return whether something of it is held still."""
        return is_held(self.parts)

    @property
    def conids(self) -> list[int]:
        """Return its contracts, the first one first."""
        return list(dict.fromkeys(part.conid for part in self.parts))

    def parts_in(self, currency: str | None) -> list[Posting]:
        """Return the parts of contracts of one currency."""
        return [part for part in self.parts if part.currency == currency]

    @property
    def currencies(self) -> list[str | None]:
        """Return the currencies of its contracts, and those of fees beside them."""
        currencies = dict.fromkeys(part.currency for part in self.parts)
        of_fees = [part.charged_elsewhere for part in self.parts]
        return list(currencies | dict.fromkeys(filter(None, of_fees)))

    def fees_beside(self, currency: str | None) -> list[str]:
        """Return which fees for contracts of others may have been charged in a currency."""
        reasons = (
            part.why_no_fee_in(part.currency)
            for part in self.parts
            if part.currency != currency and part.movement.fee_currency is None
        )
        return [*dict.fromkeys(filter(None, reasons))]


def closed_campaigns(parts: Iterable[Posting]) -> list[TradedCampaign]:
    """Return the campaigns that are over, in the order in which they closed.

    Args:
        parts: All parts of movements, in order of time.
    """
    return sorted(
        (campaign for campaign in _campaigns(parts) if not campaign.is_open),
        key=attrgetter("closed", "campaign_id"),
    )


def open_campaigns(parts: Iterable[Posting]) -> list[TradedCampaign]:
    """Return the campaigns of strategies of which something is left, by strategy and account.

    Args:
        parts: All parts of movements, in order of time.
    """
    campaigns = [campaign for campaign in _campaigns(_of_strategies(parts)) if campaign.is_open]
    return sorted(campaigns, key=attrgetter("strategy_id", "accounts"))


def last_campaigns(parts: Iterable[Posting]) -> dict[str, TradedCampaign]:
    """Return the last campaign of each strategy in all its accounts, over or open.

    Args:
        parts: All parts of movements, in order of time.
    """
    by_strategy = grouped(attrgetter("owner"), _of_strategies(parts))
    return {
        strategy: TradedCampaign(stay)
        for strategy, owned in by_strategy.items()
        for stay in stays_of(owned)
    }


def _of_strategies(parts: Iterable[Posting]) -> Iterator[Posting]:
    return (part for part in parts if part.owner != UNATTRIBUTED)


def _campaigns(parts: Iterable[Posting]) -> Iterator[TradedCampaign]:
    """Yield the campaigns of strategies, and of structures that have an option."""
    stays: list[list[Posting]] = []
    for (owner, _account), owned in grouped(attrgetter("owner", "movement.account"), parts).items():
        stays += structures_of(owned) if owner == UNATTRIBUTED else stays_of(owned)

    for joined in joined_by_transfers(stays):
        if any(part.owner != UNATTRIBUTED or part.is_option for part in joined):
            yield TradedCampaign(joined)


# ---- what it had: its states


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """What is known of a contract.

    Attributes:
        name: Its name as a trader writes it.
        instrument: Its terms; None: right, strike, expiry or multiplier is not known.
        magnifier: The divisor of its strike to the major unit; None: not known.
    """

    name: str
    instrument: Instrument | None
    magnifier: float | None


Contracts = Mapping[int, Contract]


# How much of each contract a campaign has.
Lots = Mapping[int, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignState:
    """What a campaign had at the close of a trading day on which something of it moved.

    Attributes:
        lots: What it had, by contract.
        brought: What it had brought in one currency until then, without fees; None: not known.
    """

    session: date
    lots: Lots
    brought: float | None


_NOTHING = CampaignState(session=date.min, lots={}, brought=0.0)


def states_of(campaign: TradedCampaign, currency: str | None) -> list[CampaignState]:
    """Return what a campaign had at the closes of the days on which something of it moved.

    Of a day that begins and ends with nothing it is the most that it had meanwhile. A day on which
    something is between two accounts is left out.
    """
    has_moved = len(campaign.accounts) > 1
    states: list[CampaignState] = []
    last = _NOTHING
    for session, parts in groupby(campaign.parts, key=attrgetter("session")):
        of_day = [*parts]
        before = last
        last = _after(before, of_day, currency)
        if has_moved and states and is_between_accounts(campaign.parts, session):
            continue
        if before.lots or last.lots:
            states.append(last)
        else:
            states.append(_after(before, _until_most(of_day), currency))
    return states


def _after(state: CampaignState, parts: Sequence[Posting], currency: str | None) -> CampaignState:
    """Return what a campaign had after some more parts."""
    lots = left_of(parts, state.lots)
    cash = [None if part.unclear else part.cash for part in parts if part.currency == currency]
    brought = known_sum([state.brought, *cash])
    return CampaignState(session=parts[-1].session, lots=lots, brought=brought)


def _until_most(parts: Sequence[Posting]) -> Sequence[Posting]:
    """Return the parts until a campaign that had nothing had most, for the last time."""
    lots: defaultdict[int, float] = defaultdict(float)
    size = most = 0.0
    until = 0
    for number, part in enumerate(parts, 1):
        held = abs(lots[part.conid])
        lots[part.conid] += part.quantity
        size = rounded(size + abs(lots[part.conid]) - held)
        if size >= most:
            most = size
            until = number
    return parts[:until]


def left_of(parts: Iterable[Posting], before: Lots = MappingProxyType({})) -> Lots:
    """Return what some parts leave of what was there before."""
    lots = defaultdict(float, before)
    for part in parts:
        lots[part.conid] += part.quantity
    return {conid: quantity for conid, quantity in lots.items() if rounded(quantity)}


@dataclass(frozen=True, slots=True, kw_only=True)
class RolledContracts:
    """Options that took the place of others in one order."""

    at: datetime
    closed: tuple[str, ...]
    opened: tuple[str, ...]


def rolls_in(campaign: TradedCampaign, contracts: Contracts) -> list[RolledContracts]:
    """Return the rolls of a campaign, in order of time."""
    rolls = []
    for parts in rolls_of(campaign.parts):
        closed = dict.fromkeys(part.conid for part in parts if not part.opens)
        opened = dict.fromkeys(part.conid for part in parts if part.conid not in closed)
        roll = RolledContracts(
            at=parts[-1].at,
            closed=tuple(contracts[conid].name for conid in closed),
            opened=tuple(contracts[conid].name for conid in opened),
        )
        rolls.append(roll)
    return sorted(rolls, key=attrgetter("at"))


def kind_in(lots: Lots, contracts: Contracts) -> tuple[str | None, str | None]:
    """Return the kind of a structure, or why it has none."""
    pieces = _pieces_of(lots, contracts)
    if isinstance(pieces, str):
        return None, pieces
    kind = kind_of(pieces) if pieces else None
    return kind, None if kind else "its contracts are no structure that has a name"


def _pieces_of(lots: Lots, contracts: Contracts) -> list[Piece] | str:
    """Return contracts with their terms, or of which these are not known."""
    pieces = []
    for conid, quantity in lots.items():
        contract = contracts[conid]
        if contract.instrument is None:
            return f"the terms of {contract.name} are not known"
        pieces.append(Piece(contract.instrument, quantity))
    return pieces


def capital_at_risk(
    states: Iterable[CampaignState], contracts: Contracts, currency: str | None
) -> tuple[float | None, str | None]:
    """Return the greatest loss at the next expiry in any state, or why it is not known.

    What the campaign had brought until then is a part of it.
    """
    losses = []
    for state in states:
        outcome = _outcome_of(state, contracts, currency, LEAST)
        if isinstance(outcome, str):
            return None, outcome
        if outcome is not None:
            losses.append(-outcome)
    if losses:
        return max(0.0, *losses), None
    return None, "what it had is not known"


@dataclass(frozen=True, slots=True)
class Extreme:
    """The best or the worst that a structure may be worth.

    Attributes:
        value_of: Returns it of contracts of one underlying, and whether it has no bound.
        unlimited: What is the case where it has none.
        unknown: Why it is not known else.
    """

    value_of: Callable[[Sequence[Piece]], float | None]
    unlimited: str
    unknown: str


LEAST = Extreme(least_value, "the loss had no bound", "a short option outlived the next expiry")
GREATEST = Extreme(greatest_value, "the profit had no bound", "an option outlived the next expiry")


def _outcome_of(
    state: CampaignState, contracts: Contracts, currency: str | None, extreme: Extreme
) -> float | str | None:
    """Return what a state brings at an extreme of its worth, with what it had brought before.

    Returns:
        None where it had nothing in the currency; a text where it is not known, which says why.
    """
    pieces = _pieces_of(state.lots, contracts)
    if isinstance(pieces, str):
        return pieces
    in_currency = [piece for piece in pieces if piece.instrument.currency == currency]
    if not in_currency:
        return None

    outcome = state.brought
    if outcome is None:
        return f"what it had brought until {state.session} is not known"
    for of_underlying in grouped(attrgetter("instrument.symbol"), in_currency).values():
        value = _value_of(of_underlying, contracts, extreme)
        if isinstance(value, str):
            return f"{value}, on {state.session}"
        outcome += value
    return outcome


def _value_of(pieces: Iterable[Piece], contracts: Contracts, extreme: Extreme) -> float | str:
    """Return an extreme worth of contracts of one underlying, or why it is not known."""
    in_units = []
    for piece in pieces:
        contract = contracts[piece.conid]
        if contract.magnifier is None:
            return f"whether {contract.name} is quoted in cents is not known"

        if contract.magnifier != 1:
            unit = piece.instrument.multiplier / contract.magnifier
            piece = Piece(replace(piece.instrument, multiplier=unit), piece.quantity)
        in_units.append(piece)

    value = extreme.value_of(in_units)
    if value is None:
        return extreme.unknown
    return extreme.unlimited if math.isinf(value) else value


# ---- as it was opened


@dataclass(frozen=True, slots=True, kw_only=True)
class AsOpened:
    """What a campaign promised as it was opened: on its first trading day, when it had most.

    Attributes:
        kind: The structure that it was, of one option with its side; None: it has no name.
        credit: What it was opened for, without fees; below 0: it was paid; None: not known.
        greatest_profit: The most that it could bring at the next expiry, without fees.
        unknown: Why that is not known; "" if it is.
    """

    kind: str | None
    credit: float | None
    greatest_profit: float | None
    unknown: str = ""


def as_opened(campaign: TradedCampaign, contracts: Contracts, currency: str | None) -> AsOpened:
    """Return how a campaign was opened in a currency."""
    of_day = [part for part in campaign.parts if part.session == campaign.parts[0].session]
    opened = _after(_NOTHING, _until_most(of_day), currency)
    kind, _why = kind_in(opened.lots, contracts)
    if kind == SINGLE:
        [(conid, quantity)] = opened.lots.items()
        instrument = contracts[conid].instrument
        kind = None if instrument is None else single_kind(Piece(instrument, quantity))

    greatest = _outcome_of(opened, contracts, currency, GREATEST)
    unknown = ""
    if greatest is None:
        unknown = "what it had is not known"
    elif isinstance(greatest, str):
        unknown, greatest = greatest, None
    elif greatest <= 0:
        unknown = "it could not bring anything"
    return AsOpened(
        kind=kind,
        credit=opened.brought,
        greatest_profit=greatest,
        unknown=unknown,
    )


def part_reached(profit: float | None, opened: AsOpened) -> tuple[float | None, str]:
    """Return which part of the greatest profit a profit is, or why that is not known."""
    if opened.unknown or not opened.greatest_profit:
        return None, opened.unknown
    if profit is None:
        return None, "its profit is not known"
    return profit / opened.greatest_profit, ""


# ---- what it brought


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignMoney:
    """What a campaign brought in one currency; None: not known.

    Attributes:
        unknown: Why profit or fees are not known.
    """

    profit: float | None
    fees: float | None
    received: float | None
    paid: float | None
    unknown: str | None


def money_of(parts: Sequence[Posting], currency: str | None) -> CampaignMoney:
    """Return what parts brought in a currency, less what was charged in it, for others too."""
    of_currency = [part for part in parts if part.currency == currency]
    premiums = [part.cash for part in of_currency if part.is_option and part.is_trade]
    if any(part.is_prior for part in of_currency):
        premiums.append(None)  # that of what was held before
    received = known_sum(cash for cash in premiums if cash is None or cash > 0)
    paid = known_sum(cash for cash in premiums if cash is None or cash < 0)

    cash = known_sum(part.cash for part in of_currency)
    fee_of_each = [part.fee_in(currency) for part in parts]
    fees = known_sum(fee_of_each)
    reasons = dict.fromkeys(part.unknown for part in of_currency)
    for part, fee in zip(parts, fee_of_each, strict=True):
        if fee is None and part.currency != currency:
            reasons[part.why_no_fee_in(currency)] = None
    unknown = first_reasons([*filter(None, reasons)]) or None
    return CampaignMoney(
        profit=None if unknown else known_sum([cash, times(fees, -1.0)]),
        fees=fees,
        received=received,
        paid=times(paid, -1.0),
        unknown=unknown,
    )


def cost_per_share(parts: Sequence[Posting]) -> tuple[float | None, str | None]:
    """Return what the shares that are left have cost each, with all that a campaign brought.

    Of a future it is that of one unit. What was sold short has the price that it brought.

    Args:
        parts: Those of one currency.

    Returns:
        Also why it is not known; both are None where no shares are left.
    """
    shares = [part for part in parts if part.quantity and not part.is_option]
    held = left_of(shares)
    if not held:
        return None, None
    if len(held) > 1:
        return None, "it has shares of several contracts"

    multipliers = [part.movement.multiplier for part in shares if part.conid in held]
    multiplier = next(filter(None, multipliers), None)
    money = money_of(parts, shares[0].currency)
    if multiplier is None or money.profit is None:
        return None, money.unknown or "the multiplier of its shares is not known"
    [quantity] = held.values()
    return -money.profit / (quantity * multiplier), None


def parts_with_shares(
    campaign: TradedCampaign, states: Iterable[CampaignState], currency: str | None
) -> list[Posting]:
    """Return the parts in a currency until the last close at which it had something but options."""
    shares = {part.conid for part in campaign.parts if not part.is_option}
    sessions = [state.session for state in states if not shares.isdisjoint(state.lots)]
    last = max(sessions, default=date.min)
    return [part for part in campaign.parts_in(currency) if part.session <= last]


def end_of(campaign: TradedCampaign) -> CampaignEnd:
    """Return how a campaign ended."""
    of_last_day = [part for part in campaign.parts if part.session == campaign.closed]
    kinds = {
        part.movement.kind
        for part in of_last_day
        if part.quantity and not part.opens and not part.is_carried
    }

    if MovementKind.ASSIGNMENT in kinds:
        return CampaignEnd.ASSIGNED
    if MovementKind.EXERCISE in kinds:
        return CampaignEnd.EXERCISED
    if kinds and kinds <= {MovementKind.EXPIRATION, MovementKind.CASH_SETTLEMENT}:
        return CampaignEnd.EXPIRED
    if MovementKind.TRANSFER in kinds:
        return CampaignEnd.TRANSFERRED
    return CampaignEnd.CLOSED
