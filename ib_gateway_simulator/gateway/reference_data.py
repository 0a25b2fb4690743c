"""Answers about contracts: details, option chains and matching symbols."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, tzinfo
from zoneinfo import ZoneInfo

from ib_gateway_simulator.books.book import Book
from ib_gateway_simulator.clients.connection import ClientConnection
from ib_gateway_simulator.market.sessions import Sessions
from ib_gateway_simulator.protocol import contract_messages, messages
from ib_gateway_simulator.protocol.codes import Code
from ib_gateway_simulator.protocol.contract import DATED, Contract
from ib_gateway_simulator.protocol.requests import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class LastTradeSpelling:
    """How a last trade is written: in which zone, and its name; None: with a hyphen instead."""

    zone: tzinfo
    name: str | None

    def of(self, at: datetime) -> str:
        """Return a last trade as text."""
        local = at.astimezone(self.zone)
        if self.name is None:
            return f"{local:%Y%m%d-%H:%M:%S}"
        return f"{local:%Y%m%d %H:%M:%S} {self.name}"


class ReferenceDataService:
    """Answers questions about the contracts of a book.

    Attributes:
        unanswered: The conids whose details are never sent.
        refused: The code that answers every request for details; None: they are sent.
        spelling: How last trades are written; None: in the zone of the instrument.
    """

    def __init__(self, *, book: Book, sessions: Sessions, now: Callable[[], float]) -> None:
        self.unanswered: set[int] = set()
        self.refused: int | None = None
        self.spelling: LastTradeSpelling | None = None
        self._book = book
        self._sessions = sessions
        self._now = now

    def details(self, client: ClientConnection, request: Request) -> None:
        """Answer reqContractDetails: rows and an end, or error 200 without an end.

        Recorded by ibkr-go (contract_details_not_found). A request without an exchange gets one
        row for each algo venue that lists the contract (`validExchanges` of futures is recorded
        as `CME,QBALGO`), and one for its exchange. The algo venues come first, since no capture
        shows an order and a client must not take the first row for the right one.
        """
        query = request.contract
        if self.refused is not None:
            client.send(messages.error(request.req_id, self.refused))
            return
        contracts = [
            contract
            for contract in query.find(self._book.contracts.values())
            if query.exchange in ("", *contract.valid_exchanges, *contract.algo_venues)
        ]
        if self.unanswered.intersection(contract.conid for contract in contracts):
            return
        if not contracts:
            client.send(messages.error(request.req_id, Code.UNKNOWN_CONTRACT))
            return

        for contract in contracts:
            under = self._underlying_type(contract)
            hours = self._sessions.listing(contract, self._now())
            exchanges = (*contract.algo_venues, contract.valid_exchanges[0])
            if query.exchange:
                exchanges = (query.exchange,)

            for exchange in exchanges:
                row = (request.req_id, contract, exchange, under, hours, self._last_trade(contract))
                client.send(contract_messages.contract_details(*row))
        client.send(contract_messages.contract_details_end(request.req_id))

    def _last_trade(self, contract: Contract) -> str:
        if contract.sec_type not in DATED:
            return ""
        if contract.is_named_by_month:
            return contract.expiry_text
        written = f"{contract.expiry} {contract.last_trade}"
        if self.spelling is None:
            return f"{written} {contract.time_zone}"
        at = datetime.strptime(written, "%Y%m%d %H:%M:%S")  # noqa: DTZ007 - the zone follows
        return self.spelling.of(at.replace(tzinfo=ZoneInfo(contract.time_zone)))

    def _underlying_type(self, contract: Contract) -> str:
        under = self._book.contracts.get(contract.under_conid)
        if under:
            return under.sec_type.value

        return ""

    def option_chain(self, client: ClientConnection, request: Request) -> None:
        """Answer reqSecDefOptParams with one row per exchange and trading class."""
        under_conid = request.contract.conid
        chains: dict[tuple[str, str, str], list[Contract]] = {}
        for contract in self._book.contracts.values():
            if contract.is_option and contract.under_conid == under_conid:
                for exchange in contract.valid_exchanges:
                    key = (exchange, contract.trading_class, contract.multiplier_text)
                    chains.setdefault(key, []).append(contract)
        for (exchange, trading_class, multiplier), contracts in chains.items():
            expiries = {contract.expiry for contract in contracts}
            strikes = {contract.strike for contract in contracts}
            row = contract_messages.option_chain(
                request.req_id,
                exchange=exchange,
                under_conid=under_conid,
                trading_class=trading_class,
                multiplier=multiplier,
                expiries=sorted(expiries),
                strikes=[f"{strike:g}" for strike in sorted(strikes)],
            )
            client.send(row)
        client.send(contract_messages.option_chain_end(request.req_id))

    def matching_symbols(self, client: ClientConnection, request: Request) -> None:
        """Answer reqMatchingSymbols with the underlyings whose symbol starts with the pattern."""
        pattern = request.text.upper()
        samples = []
        for under in self._book.underlyings.values():
            if under.symbol.startswith(pattern):
                of_symbol = (str(under.conid), under.symbol, under.sec_type.value)
                of_venue = (under.exchange, under.currency)
                samples.append((*of_symbol, *of_venue, "1", "OPT", under.name, ""))
        client.send(contract_messages.symbol_samples(request.req_id, samples))
