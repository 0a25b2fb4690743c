"""Market data lines: one stream per conid, counted as the gateway counts them."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ib_async import IB, Contract, Ticker

from position_sync_dagster.domain.instrument import ContractDetails
from position_sync_dagster.domain.quote import Quote
from position_sync_dagster.gateway.translate import MARK_TICK, quote_of, streamable
from position_sync_dagster.gateway.watch import Watch, Watches
from position_sync_dagster.settings import Settings

GENERIC_TICKS = "232"
"""Mark price, and nothing else: one illegal entry refuses the whole request with 321."""

TOO_MANY_LINES = 101

TERMINAL = frozenset({101, 200, 321, 322, 354, 10089, 10168, 10182, 10197})
"""Codes after which the request is dead. Source: recorded gateway behaviour; 10090, 10091 and
10167 are advisory, ticks follow them."""


KEPT_RETIRED = 200
"""Cancelled request ids that ib_async still knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why the gateway ended or refused a line."""

    conid: int
    code: int
    text: str


@dataclass(slots=True)
class _Line:
    contract: Contract
    ticker: Ticker
    request_id: int
    holders: int = 1
    mark_time: datetime | None = None


class MarketDataLines:
    """The lines that this connection holds; two callers of one conid share its line.

    Attributes:
        on_refusal: Listeners, called when the gateway ends or refuses a line; it is freed then.
    """

    def __init__(self, ib: IB, *, settings: Settings) -> None:
        self._ib = ib
        self._market_data_type = settings.market_data_type
        self._announced = False
        self._lines: dict[int, _Line] = {}
        self._by_request: dict[int, int] = {}
        self._retired: deque[int] = deque()
        self._ticked: Watches[int, float] = Watches()
        self.on_refusal: list[Callable[[Refusal], None]] = []
        ib.pendingTickersEvent += self._on_ticks
        ib.errorEvent += self._on_error

    @property
    def in_use(self) -> int:
        """Count the lines held."""
        return len(self._lines)

    def subscribe(self, details: ContractDetails) -> None:
        """Take a line for a contract, or share the one that it has."""
        line = self._lines.get(details.conid)
        if line is not None:
            line.holders += 1
            return
        if not self._announced:
            self._ib.reqMarketDataType(self._market_data_type)
            self._announced = True
        contract = streamable(details)
        ticker = self._ib.reqMktData(contract, GENERIC_TICKS)
        request_id = self._ib.wrapper.ticker2ReqId["mktData"][ticker]
        self._lines[details.conid] = _Line(contract, ticker, request_id)
        self._by_request[request_id] = details.conid

    def cancel(self, conid: int) -> None:
        """Give a share of a line back; the last one frees it."""
        line = self._lines.get(conid)
        if line is None:
            return
        line.holders -= 1
        if line.holders == 0:
            self._forget(conid)
            if self._ib.isConnected():
                self._ib.cancelMktData(line.contract)
            self._drop_ticker(line)

    def cancel_all(self) -> None:
        """Free every line, whoever shares it."""
        for conid, line in list(self._lines.items()):
            line.holders = 1
            self.cancel(conid)

    def quote(self, conid: int) -> Quote | None:
        """Give the newest market data of a held line."""
        line = self._lines.get(conid)
        return None if line is None else quote_of(line.ticker, mark_time=line.mark_time)

    def watch(self) -> Watch[int, float]:
        """Watch which conids tick, and when the first tick of each arrived (Unix seconds)."""
        return self._ticked.new()

    def _on_ticks(self, tickers: set[Ticker]) -> None:
        for ticker in tickers:
            contract = ticker.contract
            line = self._lines.get(contract.conId) if contract else None
            if line is None or line.ticker is not ticker:
                continue
            self._ticked.note(line.contract.conId, self._ib.wrapper.time)
            if any(tick.tickType == MARK_TICK for tick in ticker.ticks):
                line.mark_time = ticker.time

    def _on_error(self, request_id: int, code: int, text: str, _contract: Any) -> None:
        conid = self._by_request.get(request_id)
        if conid is None or code not in TERMINAL:
            return
        line = self._lines[conid]
        self._forget(conid)
        self._ib.wrapper.endTicker(line.ticker, "mktData")
        self._drop_ticker(line)
        for listener in list(self.on_refusal):
            listener(Refusal(conid=conid, code=code, text=text))

    def _forget(self, conid: int) -> None:
        line = self._lines.pop(conid)
        del self._by_request[line.request_id]
        self._ticked.forget(conid)

    def _drop_ticker(self, line: _Line) -> None:
        """Let a later line of the conid start empty: ib_async reuses a ticker with old prices."""
        self._ib.wrapper.tickers.pop(hash(line.contract), None)
        # Ticks of a cancelled request may still be under way, and ib_async logs unknown ids.
        self._retired.append(line.request_id)
        if len(self._retired) > KEPT_RETIRED:
            self._ib.wrapper.reqId2Ticker.pop(self._retired.popleft(), None)
