"""The same for IB's own client, ibapi, which reads in a thread."""

import threading

import pytest
from ibapi.client import EClient
from ibapi.wrapper import EWrapper


class Positions(EWrapper, EClient):
    """Collects the positions of all accounts."""

    def __init__(self) -> None:
        EClient.__init__(self, self)
        self.held: dict[int, float] = {}
        self.ready = threading.Event()
        self.done = threading.Event()

    def nextValidId(self, orderId: int) -> None:
        self.ready.set()

    def position(self, account, contract, position, avgCost) -> None:
        self.held[contract.conId] = float(position)

    def positionEnd(self) -> None:
        self.done.set()


@pytest.mark.ib_book("book.yaml")
def test_positions(ib_gateway):
    client = Positions()
    client.connect("127.0.0.1", ib_gateway.port, 8)
    thread = threading.Thread(target=client.run, daemon=True)
    thread.start()
    assert client.ready.wait(30)

    client.reqPositions()
    assert client.done.wait(30)
    assert client.held == {920000001: 100, 921000001: -1}

    client.disconnect()
    thread.join(30)
