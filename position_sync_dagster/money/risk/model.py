"""The option model: prices, implied volatilities and greeks of many options at once.

A European option has a price by Black's formula on its forward. The right to exercise early adds
what a trinomial lattice says: the American value less the European one, both of the same lattice,
so that its error cancels. One lattice gives the addition at every price of the underlying: a leg
under fifty scenarios needs as many lattices as there are volatilities, days and rates.

Dividends are discrete: an amount of money is taken from the price of the underlying, as the
present value of what is paid until expiry (the escrowed model); a share is taken from the price on
its day.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from itertools import zip_longest
from typing import Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

DAYS_PER_YEAR = 365.0

LOWEST_VOLATILITY = 0.01
HIGHEST_VOLATILITY = 5.0

# Steps of a lattice, by the greatest time to expiry: its nodes must tell apart the prices at which
# an option is exercised, also just before a dividend that comes soon.
TREE_STEPS = {0.25: 128, math.inf: 288}

# Steps for the greeks of a whole account: a third of the time, and delta within 0.001.
COARSE = {0.25: 64, math.inf: 160}

# Steps for a few options: theta and vega within 2 %, also beside the price of early exercise.
FINE = {math.inf: 640}

Steps = Mapping[float, int]

# How many standard deviations a lattice reaches to each side of the strike.
WIDTH = 4.5

# Number of lattices that are computed together: their nodes fit into a processor's cache.
PRICED_AT_ONCE = 256

# An American option whose price exceeds the value of its exercise by at most this share of the
# strike counts as worth its exercise.
NEGLIGIBLE_VALUE = 2e-5

# Half a cent. A value may be this much below the intrinsic value. In the money, a value at most
# this much above it shows no volatility.
MODEL_ROUNDING = 0.005

# An option in the money has no volatility if a point of it changes the value by less than this:
# the rounding of the broker's value would decide it.
SMALLEST_VEGA = 0.002

# The search for a volatility ends when it changes by less than this share of it.
CLOSE_ENOUGH = 1e-5

MOST_STEPS = 40

# How far beside the present price delta and gamma are measured, in standard deviations to expiry.
ASIDE = 0.06


class Exercise(StrEnum):
    """How the price of an option follows from its volatility.

    AMERICAN: exercise at any time. EUROPEAN: at expiry alone, as options on an index. FUTURE: as
    AMERICAN, on a future, which costs no interest (Black 1976).
    """

    AMERICAN = "AMERICAN"
    EUROPEAN = "EUROPEAN"
    FUTURE = "FUTURE"
    EUROPEAN_FUTURE = "EUROPEAN_FUTURE"

    @property
    def is_early(self) -> bool:
        """Whether exercise is possible at any time."""
        return self in (Exercise.AMERICAN, Exercise.FUTURE)

    @property
    def is_on_future(self) -> bool:
        """Whether the underlying costs no interest."""
        return self in (Exercise.FUTURE, Exercise.EUROPEAN_FUTURE)


@dataclass(frozen=True, slots=True, kw_only=True)
class VanillaOptions:
    """The terms of options; prices and strikes in the major unit.

    Each term is a column with an entry for each option, so that it meets rows of prices of their
    underlyings. The volatilities of options are such a column too.

    Attributes:
        side: 1 for a call, −1 for a put.
        years: The time to expiry; at 0 and below an option is worth its exercise.
        rate: The interest rate per year.
        on_future: Whether the underlying costs no interest.
        dividends: For each option a list of (years, amount, share), all of the same length: the
            time until the ex-date, and an amount of money in the major unit, or a share of the
            price on that day. An option on a future has none.
    """

    side: Array
    strike: Array
    years: Array
    rate: Array
    is_american: Flags
    on_future: Flags
    dividends: Array

    @classmethod
    def of(
        cls,
        terms: Sequence[tuple[float, ...]],
        dividends: Sequence[Sequence[tuple[float, float, float]]],
    ) -> Self:
        """Return options by their terms and the dividends of each.

        Args:
            terms: For each option side, strike, years and rate, whether it is American, and whether
                it is on a future.
            dividends: As the attribute; the lists may have different lengths.
        """
        columns = np.array(terms, dtype=float).reshape(-1, 6).T[..., None]
        side, strike, years, rate, is_american, on_future = columns

        # The shorter lists of dividends end in some that are never paid.
        by_place = [*zip_longest(*dividends, fillvalue=(math.inf, 0.0, 0.0))]
        of_options = np.reshape(by_place, (len(by_place), len(dividends), 3))
        return cls(
            side=side,
            strike=strike,
            years=years,
            rate=rate,
            is_american=is_american > 0,
            on_future=on_future > 0,
            dividends=of_options.swapaxes(0, 1),
        )

    def at(self, places: NDArray[np.int64] | slice) -> Self:
        """Return some of the options."""
        return type(self)(
            **{column.name: getattr(self, column.name)[places] for column in fields(self)}
        )

    def later(self, days: float) -> Self:
        """Return the options after some days."""
        passed = days / DAYS_PER_YEAR
        dividends = self.dividends - np.array([passed, 0.0, 0.0])
        return replace(self, years=self.years - passed, dividends=dividends)

    @property
    def pays(self) -> Flags:
        """Whether the underlying pays a dividend before the expiry."""
        money, share = self.kept_from_now()
        return (money > 0) | (share < 1)

    @property
    def growth(self) -> Array:
        """The rate at which the underlying grows: that of interest, or 0 of a future."""
        return np.where(self.on_future, 0.0, self.rate)

    @property
    def time_left(self) -> Array:
        """The time to expiry, never below 0."""
        return np.maximum(self.years, 0.0)

    def exercised(self, spots: Array) -> Array:
        """Return what exercise gives; a row of prices of the underlying for each option."""
        return np.maximum(0.0, self.side * (spots - self.strike))

    def kept(self, since: Array) -> tuple[Array, Array]:
        """Return what dividends leave between some times and expiry.

        Args:
            since: A row of times in years for each option.

        Returns:
            The money that is paid, as of those times; and the share of the price that is kept.
        """
        money = np.zeros(since.shape)
        share = np.ones(since.shape)
        for years, amount, part in np.moveaxis(self.dividends, 0, -1)[..., None]:
            is_paid = (years > since) & (years <= self.years)
            waiting = np.where(is_paid, years, since) - since
            present_value = amount * np.exp(-self.rate * waiting)
            money += np.where(is_paid, present_value, 0.0)
            share *= np.where(is_paid, 1.0 - part, 1.0)
        return money, share

    def kept_from_now(self) -> tuple[Array, Array]:
        """Return what `kept` does of the present moment: a column with an entry for each option."""
        return self.kept(np.zeros(self.years.shape))

    def forwards(self, spots: Array) -> Array:
        """Return the forward price at expiry for rows of prices."""
        money, share = self.kept_from_now()
        growth = np.exp(self.growth * self.time_left)
        forward = (spots - money) * (share * growth)

        # The logarithm of a forward that dividends leave nothing of is not known.
        return np.asarray(np.maximum(forward, 1e-9 * self.strike))


@dataclass(frozen=True, slots=True, kw_only=True)
class Greeks:
    """Greeks in the gateway's units: vega per point of volatility, theta per calendar day.

    Each has a row for each option, with an entry for each price of its underlying.
    """

    price: Array
    delta: Array
    gamma: Array
    vega: Array
    theta: Array


def prices(
    options: VanillaOptions, spots: Array, volatility: Array, steps: Steps = TREE_STEPS
) -> Array:
    """Return the prices of options at several prices of their underlyings.

    Args:
        options: The options.
        spots: A row of prices for each option.
        volatility: That of each option, per year, as a column.
        steps: Steps of a lattice, by the greatest time to expiry.
    """
    exercise_value = options.exercised(spots)
    price, is_exercised = _smooth_prices(options, spots, volatility, steps)

    is_near = price < exercise_value + NEGLIGIBLE_VALUE * options.strike
    is_worth_exercise = is_exercised | (is_near & options.is_american)
    return np.where(is_worth_exercise & (exercise_value > 0), exercise_value, price)


def _smooth_prices(
    options: VanillaOptions, spots: Array, volatility: Array, steps: Steps
) -> tuple[Array, Flags]:
    """Return prices whose differences are greeks, and where an option is worth its exercise."""
    price = options.exercised(spots)
    is_exercised = np.zeros(price.shape, dtype=bool)
    alive = np.flatnonzero(options.years > 0)
    price[alive] = _european(options.at(alive), spots[alive], volatility[alive])

    for size, places in _lattices(options, steps):
        american = options.at(places)
        added, exercised = _early_exercise(american, spots[places], volatility[places], size)
        price[places] += np.maximum(0.0, added)
        is_exercised[places] = exercised
    return price, is_exercised


def greeks(options: VanillaOptions, spots: Array, volatility: Array, steps: Steps = FINE) -> Greeks:
    """Return prices and greeks of options, each at a row of prices of its underlying.

    With the price `V`, the price `S` of the underlying, the present value `D` of the money that it
    pays until the expiry, the rate `r`, the growth `g` of the underlying (`r`, or 0 of a future)
    and the volatility `σ`,

        Δ = ∂V/∂S    Γ = ∂²V/∂S²    Θ = r V − g S Δ − σ² (S − D)² Γ / 2

    Source of Θ: the equation of Black and Scholes for S − D, which alone is diffused (the escrowed
    model). An option that is worth its exercise has Δ ±1, and neither Γ, Θ nor vega.
    """
    deviation = volatility * np.sqrt(options.time_left)
    step = spots * np.clip(ASIDE * deviation, 1e-4, 0.5)
    beside = np.hstack([spots - step, spots, spots + step])
    smooth, exercised_at = _smooth_prices(options, beside, volatility, steps)
    lower, price, higher = np.hsplit(smooth, 3)
    delta = (higher - lower) / (2 * step)
    gamma = (higher - 2 * price + lower) / step**2

    change = 0.01 * volatility
    more, _exercised = _smooth_prices(options, spots, volatility + change, steps)
    less, _exercised = _smooth_prices(options, spots, volatility - change, steps)
    vega = (more - less) / (2 * change) / 100

    paid, _share = options.kept_from_now()
    diffused = volatility * (spots - paid)
    interest = options.rate * price
    growth = options.growth * spots * delta
    theta = interest - growth - diffused**2 * gamma / 2
    # More time is never worth less to who may exercise at any time, unless a dividend comes closer.
    is_decaying = options.is_american & ~options.pays
    theta = np.where(is_decaying, np.minimum(theta, 0.0), theta)

    exercise_value = options.exercised(spots)
    _below, is_at_price, _above = np.hsplit(exercised_at, 3)
    is_worth_exercise = is_at_price | (options.years <= 0)
    delta_of_exercise = np.where(exercise_value > 0, options.side, 0.0)
    least_delta = np.minimum(options.side, 0.0)
    delta = np.clip(delta, least_delta, least_delta + 1.0)
    gamma = np.maximum(0.0, gamma)
    vega = np.maximum(0.0, vega)
    return Greeks(
        price=np.where(is_worth_exercise, exercise_value, price),
        delta=np.where(is_worth_exercise, delta_of_exercise, delta),
        gamma=np.where(is_worth_exercise, 0.0, gamma),
        vega=np.where(is_worth_exercise, 0.0, vega),
        theta=np.where(is_worth_exercise, 0.0, theta / DAYS_PER_YEAR),
    )


def within_bounds(volatility: Array) -> Array:
    """Return the nearest volatilities that the model prices with."""
    return np.clip(volatility, LOWEST_VOLATILITY, HIGHEST_VOLATILITY)


class NoVolatility(StrEnum):
    """Why a value shows no volatility."""

    BELOW_INTRINSIC = "its value is below the intrinsic value"
    OUT_OF_RANGE = "its volatility is outside 1 to 500 %"
    NO_VEGA = "deep in the money, its value shows no volatility"


def implied_volatility(
    options: VanillaOptions, value: Array, spot: Array, near: Array, steps: Steps = TREE_STEPS
) -> tuple[Array, list[NoVolatility | None]]:
    """Return the volatilities that explain values of the broker, and why some have none.

    Numbers of the options are columns.

    Args:
        options: The options; none has expired.
        value: The broker's value of one unit of the underlying.
        spot: The price of the underlying when that value was true.
        near: Where each search begins.
        steps: Steps of a lattice, by the greatest time to expiry.

    Returns:
        The volatilities, NaN where there is a reason.
    """
    # An option is worth its exercise at least, a European one that at its expiry.
    at_once = options.exercised(spot)
    discount = np.exp(-options.rate * options.years)
    at_expiry = discount * options.exercised(options.forwards(spot))
    least = np.where(options.is_american, np.maximum(at_expiry, at_once), at_expiry)
    is_in_the_money = least > 0
    is_below = value < least - MODEL_ROUNDING
    is_at_least = ~is_below & is_in_the_money & (value <= least + MODEL_ROUNDING)

    is_asked = ~is_below & ~is_at_least
    volatility, vega = _search(options, value, spot, near, is_asked, steps)
    is_above_lowest = volatility > 1.001 * LOWEST_VOLATILITY
    is_inner = is_above_lowest & (volatility < HIGHEST_VOLATILITY / 1.001)
    is_flat = is_at_least | (is_inner & is_in_the_money & (vega < SMALLEST_VEGA))

    flags = np.hstack([is_below, is_flat, is_inner])
    reasons = [_reason(*of_option) for of_option in flags.tolist()]
    return np.where(is_inner & ~is_flat, volatility, np.nan), reasons


def _reason(is_below: bool, is_flat: bool, is_inner: bool) -> NoVolatility | None:
    """Return why a value shows no volatility; None: it shows one."""
    if is_below:
        return NoVolatility.BELOW_INTRINSIC
    if is_flat:
        return NoVolatility.NO_VEGA
    if is_inner:
        return None
    return NoVolatility.OUT_OF_RANGE


def _search(
    options: VanillaOptions, value: Array, spot: Array, near: Array, asked: Flags, steps: Steps
) -> tuple[Array, Array]:
    """Return the volatilities of some options, NaN where none is found, and the vegas there.

    Each takes steps of Newton within a bracket; one that leaves it bisects the bracket.
    """
    low = np.full(near.shape, LOWEST_VOLATILITY)
    high = np.full(near.shape, HIGHEST_VOLATILITY)
    guess = np.clip(near, 1.02 * low, high / 1.02)
    vega = np.zeros(near.shape)
    places = np.flatnonzero(asked)
    for _step in range(MOST_STEPS):
        if not places.size:
            break

        chosen = options.at(places)
        tried = guess[places]
        price = prices(chosen, spot[places], tried, steps)
        bumped = prices(chosen, spot[places], 1.01 * tried, steps)
        slope = (bumped - price) / (0.01 * tried)
        excess = price - value[places]

        is_above = excess > 0
        lower = np.where(is_above, low[places], tried)
        upper = np.where(is_above, tried, high[places])
        with np.errstate(divide="ignore", invalid="ignore"):
            newton = tried - excess / slope
        is_inside = (newton > lower) & (newton < upper)
        bisection = np.sqrt(lower * upper)

        low[places] = lower
        high[places] = upper
        guess[places] = np.where(is_inside, newton, bisection)
        vega[places] = slope / 100
        is_close = np.abs(guess[places] - tried) <= CLOSE_ENOUGH * tried
        places = places[~is_close[:, 0]]

    is_found = asked.copy()
    is_found[places] = False
    return np.where(is_found, guess, np.nan), vega


def _lattices(options: VanillaOptions, steps: Steps) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield the options that may gain by early exercise, in groups with lattices of one size.

    A put earns interest on its strike, a call is spared it where rates are negative; a call takes
    the dividends before expiry, and a future pays interest on what exercise gives.
    """
    strike_earns = options.side * options.rate < 0
    earns = np.where(options.on_future, options.rate > 0, strike_earns)
    takes_dividends = (options.side > 0) & options.pays
    may_gain = options.is_american & (earns | takes_dividends)

    least = 0.0
    for most, size in steps.items():
        is_of_size = (options.years > least) & (options.years <= most)
        places = np.flatnonzero(may_gain & is_of_size)
        for begin in range(0, places.size, PRICED_AT_ONCE):
            yield size, places[begin : begin + PRICED_AT_ONCE]
        least = most


def normal(x: Array) -> Array:
    """Return the distribution function of the normal distribution; numpy has none."""
    scaled = (-x / math.sqrt(2)).ravel().tolist()
    complement = np.fromiter(map(math.erfc, scaled), float, x.size)
    return 0.5 * complement.reshape(x.shape)


def _european(options: VanillaOptions, spots: Array, volatility: Array) -> Array:
    """Return the prices of European options, by the formula of Black (1976).

    With the forward `F`, the strike `K`, the volatility `σ`, the time `T`, the discount factor `D`,
    and `w` 1 for a call and −1 for a put,

        d1 = ln(F / K) / (σ √T) + σ √T / 2    d2 = d1 − σ √T
        price = D w (F N(w d1) − K N(w d2))
    """
    forward = options.forwards(spots)
    discount = np.exp(-options.rate * options.years)
    spread = volatility * np.sqrt(options.years)

    d1 = np.log(forward / options.strike) / spread + spread / 2
    d2 = d1 - spread
    on_forward = forward * normal(options.side * d1)
    on_strike = options.strike * normal(options.side * d2)
    return np.maximum(0.0, discount * options.side * (on_forward - on_strike))


def _early_exercise(
    options: VanillaOptions, spots: Array, volatility: Array, steps: int
) -> tuple[Array, Flags]:
    """Return what the right to exercise early adds, from one lattice for each option.

    The nodes are prices of the forward to expiry, which has no drift, in equal steps of their
    logarithm around the strike. At a price outside the lattice the addition is that of its edge.

    Returns:
        The addition, and where the nodes to both sides of a price are worth their exercise.
    """
    width = volatility * np.sqrt(3 * (options.years / steps))
    reach = math.ceil(WIDTH * math.sqrt(steps / 3))
    numbers = np.arange(-reach, reach + 1)
    nodes = options.strike * np.exp(width * numbers)
    added, node_is_exercised = _addition(options, nodes, width, steps)

    steps_from_strike = np.log(options.forwards(spots) / options.strike) / width
    last = 2 * reach
    place = np.clip(reach + steps_from_strike, 0, last)
    below = np.minimum(place, last - 1).astype(np.int64)
    below_is_exercised = np.take_along_axis(node_is_exercised, below, axis=1)
    above_is_exercised = np.take_along_axis(node_is_exercised, below + 1, axis=1)
    return _interpolated(added, place), below_is_exercised & above_is_exercised


# The nodes around a place, and what their values weigh in each coefficient of the polynomial.
_NODES = np.arange(-2, 3)
_WEIGHTS = np.linalg.inv(np.vander(_NODES, increasing=True))


def _interpolated(values: Array, place: Array) -> Array:
    """Return values between nodes, by the polynomial through the five nodes around each place."""
    last_middle = values.shape[1] - 3
    middle = np.clip(np.rint(place), 2, last_middle).astype(np.int64)
    around = np.stack([np.take_along_axis(values, middle + node, axis=1) for node in _NODES])
    coefficients: Array = np.tensordot(_WEIGHTS, around, 1)
    return np.asarray(np.polynomial.polynomial.polyval(place - middle, coefficients, tensor=False))


def _addition(
    options: VanillaOptions, nodes: Array, width: Array, steps: int
) -> tuple[Array, Flags]:
    """Return the American less the European values at the nodes, both of one lattice.

    Each layer is the expectation of the one after it, discounted by `d`: a node keeps 2/3 of its
    own value, and the chances of the nodes above and below, `u` being the ratio of two nodes, are
    such that the forward has no drift:

        rise = d / (3 (1 + u))    fall = d u / (3 (1 + u))

    Returns:
        The additions, and which nodes of the first layer are worth their exercise.
    """
    # A row for each node: neighbours of all options lie side by side.
    nodes = nodes.T
    up = np.exp(width.T)
    step = options.years / steps
    times = step * np.arange(steps + 1)
    money, share = options.kept(times)
    growth = np.exp(-options.growth * (options.years - times))
    spots_of_forward = np.ascontiguousarray((growth / share).T)
    constants = np.ascontiguousarray((options.side * (money - options.strike)).T)

    discount = np.exp(-options.rate * step).T
    rise = discount / (3 * (1 + up))
    stay = discount * 2 / 3

    # The sum over nodes leaves this out of the integral over the bend (Euler and Maclaurin).
    at_the_bend = options.strike * width / 12
    payoff = np.ascontiguousarray(options.exercised(nodes.T).T)
    payoff[len(payoff) // 2] = at_the_bend[:, 0]
    european = _expected_at_last(payoff, nodes, up, discount, steps)

    signed_nodes = options.side.T * nodes
    american = payoff
    exercise_value = np.empty_like(payoff)
    before = np.empty_like(payoff)
    part = payoff[1:-1].copy()
    fall = rise * up
    for layer in reversed(range(steps)):
        np.multiply(signed_nodes, spots_of_forward[layer], out=exercise_value)
        exercise_value += constants[layer]

        inner = before[1:-1]
        np.multiply(american[1:-1], stay, out=inner)
        inner += np.multiply(american[2:], rise, out=part)
        inner += np.multiply(american[:-2], fall, out=part)
        before[[0, -1]] = american[[0, -1]] * discount  # where the value is a line
        american, before = np.maximum(before, exercise_value, out=before), american

    is_exercised = (american <= exercise_value) & (exercise_value > 0)
    return (american - european).T, is_exercised.T


def _expected_at_last(payoff: Array, nodes: Array, up: Array, discount: Array, steps: int) -> Array:
    """Return the European values at the nodes of the first layer, without the layers between.

    A line of the forward stays a line, since the forward has no drift. What is left above the line
    through the edges is 0 at both; weighted by `u ** (-j / 2)` at the node `j`, each layer takes
    equal parts of both neighbours, so that waves of sines become smaller, and nothing else.
    """
    lowest = nodes[0]
    slope = (payoff[-1] - payoff[0]) / (nodes[-1] - lowest)
    line = payoff[0] + slope * (nodes - lowest)

    count = len(nodes) - 1
    numbers = np.arange(1, count)[:, None]
    weights = up ** ((count / 2 - numbers) / 2)
    part_of_both = np.sqrt(up) / (3 * (1 + up))
    of_neighbours = part_of_both * np.cos(np.pi / count * numbers)
    kept = 2 / 3 + 2 * of_neighbours

    above_line = (payoff - line)[1:-1]
    values: Array = line
    waves = _waves(above_line * weights)
    values[1:-1] += _waves(kept**steps * waves) / weights
    return values * discount**steps


def _waves(values: Array) -> Array:
    """Return the sines whose sum each column is; of those, the column."""
    edge = np.zeros((1, values.shape[1]))
    odd = np.concatenate([edge, values, edge, -values[::-1]])
    sines = -np.fft.rfft(odd, axis=0).imag / math.sqrt(len(odd))
    inner: Array = sines[1:-1]
    return inner
