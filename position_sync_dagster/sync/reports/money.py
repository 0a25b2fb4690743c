"""Sums of money and greeks by strategy and currency, for the terminal; pure.

Different currencies are never added: each sum has one currency.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from position_sync_dagster.domain.broker_position import Key
from position_sync_dagster.domain.leg import ActiveContract
from position_sync_dagster.domain.update import PositionUpdate
from position_sync_dagster.sync.reports.confirmations import (
    CONFIRMED,
    PRICED,
    feed_of,
    with_priced,
)
from position_sync_dagster.sync.reports.exposure import Exposure, add


@dataclass(frozen=True, slots=True, kw_only=True)
class Money:
    """Sums in one currency over the known values; None if all are unknown.

    Attributes:
        name: The strategy, or the name of the total.
        currency: None for legs that are not held and have never been valued.
        legs, legs_held: The number of active legs, and of those with a holding.
        value: The value of options, stocks and the like, without the notional value of futures.
        gamma: For the whole position; a sum over several underlyings has no meaning.
        oldest_age_s: The age of the oldest price; None without one, or if one is unknown.
        oldest_greeks_s: The age of the oldest greeks; None without any, or if one is unknown.
        delayed: The number of holdings with a price of delayed or frozen market data.
        lines: Market data lines that the legs use; None while no owner is connected, and in a
            total, because strategies share lines.
        unvalued: The number of held legs without a value, which the sums leave out.
        partial: The names of the sums that leave out a held leg.
    """

    name: str
    currency: str | None
    legs: int
    legs_held: int
    value: float | None
    unrealized_pnl: float | None
    daily_pnl: float | None
    dollar_delta: float | None
    gamma: float | None
    theta: float | None
    vega: float | None
    oldest_age_s: float | None
    oldest_greeks_s: float | None
    delayed: int
    lines: int | None
    unvalued: int
    partial: tuple[str, ...] = ()


SUMS = {
    "value": "market_value",
    "unrealized_pnl": "unrealized_pnl",
    "daily_pnl": "daily_pnl",
    "gamma": "gamma",
    "theta": "theta",
    "vega": "vega",
}
"""Each sum, and the column of a row that it adds."""

GREEKS = {"gamma", "theta", "vega"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ages:
    """How old the newest rows are, by (account, conid).

    Attributes:
        confirmed: When the source of each row last confirmed it; None if only a wrong clock gave a
            time.
        priced: When the age of its price begins (`with_priced`); None if that is unknown.
        greeks: When its greeks arrived; only of rows with greeks.
    """

    now: datetime
    confirmed: Mapping[Key, datetime | None]
    priced: Mapping[Key, datetime | None]
    greeks: Mapping[Key, datetime | None]

    @classmethod
    def of(
        cls, latest: pl.DataFrame, holdings: pl.DataFrame, now: datetime, *, band: float
    ) -> "Ages":
        """Return the times of the newest rows that are open.

        Args:
            latest: Rows of `position_updates`.
            holdings: Rows of `broker_positions`.
            now: The current time.
            band: The part of a value by which the broker's may differ, to confirm it.
        """
        rows = with_priced(latest.filter(pl.col("position") != 0), holdings, now, band=band)
        arrived = pl.when(pl.col("delta").is_not_null()).then("greeks_time")
        times = rows.select("account", "conid", CONFIRMED, PRICED, arrived, "delta")
        found: tuple[dict[Key, datetime | None], ...] = ({}, {}, {})
        for account, conid, confirmed, priced, greeks, delta in times.iter_rows():
            key = (account, conid)
            found[0][key], found[1][key] = confirmed, priced
            if delta is not None:
                found[2][key] = greeks
        return cls(now=now, confirmed=found[0], priced=found[1], greeks=found[2])

    def age_s(self, key: Key) -> float | None:
        """Return the age of the price of a holding, in seconds; None if unknown."""
        return self._since_s(self.priced.get(key))

    def greeks_age_s(self, key: Key) -> float | None:
        """Return the age of the greeks of a holding, in seconds; None if unknown."""
        return self._since_s(self.greeks.get(key))

    def oldest_s(self, keys: Iterable[Key]) -> float | None:
        """Return the greatest age of a price in seconds; None if one is unknown, or without any."""
        return _oldest(self.age_s(key) for key in keys)

    def oldest_greeks_s(self, keys: Iterable[Key]) -> float | None:
        """Return the greatest age of greeks, as `oldest_s`; keys without greeks are left out."""
        return _oldest(self.greeks_age_s(key) for key in keys if key in self.greeks)

    def _since_s(self, at: datetime | None) -> float | None:
        return None if at is None else max((self.now - at).total_seconds(), 0.0)


def _oldest(ages: Iterable[float | None]) -> float | None:
    """Return the greatest age; None if one is unknown, or without any."""
    listed = list(ages)
    known = [age for age in listed if age is not None]
    return max(known) if known and len(known) == len(listed) else None


def money_by_strategy(
    exposures: Iterable[Exposure],
    legs: Iterable[ActiveContract],
    latest: Iterable[PositionUpdate],
    ages: Ages,
    streamed: frozenset[int] | None,
) -> list[Money]:
    """Sum the exposures of each strategy over the classes of asset, by currency.

    Args:
        exposures: Rows of the table strategy_exposure, from `exposures`.
        latest: The newest rows.
        streamed: The conids that use a line; None while no owner is connected.
    """
    held: dict[int, list[PositionUpdate]] = defaultdict(list)
    for row in latest:
        if row.position:
            held[row.conid].append(row)
    rows_of: dict[tuple[str, str], dict[Key, PositionUpdate]] = defaultdict(dict)
    for leg in legs:
        for row in held[leg.conid]:
            if leg.removed_at is None and leg.account in (None, row.account):
                rows_of[leg.strategy_id, row.currency][row.account, row.conid] = row
    groups: dict[tuple[str, str | None], list[Exposure]] = defaultdict(list)
    for exposure in exposures:
        groups[exposure.strategy_id, exposure.currency].append(exposure)
    found = []
    for (name, currency), group in groups.items():
        keys = rows_of.get((name, currency or ""), {})
        found.append(
            Money(
                name=name,
                currency=currency,
                value=add(e.market_value for e in group),
                gamma=add(e.gamma for e in group),
                **_sums(group),
                oldest_age_s=ages.oldest_s(keys),
                oldest_greeks_s=ages.oldest_greeks_s(keys),
                delayed=sum(feed_of(row) is not None for row in keys.values()),
                lines=None
                if streamed is None
                else len({conid for _, conid in keys}.intersection(streamed)),
                unvalued=sum(e.legs_without_value for e in group),
                partial=incomplete(keys.values()),
            )
        )
    return found


def incomplete(rows: Iterable[PositionUpdate]) -> tuple[str, ...]:
    """Return the names of the sums that leave out some of the rows.

    A stock or a future has no greeks: their sums do not leave it out.
    """
    found = {
        name
        for row in rows
        for name, column in SUMS.items()
        if getattr(row, column) is None and (name not in GREEKS or row.right is not None)
    }
    return tuple(sorted(found | ({"dollar_delta"} if found & GREEKS else set())))


def total_by_currency(parts: Iterable[Money], name: str = "total") -> list[Money]:
    """Add the parts of each currency; a part without a currency is left out.

    A leg that two strategies claim as a whole counts in both, and twice in the total.
    """
    groups: dict[str, list[Money]] = defaultdict(list)
    for part in parts:
        if part.currency is not None:
            groups[part.currency].append(part)
    return [_total(name, currency, groups[currency]) for currency in sorted(groups)]


def _total(name: str, currency: str, parts: Sequence[Money]) -> Money:
    greeks = [p.oldest_greeks_s for p in parts if p.oldest_greeks_s is not None]
    return Money(
        name=name,
        currency=currency,
        value=add(part.value for part in parts),
        gamma=None,
        **_sums(parts),
        oldest_age_s=_oldest(part.oldest_age_s for part in parts if part.legs_held),
        oldest_greeks_s=max(greeks, default=None),
        delayed=sum(part.delayed for part in parts),
        lines=None,  # strategies share lines
        unvalued=sum(part.unvalued for part in parts),
        partial=tuple(sorted({name for part in parts for name in part.partial})),
    )


ADDED = ("legs", "legs_held", "unrealized_pnl", "daily_pnl", "dollar_delta", "theta", "vega")
"""Fields that are added: exposures to the sums of a strategy, strategies to the total."""


def _sums(parts: Sequence[Exposure | Money]) -> dict[str, Any]:
    return {name: add(getattr(part, name) for part in parts) for name in ADDED}
