"""The account feed: whole snapshots, one account at a time; a failure closes nothing."""

from datetime import timedelta

import pytest

from position_sync_dagster.domain.broker_position import Completeness
from position_sync_dagster.errors import GatewayLostError, GatewayTimeoutError
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


async def test_a_clock_that_was_set_back_makes_the_feed_request_the_values_again(opened):
    sim, connection = opened
    feed = connection.feed
    await feed.ensure(timedelta(seconds=60))
    (before,) = sim.stats()["requests"].values()
    feed.downloaded_at += timedelta(hours=1)
    await feed.ensure(timedelta(seconds=60))
    (after,) = sim.stats()["requests"].values()
    assert after["reqAccountUpdates"] > before["reqAccountUpdates"]


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


async def test_a_gateway_that_goes_silent_is_a_timeout_and_changes_nothing(opened, monkeypatch):
    sim, connection = opened
    await connection.feed.snapshot()
    held = connection.feed.holdings
    monkeypatch.setattr(connection.feed, "_timeout_s", 0.3)
    sim.pause()
    with pytest.raises(GatewayTimeoutError, match="list of positions"):
        await connection.feed.snapshot()
    assert connection.feed.holdings == held
    sim.resume()
