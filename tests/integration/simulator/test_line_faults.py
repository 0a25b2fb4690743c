"""Faults of single market data lines, as the real ib_async sees them."""

import asyncio

import pytest
from ib_async import IB, Contract, Ticker

from ib_gateway_simulator import ActionError, SimulatedGateway

CALL, PUT = 921000001, 921000002


@pytest.fixture
def options():
    return {"autostep": False}


class Ticks:
    """Counts the ticks of one ticker, by kind."""

    def __init__(self, ticker: Ticker) -> None:
        self.ticker = ticker
        self.count = 0
        ticker.updateEvent += self._on_update

    def _on_update(self, _ticker: Ticker) -> None:
        self.count += 1


def listen(ib: IB, conid: int) -> Ticks:
    return Ticks(ib.reqMktData(Contract(conId=conid, exchange="SMART"), "232"))


async def ticked(sim: SimulatedGateway, eventually, ticks: Ticks) -> None:
    """Advance the market until one more tick of a ticker arrives."""
    before = ticks.count

    def stepped() -> bool:
        sim.step()
        return ticks.count > before

    await eventually(stepped)


async def test_a_silenced_line_speaks_again_after_a_reset(sim, post, ib, eventually):
    dead = listen(ib, CALL)
    await eventually(lambda: dead.count)
    await post("silence_line", conid=CALL)
    assert await post("silence_line", conid=CALL, reset=True) == 1
    await ticked(sim, eventually, dead)
    assert await post("silence_line", conid=PUT) == 0


async def test_a_restored_farm_leaves_the_lines_of_other_farms_alive(small, connect_ib, eventually):
    async with SimulatedGateway(small, autostep=False) as sim:
        ib = await connect_ib(sim)
        sim.after_restore("dead")
        live = listen(ib, CALL)
        await eventually(lambda: live.count)
        sim.farm("usfuture", 2103)
        sim.farm("usfuture", 2104)
        await ticked(sim, eventually, live)
        with pytest.raises(ActionError, match="lines"):
            sim.after_restore("half")  # type: ignore[arg-type]


async def test_a_contract_may_tick_with_sizes_only_and_then_with_all_again(
    sim, post, ib, eventually
):
    ticks = listen(ib, CALL)
    ticker = ticks.ticker
    await eventually(lambda: ticker.modelGreeks)
    await post("ticking", conid=CALL, only=["size"])
    seen = (ticker.bid, ticker.ask, ticker.last, ticker.markPrice, ticker.modelGreeks)
    for _ in range(20):
        await ticked(sim, eventually, ticks)
    assert {tick.tickType for tick in ticker.ticks} <= {0, 3, 8}
    assert seen == (ticker.bid, ticker.ask, ticker.last, ticker.markPrice, ticker.modelGreeks)
    assert ticker.bidSize > 0
    await post("ticking", conid=CALL, only=None)
    sim.step()
    await eventually(lambda: ticker.markPrice != seen[3] and ticker.modelGreeks != seen[4])


@pytest.mark.parametrize("mark", [9.5, 0.0])
async def test_a_mark_may_lie_outside_the_quote_and_be_zero(post, ib, eventually, mark):
    await post("quote", conid=CALL, bid=1.0, ask=1.2, last=1.1, mark=mark)
    ticker = listen(ib, CALL).ticker
    await eventually(lambda: ticker.markPrice == mark)
    assert (ticker.bid, ticker.ask, ticker.last) == (1.0, 1.2, 1.1)
    await asyncio.wait_for(ib.reqAccountUpdatesAsync("DUSIM0001"), 60)
    [row] = [item for item in ib.portfolio("DUSIM0001") if item.contract.conId == CALL]
    assert row.marketPrice == mark


NOW_S = 1_789_996_400


def trade_times(ib: IB) -> list[int]:
    """Return the list to which the time of every last trade is appended (tick 45)."""
    times: list[int] = []
    handle = ib.client.decoder.handlers[46]

    def record(fields: list[str]) -> None:
        if fields[3] == "45":
            times.append(int(fields[4]))
        handle(fields)

    ib.client.decoder.handlers[46] = record
    return times


@pytest.mark.parametrize("options", [{"autostep": False, "now": lambda: NOW_S}])
async def test_a_pinned_last_trade_may_be_old_and_stay_so(sim, post, ib, eventually):
    times = trade_times(ib)
    await post("quote", conid=CALL, bid=1.0, ask=9.0, last=1.2, last_age_s=3600)
    ticks = listen(ib, CALL)
    await eventually(lambda: ticks.ticker.last == 1.2)
    for _ in range(30):
        await ticked(sim, eventually, ticks)
    assert times == [NOW_S - 3600]
    await post("quote", conid=CALL, bid=1.0, ask=9.0, last=1.2)
    sim.step(10)
    await eventually(lambda: times[-1] == NOW_S)
    with pytest.raises(ActionError, match="last_age_s"):
        sim.pin_quote(CALL, last=1.2, last_age_s=-1)


async def test_in_a_frozen_market_the_last_trade_was_before(small, connect_ib, eventually):
    clock = [NOW_S]
    async with SimulatedGateway(small, autostep=False, now=lambda: clock[0]) as sim:
        ib = await connect_ib(sim)
        times = trade_times(ib)
        sim.freeze()
        clock[0] += 86_400
        sim.freeze()
        ib.reqMarketDataType(2)
        ticks = listen(ib, CALL)
        await eventually(lambda: ticks.ticker.last > 0)
        assert ticks.ticker.marketDataType == 2
        assert times == [NOW_S]
        sim.freeze(False)
        sim.step(10)
        await eventually(lambda: times[-1] == clock[0])
