"""Messages by server version, against what the clients' own decoders read."""

from datetime import UTC
from typing import Any

import ib_async.decoder
import ib_insync.decoder
import pytest

from ib_gateway_simulator.protocol import messages
from ib_gateway_simulator.protocol.codes import Code
from ib_gateway_simulator.protocol.contract import Contract, SecType
from ib_gateway_simulator.protocol.contract_messages import contract_details
from ib_gateway_simulator.protocol.fields import Fields
from ib_gateway_simulator.protocol.versions import CHANGES, as_of_version

OPTION = Contract(
    conid=921000001, symbol="AAPL", sec_type=SecType.OPT, underlying="AAPL", under_conid=920000001,
    expiry="20281215", strike=240.0, right="C", multiplier=100.0,
    local_symbol="AAPL  281215C00240000", trading_class="AAPL",
)  # fmt: skip

DETAILS = contract_details(5, OPTION, "SMART", "STK", "20281215:0930-1600", "20281215")
EXECUTION = messages.execution(
    5, OPTION, account="DUSIM0001", execution_id="0000e1.01", at="20281201 10:00:00 UTC",
    quantity=-2.0, price=3.5, order=77,
)  # fmt: skip
ERROR = messages.error(-1, Code.MARKET_FARM_OK, farm="usopt")

# Name, fields in the newest layout, and how many fields a gateway of each version sends: as its
# clients read them.
TABLE: list[tuple[str, Fields, dict[int, int]]] = [
    ("error", ERROR, {157: 5, 165: 5, 166: 6, 178: 6}),
    ("contractDetails", DETAILS, {157: 39, 162: 39, 163: 40, 164: 40, 178: 40}),
    ("execDetails", EXECUTION, {157: 31, 177: 31, 178: 32}),
]

VERSIONS = range(157, 179)


class Received:
    """A wrapper of a client that keeps what its decoder reads."""

    defaultTimezone = UTC

    def __init__(self) -> None:
        self.calls: dict[str, tuple[Any, ...]] = {}

    def __getattr__(self, name: str):
        return lambda *arguments: self.calls.update({name: arguments})


@pytest.mark.parametrize(("name", "fields", "lengths"), TABLE, ids=lambda value: str(value)[:20])
def test_a_message_has_the_fields_of_the_negotiated_version(name, fields, lengths):
    assert {version: len(as_of_version(fields, version)) for version in lengths} == lengths
    assert CHANGES[fields[0]][0].name == name


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("library", [ib_async, ib_insync], ids=lambda library: library.__name__)
def test_every_version_is_read_whole_by_the_clients(library, version):
    if library is ib_insync and version > 176:
        pytest.skip("ib_insync negotiates 176 at most")
    received = Received()
    decoder = library.decoder.Decoder(received, version)
    for _name, fields, _lengths in TABLE:
        decoder.interpret(list(as_of_version(fields, version)))

    _request_id, code, text = received.calls["error"][:3]
    assert code == 2104
    assert text == "Market data farm connection is OK:usopt"

    details = received.calls["contractDetails"][1]
    assert details.contract.strike == 240.0
    assert details.contract.multiplier == "100"
    assert details.underSymbol == "AAPL"
    assert details.realExpirationDate == "20281215"
    assert details.timeZoneId == OPTION.time_zone

    contract, execution = received.calls["execDetails"][1:]
    assert contract.conId == OPTION.conid
    assert execution.side == "SLD"
    assert execution.shares == 2.0
    assert execution.avgPrice == 3.5
    assert execution.lastLiquidity == 1
    assert execution.permId == 77
