"""One odd holding is set aside by name, and every other one is followed."""

from datetime import timedelta

import pytest

from position_sync_dagster.domain.holding import Completeness
from position_sync_dagster.gateway.connection import connect

A, CALL, PUT = "DUSIM0001", 921000001, 921000002
HELD = 9
UNSET = "1.7976931348623157E308"
LONG = timedelta(hours=1)


@pytest.mark.parametrize("position", ["nan", UNSET, "", "many"])
async def test_a_held_leg_whose_quantity_is_none_is_set_aside_and_not_closed(opened, position):
    sim, connection = opened
    feed = connection.feed
    await feed.ensure(LONG)
    sim.holding(A, CALL, position)
    await feed.snapshot()
    await feed.download()
    assert len(feed.holdings) == HELD
    assert feed.get((A, CALL)).position == 5.0
    assert all(h.position and h.market_value is not None for h in feed.holdings)
    (problem,) = feed.problems
    assert problem.startswith("1 holding is set aside: conid 921000001 of DUSIM0001")
    assert feed.completeness[A] is Completeness.PARTIAL
    sim.holding(A, CALL, None)
    await feed.snapshot()
    await feed.download()
    assert feed.problems == []
    assert feed.is_complete


@pytest.mark.parametrize(
    ("account", "conid", "symbol"),
    [(A, -5, None), (A, 921000007, " "), ("DU999", 921000007, None), ("", 921000007, None)],
    ids=["negative", "no symbol", "foreign account", "no account"],
)
async def test_a_row_without_sense_is_set_aside_and_the_others_are_complete(
    simulate, settings_for, account, conid, symbol
):
    async with simulate() as sim:
        sim.holding(account, conid, 3, symbol)
        connection = await connect(settings_for(sim))
        feed = connection.feed
        await feed.ensure(LONG)
        assert len(feed.holdings) == HELD
        assert all(h.market_value is not None for h in feed.holdings)
        assert all(h.confirmed_at is not None for h in feed.holdings)
        (problem,) = feed.problems
        assert f"conid {conid} of {account or 'no account'}" in problem
        await connection.close()


async def test_the_end_of_a_download_confirms_no_holding_that_it_set_aside(opened):
    sim, connection = opened
    feed = connection.feed
    await feed.ensure(LONG)
    others = [h.key for h in feed.holdings if h.account == A and h.instrument.conid != CALL]
    before = feed.get((A, CALL))
    changes = feed.book.watch_all()
    sim.holding(A, CALL, "nan")
    await feed.download([A])
    assert (A, CALL) in changes.take()
    assert feed.get((A, CALL)).confirmed_at is None
    assert feed.get((A, CALL)).value_time == before.value_time
    assert all(feed.get(key).confirmed_at > before.confirmed_at for key in others)
    sim.holding(A, CALL, None)
    await feed.snapshot()  # a position has no value
    feed.book.confirmed.confirm(A)
    assert feed.problems == []
    assert feed.get((A, CALL)).confirmed_at is None
    await feed.download([A])
    assert feed.get((A, CALL)).confirmed_at > before.confirmed_at
