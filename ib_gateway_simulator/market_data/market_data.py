"""Answers to requests for market data, and the ticks that follow them."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

from ib_gateway_simulator.books.book import Book
from ib_gateway_simulator.clients.connection import ClientConnection
from ib_gateway_simulator.errors import ActionError
from ib_gateway_simulator.market.market import Market
from ib_gateway_simulator.market.sessions import Sessions
from ib_gateway_simulator.market.underlying import NEW_YORK
from ib_gateway_simulator.market_data import generic_ticks, ticks
from ib_gateway_simulator.market_data.admission import refusal
from ib_gateway_simulator.market_data.lines import Line, Lines
from ib_gateway_simulator.market_data.permissions import Permissions
from ib_gateway_simulator.market_data.tick_log import TickLog
from ib_gateway_simulator.protocol import messages
from ib_gateway_simulator.protocol.codes import (
    LINE_ENDING_CODES,
    PERMISSION_CODES,
    Code,
)
from ib_gateway_simulator.protocol.contract import Contract, SecType
from ib_gateway_simulator.protocol.fields import Fields
from ib_gateway_simulator.protocol.requests import Request

# The market data types of IB.
LIVE = 1
FROZEN = 2
DELAYED = 3
DELAYED_FROZEN = 4

BBO_EXCHANGE = "9c0001"


class MarketDataService:
    """Grants lines, refuses what a gateway refuses, and sends the ticks of each step.

    Args:
        call_later: Runs an action after some seconds, but not during a pause.
        snapshot_s: How long a snapshot takes.
    """

    def __init__(
        self,
        *,
        book: Book,
        market: Market,
        sessions: Sessions,
        lines: Lines,
        log: TickLog,
        now: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], None],
        snapshot_s: float,
    ) -> None:
        self._book = book
        self._market = market
        self._sessions = sessions
        self._now = now
        self._call_later = call_later
        self._snapshot_s = snapshot_s
        self._permissions = Permissions(book.permissions)
        self.lines = lines
        self.log = log

        # Farms whose contracts do not tick, with the code that says so.
        self.broken_farms: dict[str, Code] = {}
        # Send nothing at all, as without a connection to IB.
        self.silent = False
        self._frozen_at: float | None = None
        self._only: dict[int, tuple[ticks.Kind, ...]] = {}
        # Contracts whose lines are answered with a code of any meaning, and whether they tick.
        self.odd_codes: dict[int, tuple[int, bool]] = {}
        # Whether lines of delayed data open without the messages that say so.
        self.delayed_unsaid = False
        # Whether lines stay silent once their farm or the connection to IB is back.
        self.dead_after_restore = False

    # -- requests -----------------------------------------------------------------------------

    def request(self, client: ClientConnection, request: Request) -> None:
        """Answer one reqMktData."""
        req_id = request.req_id
        refused = refusal(self._book.contracts.values(), self.lines, client, request)
        if refused is not None:
            client.send(refused)
            return
        contract = request.contract.find(self._book.contracts.values())[0]
        code, ticking = self.odd_codes.get(contract.conid, (None, True))
        if code is not None:
            client.send(messages.error(req_id, code, f"Simulated error {code}"))
        if not ticking:
            return

        barred = self._permissions.live_refusal(contract.conid)
        if barred is not None and client.market_data_type not in (DELAYED, DELAYED_FROZEN):
            client.send(messages.error(req_id, barred))
            return
        if self.lines.full:
            client.send(messages.error(req_id, Code.LINE_LIMIT_REACHED))
            return

        line = Line(
            client=client,
            req_id=req_id,
            contract=contract,
            mark=generic_ticks.MARK_PRICE in request.generic_ticks,
            dividends=generic_ticks.DIVIDENDS in request.generic_ticks,
            delayed=barred is not None,
            greeks=self._permissions.advisory(contract.conid) is None,
            snapshot=request.snapshot,
        )
        self.lines.add(line)
        if not self.silent:
            self._open(line)
        if line.snapshot:
            self._call_later(self._snapshot_s, lambda: self._end_snapshot(line))

    def cancel(self, client: ClientConnection, req_id: int) -> None:
        """Answer one cancelMktData: with nothing, or with 300 where nothing streams."""
        if self.lines.remove(client, req_id) is None:
            client.send(messages.error(req_id, Code.UNKNOWN_REQUEST_ID))

    def _end_snapshot(self, line: Line) -> None:
        if self.lines.get(line.client, line.req_id) is line:
            self.lines.remove(line.client, line.req_id)
            line.client.send(messages.snapshot_end(line.req_id))
            line.client.flush()

    # -- ticks --------------------------------------------------------------------------------

    def _open(self, line: Line) -> None:
        client = line.client
        req_id = line.req_id
        contract = line.contract
        if line.delayed:
            data_type = DELAYED
        else:
            frozen = self.frozen and client.market_data_type in (FROZEN, DELAYED_FROZEN)
            data_type = FROZEN if frozen else LIVE
        head = [
            messages.market_data_type(req_id, data_type),
            messages.tick_request_params(req_id, contract.min_tick, BBO_EXCHANGE, 3),
        ]
        # For live data 58 comes before 81, for delayed data after it: ibkr-go recorded both.
        for fields in reversed(head) if line.delayed else head:
            if not (line.delayed and self.delayed_unsaid and fields is head[0]):
                client.send(fields)

        advisory = self._permissions.advisory(contract.conid)
        if line.delayed and not self.delayed_unsaid:
            client.send(messages.error(req_id, Code.DELAYED_DATA_SHOWN))
        elif advisory is not None:
            client.send(messages.error(req_id, advisory))
        if line.dividends and contract.sec_type is SecType.STK:
            client.send(self._dividends(line))
        if contract.farm not in self.broken_farms:
            self._send_line(line)

    def _dividends(self, line: Line) -> Fields:
        symbol = line.contract.underlying
        market = self._market
        now = datetime.fromtimestamp(self._now(), NEW_YORK)
        return ticks.dividends(line.req_id, market.spot(symbol), market.dividends(symbol, 1.0), now)

    def send_dividends(self) -> None:
        """Send the dividends to each line that requested them, as after an announcement."""
        for line in self.lines:
            if line.dividends and line.contract.sec_type is SecType.STK and not self.silent:
                line.client.send(self._dividends(line))

    def send_changes(self) -> None:
        """Send the changes since the last tick of every line."""
        if self.silent or self.frozen:
            return
        now = self._now()
        for line in self.lines:
            if line.silent or line.snapshot or line.contract.farm in self.broken_farms:
                continue
            if line.contract.conid in self._book.halted and line.last is not None:
                continue
            if not self._sessions.is_open(line.contract, now):
                continue
            self._send_line(line)

    def _send_line(self, line: Line) -> None:
        only = self._only.get(line.contract.conid)
        before = line.last_restricted or line.last
        if only is None:
            before = line.last

        quote = self._market.quote(line.contract.conid)
        if quote is before:
            return

        now_us = time.time_ns() // 1000
        for fields in ticks.changed(
            line.req_id,
            line.contract.sec_type,
            before,
            quote,
            epoch_s=int(self._now() if self._frozen_at is None else self._frozen_at),
            mark=line.mark,
            delayed=line.delayed,
            greeks=line.greeks,
            halted=line.contract.conid in self._book.halted,
            sizes=only is not None,
        ):
            if only is not None and not ticks.is_of(only, fields):
                continue
            line.client.send(fields)
            self.log.record(line.contract.conid, fields, now_us)
        if only is None:
            line.last = quote
        else:
            line.last_restricted = quote

    def restrict(self, conid: int, only: tuple[ticks.Kind, ...] | None) -> None:
        """Send only some kinds of tick on the lines of a contract; None sends all again."""
        if only is None:
            self._only.pop(conid, None)
        else:
            self._only[conid] = only
        for line in self.lines:
            if line.contract.conid == conid:
                line.last_restricted = None

    @property
    def frozen(self) -> bool:
        """Whether running lines do not tick, as in a closed market."""
        return self._frozen_at is not None

    def freeze(self, frozen: bool) -> None:
        """Send no ticks on running lines from now on, or send them again.

        Lines that open meanwhile say that the last trade was before.
        """
        if not frozen:
            self._frozen_at = None
        elif self._frozen_at is None:
            self._frozen_at = self._now()

    def end_silence(self) -> None:
        """Send ticks again; lines that were granted during the silence open now.

        If lines are set to be dead after a restore, all of them stay silent.
        """
        self.silent = False
        if self.dead_after_restore:
            self.lines.set_silent(True, lambda contract: True)
        for line in self.lines:
            if line.last is None and line.last_restricted is None and not line.silent:
                self._open(line)

    def farm_restored(self, farm: str) -> None:
        """Resume the lines of a farm, unless they are dead after a restore."""
        self.broken_farms.pop(farm, None)
        if self.dead_after_restore:
            self.lines.set_silent(True, lambda contract: contract.farm == farm)

    # -- contracts and permissions ------------------------------------------------------------

    def set_permission(self, conid: int | None, code: int | None) -> None:
        """Set the permission code of one contract, or of all; None permits again.

        A code of LINE_ENDING_CODES ends the running live lines of the contract, with one error
        each.

        Raises:
            ActionError: The code is not a permission code, or the conid is unknown.
        """
        if code is not None and code not in PERMISSION_CODES:
            codes = ", ".join(map(str, PERMISSION_CODES))
            raise ActionError("code", f"{code} is not a permission code; use one of {codes}")
        if conid is not None and conid not in self._book.contracts:
            raise ActionError("conid", f"no contract of the book has conid {conid}")
        known_code = None if code is None else Code(code)
        for number in self._book.contracts if conid is None else (conid,):
            self._permissions.set(number, known_code)
        if known_code not in LINE_ENDING_CODES:
            return
        for line in self.lines:
            if conid in (None, line.contract.conid) and not line.delayed:
                self.lines.remove(line.client, line.req_id)
                line.client.send(messages.error(line.req_id, known_code))

    def farms(self) -> list[str]:
        """Return the data farms of the book's contracts."""
        return sorted({contract.farm for contract in self._book.contracts.values()})

    def contract(self, conid: int) -> Contract | None:
        """Return a contract of the book, or None."""
        return self._book.contracts.get(conid)
