"""From market data to a value: the price rule, the row, what is news in it, and when; pure."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any

from position_sync_dagster.domain.exchange_time import TradingHours, may_trade
from position_sync_dagster.domain.holding import GREEKS_COLUMNS, BrokerPosition
from position_sync_dagster.domain.instrument import TERMS
from position_sync_dagster.domain.position_update import (
    GreeksSource,
    PositionUpdate,
    PriceKind,
    Source,
    ValueOrigin,
    trading_mode_of,
)
from position_sync_dagster.domain.quote import GREEK_FIELDS, Quote

# An older last trade is not used, by the exchange's time: the quote has moved since.
MAX_LAST_AGE_S = 60.0

# The columns of market data.
_OF_QUOTE = ("bid", "ask", *GREEK_FIELDS, "market_data_type")

# The columns whose change makes a row worth writing. Times, sizes and ids are not among them.
VALUES = (
    "position", "market_price", "market_value", "average_cost", "unrealized_pnl", "realized_pnl",
    "daily_pnl", "price_kind", "value_source", *_OF_QUOTE, "note", "greeks_source",
)  # fmt: skip

# Returns what readers see of the value of a row.
values_of = attrgetter(*VALUES)

_content_of = attrgetter(*VALUES, *TERMS, "trading_class", "local_symbol", "gateway_id")


def says_the_same(row: PositionUpdate, known: PositionUpdate) -> bool:
    """Return whether a row has the same content for readers as the known row of its holding.

    The content is its values, terms, names and login: no times, and nothing of its writer. The
    drain asks it of what it would append; the stream compares `values_of`.

    The path that wrote the newest row of a holding shows how the holding is valued now. Therefore a
    row of another path says something new, unless it records a close.
    """
    if row.position and row.source is not known.source:
        return False
    if row.greeks_source is known.greeks_source is GreeksSource.MODEL:
        # They follow the underlying all the time; readers see the newest in `broker_positions`.
        row = replace(row, **_named(known, GREEK_FIELDS))
    return bool(_content_of(row) == _content_of(known))


# The most by which the exchange's clock may be ahead of ours.
CLOCK_LEAD = timedelta(seconds=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """A price, its kind, and when it was true.

    Attributes:
        at: For LAST the exchange's time of the trade; otherwise the arrival of the tick.
    """

    value: float
    kind: PriceKind
    at: datetime | None = None


# The widest quote that has a mid, as a part of the mid.
WIDEST_MID = 1.0

# A quote that is not wider than this number of ticks has a mid, however cheap the option is.
WIDEST_TICKS = 5

# The age of delayed data. Source: IB, "Market Data Types" (delayed data).
DELAY = timedelta(minutes=15)


def price_of(quote: Quote, *, now: datetime) -> Price | None:
    """Choose the price that values a position: MARK, LAST, MID, MODEL, else None.

    The quote has only the parts that count (`Quote.counted`). A mark counts however long it has
    stood still, since a gateway ticks on change. It does not count if the quote contradicts it:
    unless trading is halted, if it is outside an uncrossed two-sided quote by more than the greater
    of the width of the quote and a tick. A mark of 0 counts only for a contract without a bid that
    is offered for a few ticks: a price of 0 without a size means that there is no data. Source: IB,
    "EWrapper.tickPrice" (interactivebrokers.github.io/tws-api/interfaceIBApi_1_1EWrapper.html).

    LAST counts only if the exchange's time of the trade is recent (its clock may be ahead by
    `CLOCK_LEAD`), and if the price is inside an uncrossed two-sided quote. Without a bid, a last
    trade says nothing about today: bid none, ask 0.05 and last 1.20 do not mean 1.20. The age of a
    trade without a time is unknown.

    MID counts only in a quote that is not wider than its mid or than a few ticks: 0.01/199.99 does
    not mean 100. While trading is halted there is none: the quote is frozen or withdrawn, and
    nobody has to trade at it. MODEL is the option price of the gateway's own model (tick 13).

    Args:
        quote: The newest market data of the contract.
        now: The present moment.

    >>> from datetime import UTC
    >>> now = datetime(2026, 1, 2, tzinfo=UTC)
    >>> price_of(Quote(ask=0.05, last=1.20), now=now)
    >>> price_of(Quote(bid=1.0, ask=1.5), now=now).value
    1.25
    """
    sides = _sides(quote)
    if quote.mark is not None and not _contradicts(quote.mark, quote, sides):
        return Price(value=quote.mark, kind=PriceKind.MARK, at=quote.mark_time)

    if sides is not None:
        bid, ask = sides
        if quote.last is not None and quote.last_time is not None:
            age = now - quote.last_time
            is_recent = -CLOCK_LEAD <= age <= timedelta(seconds=MAX_LAST_AGE_S)
            if is_recent and bid <= quote.last <= ask:
                return Price(value=quote.last, kind=PriceKind.LAST, at=quote.last_time)

        mid = (bid + ask) / 2
        widest = max(WIDEST_MID * abs(mid), WIDEST_TICKS * (quote.min_tick or 0.0))
        if not quote.halted and ask - bid <= widest:
            return Price(value=mid, kind=PriceKind.MID, at=quote.quote_time)

    if quote.model_price is not None:
        return Price(value=quote.model_price, kind=PriceKind.MODEL, at=quote.greeks_time)
    return None


def has_two_sides(quote: Quote) -> bool:
    """Return whether a quote shows a price at which the contract can be traded now."""
    return _sides(quote) is not None and not quote.halted


def _sides(quote: Quote) -> tuple[float, float] | None:
    """Return bid and ask of an uncrossed two-sided quote; None of any other."""
    if quote.bid is None or quote.ask is None or quote.bid > quote.ask:
        return None
    return quote.bid, quote.ask


def _contradicts(mark: float, quote: Quote, sides: tuple[float, float] | None) -> bool:
    """Return whether a quote shows that a mark is not the present one.

    A mark of 0 stands for no data. Another one lies outside of bid and ask (`sides`, those of
    `_sides`) by more than their distance; while trading is halted these are old themselves.
    """
    tick = quote.min_tick or 0.0
    if mark == 0:  # no data, unless nobody bids and it is offered for next to nothing
        is_cheap = quote.ask is not None and quote.ask <= WIDEST_TICKS * tick
        if quote.bid is not None or not is_cheap:
            return True
    if sides is None or quote.halted:
        return False

    bid, ask = sides
    tolerance = max(ask - bid, tick)
    return not bid - tolerance <= mark <= ask + tolerance


# The greatest factor between an amount of the model and a known price in the same unit; two units
# differ by a factor of 100.
MODEL_BAND = 5.0


def with_model_in_units(quote: Quote, strike: float | None, price_magnifier: int | None) -> Quote:
    """Return a quote with the amounts of its model in the units of a row.

    These are the quoted unit of its prices, and the major unit of money of its greeks: gamma is a
    change by a price of one major unit. For a contract that is quoted in cents it is not documented
    whether the gateway's option model is in cents too. Two comparisons show it: the model's price
    with the mark or the middle of the quote, and the price of its underlying with the strike, which
    is in the quoted unit. Where they differ, or neither shows it, all these amounts are unknown.

    Args:
        quote: What counts of the newest market data.
        strike: The strike of the contract.
        price_magnifier: Divisor from quoted prices to the major unit. None: unknown, and with it
            all these amounts.

    >>> in_major_unit = Quote(mark=12.5, model_price=0.126, vega=0.02, underlying_price=4.5)
    >>> row = with_model_in_units(in_major_unit, 460.0, 100)
    >>> row.model_price, row.vega, row.underlying_price
    (12.6, 0.02, 450.0)
    >>> with_model_in_units(in_major_unit, 4.6, 100).vega is None
    True
    """
    if price_magnifier == 1:
        return quote

    sides = _sides(quote)
    middle = sum(sides) / 2 if sides is not None else None
    by_price = _factor_between(quote.model_price, quote.mark or middle, price_magnifier)
    by_strike = _factor_between(quote.underlying_price, strike, price_magnifier)
    factors = {by_price, by_strike} - {None}

    factor = factors.pop() if len(factors) == 1 else None  # from the model to the quoted unit
    return replace(
        quote,
        model_price=_times(quote.model_price, factor),
        underlying_price=_times(quote.underlying_price, factor),
        pv_dividend=_times(quote.pv_dividend, factor),
        vega=_over(_times(quote.vega, factor), price_magnifier),
        theta=_over(_times(quote.theta, factor), price_magnifier),
        gamma=_times(_over(quote.gamma, factor), price_magnifier),
    )


def _times(amount: float | None, factor: int | None) -> float | None:
    """Return a product; None where a part of it is unknown."""
    if amount is None or not factor:  # a row of an older release may have 0
        return None
    return amount * factor


def _over(amount: float | None, divisor: int | None) -> float | None:
    """Return a quotient; None where a part of it is unknown, or the divisor is 0."""
    if amount is None or not divisor:
        return None
    return amount / divisor


def _factor_between(
    amount: float | None, quoted: float | None, price_magnifier: int | None
) -> int | None:
    """Return the factor from the unit of an amount to the quoted unit; None: unclear.

    Apart from the unit they may differ by a factor of up to `MODEL_BAND`. An amount or a price of 0
    shows no unit.
    """
    if not amount or not quoted or price_magnifier is None:
        return None
    for factor in (1, price_magnifier):  # it is in the quoted unit, or in the major one
        ratio = amount * factor / quoted
        if 1 / MODEL_BAND <= ratio <= MODEL_BAND:
            return factor
    return None


# The unit to which the broker rounds money, in the major unit of the currency.
ROUNDING = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """The writer of a row: the columns that make it auditable."""

    session_id: str | None = None
    fencing_token: int | None = None
    run_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One moment for one contract.

    Attributes:
        now: By the clock of the rows.
        by: The writer of a row.
        now_s: By the clock of the lines.
        hours: When the contract trades; None: unknown.
        price_magnifier: Divisor from quoted prices to the major unit; None: unknown.
    """

    now: datetime
    by: Provenance
    now_s: float = 0.0
    hours: TradingHours | None = None
    price_magnifier: int | None = None

    @property
    def session_open(self) -> bool:
        """Return whether the contract trades; True if unknown."""
        return may_trade(self.hours, self.now)

    def if_in_session(self, ticked_at: datetime | None) -> datetime | None:
        """Return the time of a tick; None of one that came while the contract did not trade.

        If a line is requested outside the session, it opens with a price from before. Where the
        hours are not known, the contract may have traded (`may_trade`).
        """
        if ticked_at is None or not may_trade(self.hours, ticked_at):
            return None
        return ticked_at


# The price and the value of a holding, by the names of the columns; what is left out is unknown.
PriceAndValue = dict[str, Any]

# The value of a holding that is no longer held.
CLOSED_VALUE: PriceAndValue = {
    "market_price": None,
    "market_value": 0.0,
    "unrealized_pnl": 0.0,
    "value_source": ValueOrigin.NONE,
}

# The market data of a holding of which nothing counts.
NO_QUOTE = Quote()


# Maximum relative difference of a value from price × quantity × multiplier ÷ magnifier.
FACTOR_TOLERANCE = 0.02


def factor_agrees(holding: BrokerPosition, *, price_magnifier: int) -> bool | None:
    """Check multiplier / price_magnifier against the broker's own value of the holding.

    The portfolio row has position, price and value, so the broker's factor is known. Its price may
    be in the quoted unit or in the major unit; both are accepted. The broker rounds the value to
    cents (recorded: message 7, market values with two decimals), so that a value of a few cents
    may differ by more than the tolerance.

    Returns:
        None where the broker gave no value to compare with. With False the magnifier is not
        known, so that the broker's own value counts.
    """
    if holding.value_source is ValueOrigin.PNL_SINGLE:
        return None  # its price follows from its value
    if not holding.position or not holding.market_price or not holding.market_value:
        return None
    quoted = holding.position * holding.market_price * holding.instrument.multiplier
    for expected in (quoted / price_magnifier, quoted):
        tolerance = FACTOR_TOLERANCE * abs(expected) + ROUNDING
        if abs(holding.market_value - expected) <= tolerance:
            return True
    return False


def revalue(
    holding: BrokerPosition,
    quote: Quote | None,
    at: Moment,
    *,
    trusted: bool = True,
    note: str | None = None,
) -> PositionUpdate:
    """Value a streamed holding by its quote, or by the broker's value where no price counts.

    A closed holding gives the explicit zero row. With an unknown factor (`price_magnifier` None)
    the broker's value is used; where it gave none, the price is kept and the money stays unknown,
    as do the greeks that have a unit, and the price of the underlying. A delayed price is older
    than a value that the broker gave or confirmed within the delay, and is not used then. The row's
    `value_time` is that of its source, never now: of delayed or frozen data only a last trade has a
    known time, and its greeks have none. No time counts of a tick that came while the contract did
    not trade; a row that is made then says so.

    Args:
        holding: The holding as the broker last reported it.
        quote: What counts of the newest market data of its contract; None: nothing, not even bid,
            ask or greeks.
        at: The time and the writer of the row, and the unit of the prices.
        trusted: Whether the line's prices are the present ones. Otherwise the broker's value is
            used if there is one.
        note: Why the value is not the usual one.
    """
    price_magnifier = at.price_magnifier
    price = None
    if quote is not None:
        quote = with_model_in_units(quote, holding.instrument.strike, price_magnifier)
        is_older = quote.is_delayed and _is_newer_than_delayed(holding, at.now)
        counts = trusted and price_magnifier is not None and not is_older
        if counts or holding.market_value is None:
            price = price_of(quote, now=at.now)

    if quote is None or price is None:
        return _row(holding, _broker_value(holding), at, quote, note=note)

    value = None
    pnl = None
    if price_magnifier is not None:
        value = holding.position * price.value * holding.instrument.multiplier / price_magnifier
        if holding.average_cost is not None:
            pnl = value - (holding.position * holding.average_cost)

    if not at.session_open:
        note = "; ".join(filter(None, (OUTSIDE_SESSION, note)))
    price_and_value = {
        "market_price": price.value,
        "price_kind": price.kind,
        "value_time": at.if_in_session(_value_time(price, quote)),
        "market_value": value,
        "unrealized_pnl": pnl,
        "value_source": ValueOrigin.TICK,
    }
    return _row(holding, price_and_value, at, quote, note=note)


def _is_newer_than_delayed(holding: BrokerPosition, now: datetime) -> bool:
    """Return whether the broker gave or confirmed its value later than delayed data show."""
    times = [holding.received_at]
    # Only messages of its own subscription confirm a PnLSingle value: `received_at` has the newest.
    if holding.value_source is not ValueOrigin.PNL_SINGLE:
        times += filter(None, (holding.value_time, holding.confirmed_at))
    return now - max(times) <= DELAY


def from_portfolio(
    holding: BrokerPosition, *, source: Source, now: datetime, by: Provenance
) -> PositionUpdate:
    """Value a holding by the broker's value; what the broker did not give stays None.

    A closed holding gives the explicit zero row.

    Args:
        holding: The holding as the broker last reported it.
        source: The path that writes the row.
        now: The time of the row.
        by: The writer of the row.
    """
    return _row(holding, _broker_value(holding), Moment(now=now, by=by), source=source)


def price_of_value(
    holding: BrokerPosition, value: float, *, price_magnifier: int | None
) -> float | None:
    """Return the price of one unit by the broker's value of a holding, to the value's rounding.

    While the price magnifier is unknown, the broker's own price and value of the holding show the
    unit of its prices.

    Args:
        holding: The holding, with an earlier price and value if it has them.
        value: The broker's value of the same quantity.
        price_magnifier: Divisor from quoted prices to the major unit; None: unknown.
    """
    units = holding.position * holding.instrument.multiplier
    if price_magnifier is None and holding.market_price and holding.market_value:
        # The magnifier that the broker's row shows, if its price and value fit a whole one.
        quoted = holding.market_price * units
        by_row = max(1, round(quoted / holding.market_value))
        difference = abs(quoted / by_row - holding.market_value)
        tolerance = FACTOR_TOLERANCE * abs(quoted) + ROUNDING
        if difference <= tolerance:
            price_magnifier = by_row
    if not units or price_magnifier is None:
        return None
    return value * price_magnifier / units


def _broker_value(holding: BrokerPosition) -> PriceAndValue:
    """Return the broker's own value, with the kind of its price and the time of its source."""
    price_kind = None
    if holding.market_price is not None:
        by_pnl = holding.value_source is ValueOrigin.PNL_SINGLE
        price_kind = PriceKind.VALUE if by_pnl else PriceKind.PORTFOLIO
    return {
        **_named(holding, _OF_BROKER_VALUE),
        "price_kind": price_kind,
        "value_time": holding.valued_at,
    }


def _value_time(price: Price, quote: Quote) -> datetime | None:
    """Return when a price was true; None where only its arrival is known.

    IB sends the time of the last trade (ticks 45 and 88), and no time of marks, bids and asks.
    """
    return price.at if quote.is_live or price.kind is PriceKind.LAST else None


def _row(
    holding: BrokerPosition,
    price_and_value: PriceAndValue,
    at: Moment,
    quote: Quote | None = None,
    *,
    source: Source = Source.STREAM,
    note: str | None = None,
) -> PositionUpdate:
    """Return a row; of a holding that is closed it is the zero row, without market data.

    The tuples `_OF_…` name the columns that are copied. Greeks of the gateway come before computed
    ones.
    """
    instrument = holding.instrument
    market = quote or NO_QUOTE
    if holding.position == 0:
        price_and_value = CLOSED_VALUE
        market = NO_QUOTE
        note = None

    average_cost = holding.average_cost if holding.position else None
    # Of delayed and frozen data the arrival says nothing of their age.
    greeks_time = at.if_in_session(market.greeks_time) if market.is_live else None
    greeks_source = GreeksSource.GATEWAY if market.greeks_time else None
    row = PositionUpdate(
        **price_and_value,
        **instrument.terms,
        **_named(holding, _OF_HOLDING),
        **_named(market, _OF_QUOTE),
        **_named(at.by, _OF_WRITER),
        average_cost=average_cost,
        timestamp=at.now,
        source=source,
        trading_mode=trading_mode_of(holding.account),
        greeks_time=greeks_time,
        note=note,
        trading_class=instrument.trading_class or None,
        local_symbol=instrument.local_symbol or None,
        greeks_source=greeks_source,
    )
    if holding.greeks is None or not holding.position or market.greeks_time is not None:
        return row
    modelled = _named(holding.greeks, GREEKS_COLUMNS)  # since the gateway sent none
    return replace(row, **modelled | {"greeks_time": at.if_in_session(holding.greeks.greeks_time)})


# The columns of a row that are copied as they are.
_OF_HOLDING = ("account", "position", "realized_pnl", "daily_pnl", "gateway_id")
_OF_WRITER = ("session_id", "fencing_token", "run_id")
_OF_BROKER_VALUE = ("market_price", "market_value", "unrealized_pnl", "value_source")


def _named(source: object, names: tuple[str, ...]) -> dict[str, Any]:
    """Return attributes by their names, which are those of the columns."""
    return {name: getattr(source, name) for name in names}


# The values of a portfolio row without a time may be this old when they arrive. Source: IB,
# "Account Updates" (every three minutes or on a trade).
BROKER_CADENCE = timedelta(minutes=3)

# Beginning of the column `note` of a price that was written while the contract did not trade.
OUTSIDE_SESSION = "outside the trading session"

# The origins of values that the broker calculates.
BROKER = (ValueOrigin.PORTFOLIO, ValueOrigin.PNL_SINGLE)
