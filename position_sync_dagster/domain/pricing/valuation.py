"""Valuation: from a holding and a price to a row of `position_updates`; pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from position_sync_dagster.domain.broker_position import BrokerPosition
from position_sync_dagster.domain.pricing.price import Price, price_of
from position_sync_dagster.domain.pricing.quote import Quote
from position_sync_dagster.domain.update import (
    PositionUpdate,
    PriceKind,
    Source,
    ValueOrigin,
    trading_mode_of,
)

ROUNDING = 0.01
"""The broker's money is rounded to so much, in the major unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """The writer of a row: the columns that make it auditable."""

    session_id: str | None = None
    fencing_token: int | None = None
    run_id: str | None = None


def factor_agrees(
    holding: BrokerPosition, *, price_magnifier: int, tolerance: float = 0.02
) -> bool | None:
    """Check multiplier / price_magnifier against the broker's own value of the holding.

    The portfolio row has position, price and value, so the broker's factor is known. Its price may
    be in the quoted unit or in the major unit; both are accepted. The broker rounds the value to
    cents (recorded: message 7, market values with two decimals), so that a value of a few cents
    may differ by more than the tolerance.

    Returns:
        None where the broker gave no value to compare with.
    """
    if not holding.position or not holding.market_price or not holding.market_value:
        return None
    quoted = holding.position * holding.market_price * holding.instrument.multiplier
    return any(
        abs(holding.market_value - expected) <= tolerance * abs(expected) + ROUNDING
        for expected in (quoted / price_magnifier, quoted)
    )


def revalue(
    holding: BrokerPosition,
    quote: Quote | None,
    *,
    price_magnifier: int | None,
    now: datetime,
    max_last_age: timedelta,
    by: Provenance,
    note: str | None = None,
) -> PositionUpdate:
    """Value a streamed holding by its quote, or by the broker's value where no price counts.

    A closed holding gives the explicit zero row. With an unknown factor (`price_magnifier` None)
    the broker's value is used; where it gave none, the price is kept and the money stays unknown,
    theta and vega too. The row's `value_time` is that of its source, never now: of delayed or
    frozen data only a last trade has a known time.

    Args:
        holding: The holding as the broker last reported it.
        quote: The newest market data of its contract; None where its line cannot be trusted, so
            that nothing of it is used, not even bid, ask or greeks.
        price_magnifier: Divisor from quoted prices to the major unit; None: unknown.
        now: The time of the row.
        max_last_age: An older last trade is not used.
        by: The writer of the row.
        note: Why the value is not the usual one.
    """
    if holding.position == 0:
        return closed(holding, source=Source.STREAM, now=now, by=by)
    price = None if quote is None else price_of(quote, now=now, max_last_age=max_last_age)
    unknown_money = price_magnifier is None and holding.market_value is not None
    if quote is None or price is None or unknown_money:
        return from_portfolio(
            holding,
            source=Source.STREAM,
            now=now,
            by=by,
            quote=quote,
            price_magnifier=price_magnifier,
            note=note,
        )
    value = pnl = None
    if price_magnifier is not None:
        value = holding.position * price.value * holding.instrument.multiplier / price_magnifier
        if holding.average_cost is not None:
            pnl = value - holding.position * holding.average_cost
    return _row(
        holding,
        source=Source.STREAM,
        now=now,
        by=by,
        market_price=price.value,
        price_kind=price.kind,
        value_time=_value_time(price, quote),
        market_value=value,
        unrealized_pnl=pnl,
        value_source=ValueOrigin.TICK,
        quote=quote,
        price_magnifier=price_magnifier,
        note=note,
    )


def from_portfolio(
    holding: BrokerPosition,
    *,
    source: Source,
    now: datetime,
    by: Provenance,
    quote: Quote | None = None,
    price_magnifier: int | None = None,
    note: str | None = None,
) -> PositionUpdate:
    """Value a holding by the broker's value; what the broker did not give stays None.

    Args:
        holding: The holding as the broker last reported it.
        source: The path that writes the row.
        now: The time of the row.
        by: The writer of the row.
        quote: Market data beside the value: bid, ask and greeks of a trusted line.
        price_magnifier: Divisor of theta and vega to the major unit; None: unknown.
        note: Why the value is not the usual one.
    """
    if holding.position == 0:
        return closed(holding, source=source, now=now, by=by)
    return _row(
        holding,
        source=source,
        now=now,
        by=by,
        market_price=holding.market_price,
        price_kind=PriceKind.PORTFOLIO if holding.market_price is not None else None,
        value_time=holding.value_time,
        market_value=holding.market_value,
        unrealized_pnl=holding.unrealized_pnl,
        value_source=holding.value_source,
        quote=quote,
        price_magnifier=price_magnifier,
        note=note,
    )


def closed(
    holding: BrokerPosition, *, source: Source, now: datetime, by: Provenance
) -> PositionUpdate:
    """Return the explicit zero row of a holding that is no longer held."""
    return _row(
        holding,
        source=source,
        now=now,
        by=by,
        market_price=None,
        price_kind=None,
        value_time=None,
        market_value=0.0,
        unrealized_pnl=0.0,
        value_source=ValueOrigin.NONE,
        quote=None,
    )


def _value_time(price: Price, quote: Quote) -> datetime | None:
    """Return when a price was true; None where only its arrival is known.

    IB sends the time of the last trade (ticks 45 and 88), and no time of marks, bids and asks.
    """
    if quote.is_live:
        return price.at
    return quote.last_time if price.kind is PriceKind.LAST else None


def _money(quoted: float | None, price_magnifier: int | None) -> float | None:
    """Return a quoted amount in the major unit; None where the factor is unknown."""
    return quoted / price_magnifier if quoted is not None and price_magnifier else None


def _row(
    holding: BrokerPosition,
    *,
    source: Source,
    now: datetime,
    by: Provenance,
    market_price: float | None,
    price_kind: PriceKind | None,
    value_time: datetime | None,
    market_value: float | None,
    unrealized_pnl: float | None,
    value_source: ValueOrigin,
    quote: Quote | None,
    price_magnifier: int | None = None,
    note: str | None = None,
) -> PositionUpdate:
    instrument = holding.instrument
    return PositionUpdate(
        conid=instrument.conid,
        symbol=instrument.symbol,
        right=instrument.right,
        position=holding.position,
        market_price=market_price,
        market_value=market_value,
        average_cost=holding.average_cost if holding.position else None,
        unrealized_pnl=unrealized_pnl,
        timestamp=now,
        account=holding.account,
        sec_type=instrument.sec_type,
        strike=instrument.strike,
        expiry=instrument.expiry,
        multiplier=instrument.multiplier,
        currency=instrument.currency,
        price_kind=price_kind,
        bid=quote.bid if quote else None,
        ask=quote.ask if quote else None,
        realized_pnl=holding.realized_pnl,
        daily_pnl=holding.daily_pnl,
        implied_vol=quote.implied_vol if quote else None,
        delta=quote.delta if quote else None,
        gamma=quote.gamma if quote else None,
        vega=_money(quote.vega, price_magnifier) if quote else None,
        theta=_money(quote.theta, price_magnifier) if quote else None,
        underlying_price=quote.underlying_price if quote else None,
        value_time=value_time,
        source=source,
        value_source=value_source,
        market_data_type=quote.market_data_type if quote else None,
        gateway_id=holding.gateway_id,
        trading_mode=trading_mode_of(holding.account),
        session_id=by.session_id,
        fencing_token=by.fencing_token,
        run_id=by.run_id,
        greeks_time=quote.greeks_time if quote else None,
        note=note,
        trading_class=instrument.trading_class or None,
        local_symbol=instrument.local_symbol or None,
    )
