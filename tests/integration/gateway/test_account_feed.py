"""The account feed: whole snapshots, one account at a time; a failure closes nothing."""

import time
from datetime import timedelta

import pytest

from position_sync_dagster.domain.holding import Completeness
from position_sync_dagster.errors import GatewayLostError
from position_sync_dagster.gateway import account_feed
from position_sync_dagster.gateway.connection import connect

BOTH = ("DUSIM0001", "DUSIM0002")


async def test_a_snapshot_knows_every_holding_and_no_value(opened):
    _sim, connection = opened
    await connection.feed.snapshot()
    held = {h.key: h.position for h in connection.feed.holdings}
    assert held[("DUSIM0001", 921000001)] == 5.0
    assert held[("DUSIM0002", 921000001)] == -1.0
    assert len(held) == 9
    assert all(h.market_value is None for h in connection.feed.holdings)
    assert not connection.feed.is_complete


async def test_the_rows_are_kept_once_and_not_by_ib_async_too(opened):
    _sim, connection = opened
    await connection.feed.ensure(timedelta(minutes=1))
    assert len([h for h in connection.feed.holdings if h.market_value is not None]) == 9
    assert connection.ib.positions() == []
    assert connection.ib.portfolio() == []


@pytest.fixture(params=["UTC", "America/New_York"])
def zone(request, monkeypatch):
    """Run in another time zone; the simulator's gateway sends UTC."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def move_to_zone(monkeypatch):
    """Move this process to a zone so many hours ahead of UTC."""

    def move(hours):
        monkeypatch.setenv("TZ", f"XXX-{hours}")
        time.tzset()

    yield move
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("before_h", "gateway_h", "here_h", "dated"),
    [(2, 1, 1, True), (2, 1, 2, False), (2, 3, 2, False), (0, 1, 0, False)],
    ids=["daylight saving ends", "our clock runs ahead", "our clock is behind", "behind, in UTC"],
)
async def test_the_time_of_a_later_row_is_read_anew_or_left_unknown(
    simulate,
    settings_for,
    eventually,
    move_to_zone,
    one_account,
    before_h,
    gateway_h,
    here_h,
    dated,
):
    """The simulator sends UTC, so its clock is set to what another zone's clocks show."""
    key = ("DUSIM0001", 930000001)
    shown_h = before_h
    move_to_zone(before_h)
    async with simulate(one_account, now=lambda: time.time() + shown_h * 3600) as sim:
        connection = await connect(settings_for(sim))
        feed = connection.feed
        await feed.ensure(timedelta(seconds=60))
        assert feed.get(key).received_at - feed.get(key).value_time < timedelta(minutes=2)
        shown_h = gateway_h
        move_to_zone(here_h)
        sim.fill(*key, 5)
        await eventually(lambda: feed.get(key).position == 15 and feed.get(key).market_value)
        await connection.ib.reqCurrentTimeAsync()
        row = feed.get(key)
        if dated:
            assert row.received_at - row.value_time < timedelta(minutes=2)
        else:
            assert row.value_time is None
        await connection.close()


async def test_the_times_of_a_gateway_in_another_zone_are_unknown(
    simulate, settings_for, one_account
):
    key = ("DUSIM0001", 930000001)
    async with simulate(one_account, now=lambda: time.time() + 5.5 * 3600) as sim:
        connection = await connect(settings_for(sim))
        for _ in range(2):
            await connection.feed.download()
        row = connection.feed.get(key)
        await connection.close()
    assert (row.market_value is not None, row.value_time) == (True, None)


async def test_a_clock_that_was_set_back_makes_the_feed_request_the_values_again(opened):
    sim, connection = opened
    feed = connection.feed
    await feed.ensure(timedelta(seconds=60))
    (before,) = sim.stats()["requests"].values()
    feed.downloaded_at += timedelta(hours=1)
    await feed.ensure(timedelta(seconds=60))
    (after,) = sim.stats()["requests"].values()
    assert after["reqAccountUpdates"] > before["reqAccountUpdates"]


@pytest.mark.usefixtures("zone")
async def test_a_download_brings_the_values_of_each_account(opened, eventually):
    sim, connection = opened
    feed = connection.feed
    await feed.ensure(timedelta(seconds=60))
    assert feed.completeness == dict.fromkeys(BOTH, Completeness.COMPLETE)
    assert feed.is_complete
    held = {(p["account"], p["conid"]): p for p in sim.positions() if p["quantity"]}
    for holding in feed.holdings:
        assert holding.market_value is not None, holding
        assert holding.position == held[holding.key]["quantity"]
        assert holding.value_time is not None
        assert holding.received_at - holding.value_time < timedelta(minutes=2)
    on_and_off_for_two = 4
    await eventually(
        lambda: sim.stats()["requests"]["17"]["reqAccountUpdates"] == on_and_off_for_two
    )


async def test_a_second_ensure_requests_nothing_while_the_values_are_recent(opened):
    sim, connection = opened
    await connection.feed.ensure(timedelta(seconds=60))
    await connection.ib.reqCurrentTimeAsync()
    (before,) = sim.stats()["requests"].values()
    await connection.feed.ensure(timedelta(seconds=60))
    await connection.ib.reqCurrentTimeAsync()
    (after,) = sim.stats()["requests"].values()
    assert after == before | {"reqCurrentTime": 2}


async def test_a_fill_and_a_close_are_reported_at_once(opened, eventually, monkeypatch):
    monkeypatch.setattr(account_feed, "LATE_S", 0.0)  # as long after the download
    sim, connection = opened
    feed = connection.feed
    await feed.ensure(timedelta(seconds=60))
    changes = feed.book.watch()
    opened_key, closed_key = ("DUSIM0001", 921000007), ("DUSIM0001", 921000002)
    sim.fill(*opened_key, 4)
    sim.close_position(*closed_key)
    await eventually(lambda: feed.get(opened_key) and feed.get(closed_key).position == 0)
    assert feed.overdue == ["DUSIM0001"]  # it sends no values by itself
    assert feed.get(opened_key).position == 4.0
    assert {opened_key, closed_key} <= set(changes.take())


async def test_a_holding_closed_while_disconnected_is_found_by_the_next_snapshot(
    opened, settings_for
):
    sim, first = opened
    await first.feed.snapshot()
    await first.close()
    sim.close_position("DUSIM0001", 921000002)
    second = await connect(settings_for(sim, gateway_client_id=30))
    second.feed.book.remember(first.feed.holdings)
    await second.feed.snapshot()
    assert second.feed.get(("DUSIM0001", 921000002)).position == 0.0
    await second.close()


async def test_a_lost_connection_closes_no_holding(opened, eventually):
    sim, connection = opened
    await connection.feed.snapshot()
    held = connection.feed.holdings
    sim.disconnect()
    await eventually(lambda: not connection.is_connected)
    with pytest.raises((GatewayLostError, ConnectionError)):
        await connection.feed.snapshot()
    assert connection.feed.holdings == held
