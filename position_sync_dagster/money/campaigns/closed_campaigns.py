"""The rows of `closed_campaigns`: movements and strategies joined, with the values of past days.

Money comes from `movements` alone. How a campaign stood while it was open, and its greeks, come
from `daily_positions` and the ledger, where these have them.
"""

from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from itertools import chain, pairwise
from operator import attrgetter
from typing import Any

import polars as pl
from polars import col

from position_sync_dagster.domain.clock import A_DAY
from position_sync_dagster.domain.holding import Key, grouped
from position_sync_dagster.domain.instrument import (
    OPTION_TYPES,
    ContractDetails,
    Instrument,
    Right,
)
from position_sync_dagster.domain.leg import ActiveContract
from position_sync_dagster.lake.schema import DAILY_POSITIONS, legs_of, one_of, records_of
from position_sync_dagster.money.campaigns.campaigns import (
    CampaignMoney,
    CampaignState,
    Contract,
    Contracts,
    Lots,
    Openings,
    TradedCampaign,
    capital_at_risk,
    closed_campaigns,
    end_of,
    first_state,
    kind_in,
    last_state,
    money_of,
    rolls_in,
    states_of,
)
from position_sync_dagster.money.campaigns.closed_campaign import ClosedCampaign
from position_sync_dagster.money.lake import MoneyLake
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
)
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.exchange_days import ExchangeDays, days_between, exchange_days

DAYS_OF_A_YEAR = 365

# The least and the most that a campaign stood at the moments at which the ledger knows its value,
# and how many these are.
LedgerExtremes = tuple[float, float, int]


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
        if not self.campaigns:
            return []

        openings = Openings(self.parts)
        moments: list[tuple[datetime, list[int]]] = []
        for campaign in self.campaigns:
            states = states_of(campaign)
            moments.append((first_state(states).at, campaign.conids))
            moments.append((states[-1].at, campaign.conids))
        self._recorded.read_moments(moments)

        in_currencies = [
            (campaign, currency) for campaign in self.campaigns for currency in campaign.currencies
        ]
        parts = [campaign.parts_in(currency) for campaign, currency in in_currencies]
        extremes = ledger_extremes(parts, self._recorded)
        return [
            self._row(campaign, currency, openings, extremes.get(number))
            for number, (campaign, currency) in enumerate(in_currencies)
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
                money = with_money(money, part)

            if any(map(rounded, held.values())):
                value = self._recorded.value_of(held, day)
                profit = known_sum([money, value])
                at_close = CampaignValue(day=day, currency=currency, value=value, profit=profit)
                stood.append(at_close)
        return stood

    def contracts_of(self, campaign: TradedCampaign) -> dict[int, Contract]:
        """Return what is known of the contracts of a campaign."""
        return {conid: self._contracts[conid] for conid in campaign.conids}

    def _row(
        self,
        campaign: TradedCampaign,
        currency: str | None,
        openings: Openings,
        in_ledger: LedgerExtremes | None,
    ) -> ClosedCampaign:
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
        extremes = _extremes(campaign, money, self.stood(campaign, currency), in_ledger, reasons)
        greeks = self._greeks_at_ends(states, contracts, reasons)
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
            ended=end_of(campaign, openings),
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
            **extremes,
            **greeks,
            profit_unknown=money.unknown,
            why_unknown="; ".join(unknown) or None,
        )

    def _greeks_at_ends(
        self,
        states: Sequence[CampaignState],
        contracts: Contracts,
        reasons: dict[str, str | None],
    ) -> dict[str, Any]:
        """Return the greeks at both ends, as columns; add why they are not known."""
        first = first_state(states)
        last = last_state(states)
        account = first.parts[0].key[0]
        columns = {}
        for end, state, at in (("entry", first, first.at), ("exit", last, states[-1].at)):
            greeks = self._recorded.greeks_of(account, state.lots, contracts, at)
            for name in ("delta", "vega", "theta", "implied_vol", "age_s"):
                columns[f"{end}_{name}"] = getattr(greeks, name)

            expiry = _next_expiry(state.lots, contracts)
            days_to_expiry = None if expiry is None else (expiry - at.date()).days
            columns[f"{end}_days_to_expiry"] = days_to_expiry
            reasons[f"{end} greeks"] = greeks.why
            reasons[f"{end}_days_to_expiry"] = None if expiry else "no expiry is known"
        return columns

    # -- what is read -------------------------------------------------------------------------

    def _held_before(self) -> tuple[dict[Key, float], dict[Key, float]]:
        """Return what was held before the first movements, and its cost, where tables say it."""
        names = ["account", "conid", "before", "average_cost", "seen_at", "since"]
        changes = self.lake.position_changes.table.rows(columns=names)
        before, costs = held_before(self._rows, changes)
        held = dict(before)
        for key, days in self._recorded.quantities.items():
            sessions = [part.session_date for part in self._of_holding[key] if part.quantity]
            earlier = [day for day in days if sessions and day < min(sessions)]
            if earlier:
                held[key] = days[max(earlier)]
        costs_of_held = {key: cost for key, cost in costs.items() if held[key] == before[key]}
        return {key: quantity for key, quantity in held.items() if quantity}, costs_of_held

    @cached_property
    def _of_holding(self) -> Mapping[Key, list[Movement]]:
        with_contract = [movement for movement in self.movements if movement.conid is not None]
        return grouped(attrgetter("key"), with_contract)

    @cached_property
    def _recorded(self) -> "RecordedValues":
        conids = {movement.conid for movement in self.movements if movement.conid is not None}
        return RecordedValues(self.lake, conids)

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


def _extremes(
    campaign: TradedCampaign,
    money: CampaignMoney,
    stood: Sequence[CampaignValue],
    in_ledger: LedgerExtremes | None,
    reasons: dict[str, str | None],
) -> dict[str, Any]:
    """Return how it stood while it was open, as columns; add why it is not known."""
    profits = [at_close.profit for at_close in stood if at_close.profit is not None]
    closes_known = len(profits)
    moments_known = 0
    if in_ledger is not None:
        *extremes, moments_known = in_ledger
        profits += extremes

    is_known = bool(profits) and money.profit is not None
    if is_known:
        profits.append(money.profit)  # type: ignore[arg-type]
    else:
        reasons["worst"] = "its value is known at no moment"
        reasons["best"] = reasons["worst"]

    profit_at_half = None
    if campaign.opened is not None:
        half = campaign.opened + (campaign.closed - campaign.opened) / 2
        until_half = [at_close for at_close in stood if at_close.day <= half]
        profit_at_half = until_half[-1].profit if until_half else None
    if profit_at_half is None:
        reasons["profit_at_half"] = "its value at that close is not known"
    return {
        "closes": len(stood),
        "closes_known": closes_known,
        "moments_known": moments_known,
        "worst": min(profits) if is_known else None,
        "best": max(profits) if is_known else None,
        "profit_at_half": profit_at_half,
    }


def _next_expiry(conids: Iterable[int], contracts: Contracts) -> date | None:
    """Return the first known expiry of contracts; None without any."""
    instruments = [contracts[conid].instrument for conid in conids]
    expiries = [instrument.expiry for instrument in instruments if instrument is not None]
    return min(filter(None, expiries), default=None)


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


# ---- what was recorded of contracts: values and greeks

# How far from a trade a row of the ledger may be whose greeks are those of the trade.
NEAR = timedelta(hours=1)

# How often a day the values of the ledger are looked at: each five minutes.
LOOKS_A_DAY = 288

_GREEKS = ("delta", "vega", "theta", "implied_vol")
_DAILY = ["session_date", "account", "conid", "position", "market_value", "timestamp", *_GREEKS]


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignGreeks:
    """The greeks of what a campaign had at a moment; None: not known.

    Attributes:
        age_s: How far the oldest of them is from the moment, in seconds.
        why: Why they are not known.
    """

    delta: float | None = None
    vega: float | None = None
    theta: float | None = None
    implied_vol: float | None = None
    age_s: float | None = None
    why: str | None = None


# A row of the ledger or of a past day: its time, and the greeks of one unit.
_Row = tuple[datetime, float | None, float | None, float | None, float | None]


@dataclass(eq=False, repr=False)
class RecordedValues:
    """The values and greeks that were recorded of some contracts.

    Attributes:
        quantities: The position of each holding on each recorded day.
    """

    lake: MoneyLake
    conids: Collection[int]
    quantities: dict[Key, dict[date, float]] = field(default_factory=dict, init=False)
    _units: dict[tuple[str, int, date], float] = field(default_factory=dict, init=False)
    _rows: defaultdict[Key, list[_Row]] = field(
        default_factory=lambda: defaultdict(list), init=False
    )

    def __post_init__(self) -> None:
        table = self.lake.derived_table(DAILY_POSITIONS)
        if not table.exists():
            return
        rows = table.rows(one_of("conid", self.conids), columns=_DAILY).sort("session_date")
        for day, account, conid, position, value in rows.select(_DAILY[:5]).iter_rows():
            self.quantities.setdefault((account, conid), {})[day] = position
            if position and value is not None:
                self._units[account, conid, day] = value / position
        self._add_rows(rows.drop_nulls("timestamp"))

    def _add_rows(self, rows: pl.DataFrame) -> None:
        """Keep the rows that have greeks."""
        with_greeks = rows.drop_nulls("delta").select("account", "conid", "timestamp", *_GREEKS)
        for account, conid, *row in with_greeks.iter_rows():
            self._rows[account, conid].append(tuple(row))

    def read_moments(self, moments: Iterable[tuple[datetime, Iterable[int]]]) -> None:
        """Read what the ledger has around some times of some contracts."""
        updates = self.lake.updates.sync
        recorded_days = updates.days()
        for day, of_day in grouped(lambda moment: moment[0].date(), moments).items():
            if day in recorded_days:
                times = [at for at, _conids in of_day]
                conids = set(chain.from_iterable(conids for _at, conids in of_day))
                self._add_rows(updates.between(min(times) - NEAR, max(times) + NEAR, conids))

        for rows_of_holding in self._rows.values():
            rows_of_holding.sort(key=lambda row: row[0])

    def value_of(self, held: Mapping[Key, float], day: date) -> float | None:
        """Return the value of some quantities at the close of a day; None: not known."""
        return known_sum(
            times(self._units.get((account, conid, day)), quantity)
            for (account, conid), quantity in held.items()
            if rounded(quantity)
        )

    def greeks_of(
        self,
        account: str,
        lots: Lots,
        contracts: Contracts,
        at: datetime,
    ) -> CampaignGreeks:
        """Return the greeks of lots at a time; of what is no option delta alone."""
        sums: dict[str, Any] = dict.fromkeys(("delta", "vega", "theta"), 0.0)
        weights = 0.0
        volatility = 0.0
        age_s = 0.0
        for conid, quantity in lots.items():
            contract = contracts[conid]
            if contract.instrument is None:
                return CampaignGreeks(why=f"the terms of {contract.name} are not known")
            units = quantity * contract.instrument.multiplier
            if contract.instrument.right is None:
                sums["delta"] += units
                continue

            row = self._nearest(account, conid, at)
            if row is None or None in row:
                return CampaignGreeks(why=f"none of {contract.name} were recorded")
            seen_at, delta, vega, theta, implied_vol = row
            sums["delta"] += units * delta  # type: ignore[operator]
            sums["vega"] += units * vega  # type: ignore[operator]
            sums["theta"] += units * theta  # type: ignore[operator]
            weight = abs(units * vega)  # type: ignore[operator]
            weights += weight
            volatility += weight * implied_vol  # type: ignore[operator]
            age_s = max(age_s, abs((at - seen_at).total_seconds()))

        mean = volatility / weights if weights else None
        return CampaignGreeks(**sums, implied_vol=mean, age_s=age_s)

    def _nearest(self, account: str, conid: int, at: datetime) -> _Row | None:
        rows = self._rows.get((account, conid), [])
        place = bisect_left(rows, at, key=lambda row: row[0])
        near = rows[max(0, place - 1) : place + 1]
        return min(near, key=lambda row: abs(row[0] - at), default=None)

    def units_of_days(self, conids_on: Mapping[date, Collection[int]]) -> Iterator[pl.DataFrame]:
        """Yield, for each day of the ledger, what one unit was worth, each five minutes.

        Args:
            conids_on: The contracts that are wanted, by UTC day.
        """
        for day in sorted(self.lake.updates.sync.days() & conids_on.keys()):
            begin = datetime.combine(day, time(), UTC)
            rows = self.lake.updates.sync.sampled(
                conids_on[day], begin, begin + timedelta(days=1), LOOKS_A_DAY
            )
            held = rows.filter(col.position != 0, col.market_value.is_not_null())
            unit = col.market_value / col.position
            yield held.select("account", "conid", "timestamp", "slot", unit=unit)


# ---- how campaigns stood between two closes, by the ledger

_SPAN = {
    "number": pl.Int64(), "begin": pl.Datetime("us", "UTC"), "end": pl.Datetime("us", "UTC"),
    "money": pl.Float64(), "legs": pl.Int64(), "account": pl.String(), "conid": pl.Int64(),
    "quantity": pl.Float64(),
}  # fmt: skip


def with_money(money: float | None, part: OwnedPart) -> float | None:
    """Return what a campaign got until a part, with it, less fees; None: not known."""
    fee = part.fee_in(part.movement.currency)
    if part.unknown:
        return None
    return known_sum([money, part.cash, times(fee, -1.0)])


def ledger_extremes(
    parts_of_campaigns: Sequence[Sequence[OwnedPart]], recorded: RecordedValues
) -> dict[int, LedgerExtremes]:
    """Return how campaigns stood, by their place in the sequence; blocks.

    Args:
        parts_of_campaigns: The parts of one currency of each campaign, in order of time.
    """
    spans: list[tuple[object, ...]] = []
    conids_on = defaultdict(set)
    for number, parts in enumerate(parts_of_campaigns):
        for begin, end, money, held in _spans_of(parts):
            for (account, conid), quantity in held.items():
                spans.append((number, begin, end, money, len(held), account, conid, quantity))
                for day in days_between(begin.date(), end.date()):
                    conids_on[day].add(conid)

    table = pl.DataFrame(spans, schema=_SPAN, orient="row")
    of_days = [_stood_on_day(table, units) for units in recorded.units_of_days(conids_on)]
    if not of_days:
        return {}

    by_campaign = pl.concat(of_days).group_by("number")
    rows = by_campaign.agg(col.worst.min(), col.best.max(), col.moments.sum())
    return rows.rows_by_key("number", unique=True)


def _stood_on_day(spans: pl.DataFrame, units: pl.DataFrame) -> pl.DataFrame:
    """Return the extremes of each campaign on one day, where all of its contracts have a value."""
    is_during = col.timestamp.is_between("begin", "end", closed="left")
    during = spans.join(units, on=["account", "conid"]).filter(is_during)

    value = col.quantity * col.unit
    of_span = pl.col("legs", "money").first()
    by_moment = during.group_by("number", "begin", "slot")
    of_moments = by_moment.agg(of_span, value=value.sum(), known=pl.len())

    whole = of_moments.filter(col.known == col.legs)
    profit = col.money + col.value
    moments = pl.len().cast(pl.Int64)
    return whole.group_by("number").agg(worst=profit.min(), best=profit.max(), moments=moments)


# From when until when a campaign had the same, what it had got until then, and what it had.
_Span = tuple[datetime, datetime, float, dict[Key, float]]


def _spans_of(parts: Sequence[OwnedPart]) -> Iterable[_Span]:
    """Yield the spans between the trades of a campaign; those without known money are left out."""
    held: defaultdict[Key, float] = defaultdict(float)
    money: float | None = 0.0
    for part, following in pairwise(parts):
        held[part.key] += part.quantity
        money = with_money(money, part)
        _before, begin = _bounds_of(part)
        end, _after = _bounds_of(following)
        open_quantities = {key: quantity for key, quantity in held.items() if rounded(quantity)}
        if money is not None and open_quantities and begin < end:
            yield begin, end, money, open_quantities


def _bounds_of(part: OwnedPart) -> tuple[datetime, datetime]:
    """Return until when it is certain that a part had not happened, and from when that it had."""
    if not part.is_trade or part.movement.at is not None:
        return part.at, part.at
    begin = datetime.combine(part.movement.day, time(), UTC)
    return begin, begin + A_DAY
