"""Option prices and greeks by the formulas of Black, Scholes and Merton."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

_SQRT_2PI = math.sqrt(2 * math.pi)
DAYS_PER_YEAR = 365.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Greeks:
    """A theoretical price with its greeks, in IB's units.

    `vega` is per point of volatility (1 %), `theta` per calendar day. `pv_dividend` is the present
    value of the dividends until expiry.
    """

    implied_vol: float
    price: float
    delta: float
    gamma: float
    vega: float
    theta: float
    pv_dividend: float = 0.0

    def in_unit(self, per_major: int) -> Greeks:
        """Return them in a unit of which `per_major` make one major unit, such as 100 cents."""
        if per_major == 1:
            return self
        return replace(
            self,
            price=self.price * per_major,
            gamma=self.gamma / per_major,
            vega=self.vega * per_major,
            theta=self.theta * per_major,
        )


# What a gateway sends of a model that has not been computed.
NOT_COMPUTED = Greeks(implied_vol=0.0, price=0.0, delta=0.0, gamma=0.0, vega=0.0, theta=0.0)


def _cdf(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def black_scholes(
    *,
    spot: float,
    strike: float,
    years: float,
    volatility: float,
    rate: float,
    call: bool,
    on_future: bool = False,
    kept: float = 1.0,
) -> Greeks:
    """Return price and greeks of a European option; `on_future` uses Black's formula (1976).

    At or after expiry the price is the intrinsic value and the greeks are 0 (delta 0 or ±1).

    Args:
        kept: The share of the spot that is left after the dividends until expiry.
    """
    side = 1.0 if call else -1.0
    if years <= 0 or volatility <= 0:
        intrinsic = max(0.0, side * (spot - strike))
        return Greeks(
            implied_vol=max(volatility, 0.0),
            price=intrinsic,
            delta=side if intrinsic > 0 else 0.0,
            gamma=0.0,
            vega=0.0,
            theta=0.0,
        )

    carry = rate
    if on_future:
        carry = 0.0

    discount = math.exp(-rate * years)
    growth = kept * math.exp((carry - rate) * years)
    root = volatility * math.sqrt(years)
    drift = (carry + 0.5 * volatility**2) * years
    d1 = (math.log(kept * spot / strike) + drift) / root
    d2 = d1 - root

    density = math.exp(-0.5 * d1 * d1) / _SQRT_2PI
    n1 = _cdf(side * d1)
    n2 = _cdf(side * d2)
    forward = spot * growth
    price = side * (forward * n1 - strike * discount * n2)
    of_volatility = forward * density * volatility / (2 * math.sqrt(years))
    of_carry = side * (carry - rate) * forward * n1
    of_rate = side * rate * strike * discount * n2
    decay = -of_volatility - of_carry - of_rate
    return Greeks(
        implied_vol=volatility,
        price=max(price, 0.0),
        delta=side * growth * n1,
        gamma=growth * density / (spot * root),
        vega=forward * density * math.sqrt(years) / 100,
        theta=decay / DAYS_PER_YEAR,
        pv_dividend=spot * (1 - kept),
    )


def skewed(volatility: float, moneyness: float, tilt: float = 0.0) -> float:
    """Return the volatility of one strike: higher for lower strikes, as in equity options.

    Args:
        volatility: That of a strike at the reference price.
        moneyness: The logarithm of strike / reference price.
        tilt: What is added to the usual slope.
    """
    slope = tilt - 0.25
    return volatility * max(0.4, 1 + slope * moneyness + 0.3 * moneyness * moneyness)


def round_to(price: float, tick: float, *, up: bool) -> float:
    """Round a price up or down to a multiple of its tick, without binary rounding errors."""
    steps = price / tick
    whole = math.floor(steps + 1e-9)
    if up:
        whole = math.ceil(steps - 1e-9)

    return round(whole * tick, 8)
