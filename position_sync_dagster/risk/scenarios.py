"""The holdings under other prices, volatilities and days; what expires, and what it leaves.

Each leg keeps its own volatility, whatever the price of its underlying (sticky strike). Shares and
futures follow their price. A leg that cannot be priced is left out and counted, never taken as
zero. The value of a leg is that of the broker, plus what the model says it changes by.
"""

import math
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import StrEnum
from itertools import pairwise, repeat
from operator import attrgetter, itemgetter
from typing import Any

import numpy as np
import polars as pl

from position_sync_dagster.domain.instrument import ContractDetails, Instrument, leg_name
from position_sync_dagster.risk import model
from position_sync_dagster.risk.scenario_file import Point
from position_sync_dagster.risk.terms import (
    CONTRACT_FIELDS,
    OPTION_TYPES,
    DatedDividend,
    NotPriced,
    OptionTerms,
    as_options,
    option_terms,
    years_between,
)

LINEAR_TYPES = frozenset({"STK", "FUT"})

TRADING_DAYS = 252.0

# Units of the underlying in a part of a holding.
_SIZE = pl.col("position") * pl.col("multiplier") * pl.col("share")


class Breakdown(StrEnum):
    """What the rows of a result are of."""

    ACCOUNT = "account"
    STRATEGY = "strategy"
    UNDERLYING = "underlying"
    EXPIRY = "expiry"
    LEG = "leg"


# The columns that name a row of each level, besides the currency; the first one names it.
_GROUPS = {
    Breakdown.ACCOUNT: ["account"],
    Breakdown.STRATEGY: ["strategy_id", "account"],
    Breakdown.UNDERLYING: ["symbol", "account"],
    Breakdown.EXPIRY: ["expiry", "account"],
    Breakdown.LEG: ["strategy_id", "account", "conid"],
}


_SUMMED = ("account", "currency", "value", "profit", "left_out")


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """What the legs are priced with, besides their own rows.

    Attributes:
        now: The time from which the days of a scenario count.
        details: The known contract details, by conid.
        rates: Interest rates per year, by currency.
        dividends: Those of each underlying, by its symbol; one that is missing is unknown.
        betas: By how much each underlying moves when the index moves by 1.
    """

    now: datetime
    details: Mapping[int, ContractDetails] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)
    dividends: Mapping[str, Sequence[DatedDividend]] = field(default_factory=dict)
    betas: Mapping[str, float] = field(default_factory=dict)


@dataclass(eq=False, repr=False)
class PricedLegs:
    """The parts of the holdings, ready for scenarios.

    Args:
        parts: A row for each part of a holding, as `Split.parts` has them.
        given: What they are priced with.

    Attributes:
        parts: With `spot`, and with why a leg is left out (`reason`).
        terms: The terms of each part; None: they are not known, or it is no option.
    """

    parts: pl.DataFrame
    given: Assumptions

    def __post_init__(self) -> None:
        rows = self.parts.with_columns(spot=_spot())
        read = [self._read(row) for row in rows.iter_rows(named=True)]
        self.terms = [terms for _reason, terms in read]
        reasons = pl.Series([reason for reason, _terms in read], dtype=pl.String)
        self.parts = rows.with_columns(reason=reasons)

    def of_strategy(self, strategy: str | None) -> "PricedLegs":
        """Return the parts of one strategy; None: all."""
        if strategy is None:
            return self
        return PricedLegs(self.parts.filter(strategy_id=strategy), self.given)

    def _read(self, row: dict[str, Any]) -> tuple[NotPriced | None, OptionTerms | None]:
        """Return why a leg is left out, if it is, and the terms of an option."""
        spot, given = row["spot"], self.given
        if row["sec_type"] in LINEAR_TYPES:
            return (NotPriced.NO_PRICE if spot is None else None), None
        if row["sec_type"] not in OPTION_TYPES:
            return NotPriced.OTHER_TYPE, None
        option = Instrument(**{name: row[name] for name in CONTRACT_FIELDS})
        dividends = given.dividends.get(option.symbol)
        terms = option_terms(option, given.details.get(option.conid), given.rates, dividends)
        if isinstance(terms, NotPriced):
            return terms, None
        if not row["implied_vol"] or row["implied_vol"] <= 0:
            return NotPriced.NO_VOLATILITY, terms
        return (None if spot and spot > 0 else NotPriced.NO_PRICE), terms

    def _moves(self) -> dict[str, float]:
        """Return the move of one day of each underlying: from the median of its volatilities."""
        known = self.parts.drop_nulls("implied_vol").unique(["conid", "implied_vol", "spot"])
        found = known.group_by("symbol").agg(pl.col("implied_vol").median())
        return {symbol: vol / TRADING_DAYS**0.5 for symbol, vol in found.iter_rows()}

    def changes(self, points: Sequence[Point]) -> model.Array:
        """Return by how much one unit of each part changes at each point; NaN: unknown."""
        symbols, moves = self.parts.get_column("symbol").to_list(), self._moves()
        factors = {
            symbol: [point.factor(symbol, moves, self.given.betas) for point in points]
            for symbol in dict.fromkeys(symbols)
        }
        spot = self.parts.get_column("spot").fill_null(np.nan).to_numpy()
        of_rows = np.array([factors[symbol] for symbol in symbols]).reshape(-1, len(points))
        shifted = of_rows * spot[:, None]
        left_out = self.parts.get_column("reason").is_not_null().to_numpy()
        found: model.Array = shifted - spot[:, None]
        found[left_out] = np.nan
        options = {n: one for n, one in enumerate(self.terms) if one and not left_out[n]}
        if options:
            # Many accounts may hold the same: it is priced once.
            rows = self.parts.select("conid", "implied_vol", "spot").rows()
            places = {rows[n]: n for n in options}
            once = {n: options[n] for n in places.values()}
            found[[*once]] = self._option_changes(once, shifted[[*once]], points)
            found[[*options]] = found[[places[rows[n]] for n in options]]
        return found

    def _option_changes(
        self, of: Mapping[int, OptionTerms], shifted: model.Array, points: Sequence[Point]
    ) -> model.Array:
        """Return the changes of options, by the places of their parts."""
        spot, volatility = (
            self.parts.get_column(name).to_numpy()[[*of]] for name in ("spot", "implied_vol")
        )
        options = as_options([*of.values()], repeat(self.given.now), spot.tolist())

        def priced(point: Point, prices: model.Array) -> model.Array:
            later = options.later(point.days, point.rate / 100)
            moved = volatility * point.vol if point.is_ratio else volatility + point.vol / 100
            within = moved.clip(model.LOWEST_VOLATILITY, model.HIGHEST_VOLATILITY)
            return model.prices(later, prices, within)

        base = priced(Point(), spot[:, None])
        alike: dict[tuple[float, ...], list[int]] = defaultdict(list)
        for number, point in enumerate(points):
            alike[point.vol, point.is_ratio, point.days, point.rate].append(number)
        found = np.empty(shifted.shape)

        def price(numbers: list[int]) -> None:
            prices = shifted[:, numbers]
            # An unknown price stays unknown; the model is not asked for it.
            known = np.where(np.isnan(prices), spot[:, None], prices)
            change = priced(points[numbers[0]], known) - base
            found[:, numbers] = np.where(np.isnan(prices), np.nan, change)

        # numpy computes outside the interpreter's lock.
        with ThreadPoolExecutor(min(len(alike), os.cpu_count() or 1)) as pool:
            list(pool.map(price, alike.values()))
        return found

    def scenarios(self, points: Sequence[Point], level: Breakdown) -> pl.DataFrame:
        """Return value and profit at each point, for each group of a level and each currency.

        Returns:
            The columns `point` (its number), those that name the group, `currency`, `value`,
            `profit` and `left_out`. A sum leaves out unknown numbers; it is null if all are.
        """
        by = [*_GROUPS[level], "currency", "point"]
        parts = self.parts.select(
            *by[:-1],
            size=_SIZE,
            # A future has no value of its own: its market value is what it stands for.
            now=pl.when(pl.col("sec_type") == "FUT").then(0.0).otherwise("market_value"),
            point=pl.lit([*range(len(points))]),
            change=pl.Series(self.changes(points)).arr.to_list(),
        ).explode("point", "change")
        profit = pl.col("change").fill_nan(None) * pl.col("size")
        value = (pl.col("now") + profit).drop_nulls()
        sums = parts.group_by(by).agg(
            value=pl.when(value.count() > 0).then(value.sum()),
            profit=pl.when(profit.count() > 0).then(profit.sum()),
            left_out=profit.null_count(),
        )
        return sums.sort(by, nulls_last=True)

    def rows(self, points: Sequence[Point], level: Breakdown) -> list[dict[str, Any]]:
        """Return the rows of `scenarios` for a program; those of legs with what prices them."""
        name = _GROUPS[level][0]
        priced = {}
        if level is Breakdown.LEG:
            pairs = zip(self.parts.iter_rows(named=True), self.terms, strict=True)
            priced = {(row["account"], row["conid"]): _priced_with(row, of) for row, of in pairs}
        found = []
        for row in self.scenarios(points, level).iter_rows(named=True):
            point, conid = points[row["point"]], row.get("conid")
            of_leg = priced.get((row["account"], conid), {})
            names = {
                "level": level.value,
                "name": of_leg.get("leg") or (None if row[name] is None else str(row[name])),
                "strategy": row.get("strategy_id"),
                "conid": conid,
                "scenario": point.name,
            }
            sums = {one: row[one] for one in _SUMMED}
            moves = {one: getattr(point, one) for one in ("spot", "vol", "days")}
            found.append(names | moves | sums | of_leg)
        return found

    def profits(self, points: Sequence[Point], level: Breakdown) -> list[dict[str, Any]]:
        """Return the profits of each group of a level and currency, in the order of the points.

        Returns:
            Rows with `name`, `account`, `currency`, `profits` and the `left_out` of each.
        """
        by = list(dict.fromkeys((_GROUPS[level][0], "account", "currency")))
        rows = self.scenarios(points, level).group_by(by, maintain_order=True)
        found = rows.agg("left_out", profits="profit")
        return found.rename({by[0]: "name"}).to_dicts()

    def left_out(self) -> dict[str, int]:
        """Return how many legs are left out of every scenario, by reason."""
        reasons = self.parts.drop_nulls("reason").group_by("reason").len()
        return dict(reasons.sort("len", descending=True).iter_rows())

    def options(self) -> Iterator[tuple[dict[str, Any], OptionTerms]]:
        """Yield each part of an option whose terms and price are known, with its terms."""
        for row, terms in zip(self.parts.iter_rows(named=True), self.terms, strict=True):
            if terms is not None and row["spot"]:
                yield row, terms


def _priced_with(row: Mapping[str, Any], terms: OptionTerms | None) -> dict[str, Any]:
    """Return what a leg is priced with."""
    dividends = None
    if terms is not None and terms.dividends is not None and row["spot"]:
        dividends = [
            {"ex_date": one.ex_date, "amount": one.amount or one.share * row["spot"]}
            for one in terms.dividends
            if one.ex_date <= terms.expires_at
        ]
    return {
        "leg": leg_name(row["symbol"], row["right"], row["strike"], row["expiry"]),
        "underlying_price": row["spot"],
        "implied_vol": row["implied_vol"],
        "rate": terms.rate if terms else None,
        "dividends": dividends,
        "exercise": terms.exercise.value if terms else None,
        "expires_at": terms.expires_at if terms else None,
        "reason": row["reason"],
    }


def _spot() -> pl.Expr:
    """Return the price that moves, in the major unit: of a share or a future its own."""
    magnifier = pl.col("magnifier").fill_null(1)
    of_value = pl.coalesce("market_value", "notional") / _SIZE  # which came without a price
    own = pl.coalesce(pl.col("market_price") / magnifier, of_value)
    is_linear = pl.col("sec_type").is_in(list(LINEAR_TYPES))
    return pl.when(is_linear).then(own).otherwise(pl.col("underlying_price") / magnifier)


# An option is pinned whose strike is within this share of the price.
PINNED = 0.005

_LEG = ("strategy_id", "account", "conid", "symbol")


def expiries(legs: PricedLegs, *, until: date) -> list[dict[str, Any]]:
    """Return what each leg leaves that expires until a day, if it ended at the present price.

    A leg without a price is left out.

    Returns:
        Rows with the leg (strategy_id, account, conid, symbol, currency, expires_at, position) and

        - units: Shares or futures that come; below 0 they go. 0 of what is settled in cash.
        - cash: Money that comes, in the currency; below 0 it is needed.
        - is_pinned: The strike is so near to the price that either may happen.
        - is_cash_settled: Money alone changes hands.
        - is_in_the_morning: The settlement follows the open of the day.
        - is_uncovered: Shares must be delivered that the strategy does not have.
    """
    of = ("strategy_id", "account", "symbol")
    stock = legs.parts.filter(sec_type="STK").group_by(of)
    held = stock.agg((pl.col("position") * pl.col("share")).sum()).rows_by_key(of, unique=True)
    found = []
    for row, terms in legs.options():
        if terms.expires_at.date() > until:
            continue
        side = 1.0 if terms.right == "CALL" else -1.0
        above = side * (row["spot"] - terms.strike)
        details = legs.given.details.get(row["conid"])
        in_cash = details is not None and details.under_sec_type == "IND"
        quantity = row["position"] * row["share"]
        size = quantity * row["multiplier"]
        units = 0.0 if in_cash or above <= 0 else side * size
        (shares,) = held.get(tuple(row[name] for name in of), (0.0,))
        found.append(
            {name: row[name] for name in (*_LEG, "currency")}
            | {
                "expires_at": terms.expires_at,
                "position": quantity,
                "units": units / row["multiplier"] if terms.exercise.is_on_future else units,
                "cash": size * max(0.0, above) if in_cash else -units * terms.strike,
                "is_pinned": abs(above) <= PINNED * row["spot"],
                "is_cash_settled": in_cash,
                "is_in_the_morning": details is not None and details.is_settled_at_the_open,
                "is_uncovered": units < 0 and shares + units < 0,
            }
        )
    return sorted(found, key=itemgetter("expires_at", "strategy_id", "conid"))


def early_assignments(legs: PricedLegs) -> list[dict[str, Any]]:
    """Return the short American options whose holder gains more by exercise than they are worth.

    A call is exercised for the dividends before its expiry, a put for the interest on its strike.
    Where no dividend is known, nothing is said of a call.

    Returns:
        Rows with the leg (strategy_id, account, conid, symbol, position), `extrinsic` (what one
        unit is worth above its exercise), `gain` (what its holder gains by exercise: the dividend,
        or the interest until expiry) and `ex_date` (when the dividend goes, of a call).
    """
    found, now = [], legs.given.now
    for row, terms in legs.options():
        size, spot = row["position"] * row["multiplier"] * row["share"], row["spot"]
        is_american = terms.exercise is model.Exercise.AMERICAN and terms.expires_at > now
        if size >= 0 or row["market_value"] is None or not is_american:
            continue
        worth, ex_date = terms.strike - spot, None
        gain = terms.strike * -math.expm1(-terms.rate * years_between(now, terms.expires_at))
        if terms.right == "CALL":
            coming = [one for one in terms.dividends or () if now < one.ex_date <= terms.expires_at]
            if not coming:
                continue
            paid = min(coming, key=attrgetter("ex_date"))
            worth, gain, ex_date = -worth, paid.amount or paid.share * spot, paid.ex_date
        extrinsic = row["market_value"] / size - worth
        if worth > 0 and gain > 0 and extrinsic < gain:
            found.append(
                {name: row[name] for name in _LEG}
                | {"position": row["position"] * row["share"], "gain": gain, "ex_date": ex_date}
                | {"extrinsic": max(0.0, extrinsic)}
            )
    return found


# Moves in percent of a curve; at the last three only the slope of the profit is left.
SPOTS = tuple(range(-30, 31))
FAR_DOWN, FAR_UP, FURTHER_UP = -99.9, 400.0, 401.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """The profit since the legs were opened, over the price of one underlying.

    Attributes:
        spot: The price now.
        prices: The prices of the underlying.
        today, at_expiry: The profit at each of them now, and at the next expiry.
        days: The days until that expiry.
        break_evens: The prices at which the profit at the expiry is 0.
        greatest_profit, greatest_loss: At the expiry; None: unbounded.
        left_out: Legs that are in no number.
    """

    symbol: str
    currency: str
    spot: float
    prices: Sequence[float]
    today: Sequence[float]
    at_expiry: Sequence[float]
    days: float
    break_evens: Sequence[float]
    greatest_profit: float | None
    greatest_loss: float | None
    left_out: int


def curves(legs: PricedLegs) -> list[Curve]:
    """Return the curve of each underlying and currency of some parts of holdings."""
    by = ["symbol", "currency"]
    found = (_curve(parts, legs.given) for parts in legs.parts.sort(by).partition_by(by))
    return [curve for curve in found if curve is not None]


def _curve(parts: pl.DataFrame, given: Assumptions) -> Curve | None:
    is_known = pl.col("reason").is_null() & pl.col("unrealized_pnl").is_not_null()
    legs = PricedLegs(parts.filter(is_known), given)
    spot = legs.parts.get_column("spot").median()
    if not isinstance(spot, float):
        return None
    options = [one for one in legs.terms if one is not None]
    ends = min((one.expires_at for one in options), default=given.now)
    days = max(0.0, (ends - given.now) / timedelta(days=1))
    kinks = {100 * (one.strike / spot - 1) for one in options}
    moves = sorted({FAR_DOWN, *SPOTS, *(one for one in kinks if one < FAR_UP), FAR_UP, FURTHER_UP})
    size, opened = (
        legs.parts.select(one).to_series().to_numpy() for one in (_SIZE, "unrealized_pnl")
    )
    today, ended = (
        (opened.sum() + size @ legs.changes([Point(spot=m, days=at) for m in moves])).tolist()
        for at in (0.0, days + 1e-6)
    )
    prices, slope = [spot * (1 + move / 100) for move in moves], ended[-1] - ended[-2]
    flat = 1e-6 * max(map(abs, ended))
    shown = [n for n, move in enumerate(moves) if SPOTS[0] <= move <= SPOTS[-1]]
    return Curve(
        symbol=parts["symbol"][0],
        currency=parts["currency"][0],
        spot=spot,
        prices=[prices[n] for n in shown],
        today=[today[n] for n in shown],
        at_expiry=[ended[n] for n in shown],
        days=days,
        break_evens=[
            at + (later - at) * value / (value - after)
            for (at, value), (later, after) in pairwise(zip(prices, ended, strict=True))
            if value * after < 0
        ],
        greatest_profit=None if slope > flat else max(ended),
        greatest_loss=None if slope < -flat else min(ended),
        left_out=parts.height - legs.parts.height,
    )
