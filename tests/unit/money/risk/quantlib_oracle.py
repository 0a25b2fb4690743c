"""Prices and greeks by QuantLib: finite differences with escrowed dividends, or Black's formula."""

from dataclasses import dataclass

import QuantLib as ql

TODAY = ql.Date(1, 6, 2028)
DAYS = ql.Actual365Fixed()

# The time value below which an American option is worth its exercise, as a part of its strike.
EXERCISED = 1e-5

GRID_TIMES = 300
GRID_PRICES = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """An option, with its time in days and its cash dividends as (days, amount)."""

    is_call: bool
    spot: float
    strike: float
    days: int
    rate: float
    volatility: float
    is_american: bool = True
    is_on_future: bool = False
    dividends: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What QuantLib says of a contract: theta a day, vega a point."""

    price: float
    delta: float
    gamma: float
    theta: float
    vega: float


def reference(contract: Contract) -> Reference:
    """Return price and greeks of a contract."""
    ql.Settings.instance().evaluationDate = TODAY
    value = _valued(contract, contract.volatility)
    change = 0.01 * contract.volatility
    up = _valued(contract, contract.volatility + change).NPV()
    down = _valued(contract, contract.volatility - change).NPV()

    paid = sum(amount * _discount(contract, days) for days, amount in contract.dividends)
    growth = contract.rate
    if contract.is_on_future:
        growth = 0.0

    # QuantLib's own theta is that of the middle of its first step, 5 % off in the last week. This
    # is what its price, delta and gamma say: nothing decays where an option is worth its exercise.
    theta = contract.rate * value.NPV() - growth * contract.spot * value.delta()
    theta -= (contract.volatility * (contract.spot - paid)) ** 2 * value.gamma() / 2
    side = 1.0 if contract.is_call else -1.0
    extrinsic = value.NPV() - side * (contract.spot - contract.strike)
    if contract.is_american and extrinsic <= EXERCISED * contract.strike:
        theta = 0.0
    return Reference(
        price=value.NPV(),
        delta=value.delta(),
        gamma=value.gamma(),
        theta=theta / 365,
        vega=(up - down) / (2 * change) / 100,
    )


def _discount(contract: Contract, days: int) -> float:
    return float(ql.FlatForward(TODAY, contract.rate, DAYS).discount(TODAY + days))


def _valued(contract: Contract, volatility: float) -> ql.VanillaOption:
    """Return the option with its engine."""
    end = TODAY + contract.days
    rates = ql.YieldTermStructureHandle(ql.FlatForward(TODAY, contract.rate, DAYS))
    # A future costs no interest: it is a share that pays the interest as a dividend.
    yield_rate = 0.0
    if contract.is_on_future:
        yield_rate = contract.rate

    yields = ql.YieldTermStructureHandle(ql.FlatForward(TODAY, yield_rate, DAYS))
    level = ql.BlackConstantVol(TODAY, ql.NullCalendar(), volatility, DAYS)
    process = ql.BlackScholesMertonProcess(
        ql.QuoteHandle(ql.SimpleQuote(contract.spot)),
        yields,
        rates,
        ql.BlackVolTermStructureHandle(level),
    )
    kind = ql.Option.Put
    if contract.is_call:
        kind = ql.Option.Call

    exercise = ql.EuropeanExercise(end)
    if contract.is_american:
        exercise = ql.AmericanExercise(TODAY, end)
    option = ql.VanillaOption(ql.PlainVanillaPayoff(kind, contract.strike), exercise)

    if contract.is_american or contract.dividends:
        dates = [TODAY + days for days, _amount in contract.dividends]
        amounts = [amount for _days, amount in contract.dividends]
        engine = ql.FdBlackScholesVanillaEngine(
            process,
            ql.DividendVector(dates, amounts),
            GRID_TIMES,
            GRID_PRICES,
            0,
            ql.FdmSchemeDesc.CrankNicolson(),
            False,
            0.0,
            ql.FdBlackScholesVanillaEngine.Escrowed,
        )
    else:
        engine = ql.AnalyticEuropeanEngine(process)
    option.setPricingEngine(engine)
    return option
