"""Ticks: the messages that lead a market data line from one quote to the next; pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Literal

from ib_gateway_simulator.market.pricing import DAYS_PER_YEAR, NOT_COMPUTED
from ib_gateway_simulator.market.quote import Quote
from ib_gateway_simulator.protocol import messages
from ib_gateway_simulator.protocol.contract import SecType
from ib_gateway_simulator.protocol.fields import Fields

_LIVE_TYPES = {
    "bid_size": 0,
    "bid": 1,
    "ask": 2,
    "ask_size": 3,
    "last": 4,
    "last_size": 5,
    "high": 6,
    "low": 7,
    "volume": 8,
    "close": 9,
    "model": 13,
    "open": 14,
    "timestamp": 45,
    "halted": 49,
}
# Delayed tick types as recorded by ibkr-go (delayed_quote_reconnect) and listed in ibapi.
_DELAYED_TYPES = {
    "bid": 66,
    "ask": 67,
    "last": 68,
    "bid_size": 69,
    "ask_size": 70,
    "last_size": 71,
    "high": 72,
    "low": 73,
    "volume": 74,
    "close": 75,
    "open": 76,
    "model": 83,
    "timestamp": 88,
    "halted": 90,
}

# The tick type of mark prices; it comes with generic tick 232.
MARK_PRICE = 37

# The tick type of dividends; it comes with generic tick 456.
DIVIDENDS = 59

# The price tick types that the tick log keeps.
PRICE_NAMES = {1: "bid", 2: "ask", 4: "last", 37: "mark", 66: "bid", 67: "ask", 68: "last"}


# The kinds of tick to which a contract can be restricted.
Kind = Literal["quote", "mark", "model", "size"]

_QUOTE_TYPES = {
    str(types[name])
    for types in (_LIVE_TYPES, _DELAYED_TYPES)
    for name in ("bid", "bid_size", "ask", "ask_size", "last", "last_size")
}


def is_of(kinds: Collection[Kind], fields: Fields) -> bool:
    """Return whether a tick is of one of these kinds; "quote": its prices and sizes."""
    message = fields[0]
    if message == "21":
        return "model" in kinds
    if message not in ("1", "2"):
        return False

    tick_type = fields[3]
    if message == "2" and "size" in kinds:
        return True
    if tick_type == str(MARK_PRICE):
        return "mark" in kinds
    return tick_type in _QUOTE_TYPES and "quote" in kinds


def dividends(
    req_id: int, price: float, paid: Sequence[tuple[float, float]], now: datetime
) -> Fields:
    """Return the tick of the dividends of a stock.

    It has the sum of the past 12 months, that of the next 12 months, the next ex-date and amount;
    each is empty where it is not known (IB, "Tick Types", IB Dividends).

    Args:
        req_id: The request of the line.
        price: The price of the stock.
        paid: The years until each dividend of the next 12 months, and its share of the price.
        now: The present time, in New York.
    """
    if not paid:
        return messages.tick_string(req_id, DIVIDENDS, ",,,")
    year = price * sum(share for _at, share in paid)
    at, share = paid[0]
    day = now + timedelta(days=at * DAYS_PER_YEAR)
    value = f"{year:.4f},{year:.4f},{day:%Y%m%d},{price * share:.4f}"
    return messages.tick_string(req_id, DIVIDENDS, value)


def changed(
    req_id: int,
    sec_type: SecType,
    before: Quote | None,
    quote: Quote,
    *,
    epoch_s: int,
    mark: bool,
    delayed: bool,
    greeks: bool = True,
    halted: bool = False,
    sizes: bool = False,
) -> Iterator[Fields]:
    """Yield the ticks that lead from one quote to the next; a line opens with `before` None.

    A side without a price is sent as -1 with size 0 (IB, "Tick Types"). An index has no sides,
    and its last price comes with an empty size (ib_insync issues/428).

    Args:
        req_id: The request of the line.
        sec_type: The security type of the contract.
        before: The quote that the client has seen.
        quote: The quote now.
        epoch_s: The time of trades without a time of their own, in seconds since 1970.
        mark: Whether the line has requested mark prices.
        delayed: Whether the line has delayed data.
        greeks: Whether the login may see greeks.
        halted: Whether trading in the contract is halted.
        sizes: Whether sizes of bid and ask are sent that change without their prices.
    """
    types = _LIVE_TYPES
    if delayed:
        types = _DELAYED_TYPES

    index = sec_type is SecType.IND
    opening = before is None
    compared = quote
    if before is not None:
        compared = before

    trade = (quote.trade_step, quote.traded_at)
    known_trade = (compared.trade_step, compared.traded_at)
    if quote.last is not None and (opening or trade != known_trade):
        at_s = epoch_s
        if quote.traded_at is not None:
            at_s = quote.traded_at

        yield messages.tick_string(req_id, types["timestamp"], str(at_s))

    if quote.last is not None and (opening or quote.last != compared.last):
        size = str(quote.last_size)
        if index:
            size = ""

        yield messages.tick_price(req_id, types["last"], quote.last, size)
    if opening:
        yield messages.tick_generic(req_id, types["halted"], 1.0 if halted else 0.0)

    if not index:
        if opening or quote.bid != compared.bid:
            yield _side(req_id, types["bid"], quote.bid, quote.bid_size)
        if opening or quote.ask != compared.ask:
            yield _side(req_id, types["ask"], quote.ask, quote.ask_size)
        if sizes and (opening or quote.bid_size != compared.bid_size):
            yield messages.tick_size(req_id, types["bid_size"], str(quote.bid_size))
        if sizes and (opening or quote.ask_size != compared.ask_size):
            yield messages.tick_size(req_id, types["ask_size"], str(quote.ask_size))
        if opening or quote.volume != compared.volume:
            yield messages.tick_size(req_id, types["volume"], str(quote.volume))

    if opening:
        traded = quote.open
        if quote.last is not None:
            traded = quote.last

        for name, price in (
            ("high", max(quote.open, traded)),
            ("low", min(quote.open, traded)),
            ("close", quote.close),
            ("open", quote.open),
        ):
            yield messages.tick_price(req_id, types[name], price, "0")
    if mark and not delayed and quote.mark is not None and (opening or quote.mark != compared.mark):
        yield messages.tick_price(req_id, MARK_PRICE, quote.mark, "0")
    model = quote.greeks
    # What was not computed is sent again with every change, or it would be a model that ended.
    is_new = opening or model != compared.greeks or model is NOT_COMPUTED
    if model is not None and greeks and is_new:
        yield messages.option_computation(
            req_id, types["model"], underlying_price=quote.underlying_price, **asdict(model)
        )


def _side(req_id: int, tick_type: int, price: float | None, size: int) -> Fields:
    if price is None:
        return messages.tick_price(req_id, tick_type, -1.0, "0")
    return messages.tick_price(req_id, tick_type, price, str(size), 1)
