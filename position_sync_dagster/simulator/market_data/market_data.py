"""The market data desk: answers requests for ticks and sends them."""

from __future__ import annotations

import time
from collections.abc import Callable

from position_sync_dagster.simulator.books.book import Book
from position_sync_dagster.simulator.clients.connection import ClientConnection
from position_sync_dagster.simulator.errors import ActionError
from position_sync_dagster.simulator.market.market import Market
from position_sync_dagster.simulator.market_data import ticks
from position_sync_dagster.simulator.market_data.lines import Line, Lines
from position_sync_dagster.simulator.market_data.tick_log import TickLog
from position_sync_dagster.simulator.protocol import messages
from position_sync_dagster.simulator.protocol.contract import Contract
from position_sync_dagster.simulator.protocol.requests import Request

UNKNOWN_CONTRACT = "No security definition has been found for the request"
NOT_SUBSCRIBED = "Requested market data is not subscribed."
TERMINAL = {
    354: NOT_SUBSCRIBED + "Delayed market data is available.Error&BEST/STK/Top&BEST/STK/Top",
    10089: (
        "Requested market data requires additional subscription for API. "
        "See link in 'Market Data Connections' dialog for more details."
    ),
    10168: NOT_SUBSCRIBED + " Delayed market data is not enabled.",
    10197: "No market data during competing live session",
}
"""Codes after which an id is dead; texts as seen in public reports."""

ADVISORY = {
    10090: (
        "Part of requested market data is not subscribed. "
        "Subscription-independent ticks are still active."
    ),
    10091: (
        "Part of requested market data requires additional subscription for API. "
        "See link in 'Market Data Connections' dialog for more details."
    ),
}
"""Codes after which the permitted ticks keep coming (typically: no greeks)."""

DELAYED_ONLY = 10167
DELAYED_TEXT = NOT_SUBSCRIBED + " Displaying delayed market data."
DELAYED_TYPES = (3, 4)
BBO_EXCHANGE = "9c0001"


class MarketDataService:
    """Grant lines, refuse what a gateway refuses, and send what changes at each step."""

    def __init__(
        self,
        *,
        book: Book,
        market: Market,
        lines: Lines,
        log: TickLog,
        now: Callable[[], float],
        later: Callable[[float, Callable[[], None]], None],
        snapshot_s: float,
    ) -> None:
        self._book = book
        self._market = market
        self._now = now
        self._later = later
        self._snapshot_s = snapshot_s
        self.lines = lines
        self.log = log
        self.permissions: dict[int, int] = dict(book.permissions)
        self.broken_farms: set[str] = set()
        self.silent = False
        """Send nothing at all: connectivity lost, frozen market or paused gateway."""
        self.frozen = False

    def request(self, client: ClientConnection, request: Request) -> None:
        """Answer one reqMktData."""
        req_id = request.req_id
        problem = self._refusal(client, request)
        if problem is not None:
            client.send(messages.error(req_id, *problem))
            return
        contract = request.contract.find(self._book.contracts.values())[0]
        code = self.permissions.get(contract.conid)
        wants_delayed = client.market_data_type in DELAYED_TYPES
        barred = code in TERMINAL or code == DELAYED_ONLY
        if barred and not wants_delayed:
            shown = 354 if code == DELAYED_ONLY or code is None else code
            client.send(messages.error(req_id, shown, TERMINAL[shown]))
            return
        if self.lines.full:
            text = "Max number of tickers has been reached."
            client.send(messages.error(req_id, 101, text))
            return
        line = Line(
            client=client,
            req_id=req_id,
            contract=contract,
            mark=ticks.MARK_PRICE_TICK in request.generic_ticks,
            delayed=barred,
            greeks=code not in ADVISORY,
            snapshot=request.snapshot,
        )
        self.lines.take(line)
        if not self.silent:
            self._open(line)
        if line.snapshot:
            self._later(self._snapshot_s, lambda: self._end_snapshot(line))

    def _refusal(self, client: ClientConnection, request: Request) -> tuple[int, str] | None:
        query, req_id = request.contract, request.req_id
        if self.lines.get(client, req_id) is not None:
            return 102, "Duplicate ticker ID."
        if not query.exchange:
            return 321, "Error validating request.-'bQ' : cause - Please enter exchange"
        found = query.find(self._book.contracts.values())
        if not found:
            return 200, UNKNOWN_CONTRACT
        if query.exchange not in found[0].valid_exchanges:
            return 200, "Invalid destination exchange specified"
        if len(found) > 1:
            return 200, "The contract description specified for the request is ambiguous."
        if request.snapshot and request.generic_ticks:
            return 321, (
                "Error validating request.-'bQ' : cause - Snapshot market data subscription "
                "is not applicable to generic ticks"
            )
        illegal = ticks.illegal_list(request.generic_ticks, request.text, found[0].sec_type)
        return None if illegal is None else (321, illegal)

    def _open(self, line: Line) -> None:
        client, req_id, contract = line.client, line.req_id, line.contract
        code = self.permissions.get(contract.conid)
        # 58 before 81 live, and after it where data is delayed: both were recorded by ibkr-go.
        if line.delayed:
            data_type = 3
        else:
            data_type = 2 if self.frozen and client.market_data_type in (2, 4) else 1
        head = [
            messages.market_data_type(req_id, data_type),
            messages.tick_request_params(req_id, contract.min_tick, BBO_EXCHANGE, 3),
        ]
        for fields in reversed(head) if line.delayed else head:
            client.send(fields)
        if line.delayed:
            client.send(messages.error(req_id, DELAYED_ONLY, DELAYED_TEXT))
        elif code in ADVISORY:
            client.send(messages.error(req_id, code, ADVISORY[code]))
        if contract.farm not in self.broken_farms:
            self._send_changes(line)

    def _send_changes(self, line: Line) -> None:
        quote = self._market.quote(line.contract.conid)
        if quote is line.last:
            return
        now = time.time_ns() // 1000
        for fields in ticks.changed(
            line.req_id,
            line.contract.sec_type,
            line.last,
            quote,
            epoch_s=int(self._now()),
            mark=line.mark,
            delayed=line.delayed,
            greeks=line.greeks,
            halted=line.contract.conid in self._book.halted,
        ):
            line.client.send(fields)
            self.log.record(line.contract.conid, fields, now)
        line.last = quote

    def step(self) -> None:
        """Send to every line what changed since its last tick."""
        if self.silent or self.frozen:
            return
        for line in self.lines:
            if line.snapshot or line.contract.farm in self.broken_farms:
                continue
            if line.contract.conid in self._book.halted and line.last is not None:
                continue
            self._send_changes(line)

    def cancel(self, client: ClientConnection, req_id: int) -> None:
        """Answer one cancelMktData: silently, or with 300 where nothing streams."""
        if self.lines.free(client, req_id) is None:
            text = f"Can't find EId with tickerId:{req_id}"
            client.send(messages.error(req_id, 300, text))

    def _end_snapshot(self, line: Line) -> None:
        if self.lines.get(line.client, line.req_id) is line:
            self.lines.free(line.client, line.req_id)
            line.client.send(messages.snapshot_end(line.req_id))
            line.client.flush()

    def permit(self, conid: int | None, code: int | None) -> None:
        """Set the permission code of one contract, or of all; None permits again.

        A terminal code ends the running live lines of the contract with one error each.
        """
        known = {None, DELAYED_ONLY, *TERMINAL, *ADVISORY}
        if code not in known:
            codes = ", ".join(str(item) for item in sorted(item for item in known if item))
            raise ActionError("code", f"{code} is not a permission code; use one of {codes}")
        if conid is not None and conid not in self._book.contracts:
            raise ActionError("conid", f"no contract of the book has conid {conid}")
        for each in self._book.contracts if conid is None else (conid,):
            if code is None:
                self.permissions.pop(each, None)
            else:
                self.permissions[each] = code
        if code not in TERMINAL:
            return
        for line in self.lines:
            if conid in (None, line.contract.conid) and not line.delayed:
                self.lines.free(line.client, line.req_id)
                line.client.send(messages.error(line.req_id, code, TERMINAL[code]))

    def farms(self) -> list[str]:
        """List the data farms that the book's contracts tick from."""
        return sorted({contract.farm for contract in self._book.contracts.values()})

    def contract(self, conid: int) -> Contract | None:
        return self._book.contracts.get(conid)

    def resume(self) -> None:
        """Tick again; lines that were granted in silence open now."""
        self.silent = False
        for line in self.lines:
            if line.last is None:
                self._open(line)
