"""The rows of `closed_campaigns`: movements and strategies joined, with the values of past days.

Money comes from `movements` alone. How a campaign stood while it was open comes from
`daily_positions`, where these have it.
"""

from collections import defaultdict, deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any

import polars as pl

from position_sync_dagster.domain.clock import A_DAY
from position_sync_dagster.domain.holding import KEY, Key, grouped
from position_sync_dagster.domain.instrument import (
    OPTION_TYPES,
    ContractDetails,
    Instrument,
    Right,
)
from position_sync_dagster.domain.leg import ActiveContract
from position_sync_dagster.lake.schema import DAILY_POSITIONS, legs_of, one_of, records_of
from position_sync_dagster.money.campaigns.campaigns import (
    Contract,
    TradedCampaign,
    capital_at_risk,
    closed_campaigns,
    end_of,
    first_state,
    kind_in,
    money_of,
    rolls_in,
    states_of,
)
from position_sync_dagster.money.campaigns.closed_campaign import ClosedCampaign
from position_sync_dagster.money.lake import MoneyLake, derived_rows
from position_sync_dagster.money.magnifiers import usual_magnifier
from position_sync_dagster.money.past.attribution import (
    OwnedPart,
    attributed,
    name_of,
)
from position_sync_dagster.money.past.movement_sources import SINGLE_TYPES
from position_sync_dagster.money.past.movements import Movement, known_sum, rounded, times
from position_sync_dagster.money.past.owned_parts import (
    deciding_movements,
    held_before,
    legs_ever,
    numbers_by_key,
)
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.exchange_days import ExchangeDays, exchange_days

DAYS_OF_A_YEAR = 365


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignValue:
    """How a campaign stood at the close of a trading day; None: not known.

    Attributes:
        value: The value of what it had.
        profit: With the money until then, less fees.
    """

    day: date
    currency: str | None
    value: float | None
    profit: float | None


@dataclass(eq=False, repr=False)
class CampaignBook:
    """All campaigns of a lake, as its tables say them now; blocks.

    Args:
        conids: Only what decides whose these contracts are; None: all.

    Example:
        rows = CampaignBook(lake, settings).rows()
    """

    lake: MoneyLake
    settings: Settings
    conids: Collection[int] | None = None

    @cached_property
    def _rows(self) -> pl.DataFrame:
        rows = self.lake.movements.rows()
        if self.conids is None:
            return rows
        return deciding_movements(rows, self.conids)

    @cached_property
    def movements(self) -> list[Movement]:
        """All movements."""
        return records_of(Movement, self._rows)

    @cached_property
    def parts(self) -> list[OwnedPart]:
        """The parts of movements with their owners, in order of time."""
        before, costs = self._held_before()
        return attributed(self.movements, legs_ever(self.lake), before, costs)

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

    def stood(self, campaign: TradedCampaign, currency: str | None) -> list[CampaignValue]:
        """Return how a campaign stood at each close at which it was held."""
        if campaign.opened is None:
            return []

        waiting = deque(campaign.parts_in(currency))
        held: defaultdict[Key, float] = defaultdict(float)
        money: float | None = 0.0
        stood: list[CampaignValue] = []
        for day in self._calendar.trading_days(campaign.opened, campaign.closed - A_DAY):
            while waiting and waiting[0].movement.session_date <= day:
                part = waiting.popleft()
                held[part.key] += part.quantity
                fee = part.fee_in(part.movement.currency)
                after_fee = known_sum([part.cash, times(fee, -1.0)])
                money = known_sum([money, None if part.unknown else after_fee])

            if any(map(rounded, held.values())):
                value = self._recorded.value_of(held, day)
                profit = known_sum([money, value])
                stood.append(CampaignValue(day=day, currency=currency, value=value, profit=profit))
        return stood

    def contracts_of(self, campaign: TradedCampaign) -> dict[int, Contract]:
        """Return what is known of the contracts of a campaign."""
        return {conid: self._contracts[conid] for conid in campaign.conids}

    def _row(self, campaign: TradedCampaign, currency: str | None) -> ClosedCampaign:
        money = money_of(campaign.parts_in(currency), campaign.fees_beside(currency))
        contracts = self.contracts_of(campaign)
        states = states_of(campaign)
        kind, why_no_kind = kind_in(first_state(states).lots, contracts)
        risk, why_no_risk = capital_at_risk(states, contracts, currency)
        days = None if campaign.opened is None else (campaign.closed - campaign.opened).days

        reasons = {"kind": why_no_kind, "capital_at_risk": why_no_risk}
        if campaign.opened is None:
            reasons["opened"] = "it was held before all movements"
        if not risk and risk is not None:
            reasons["return_on_risk"] = "nothing was at risk"
        earned = None if not risk or money.profit is None else money.profit / risk
        per_year = None
        if earned is not None and days is not None:
            per_year = earned * DAYS_OF_A_YEAR / max(days, 1)

        symbols = {part.movement.symbol or "?" for part in campaign.parts}
        names = [contracts[conid].name for conid in campaign.conids]
        standing = _standing(campaign, money.profit, self.stood(campaign, currency), reasons)
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
            rolls=len(rolls_in(states, contracts)),
            profit=money.profit,
            fees=money.fees,
            premium_received=money.received,
            premium_paid=money.paid,
            capital_at_risk=risk,
            return_on_risk=earned,
            return_per_year=per_year,
            **standing,
            profit_unknown=money.unknown,
            why_unknown="; ".join(unknown) or None,
        )

    # -- what is read -------------------------------------------------------------------------

    def _held_before(self) -> tuple[dict[Key, float], dict[Key, float]]:
        """Return what was held before the first movements, and its cost, where tables say it."""
        names = ["account", "conid", "before", "average_cost", "seen_at", "since"]
        changes = self.lake.position_changes.table.rows(columns=names)
        before, costs = held_before(self._rows, changes)
        moved = self._rows.filter(pl.col("quantity") != 0)
        first = moved.group_by(KEY).agg(first=pl.col("session_date").min())
        recorded = self._recorded.rows.join(first, on=KEY).sort("session_date")
        is_earlier = pl.col("session_date") < pl.col("first")
        last_before = recorded.filter(is_earlier).unique(KEY, keep="last")
        held = before | numbers_by_key(last_before, "position")
        costs_of_held = {key: cost for key, cost in costs.items() if held[key] == before[key]}
        return {key: quantity for key, quantity in held.items() if quantity}, costs_of_held

    @cached_property
    def _recorded(self) -> "RecordedValues":
        return RecordedValues(self.lake, set(self._rows["conid"].drop_nulls()))

    @cached_property
    def _calendar(self) -> ExchangeDays:
        days = [movement.session_date for movement in self.movements]
        return exchange_days(self.settings.calendar, min(days), max(days))

    @cached_property
    def _contracts(self) -> dict[int, Contract]:
        """What is known of each contract: from its movements, its details and its legs."""
        with_contract = [movement for movement in self.movements if movement.conid is not None]
        by_conid = grouped(lambda movement: movement.key[1], with_contract)
        details = self.lake.contracts.get(by_conid)
        history = self.lake.registry.sync.history().filter(one_of("conid", by_conid))
        legs = {leg.conid: leg for leg in legs_of(history) if isinstance(leg, ActiveContract)}
        return {
            conid: contract_of(movements, details.get(conid), legs.get(conid))
            for conid, movements in by_conid.items()
        }


def _standing(
    campaign: TradedCampaign,
    profit: float | None,
    stood: Sequence[CampaignValue],
    reasons: dict[str, str | None],
) -> dict[str, Any]:
    """Return how it stood while it was open, as columns; add why it is not known."""
    at_closes = [at_close.profit for at_close in stood if at_close.profit is not None]
    columns: dict[str, Any] = {"closes": len(stood), "closes_known": len(at_closes)}
    columns |= dict.fromkeys(("worst", "best", "profit_at_half"))
    if at_closes and profit is not None:
        columns["worst"] = min(profit, *at_closes)
        columns["best"] = max(profit, *at_closes)
    else:
        reasons["worst"] = reasons["best"] = "its value is known at no close"

    if campaign.opened is not None:
        half = campaign.opened + (campaign.closed - campaign.opened) / 2
        until_half = [at_close.profit for at_close in stood if at_close.day <= half]
        columns["profit_at_half"] = until_half[-1] if until_half else None
    if columns["profit_at_half"] is None:
        reasons["profit_at_half"] = "its value at that close is not known"
    return columns


def contract_of(
    movements: Sequence[Movement], details: ContractDetails | None, leg: ActiveContract | None
) -> Contract:
    """Return what is known of a contract; pure."""
    stated = next((movement for movement in movements if movement.right), movements[0])
    sources = [source for source in (stated, details, leg) if source is not None]
    right = next((source.right for source in sources if source.right), None)
    strike = next((source.strike for source in sources if source.strike is not None), None)
    expiry = stated.expiry or (leg.expiry if leg is not None else None)
    if details is not None:
        expiry = details.expires_on or details.last_trade_date or expiry

    stated_multiplier = None if details is None else details.multiplier
    multipliers = (movement.multiplier for movement in movements if movement.multiplier)
    multiplier = next(multipliers, stated_multiplier)
    if stated.sec_type in SINGLE_TYPES:
        multiplier = 1.0

    symbol = stated.symbol or f"{stated.conid}"
    is_option = stated.sec_type in OPTION_TYPES
    lacks_terms = is_option and None in (right, strike, expiry)
    instrument = None
    if multiplier is not None and stated.currency is not None and not lacks_terms:
        instrument = Instrument(
            conid=stated.conid or 0,
            symbol=symbol,
            sec_type=stated.sec_type or "",
            currency=stated.currency,
            multiplier=multiplier,
            right=Right(right) if right else None,
            strike=strike if is_option else None,
            expiry=expiry,
        )
    magnifier = usual_magnifier(stated.sec_type, stated.currency)
    if details is not None and details.price_magnifier:
        magnifier = float(details.price_magnifier)
    return Contract(name=name_of(stated), instrument=instrument, magnifier=magnifier)


class RecordedValues:
    """What was recorded of some contracts at past closes.

    Attributes:
        rows: Their rows of `daily_positions`: session_date, account, conid, position, market_value.
    """

    def __init__(self, lake: MoneyLake, conids: Collection[int]) -> None:
        columns = ["session_date", *KEY, "position", "market_value"]
        table = lake.derived_table(DAILY_POSITIONS)
        self.rows = derived_rows(table, one_of("conid", conids), columns=columns)
        valued = self.rows.filter(pl.col("position") != 0).drop_nulls("market_value")
        self._units = {
            (account, conid, day): value / position
            for day, account, conid, position, value in valued.iter_rows()
        }

    def value_of(self, held: Mapping[Key, float], day: date) -> float | None:
        """Return the value of some quantities at the close of a day; None: not known."""
        open_quantities = {key: quantity for key, quantity in held.items() if rounded(quantity)}
        return known_sum(
            times(self._units.get((*key, day)), quantity)
            for key, quantity in open_quantities.items()
        )
