"""A recording gives the account away in no field: each secret of its input is searched for."""

import json
import re
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from ib_async import IB

from ib_gateway_simulator import load_book
from tests.support.messages import frame
from tests.support.raw_client import RawClient

ONE = "U7654321"
TWO = "U1122334"
MODEL = "IncomeModel"
GROUP = "GrowthClients"
OWNER = "Marion Holder"
# Primes: none of them comes up by chance as a whole field.
QUANTITIES = (137, -4211, -1999, 389, 1733, 641, -977, 2203, -821, 163, -167, 173)


def secret_book():
    book = load_book("small")
    names = {account.name: new for account, new in zip(book.accounts, (ONE, TWO), strict=True)}
    openings = tuple(
        replace(opening, account=names[opening.account], quantity=float(quantity))
        for opening, quantity in zip(book.openings, QUANTITIES, strict=False)
    )
    accounts = tuple(
        replace(account, name=names[account.name], cash=cash)
        for account, cash in zip(book.accounts, (1234567.89, 7654321.12), strict=True)
    )
    return replace(book, accounts=accounts, openings=openings)


# What a gateway may send besides, with secrets in it.
UNASKED = f"""\
4|2|-1|2101|Unable to subscribe to account {TWO}|{{"account": "{ONE}"}}
4|2|77|201|Order rejected: {ONE} (U9988776) needs 98,765.43 USD of 4211|
5|77|921000001|AAPL|OPT|{ONE}|BUY|4211|17.25|{OWNER}
3|77|Filled|4211|0|98765.43|1|0|98765.43|3||0
11|8|921000001|exec-id-5|{ONE}|4211|98765.43
59|1|exec-id-5|98765.43|USD|4211
101|921000001|{ONE}|{OWNER}|4211
16|1|1|<xml><group><name>{GROUP}</name><acct>{ONE}</acct></group></xml>
78|2|{ONE}|{OWNER}|{TWO}|{OWNER}
107|3|{OWNER}
6|2|Owners|{OWNER}||{ONE}
6|2|AccountOrGroup|{TWO}|USD|{ONE}
6|2|NetLiquidation-S|98765.43|USD|{ONE}
6|2|SomethingNew|98765.43|USD|{ONE}
6|2|SomethingSaid|{OWNER} has 4211||{ONE}
6|2|NetLiquidation|98765.43|USD|{ONE}|one field more
73|1|3|{ONE}|{MODEL}|NetLiquidation|98765.43|USD
71|1|3|{ONE}|1|X|STK||0||||USD|X|X|4211|1.5|{MODEL}
94|999|98765.43|98765.43|98765.43
95|999|4211|98765.43|98765.43|98765.43|98765.43
46|6|5|62|a news tick about {ONE}
7|8|1|{ONE}|{OWNER}
250|{ONE}|{OWNER}|98765.43
{OWNER}|{ONE}
"""


async def session(sim, port):
    """Request everything that a client can, with two clients; the market stands still."""
    ib = IB()
    await ib.connectAsync("127.0.0.1", port, clientId=5)
    for account in (ONE, TWO):
        await ib.reqAccountUpdatesAsync(account)
        ib.client.reqAccountUpdates(False, account)
    ib.reqPnL(ONE)
    for position in ib.positions(ONE):
        ib.reqPnLSingle(ONE, "", position.contract.conId)

    await ib.accountSummaryAsync()
    raw = RawClient()
    await raw.open(port)
    raw.greet()
    await raw.log_in(6, OWNER)
    raw.send(74, 1, 31, ONE, MODEL)
    raw.send(76, 1, 32, TWO, MODEL, 0)
    raw.send(92, 33, ONE, MODEL)
    raw.send(94, 34, TWO, MODEL, 921000001)
    raw.send(62, 1, 35, GROUP, "NetLiquidation,Owners")
    raw.send(7, 3, 36, 0, ONE, "", "", "", "", "")
    raw.send(18, 1, 1)

    for line in UNASKED.splitlines():
        sim.send_raw(frame(*line.split("|")))

    sim.fill(ONE, 921000001, 5.0)
    await raw.barrier()
    sim.send_raw(frame(49, 1, 1))
    await raw.barrier()
    ib.disconnect()
    await raw.close()


@pytest.fixture
async def truth_and_recording(simulate, recorded, eventually):
    """Return the messages with the gateway's own numbers, and the text of the recording."""
    async with (
        simulate(secret_book(), autostep=False) as sim,
        recorded(sim.port, "true.ibrec", keep_quantities=True) as truth,
        recorded(truth.port) as proxy,
    ):
        await session(sim, proxy.port)
        await eventually(lambda: sim.stats()["connections"]["now"] == 0)
    true = lines_of(truth.path.read_text())
    sent = [record["fields"] for record in true if record.get("from") == "gateway"]
    return [fields for fields in sent if fields], proxy.path.read_text()


def lines_of(text):
    return [json.loads(line) for line in text.splitlines()[1:]]


NUMBER = re.compile(r"-?\d+(\.\d+)?(E-?\d+)?")


def amounts_of(messages):
    """Return the quantities and amounts in what the gateway sent, by their places."""
    names_found = set()
    for fields in messages:
        match fields[0], len(fields):
            case "61", 16:
                names_found.add(fields[14])
            case "71", 18:
                names_found.add(fields[15])
            case "7", 20:
                names_found |= {fields[13], fields[15], fields[17], fields[18]}
            case ("6", 6) if fields[2] != "ExchangeRate":
                names_found.add(fields[3])
            case ("63", 7) | ("73", 8) if "ExchangeRate" not in fields:
                names_found.add(fields[-2])
            case "94", 5:
                names_found |= set(fields[2:])
            case "95", 7:
                names_found |= set(fields[2:])
    numbers = {text for text in names_found if NUMBER.fullmatch(text)}
    return {text for text in numbers if 1e300 > abs(float(text)) > 0}


async def test_no_secret_of_the_input_is_in_the_recording(truth_and_recording):
    messages, text = truth_and_recording
    fields = {field for record in lines_of(text) for field in record.get("fields") or ()}
    assert len(fields) > 100
    numbers = {Decimal(field) for field in fields if NUMBER.fullmatch(field)}
    amounts = amounts_of(messages)
    assert len(amounts) > 30
    assert {amount for amount in amounts if Decimal(amount) in numbers} == set()
    words = ("U9988776", "Marion", "Holder", "98765", "98,765", "exec-")
    for secret in (ONE, TWO, MODEL, GROUP, *words):
        assert secret not in text
    assert not [q for q in QUANTITIES if f'"{q}"' in text or f'"{q}.0"' in text]
    names = {record.get("name") for record in lines_of(text)}
    assert not names & {"message 3", "message 5", "message 11", "message 59", "message 101"}
    assert {"position", "updatePortfolio", "positionMulti", "pnl", "accountSummary"} <= names


async def test_values_stay_price_times_multiplier_times_quantity(truth_and_recording):
    _, text = truth_and_recording
    rows = [
        record["fields"]
        for record in lines_of(text)
        if record.get("name") == "updatePortfolio" and record["fields"]
    ]
    held = [row for row in rows if float(row[13])]
    assert len(held) > 5
    for row in held:
        assert float(row[13]).is_integer()
        size, price, value, cost, profit = map(float, row[13:18])
        multiplier = float(row[8] or 1)
        assert value == pytest.approx(price * size * multiplier, rel=2e-3, abs=1.0)
        assert profit == pytest.approx(value - cost * size, rel=2e-3, abs=1.0)


async def test_a_holding_has_the_same_quantity_in_every_message(truth_and_recording):
    messages, text = truth_and_recording
    seen: dict[Any, Any] = {}
    for record in lines_of(text):
        fields = record.get("fields")
        if record.get("name") == "position":
            seen.setdefault((fields[2], fields[3]), set()).add(fields[14])
        elif record.get("name") == "updatePortfolio" and fields:
            seen.setdefault((fields[19], fields[2]), set()).add(fields[13])
    assert len(seen) > 5

    truth: dict[Any, Any] = {}
    for fields in messages:
        if fields[0] == "61":
            truth.setdefault((fields[2], fields[3]), set()).add(fields[14])
    changed = [key for key, held in seen.items() if len(held) > 1]
    assert [conid for _, conid in changed] == ["921000001"]  # it was traded
    zeros = {key for key, held in seen.items() if "0" in held}
    assert {conid for _, conid in zeros} == {c for (_, c), held in truth.items() if "0" in held}
