"""The holdings under other prices, volatilities, days and rates.

Each leg keeps its own volatility, whatever the price of its underlying (sticky strike). Shares and
futures follow their price. A leg that cannot be priced is left out and counted, never taken as
zero. The value of a leg is that of the broker, plus what the model says it changes by.
"""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from itertools import repeat
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
)
from position_sync_dagster.yaml_file import Part, YamlFile

LINEAR_TYPES = frozenset({"STK", "FUT"})

TRADING_DAYS = 252.0


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


class NotShifted(StrEnum):
    """Why a leg is left out of a scenario, besides `NotPriced`."""

    NO_VOLATILITY = "its implied volatility is not known"
    NO_PRICE = "the price of its underlying is not known"
    OTHER_TYPE = "it is neither an option, a share nor a future"


class Point(Part):
    """One scenario.

    Attributes:
        spot: The move of the underlyings: in percent, or in moves of one day as their implied
            volatility has them.
        vol: The change of each volatility: in points, or as a ratio.
        days: Days that have passed.
        rate: The change of the interest rates, in points.
        underlying: The only underlying that moves by `spot`; the others follow it by their betas.
            None: all move by it.
        name: The name of a scenario that a person wrote.
        largest_loss: For some strategies the largest allowed loss.
    """

    name: str | None = None
    spot: Annotated[float, Field(ge=-100, le=10_000)] = 0.0
    underlying: str | None = None
    vol: Annotated[float, Field(ge=-500, le=500)] = 0.0
    days: Annotated[float, Field(ge=0, le=3650)] = 0.0
    rate: Annotated[float, Field(ge=-100, le=100)] = 0.0
    in_moves: bool = False
    is_ratio: bool = False
    largest_loss: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)

    def volatility(self, known: model.Array) -> model.Array:
        """Return the volatilities in this scenario, within what the model can price."""
        moved: model.Array = known * self.vol if self.is_ratio else known + self.vol / 100
        return moved.clip(model.LOWEST_VOLATILITY, model.HIGHEST_VOLATILITY)

    def factor(self, symbol: str, move: float | None, betas: Mapping[str, float]) -> float:
        """Return what the price of an underlying is multiplied by; NaN if that is not known.

        Args:
            symbol: The underlying.
            move: Its move of one day, as a part of its price.
            betas: By how much each underlying moves when the index moves by 1.
        """
        share = self.spot / 100
        if self.in_moves:
            share = self.spot * (np.nan if move is None else move)
        if self.underlying is not None and symbol != self.underlying and share:
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


# The columns in which rows are equal that have one price in each scenario.
_PRICED = ["conid", "implied_vol", "spot"]


@dataclass(eq=False, repr=False)
class PricedLegs:
    """The parts of the holdings, ready for scenarios.

    Args:
        parts: A row for each part of a holding, as `Split.parts` has them.
        given: What they are priced with.

    Attributes:
        parts: With `spot`, with why a leg is left out (`reason`), and with the number of its row in
            `units` and `terms` (`unit`).
        units: What has one price in each scenario.
        terms: The terms of each of them; None: they are not known, or it is no option.
    """

    parts: pl.DataFrame
    given: Assumptions

    def __post_init__(self) -> None:
        parts = self.parts.drop("unit", "reason", strict=False).with_columns(spot=_spot())
        rows = parts.unique(_PRICED, keep="first", maintain_order=True).with_row_index("unit")
        read = [self._read(row) for row in rows.iter_rows(named=True)]
        self.terms: list[OptionTerms | None] = [terms for _reason, terms in read]
        reasons = pl.Series("reason", [reason for reason, _terms in read], pl.String)
        self.units = rows.select(*_PRICED, "symbol", "unit", reasons)
        of = self.units.drop("symbol")
        self.parts = parts.join(of, on=_PRICED, nulls_equal=True, maintain_order="left")

    def narrowed(self, only: pl.Expr) -> "PricedLegs":
        """Return some of the parts."""
        return PricedLegs(self.parts.filter(only), self.given)

    def of_strategy(self, strategy: str | None) -> "PricedLegs":
        """Return the parts of one strategy; None: all."""
        return self if strategy is None else self.narrowed(pl.col("strategy_id") == strategy)

    def _read(self, row: dict[str, Any]) -> tuple[str | None, OptionTerms | None]:
        """Return why a leg is left out, if it is, and the terms of an option."""
        spot = row["spot"]
        if row["sec_type"] in LINEAR_TYPES:
            return (NotShifted.NO_PRICE.value if spot is None else None), None
        if row["sec_type"] not in OPTION_TYPES:
            return NotShifted.OTHER_TYPE.value, None
        option = Instrument(**{name: row[name] for name in CONTRACT_FIELDS})
        given = self.given
        dividends = given.dividends.get(option.symbol)
        terms = option_terms(option, given.details.get(option.conid), given.rates, dividends)
        if isinstance(terms, NotPriced):
            return terms.value, None
        if not row["implied_vol"] or row["implied_vol"] <= 0:
            return NotShifted.NO_VOLATILITY.value, terms
        return (None if spot and spot > 0 else NotShifted.NO_PRICE.value), terms

    def moves(self) -> dict[str, float]:
        """Return the move of one day of each underlying: from the median of its volatilities."""
        known = self.units.drop_nulls("implied_vol").group_by("symbol")
        found = known.agg(pl.col("implied_vol").median()).iter_rows()
        return {symbol: vol / TRADING_DAYS**0.5 for symbol, vol in found}

    def changes(self, points: Sequence[Point]) -> model.Array:
        """Return by how much one unit of each of `units` changes at each point; NaN: unknown."""
        units, now = self.units, self.given.now
        if units.is_empty():
            return np.empty((0, len(points)))
        moves = self.moves() if any(point.in_moves for point in points) else {}
        symbols = units.get_column("symbol").to_list()
        factors = {
            symbol: [point.factor(symbol, moves.get(symbol), self.given.betas) for point in points]
            for symbol in dict.fromkeys(symbols)
        }
        spot = units.get_column("spot").fill_null(np.nan).to_numpy()
        shifted = np.array([factors[symbol] for symbol in symbols]) * spot[:, None]
        left_out = units.get_column("reason").is_not_null().to_numpy()
        found: model.Array = shifted - spot[:, None]
        found[left_out] = np.nan
        options = {n: one for n, one in enumerate(self.terms) if one and not left_out[n]}
        if options:
            places, terms = np.array(list(options)), list(options.values())
            volatility = units.get_column("implied_vol").to_numpy()[places]
            found[places] = _option_changes(
                terms, spot[places], shifted[places], volatility, points, now
            )
        return found

    def scenarios(self, points: Sequence[Point], level: Breakdown) -> pl.DataFrame:
        """Return value and profit at each point, for each group of a level and each currency.

        Returns:
            The columns `point` (its number), those that name the group, `currency`, `value`,
            `profit` and `left_out`. A sum leaves out unknown numbers; it is null if all are.
        """
        changes = self.changes(points)[self.parts.get_column("unit").to_numpy()]
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
        priced = self._priced_with() if level is Breakdown.LEG else {}
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

    def _priced_with(self) -> dict[tuple[str, int | None], dict[str, Any]]:
        """Return what each leg is priced with, by account and conid."""
        found: dict[tuple[str, int | None], dict[str, Any]] = {}
        for row in self.parts.iter_rows(named=True):
            terms = self.terms[row["unit"]]
            found[row["account"], row["conid"]] = {
                "leg": leg_name(row["symbol"], row["right"], row["strike"], row["expiry"]),
                "underlying_price": row["spot"],
                "implied_vol": row["implied_vol"],
                "rate": terms.rate if terms else None,
                "dividends": _dividends(terms, row["spot"]),
                "exercise": terms.exercise.value if terms else None,
                "expires_at": terms.expires_at if terms else None,
                "reason": row["reason"],
            }
        return found

    def left_out(self) -> dict[str, int]:
        """Return how many legs are left out of every scenario, by reason."""
        reasons = self.parts.drop_nulls("reason").group_by("reason").len()
        return dict(reasons.sort("len", descending=True).iter_rows())


def _dividends(terms: OptionTerms | None, spot: float | None) -> list[dict[str, Any]] | None:
    """Return the dividends that an option is priced with; None: nothing is known of them.

    Those with a share follow the price; their amount is that at the present price.
    """
    if terms is None or terms.dividends is None:
        return None
    found = []
    for one in terms.dividends:
        if one.ex_date <= terms.expires_at and spot:
            share = one.amount / spot if one.is_forecast else one.share or None
            amount = one.amount or one.share * spot
            found.append({"ex_date": one.ex_date, "amount": amount, "share": share})
    return found


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
    base = model.prices(options, spot[:, None], Point().volatility(volatility))
    alike: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for number, point in enumerate(points):
        alike[point.vol, point.is_ratio, point.days, point.rate].append(number)
    found = np.empty(shifted.shape)

    def price(numbers: list[int]) -> None:
        point = points[numbers[0]]
        later = options.later(point.days, point.rate / 100)
        # An unknown price stays unknown; the model is not asked for it.
        known = np.where(np.isnan(shifted[:, numbers]), spot[:, None], shifted[:, numbers])
        priced = model.prices(later, known, point.volatility(volatility))
        found[:, numbers] = np.where(np.isnan(shifted[:, numbers]), np.nan, priced - base)

    # numpy computes outside the interpreter's lock.
    with ThreadPoolExecutor(min(len(alike), os.cpu_count() or 1)) as pool:
        list(pool.map(price, alike.values()))
    return found


SCENARIOS_FILE = "scenarios.yaml"

# The scenarios that are recorded without a file.
STANDARD = tuple(
    Point(spot=spot, vol=vol, name=f"{spot:+g} %" + (f", volatility {vol:+g}" if vol else ""))
    for spot, vol in (
        (-20.0, 0.0), (-10.0, 0.0), (-5.0, 0.0), (5.0, 0.0), (10.0, 0.0), (20.0, 0.0),
        (-10.0, 10.0), (0.0, 5.0), (0.0, -5.0),
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
