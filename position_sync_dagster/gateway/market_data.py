"""Requests for lines of market data, and what the gateway answers to them."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ib_async import IB, Contract, Ticker

from position_sync_dagster.domain.instrument import ContractDetails
from position_sync_dagster.domain.quote import Quote
from position_sync_dagster.gateway import ib_async_internals, translate
from position_sync_dagster.gateway.codes import (
    DIVIDENDS_GENERIC_TICK,
    ENDS_LINE,
    MARK_PRICE_GENERIC_TICK,
    GatewayCode,
    MarketDataType,
)
from position_sync_dagster.gateway.holdings import Watchers
from position_sync_dagster.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The gateway's message that ended or refused a line.

    Attributes:
        market_data_type: The requested `MarketDataType`.
        in_use: The lines that the connection holds without this one.
    """

    conid: int
    code: int
    text: str
    market_data_type: int
    in_use: int


class MarketDataRequests:
    """The requests for market data of this connection, one for each line, as the gateway counts.

    Whether the values of a line count is decided by `domain/login_lines.py`.

    Args:
        ib: The connection.
        settings: The kind of market data to request.

    Attributes:
        ticked: Watchers of the conids that tick.
        on_refusal: Listeners, called when the gateway ends or refuses a line, which is free then.
        heard_at_s: When the newest tick of a line came, in monotonic seconds.
    """

    def __init__(self, ib: IB, *, settings: Settings) -> None:
        self._ib = ib
        self._market_data_type = settings.market_data_type
        self._requested_type = 0  # the kind of data that the gateway was last told to send
        self._knows_dividends = True  # until it refuses them
        self._requests: dict[int, _Request] = {}  # by conid
        self.ticked: Watchers[int] = Watchers()
        self.heard_at_s = -math.inf
        self.on_refusal: list[Callable[[Refusal], None]] = []
        ib.pendingTickersEvent += self._on_ticks
        ib.errorEvent += self._on_error

    @property
    def in_use(self) -> int:
        """The number of lines that this connection holds."""
        return len(self._requests)

    def subscribe(self, details: ContractDetails, *, delayed: bool = False) -> None:
        """Request a line for a contract, unless it has one.

        Args:
            details: The contract.
            delayed: Whether delayed data are requested, instead of those of the settings.
        """
        if details.conid not in self._requests:
            self._send(translate.streamable(details), self._type_of(delayed=delayed))

    def cancel(self, conid: int) -> None:
        """Free a line, if the contract has one."""
        request = self._requests.get(conid)
        if request is not None:
            self._retire(request, cancel=self._ib.isConnected())

    def switch(self, conid: int, *, delayed: bool = False) -> None:
        """Request a held line again, with delayed data or those of the settings.

        Args:
            conid: Nothing happens when it has no line.
            delayed: Whether delayed data are requested, instead of those of the settings.
        """
        request = self._requests.get(conid)
        if request is not None:
            self._retire(request, cancel=True)
            self._send(request.contract, self._type_of(delayed=delayed))

    def _type_of(self, *, delayed: bool) -> int:
        return MarketDataType.DELAYED if delayed else self._market_data_type

    def resubscribe(self) -> None:
        """Request every line again with new ids: the gateway dropped them (code 1101).

        A line that has not ticked yet is cancelled first: if its request reached the gateway after
        the drop, it still runs.
        """
        for request in list(self._requests.values()):
            self._retire(request, cancel=request.ticker.time is None)
            self._send(request.contract, request.market_data_type)

    def cancel_all(self) -> None:
        """Free every line."""
        for conid in list(self._requests):
            self.cancel(conid)

    def quote(self, conid: int) -> Quote | None:
        """Return the newest market data of a line; None when the conid has none."""
        request = self._requests.get(conid)
        return None if request is None else translate.quote_of(request.ticker, request.arrivals)

    def _send(self, contract: Contract, market_data_type: int) -> None:
        """Send a request with a new id; the kind of data that was set last counts for it."""
        if market_data_type != self._requested_type:
            self._ib.reqMarketDataType(market_data_type)
            self._requested_type = market_data_type

        ticks = MARK_PRICE_GENERIC_TICK
        # A gateway that has refused dividends is not asked for them again.
        with_dividends = self._knows_dividends and contract.secType == "STK"
        if with_dividends:
            ticks = f"{ticks},{DIVIDENDS_GENERIC_TICK}"
        ticker = self._ib.reqMktData(contract, ticks)
        request_id = ib_async_internals.request_id_of(self._ib, ticker)
        self._requests[contract.conId] = _Request(
            contract, market_data_type, with_dividends, ticker, request_id
        )

    def _on_ticks(self, tickers: set[Ticker]) -> None:
        """Record which lines ticked; those of a retired request do not count."""
        ticked = []
        for ticker in tickers:
            request = self._requests.get(ticker.contract.conId) if ticker.contract else None
            if request is not None and request.ticker is ticker:
                request.arrivals.note(ticker)
                ticked.append(request.contract.conId)

        if ticked:
            self.ticked.note(*ticked)
            self.heard_at_s = time.monotonic()

    def _on_error(self, request_id: int, code: int, text: str, _contract: Any) -> None:
        """Retire a request that the gateway refused or ended, and tell the listeners."""
        requests = self._requests.values()
        request = next((sent for sent in requests if sent.request_id == request_id), None)
        if request is None:
            return
        if code == GatewayCode.REQUEST_INVALID and request.with_dividends:
            # It may refuse the dividends alone: this and later requests do not ask for them.
            self._knows_dividends = False
            self._retire(request)
            self._send(request.contract, request.market_data_type)
            return

        if code not in ENDS_LINE:
            return
        self._retire(request)
        refusal = Refusal(
            conid=request.contract.conId,
            code=code,
            text=text,
            market_data_type=request.market_data_type,
            in_use=self.in_use,
        )
        for listener in list(self.on_refusal):
            listener(refusal)

    def _retire(self, request: "_Request", *, cancel: bool = False) -> None:
        """Remove a request, so that a later one of the conid starts without old prices.

        Args:
            request: One that is sent.
            cancel: Whether the gateway may still have it; not after an error, by which it ended it.
        """
        conid = request.contract.conId
        del self._requests[conid]
        for watcher in self.ticked:
            watcher.forget(conid)
        ib_async_internals.retire_ticker(self._ib, request.ticker, request.contract)
        if cancel:
            self._ib.client.cancelMktData(request.request_id)


@dataclass(slots=True)
class _Request:
    """A request for market data as sent; the gateway knows the line by its id.

    Attributes:
        market_data_type: The `MarketDataType` that was requested.
        with_dividends: Whether dividends were requested too.
        ticker: Gets the ticks; each request has a new one.
        arrivals: When the parts of the ticker arrived.
    """

    contract: Contract
    market_data_type: int
    with_dividends: bool
    ticker: Ticker
    request_id: int
    arrivals: translate.Arrivals = field(default_factory=translate.Arrivals)
