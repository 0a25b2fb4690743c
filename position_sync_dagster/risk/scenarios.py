"""The holdings under other prices, volatilities, days and rates.

Each leg keeps its own volatility, whatever the price of its underlying (sticky strike). Shares and
futures follow their price. A leg that cannot be priced is left out and counted, never taken as
zero. The value of a leg is that of the broker, plus what the model says it changes by.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from itertools import repeat
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import polars as pl
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from position_sync_dagster.domain.instrument import ContractDetails, leg_name
from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.risk import model
from position_sync_dagster.risk.terms import (
    CONTRACT_FIELDS,
    OPTION_TYPES,
    Contract,
    DatedDividend,
    NotPriced,
    OptionTerms,
    as_options,
    option_terms,
)

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
    NO_BETA = "its underlying has no beta"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
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
    """

    spot: float = 0.0
    vol: float = 0.0
    days: float = 0.0
    rate: float = 0.0
    in_moves: bool = False
    is_ratio: bool = False
    underlying: str | None = None
    name: str | None = None

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


def grid(
    spots: Iterable[float],
    vols: Iterable[float] = (0.0,),
    days: Iterable[float] = (0.0,),
    *,
    rate: float = 0.0,
    in_moves: bool = False,
    is_ratio: bool = False,
) -> list[Point]:
    """Return a point for each combination."""
    vols, days = list(vols), list(days)
    return [
        Point(spot=spot, vol=vol, days=day, rate=rate, in_moves=in_moves, is_ratio=is_ratio)
        for spot in spots
        for vol in vols
        for day in days
    ]


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

    def terms(self, row: Mapping[str, Any]) -> OptionTerms | NotPriced:
        """Return what the option of a row is priced as."""
        contract = Contract(**{name: row[name] for name in CONTRACT_FIELDS})
        details = self.details.get(row["conid"])
        return option_terms(contract, details, self.rates, self.dividends.get(row["symbol"]))


# The columns in which rows are equal that have one price in each scenario.
_PRICED = ["conid", "implied_vol", "spot"]


@dataclass(frozen=True)
class PricedLegs:
    """The parts of the holdings, ready for scenarios.

    Args:
        parts: A row for each part of a holding, as `Split.parts` has them.
        given: What they are priced with.
    """

    parts: pl.DataFrame
    given: Assumptions

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", self.parts.with_columns(spot=_spot()))
        rows = self.parts.unique(_PRICED, keep="first", maintain_order=True).with_row_index("unit")
        reasons: list[str | None] = []
        terms: list[OptionTerms | None] = []
        for row in rows.iter_rows(named=True):
            reason, found = self._read(row)
            reasons.append(reason)
            terms.append(found)
        units = rows.select(
            *_PRICED,
            "unit",
            "symbol",
            reason=pl.Series(reasons, dtype=pl.String),
        )
        object.__setattr__(self, "units", units)
        object.__setattr__(self, "terms", terms)

    units: pl.DataFrame = field(init=False)
    terms: list[OptionTerms | None] = field(init=False)

    def of_strategy(self, strategy: str | None) -> "PricedLegs":
        """Return the parts of one strategy; None: all."""
        if strategy is None:
            return self
        return PricedLegs(self.parts.filter(pl.col("strategy_id") == strategy), self.given)

    def _read(self, row: dict[str, Any]) -> tuple[str | None, OptionTerms | None]:
        """Return why a leg is left out, if it is, and the terms of an option."""
        if row["sec_type"] in LINEAR_TYPES:
            return (NotShifted.NO_PRICE.value if row["spot"] is None else None), None
        if row["sec_type"] not in OPTION_TYPES:
            return NotShifted.OTHER_TYPE.value, None
        found = self.given.terms(row)
        if isinstance(found, NotPriced):
            return found.value, None
        if not row["implied_vol"] or row["implied_vol"] <= 0:
            return NotShifted.NO_VOLATILITY.value, found
        if not row["spot"] or row["spot"] <= 0:
            return NotShifted.NO_PRICE.value, found
        return None, found

    @property
    def with_units(self) -> pl.DataFrame:
        """The parts, each with its row of `units`."""
        return self.parts.join(self.units.select(*_PRICED, "unit"), on=_PRICED, nulls_equal=True)

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
        spot = units.get_column("spot").fill_null(np.nan).to_numpy()
        spots = np.array(
            [
                [point.factor(symbol, moves.get(symbol), self.given.betas) for point in points]
                for symbol in dict.fromkeys(symbols)
            ]
        )
        of = {symbol: number for number, symbol in enumerate(dict.fromkeys(symbols))}
        shifted = spots[[of[symbol] for symbol in symbols]] * spot[:, None]
        left_out = units.get_column("reason").is_not_null().to_numpy()
        found: model.Array = shifted - spot[:, None]
        found[left_out] = np.nan
        options = [n for n, one in enumerate(self.terms) if one is not None and not left_out[n]]
        if options:
            places = np.array(options)
            terms = [one for one in (self.terms[n] for n in options) if one is not None]
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
        found_changes = self.changes(points)
        changes = pl.DataFrame(
            {str(n): found_changes[:, n] for n in range(len(points))}
        ).with_row_index("unit")
        joined = self.with_units.select(
            *dict.fromkeys([*_GROUPS[level], "currency", "unit"]),
            size=pl.col("position") * pl.col("multiplier") * pl.col("share"),
            # A future has no value of its own: its market value is what it stands for.
            now=pl.when(pl.col("sec_type") == "FUT").then(0.0).otherwise("market_value"),
        )
        by = [*_GROUPS[level], "currency"]
        found = []
        for number in range(len(points)):
            change = changes.select("unit", change=pl.col(str(number)).fill_nan(None))
            rows = joined.join(change, on="unit").with_columns(
                profit=pl.col("change") * pl.col("size")
            )
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
        name, found = _GROUPS[level][0], []
        priced = self._priced_with() if level is Breakdown.LEG else {}
        for row in self.scenarios(points, level).iter_rows(named=True):
            point, conid = points[row["point"]], row.get("conid")
            of_leg = {} if conid is None else priced.get((row["account"], conid), {})
            found.append(
                {
                    "level": level.value,
                    "name": of_leg.get("leg") or (None if row[name] is None else str(row[name])),
                    "strategy": row.get("strategy_id"),
                    "account": row["account"],
                    "conid": conid,
                    "currency": row["currency"],
                    "scenario": point.name,
                    "spot": point.spot,
                    "vol": point.vol,
                    "days": point.days,
                    "value": row["value"],
                    "profit": row["profit"],
                    "left_out": row["left_out"],
                }
                | of_leg
            )
        return found

    def _priced_with(self) -> dict[tuple[str, int], dict[str, Any]]:
        """Return what each leg is priced with, by account and conid."""
        found: dict[tuple[str, int], dict[str, Any]] = {}
        names = ["account", "symbol", "right", "strike", "expiry", "unit", *_PRICED]
        joined = self.with_units
        reasons = self.units.get_column("reason")
        for row in joined.select(names).iter_rows(named=True):
            terms = self.terms[row["unit"]]
            found[row["account"], row["conid"]] = {
                "leg": leg_name(row["symbol"], row["right"], row["strike"], row["expiry"]),
                "underlying_price": row["spot"],
                "implied_vol": row["implied_vol"],
                "rate": terms.rate if terms else None,
                "dividends": _dividends(terms, row["spot"]),
                "exercise": terms.exercise.value if terms else None,
                "expires_at": terms.expires_at if terms else None,
                "reason": reasons[row["unit"]],
            }
        return found

    def left_out(self) -> dict[str, int]:
        """Return how many legs are left out of every scenario, by reason."""
        joined = self.parts.join(self.units, on=_PRICED, nulls_equal=True).drop_nulls("reason")
        return dict(joined.group_by("reason").len().sort("len", descending=True).iter_rows())


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

LARGEST_BYTES = 2**20

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


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Scenario(_Part):
    name: Annotated[str, Field(min_length=1, max_length=60)]
    spot: Annotated[float, Field(gt=-100, le=1000)] = 0.0
    underlying: str | None = None
    vol: Annotated[float, Field(ge=-500, le=500)] = 0.0
    days: Annotated[float, Field(ge=0, le=3650)] = 0.0
    rate: Annotated[float, Field(ge=-100, le=100)] = 0.0
    largest_loss: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)


class _File(_Part):
    betas: dict[str, float] = Field(default_factory=dict)
    scenarios: list[_Scenario] = Field(default_factory=list)
    early_assignment: bool = False


class OwnScenarios(BaseModel):
    """The content of the file.

    Attributes:
        betas: By how much each underlying moves when the index moves by 1.
        points: The scenarios, by name.
        largest_losses: For some scenarios and strategies the largest allowed loss.
        early_assignment: Whether a short option that may be assigned early is beyond a limit.
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    betas: dict[str, float]
    points: dict[str, Point]
    largest_losses: dict[tuple[str, str], float]
    early_assignment: bool = False

    @property
    def recorded(self) -> list[Point]:
        """The scenarios that are recorded: the standard ones and those of the file."""
        return [*(one for one in STANDARD if one.name not in self.points), *self.points.values()]


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
    try:
        with path.open("rb") as file:
            content = yaml.safe_load(file.read(LARGEST_BYTES))
        found = _File.model_validate(content or {})
    except FileNotFoundError:
        found = _File()
    except (OSError, yaml.YAMLError, ValidationError, UnicodeDecodeError) as error:
        cause = " ".join(str(error).split())[:300]
        raise ScenariosFileError(
            f"{path} cannot be used: {cause}.",
            remedy="Correct it; docs/what-if.md shows an example.",
        ) from None
    points = {
        one.name: Point(
            name=one.name,
            spot=one.spot,
            underlying=one.underlying,
            vol=one.vol,
            days=one.days,
            rate=one.rate,
        )
        for one in found.scenarios
    }
    losses = {
        (one.name, strategy): loss
        for one in found.scenarios
        for strategy, loss in one.largest_loss.items()
    }
    return OwnScenarios(
        betas=found.betas,
        points=points,
        largest_losses=losses,
        early_assignment=found.early_assignment,
    )


def folder_of(strategies_file: Path | None) -> Path:
    """Return where the file is: beside the strategies file, else in the working directory."""
    return strategies_file.parent if strategies_file is not None else Path()
