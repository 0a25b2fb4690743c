"""Translate ib_async's objects to the domain's values; IB's sentinels and spellings end here."""

import logging
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from datetime import time as clock_time
from typing import Any, NamedTuple

from ib_async import Contract, OptionComputation, Ticker
from ib_async import ContractDetails as IBContractDetails

from position_sync_dagster.domain.exchange_time import zone_of
from position_sync_dagster.domain.holding import Key
from position_sync_dagster.domain.instrument import (
    CONIDS,
    MULTIPLIED_TYPES,
    OPTION_TYPES,
    ContractDetails,
    Instrument,
    Right,
    parse_expiry,
    parse_right,
)
from position_sync_dagster.domain.quote import Quote, StatedDividends
from position_sync_dagster.errors import InvalidLegError, shown
from position_sync_dagster.gateway import ib_async_internals
from position_sync_dagster.gateway.codes import (
    ALGO_VENUE,
    DELAYED_TICKS,
    DELAYED_TYPES,
    MARK_TICK,
    QUOTE_TICKS,
    MarketDataType,
)

logger = logging.getLogger(__name__)

# IB's "unset" double (DBL_MAX), e.g. the realized P&L of PnLSingle before a trade.
UNSET = 1.7976931348623157e308

# How a gateway writes that there is no bid, no ask, or no price of a holding.
NO_PRICE = (0.0, -1.0)


def known(value: float | None) -> float | None:
    """Return a number that is finite and set, else None.

    >>> known(UNSET), known(float("nan")), known(0.0)
    (None, None, 0.0)
    """
    if value is not None and -UNSET < value < UNSET:
        return float(value)

    return None


def number_of(text: str) -> float | None:
    """Read a number as sent; None where it is no number, not finite or not set.

    >>> number_of("1234.50"), number_of(""), number_of("1.7976931348623157E308")
    (1234.5, None, None)
    """
    try:
        return known(float(text))
    except ValueError:
        return None


def multiplier_of(sec_type: str, text: str) -> float | None:
    """Read a multiplier as sent; None where it is unknown.

    Without one it is 1, as of stocks; one of `MULTIPLIED_TYPES` always has it.

    >>> multiplier_of("STK", ""), multiplier_of("OPT", "100"), multiplier_of("OPT", "")
    (1.0, 100.0, None)
    """
    value = number_of(text or "0")
    if value == 0 and sec_type not in MULTIPLIED_TYPES:
        return 1.0
    if value is None or value <= 0:
        return None
    return value


def instrument_of(contract: Contract) -> Instrument:
    """Read an instrument from a position or portfolio row.

    Only options have a right and a strike; others carry "", "0" or "?" there (recorded in messages
    7 and 61).

    Raises:
        ValueError: Its multiplier is unknown, so that nothing can be valued with it.
    """
    multiplier = multiplier_of(contract.secType, contract.multiplier)
    if multiplier is None:
        raise ValueError(f"multiplier {shown(contract.multiplier)} ({contract.secType})")

    right = None
    strike = None
    if contract.secType in OPTION_TYPES:
        right = _right(contract.right)
        strike = known(contract.strike)

    return Instrument(
        conid=contract.conId,
        symbol=contract.symbol,
        sec_type=contract.secType,
        currency=contract.currency,
        multiplier=multiplier,
        right=right,
        strike=strike,
        expiry=_day(contract.lastTradeDateOrContractMonth),
        local_symbol=contract.localSymbol,
        trading_class=contract.tradingClass,
        exchange=contract.exchange or contract.primaryExchange,
    )


def details_of(details: IBContractDetails, *, seen_at: datetime) -> ContractDetails:
    """Read contract details; the contract in them has the exchange to request it on.

    Raises:
        ValueError: There is no contract in them, its conid is not valid, or its multiplier is
            unknown.
    """
    contract = details.contract
    if contract is None or contract.conId not in CONIDS:
        raise ValueError("contract details without a contract")

    instrument = instrument_of(contract)
    under_conid = details.underConId if details.underConId in CONIDS else None
    expires_on = _day(details.realExpirationDate)
    day, clock, zone = _last_trade(instrument.expiry, details, expires_on)

    trading_hours = None  # in a zone that is not known they say nothing
    if zone_of(details.timeZoneId) is not None:
        trading_hours = details.tradingHours or None

    terms = instrument.terms
    del terms["expiry"]  # the days below have it
    return ContractDetails(
        **terms,
        local_symbol=instrument.local_symbol,
        trading_class=instrument.trading_class,
        exchange=contract.exchange,
        under_conid=under_conid,
        price_magnifier=details.priceMagnifier or 1,
        last_trade_date=day,
        last_trade_time=clock,
        time_zone=zone,
        trading_hours=trading_hours,
        seen_at=seen_at,
        valid_exchanges=details.validExchanges,
        expires_on=expires_on,
        under_sec_type=details.underSecType or None,
    )


def _last_trade(
    day: date | None, details: IBContractDetails, expires_on: date | None
) -> tuple[date | None, str | None, str | None]:
    """Return day, time and zone of the last trade, in the zone of the trading hours if it is known.

    The gateway writes it in the zone of its login, in that of the instrument, or in UTC: its day
    may be the one after. A day after the expiry shows a zone that is not known. A time without a
    zone is one of the trading hours' zone. `rewrite_times` has put IN_ZONE between time and zone.
    """
    clock, _, words = details.lastTradeTime.partition(ib_async_internals.IN_ZONE)
    name = words.replace(ib_async_internals.IN_ZONE, " ")
    written = zone_of(name)
    listed = zone_of(details.timeZoneId)
    zone = details.timeZoneId or None

    if day is not None and clock and name:
        if written is None:
            logger.warning(
                "the last trade of contract %d, %s %s, is in the time zone %r, which is not known: "
                "its time does not count. Choose another time zone at the log-in of TWS or IB "
                "Gateway.",
                details.contract.conId if details.contract else 0,
                day,
                clock,
                name,
            )
            clock = ""
        elif listed is None:
            zone = name
        else:
            hour, minute, *_seconds = map(int, clock.split(":"))
            at = datetime.combine(day, clock_time(hour, minute), written)
            local = at.astimezone(listed)
            day = local.date()
            clock = f"{local:%H:%M:%S}"

    if day is not None and expires_on is not None and day > expires_on:
        day = expires_on
        clock = ""
    return day, clock or None, zone


def streamable(details: ContractDetails) -> Contract:
    """Return the contract to request market data for.

    A holding's own contract has no exchange. Source: IB, "Contracts"; recorded message 61.
    """
    return Contract(
        conId=details.conid,
        symbol=details.symbol,
        secType=details.sec_type,
        currency=details.currency,
        exchange=_market_data_exchange(details),
    )


def _market_data_exchange(details: ContractDetails) -> str:
    """Return SMART where the contract lists it, else the exchange that lists the contract.

    The gateway refuses an exchange that `validExchanges` does not name: options of EUREX, for
    example, have no SMART (code 200, "Invalid destination exchange specified": ib-ruby).
    Where that list is not known, options and stocks stream from SMART. A venue for algorithms
    (`ALGO_VENUE`) is no exchange.
    """
    listed = [name.strip() for name in (details.valid_exchanges or "").split(",")]
    is_usual = not details.valid_exchanges and details.sec_type in {"OPT", "STK", "WAR", "IOPT"}
    if is_usual or "SMART" in listed:
        return "SMART"

    venues = [name for name in listed if name and not name.startswith(ALGO_VENUE)]
    if details.exchange in venues or not venues:
        return details.exchange
    return venues[0]


@dataclass(slots=True)
class Arrivals:
    """When the parts of a ticker last arrived, and what they were; None before the first tick.

    Attributes:
        quote: The newest price or size of bid, ask or last.
        moved: The newest change of bid or ask.
        mark: The newest tick 37.
        model: The newest tick 13.
        delayed: Whether the newest prices and sizes of the quote have types of delayed data.
        kind: The kind of market data of the newest ticks, as the gateway says.
    """

    quote: datetime | None = None
    moved: datetime | None = None
    mark: datetime | None = None
    model: datetime | None = None
    delayed: bool = False
    kind: int | None = None
    # What the ticker had at the last `note`: a part that differs has arrived.
    _sides: tuple[float | None, float | None] = (None, None)
    _mark: float = math.nan
    _greeks: OptionComputation | None = None

    def note(self, ticker: Ticker) -> None:
        """Record the arrival of the parts that the newest ticks brought.

        A part has arrived if a tick of it is there, or if the ticker has it otherwise than at the
        last call (`_sides`, `_mark`, `_greeks`). Once data are live, what came as frozen or delayed
        data does not count.
        """
        live = MarketDataType.LIVE
        if self.kind not in (None, live) and ticker.marketDataType == live:
            self.quote = self.moved = self.mark = self.model = None
        self.kind = ticker.marketDataType

        kinds = {tick.tickType for tick in ticker.ticks}
        at = ticker.time
        if kinds & QUOTE_TICKS:
            self.quote = at
            self.delayed = bool(kinds & DELAYED_TICKS)

        sides = (known(ticker.bid), known(ticker.ask))
        if sides != self._sides:
            self.quote = at
            self.moved = at
        self._sides = sides

        # ib_async keeps no tick of a price of 0 (2.1.0, priceSizeTick), only the price itself.
        if MARK_TICK in kinds or ticker.markPrice == 0 != self._mark:
            self.mark = at
        self._mark = ticker.markPrice

        if ticker.modelGreeks is not self._greeks:  # each tick 13 makes a new object
            self.model = at
        self._greeks = ticker.modelGreeks


_NO_GREEKS = OptionComputation(tickAttrib=0)


def _computed(greeks: OptionComputation | None) -> OptionComputation | None:
    """Return what the option model computed; None where it had nothing to compute with.

    A tick 13 before the model has its inputs is sent all the same: with an underlying price or a
    volatility of 0, and greeks of 0 that nothing was computed for.
    """
    if greeks is None or 0 in (greeks.undPrice, greeks.impliedVol):
        return None
    return greeks


def quote_of(ticker: Ticker, arrivals: Arrivals) -> Quote:
    """Read the newest market data of a ticker.

    A bid or ask of 0 or −1 means that there is none; so does a last of −1. Unset greeks are −2,
    an unset underlying price or implied volatility is −1 (ib_async 2.1.0, wrapper). Where one of
    these two is 0, nothing was computed.

    Args:
        ticker: The ticker of a line.
        arrivals: When its parts arrived.
    """
    computed = _computed(ticker.modelGreeks)
    greeks = computed or _NO_GREEKS
    kind = ticker.marketDataType
    if kind == MarketDataType.LIVE:  # the gateway may say so before the first live tick
        kind = arrivals.kind or kind
    if arrivals.delayed and kind not in DELAYED_TYPES:
        kind = int(MarketDataType.DELAYED)

    last_time = ticker.lastTimestamp
    halted = ticker.halted
    if kind in DELAYED_TYPES:
        last_time = ticker.delayedLastTimestamp
        halted = ticker.delayedHalted

    return Quote(
        received_at=ticker.time,
        bid=_side(ticker.bid),
        ask=_side(ticker.ask),
        last=_unless(-1, ticker.last),
        mark=_unless(-1, ticker.markPrice),
        quote_time=arrivals.quote,
        moved_at=arrivals.moved,
        mark_time=arrivals.mark,
        last_time=last_time,
        market_data_type=kind,
        halted=halted in (1, 2),  # by the exchange, or because of the volatility
        implied_vol=_unless(-1, greeks.impliedVol),
        delta=_unless(-2, greeks.delta),
        gamma=_unless(-2, greeks.gamma),
        vega=_unless(-2, greeks.vega),
        theta=_unless(-2, greeks.theta),
        underlying_price=_unless(-1, greeks.undPrice),
        model_price=_unless(-1, greeks.optPrice),
        pv_dividend=_unless(-1, greeks.pvDividend),
        greeks_time=arrivals.model if computed else None,
        min_tick=known(ticker.minTick) or None,
        dividends=_dividends(ticker),
    )


def _dividends(ticker: Ticker) -> StatedDividends | None:
    """Read the dividends of a stock (tick type 59); an empty field is unknown."""
    stated = ticker.dividends
    if stated is None:
        return None

    day = stated.nextDate
    if isinstance(day, datetime):
        day = day.date()

    return StatedDividends(
        next_date=day,
        next_amount=known(stated.nextAmount),
        next_year=known(stated.next12Months),
    )


class HoldingRow(NamedTuple):
    """A row of a holding that can be used.

    Attributes:
        amounts: By the names of the columns; None where the broker gave none. A position row has
            the average cost alone.
    """

    key: Key
    instrument: Instrument
    position: float
    amounts: dict[str, float | None]


class OddRow(NamedTuple):
    """A row of a holding that cannot be used, and why.

    A conid that is no number is 0 in the key.
    """

    key: Key
    why: str


# The terms of a contract in both messages, by ib_async's names.
_CONTRACT_FIELDS = (
    "conId", "symbol", "secType", "lastTradeDateOrContractMonth", "strike", "right", "multiplier",
    "exchange", "currency", "localSymbol", "tradingClass",
)  # fmt: skip

# The amounts of message 7, by the names of the columns, and those that follow from its price.
_AMOUNTS = ("market_price", "market_value", "average_cost", "unrealized_pnl", "realized_pnl")
_OF_PRICE = ("market_price", "market_value", "unrealized_pnl")

# The fields of the messages 61 and 7.
POSITION_FIELDS = ("type", "version", "account", *_CONTRACT_FIELDS, "quantity", "average_cost")
PORTFOLIO_FIELDS = ("type", "version", *_CONTRACT_FIELDS, "quantity", *_AMOUNTS, "account")


def position_row(fields: Sequence[str]) -> HoldingRow | OddRow:
    """Read message 61. An empty cost is unknown; ib_async reads an empty quantity as 0, a close.

    >>> terms = ["7", "SPY", "OPT", "20281215", "550", "C", "100", "", "USD", "SPY C", "SPY"]
    >>> row = position_row(["61", "3", "DU1", *terms, "2.0", ""])
    >>> row.key, row.position, row.amounts
    (('DU1', 7), 2.0, {'average_cost': None})
    >>> position_row(["61", "3", "DU1", *terms, "", "1"])
    OddRow(key=('DU1', 7), why="quantity ''")
    """
    named = dict(zip(POSITION_FIELDS, fields, strict=True))
    named["average_cost"] = named["average_cost"] or "nan"
    return _holding_row(named, ("average_cost",))


def portfolio_row(fields: Sequence[str]) -> HoldingRow | OddRow:
    """Read message 7. A price of 0 or −1 is none: it, the value and the profit are unknown."""
    row = _holding_row(dict(zip(PORTFOLIO_FIELDS, fields, strict=True)), _AMOUNTS)
    if isinstance(row, HoldingRow) and row.position and row.amounts["market_price"] in NO_PRICE:
        row.amounts.update(dict.fromkeys(_OF_PRICE))
    return row


def _holding_row(sent: Mapping[str, str], amount_names: Sequence[str]) -> HoldingRow | OddRow:
    """Read what messages 61 and 7 share; a row that cannot be used says which field is wrong."""
    account = sys.intern(sent["account"])  # one copy for thousands of holdings
    conid = sent["conId"]
    try:
        if not conid.isdecimal() or int(conid) not in CONIDS:
            raise ValueError(f"conid {shown(conid)}")
        if not sent["symbol"].strip():
            raise ValueError("no symbol")
        position = number_of(sent["quantity"])
        if position is None:
            raise ValueError(f"quantity {shown(sent['quantity'])}")

        terms: dict[str, Any] = {name: sent[name] for name in _CONTRACT_FIELDS}
        terms["conId"] = int(conid)
        terms["strike"] = _number("strike", sent["strike"] or "0")
        amounts = {name: known(_number(name, sent[name])) for name in amount_names}
        return HoldingRow(
            (account, int(conid)), instrument_of(Contract(**terms)), position, amounts
        )
    except ValueError as error:
        return OddRow((account, int(number_of(conid) or 0)), str(error))


def _number(name: str, text: str) -> float:
    """Read a number as sent; the error names the field."""
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{name} {shown(text)}") from None


def _side(price: float) -> float | None:
    """Return a bid or an ask; None where the gateway says by 0 or −1 that there is none."""
    value = known(price)
    return None if value in NO_PRICE else value


def _unless(unset: int, value: float | None) -> float | None:
    """Return a number; None if it is the one that IB sends for no value."""
    value = known(value)
    return None if value == unset else value


def _right(text: str) -> Right | None:
    """Read the right of an option; None where it cannot be read."""
    try:
        return parse_right(text)
    except InvalidLegError:
        return None


def _day(text: str) -> date | None:
    """Read "20270115" or "20261218 08:30:00 US/Central"; a month alone gives None."""
    day = re.split("[ -]", text)[0]
    try:
        return parse_expiry(day) if day else None
    except InvalidLegError:
        return None
