"""A recorded session as a fixture: requests are answered as the gateway answered them then."""

import asyncio

import pytest
from ib_async import IB, Contract

CALL = 921000001


@pytest.mark.ib_recording("session.ibrec")
async def test_a_recorded_price(ib_gateway):
    ib = IB()
    await ib.connectAsync("127.0.0.1", ib_gateway.port, clientId=1)
    assert len(ib.positions()) == 9

    call = Contract(conId=CALL, exchange="SMART")
    await ib.qualifyContractsAsync(call)
    ticker = ib.reqMktData(call, "")
    while ticker.modelGreeks is None:
        await asyncio.wait_for(ticker.updateEvent, 10)
    assert 0 < ticker.modelGreeks.delta < 1

    ib.disconnect()
