"""Tests of a program that uses ib_async, against the simulated gateway."""

import asyncio

import pytest
from ib_async import IB, Contract

ACCOUNT = "DUSIM0001"
STOCK, CALL = 920000001, 921000001


def test_positions(ib_gateway):
    ib = IB()
    ib.connect("127.0.0.1", ib_gateway.port, clientId=1)
    assert len(ib.positions()) == 9
    ib.disconnect()


@pytest.mark.ib_book("book.yaml", tick_interval_s=0.05)
async def test_an_assignment_takes_the_shares(ib_gateway):
    ib = IB()
    await ib.connectAsync("127.0.0.1", ib_gateway.port, clientId=1)
    assert {row.contract.conId: row.position for row in ib.positions()} == {STOCK: 100, CALL: -1}

    ib_gateway.assign(ACCOUNT, CALL)
    while ib.positions():
        await ib.updateEvent

    ib.disconnect()


@pytest.mark.ib_book("book.yaml", tick_interval_s=0.05)
async def test_a_price_arrives_and_the_loss_of_connectivity_is_told(ib_gateway):
    ib = IB()
    told: list[int] = []
    ib.errorEvent += lambda _request, code, _text, _contract: told.append(code)
    await ib.connectAsync("127.0.0.1", ib_gateway.port, clientId=1)

    ticker = ib.reqMktData(Contract(conId=STOCK, exchange="SMART"), "")
    ib_gateway.set_price(STOCK, 231.5)
    while ticker.bid != 231.5:
        await asyncio.wait_for(ticker.updateEvent, 10)

    ib_gateway.fault("1100")
    while 1100 not in told:
        await asyncio.wait_for(ib.errorEvent, 10)

    assert ib_gateway.stats()["lines_in_use"] == 1
    ib.disconnect()
