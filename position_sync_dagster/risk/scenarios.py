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
from datetime import date, datetime
from enum import StrEnum
from itertools import repeat
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import polars as pl
from pydantic import Field

from position_sync_dagster.domain.instrument import ContractDetails, Instrument, leg_name
from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.risk import model
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
from position_sync_dagster.yaml_file import Part, YamlFile

LINEAR_TYPES = frozenset({"STK", "FUT"})


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


class Point(Part):
    """One scenario.

    Attributes:
        name: The name of a scenario that a person wrote.
        spot: The move of the underlyings, in percent.
        underlying: The only underlying that moves by `spot`; the others follow it by their betas.
            None: all move by it.
        vol: The change of each volatility, in points.
        days: Days that have passed.
        largest_loss: For some strategies the largest allowed loss.
    """

    name: str | None = None
    spot: Annotated[float, Field(ge=-100, le=10_000)] = 0.0
    underlying: str | None = None
    vol: Annotated[float, Field(ge=-500, le=500)] = 0.0
    days: Annotated[float, Field(ge=0, le=3650)] = 0.0
    largest_loss: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)

    def factor(self, symbol: str, betas: Mapping[str, float]) -> float:
        """Return what the price of an underlying is multiplied by; NaN if that is not known.

        Args:
            symbol: The underlying.
            betas: By how much each underlying moves when the index moves by 1.
        """
        share = self.spot / 100
        if self.underlying not in (None, symbol) and share:
            beta, of_named = betas.get(symbol), betas.get(self.underlying)
            share *= np.nan if beta is None or not of_named else beta / of_named
        return 1.0 + share


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

    def changes(self, points: Sequence[Point]) -> model.Array:
        """Return by how much one unit of each part changes at each point; NaN: unknown."""
        symbols = self.parts.get_column("symbol").to_list()
        factors = {
            symbol: [point.factor(symbol, self.given.betas) for point in points]
            for symbol in dict.fromkeys(symbols)
        }
        spot = self.parts.get_column("spot").fill_null(np.nan).to_numpy()
        moves = np.array([factors[symbol] for symbol in symbols]).reshape(-1, len(points))
        shifted = moves * spot[:, None]
        left_out = self.parts.get_column("reason").is_not_null().to_numpy()
        found: model.Array = shifted - spot[:, None]
        found[left_out] = np.nan
        options = {n: one for n, one in enumerate(self.terms) if one and not left_out[n]}
        if options:
            places, terms = np.array(list(options)), list(options.values())
            volatility = self.parts.get_column("implied_vol").to_numpy()[places]
            found[places] = _option_changes(
                terms, spot[places], shifted[places], volatility, points, self.given.now
            )
        return found

    def scenarios(self, points: Sequence[Point], level: Breakdown) -> pl.DataFrame:
        """Return value and profit at each point, for each group of a level and each currency.

        Returns:
            The columns `point` (its number), those that name the group, `currency`, `value`,
            `profit` and `left_out`. A sum leaves out unknown numbers; it is null if all are.
        """
        changes = self.changes(points)
        by = [*_GROUPS[level], "currency"]
        parts = self.parts.select(
            *by,
            size=pl.col("position") * pl.col("multiplier") * pl.col("share"),
            # A future has no value of its own: its market value is what it stands for.
            now=pl.when(pl.col("sec_type") == "FUT").then(0.0).otherwise("market_value"),
        )
        found = []
        for number in range(len(points)):
            change = pl.Series(changes[:, number], dtype=pl.Float64).fill_nan(None)
            rows = parts.with_columns(profit=change * pl.col("size"))
            known = pl.col("profit").is_not_null()
            value = (pl.col("now") + pl.col("profit")).filter(known)
            found.append(
                rows.group_by(by).agg(
                    point=pl.lit(number),
                    value=pl.when(value.count() > 0).then(value.sum()),
                    profit=pl.when(known.any()).then(pl.col("profit").sum()),
                    left_out=(~known).sum(),
                )
            )
        return pl.concat(found).sort(*by, "point", nulls_last=True)

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
            found.append(
                {
                    "level": level.value,
                    "name": of_leg.get("leg") or (None if row[name] is None else str(row[name])),
                    "strategy": row.get("strategy_id"),
                    "account": row["account"],
                    "conid": conid,
                    "currency": row["currency"],
                    "scenario": point.name,
                    **{one: getattr(point, one) for one in ("spot", "vol", "days")},
                    **{one: row[one] for one in ("value", "profit", "left_out")},
                    **of_leg,
                }
            )
        return found

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
    size = pl.col("position") * pl.col("multiplier") * pl.col("share")
    of_value = (
        pl.coalesce("market_value", "notional") / size
    )  # of a value that came without a price
    own = pl.coalesce(pl.col("market_price") / magnifier, of_value)
    is_linear = pl.col("sec_type").is_in(list(LINEAR_TYPES))
    return pl.when(is_linear).then(own).otherwise(pl.col("underlying_price") / magnifier)


def _option_changes(
    terms: Sequence[OptionTerms],
    spot: model.Array,
    shifted: model.Array,
    volatility: model.Array,
    points: Sequence[Point],
    now: datetime,
) -> model.Array:
    options = as_options(terms, repeat(now), spot.tolist())

    def priced(options: model.VanillaOptions, prices: model.Array, vol: float) -> model.Array:
        moved = volatility + vol / 100
        within = moved.clip(model.LOWEST_VOLATILITY, model.HIGHEST_VOLATILITY)
        return model.prices(options, prices, within)

    base = priced(options, spot[:, None], 0.0)
    alike: dict[tuple[float, float], list[int]] = defaultdict(list)
    for number, point in enumerate(points):
        alike[point.vol, point.days].append(number)
    found = np.empty(shifted.shape)

    def price(vol: float, days: float) -> None:
        prices = shifted[:, alike[vol, days]]
        # An unknown price stays unknown; the model is not asked for it.
        known = np.where(np.isnan(prices), spot[:, None], prices)
        change = priced(options.later(days), known, vol) - base
        found[:, alike[vol, days]] = np.where(np.isnan(prices), np.nan, change)

    # numpy computes outside the interpreter's lock.
    with ThreadPoolExecutor(min(len(alike), os.cpu_count() or 1)) as pool:
        list(pool.map(lambda key: price(*key), alike))
    return found


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


SCENARIOS_FILE = "scenarios.yaml"

# The scenarios that are recorded without a file: moves, and changes of the volatilities.
STANDARD = tuple(
    Point(spot=spot, vol=vol, name=f"{spot:+g} %" + (f", volatility {vol:+g}" if vol else ""))
    for spot, vol in (
        *((move, 0) for move in (-20, -10, -5, 5, 10, 20)), (-10, 10), (0, 5), (0, -5)
    )
)  # fmt: skip


class ScenariosFileError(PositionSyncError):
    """The file of scenarios has a mistake."""


class Scenario(Point):
    """One scenario of the file."""

    name: Annotated[str, Field(min_length=1, max_length=60)]


class OwnScenarios(Part):
    """The file `scenarios.yaml`.

    Attributes:
        betas: By how much each underlying moves when the index moves by 1.
        early_assignment: Whether a short option that may be assigned early is beyond a limit.
    """

    betas: dict[str, float] = Field(default_factory=dict)
    scenarios: list[Scenario] = Field(default_factory=list)
    early_assignment: bool = False

    @property
    def points(self) -> dict[str, Point]:
        """The scenarios of the file, by name."""
        return {one.name: one for one in self.scenarios}

    @property
    def recorded(self) -> list[Point]:
        """The scenarios that are recorded: the standard ones and those of the file."""
        return [*({one.name: one for one in STANDARD} | self.points).values()]


def read_scenarios(folder: Path) -> OwnScenarios:
    """Read the file of a folder; without one there are no scenarios by name.

    Example:
        betas: {SPY: 1.0, AAPL: 1.3}
        scenarios:
          - {name: crash, underlying: SPY, spot: -8, vol: 12, largest_loss: {condor: 1500}}

    Raises:
        ScenariosFileError: The file cannot be read, or has a mistake.
    """
    path = folder / SCENARIOS_FILE
    if not path.exists():
        return OwnScenarios()
    file = YamlFile(path, holds="scenarios", error=ScenariosFileError)
    entries = file.data.get("scenarios") if isinstance(file.data, dict) else None
    for number, entry in enumerate(entries if isinstance(entries, list) else ()):
        file.parse(Scenario, entry, ("scenarios", number))
    return file.parse(OwnScenarios, file.data)


def folder_of(strategies_file: Path | None) -> Path:
    """Return where the file is: beside the strategies file, else in the working directory."""
    return strategies_file.parent if strategies_file is not None else Path()
