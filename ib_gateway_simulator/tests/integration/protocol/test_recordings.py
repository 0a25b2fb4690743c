"""Every encoder compared with recorded messages and with the decoders of real clients."""

import inspect
import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import ib_async.decoder
import ibapi.decoder
import pytest

from ib_gateway_simulator.market.sessions import listing
from ib_gateway_simulator.protocol import account_messages, contract_messages, messages, wire
from ib_gateway_simulator.protocol.codes import Code
from ib_gateway_simulator.protocol.contract import Contract, SecType
from ib_gateway_simulator.protocol.contract_messages import contract_details
from ib_gateway_simulator.protocol.message_ids import NAMES

RECORDED = [
    json.loads(line) for line in (Path(__file__).parent / "recorded.jsonl").read_text().splitlines()
]


Again = Callable[[list[str]], tuple[str, ...]]


def layout_178(record: dict[str, Any]) -> list[str]:
    return record.get("fields_178") or record["fields"]


def of_type(name: str) -> list[list[str]]:
    return [layout_178(record) for record in RECORDED if record["name"] == name]


def held(fields: list[str]) -> Contract:
    """Return a contract from the eleven contract fields of a position or portfolio row."""
    conid, symbol, sec_type, expiry, strike, right, multiplier, *names = fields
    exchange, currency, local_symbol, trading_class = names
    return Contract(
        conid=int(conid), symbol=symbol, sec_type=SecType(sec_type), underlying=symbol,
        expiry=expiry, strike=float(strike), right=right.removeprefix("0"),
        multiplier=float(multiplier or 1), exchange=exchange, currency=currency,
        local_symbol=local_symbol, trading_class=trading_class,
    )  # fmt: skip


AMOUNTS = ("held", "price", "value", "average_cost", "unrealized", "realized")


def again(encoder: Callable[..., tuple[str, ...]], first: int = 2) -> Again:
    """Return how to make a message again from its fields, which begin at `first`."""
    types = []
    for parameter in inspect.signature(encoder, eval_str=True).parameters.values():
        if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD:
            is_number = parameter.annotation in (int, float)
            types.append(parameter.annotation if is_number else str)

    return lambda fields: encoder(
        *(read(text) for read, text in zip(types, fields[first:], strict=False))
    )


def portfolio_again(fields: list[str]) -> tuple[str, ...]:
    amounts = dict(zip(AMOUNTS, map(float, fields[13:19]), strict=True))
    return account_messages.portfolio_value(fields[19], held(fields[2:13]), **amounts)


def position_again(fields: list[str]) -> tuple[str, ...]:
    quantity, cost = map(float, fields[14:])
    return account_messages.position(fields[2], held(fields[3:14]), quantity, cost)


def account_value_again(fields: list[str]) -> tuple[str, ...]:
    return account_messages.account_value(fields[5], *fields[2:5])


def account_update_again(fields: list[str]) -> tuple[str, ...]:
    return account_messages.account_update_multi(int(fields[2]), fields[3], *fields[5:])


# How to make each recorded message again, from the values read out of it.
AGAIN: dict[str, Again] = {
    "tickPrice": again(messages.tick_price),
    "tickSize": again(messages.tick_size),
    "error": again(messages.error),
    "updateAccountValue": account_value_again,
    "updatePortfolio": portfolio_again,
    "updateAccountTime": again(account_messages.account_time),
    "nextValidId": again(messages.next_valid_id),
    "managedAccounts": lambda fields: account_messages.managed_accounts((fields[2],)),
    "tickGeneric": again(messages.tick_generic),
    "tickString": again(messages.tick_string),
    "currentTime": again(messages.current_time),
    "contractDetailsEnd": again(contract_messages.contract_details_end),
    "openOrderEnd": again(messages.open_order_end),
    "accountDownloadEnd": again(account_messages.account_download_end),
    "execDetailsEnd": again(messages.executions_end),
    "tickSnapshotEnd": again(messages.snapshot_end),
    "marketDataType": again(messages.market_data_type),
    "position": position_again,
    "positionEnd": again(account_messages.position_end),
    "accountSummary": again(account_messages.account_summary),
    "accountSummaryEnd": again(account_messages.account_summary_end),
    "positionMultiEnd": again(account_messages.position_multi_end),
    "accountUpdateMulti": account_update_again,
    "accountUpdateMultiEnd": again(account_messages.account_update_multi_end),
    "tickReqParams": again(messages.tick_request_params, first=1),
    "completedOrdersEnd": again(messages.completed_orders_end),
}

NEVER_RECORDED = {
    "pnl", "pnlSingle", "tickOptionComputation", "positionMulti", "mktDepthExchanges",
    "securityDefinitionOptionParameter", "symbolSamples", "smartComponents",
}  # fmt: skip


@pytest.mark.parametrize("name", AGAIN)
def test_an_encoder_writes_what_was_recorded_and_ib_async_decodes_the_same(name):
    recordings = of_type(name)
    assert recordings, f"no recording of {name}"
    for recorded in recordings:
        ours = list(AGAIN[name](recorded))
        if name == "updatePortfolio":
            # Its frame was rebuilt from another format that has no right for a stock.
            ours[7] = recorded[7]
        assert [same(x, y) for x, y in zip(ours, recorded, strict=True)] == recorded
        ours = wire.fields_of(wire.frame(tuple(ours))[4:])
        assert calls_of_ib_async(ours) == calls_of_ib_async(recorded)


def same(ours: str, recorded: str) -> str:
    """Return the recorded spelling when ours is the same number with or without a point."""
    try:
        return recorded if float(ours) == float(recorded) else ours
    except ValueError:
        return ours


PLACEHOLDER = re.compile(r"\\{\w+\\}")
OTHER_FARMS = "The following farms are connected"


def test_the_texts_of_codes_are_the_recorded_ones():
    compared = set()
    for recorded in of_type("error"):
        number = int(recorded[3])
        text = recorded[4]
        if number not in set(Code) or OTHER_FARMS in text:
            continue
        pattern = PLACEHOLDER.sub(".*", re.escape(Code(number).text))
        assert re.match(pattern, text), f"{number}: {text}"
        compared.add(number)
    assert compared == {
        *(100, 101, 200, 320, 354, 1100, 2103, 2104, 2106, 2107, 2119, 2158),
        *(10089, 10090, 10168),
    }


def test_every_message_that_the_simulator_sends_has_a_recording_or_is_listed_here():
    recorded = {record["name"] for record in RECORDED}
    sent = set(NAMES.values())
    assert sent - recorded == NEVER_RECORDED


LAST_TRADE = "20270115 16:00:00 US/Eastern"


@pytest.mark.parametrize("symbol", ["AAPL", "ES"])
def test_contract_details_have_the_recorded_layout(symbol):
    recorded = next(f for f in of_type("contractDetails") if f[2] == symbol and len(f) > 38)
    future = symbol == "ES"
    contract = Contract(
        conid=int(recorded[12]), symbol=symbol, sec_type=SecType(recorded[3]), underlying=symbol,
        under_conid=int(recorded[18]), expiry=recorded[4][:8], multiplier=float(recorded[14] or 1),
        currency=recorded[8], exchange="CME" if future else "NASDAQ", local_symbol=recorded[9],
        trading_class=recorded[11], price_magnifier=int(recorded[17]), min_tick=float(recorded[13]),
        long_name=recorded[19],
    )  # fmt: skip
    ours = list(
        contract_details(
            int(recorded[1]), contract, recorded[7], "IND", listing(date(2026, 4, 5)), recorded[4]
        )
    )
    sec_ids = 2 * int(recorded[30])
    del recorded[31 : 31 + sec_ids]
    recorded[30] = "0"
    assert len(ours) == len(recorded)

    exact = [0, *range(1, 4), *range(5, 15), *range(17, 22), 25, *range(28, 31), 32, 33, 35]
    assert [ours[i] for i in exact] == [recorded[i] for i in exact]
    for fields in (ours, recorded):
        assert re.fullmatch(r"(\d{8} \d\d:\d\d:\d\d \S+)?", fields[4])
        assert re.fullmatch(r"(\d{8}:(CLOSED|\d{4}-\d{8}:\d{4});?)+", fields[27])


class RecordingWrapper:
    """Records every call of a decoder."""

    defaultTimezone = None

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args: self.calls.append((name, args))


def calls_of_ib_async(fields: list[str]) -> list[tuple[str, tuple[Any, ...]]]:
    received = RecordingWrapper()
    decoder = ib_async.decoder.Decoder(received, 178)  # type: ignore[arg-type]
    decoder.handlers[int(fields[0])](list(fields))
    return received.calls


PUT = "728937835|QQQ|OPT|20270115|500|P|100|AMEX|USD|QQQ   270115P00500000|QQQ"
OPTION = replace(held(PUT.split("|")), under_conid=320227571)
GREEKS = dict(implied_vol=0.2, delta=-0.5, price=3.25, gamma=0.01, vega=0.3, theta=-0.05)
UNRECORDED: list[tuple[str, tuple[str, ...], tuple[Any, ...]]] = [
    (
        "pnlSingle",
        account_messages.pnl_single(7, -3, 1.5, -2.25, None, -600.5),
        (7, -3.0, 1.5, -2.25, 1.7976931348623157e308, -600.5),
    ),
    ("pnl", account_messages.pnl(7, 1.5, -2.25, None), (7, 1.5, -2.25, 1.7976931348623157e308)),
    (
        "tickOptionComputation",
        messages.option_computation(7, 13, underlying_price=501.5, **GREEKS),
        (7, 13, 0, 0.2, -0.5, 3.25, 0.0, 0.01, 0.3, -0.05, 501.5),
    ),
]


@pytest.mark.parametrize(("name", "fields", "expected"), UNRECORDED, ids=lambda v: str(v)[:20])
def test_ib_async_reads_the_messages_that_nobody_recorded(name, fields, expected):
    assert calls_of_ib_async(list(fields)) == [(name, expected)]


def test_ib_async_reads_an_option_out_of_contract_details():
    fields = contract_details(7, OPTION, "SMART", "STK", listing(date(2026, 4, 5)), LAST_TRADE)
    [(name, (req_id, details))] = calls_of_ib_async(list(fields))
    assert name == "contractDetails"
    assert req_id == 7
    assert details.contract.conId == OPTION.conid
    assert details.contract.lastTradeDateOrContractMonth == "20270115"
    assert details.lastTradeTime == "16:00:00"
    assert details.contract.strike == 500.0
    assert details.contract.right == "P"
    assert details.underConId == 320227571
    assert details.underSymbol == "QQQ"
    assert details.priceMagnifier == 1
    assert details.minSize == 1


@pytest.mark.parametrize("version", [176, 178])
def test_ibapi_reads_every_message_to_its_last_field(version):
    frames = [AGAIN[name](recorded) for name in AGAIN for recorded in of_type(name)]
    frames += [fields for _, fields, _ in UNRECORDED]
    frames.append(
        contract_details(7, OPTION, "SMART", "STK", listing(date(2026, 4, 5)), LAST_TRADE)
    )
    frames.append(account_messages.position_multi(7, "DUSIM0001", OPTION, -3, 2100.6321))

    for fields in frames:
        received = RecordingWrapper()
        decoder = ibapi.decoder.Decoder(received, version)
        fields_left = iter([field.encode() for field in fields])
        info = decoder.msgId2handleInfo[int(next(iter(fields)))]
        if info.processMeth is None:
            decoder.interpretWithSignature(list(fields_left), info)
        else:
            info.processMeth(decoder, fields_left)
            assert list(fields_left) == [], f"{fields} has more fields than ibapi reads"
        assert received.calls
