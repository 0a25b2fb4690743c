"""The exposure of each strategy, by currency and class of asset; pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from position_sync_dagster.domain.leg import ActiveContract
from position_sync_dagster.domain.update import PositionUpdate


class AssetClass(StrEnum):
    """Classes that may be summed: a future's market value is notional, an option's is a premium."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """One strategy in one currency and class; the sums leave out unknown values.

    Attributes:
        currency: None for legs that are not held and have never been valued.
        legs, legs_held: Active legs, and those with a holding.
        market_value, unrealized_pnl: In `currency`; None when they are known for no leg.
        notional: The market value of futures, which is never added to that of other classes.
        delta, gamma, vega, theta: Of the whole position: per unit × quantity × multiplier.
        legs_without_value, legs_without_greeks: Held legs that the sums leave out.
        oldest_value_at: Time of the oldest value in the sums.
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


@dataclass(frozen=True, slots=True)
class _Share:
    row: PositionUpdate
    share: float

    def of(self, value: float | None) -> float | None:
        return None if value is None else value * self.share

    def greek(self, value: float | None) -> float | None:
        if value is None:
            return None
        return value * self.row.position * self.share * self.row.multiplier


def exposures(legs: Iterable[ActiveContract], latest: Iterable[PositionUpdate]) -> list[Exposure]:
    """Sum the latest rows over the legs of each strategy.

    A leg with a quantity has that part of the holding. A leg without one has the rest, which no
    other strategy claims. A leg without an account has its part of the holdings of all accounts
    together.

    Args:
        legs: The active legs.
        latest: The newest row per (account, conid).
    """
    held: dict[int, list[PositionUpdate]] = defaultdict(list)
    for row in latest:
        held[row.conid].append(row)
    active = [leg for leg in legs if leg.removed_at is None]
    rivals: dict[int, list[ActiveContract]] = defaultdict(list)
    for leg in active:
        rivals[leg.conid].append(leg)

    groups: dict[tuple[str, str | None, AssetClass], list[list[_Share]]] = defaultdict(list)
    for leg in active:
        known = _in_account(leg, held.get(leg.conid, ()))
        shares = _shares(leg, known, rivals[leg.conid])
        currency = known[0].currency if known else None
        kind = _CLASSES.get(known[0].sec_type, AssetClass.OTHER) if known else AssetClass.UNKNOWN
        groups[leg.strategy_id, currency, kind].append(shares)
    return [
        _exposure(key, groups[key])
        for key in sorted(groups, key=lambda k: (k[0], k[1] or "", k[2]))
    ]


def _in_account(leg: ActiveContract, rows: Sequence[PositionUpdate]) -> list[PositionUpdate]:
    return [row for row in rows if leg.account in (None, row.account)]


def _shares(
    leg: ActiveContract, known: Sequence[PositionUpdate], rivals: Sequence[ActiveContract]
) -> list[_Share]:
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
    return [_Share(row, part) for row in rows] if part else []


def _part(quantity: float, total: float) -> float:
    """Return a quantity as a part of the holding, from 0 to 1.

    More than the holding counts as all of it; a quantity on the other side counts as nothing.
    """
    return min(max(quantity / total, 0.0), 1.0)


def _exposure(
    key: tuple[str, str | None, AssetClass], legs: Sequence[Sequence[_Share]]
) -> Exposure:
    strategy_id, currency, kind = key
    shares = [share for leg in legs for share in leg]
    values = [s.of(s.row.market_value) for s in shares]
    greeks = _greeks(shares)
    times = [s.row.value_time or s.row.timestamp for s in shares]
    return Exposure(
        strategy_id=strategy_id,
        currency=currency,
        asset_class=kind,
        legs=len(legs),
        legs_held=sum(bool(leg) for leg in legs),
        market_value=None if kind is AssetClass.FUTURE else _sum(values),
        notional=_sum(values) if kind is AssetClass.FUTURE else None,
        unrealized_pnl=_sum(s.of(s.row.unrealized_pnl) for s in shares),
        **greeks,
        legs_without_value=sum(any(s.row.market_value is None for s in leg) for leg in legs),
        legs_without_greeks=sum(any(s.row.delta is None for s in leg) for leg in legs),
        oldest_value_at=min(times, default=None),
    )


def _greeks(shares: Sequence[_Share]) -> Mapping[str, float | None]:
    return {
        name: _sum(share.greek(getattr(share.row, name)) for share in shares)
        for name in ("delta", "gamma", "vega", "theta")
    }


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
