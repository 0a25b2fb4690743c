"""The same for ib_insync, which negotiates server version 176."""

from ib_insync import IB

ACCOUNT, CALL = "DUSIM0001", 921000001


async def test_a_fill_is_an_execution_with_its_commission(ib_gateway):
    ib = IB()
    await ib.connectAsync("127.0.0.1", ib_gateway.port, clientId=1)
    assert ib.client.serverVersion() == 176

    ib_gateway.fill(ACCOUNT, CALL, -5, price=22.5)
    [fill] = await ib.reqExecutionsAsync()
    assert (fill.execution.side, fill.execution.shares, fill.execution.price) == ("SLD", 5, 22.5)

    ib.disconnect()
