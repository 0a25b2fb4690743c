"""Implied volatility and greeks of options from the broker's values, computed by QuantLib.

For options without a line of their own: the broker sends their value and no greeks. What cannot be
computed is a named reason, never a guess. Nothing of this model is used for a price.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from importlib import import_module
from typing import Any

from position_sync_dagster.domain.instrument import Right

DAYS_PER_YEAR = 365.0

LOWEST_VOLATILITY, HIGHEST_VOLATILITY = 0.01, 5.0

SMALLEST_VEGA = 0.002
"""An option in the money has no volatility if a point of it changes the value by less than this:
the rounding of the broker's value would decide it."""

ROUNDING = 0.005
"""Half a cent. A value may be this much below the intrinsic value. In the money, a value at most
this much above it shows no volatility."""

BETWEEN_DIVIDENDS = 0.25
"""Years between two dividends of most shares that pay any."""

LARGEST_SHARE = 0.9
"""More than this share of a price is no forecast of dividends."""

LEAST_RATE = 1e-9
"""A rate or yield per year up to this counts as 0: the engine for American options has no price for
one of 1e-16."""

FIRST_GUESS = 0.3

CLOSE_ENOUGH = 1e-4
"""The search ends when the volatility changes by less than this share of it."""

NEAR = 0.01
"""The last vega serves as the slope if the volatility changed by at most this share since then: the
error is a hundredth of the change."""

MOST_STEPS = 40

LARGE_YIELD = 10.0
"""A yield per year that exceeds this multiple of the square of the volatility, such as one dividend
within the last days of a call, needs QuantLib's accurate scheme, which costs six times as much. The
fast one is wrong there by up to 0.06 % of the strike, and a price may fall where the volatility
rises."""

NEGLIGIBLE = 1e-5
"""An American option whose price exceeds the value of its exercise by at most this share of the
strike counts as worth its exercise."""


class Method(StrEnum):
    """How the price of an option follows from its volatility.

    AMERICAN: exercise at any time (QuantLib's QdFpAmericanEngine). EUROPEAN: Black and Scholes, for
    options on an index. FUTURE: as AMERICAN, on a future, which costs no interest (Black 1976).
    """

    AMERICAN = "AMERICAN"
    EUROPEAN = "EUROPEAN"
    FUTURE = "FUTURE"


class NoGreeks(StrEnum):
    """Why an option has no modelled greeks."""

    NO_VALUE = "it has no value with a known time"
    NO_UNDERLYING_PRICE = "the underlying has no price"
    NO_PRICE_THEN = "the underlying had no price when the value was true"
    UNDERLYING_OLD = "the underlying's price is older than a minute in its session"
    BELOW_INTRINSIC = "its value is below the intrinsic value"
    EXPIRED = "it expired"
    OUT_OF_RANGE = "its volatility is outside 1 to 500 %"
    NO_VEGA = "deep in the money, its value shows no volatility"
    NOT_COMPUTED = "the model has no price for it"


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionTerms:
    """The terms of an option, and what the model assumes besides.

    Attributes:
        strike: In the major unit of the currency, as every price here.
        rate: The interest rate per year of its currency.
        dividend_share: The present value of the dividends until expiry, as a share of the price of
            the underlying; None: no dividends are known, and none are assumed.
    """

    right: Right
    strike: float
    expires_at: datetime
    method: Method
    rate: float
    dividend_share: float | None = None

    @property
    def text(self) -> str:
        """The method and what it assumes, in one line.

        >>> at = datetime(2028, 12, 15)
        >>> terms = OptionTerms(
        ...     right=Right.PUT, strike=90.0, expires_at=at, method=Method.AMERICAN, rate=0.04
        ... )
        >>> terms.text
        'AMERICAN, rate 0.04, dividends unknown: none assumed'
        """
        if self.method is Method.FUTURE:
            return f"{self.method}, rate {self.rate:g}"
        share = self.dividend_share
        known = "unknown: none assumed" if share is None else f"{share:g} of the price"
        return f"{self.method}, rate {self.rate:g}, dividends {known}"

    def years(self, now: datetime) -> float:
        """Return the time to expiry in years of 365 days."""
        return (self.expires_at - now) / timedelta(days=DAYS_PER_YEAR)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelledGreeks:
    """Greeks in the gateway's units: vega per point of volatility, theta per calendar day."""

    implied_vol: float
    delta: float
    gamma: float
    vega: float
    theta: float
    underlying_price: float


def dividend_share(known: Sequence[tuple[float, float]], years: float) -> float | None:
    """Return the dividends until an expiry, as a share of the price of the underlying.

    Args:
        known: For each option whose `pvDividend` the gateway sent: the years to its expiry, and
            that amount as a share of the price. The share is linear from now to the first expiry
            and between two of them; after the last, the line from now to the last continues.
        years: The time to the expiry.

    >>> round(dividend_share([(1.0, 0.03), (0.5, 0.01)], 0.75), 6)
    0.02
    >>> round(dividend_share([(0.5, 0.01)], 1.0), 6)
    0.02
    >>> dividend_share([], 1.0) is None
    True
    """
    before, share_before = 0.0, 0.0
    for at, share in sorted(one for one in known if one[0] > 0 and 0 <= one[1] < 1):
        if years <= at:
            return share_before + (share - share_before) * (years - before) / (at - before)
        before, share_before = at, share
    return min(LARGEST_SHARE, share_before * years / before) if before else None


def _fast_engine(ql: Any, process: Any) -> Any:
    return ql.QdFpAmericanEngine(process, ql.QdFpAmericanEngine.fastScheme())


def load_quantlib() -> Any:
    """Import QuantLib, which takes 0.2 s and 37 MB, and return it; it has no types."""
    return import_module("QuantLib")


class OptionModel:
    """Prices options by QuantLib, which is imported when the first model is made.

    A price depends on rate × time, yield × time, volatility × √time and spot / strike alone. For
    that reason one call and one put that expire in a year, with a strike of 100, price all options.
    One thread at a time may use a model.

    Args:
        engine: Makes an engine for American options from QuantLib's module and a process.
    """

    def __init__(self, engine: Callable[[Any, Any], Any] = _fast_engine) -> None:
        ql = load_quantlib()
        day = ql.Date(1, 1, 2030)
        ql.Settings.instance().evaluationDate = day
        self._set = [100.0, 0.0, 0.0, 0.2]
        self._quotes = [ql.SimpleQuote(value) for value in self._set]
        spot, rates, yields, volatilities = (ql.QuoteHandle(quote) for quote in self._quotes)
        calendar = ql.Actual365Fixed()
        rate, dividends = (
            ql.YieldTermStructureHandle(ql.FlatForward(day, quote, calendar))
            for quote in (rates, yields)
        )
        volatility = ql.BlackVolTermStructureHandle(
            ql.BlackConstantVol(day, ql.NullCalendar(), volatilities, calendar)
        )
        process = ql.GeneralizedBlackScholesProcess(spot, dividends, rate, volatility)
        accurate = ql.QdFpAmericanEngine(process, ql.QdFpAmericanEngine.accurateScheme())
        end = day + 365
        early, late = ql.AmericanExercise(day, end), ql.EuropeanExercise(end)
        ways = {
            "kept": (late, ql.AnalyticEuropeanEngine(process)),
            "exercised": (early, engine(ql, process)),
            "large yield": (early, accurate),
        }
        self._options: dict[tuple[Right, str], Any] = {}
        for right, kind in ((Right.CALL, ql.Option.Call), (Right.PUT, ql.Option.Put)):
            for way, (exercise, used) in ways.items():
                option = ql.VanillaOption(ql.PlainVanillaPayoff(kind, 100.0), exercise)
                option.setPricingEngine(used)
                self._options[right, way] = option

    def price(self, terms: OptionTerms, *, spot: float, years: float, volatility: float) -> float:
        """Return the theoretical price of an option.

        Raises:
            RuntimeError: QuantLib has no price for these numbers.
        """
        if terms.strike <= 0:
            raise RuntimeError(f"no price for a strike of {terms.strike:g}")
        rate, (kept, paid) = terms.rate, _dividends(terms, years)
        scaled = (100 * kept * spot / terms.strike, rate * years, paid * years)
        for number, value in enumerate((*scaled, volatility * math.sqrt(years))):
            if value != self._set[number]:  # to set it takes a third of the time of a price
                self._quotes[number].setValue(value)
                self._set[number] = value
        # To exercise early, a call must earn a yield, and a put interest.
        earned = paid if terms.right is Right.CALL else rate
        way = "kept"
        if terms.method is not Method.EUROPEAN and earned > LEAST_RATE:
            way = "large yield" if paid > LARGE_YIELD * volatility**2 else "exercised"
        price: float = self._options[terms.right, way].NPV()
        return price * terms.strike / 100

    def implied_volatility(
        self,
        terms: OptionTerms,
        *,
        value: float,
        spot: float | None,
        at: datetime,
        near: float | None = None,
        vega: float | None = None,
    ) -> float | NoGreeks:
        """Return the volatility that explains a value of the broker.

        Args:
            terms: The option.
            value: The broker's value of one unit of the underlying.
            spot: The price of the underlying when that value was true.
            at: When it was true.
            near: The last volatility of this option: the search begins there.
            vega: The change of the option's price at `near` for a point of volatility.
        """
        years = terms.years(at)
        if spot is None or not 0 < spot < math.inf:
            return NoGreeks.NO_UNDERLYING_PRICE
        if years <= 0:
            return NoGreeks.EXPIRED
        intrinsic = _intrinsic(terms, spot, years)
        if value < intrinsic - ROUNDING:
            return NoGreeks.BELOW_INTRINSIC
        if intrinsic > 0 and value <= intrinsic + ROUNDING:
            return NoGreeks.NO_VEGA

        def excess(volatility: float) -> float:
            return self.price(terms, spot=spot, years=years, volatility=volatility) - value

        try:
            found, slope = _root(excess, near or FIRST_GUESS, 100 * vega if near and vega else None)
        except RuntimeError:
            return NoGreeks.NOT_COMPUTED
        if intrinsic > 0 and slope / 100 < SMALLEST_VEGA:
            return NoGreeks.NO_VEGA
        if not LOWEST_VOLATILITY < found < HIGHEST_VOLATILITY:
            return NoGreeks.OUT_OF_RANGE
        return found

    def greeks(
        self, terms: OptionTerms, *, volatility: float, spot: float | None, now: datetime
    ) -> ModelledGreeks | NoGreeks:
        """Return the greeks of an option.

        Theta follows from the other greeks, as the equation of Black and Scholes says; it is 0
        where the option is worth its exercise.

        Args:
            terms: The option.
            volatility: Its volatility.
            spot: The price of the underlying now.
            now: The present moment.
        """
        years = terms.years(now)
        if spot is None or not 0 < spot < math.inf:
            return NoGreeks.NO_UNDERLYING_PRICE
        if years <= 0:
            return NoGreeks.EXPIRED
        change = spot * min(0.02, max(5e-4, 0.1 * volatility * math.sqrt(years)))
        higher = 0.002 * volatility
        try:
            low, value, high = (
                self.price(terms, spot=at, years=years, volatility=volatility)
                for at in (spot - change, spot, spot + change)
            )
            more = self.price(terms, spot=spot, years=years, volatility=volatility + higher)
        except RuntimeError:
            return NoGreeks.NOT_COMPUTED
        delta, gamma = (high - low) / (2 * change), (high - 2 * value + low) / change**2
        # Between two dividends the underlying costs interest and pays nothing; a future costs none.
        growth = 0.0 if terms.method is Method.FUTURE else terms.rate
        decay = terms.rate * value - growth * spot * delta - (volatility * spot) ** 2 * gamma / 2
        least = _intrinsic(terms, spot, years) + NEGLIGIBLE * terms.strike
        lowest = 0.0 if terms.right is Right.CALL else -1.0
        exercised = terms.method is not Method.EUROPEAN and value <= least
        return ModelledGreeks(
            implied_vol=volatility,
            delta=min(max(delta, lowest), lowest + 1.0),  # the differences are not exact
            gamma=max(0.0, gamma),
            vega=max(0.0, more - value) / higher / 100,
            theta=0.0 if exercised else decay / DAYS_PER_YEAR,
            underlying_price=spot,
        )


def _dividends(terms: OptionTerms, years: float) -> tuple[float, float]:
    """Return the share of the spot that is left after dividends, and the yield per year.

    A call is exercised before a dividend, and a put waits for the next one. Their dates are not
    known: a call is priced with a yield that pays the same, and a put on what is left after the
    next dividend, with such a yield for those that follow. A future has a yield of the rate, since
    it costs no interest.
    """
    if terms.method is Method.FUTURE:
        return 1.0, terms.rate
    paid = -math.log(1 - (terms.dividend_share or 0.0))
    if terms.method is Method.EUROPEAN:
        waited = 1.0
    elif terms.right is Right.PUT:
        waited = min(1.0, BETWEEN_DIVIDENDS / years)
    else:
        waited = 0.0
    return math.exp(-waited * paid), (1 - waited) * paid / years


def _intrinsic(terms: OptionTerms, spot: float, years: float) -> float:
    """Return the least value of an option: what exercise gives, for a European one at expiry."""
    strike = terms.strike
    if terms.method is Method.EUROPEAN:
        spot *= _dividends(terms, years)[0]
        strike *= math.exp(-terms.rate * years)
    return max(0.0, spot - strike if terms.right is Right.CALL else strike - spot)


def _root(
    excess: Callable[[float], float], start: float, slope: float | None = None
) -> tuple[float, float]:
    """Return the volatility at which a rising function is 0, and the slope of the function there.

    Secant steps; bisection where a step leaves the bracket of the root, or where the last one left
    more than half of the excess: far from the money the function is flat, and a secant there leads
    nowhere. A root beyond a bound gives that bound.

    Args:
        excess: The function.
        start: Where the search begins.
        slope: The slope of the function at `start`, if it is known. One call then finds a root that
            is so near that an error of the slope does not matter.
    """
    low, high = LOWEST_VOLATILITY, HIGHEST_VOLATILITY
    at = min(max(start, 1.01 * low), high / 1.02)
    value = excess(at)
    if slope is not None and abs(value) <= NEAR * slope * at and low < at - value / slope < high:
        return at - value / slope, slope
    slope = (excess(1.01 * at) - value) / (0.01 * at)
    is_slow = False
    for _ in range(MOST_STEPS):
        low, high = (low, at) if value > 0 else (at, high)
        guess = at - value / slope if slope > 0 else math.nan
        if abs(guess - at) <= CLOSE_ENOUGH * at:
            return guess, slope
        if is_slow or not low < guess < high:
            guess = math.sqrt(low * high)
        if high - low <= CLOSE_ENOUGH * low:
            break
        there = excess(guess)
        is_slow = abs(there) > abs(value) / 2
        slope = (there - value) / (guess - at)
        at, value = guess, there
    edge = LOWEST_VOLATILITY if low == LOWEST_VOLATILITY else HIGHEST_VOLATILITY
    return (edge if edge in (low, high) else at), slope
