"""The holdings under other prices, volatilities and days.

Each leg keeps its own volatility, whatever the price of its underlying (sticky strike). Shares and
futures follow their price. A leg that cannot be priced is left out and counted, never taken as
zero. The value of a leg is that of the broker, plus what the model says it changes by.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import numpy as np
from polars import DataFrame, Series, col, lit, when

from position_sync_dagster.domain.holding import Key, grouped
from position_sync_dagster.money.risk import model
from position_sync_dagster.money.risk.priced_legs import (
    HOLDING_OF,
    SIZE,
    NewRow,
    PricedLeg,
    PricedLegs,
    Row,
)
from position_sync_dagster.money.risk.scenario_file import Point
from position_sync_dagster.money.sums import sum_if_carried


class Breakdown(StrEnum):
    """What the rows of a result are of."""

    ACCOUNT = "account"
    STRATEGY = "strategy"
    UNDERLYING = "underlying"
    EXPIRY = "expiry"
    LEG = "leg"


# The columns that make a group of each level; the first one names it.
GROUPS = {
    Breakdown.ACCOUNT: ["account", "currency"],
    Breakdown.STRATEGY: ["strategy_id", "account", "currency"],
    Breakdown.UNDERLYING: ["symbol", "account", "currency"],
    Breakdown.EXPIRY: ["expiry", "account", "currency"],
    Breakdown.LEG: ["strategy_id", "account", "conid", "name", "currency"],
}

_COUNTS = ("left_out", "known", "of")
_SUMMED = ("value", "profit", *_COUNTS)


def changes(legs: PricedLegs, points: Sequence[Point]) -> model.Array:
    """Return by how much one unit of each part changes at each point; NaN: unknown."""
    parts = legs.parts
    symbols = parts["symbol"].to_list()
    factors_of = {}
    for symbol in set(symbols):
        factors_of[symbol] = [point.factor(symbol, legs.given.betas) for point in points]

    factors = [factors_of[symbol] for symbol in symbols]
    shape = (len(symbols), len(points))
    spots = parts.select(col.spot.fill_null(np.nan)).to_numpy()
    shifted = np.reshape(factors, shape) * spots

    left_out = parts["reason"].is_not_null().to_numpy()
    change: model.Array = shifted - spots
    change[left_out] = np.nan

    # Many accounts may hold the same: it is priced once.
    options = legs.options
    contracts = parts[options].select("conid", "implied_vol", "spot").rows()
    place_of = dict(zip(contracts, options, strict=True))
    places = [*place_of.values()]
    change[places] = _option_changes(legs, places, shifted[places], points)
    change[options] = change[[place_of[contract] for contract in contracts]]
    return change


def _option_changes(
    legs: PricedLegs, places: Sequence[int], shifted: model.Array, points: Sequence[Point]
) -> model.Array:
    """Return the changes of options, by the places of their parts."""
    options, spot, volatility = legs.modelled(places)

    # The present price, from which changes are counted, is that of a point that changes nothing.
    points = [*points, Point()]
    spots = np.hstack([shifted, spot])
    is_unknown = np.isnan(spots)
    spots = np.where(is_unknown, spot, spots)  # an unknown one is not asked of the model

    # The points that differ by nothing but the price of the underlying are priced at once.
    alike = grouped(lambda number: (points[number].vol, points[number].days), range(len(points)))
    prices = np.empty(spots.shape)
    for (vol, days), numbers in alike.items():
        later = options.later(days)
        spots_of_points = spots[:, numbers]
        later_volatility = model.within_bounds(volatility + vol / 100)
        prices[:, numbers] = model.prices(later, spots_of_points, later_volatility)
    prices[is_unknown] = np.nan
    return prices[:, :-1] - prices[:, -1:]


def scenarios(legs: PricedLegs, points: Sequence[Point], level: Breakdown) -> DataFrame:
    """Return value and profit at each point, for each group of a level and each currency.

    Returns:
        The columns `point` (its number), those that name the group, `currency`, `value`,
        `profit`, `left_out`, and of how many legs (`of`) how many are `known`. A sum leaves out
        unknown numbers; it is null if what is known does not carry it.
    """
    return _summed(legs, changes(legs, points), level)


def _summed(legs: PricedLegs, change: model.Array, level: Breakdown) -> DataFrame:
    """Return the sums of a level, from the changes of all parts at all points."""
    names = GROUPS[level]
    # A future has no value of its own: its market value is what it stands for.
    is_future = col.sec_type == "FUT"
    value_now = when(is_future).then(0.0).otherwise("market_value")
    numbers = list(range(change.shape[1]))
    changes_of_parts = Series(change).arr.to_list()
    at_points = legs.parts.with_columns(
        size=SIZE, value_now=value_now, point=lit(numbers), change=changes_of_parts
    )
    at_points = at_points.explode("point", "change")

    profit = col.change.fill_nan(None) * col.size
    value = col.value_now + profit
    sums = at_points.group_by(*names, "point").agg(
        value=sum_if_carried(value),
        profit=sum_if_carried(profit),
        left_out=profit.null_count(),
        known=profit.count(),
        of=profit.len(),
    )
    return sums.sort(*names, "point", nulls_last=True)


def scenario_rows(
    legs: PricedLegs, points: Sequence[Point], level: Breakdown
) -> list[dict[str, Any]]:
    """Return the rows of `scenarios` for a program; those of legs with what prices them."""
    priced: dict[Key, NewRow] = {}
    if level is Breakdown.LEG:
        priced = {HOLDING_OF(leg.row): _priced_with(leg) for leg in legs}
    result = []
    for row in scenarios(legs, points, level).iter_rows(named=True):
        point = points[row["point"]]
        named = {"level": level.value} | group_of(level, row)
        of_point = {
            "scenario": point.name, "spot": point.spot, "vol": point.vol, "days": point.days,
        }  # fmt: skip
        sums = {column: row[column] for column in _SUMMED}
        of_leg = priced.get(HOLDING_OF(named), {})
        result.append(named | of_point | sums | of_leg)
    return result


def group_of(level: Breakdown, row: Row) -> dict[str, Any]:
    """Return what names a group of a level, from a row that has the columns of a part."""
    by = GROUPS[level]
    named = {"account": row["account"], "currency": row["currency"]}
    named |= dict.fromkeys(("strategy", "name", "conid"))
    if "strategy_id" in by:
        named["strategy"] = row["strategy_id"]
    if level is Breakdown.LEG:
        named |= {"name": row["name"], "conid": row["conid"]}
    elif row[by[0]] is not None:
        named["name"] = str(row[by[0]])
    return named


def profits(
    legs: PricedLegs,
    points: Sequence[Point],
    levels: Sequence[Breakdown] = (Breakdown.ACCOUNT, Breakdown.STRATEGY, Breakdown.UNDERLYING),
) -> list[dict[str, Any]]:
    """Return the profits of the groups of some levels, in the order of the points.

    Returns:
        Rows with `level`, `name`, `account`, `currency`, `profits`, and for each of these
        `left_out`, `known` and `of`. A leg has the name of its strategy, and its `conid`.
    """
    change = changes(legs, points)
    rows: list[dict[str, Any]] = []
    for level in levels:
        name, *others = by = GROUPS[level]
        sums = _summed(legs, change, level)
        lists = sums.group_by(by, maintain_order=True).agg(*_COUNTS, profits="profit")
        shown = dict.fromkeys(("name", "account", *others, "profits", *_COUNTS))
        lists = lists.with_columns(name=name).select(*shown)
        rows.extend({"level": level} | row for row in lists.iter_rows(named=True))
    return rows


def _priced_with(leg: PricedLeg) -> dict[str, Any]:
    """Return what a leg is priced with."""
    spot = leg.row["spot"]
    priced = {"leg": leg.name, "underlying_price": spot, "implied_vol": leg.row["implied_vol"]}
    priced |= {"reason": leg.row["reason"]}
    priced |= dict.fromkeys(("rate", "dividends", "exercise", "expires_at"))
    terms = leg.priced
    if terms is None:
        return priced

    priced |= {"rate": terms.rate, "exercise": terms.exercise.value}
    priced["expires_at"] = terms.expires_at
    if terms.dividends is not None and spot:
        priced["dividends"] = [
            {"ex_date": dividend.ex_date, "amount": dividend.amount_at(spot)}
            for dividend in terms.until_expiry
        ]
    return priced
