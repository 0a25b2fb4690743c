"""Unmodified clients: ib_async, ib_insync and the original ibapi."""

import asyncio
import logging
import math
import threading
from collections.abc import Callable
from typing import Any

import ib_async
import ib_insync
import pytest
from ibapi.client import EClient
from ibapi.contract import Contract as IbapiContract
from ibapi.wrapper import EWrapper

from ib_gateway_simulator import SimulatedGateway
from tests.support.waiting import DEADLINE_S

CALL = 921000001
FUTURE = 920000002


async def use_library(library: Any, sim: SimulatedGateway, version: int, eventually) -> None:
    """Use one of the two libraries that share their interface, as its users do."""
    ib = library.IB()
    errors: list[int] = []
    ib.errorEvent += lambda req_id, code, text, contract: errors.append(code)
    await ib.connectAsync(
        "127.0.0.1", sim.port, clientId=3, timeout=DEADLINE_S, account="DUSIM0001"
    )
    try:
        assert ib.client.serverVersion() == version
        assert ib.managedAccounts() == ["DUSIM0001", "DUSIM0002"]
        positions = {(p.account, p.contract.conId): p for p in ib.positions()}
        assert len(positions) == 9  # the library drops the closed one

        held = positions["DUSIM0001", CALL]
        assert held.position == 5
        assert held.avgCost == 2150.65
        assert held.contract.exchange == ""
        portfolio = {row.contract.conId: row for row in ib.portfolio()}
        assert len(portfolio) == 5
        assert portfolio[CALL].marketValue > 0
        values = {v.tag: v for v in ib.accountValues("DUSIM0001")}
        assert float(values["NetLiquidation"].value) > 0
        assert ib.openTrades() == []
        assert ib.fills() == []

        contract = library.Contract(conId=CALL, exchange="SMART")
        [details] = await ib.reqContractDetailsAsync(contract)
        assert details.contract.strike == 240
        await ib.qualifyContractsAsync(contract)
        assert contract.symbol == "AAPL"
        assert contract.right == "C"
        future = library.Future("ES", "202812", "CME")
        await ib.qualifyContractsAsync(future)
        assert future.conId == FUTURE
        assert future.multiplier == "50"

        ticker = ib.reqMktData(contract, "232")
        pnl = ib.reqPnLSingle("DUSIM0001", "", CALL)
        await eventually(lambda: ticker.modelGreeks and not math.isnan(pnl.value))
        assert ticker.bid < ticker.markPrice < ticker.ask
        assert ticker.marketDataType == 1
        assert ticker.modelGreeks.undPrice == pytest.approx(230, rel=0.1)
        assert pnl.position == 5
        assert pnl.realizedPnL > 1e300
        ib.cancelMktData(contract)
        ib.cancelPnLSingle("DUSIM0001", "", CALL)
        assert (await ib.reqCurrentTimeAsync()).year > 2000
        assert sim.stats()["lines_in_use"] == 0

        sim.fill("DUSIM0001", CALL, -5)
        await eventually(lambda: all(p.contract.conId != CALL for p in ib.positions("DUSIM0001")))
        [fill] = await ib.reqExecutionsAsync()
        assert fill.execution.side == "SLD"
        assert fill.execution.shares == 5
        assert set(errors) <= {2104, 2106, 2158}
        assert sim.orders_received == []
    finally:
        ib.disconnect()


@pytest.mark.parametrize(("library", "version"), [(ib_async, 178), (ib_insync, 176)])
async def test_a_library_connects_and_sees_everything(small, eventually, caplog, library, version):
    async with SimulatedGateway(small, tick_interval_s=0.02, pnl_interval_s=0.05) as sim:
        await use_library(library, sim, version, eventually)

    complaints = [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith(library.__name__) and record.levelno >= logging.WARNING
    ]
    assert complaints == []


class Original(EWrapper, EClient):
    """The original client as its manual shows it: wrapper and client in one class."""

    def __init__(self) -> None:
        EClient.__init__(self, self)
        self.received: dict[str, list[tuple[Any, ...]]] = {}
        self.news = threading.Condition()

    def note(self, name: str, *args: Any) -> None:
        with self.news:
            self.received.setdefault(name, []).append(args)
            self.news.notify_all()

    def wait(self, name: str, test: Callable[[tuple[Any, ...]], bool] = lambda a: True) -> Any:
        with self.news:
            news = self.news.wait_for(
                lambda: [args for args in self.received.get(name, []) if test(args)],
                timeout=DEADLINE_S,
            )
        assert news, f"{name} never came; received {sorted(self.received)}"
        return news[0]


def _listen(name: str) -> Callable[..., None]:
    def method(self: Original, *args: Any) -> None:
        self.note(name, *args)

    return method


_EVENTS = """
    error managedAccounts nextValidId position positionEnd updateAccountValue
    updatePortfolio updateAccountTime accountDownloadEnd contractDetails contractDetailsEnd
    tickPrice tickSize tickString tickGeneric tickOptionComputation marketDataType
    tickReqParams pnlSingle currentTime openOrderEnd completedOrdersEnd execDetailsEnd
    tickSnapshotEnd
"""
for _name in _EVENTS.split():
    setattr(Original, _name, _listen(_name))


@pytest.fixture
def original():
    client = Original()
    yield client
    client.disconnect()


def use_original(app: Original, port: int) -> None:
    app.connect("127.0.0.1", port, 8)
    thread = threading.Thread(target=app.run, daemon=True)
    thread.start()
    try:
        assert app.serverVersion() == 178
        assert app.wait("managedAccounts") == ("DUSIM0001,DUSIM0002,",)
        assert app.wait("nextValidId") == (1,)
        app.reqPositions()
        app.wait("positionEnd")
        rows = {(a, c.conId): (c, held, cost) for a, c, held, cost in app.received["position"]}
        assert len(rows) == 10

        contract, held, cost = rows["DUSIM0001", CALL]
        assert contract.strike == 240
        assert contract.exchange == ""
        assert int(held) == 5
        assert cost == 2150.65
        app.reqAccountUpdates(True, "DUSIM0001")
        app.wait("accountDownloadEnd")
        assert len(app.received["updatePortfolio"]) == 6
        assert len(app.received["updateAccountTime"]) == 7

        asked = IbapiContract()
        asked.conId = CALL
        asked.exchange = "SMART"
        app.reqContractDetails(21, asked)
        app.wait("contractDetailsEnd")
        details = app.received["contractDetails"][0][1]
        assert details.contract.symbol == "AAPL"
        assert details.contract.right == "C"
        assert details.priceMagnifier == 1
        assert details.aggGroup == 1

        app.reqMktData(22, asked, "232", False, False, [])
        app.wait("tickPrice", lambda a: a[:2] == (22, 37))
        greeks = app.wait("tickOptionComputation", lambda a: a[:2] == (22, 13))
        assert 0 < greeks[4] < 1
        assert app.wait("marketDataType") == (22, 1)

        app.reqPnLSingle(23, "DUSIM0001", "", CALL)
        assert int(app.wait("pnlSingle")[1]) == 5

        app.cancelMktData(22)
        app.cancelMktData(22)
        app.wait("error", lambda a: a[:2] == (22, 300))
        app.reqOpenOrders()
        app.wait("openOrderEnd")
        app.reqCompletedOrders(False)
        app.wait("completedOrdersEnd")
        app.reqCurrentTime()
        app.wait("currentTime")
    finally:
        app.disconnect()
        thread.join(30)
        assert not thread.is_alive()


async def test_the_original_ibapi_connects_and_sees_everything(small, original):
    async with SimulatedGateway(small, tick_interval_s=0.02, pnl_interval_s=0.05) as sim:
        await asyncio.to_thread(use_original, original, sim.port)
        assert sim.orders_received == []
