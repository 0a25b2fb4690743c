"""Market data lines: one subscription per conid, counted as the gateway counts them."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ib_async import IB, Contract, Ticker

from position_sync_dagster.domain.instrument import ContractDetails
from position_sync_dagster.domain.valuation import Quote
from position_sync_dagster.gateway import codes, ib_async_internals
from position_sync_dagster.gateway.holdings import ChangeNotifier, PendingChanges
from position_sync_dagster.gateway.translate import Arrivals, quote_of, streamable
from position_sync_dagster.settings import Settings

# After a code that the product does not know, a line that never ticked has this long to tick: the
# code may be advice. Then it counts as a refusal.
UNKNOWN_CODE_S = 5.0

# Cancelled requests whose late ticks are still recognized.
MAX_RETIRED = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The gateway's message that ended or refused a line.

    Attributes:
        market_data_type: The requested `MarketDataType`.
    """

    conid: int
    code: int
    text: str
    market_data_type: int


# How often a trial looks for a tick.
TRIAL_POLL_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class LineTrial:
    """The result of a market data line that was requested as a trial and cancelled.

    Attributes:
        refusal: The gateway's message that refused or ended it.
        market_data_type: The type of the ticks that came (1 live, 2 frozen, 3 delayed, 4 delayed
            frozen); None if no tick came.
        greeks: Whether greeks came; None for a contract that has none.
    """

    refusal: Refusal | None
    market_data_type: int | None
    greeks: bool | None


class MarketDataLines:
    """The lines that this connection holds; callers of the same conid share its line.

    Args:
        ib: The connection.
        settings: The kind of market data to request.
        monotonic: Measures intervals, in seconds.

    Attributes:
        on_refusal: Listeners, called when the gateway ends or refuses a line, which is free then.
        heard_at: When the newest tick of a line came, in monotonic seconds.
    """

    def __init__(
        self, ib: IB, *, settings: Settings, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._ib = ib
        self._monotonic = monotonic
        self._market_data_type = settings.market_data_type
        self._requested_type = 0
        self._knows_dividends = True
        self._lines: dict[int, _Line] = {}
        self._by_request: dict[int, _Line] = {}
        self._retired: deque[int] = deque()
        self._ticked: ChangeNotifier[int] = ChangeNotifier()
        self.heard_at = -math.inf
        self.on_refusal: list[Callable[[Refusal], None]] = []
        ib.pendingTickersEvent += self._on_ticks
        ib.errorEvent += self._on_error

    @property
    def in_use(self) -> int:
        """The number of lines that this connection holds."""
        return len(self._lines)

    def subscribe(self, details: ContractDetails, *, market_data_type: int | None = None) -> None:
        """Request a line for a contract, or share the one that it has.

        Args:
            details: The contract.
            market_data_type: Instead of the setting's; 3 requests delayed data.
        """
        line = self._lines.get(details.conid)
        if line is not None:
            line.holders += 1
            return
        kind = market_data_type or self._market_data_type
        self._request(_Line(streamable(details), kind))

    def cancel(self, conid: int) -> None:
        """Release a line; the last caller that releases it frees it."""
        line = self._lines.get(conid)
        if line is None:
            return
        line.holders -= 1
        if line.holders == 0:
            self._retire(line)
            if self._ib.isConnected():
                self._ib.client.cancelMktData(line.request_id)

    def switch(self, conid: int, *, market_data_type: int | None = None) -> None:
        """Request a held line again as another kind of data, for all that share it.

        Args:
            conid: Nothing happens when it has no line.
            market_data_type: Instead of the setting's.
        """
        line = self._lines.get(conid)
        if line is None:
            return
        self._retire(line)
        self._ib.client.cancelMktData(line.request_id)
        line.market_data_type = market_data_type or self._market_data_type
        self._request(line)

    def resubscribe(self) -> None:
        """Request every line again with new ids: the gateway dropped them (code 1101).

        A line that has not ticked yet is cancelled first: if its request reached the gateway after
        the drop, it still runs.
        """
        for line in list(self._lines.values()):
            self._retire(line)
            if line.ticker.time is None:
                self._ib.client.cancelMktData(line.request_id)
            self._request(line)

    def cancel_all(self) -> None:
        """Free every line, also shared ones."""
        for conid, line in list(self._lines.items()):
            line.holders = 1
            self.cancel(conid)

    async def trial(self, details: ContractDetails, *, wait_s: float) -> LineTrial:
        """Request a line, wait for its first tick or its refusal, and cancel it.

        Of an option the greeks are awaited as well.
        """
        refusals: list[Refusal] = []
        self.on_refusal.append(refusals.append)
        self.subscribe(details)
        kind, greeks = None, None if details.right is None else False
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    while not refusals and self._ib.isConnected():
                        quote = self.quote(details.conid)
                        if quote is not None and quote.received_at is not None:
                            kind = quote.market_data_type or 1
                            greeks = None if greeks is None else quote.delta is not None
                        if kind is not None and greeks is not False:
                            break
                        await asyncio.sleep(TRIAL_POLL_S)
        finally:
            self.cancel(details.conid)
            self.on_refusal.remove(refusals.append)
        refusal = refusals[0] if refusals else None
        return LineTrial(refusal=refusal, market_data_type=kind, greeks=greeks)

    def quote(self, conid: int) -> Quote | None:
        """Return the newest market data of a line; None when the conid has none."""
        line = self._lines.get(conid)
        if line is None:
            return None
        return quote_of(line.ticker, line.arrivals)

    def watch(self) -> PendingChanges[int]:
        """Collect from now on which conids tick."""
        return self._ticked.watch()

    def _request(self, line: "_Line") -> None:
        if line.market_data_type != self._requested_type:
            self._ib.reqMarketDataType(line.market_data_type)
            self._requested_type = line.market_data_type
        ticks = codes.MARK_PRICE_GENERIC_TICK
        line.with_dividends = self._knows_dividends and line.contract.secType == "STK"
        if line.with_dividends:
            ticks = f"{ticks},{codes.DIVIDENDS_GENERIC_TICK}"
        line.ticker = self._ib.reqMktData(line.contract, ticks)
        line.request_id = ib_async_internals.request_id_of(self._ib, line.ticker)
        line.arrivals = Arrivals()
        self._lines[line.contract.conId] = self._by_request[line.request_id] = line

    def _on_ticks(self, tickers: set[Ticker]) -> None:
        for ticker in tickers:
            contract = ticker.contract
            line = self._lines.get(contract.conId) if contract else None
            if line is not None and line.ticker is ticker:
                self._ticked.note(line.contract.conId)
                self.heard_at = self._monotonic()
                line.arrivals.note(ticker)

    def _on_error(self, request_id: int, code: int, text: str, _contract: Any) -> None:
        line = self._by_request.get(request_id)
        if line is None or code in codes.ADVICE or codes.is_notice(code):
            return
        if code == codes.GatewayCode.REQUEST_INVALID and line.with_dividends:
            self._knows_dividends = False
            self._retire(line)
            self._request(line)
            return
        conid, kind = line.contract.conId, line.market_data_type
        refusal = Refusal(conid=conid, code=code, text=text, market_data_type=kind)
        if code in codes.ENDS_LINE:
            self._end(line, refusal)
        elif line.ticker.time is None:
            loop = asyncio.get_running_loop()
            loop.call_later(UNKNOWN_CODE_S, self._end_unless_ticked, request_id, refusal)

    def _end_unless_ticked(self, request_id: int, refusal: Refusal) -> None:
        """End a line that has not ticked since it got an unknown code."""
        line = self._by_request.get(request_id)
        if line is not None and line.ticker.time is None and self._ib.isConnected():
            self._ib.client.cancelMktData(request_id)
            self._end(line, refusal)

    def _end(self, line: "_Line", refusal: Refusal) -> None:
        self._retire(line)
        for listener in list(self.on_refusal):
            listener(refusal)

    def _retire(self, line: "_Line") -> None:
        """Remove a line, so that a later one of the conid starts without old prices."""
        conid = line.contract.conId
        del self._lines[conid]
        del self._by_request[line.request_id]
        self._ticked.forget(conid)
        ib_async_internals.retire_ticker(self._ib, line.ticker, line.contract)
        # Ticks of a cancelled request may still arrive: they must not find the next ticker.
        self._retired.append(line.request_id)
        if len(self._retired) > MAX_RETIRED:
            ib_async_internals.forget_request(self._ib, self._retired.popleft())


@dataclass(slots=True)
class _Line:
    contract: Contract
    market_data_type: int
    holders: int = 1
    with_dividends: bool = False
    ticker: Ticker = field(default_factory=Ticker)
    request_id: int = -1
    arrivals: Arrivals = field(default_factory=Arrivals)
