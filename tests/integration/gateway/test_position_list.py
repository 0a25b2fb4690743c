"""Lists of positions: late rests, lists that empty an account, and rows that cannot be used."""

import asyncio
from datetime import timedelta

import pytest

from ib_gateway_simulator.protocol.account_messages import portfolio_value
from ib_gateway_simulator.protocol.contract import Contract, SecType
from ib_gateway_simulator.protocol.wire import frame
from position_sync_dagster.domain.holding import Completeness
from position_sync_dagster.errors import BrokerUnavailableError, GatewayTimeoutError
from position_sync_dagster.gateway.connection import IBConnectionManager
from position_sync_dagster.sync.broker_view import ConnectionValues

A = "DUSIM0001"
B = "DUSIM0002"
CALL = 921000001
PUT = 921000002
OPENED = 921000007
HELD = 9
# At a price of 0 its portfolio row has no value.
WORTHLESS = (A, 921000003)
# The rest of a list comes later than the time limit of the request.
LATE = {"delay_s": 3.0, "late_rows": 4}


@pytest.fixture
async def gateway(simulate, settings_for):
    """Return a simulator, and a manager whose requests end before the late rest of a list."""
    async with simulate() as sim:
        manager = IBConnectionManager(settings_for(sim, gateway_timeout_s=2.0))
        yield sim, manager
        await manager.close()


async def test_a_list_that_timed_out_ends_the_connection(gateway):
    sim, manager = gateway
    connection = await manager.get_connection()
    await connection.feed.snapshot()
    held = {h.key: h.position for h in connection.feed.book.holdings}
    sim.positions_end(**LATE)
    with pytest.raises(GatewayTimeoutError, match="did not send the whole list of positions"):
        await connection.feed.snapshot()
    assert not connection.is_connected
    assert {h.key: h.position for h in connection.feed.book.holdings} == held
    sim.positions_end()
    again = await manager.get_connection()
    await again.feed.snapshot()
    assert len(again.feed.book.holdings) == HELD


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
        assert {h.position for h in connection.feed.book.holdings} & {0.0} == set()

    sim.positions_end()
    view = await values.view()
    assert view.complete
    assert len(view.holdings) == HELD
    await manager.close()


@pytest.fixture
async def listed(opened):
    """Return a simulator, a connection and its feed after a list of positions."""
    sim, connection = opened
    await connection.feed.snapshot()
    return sim, connection, connection.feed


def lists_of(sim):
    return sim.stats()["requests"]["17"]["reqPositions"]


async def test_a_list_whose_request_was_cancelled_is_awaited_before_the_next(listed, eventually):
    sim, _connection, feed = listed
    sim.positions_end(delay_s=0.2, late_rows=4)
    sent = lists_of(sim)
    listing = asyncio.create_task(feed.snapshot())
    await eventually(lambda: lists_of(sim) > sent)
    listing.cancel()
    await asyncio.gather(listing, return_exceptions=True)
    sim.positions_end()
    await feed.snapshot()
    assert lists_of(sim) == sent + 2
    assert {h.position for h in feed.book.holdings} & {0.0} == set()


@pytest.fixture
async def still(connected):
    """Return a simulator whose market stands still, and a connection to it."""
    return await connected(options={"autostep": False})


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
        sim.fill(A, OPENED, 3)
        sim.fill(A, CALL, 2)

    await listing
    await connection.ib.reqCurrentTimeAsync()
    held = {h.key: h.position for h in connection.feed.book.holdings}
    assert held[A, OPENED] == 3
    assert held[A, CALL] == (5 if by_row else 7)


ROW = dict(price=1.5, value=450.0, average_cost=120.5, unrealized=3.0, realized=0.0)
AAPL = dict(symbol="AAPL", sec_type=SecType.OPT, underlying="AAPL", multiplier=100.0)


def _portfolio_row(held, conid=CALL):
    return frame(portfolio_value(A, Contract(conid=conid, **AAPL), held=held, **ROW))


@pytest.fixture
async def emptied(connected):
    """Connect, download everything, and take a first list that empties account A."""
    sim, connection = await connected(second_list_s=1e-6)  # any later list is a second one
    await connection.feed.snapshot()
    await connection.feed.download()
    assert connection.feed.is_complete
    sim.empty_lists(A)
    await connection.feed.snapshot()
    return sim, connection.feed


def held(feed, account=A):
    return sum(row.account == account and row.position != 0 for row in feed.book.holdings)


async def test_holdings_in_doubt_stay_as_they_were_and_nothing_confirms_them(emptied):
    _sim, feed = emptied
    before = {row.key: row for row in feed.book.holdings if row.account == A}
    assert held(feed) == 5
    assert feed.completeness == {A: Completeness.UNKNOWN, B: Completeness.COMPLETE}
    await feed.download()  # its end is proper, and names nothing
    for key, row in before.items():
        assert feed.book.get(key) == row
    assert feed.completeness[A] is Completeness.UNKNOWN
    (problem,) = feed.problems
    assert problem.startswith(f"account {A} has none of its holdings in the list of positions")


async def test_a_second_list_that_says_the_same_closes_them(emptied):
    _sim, feed = emptied
    assert feed.positions_due
    await feed.snapshot()
    assert held(feed) == 0
    assert held(feed, B) == 4
    await feed.download()
    assert feed.is_complete
    assert feed.problems == []
    assert feed.positions_due is False


async def test_a_second_list_that_names_one_counts_and_the_account_is_downloaded_again(emptied):
    sim, feed = emptied
    sim.close_position(A, PUT)
    sim.empty_lists(A, empty=False)
    await feed.snapshot()
    assert held(feed) == 4
    assert feed.overdue == [A]
    await feed.download(feed.overdue)
    assert feed.is_complete


async def test_after_an_interruption_the_next_list_is_a_first_one(emptied, eventually):
    sim, feed = emptied
    sim.connectivity("lost")
    await eventually(lambda: feed.connectivity.lost is not None)
    sim.connectivity("restored_data_kept")
    await eventually(lambda: feed.connectivity.lost is None)
    await feed.snapshot()
    assert held(feed) == 5
    await feed.snapshot()
    assert held(feed) == 0


async def test_a_row_that_says_zero_closes_its_holding_and_the_last_one_ends_the_doubt(
    emptied, eventually
):
    sim, feed = emptied
    conids = [row.instrument.conid for row in feed.book.holdings if row.account == A]
    for left, conid in enumerate(conids):
        assert held(feed) == len(conids) - left
        assert feed.states[A].is_doubted
        sim.close_position(A, conid)
        await eventually(lambda conid=conid: feed.book.get((A, conid)).position == 0)
    assert not feed.states[A].is_doubted
    assert feed.completeness[A] is Completeness.COMPLETE


async def test_a_held_leg_whose_quantity_is_none_is_set_aside_and_not_closed(opened):
    sim, connection = opened
    feed = connection.feed
    await feed.ensure(timedelta(hours=1))
    sim.holding(A, CALL, "nan")
    await feed.snapshot()
    assert feed.book.get((A, CALL)).confirmed_at is None
    await feed.download()
    assert len(feed.book.holdings) == HELD
    assert feed.book.get((A, CALL)).position == 5.0
    assert {h.key for h in feed.book.holdings if h.market_value is None} == {WORTHLESS}
    assert all(h.position for h in feed.book.holdings)

    (problem,) = feed.problems
    assert problem.startswith("1 holding is set aside: conid 921000001 of DUSIM0001")
    assert feed.completeness[A] is Completeness.PARTIAL
    sim.holding(A, CALL, None)
    await feed.snapshot()
    await feed.download()
    assert feed.problems == []
    assert feed.is_complete


@pytest.mark.parametrize(
    ("account", "conid"),
    [(A, -5), ("DU999", OPENED), ("", OPENED)],
    ids=["negative", "foreign account", "no account"],
)
async def test_a_row_without_sense_is_set_aside_and_the_others_are_complete(opened, account, conid):
    sim, connection = opened
    feed = connection.feed
    sim.holding(account, conid, 3)
    await feed.ensure(timedelta(hours=1))
    assert len(feed.book.holdings) == HELD
    assert {h.key for h in feed.book.holdings if h.market_value is None} == {WORTHLESS}
    assert all(h.confirmed_at is not None for h in feed.book.holdings)
    (problem,) = feed.problems
    assert f"conid {conid} of {account or 'no account'}" in problem


async def test_the_end_of_a_download_confirms_no_holding_that_it_set_aside(opened):
    sim, connection = opened
    feed = connection.feed
    await feed.ensure(timedelta(hours=1))
    others = [h.key for h in feed.book.holdings if h.account == A and h.instrument.conid != CALL]
    before = feed.book.get((A, CALL))
    changes = feed.book.all_changes.watch()
    sim.holding(A, CALL, "nan")
    await feed.download([A])
    assert (A, CALL) in changes.take()
    assert feed.book.get((A, CALL)).confirmed_at is None
    assert feed.book.get((A, CALL)).value_time == before.value_time
    assert all(feed.book.get(key).confirmed_at > before.confirmed_at for key in others)

    sim.holding(A, CALL, None)
    await feed.snapshot()  # a position has no value
    feed.book.confirm(A)
    assert feed.problems == []
    assert feed.book.get((A, CALL)).confirmed_at is None
    await feed.download([A])
    assert feed.book.get((A, CALL)).confirmed_at > before.confirmed_at
