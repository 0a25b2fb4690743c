"""What a contract is priced as: its exercise, its expiry, its rate and its dividends, or why not.

The vanilla model fits options whose underlying can be held at the price of the model. Others are
priced as what they are, or not at all, with the reason. The greeks of all options of an account
are computed as one batch.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from functools import partial
from itertools import repeat
from math import ceil
from operator import attrgetter
from typing import Any

import numpy as np

from position_sync_dagster.domain.holding import HoldingGreeks, grouped
from position_sync_dagster.domain.instrument import ContractDetails, Instrument, Right
from position_sync_dagster.domain.quote import StatedDividends
from position_sync_dagster.money.magnifiers import in_major_unit
from position_sync_dagster.money.risk import model
from position_sync_dagster.money.risk.model import (
    DAYS_PER_YEAR,
    Exercise,
    NoVolatility,
    VanillaOptions,
)
from position_sync_dagster.money.tables import DividendSource, ExpectedDividend
from position_sync_dagster.money.trading_days import (
    expiry_moment,
    is_settled_at_the_open,
    last_day,
    settles_in_cash,
)

# Indices that nobody can hold: their options follow the future of their month.
WITHOUT_CARRY = frozenset({"VIX", "VIX1D", "VXN", "RVX", "OVX", "GVZ", "V2TX", "VNKY"})

# When an option that is settled at the open expires, in the zone of its exchange: the prices that
# settle it are made from 08:30 (Chicago) or 09:00 (Osaka) on.
AT_THE_OPEN = "09:00:00"


class NotPriced(StrEnum):
    """Why a leg has no price of the model: its terms, or a price that is not known."""

    NO_TERMS = "its right, strike or expiry is not known"
    NO_UNIT = "whether its strike is in cents or in the major unit is not known"
    NO_RATE = "no interest rate of its currency is set"
    ADJUSTED = "its class is not its symbol: what it delivers is not known"
    OTHER_PAYOFF = "its payoff is not that of a share, an index or a future"
    OTHER_TYPE = "it is neither an option, a share nor a future"
    NO_VOLATILITY = "its implied volatility is not known"
    NO_PRICE = "the price of its underlying is not known"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatedDividend:
    """A dividend of an underlying: an amount of money, or a share of the price on that day.

    Attributes:
        ex_date: The first moment at which a buyer does not get it.
        amount: In the major unit of the currency; 0 if it is known as a share.
        is_forecast: Whether the amount is none that was announced: it follows the price.
    """

    ex_date: datetime
    amount: float = 0.0
    share: float = 0.0
    is_forecast: bool = False

    def amount_at(self, spot: float) -> float:
        """Return the amount of money, given the price of the underlying."""
        return self.amount or self.share * spot

    def after(self, now: datetime, spot: float) -> tuple[float, float, float]:
        """Return the years until it, amount and share, given the price of the underlying."""
        years = years_between(now, self.ex_date)
        if self.is_forecast:
            return years, 0.0, min(self.amount / spot, LARGEST_SHARE)
        return years, self.amount, self.share


# Dividends are assumed to go on as they are known for this time.
DIVIDENDS_AHEAD = timedelta(days=3 * 365)

QUARTER = timedelta(days=365 / 4)


def dividends_of_shares(
    shares: Iterable[tuple[datetime, float]], now: datetime
) -> tuple[DatedDividend, ...]:
    """Return dividends from the part of the price that is paid until several expiries.

    What is paid between two expiries is paid in quarters, in the middle of each. After the last
    expiry the last dividend is paid again each quarter.

    Args:
        shares: For each option whose `pvDividend` the gateway sent: its expiry, and that amount as
            a share of the price.
        now: The present moment.
    """
    dividends: list[DatedDividend] = []
    known_until = now
    remaining = 1.0  # of the price, after what is paid until then
    for expires_at, share in sorted(shares):
        if expires_at <= now or not 0 <= share < 1:
            continue

        if 1 - share < remaining * (1 - LEAST_SHARE):
            quarters = max(1, round((expires_at - known_until) / QUARTER))
            gap = (expires_at - known_until) / quarters
            paid_each_time = 1 - ((1 - share) / remaining) ** (1 / quarters)
            for number in range(quarters):
                middle = known_until + (number + 0.5) * gap
                dividends.append(DatedDividend(ex_date=middle, share=paid_each_time))
            remaining = 1 - share
        known_until = expires_at

    if not dividends:
        return ()
    return (*dividends, *_continued(dividends[-1], known_until, QUARTER))


def dated_dividends(rows: Iterable[ExpectedDividend]) -> dict[int, tuple[DatedDividend, ...]]:
    """Return the dividends of each underlying, by conid; those that are STATED count first."""
    dividends = {}
    for conid, of_underlying in grouped(attrgetter("conid"), rows).items():
        best = max(of_underlying, key=attrgetter("source"))
        if best.source is DividendSource.STATED and best.ex_date and best.amount is not None:
            opens = ex_moment(best.ex_date)
            dividends[conid] = dividends_stated(opens, best.amount, best.next_year)
            continue

        shares = []
        for row in of_underlying:
            is_best = row.source is best.source
            if is_best and row.ex_date is not None and row.share:
                shares.append(DatedDividend(ex_date=ex_moment(row.ex_date), share=row.share))
        dividends[conid] = tuple(shares)
    return dividends


def dividend_rows(
    details: ContractDetails,
    stated: StatedDividends | None,
    shares: Sequence[tuple[datetime, float]],
    now: datetime,
) -> list[ExpectedDividend]:
    """Return the rows of the dividends of an underlying; none if nothing is known.

    Args:
        details: The underlying.
        stated: What the gateway names of it: it counts before `shares`.
        shares: What follows from options (`dividends_of_shares`).
        now: The present moment.
    """
    row = partial(ExpectedDividend, conid=details.conid, symbol=details.symbol, seen_at=now)
    if stated is not None and (stated.next_date is not None or stated.next_year == 0):
        return [
            row(
                source=DividendSource.STATED,
                ex_date=stated.next_date,
                amount=in_major_unit(stated.next_amount, details.price_magnifier),
                next_year=in_major_unit(stated.next_year, details.price_magnifier),
            )
        ]
    if not shares:
        return []

    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    expected = partial(row, source=DividendSource.EXPECTED)
    rows = []
    for dividend in dividends_of_shares(shares, midnight):
        share = round(dividend.share, 6)
        rows.append(expected(ex_date=dividend.ex_date.date(), share=share))
    # A row without a date says that options show no dividend.
    return rows or [expected()]


def ex_moment(day: date) -> datetime:
    """Return when the market opens on an ex-date."""
    return expiry_moment(day, "09:30:00", "America/New_York")


# More than this share of a price is no forecast of a dividend.
LARGEST_SHARE = 0.9

# A smaller part of a price is the rounding of `pvDividend`.
LEAST_SHARE = 5e-5


def dividends_stated(
    ex_date: datetime, amount: float, in_a_year: float | None
) -> tuple[DatedDividend, ...]:
    """Return dividends from the next one and the sum of a year, which the gateway sends (tick 456).

    The same amount is paid again as often as that sum says.
    """
    if amount <= 0:
        return ()
    first = DatedDividend(ex_date=ex_date, amount=amount)
    times = min(12, round((in_a_year or 0.0) / amount))
    if not times:
        return (first,)
    later = replace(first, is_forecast=True)
    return (first, *_continued(later, ex_date, timedelta(days=365 / times)))


def _continued(
    last: DatedDividend, known_until: datetime, gap: timedelta
) -> Iterator[DatedDividend]:
    """Yield the dividends that follow, after the time until which all are known."""
    first_too_late = ceil(DIVIDENDS_AHEAD / gap)
    for number in range(1, first_too_late):
        ex_date = last.ex_date + number * gap
        if ex_date > known_until:
            yield replace(last, ex_date=ex_date)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExerciseTerms:
    """What an option delivers, and when: all that its value at the expiry follows from.

    Attributes:
        strike: In the major unit of the currency.
        expires_at: The moment of the last trade, or of the settlement at the open.
    """

    right: Right
    strike: float
    expires_at: datetime
    exercise: Exercise

    @property
    def is_call(self) -> bool:
        """Whether it is a call."""
        return self.right == "CALL"

    @property
    def side(self) -> float:
        """1 for a call, −1 for a put."""
        if self.is_call:
            return 1.0
        return -1.0

    def above_strike(self, price: float) -> float:
        """Return by how much an option is in the money; below 0 out of the money."""
        return self.side * (price - self.strike)

    def intrinsic(self, price: float) -> float:
        """Return what exercise gives at a price of the underlying."""
        return max(0.0, self.above_strike(price))


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionTerms(ExerciseTerms):
    """The terms of an option, and what the model assumes besides.

    Attributes:
        rate: The interest rate per year of its currency.
        dividends: Those that are known; None: nothing is known of them, and none are assumed.
    """

    rate: float
    dividends: Sequence[DatedDividend] | None = None

    @property
    def until_expiry(self) -> list[DatedDividend]:
        """The known dividends until the expiry."""
        return [
            dividend for dividend in self.dividends or () if dividend.ex_date <= self.expires_at
        ]

    @property
    def text(self) -> str:
        """What the model assumes, in one line.

        >>> at = datetime(2028, 12, 15)
        >>> terms = OptionTerms(
        ...     right=Right.PUT, strike=90.0, expires_at=at, exercise=Exercise.AMERICAN, rate=0.04
        ... )
        >>> terms.text
        'AMERICAN, rate 0.04, dividends unknown: none assumed'
        """
        model_of_option = f"{self.exercise}, rate {self.rate:g}"
        if self.exercise.is_on_future:
            return model_of_option
        if self.dividends is None:
            return f"{model_of_option}, dividends unknown: none assumed"

        amount = sum(dividend.amount for dividend in self.until_expiry)
        share = sum(dividend.share for dividend in self.until_expiry)
        sums = []
        if amount:
            sums.append(f"{amount:.4g} paid")
        if share:
            sums.append(f"{share:.4g} of the price")
        return f"{model_of_option}, dividends {' and '.join(sums) or 'none'}"


def years_between(now: datetime, at: datetime) -> float:
    """Return a time in years of 365 days."""
    return (at - now) / timedelta(days=DAYS_PER_YEAR)


# The attributes of an instrument, and the columns of a row, that decide about its price.
CONTRACT_FIELDS = (
    "conid", "sec_type", "symbol", "currency", "right", "strike", "expiry", "trading_class",
)  # fmt: skip


def option_terms(
    contract: Instrument,
    details: ContractDetails | None,
    rates: Mapping[str, float],
    dividends: Sequence[DatedDividend] | None = None,
    magnifier: float | None = None,
) -> ExerciseTerms | NotPriced:
    """Return what an option is priced as (`OptionTerms`), or why it is not.

    In a currency without a rate it is what the option delivers (`ExerciseTerms`).

    Args:
        contract: The option as the row of its holding names it: that counts before `details`.
        details: Its contract details, which may be older than a change of the contract; None while
            they are not known: then it is an option on a share.
        rates: Interest rates by currency.
        dividends: Those of the underlying; None: unknown.
        magnifier: Divisor from its strike to the major unit, where the details are not known; None:
            unknown.
    """
    exercise = _exercise_of(contract, details)
    if isinstance(exercise, NotPriced):
        return exercise

    right = contract.right
    strike = contract.strike
    if details is not None:
        right = right or details.right
        strike = strike or details.strike
        magnifier = details.price_magnifier

    ends = expires_at(contract.expiry, details)
    if right is None or not strike or strike < 0 or ends is None:
        return NotPriced.NO_TERMS
    if magnifier is None:
        return NotPriced.NO_UNIT
    delivered: dict[str, Any] = {
        "right": Right(right), "strike": strike / magnifier, "expires_at": ends,
        "exercise": exercise,
    }  # fmt: skip
    rate = rates.get(contract.currency)
    if rate is None:
        return ExerciseTerms(**delivered)
    if exercise.is_on_future:
        dividends = ()
    return OptionTerms(**delivered, rate=rate, dividends=dividends)


def _exercise_of(contract: Instrument, details: ContractDetails | None) -> Exercise | NotPriced:
    """Return how an option is exercised, and on what; or why the model does not fit it."""
    if contract.sec_type == "FOP":
        return Exercise.FUTURE
    if contract.sec_type != "OPT":  # a warrant has terms of its own
        return NotPriced.OTHER_PAYOFF
    if contract.symbol.upper() in WITHOUT_CARRY:
        return Exercise.EUROPEAN_FUTURE

    underlying_type = None
    trading_class = contract.trading_class
    if details is not None:
        if settles_in_cash(details):
            return Exercise.EUROPEAN
        underlying_type = details.under_sec_type
        trading_class = details.trading_class
    if underlying_type not in (None, "STK"):
        return NotPriced.OTHER_PAYOFF

    if _is_adjusted(contract, trading_class):
        return NotPriced.ADJUSTED
    return Exercise.AMERICAN


def _is_adjusted(contract: Instrument, trading_class: str | None) -> bool:
    """Return whether an option on a share delivers something else than shares of its symbol.

    The class of an adjusted option in the US is its symbol and a digit, such as LCID1. Elsewhere
    classes have names of their own, and a digit after the symbol says the same.
    """
    symbol = _letters_and_digits(contract.symbol)
    name = _letters_and_digits(trading_class or "")
    if not name or name == symbol:
        return False
    return contract.currency == "USD" or name.removeprefix(symbol).isdigit()


def _letters_and_digits(text: str) -> str:
    return "".join(filter(str.isalnum, text.upper()))


def expires_at(expiry: date | None, details: ContractDetails | None) -> datetime | None:
    """Return when an option expires; None if it is not known.

    Args:
        expiry: The day that the row of the holding names: it counts if the details name another.
    """
    if details is None:
        return expiry_moment(expiry) if expiry else None

    day = last_day(details)
    clock: str | None = details.last_trade_time
    if is_settled_at_the_open(details):
        day = details.expires_on
        clock = AT_THE_OPEN
    if expiry not in (None, details.last_trade_date, details.expires_on):
        day = expiry
    if day:
        return expiry_moment(day, clock, details.time_zone)
    return None


def as_options(
    terms: Sequence[OptionTerms], at: Iterable[datetime], spots: Iterable[float]
) -> VanillaOptions:
    """Return options as the model takes them, each at its own moment and price."""
    options = []
    dividends = []
    for option, now, spot in zip(terms, at, spots, strict=False):
        years = years_between(now, option.expires_at)
        kind = (option.exercise.is_early, option.exercise.is_on_future)
        options.append((option.side, option.strike, years, option.rate, *kind))
        dividends.append([dividend.after(now, spot) for dividend in option.dividends or ()])
    return VanillaOptions.of(options, dividends)


FIRST_GUESS = 0.3

# The greeks of the model that are stored and shown.
GREEKS = ("delta", "gamma", "vega", "theta")


class NoGreeks(StrEnum):
    """Why an option has no modelled greeks, besides `NotPriced` and `NoVolatility`."""

    NO_VALUE = "it has no value with a known time"
    NO_UNDERLYING_PRICE = "the underlying has no price"
    NO_PRICE_THEN = "the underlying had no price when the value was true"
    UNDERLYING_OLD = "the underlying's price is older than a minute in its session"
    FOLLOWS_A_FUTURE = "it follows the future of its month, whose price is not known"
    EXPIRED = "it expired"
    NOT_COMPUTED = "the model has no price for it"
    BEING_COMPUTED = "being computed, or next to be"


Reason = NoGreeks | NotPriced | NoVolatility


@dataclass(slots=True, kw_only=True)
class ModelledLeg:
    """An option: what its greeks follow from, and its newest greeks, or why it has none.

    Attributes:
        value, value_at: The broker's value of one unit of the underlying, and when it was true;
            None before the first.
        spot_then: The price of the underlying at that time; None: unknown.
        spot, spot_at: The newest price of the underlying, and when it came.
        volatility: What follows from value and `spot_then`, or why nothing does; None: not
            computed.
        near: Where the search for the volatility begins.
        used: The price `spot` of the last batch; None before the first.
        greeks: Those of the last batch, with `spot` as the price of the underlying.
    """

    conid: int
    terms: OptionTerms | Reason
    underlying: int
    value: float = 0.0
    value_at: datetime | None = None
    spot_then: float | None = None
    spot: float | None = None
    spot_at: datetime | None = None
    volatility: float | NoVolatility | None = None
    near: float = FIRST_GUESS
    used: float | None = None
    greeks: HoldingGreeks | None = None
    reason: Reason | None = None


# A value may be this part of the strike below the intrinsic value, as bids of options deep in the
# money are. Below that one of the two prices is wrong.
BELOW_PARITY = 0.01


def compute(legs: Sequence[ModelledLeg], now: datetime) -> None:
    """Find the volatility and the greeks of options with a value and prices, or the reasons.

    Args:
        legs: None of them has expired.
        now: The present moment.
    """
    priced = [(leg, leg.terms) for leg in legs if isinstance(leg.terms, OptionTerms)]
    _find_volatilities(priced)

    alive = []
    for leg, terms in priced:
        # The others keep their greeks until they have new ones: the status is read meanwhile.
        leg.used = leg.spot
        if isinstance(leg.volatility, float):
            alive.append((leg, terms, leg.volatility))
        elif _is_at_parity(leg, terms):
            # Its greeks are the limits for a volatility that vanishes.
            alive.append((leg, terms, model.LOWEST_VOLATILITY))
        else:
            leg.greeks = None
            leg.reason = leg.volatility

    if alive:
        _compute_greeks(alive, now)


def _is_at_parity(leg: ModelledLeg, terms: OptionTerms) -> bool:
    """Return whether a value shows no volatility because it is what exercise gives."""
    if leg.volatility is not NoVolatility.BELOW_INTRINSIC or leg.spot_then is None:
        return leg.volatility is NoVolatility.NO_VEGA

    return leg.value >= terms.intrinsic(leg.spot_then) - BELOW_PARITY * terms.strike


def _compute_greeks(legs: Sequence[tuple[ModelledLeg, OptionTerms, float]], now: datetime) -> None:
    """Set the greeks of options, each with the volatility that prices it."""
    inputs = np.array([(leg.spot, volatility) for leg, _, volatility in legs], dtype=float)
    terms_of = [terms for _, terms, _ in legs]
    spot, volatility = np.hsplit(inputs, 2)
    options = as_options(terms_of, repeat(now), spot.ravel().tolist())
    greeks = model.greeks(options, spot, volatility, model.COARSE)

    numbers = np.hstack([getattr(greeks, name) for name in GREEKS])
    for (leg, terms, _), of_leg in zip(legs, numbers.tolist(), strict=True):
        if not np.isfinite(of_leg).all() or leg.spot is None or leg.value_at is None:
            leg.greeks = None
            leg.reason = NoGreeks.NOT_COMPUTED
            continue
        # At parity no volatility is known; its greeks do not depend on it.
        implied_vol = None
        if isinstance(leg.volatility, float):
            implied_vol = leg.volatility
        leg.greeks = HoldingGreeks(
            **dict(zip(GREEKS, of_leg, strict=True)),
            implied_vol=implied_vol,
            underlying_price=leg.spot,
            greeks_time=leg.spot_at,
            greeks_method=terms.text,
            volatility_time=leg.value_at,
        )


def _find_volatilities(legs: Sequence[tuple[ModelledLeg, OptionTerms]]) -> None:
    """Find the volatilities that the values of options show, or the reasons."""
    asked = [
        (leg, terms, leg.value_at)
        for leg, terms in legs
        if leg.volatility is None and leg.value_at is not None
    ]
    if not asked:
        return

    legs_asked, terms_of, times = zip(*asked, strict=True)
    inputs = np.array([(leg.value, leg.spot_then, leg.near) for leg in legs_asked], dtype=float)
    value, spot, near = np.hsplit(inputs, 3)
    options = as_options(terms_of, times, spot.ravel().tolist())
    columns, reasons = model.implied_volatility(options, value, spot, near, model.COARSE)
    volatilities = columns.ravel().tolist()
    for leg, volatility, reason in zip(legs_asked, volatilities, reasons, strict=True):
        leg.volatility = reason or volatility
        if reason is None:
            leg.near = volatility
