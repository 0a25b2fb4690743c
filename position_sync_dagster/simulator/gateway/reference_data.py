"""The reference desk: contract details, option chains, and polite answers to the rest."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from position_sync_dagster.simulator.books.book import Book
from position_sync_dagster.simulator.clients.connection import ClientConnection
from position_sync_dagster.simulator.market_data.market_data import UNKNOWN_CONTRACT
from position_sync_dagster.simulator.protocol import messages
from position_sync_dagster.simulator.protocol.contract import Contract
from position_sync_dagster.simulator.protocol.contract_details import contract_details
from position_sync_dagster.simulator.protocol.requests import Request

_NO_HISTORY = "Historical Market Data Service error message:No historical market data"
REFUSALS = {
    "reqHistoricalData": (162, _NO_HISTORY),
    "reqHistoricalTicks": (162, _NO_HISTORY),
    "reqHeadTimeStamp": (162, _NO_HISTORY),
    "reqHistogramData": (162, _NO_HISTORY),
    "reqScannerSubscription": (162, "Historical Market Data Service error message:No scanner"),
    "reqMktDepth": (10092, "Deep market data is not supported for this combination"),
    "reqTickByTickData": (10189, "Failed to request tick-by-tick data."),
    "reqRealTimeBars": (
        10089,
        "Requested market data requires additional subscription for API. "
        "See link in 'Market Data Connections' dialog for more details.",
    ),
    "reqFundamentalData": (430, "The fundamentals data for the security specified is missing."),
    "reqHistoricalNews": (321, "Error validating request.-'cE' : cause - no news"),
    "reqNewsArticle": (10172, "Failed to request news article: no data available"),
    "reqWshMetaData": (10276, "News feed is not allowed."),
    "reqWshEventData": (10276, "News feed is not allowed."),
    "calculateImpliedVolatility": (321, "Error validating request.-'bQ' : cause - not available"),
    "calculateOptionPrice": (321, "Error validating request.-'bQ' : cause - not available"),
}
"""What a login without the service answers, so that no request hangs."""


class ReferenceDataService:
    """Answer questions about contracts, and about services that a simulator does not have."""

    def __init__(self, *, book: Book, now: Callable[[], float]) -> None:
        self._book = book
        self._now = now

    def details(self, client: ClientConnection, request: Request) -> None:
        """Answer reqContractDetails: rows and an end, or 200 and no end.

        Recorded by ibkr-go (contract_details_not_found).
        """
        query = request.contract
        found = [
            contract
            for contract in query.find(self._book.contracts.values())
            if query.exchange in ("", *contract.valid_exchanges)
        ]
        if not found:
            client.send(messages.error(request.req_id, 200, UNKNOWN_CONTRACT))
            return
        today = datetime.fromtimestamp(self._now(), UTC).date()
        for contract in found:
            exchange = query.exchange or contract.valid_exchanges[0]
            under = self._underlying_type(contract)
            client.send(contract_details(request.req_id, contract, exchange, under, today))
        client.send(messages.contract_details_end(request.req_id))

    def _underlying_type(self, contract: Contract) -> str:
        under = self._book.contracts.get(contract.under_conid)
        return under.sec_type.value if under else ""

    def option_chain(self, client: ClientConnection, request: Request) -> None:
        """Answer reqSecDefOptParams with one row per exchange and trading class."""
        chains: dict[tuple[str, str, str], list[Contract]] = {}
        for contract in self._book.contracts.values():
            if contract.is_option and contract.under_conid == request.contract.conid:
                for exchange in contract.valid_exchanges:
                    key = (exchange, contract.trading_class, contract.multiplier_text)
                    chains.setdefault(key, []).append(contract)
        for (exchange, trading_class, multiplier), contracts in chains.items():
            expiries = sorted({contract.expiry for contract in contracts})
            strikes = [f"{strike:g}" for strike in sorted({c.strike for c in contracts})]
            client.send(
                (
                    "75",
                    str(request.req_id),
                    exchange,
                    str(request.contract.conid),
                    trading_class,
                    multiplier,
                    str(len(expiries)),
                    *expiries,
                    str(len(strikes)),
                    *strikes,
                )
            )
        client.send(("76", str(request.req_id)))

    def matching_symbols(self, client: ClientConnection, request: Request) -> None:
        """Answer reqMatchingSymbols with the underlyings whose symbol starts so."""
        pattern = request.text.upper()
        found = [u for u in self._book.underlyings.values() if u.symbol.startswith(pattern)]
        rows: list[str] = []
        for under in found:
            rows += [str(under.conid), under.symbol, under.sec_type, under.exchange]
            rows += [under.currency, "1", "OPT", under.name, ""]
        client.send(("79", str(request.req_id), str(len(found)), *rows))

    def refuse(self, client: ClientConnection, request: Request) -> None:
        """Refuse a service that this login does not have."""
        client.send(messages.error(request.req_id, *REFUSALS[request.name]))
