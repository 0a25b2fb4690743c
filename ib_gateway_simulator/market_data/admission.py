"""Which market data requests a gateway refuses, whatever lines and permissions the login has."""

from __future__ import annotations

from collections.abc import Collection

from ib_gateway_simulator.clients.connection import ClientConnection
from ib_gateway_simulator.market_data import generic_ticks
from ib_gateway_simulator.market_data.lines import Lines
from ib_gateway_simulator.protocol import messages
from ib_gateway_simulator.protocol.codes import Code
from ib_gateway_simulator.protocol.contract import Contract
from ib_gateway_simulator.protocol.fields import Fields
from ib_gateway_simulator.protocol.requests import Request


def refusal(
    contracts: Collection[Contract], lines: Lines, client: ClientConnection, request: Request
) -> Fields | None:
    """Return the refusal of a reqMktData, or None where its contract and its ticks are valid."""
    query = request.contract
    req_id = request.req_id
    if lines.get(client, req_id) is not None:
        return messages.error(req_id, Code.DUPLICATE_REQUEST_ID)
    if not query.exchange:
        return _invalid(req_id, "Please enter exchange")
    matching = query.find(contracts)
    if not matching:
        return messages.error(req_id, Code.UNKNOWN_CONTRACT)

    if query.exchange not in matching[0].valid_exchanges:
        text = "Invalid destination exchange specified"
        return messages.error(req_id, Code.UNKNOWN_CONTRACT, text)
    if len(matching) > 1:
        text = "The contract description specified for the request is ambiguous."
        return messages.error(req_id, Code.UNKNOWN_CONTRACT, text)
    if request.snapshot and request.generic_ticks:
        return _invalid(
            req_id, "Snapshot market data subscription is not applicable to generic ticks"
        )
    cause = generic_ticks.refusal(request.generic_ticks, request.text, matching[0].sec_type)
    if cause is None:
        return None

    return _invalid(req_id, cause)


def _invalid(req_id: int, cause: str) -> Fields:
    return messages.error(req_id, Code.INVALID_REQUEST, validator="bQ", cause=cause)
