"""Lists of positions: a late rest of one never counts as the answer of the next."""

import asyncio
from datetime import timedelta

import pytest

from ib_gateway_simulator.protocol.account_messages import portfolio_value, position
from ib_gateway_simulator.protocol.contract import Contract, SecType
from ib_gateway_simulator.protocol.wire import frame
from position_sync_dagster.errors import BrokerUnavailableError, GatewayTimeoutError
from position_sync_dagster.gateway import account_feed
from position_sync_dagster.gateway.connection import IBConnectionManager, connect
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
    held = {h.key: h.position for h in connection.feed.holdings}
    sim.positions_end(**LATE)
    with pytest.raises(GatewayTimeoutError, match="did not send the whole list of positions"):
        await connection.feed.snapshot()
    assert not connection.is_connected
    assert {h.key: h.position for h in connection.feed.holdings} == held
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


@pytest.fixture
async def listed(opened):
    """Return a simulator, a connection and its feed after a list of positions."""
    sim, connection = opened
    await connection.feed.snapshot()
    return sim, connection, connection.feed


def lists_of(sim):
    return sim.stats()["requests"]["17"]["reqPositions"]


async def test_a_list_whose_request_was_cancelled_is_awaited_before_the_next(opened, eventually):
    sim, connection = opened
    feed = connection.feed
    await feed.snapshot()
    sim.positions_end(delay_s=0.2, late_rows=4)
    sent = lists_of(sim)
    listing = asyncio.create_task(feed.snapshot())
    await eventually(lambda: lists_of(sim) > sent)
    listing.cancel()
    await asyncio.gather(listing, return_exceptions=True)
    sim.positions_end()
    await feed.snapshot()
    assert lists_of(sim) == sent + 2
    assert {h.position for h in feed.holdings} & {0.0} == set()


@pytest.fixture
async def still(simulate, settings_for):
    """Return a simulator whose market stands still, and a connection to it."""
    async with simulate(autostep=False) as sim:
        connection = await connect(settings_for(sim))
        yield sim, connection
        await connection.close()


@pytest.mark.parametrize("by_row", [True, False], ids=["portfolio row", "trades"])
async def test_what_comes_right_behind_the_end_of_a_list_is_newer_than_the_list(still, by_row):
    sim, connection = still
    sim.pause()
    listing = asyncio.create_task(connection.feed.snapshot())
    await asyncio.sleep(0.2)  # the request lies at the gateway
    # The list, its end and what follows arrive in one packet.
    sim.resume()
    if by_row:
        sim.send_raw(_portfolio_row(3, OPENED))
    else:
        sim.fill(ACCOUNT, OPENED, 3)
        sim.fill(ACCOUNT, HELD_CALL, 2)
    await listing
    await connection.ib.reqCurrentTimeAsync()
    held = {h.key: h.position for h in connection.feed.holdings}
    assert (held[ACCOUNT, OPENED], held[ACCOUNT, HELD_CALL]) == (3, 5 if by_row else 7)


ACCOUNT, HELD_CALL, OPENED = "DUSIM0001", 921000001, 921000007
ROW = dict(price=1.5, value=450.0, average_cost=120.5, unrealized=3.0, realized=0.0)
AAPL = dict(symbol="AAPL", sec_type=SecType.OPT, underlying="AAPL", multiplier=100.0)


def _portfolio_row(held, conid=HELD_CALL):
    return frame(portfolio_value(ACCOUNT, Contract(conid=conid, **AAPL), held=held, **ROW))


def _position_row(held):
    return frame(position(ACCOUNT, Contract(conid=HELD_CALL, **AAPL), held, 120.5))


async def test_a_position_message_that_contradicts_a_newer_portfolio_row_asks_for_the_list(listed):
    sim, connection, feed = listed
    assert not feed.positions_due
    sim.send_raw(_portfolio_row(4) + _position_row(9))
    await connection.ib.reqCurrentTimeAsync()
    assert feed.get((ACCOUNT, HELD_CALL)).position == 4
    assert feed.positions_due
    await feed.snapshot()  # requested after both: it has the quantity of the gateway
    assert feed.get((ACCOUNT, HELD_CALL)).position == 5
    assert not feed.positions_due


async def test_a_portfolio_row_with_the_same_quantity_settles_a_contradiction(listed):
    sim, connection, feed = listed
    sim.send_raw(_portfolio_row(4) + _position_row(9) + _portfolio_row(9))
    await connection.ib.reqCurrentTimeAsync()
    assert feed.get((ACCOUNT, HELD_CALL)).position == 9
    assert not feed.positions_due


async def test_a_position_message_long_after_a_portfolio_row_counts(listed, monkeypatch):
    monkeypatch.setattr(account_feed, "LATE_S", 0.0)
    sim, connection, feed = listed
    sim.send_raw(_portfolio_row(4))
    await connection.ib.reqCurrentTimeAsync()
    sim.send_raw(_position_row(9))
    await connection.ib.reqCurrentTimeAsync()
    assert feed.get((ACCOUNT, HELD_CALL)).position == 9
    assert not feed.positions_due


async def test_a_list_that_began_before_a_portfolio_row_does_not_replace_it(still, eventually):
    sim, connection = still
    sim.positions_end(delay_s=0.3, late_rows=20)
    listing = asyncio.create_task(connection.feed.snapshot())
    await eventually(lambda: lists_of(sim) == 2)
    sim.send_raw(_portfolio_row(4))
    await listing
    assert connection.feed.get((ACCOUNT, HELD_CALL)).position == 4
    assert connection.feed.positions_due
    await connection.feed.snapshot()
    assert connection.feed.get((ACCOUNT, HELD_CALL)).position == 5
