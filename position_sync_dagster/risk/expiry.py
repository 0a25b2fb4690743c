"""What expires, what it leaves, and which short options may be assigned early."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import polars as pl

from position_sync_dagster.risk import model
from position_sync_dagster.risk.scenarios import PricedLegs
from position_sync_dagster.risk.terms import (
    ON_FUTURE,
    DatedDividend,
    OptionTerms,
    years_between,
)

PINNED = 0.005
"""An option is pinned whose strike is within this share of the price."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expiry:
    """What one leg of a strategy leaves if it ended at the present price.

    Attributes:
        units: Shares or futures that come; below 0 they go. 0 of what is settled in cash.
        cash: Money that comes, in the currency; below 0 it is needed.
        is_pinned: Whether the strike is so near to the price that either may happen.
        is_cash_settled: Whether money alone changes hands.
        is_in_the_morning: Whether the settlement follows the open of the day.
        is_uncovered: Whether shares must be delivered that the strategy does not have.
        moneyness: The price above the strike of a call, or below that of a put, as a share of it.
    """

    strategy_id: str
    account: str
    conid: int
    symbol: str
    currency: str
    expires_at: datetime
    position: float
    units: float
    cash: float
    is_pinned: bool
    is_cash_settled: bool
    is_in_the_morning: bool
    is_uncovered: bool
    moneyness: float


def expiries(legs: PricedLegs, *, until: date) -> list[Expiry]:
    """Return what each leg leaves that expires until a day; one without a price is left out."""
    shares: dict[tuple[str, str, str], float] = {}
    for row in legs.parts.filter(pl.col("sec_type") == "STK").iter_rows(named=True):
        key = (row["strategy_id"], row["account"], row["symbol"])
        shares[key] = shares.get(key, 0.0) + row["position"] * row["share"]
    found = []
    for row, terms in _options(legs):
        if terms.expires_at.date() > until or not row["spot"]:
            continue
        side = 1.0 if terms.right == "CALL" else -1.0
        quantity, spot = row["position"] * row["share"], row["spot"]
        worth = max(0.0, side * (spot - terms.strike))
        details = legs.given.details.get(row["conid"])
        in_cash = details is not None and details.under_sec_type == "IND"
        size = quantity * row["multiplier"]
        units = 0.0 if in_cash or not worth else side * size
        held = shares.get((row["strategy_id"], row["account"], row["symbol"]), 0.0)
        found.append(
            Expiry(
                strategy_id=row["strategy_id"],
                account=row["account"],
                conid=row["conid"],
                symbol=row["symbol"],
                currency=row["currency"],
                expires_at=terms.expires_at,
                position=quantity,
                units=units / row["multiplier"] if terms.exercise in ON_FUTURE else units,
                cash=size * worth if in_cash else -units * terms.strike,
                is_pinned=abs(spot - terms.strike) <= PINNED * spot,
                is_cash_settled=in_cash,
                is_in_the_morning=details is not None and details.is_settled_at_the_open,
                is_uncovered=units < 0 and held + units < 0,
                moneyness=side * (spot - terms.strike) / terms.strike,
            )
        )
    return sorted(found, key=lambda one: (one.expires_at, one.strategy_id, one.conid))


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyAssignment:
    """A short option that its holder may exercise early.

    Attributes:
        extrinsic: What the option is worth above its exercise, for one unit.
        gain: What its holder gains by exercise: the dividend, or the interest until expiry.
        ex_date: When the dividend goes, of a call.
    """

    strategy_id: str
    account: str
    conid: int
    symbol: str
    position: float
    extrinsic: float
    gain: float
    ex_date: datetime | None


def early_assignments(legs: PricedLegs) -> list[EarlyAssignment]:
    """Return the short American options whose holder gains more by exercise than they are worth.

    A call is exercised for the dividends before its expiry, a put for the interest on its strike.
    Where no dividend is known, nothing is said of a call.
    """
    found = []
    now = legs.given.now
    for row, terms in _options(legs):
        price = _price(row)
        if row["position"] >= 0 or not row["spot"] or price is None:
            continue
        if terms.exercise is not model.Exercise.AMERICAN or terms.expires_at <= now:
            continue
        side = 1.0 if terms.right == "CALL" else -1.0
        worth = side * (row["spot"] - terms.strike)
        paid = next_dividend(terms.dividends or (), now, terms.expires_at)
        if side > 0:
            gain = paid.amount or paid.share * row["spot"] if paid is not None else 0.0
        else:
            years = years_between(now, terms.expires_at)
            gain = terms.strike * (1 - math.exp(-terms.rate * years))
        if worth > 0 and gain > 0 and price - worth < gain:
            found.append(
                EarlyAssignment(
                    strategy_id=row["strategy_id"],
                    account=row["account"],
                    conid=row["conid"],
                    symbol=row["symbol"],
                    position=row["position"] * row["share"],
                    extrinsic=max(0.0, price - worth),
                    gain=gain,
                    ex_date=paid.ex_date if side > 0 and paid is not None else None,
                )
            )
    return found


def next_dividend(
    dividends: Sequence[DatedDividend], now: datetime, until: datetime
) -> DatedDividend | None:
    """Return the next dividend before an expiry."""
    coming = [one for one in dividends if now < one.ex_date <= until]
    return min(coming, key=lambda one: one.ex_date, default=None)


def _options(legs: PricedLegs) -> list[tuple[dict[str, Any], OptionTerms]]:
    """Return each part of an option whose terms are known, with these."""
    rows = legs.with_units.iter_rows(named=True)
    pairs = ((row, legs.terms[row["unit"]]) for row in rows)
    return [(row, terms) for row, terms in pairs if terms is not None]


def _price(row: Mapping[str, Any]) -> float | None:
    """Return the price of one unit, from the value of the part."""
    size = row["position"] * row["multiplier"] * row["share"]
    value = row["market_value"]
    return None if value is None or not size else value / size
