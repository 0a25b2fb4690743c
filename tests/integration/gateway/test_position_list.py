"""Lists of positions: a late rest of one never counts as the answer of the next."""

import asyncio
from datetime import timedelta

import pytest

from ib_gateway_simulator.protocol.account_messages import portfolio_value, position
from ib_gateway_simulator.protocol.contract import Contract, SecType
from ib_gateway_simulator.protocol.wire import frame
from position_sync_dagster.errors import BrokerUnavailableError, GatewayTimeoutError
from position_sync_dagster.gateway import account_feed
from position_sync_dagster.gateway.connection import IBConnectionManager
from position_sync_dagster.sync.drain import ConnectionValues

HELD = 9
# The rest of a list comes later than the time limit of the request.
LATE = {"delay_s": 1.5, "late_rows": 4}


@pytest.fixture
async def gateway(simulate, settings_for):
    """Return a simulator, and a manager whose requests end before the late rest of a list."""
    async with simulate() as sim:
        manager = IBConnectionManager(settings_for(sim, gateway_timeout_s=1.0))
        yield sim, manager
        await manager.close()


async def test_a_list_that_timed_out_ends_the_connection(gateway):
    sim, manager = gateway
    connection = await manager.get_connection()
    await connection.feed.snapshot()
    held = connection.feed.holdings
    sim.positions_end(**LATE)
    with pytest.raises(GatewayTimeoutError, match="did not send the whole list of positions"):
        await connection.feed.snapshot()
    assert not connection.is_connected
    assert connection.feed.holdings == held
    sim.positions_end()
    again = await manager.get_connection()
    await again.feed.snapshot()
    assert len(again.feed.holdings) == HELD


async def test_the_library_worker_never_takes_a_late_rest_for_a_whole_list(gateway):
    sim, manager = gateway
    values = ConnectionValues(manager)
    connection = await manager.get_connection()
    await connection.feed.ensure(timedelta(hours=1))
    connection.feed.invalidate()
    sim.positions_end(**LATE)
    for _ in range(2):
        with pytest.raises(BrokerUnavailableError):
            await values.view()
        assert {h.position for h in connection.feed.holdings} & {0.0} == set()
    sim.positions_end()
    view = await values.view()
    assert view.complete
    assert len(view.holdings) == HELD
    await values.close()


async def test_a_list_whose_request_was_cancelled_is_awaited_before_the_next(
    simulate, settings_for, eventually
):
    async with simulate() as sim:
        manager = IBConnectionManager(settings_for(sim))
        connection = await manager.get_connection()
        feed = connection.feed
        await feed.snapshot()
        sim.positions_end(delay_s=0.2, late_rows=4)
        sent = sim.stats()["requests"]["17"]["reqPositions"]
        listing = asyncio.create_task(feed.snapshot())
        await eventually(lambda: sim.stats()["requests"]["17"]["reqPositions"] > sent)
        listing.cancel()
        await asyncio.gather(listing, return_exceptions=True)
        sim.positions_end()
        await feed.snapshot()
        assert sim.stats()["requests"]["17"]["reqPositions"] == sent + 2
        assert {h.position for h in feed.holdings} & {0.0} == set()
        await manager.close()


async def test_rows_right_behind_the_end_of_a_list_are_newer_than_the_list(simulate, settings_for):
    async with simulate(autostep=False) as sim:
        manager = IBConnectionManager(settings_for(sim))
        connection = await manager.get_connection()
        sim.pause()
        listing = asyncio.create_task(connection.feed.snapshot())
        await asyncio.sleep(0.2)  # the request lies at the gateway
        # The list, its end and both trades arrive in one packet.
        sim.resume()
        sim.fill("DUSIM0001", 921000007, 3)
        sim.fill("DUSIM0001", 921000001, 2)
        await listing
        await connection.ib.reqCurrentTimeAsync()
        held = {h.key: h.position for h in connection.feed.holdings}
        assert held["DUSIM0001", 921000007] == 3
        assert held["DUSIM0001", 921000001] == 7
        await manager.close()


async def test_a_value_right_behind_the_end_of_a_list_is_newer_than_the_list(
    simulate, settings_for
):
    async with simulate(autostep=False) as sim:
        manager = IBConnectionManager(settings_for(sim))
        connection = await manager.get_connection()
        sim.pause()
        listing = asyncio.create_task(connection.feed.snapshot())
        await asyncio.sleep(0.2)  # the request lies at the gateway
        # The list, its end and the portfolio row arrive in one packet.
        sim.resume()
        sim.send_raw(_portfolio_row(3, OPENED))
        await listing
        held = {h.key: h.position for h in connection.feed.holdings}
        assert held[ACCOUNT, OPENED] == 3
        await manager.close()


ACCOUNT, HELD_CALL, OPENED = "DUSIM0001", 921000001, 921000007
ROW = dict(price=1.5, value=450.0, average_cost=120.5, unrealized=3.0, realized=0.0)
AAPL = dict(symbol="AAPL", sec_type=SecType.OPT, underlying="AAPL", multiplier=100.0)


def _portfolio_row(held, conid=HELD_CALL):
    return frame(portfolio_value(ACCOUNT, Contract(conid=conid, **AAPL), held=held, **ROW))


def _position_row(held):
    return frame(position(ACCOUNT, Contract(conid=HELD_CALL, **AAPL), held, 120.5))


async def test_a_position_message_that_contradicts_a_newer_portfolio_row_asks_for_the_list(gateway):
    sim, manager = gateway
    connection = await manager.get_connection()
    feed = connection.feed
    await feed.snapshot()
    assert not feed.positions_due
    sim.send_raw(_portfolio_row(4) + _position_row(9))
    await connection.ib.reqCurrentTimeAsync()
    assert feed.get((ACCOUNT, HELD_CALL)).position == 4
    assert feed.positions_due
    await feed.snapshot()  # requested after both: it has the quantity of the gateway
    assert feed.get((ACCOUNT, HELD_CALL)).position == 5
    assert not feed.positions_due


async def test_a_portfolio_row_with_the_same_quantity_settles_a_contradiction(gateway):
    sim, manager = gateway
    connection = await manager.get_connection()
    feed = connection.feed
    await feed.snapshot()
    sim.send_raw(_portfolio_row(4) + _position_row(9) + _portfolio_row(9))
    await connection.ib.reqCurrentTimeAsync()
    assert feed.get((ACCOUNT, HELD_CALL)).position == 9
    assert not feed.positions_due


async def test_a_position_message_long_after_a_portfolio_row_counts(gateway, monkeypatch):
    monkeypatch.setattr(account_feed, "LATE_S", 0.0)
    sim, manager = gateway
    connection = await manager.get_connection()
    feed = connection.feed
    await feed.snapshot()
    sim.send_raw(_portfolio_row(4))
    await connection.ib.reqCurrentTimeAsync()
    sim.send_raw(_position_row(9))
    await connection.ib.reqCurrentTimeAsync()
    assert feed.get((ACCOUNT, HELD_CALL)).position == 9
    assert not feed.positions_due


async def test_a_list_that_began_before_a_portfolio_row_does_not_replace_it(
    simulate, settings_for, eventually
):
    async with simulate(autostep=False) as sim:
        manager = IBConnectionManager(settings_for(sim))
        connection = await manager.get_connection()
        sim.positions_end(delay_s=0.3, late_rows=20)
        listing = asyncio.create_task(connection.feed.snapshot())
        requests = lambda: sim.stats()["requests"]["17"]["reqPositions"]  # noqa: E731
        await eventually(lambda: requests() == 2)
        sim.send_raw(_portfolio_row(4))
        await listing
        assert connection.feed.get((ACCOUNT, HELD_CALL)).position == 4
        assert connection.feed.positions_due
        await connection.feed.snapshot()
        assert connection.feed.get((ACCOUNT, HELD_CALL)).position == 5
        await manager.close()
