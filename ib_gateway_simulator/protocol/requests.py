"""Requests of a client, decoded from their fields.

The layouts are those that ib_async 2.1 and ibapi 10 send.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ib_gateway_simulator.errors import MalformedRequestError
from ib_gateway_simulator.protocol.contract import ContractQuery
from ib_gateway_simulator.protocol.request_ids import NAMES, ORDER_REQUESTS

# A greater strike means "no strike": newer ibapi versions send the largest double for it.
UNSET_STRIKE = 1e300


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request; only the fields that the simulator uses are decoded.

    `fields` has all fields of an order message and is empty otherwise.
    """

    name: str
    fields: tuple[str, ...] = ()
    req_id: int = -1
    client_id: int = -1
    account: str = ""
    model: str = ""
    conid: int = 0
    number: int = 0
    subscribe: bool = False
    snapshot: bool = False
    text: str = ""
    generic_ticks: tuple[str, ...] = ()
    contract: ContractQuery = field(default_factory=ContractQuery)


class _Reader:
    """Reads the fields of one request in turn; its errors name the field that does not parse."""

    def __init__(self, fields: list[str], skip: int) -> None:
        self._fields = fields
        self._at = skip
        self.req_id = -1

    def text(self, label: str) -> str:
        if self._at >= len(self._fields):
            raise MalformedRequestError(self.req_id, label, "")
        value = self._fields[self._at]
        self._at += 1
        return value

    def integer(self, label: str) -> int:
        value = self.text(label)
        try:
            return int(value or 0)
        except ValueError:
            raise MalformedRequestError(self.req_id, label, value) from None

    def decimal(self, label: str) -> float:
        value = self.text(label)
        try:
            return float(value or 0)
        except ValueError:
            raise MalformedRequestError(self.req_id, label, value) from None

    def flag(self, label: str) -> bool:
        value = self.text(label)
        if value in ("1", "true", "True"):
            return True
        if value in ("", "0", "false", "False"):
            return False
        raise MalformedRequestError(self.req_id, label, value)

    def request_id(self) -> int:
        self.req_id = self.integer("Request Id")
        return self.req_id

    def contract(self) -> ContractQuery:
        # The arguments are read from left to right, in the order of the fields.
        query = ContractQuery(
            conid=self.integer("Con Id"),
            symbol=self.text("Symbol"),
            sec_type=self.text("Security Type"),
            expiry=self.text("Last trade date"),
            strike=self.decimal("Strike"),
            right=self.text("Right"),
            multiplier=self.text("Multiplier"),
            exchange=self.text("Exchange"),
            primary_exchange=self.text("Primary exchange"),
            currency=self.text("Currency"),
            local_symbol=self.text("Local symbol"),
            trading_class=self.text("Trading class"),
        )
        if query.strike > UNSET_STRIKE:
            return replace(query, strike=0.0)

        return query


def _market_data(name: str, fields: list[str]) -> Request:
    read = _Reader(fields, 2)
    req_id = read.request_id()
    contract = read.contract()
    if contract.sec_type == "BAG":
        for _ in range(read.integer("Combo legs count") * 4):
            read.text("Combo leg")
    if read.flag("Delta neutral"):
        for _ in range(3):
            read.text("Delta neutral contract")
    ticks = read.text("Generic tick list")
    return Request(
        name=name,
        req_id=req_id,
        contract=contract,
        generic_ticks=tuple(filter(None, map(str.strip, ticks.split(",")))),
        text=ticks,
        snapshot=read.flag("Snapshot"),
        subscribe=read.flag("Regulatory snapshot"),
    )


def _contract_details(name: str, fields: list[str]) -> Request:
    read = _Reader(fields, 2)
    return Request(name=name, req_id=read.request_id(), contract=read.contract())


def _account_updates(name: str, fields: list[str]) -> Request:
    read = _Reader(fields, 2)
    return Request(name=name, subscribe=read.flag("Subscribe"), account=read.text("Account code"))


def _pnl(name: str, fields: list[str]) -> Request:
    read = _Reader(fields, 1)
    req_id = read.request_id()
    account = read.text("Account")
    model = read.text("Model code")
    conid = 0
    if name == "reqPnLSingle":
        conid = read.integer("Con Id")

    return Request(name=name, req_id=req_id, account=account, model=model, conid=conid)


def _start_api(name: str, fields: list[str]) -> Request:
    return Request(name=name, client_id=_Reader(fields, 2).integer("Client Id"))


def _account_by_id(name: str, fields: list[str]) -> Request:
    read = _Reader(fields, 2)
    return Request(name=name, req_id=read.request_id(), account=read.text("Account"))


def _number(name: str, fields: list[str]) -> Request:
    skip = 2
    if name == "reqMarketRule":
        skip = 1

    return Request(name=name, number=_Reader(fields, skip).integer("Number"))


def _option_chain(name: str, fields: list[str]) -> Request:
    read = _Reader(fields, 1)
    req_id = read.request_id()
    symbol = read.text("Symbol")
    exchange = read.text("Exchange")
    sec_type = read.text("Security Type")
    contract = ContractQuery(
        symbol=symbol, exchange=exchange, sec_type=sec_type, conid=read.integer("Con Id")
    )
    return Request(name=name, req_id=req_id, contract=contract)


def _by_id(skip: int) -> Callable[[str, list[str]], Request]:
    def decode(name: str, fields: list[str]) -> Request:
        read = _Reader(fields, skip)
        req_id = read.request_id()
        text = ""
        if len(fields) > skip + 1:
            text = fields[skip + 1]

        return Request(name=name, req_id=req_id, text=text)

    return decode


# Requests with their id after a version number, and those without a version number.
_WITH_VERSION = (
    "cancelMktData", "reqExecutions", "reqAccountSummary", "cancelAccountSummary",
    "cancelPositionsMulti", "cancelAccountUpdatesMulti", "reqMktDepth", "reqRealTimeBars",
    "reqFundamentalData", "calculateImpliedVolatility", "calculateOptionPrice",
)  # fmt: skip
_WITHOUT_VERSION = (
    "cancelPnL", "cancelPnLSingle", "reqHistoricalData", "reqScannerSubscription",
    "reqSoftDollarTiers", "reqMatchingSymbols", "reqSmartComponents", "reqHeadTimeStamp",
    "reqHistogramData", "reqHistoricalTicks", "reqTickByTickData", "reqHistoricalNews",
    "reqNewsArticle", "reqUserInfo", "reqWshMetaData", "reqWshEventData",
)  # fmt: skip

_DECODERS: dict[str, Callable[[str, list[str]], Request]] = {
    "reqMktData": _market_data,
    "reqContractDetails": _contract_details,
    "reqAccountUpdates": _account_updates,
    "reqPnL": _pnl,
    "reqPnLSingle": _pnl,
    "startApi": _start_api,
    "reqAccountUpdatesMulti": _account_by_id,
    "reqPositionsMulti": _account_by_id,
    "reqMarketDataType": _number,
    "reqMarketRule": _number,
    "reqSecDefOptParams": _option_chain,
    **dict.fromkeys(_WITHOUT_VERSION, _by_id(skip=1)),
    **dict.fromkeys(_WITH_VERSION, _by_id(skip=2)),
}


def decode(fields: list[str]) -> Request:
    """Return the request in these fields.

    Raises:
        MalformedRequestError: The message id is unknown, or a field does not parse.
    """
    read = _Reader(fields, 0)
    type_id = read.integer("Message Id")
    name = NAMES.get(type_id)
    if name is None:
        raise MalformedRequestError(-1, "Message Id", str(type_id))
    if name in ORDER_REQUESTS:
        return _order(name, fields)
    decoder = _DECODERS.get(name)
    if decoder is None:
        return Request(name=name)

    return decoder(name, fields)


def _order(name: str, fields: list[str]) -> Request:
    """Return an order message, even one with wrong fields: each one must be recorded."""
    at = 2
    if name == "placeOrder":
        at = 1

    text = ""
    if len(fields) > at:
        text = fields[at]

    has_version = name != "reqGlobalCancel" and text.isdecimal()
    return Request(name=name, fields=tuple(fields), req_id=int(text) if has_version else -1)
