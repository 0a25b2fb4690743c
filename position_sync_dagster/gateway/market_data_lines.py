"""Market data lines: one stream per conid, counted as the gateway counts them."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ib_async import IB, Contract, Ticker

from position_sync_dagster.domain.instrument import ContractDetails
from position_sync_dagster.domain.quote import Quote
from position_sync_dagster.gateway.changes import ChangeNotifier, PendingChanges
from position_sync_dagster.gateway.codes import ENDS_LINE, MARK_PRICE_GENERIC_TICK, MARK_TICK
from position_sync_dagster.gateway.ib_async_internals import (
    forget_request,
    packet_time,
    request_id_of,
    retire_ticker,
)
from position_sync_dagster.gateway.translate import quote_of, streamable
from position_sync_dagster.settings import Settings

CANCEL_EFFECT_S = 2.0
"""Ticks that come later after a cancel say that it had none."""

KEPT_RETIRED = 200
"""Cancelled request ids that ib_async still knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why the gateway ended or refused a line.

    Attributes:
        market_data_type: What was asked for: 1 live, 2 frozen, 3 and 4 delayed.
    """

    conid: int
    code: int
    text: str
    market_data_type: int


class MarketDataLines:
    """The lines that this connection holds; two callers of one conid share its line.

    Attributes:
        on_refusal: Listeners, called when the gateway ends or refuses a line; it is freed then.
        ticked_at: When the newest tick of any line came, in monotonic seconds.
    """

    def __init__(
        self, ib: IB, *, settings: Settings, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._ib = ib
        self._monotonic = monotonic
        self._market_data_type = settings.market_data_type
        self._announced = 0
        self._lines: dict[int, _Line] = {}
        self._by_request: dict[int, _Line] = {}
        self._retired: dict[int, _Retired] = {}
        self._ticked: ChangeNotifier[int, float] = ChangeNotifier()
        self.ticked_at = -math.inf
        self.on_refusal: list[Callable[[Refusal], None]] = []
        ib.pendingTickersEvent += self._on_ticks
        ib.errorEvent += self._on_error

    @property
    def in_use(self) -> int:
        """Count the lines held."""
        return len(self._lines)

    def subscribe(self, details: ContractDetails, *, market_data_type: int | None = None) -> None:
        """Take a line for a contract, or share the one that it has.

        Args:
            market_data_type: Instead of the setting's; 3 asks for delayed data.
        """
        line = self._lines.get(details.conid)
        if line is not None:
            line.holders += 1
            return
        kind = market_data_type or self._market_data_type
        line = _Line(streamable(details), kind)
        self._lines[details.conid] = line
        self._request(line)

    def cancel(self, conid: int) -> None:
        """Give a share of a line back; the last one frees it."""
        line = self._lines.get(conid)
        if line is None:
            return
        line.holders -= 1
        if line.holders == 0:
            self._forget(line)
            if self._ib.isConnected():
                self._ib.client.cancelMktData(line.request_id)

    def switch(self, conid: int, *, market_data_type: int | None = None) -> None:
        """Ask for a held line anew as another kind of data, for everybody who shares it."""
        line = self._lines.get(conid)
        if line is None:
            return
        self._forget(line)
        self._ib.client.cancelMktData(line.request_id)
        line.market_data_type = market_data_type or self._market_data_type
        self._lines[conid] = line
        self._request(line)

    def resubscribe(self) -> None:
        """Ask for every line anew, with new request ids: the gateway dropped them (code 1101)."""
        for conid, line in list(self._lines.items()):
            self._forget(line)
            self._lines[conid] = line
            self._request(line)

    def cancel_all(self) -> None:
        """Free every line, whoever shares it."""
        for conid, line in list(self._lines.items()):
            line.holders = 1
            self.cancel(conid)

    def quote(self, conid: int) -> Quote | None:
        """Give the newest market data of a held line."""
        line = self._lines.get(conid)
        return None if line is None else quote_of(line.ticker, mark_time=line.mark_time)

    def watch(self) -> PendingChanges[int, float]:
        """Watch which conids tick, and when the first tick of each arrived (Unix seconds)."""
        return self._ticked.watch()

    def _request(self, line: "_Line") -> None:
        if line.market_data_type != self._announced:
            self._ib.reqMarketDataType(line.market_data_type)
            self._announced = line.market_data_type
        line.ticker = self._ib.reqMktData(line.contract, MARK_PRICE_GENERIC_TICK)
        line.request_id = request_id_of(self._ib, line.ticker)
        line.mark_time = None
        self._by_request[line.request_id] = line

    def _on_ticks(self, tickers: set[Ticker]) -> None:
        for ticker in tickers:
            contract = ticker.contract
            line = self._lines.get(contract.conId) if contract else None
            if line is None or line.ticker is not ticker:
                self._still_streams(ticker)
                continue
            self._ticked.note(line.contract.conId, packet_time(self._ib))
            self.ticked_at = self._monotonic()
            if any(tick.tickType == MARK_TICK for tick in ticker.ticks):
                line.mark_time = ticker.time

    def _still_streams(self, ticker: Ticker) -> None:
        """Cancel again what goes on ticking: a cancel is confirmed by its effect alone."""
        retired = self._retired.get(id(ticker))
        now = self._monotonic()
        if retired is not None and now - retired.cancelled_at > CANCEL_EFFECT_S:
            retired.cancelled_at = now
            self._ib.client.cancelMktData(retired.request_id)

    def _on_error(self, request_id: int, code: int, text: str, _contract: Any) -> None:
        line = self._by_request.get(request_id)
        if line is None or code not in ENDS_LINE:
            return
        conid = line.contract.conId
        self._forget(line)
        for listener in list(self.on_refusal):
            listener(
                Refusal(conid=conid, code=code, text=text, market_data_type=line.market_data_type)
            )

    def _forget(self, line: "_Line") -> None:
        """Drop a line; a later one of the conid starts empty, while ib_async reuses tickers."""
        conid = line.contract.conId
        del self._lines[conid]
        del self._by_request[line.request_id]
        self._ticked.forget(conid)
        retire_ticker(self._ib, line.ticker, line.contract)
        # Ticks of a cancelled request may still be under way, and ib_async logs unknown ids.
        self._retired[id(line.ticker)] = _Retired(line.ticker, line.request_id, self._monotonic())
        if len(self._retired) > KEPT_RETIRED:
            oldest = self._retired.pop(next(iter(self._retired)))
            forget_request(self._ib, oldest.request_id)


@dataclass(slots=True)
class _Line:
    contract: Contract
    market_data_type: int
    holders: int = 1
    ticker: Ticker = field(default_factory=Ticker)
    request_id: int = -1
    mark_time: datetime | None = None


@dataclass(slots=True)
class _Retired:
    ticker: Ticker
    request_id: int
    cancelled_at: float
