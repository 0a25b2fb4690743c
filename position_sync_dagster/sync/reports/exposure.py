"""The exposure of each strategy by currency and class of asset, from shares of holdings; pure."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeVar

from position_sync_dagster.domain.broker_position import Key
from position_sync_dagster.domain.instrument import ContractDetails, Right
from position_sync_dagster.domain.leg import ActiveContract, contract_mismatch
from position_sync_dagster.domain.update import PositionUpdate
from position_sync_dagster.domain.valuation import FACTOR_TOLERANCE

Number = TypeVar("Number", int, float)


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a holding, from 0 to 1, by its newest row.

    Attributes:
        price_magnifier: The contract's; None if unknown.
    """

    row: PositionUpdate
    share: float
    price_magnifier: int | None

    def of(self, value: float | None) -> float | None:
        """Return this share of a value of the whole holding."""
        return None if value is None else value * self.share

    def greek(self, value: float | None) -> float | None:
        """Return the greek of this part: per unit × quantity × multiplier."""
        if value is None:
            return None
        return value * self.row.position * self.share * self.row.multiplier

    @property
    def dollar_delta(self) -> float | None:
        """The delta of this part × the price of the underlying; the value of a stock or future."""
        if self.row.sec_type in ("STK", "FUT"):
            return self.of(self.row.market_value)
        delta, price = self.greek(self.row.delta), self.row.underlying_price
        if delta is None or price is None or self.price_magnifier is None:
            return None
        return delta * price / self.price_magnifier

    @property
    def in_money(self) -> bool | None:
        """Whether the option is in the money; None if unknown."""
        price, strike = self.row.underlying_price, self.row.strike
        if price is None or strike is None:
            return None
        return price > strike if self.row.right is Right.CALL else price < strike


def shares_of(
    leg: ActiveContract,
    known: Sequence[PositionUpdate],
    rivals: Sequence[ActiveContract],
    magnifier: int | None,
) -> list[Share]:
    """Return the parts of the holdings that belong to a leg; see `exposures`.

    Args:
        leg: The leg.
        known: The newest rows of its contract, in its account or in all.
        rivals: All legs of the same contract, in any strategy.
        magnifier: The price magnifier; None if the contract details are unknown.
    """
    rows = [row for row in known if row.position != 0]
    total = sum(row.position for row in rows)
    if not rows or total == 0:
        return []
    if leg.quantity is not None:
        part = _part(leg.quantity, total)
    else:
        others = (r for r in rivals if r is not leg and r.quantity is not None)
        claimed = sum(r.quantity or 0.0 for r in others if r.account in (None, leg.account))
        part = 1.0 - _part(claimed, total)
    if not part:
        return []
    return [Share(row, part, magnifier or _magnifier_of(row)) for row in rows]


def _magnifier_of(row: PositionUpdate) -> int | None:
    """Return the price magnifier by which a row was valued; None if it cannot be derived.

    The row has price, quantity, multiplier and value; a magnifier is 1, or 100 for cents.
    """
    if not row.market_price or not row.market_value:
        return None
    quoted = row.position * row.market_price * row.multiplier
    for magnifier in (1, 100):
        expected = quoted / magnifier
        if abs(row.market_value - expected) <= FACTOR_TOLERANCE * abs(expected):
            return magnifier
    return None


def _part(quantity: float, total: float) -> float:
    """Return a leg's quantity as a share of the holding, from 0 to 1.

    A greater quantity counts as the whole holding, and one of the opposite sign as 0.
    """
    return min(max(quantity / total, 0.0), 1.0)


class AssetClass(StrEnum):
    """Classes of assets with separate sums: a future's value is notional, an option's a premium."""

    OPTION = "OPTION"
    STOCK = "STOCK"
    FUTURE = "FUTURE"
    OTHER = "OTHER"
    UNKNOWN = "UNKNOWN"


_CLASSES = {
    "OPT": AssetClass.OPTION,
    "FOP": AssetClass.OPTION,
    "STK": AssetClass.STOCK,
    "FUT": AssetClass.FUTURE,
}

EXPIRES_SOON = timedelta(days=5)
"""A leg that expires within this time is counted in `legs_expiring`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """One strategy in one currency and class; the sums leave out unknown values.

    Attributes:
        currency: None for legs that are not held and have never been valued.
        legs, legs_held: The number of active legs, and of those with a holding.
        market_value, unrealized_pnl: In `currency`; None if they are unknown for every leg.
        notional: The market value of futures, which is never added to that of other classes.
        delta, gamma, vega, theta: For the whole position: per unit × quantity × multiplier.
        legs_without_value, legs_without_greeks: Legs that the sums leave out: held legs without the
            value, and legs whose description does not match the contract of their conid.
        oldest_value_at: When the oldest value in the sums was last confirmed by its source.
        dollar_delta: In `currency`: delta × quantity × multiplier × price of the underlying, which
            may be added over underlyings. For a stock or a future it is the value.
        by_underlying: JSON: symbol → delta, gamma, vega, theta and dollar_delta of its legs.
        daily_pnl: In `currency`; None if it is unknown for every leg.
        worst_value_age_s: Age of the oldest value in seconds. A value without a time of its source
            is at least as old as its row.
        legs_without_value_time: Held legs with a value whose source gave no time.
        legs_expiring: Held legs that expire within 5 days, or have expired.
        short_legs_in_money: Short options in the money, by the price of their underlying.
        short_legs_unknown: Short options for which that price is not known.
        mismatches: Legs whose description does not match the contract of their conid, each with the
            difference. The holding of that conid may not be the intended one.
    """

    strategy_id: str
    currency: str | None
    asset_class: AssetClass
    legs: int
    legs_held: int
    market_value: float | None
    notional: float | None
    unrealized_pnl: float | None
    delta: float | None
    gamma: float | None
    vega: float | None
    theta: float | None
    legs_without_value: int
    legs_without_greeks: int
    oldest_value_at: datetime | None
    dollar_delta: float | None
    by_underlying: str | None
    daily_pnl: float | None
    worst_value_age_s: float | None
    legs_without_value_time: int
    legs_expiring: int
    short_legs_in_money: int
    short_legs_unknown: int
    mismatches: str | None


def exposures(
    legs: Iterable[ActiveContract],
    latest: Iterable[PositionUpdate],
    *,
    now: datetime | None = None,
    details: Mapping[int, ContractDetails] | None = None,
    confirmed: Mapping[Key, datetime | None] | None = None,
) -> list[Exposure]:
    """Sum the latest rows over the legs of each strategy.

    A leg with a quantity has that share of the holding. A leg without one has the rest, which no
    other strategy claims. A leg without an account has its share of the holdings of all accounts
    together. A leg whose description does not match the contract of its conid has no share.

    Args:
        legs: The active legs.
        latest: The newest row per (account, conid).
        now: The reference time of ages and days to expiry; None for the time of the newest row.
        details: The known contract details, by conid. Without them, the price magnifier of a
            contract is derived from its value.
        confirmed: When the source of a row last confirmed its value, if known.
    """
    latest = list(latest)
    now = now or max((row.timestamp for row in latest), default=None)
    held: dict[int, list[PositionUpdate]] = defaultdict(list)
    for row in latest:
        held[row.conid].append(row)
    active = [leg for leg in legs if leg.removed_at is None]
    contracts = details or {}
    mismatches = {
        leg.key: difference
        for leg in active
        if (contract := contracts.get(leg.conid)) is not None
        and (difference := contract_mismatch(leg, contract)) is not None
    }
    rivals: dict[int, list[ActiveContract]] = defaultdict(list)
    for leg in active:
        if leg.key not in mismatches:
            rivals[leg.conid].append(leg)

    groups: dict[tuple[str, str | None, AssetClass], _Group] = defaultdict(_Group)
    for leg in active:
        known = _in_account(leg, held.get(leg.conid, ()))
        contract = contracts.get(leg.conid)
        magnifier = contract.price_magnifier if contract else None
        shares = shares_of(leg, known, rivals[leg.conid], magnifier)
        currency = known[0].currency if known else None
        kind = _CLASSES.get(known[0].sec_type, AssetClass.OTHER) if known else AssetClass.UNKNOWN
        group = groups[leg.strategy_id, currency, kind]
        group.legs_held += bool(shares)
        if leg.key in mismatches:
            group.mismatches.append(f"{leg.conid}: {mismatches[leg.key]}")
        else:
            group.legs.append(shares)
    return [
        _exposure(key, groups[key], now, confirmed or {})
        for key in sorted(groups, key=lambda k: (k[0], k[1] or "", k[2]))
    ]


@dataclass(slots=True)
class _Group:
    """The legs of one strategy, currency and class: their shares, and the mismatches."""

    legs: list[list[Share]] = field(default_factory=list)
    legs_held: int = 0
    mismatches: list[str] = field(default_factory=list)


def _in_account(leg: ActiveContract, rows: Sequence[PositionUpdate]) -> list[PositionUpdate]:
    return [row for row in rows if leg.account in (None, row.account)]


def _exposure(
    key: tuple[str, str | None, AssetClass],
    group: _Group,
    now: datetime | None,
    confirmed: Mapping[Key, datetime | None],
) -> Exposure:
    strategy_id, currency, kind = key
    legs, mismatched = group.legs, len(group.mismatches)
    shares = [share for leg in legs for share in leg]
    values = [s.of(s.row.market_value) for s in shares]
    greeks = _greeks(shares)
    times = [
        confirmed.get((s.row.account, s.row.conid)) or s.row.value_time or s.row.timestamp
        for s in shares
    ]
    return Exposure(
        strategy_id=strategy_id,
        currency=currency,
        asset_class=kind,
        legs=len(legs) + mismatched,
        legs_held=group.legs_held,
        market_value=None if kind is AssetClass.FUTURE else add(values),
        notional=add(values) if kind is AssetClass.FUTURE else None,
        unrealized_pnl=add(s.of(s.row.unrealized_pnl) for s in shares),
        **greeks,
        legs_without_value=mismatched
        + sum(any(s.row.market_value is None for s in leg) for leg in legs),
        legs_without_greeks=mismatched + sum(any(s.row.delta is None for s in leg) for leg in legs),
        oldest_value_at=min(times, default=None),
        dollar_delta=add(s.dollar_delta for s in shares),
        by_underlying=_by_underlying(shares),
        daily_pnl=add(s.of(s.row.daily_pnl) for s in shares),
        worst_value_age_s=(now - min(times)).total_seconds() if now and times else None,
        legs_without_value_time=sum(
            any(s.row.market_value is not None and s.row.value_time is None for s in leg)
            for leg in legs
        ),
        legs_expiring=sum(any(_expires_soon(s.row, now) for s in leg) for leg in legs),
        short_legs_in_money=sum(any(s.in_money for s in _short(leg)) for leg in legs),
        short_legs_unknown=sum(any(s.in_money is None for s in _short(leg)) for leg in legs),
        mismatches="; ".join(sorted(group.mismatches)) or None,
    )


def _by_underlying(shares: Sequence[Share]) -> str | None:
    """Return the sums of each underlying as JSON; greeks of different underlyings are not added."""
    groups: dict[str, list[Share]] = defaultdict(list)
    for share in shares:
        groups[share.row.symbol].append(share)
    sums = {
        symbol: {**_greeks(group), "dollar_delta": add(s.dollar_delta for s in group)}
        for symbol, group in sorted(groups.items())
    }
    return json.dumps(sums) if sums else None


def _expires_soon(row: PositionUpdate, now: datetime | None) -> bool:
    return row.expiry is not None and now is not None and row.expiry <= (now + EXPIRES_SOON).date()


def _short(leg: Sequence[Share]) -> list[Share]:
    """Return the parts of a leg that are short options."""
    return [s for s in leg if s.row.right is not None and s.row.position < 0]


def _greeks(shares: Sequence[Share]) -> Mapping[str, float | None]:
    return {
        name: add(share.greek(getattr(share.row, name)) for share in shares)
        for name in ("delta", "gamma", "vega", "theta")
    }


def add(values: Iterable[Number | None]) -> Number | None:
    """Return the sum of the known values; None if all are unknown."""
    known = [value for value in values if value is not None]
    return sum(known[1:], known[0]) if known else None
