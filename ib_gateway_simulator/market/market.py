"""The simulated market: quotes that follow from the random walks of the underlyings.

Everything is a function of (book, seed, step): the same seed gives the same prices at the same
step, independent of what clients request and when.
"""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import date, datetime, time
from typing import NamedTuple
from zoneinfo import ZoneInfo

from ib_gateway_simulator.market.early_exercise import EarlyExercise
from ib_gateway_simulator.market.noise import mix
from ib_gateway_simulator.market.pricing import (
    DAYS_PER_YEAR,
    NOT_COMPUTED,
    Greeks,
    black_scholes,
    round_to,
    skewed,
)
from ib_gateway_simulator.market.quote import Pin, Quote
from ib_gateway_simulator.market.underlying import (
    DIVIDENDS_PER_YEAR,
    TRADE_EVERY,
    OptionMarket,
    RandomWalk,
    Underlying,
    VolatilityWalk,
)
from ib_gateway_simulator.protocol.contract import Contract, SecType

OPTION_SPREAD = 0.02
# Width of a quote, as a share of the price at the opening.
STOCK_SPREAD = 0.0002


class _Terms(NamedTuple):
    """What does not change with the steps; `kept` is the share of the price after dividends."""

    years: float
    moneyness: float
    kept: float
    early: EarlyExercise | None


class _Trade(NamedTuple):
    step: int
    price: float


class _Day(NamedTuple):
    """A contract's values that hold for the whole day."""

    half_spread: float
    open: float
    close: float


class Market:
    """Quotes every contract of a book at the current step; `step` advances it.

    Args:
        as_of: When the prices are true. Times to expiry count from it; if it is a date, in whole
            days.
        rate: The interest rate per year.
        seed: Decides the random walks of the prices.
        pins: Quotes that are held at given values, by conid.
        options: How options are priced; None: as European ones, by volatilities that stand still.
        closed_days: How long ago the previous close was; options had so much more time then.
    """

    def __init__(
        self,
        *,
        underlyings: dict[str, Underlying],
        contracts: dict[int, Contract],
        as_of: date,
        rate: float,
        seed: int,
        pins: dict[int, Pin] | None = None,
        options: OptionMarket | None = None,
        closed_days: float = 0.0,
    ) -> None:
        self._underlyings = underlyings
        self._contracts = contracts
        self._as_of = as_of
        self._rate = rate
        self._seed = seed
        self._pins: dict[int, Pin] = dict(pins or {})
        self._models_in_major: set[int] = set()
        self._not_computed: set[int] = set()
        self._walks = {
            symbol: RandomWalk(underlying, seed) for symbol, underlying in underlyings.items()
        }
        self._american = options is not None
        self._volatilities = {
            symbol: VolatilityWalk(underlying, options)
            for symbol, underlying in underlyings.items()
        }

        self._closed_years = closed_days / DAYS_PER_YEAR
        self._early: dict[tuple[str, str, str, float], EarlyExercise] = {}
        self._jumped: dict[str, float] = {}
        self._dividends: dict[str, list[tuple[float, float]]] = {}
        self._quotes: dict[int, Quote] = {}
        self._terms: dict[int, _Terms] = {}
        self._closing_terms: dict[int, _Terms] = {}
        self._trades: dict[int, _Trade] = {}
        self._days: dict[int, _Day] = {}
        # By what the broker's own prices differ from those of the lines: a factor, by conid.
        self.broker_factors: dict[int, float] = {}
        # How many steps have passed.
        self.steps = 0

    def step(self) -> None:
        """Advance the market by one step."""
        self.steps += 1
        for walk in self._walks.values():
            walk.step()
        if self._american:
            for volatility in self._volatilities.values():
                volatility.step()
        self._quotes.clear()

    def jump(self, symbol: str, factor: float) -> None:
        """Multiply the price of an underlying; announced dividends stay the amounts they were."""
        self._walks[symbol].jump(factor)
        self._jumped[symbol] = factor * self._jumped.get(symbol, 1.0)
        self._forget_terms()

    def shift_volatility(self, points: float, symbol: str | None = None) -> None:
        """Raise the volatilities of one underlying, or of all, by some points."""
        for name, walk in self._volatilities.items():
            if symbol in (None, name):
                walk.shift(points)
        self._quotes.clear()

    def add_dividend(self, symbol: str, amount: float, days: float) -> None:
        """Pay a dividend in some days, besides those of the yield; its options are priced anew."""
        share = amount / self._walks[symbol].price() * self._jumped.get(symbol, 1.0)
        self._dividends.setdefault(symbol, []).append((days / DAYS_PER_YEAR, share))
        self._forget_terms()

    def _forget_terms(self) -> None:
        self._terms.clear()
        self._closing_terms.clear()
        self._early.clear()
        self._quotes.clear()

    def dividends(self, symbol: str, years: float) -> tuple[tuple[float, float], ...]:
        """Return the dividends of some years: the time until each, and its share of the price."""
        underlying = self._underlyings[symbol]
        share = underlying.dividend_yield / DIVIDENDS_PER_YEAR
        usual = [(at, share) for at in underlying.ex_dates(years, self._as_of)]
        extra = (dividend for dividend in self._dividends.get(symbol, ()) if dividend[0] <= years)
        jumped = self._jumped.get(symbol, 1.0)
        return tuple(sorted([*usual, *((at, share / jumped) for at, share in extra)]))

    def pin(self, conid: int, pin: Pin | None) -> None:
        """Hold a contract's quote at given values; None lets it move again."""
        if pin is None:
            self._pins.pop(conid, None)
        else:
            self._pins[conid] = pin
        self._quotes.pop(conid, None)

    def quote(self, conid: int) -> Quote:
        """Return the quote of a contract of the book at this step."""
        quote = self._quotes.get(conid)
        if quote is None:
            quote = self._quotes[conid] = self._new_quote(self._contracts[conid])
        return quote

    def spot(self, symbol: str) -> float:
        """Return the price of an underlying, in the major unit of the currency."""
        return self._walks[symbol].price()

    def theory(self, conid: int) -> tuple[Greeks | None, float]:
        """Return the theoretical greeks of a contract, and the price of its underlying.

        Both are in the major unit of the currency; only options have greeks.
        """
        contract = self._contracts[conid]
        spot = self._walks[contract.underlying].price()
        return self._theory(contract, spot), spot

    def set_model_unit(self, conid: int, *, major: bool) -> None:
        """Compute the option model of a contract in the major unit, or in the quoted one."""
        if major:
            self._models_in_major.add(conid)
        else:
            self._models_in_major.discard(conid)
        self._quotes.pop(conid, None)

    def set_model_computed(self, conid: int, *, computed: bool) -> None:
        """Compute the option model of a contract, or have zeros in its place."""
        if computed:
            self._not_computed.discard(conid)
        else:
            self._not_computed.add(conid)
        self._quotes.pop(conid, None)

    def value_price(self, conid: int) -> float:
        """Return the price for portfolio values, in the major unit of the currency."""
        quote = self.quote(conid)
        candidates = (quote.mark, quote.last, quote.ask)
        price = next((value for value in candidates if value is not None), 0.0)
        price *= self.broker_factors.get(conid, 1.0)
        return price / self._contracts[conid].price_magnifier

    def close_price(self, conid: int) -> float:
        """Return the previous close in the major unit of the currency."""
        pin = self._pins.get(conid)
        if pin is not None:
            return self.quote(conid).close / self._contracts[conid].price_magnifier
        contract = self._contracts[conid]
        return (
            self._day(contract, self._walks[contract.underlying]).close / contract.price_magnifier
        )

    def _new_quote(self, contract: Contract) -> Quote:
        walk = self._walks[contract.underlying]
        spot = walk.price()
        theory = self._theory(contract, spot)
        model_unit = contract.price_magnifier
        if contract.conid in self._models_in_major:
            model_unit = 1

        fair = (spot if theory is None else theory.price) * contract.price_magnifier
        day = self._day(contract, walk)
        tick = contract.min_tick
        bid: float | None = round_to(fair - day.half_spread, tick, up=False)
        ask: float | None = round_to(fair + day.half_spread, tick, up=True)
        if bid is not None and bid <= 0:
            bid = None
            ask = max(ask or 0.0, tick)

        noise = mix(self._seed, contract.conid, self.steps)
        trade = self._last_trade(contract, walk, fair)
        traded_before = mix(self._seed, contract.conid) % 500
        quote = Quote(
            bid=bid,
            ask=ask,
            last=trade.price,
            mark=max(round(fair, 4), self._least_mark(contract)),
            bid_size=noise % 90 + 1,
            ask_size=(noise >> 8) % 90 + 1,
            last_size=mix(contract.conid, trade.step) % 9 + 1,
            volume=traded_before + trade.step // TRADE_EVERY,
            open=day.open,
            close=day.close,
            greeks=None if theory is None else theory.in_unit(model_unit),
            underlying_price=spot * model_unit,
            trade_step=trade.step,
        )
        if contract.conid in self._not_computed:
            quote = replace(quote, greeks=NOT_COMPUTED, underlying_price=0.0)
        pin = self._pins.get(contract.conid)
        if pin is None:
            return quote

        return pin.applied_to(quote)

    def _least_mark(self, contract: Contract) -> float:
        """Return the middle between no bid and the least ask, in a realistic market."""
        if self._american and contract.is_option:
            return contract.min_tick / 2

        return 0.0

    def _theory(self, contract: Contract, spot: float, steps_back: int = 0) -> Greeks | None:
        """Return the theoretical price of an option in the major unit; None for other kinds."""
        if not contract.is_option:
            return None
        terms = self._terms.get(contract.conid)
        if terms is None:
            terms = self._terms[contract.conid] = self._new_terms(contract)
        walk = self._volatilities[contract.underlying]
        level, tilt = walk.level_and_tilt(steps_back)
        usual = self._underlyings[contract.underlying].volatility_until(terms.years)
        volatility = max(0.01, skewed(level * usual, terms.moneyness, tilt) + walk.shifted)
        return self._priced(contract, spot, volatility, terms)

    def at_close(self, conid: int) -> tuple[Greeks | None, float]:
        """Return the greeks of a contract at the previous close, and the price of its underlying.

        Both are in the major unit of the currency; only options have greeks.
        """
        contract = self._contracts[conid]
        spot = self._walks[contract.underlying].close
        return self._closing_theory(contract, spot), spot

    def opening_cost(self, conid: int) -> float:
        """Return the average cost of a position of which the book names none.

        It is the price at another price of the underlying, the same for all contracts of it: so a
        spread costs what it can cost.
        """
        contract = self._contracts[conid]
        underlying = self._underlyings[contract.underlying]
        percent = mix(underlying.conid) % 7 - 3 or 4
        spot = underlying.price * (1 + percent / 100)
        theory = self._closing_theory(contract, spot)
        price = spot
        if theory is not None:
            price = theory.price

        return round(price * contract.multiplier, 4)

    def _closing_theory(self, contract: Contract, spot: float) -> Greeks | None:
        """Return the theoretical price at the previous close; None for what is no option."""
        if not contract.is_option:
            return None
        terms = self._closing_terms.get(contract.conid)
        if terms is None:
            terms = self._new_terms(contract, self._closed_years)
            self._closing_terms[contract.conid] = terms
        usual = self._underlyings[contract.underlying].volatility_until(terms.years)
        volatility = max(0.01, skewed(usual, terms.moneyness, 0.0))
        return self._priced(contract, spot, volatility, terms)

    def _priced(self, contract: Contract, spot: float, volatility: float, terms: _Terms) -> Greeks:
        strike = contract.strike / contract.price_magnifier
        european = black_scholes(
            spot=spot,
            strike=strike,
            years=terms.years,
            volatility=volatility,
            rate=self._rate,
            call=contract.right == "C",
            on_future=contract.sec_type is SecType.FOP,
            kept=terms.kept,
        )
        if terms.early is None:
            return european
        return terms.early.priced(european, spot=spot, strike=strike)

    def _new_terms(self, contract: Contract, more_years: float = 0.0) -> _Terms:
        strike = contract.strike / contract.price_magnifier
        underlying = self._underlyings[contract.underlying]
        expiry = date.fromisoformat(contract.expiry)
        if isinstance(self._as_of, datetime):
            end = datetime.combine(
                expiry, time.fromisoformat(contract.last_trade), ZoneInfo(contract.time_zone)
            )
            years = (end - self._as_of).total_seconds() / 86_400 / DAYS_PER_YEAR
        else:
            years = (expiry - self._as_of).days / DAYS_PER_YEAR

        years += more_years
        dividends = self.dividends(contract.underlying, years)
        on_future = contract.sec_type is SecType.FOP
        # Nobody exercises a call early for whose underlying no dividend is paid.
        may_pay = contract.right == "P" or on_future or bool(dividends)
        is_american = self._american and underlying.sec_type is not SecType.IND
        early = None
        if is_american and may_pay and years > 0:
            key = (contract.underlying, contract.expiry, contract.right, more_years)
            early = self._early.get(key)
            if early is None:
                early = self._early[key] = EarlyExercise(
                    years=years,
                    rate=self._rate,
                    carry=0.0 if on_future else self._rate,
                    call=contract.right == "C",
                    dividends=dividends,
                )
        return _Terms(
            years=years,
            moneyness=math.log(strike / underlying.price),
            kept=math.prod(1 - share for _at, share in dividends),
            early=early,
        )

    def _fair_price(self, contract: Contract, spot: float, steps_back: int = 0) -> float:
        theory = self._theory(contract, spot, steps_back)
        return (spot if theory is None else theory.price) * contract.price_magnifier

    def _last_trade(self, contract: Contract, walk: RandomWalk, fair: float) -> _Trade:
        back = min((self.steps + contract.conid) % TRADE_EVERY, self.steps)
        step = self.steps - back
        trade = self._trades.get(contract.conid)
        if trade is None or trade.step != step:
            at = fair
            if back:
                at = self._fair_price(contract, walk.price(back), back)

            price = max(round_to(at, contract.min_tick, up=False), contract.min_tick)
            trade = self._trades[contract.conid] = _Trade(step, price)
        return trade

    def _day(self, contract: Contract, walk: RandomWalk) -> _Day:
        day = self._days.get(contract.conid)
        if day is None:
            open_price = self._fair_price(contract, self._underlyings[contract.underlying].price)
            theory = self._closing_theory(contract, walk.close)
            at_close = walk.close
            if theory is not None:
                at_close = theory.price

            close_price = at_close * contract.price_magnifier
            share = STOCK_SPREAD
            if contract.is_option:
                share = OPTION_SPREAD

            tick = contract.min_tick
            close_on_tick = round_to(close_price, tick, up=False)
            day = _Day(
                half_spread=max(open_price * share / 2, tick / 2),
                open=round_to(open_price, tick, up=False),
                close=max(close_on_tick, self._least_mark(contract)),
            )
            self._days[contract.conid] = day
        return day
