"""The demo's past: statements of its last trading days, and the rows of the last close.

The simulator makes both, with the prices from which it counts the profit of its own day. The rows
are written as the stream and the queue would have written them.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from ib_gateway_simulator.books.book import Book, Opening
from ib_gateway_simulator.books.loader import load_book
from ib_gateway_simulator.market.market import Market
from ib_gateway_simulator.statements import closing_market, write_statements
from position_sync_dagster.domain.instrument import RIGHTS, parse_expiry
from position_sync_dagster.domain.position_update import (
    GreeksSource,
    PositionUpdate,
    PriceKind,
    Source,
    ValueOrigin,
    trading_mode_of,
)
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.exchange_days import closing_times, exchange_days

# The number of past trading days that have a statement.
SESSIONS = 10

# The exchange whose closes the simulator counts from.
CALENDAR = "XNYS"

# How long before the close the last rows of the day were written.
BEFORE_CLOSE = timedelta(seconds=5)


def past_sessions(calendar: str, now: datetime) -> list[date]:
    """Return the trading days before that of the demo, oldest first.

    The day of the demo has a statement of its own (`state_the_day`). A prepared one would say, from
    the evening on, that nothing else happened on the day.
    """
    first = now.date() - timedelta(days=SESSIONS * 3)
    exchange = exchange_days(calendar, first, now.date())
    today = now.astimezone(ZoneInfo(exchange.timezone)).date()
    span = (first + timedelta(days=n) for n in range((today - first).days))
    return [day for day in span if exchange.is_trading_day(day)][-SESSIONS:]


def last_close(calendar: str, now: datetime) -> datetime:
    """Return the close of the last trading day before that of the demo."""
    session = past_sessions(calendar, now)[-1]
    return closing_times(calendar, [session])[session].astimezone(UTC)


def days_since_close(now: datetime) -> float:
    """Return how many days ago the simulator's previous close was."""
    return (now - last_close(CALENDAR, now)) / timedelta(days=1)


def write(settings: Settings, now: datetime) -> None:
    """Write the statements of the last sessions into the folder of the settings, and the close."""
    book = load_book("demo")
    closed_at = last_close(settings.calendar, now)
    days = past_sessions(settings.calendar, now)
    market = closing_market(book, closed_at)
    write_statements(book, days, settings.flex_folder, closing=market)

    lake = Lake.of(settings)
    active = {leg.conid for leg in lake.registry.sync.get_all_active()}
    rows = closing_rows(book, market, active, closed_at)
    written_at = {"gateway_id": settings.gateway_id}
    lake.updates.sync.append(PositionUpdate(**row | written_at) for row in rows)


def closing_rows(
    book: Book, market: Market, active: Iterable[int], closed_at: datetime
) -> Iterator[dict[str, Any]]:
    """Yield the last rows before a close: those of active legs with the broker's greeks.

    Args:
        book: The holdings.
        market: Its prices at the close.
        active: The conids that have a market data line.
        closed_at: The close.
    """
    streamed = frozenset(active)
    at = closed_at - BEFORE_CLOSE
    for opening in book.openings:
        if opening.quantity:
            row = _row(book, market, opening, at)
            if opening.conid in streamed:
                row |= _of_line(market, opening.conid, at)
            yield row


def _row(book: Book, market: Market, opening: Opening, at: datetime) -> dict[str, Any]:
    """Return the row of a holding as the queue writes it, from a portfolio row of the broker."""
    contract = book.contracts[opening.conid]
    price = market.close_price(opening.conid)
    value = opening.quantity * price * contract.multiplier
    cost = opening.average_cost
    if cost is None:
        cost = market.opening_cost(opening.conid)
    return {
        "conid": contract.conid,
        "symbol": contract.symbol,
        "sec_type": contract.sec_type.value,
        "right": RIGHTS.get(contract.right),
        "strike": contract.strike if contract.is_option else None,
        "expiry": parse_expiry(contract.expiry) if contract.expiry else None,
        "multiplier": contract.multiplier,
        "currency": contract.currency,
        "local_symbol": contract.local_symbol,
        "account": opening.account,
        "trading_mode": trading_mode_of(opening.account),
        "position": opening.quantity,
        "market_price": price * contract.price_magnifier,
        "market_value": value,
        "average_cost": cost,
        "unrealized_pnl": value - opening.quantity * cost,
        "price_kind": PriceKind.PORTFOLIO,
        "timestamp": at,
        "value_time": at,
        "source": Source.QUEUE,
        "value_source": ValueOrigin.PORTFOLIO,
    }


def _of_line(market: Market, conid: int, at: datetime) -> dict[str, Any]:
    """Return what the row of a streamed option has besides."""
    greeks, spot = market.at_close(conid)
    of_stream = {
        "source": Source.STREAM,
        "value_source": ValueOrigin.TICK,
        "price_kind": PriceKind.MARK,
    }
    if greeks is None:
        return of_stream
    return of_stream | {
        "implied_vol": greeks.implied_vol,
        "delta": greeks.delta,
        "gamma": greeks.gamma,
        "vega": greeks.vega,
        "theta": greeks.theta,
        "underlying_price": spot,
        "greeks_source": GreeksSource.GATEWAY,
        "greeks_time": at,
    }
