"""Outages and odd messages: what the stream does while they last, and what it trusts afterwards."""

import asyncio
import threading
from contextlib import AsyncExitStack
from functools import partial

import pytest

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.domain.holding import Completeness
from position_sync_dagster.domain.leg import LegState
from position_sync_dagster.domain.position_update import ValueOrigin
from position_sync_dagster.domain.retry import Backoff
from position_sync_dagster.errors import BrokerUnavailableError, LakeNotWritableError
from position_sync_dagster.gateway.connection import IBConnectionManager
from position_sync_dagster.sync.broker_view import ConnectionValues
from position_sync_dagster.sync.stream import delivery
from tests.support.booked_legs import CALL, PUT, A, B, leg
from tests.support.streams import (
    AT_ONCE,
    eventually,
    offline,
    published,
    requests,
    simulate,
    updates_continue,
)


@pytest.fixture
def stream_legs(stream_legs):
    """Stream legs on a login whose accounts are requested again at once."""
    return partial(stream_legs, account_again=AT_ONCE)


async def test_after_a_dropped_connection_it_streams_again_by_itself(stream_legs):
    async with stream_legs(PUT) as (sim, streamer, received):
        sim.close_position(A, CALL)
        await eventually(lambda: streamer.routes[(A, CALL)] is LegState.CLOSED)
        sim.disconnect()
        await eventually(lambda: streamer.counts.reconnects == 1)
        await updates_continue(streamer, received)
        assert sim.stats()["lines_in_use"] == 1
        assert sim.stats()["connections"]["now"] == 1


def make_slow(table, monkeypatch):
    """Make the next commits of a table wait; return the events that let them go on, and began."""
    slow = threading.Event()
    began = threading.Event()

    def waiting(write):
        def wait_and_write(*args, **more):
            began.set()
            slow.wait()
            return write(*args, **more)

        return wait_and_write

    for name in ("update", "replace"):
        monkeypatch.setattr(table, name, waiting(getattr(table, name)))
    return slow, began


async def test_the_end_of_a_connection_makes_the_stream_blind_before_anything_looks_at_it(
    stream_legs, lake, monkeypatch
):
    async with stream_legs(PUT, pnl_subscriptions=0) as (sim, streamer, _received):
        parked: list[bool] = []
        monkeypatch.setattr(delivery.Flusher, "_flush", lambda *_: parked.append(True))
        await eventually(lambda: parked)
        slow, began = make_slow(lake.broker_positions, monkeypatch)
        try:
            sim.fill(A, PUT, 1)
            await eventually(began.is_set)
            sim.disconnect()
            await eventually(lambda: streamer.state is SessionState.BLIND)
        finally:
            slow.set()


async def test_after_connectivity_was_restored_without_data_everything_is_requested_again(
    stream_legs,
):
    async with stream_legs(PUT) as (sim, streamer, received):
        sim.connectivity("lost")
        await eventually(lambda: streamer.state is SessionState.BLIND)
        assert "has been lost" in streamer.detail
        sim.connectivity("restored_data_lost")
        await updates_continue(streamer, received)
        assert requests(sim, "reqMktData") == 2
        assert sim.stats()["lines_in_use"] == 1
        assert streamer.lines_in_use == 1
        assert sim.stats()["connections"]["total"] == 1


async def test_the_order_to_use_another_port_is_said_until_the_stream_is_there(stream_legs):
    async with stream_legs(PUT) as (sim, streamer, received):
        new_port = await sim.change_port()
        await eventually(lambda: "Nothing listens" in (streamer.detail or ""))
        assert f"the new port - {new_port} (code 1300)" in streamer.detail
        await sim.change_port(port=streamer.settings.gateway_port)
        await updates_continue(streamer, received)
        await eventually(lambda: streamer.detail is None)


async def test_a_loss_of_ib_during_which_data_go_on_ends_with_a_new_connection(stream_legs, caplog):
    async with stream_legs(PUT, data_despite_loss_s=0.5) as (sim, streamer, received):
        sim.connectivity("reported_lost")
        await eventually(lambda: streamer.state is SessionState.BLIND)
        await updates_continue(streamer, received)
        assert streamer.counts.reconnects == 1
        assert sim.stats()["lines_in_use"] == 1
    assert "still arrive" in caplog.text


async def test_a_loss_of_ib_without_a_line_ends_with_a_new_connection_after_a_while(
    stream_legs,
):
    async with stream_legs(underlying_lines=0, long_loss_s=0.5) as (sim, streamer, _received):
        sim.connectivity("reported_lost")
        await eventually(lambda: streamer.state is SessionState.BLIND)
        await eventually(lambda: streamer.state is SessionState.LIVE)
        assert streamer.counts.reconnects == 1


async def test_a_loss_of_ib_from_before_the_log_in_is_doubted_after_a_while_too(stream_legs):
    async with stream_legs(long_loss_s=0.5) as (sim, streamer, _received):
        sim.connectivity("lost")
        await eventually(lambda: streamer.state is SessionState.BLIND)
        await eventually(lambda: streamer.counts.reconnects >= 2)
        assert streamer.state is SessionState.BLIND
        assert "is broken" in streamer.detail


async def test_the_delay_grows_with_each_attempt_until_a_connection_is_open(lake, running_streamer):
    failures_seen: list[int] = []

    class Remembered(Backoff):
        def delay_s(self, failures, random=None):
            failures_seen.append(failures)
            return 0.01

    remembered = Remembered(first_s=0.01, longest_s=0.01)
    await lake.registry.add_active(**leg(PUT))

    async with AsyncExitStack() as gateway:
        sim = await gateway.enter_async_context(simulate())
        async with running_streamer(sim, reconnect=remembered) as streamer:
            await eventually(lambda: streamer.state is SessionState.LIVE)
            sim.disconnect()
            await eventually(lambda: streamer.counts.reconnects == 1)
            await eventually(lambda: streamer.state is SessionState.LIVE)
            await gateway.aclose()
            await eventually(lambda: len(failures_seen) >= 5)
    assert failures_seen[:5] == [0, 1, 1, 2, 3]


async def test_a_lake_that_fails_while_it_connects_is_tried_again(
    lake, running_streamer, monkeypatch
):
    replace = lake.broker_positions.replace
    failures = iter([LakeNotWritableError("The disk is full.", remedy="Make room.")] * 3)

    def full(*args, **more):
        for error in failures:
            raise error
        return replace(*args, **more)

    monkeypatch.setattr(lake.broker_positions, "replace", full)
    async with simulate() as sim, running_streamer(sim) as streamer:
        await eventually(lambda: "The disk is full" in (streamer.detail or ""))
        await eventually(lambda: streamer.state is SessionState.LIVE)


async def test_the_stream_waits_on_one_connection_for_a_gateway_without_ib(lake, running_streamer):
    await lake.registry.add_active(**leg(PUT))
    async with simulate() as sim:
        sim.connectivity("lost")
        async with running_streamer(sim) as streamer:
            await eventually(lambda: streamer.state is SessionState.BLIND)
            assert "is broken" in streamer.detail  # code 2110
            await asyncio.sleep(0.5)
            assert sim.stats()["connections"]["total"] == 1
            assert not streamer.routes
            sim.connectivity("restored_data_kept")
            await eventually(lambda: streamer.state is SessionState.LIVE)
            await eventually(lambda: sim.stats()["lines_in_use"] == 1)
            assert streamer.counts.reconnects == 0


# The market moves only when a test says so.
BY_STEPS = {"simulator": {"autostep": False}, "flush_interval_s": 0.1, "rows": False}


def by_tick(row):
    return row.value_source is ValueOrigin.TICK


async def check_that_a_fill_has_no_value_by_the_line(sim, received):
    position = sim.fill(A, PUT, 1)["quantity"]
    row = await received.row(PUT, lambda row: row.position == position)
    assert row.value_source is not ValueOrigin.TICK
    assert row.bid is None
    assert row.ask is None
    assert row.delta is None


async def test_a_quote_from_before_a_farm_broke_does_not_count_until_its_next_tick(stream_legs):
    async with stream_legs(PUT, **BY_STEPS) as (sim, streamer, received):
        sim.step()
        row = await received.row(PUT, by_tick)
        assert row.bid is not None
        sim.farm("usopt", 2103)
        await eventually(lambda: streamer.detail == "data farm usopt is broken")
        assert streamer.state is SessionState.LIVE
        await check_that_a_fill_has_no_value_by_the_line(sim, received)
        sim.farm("usopt", 2104)
        await eventually(lambda: streamer.detail is None)
        sim.step()
        await received.row(PUT, by_tick)
        assert requests(sim, "reqMktData") == 1


async def test_a_tick_that_came_while_the_gateway_had_lost_ib_does_not_count_after_the_restore(
    stream_legs,
):
    async with stream_legs(PUT, **BY_STEPS) as (sim, streamer, received):
        sim.step()
        await received.row(PUT)
        opened = streamer._link
        sim.connectivity("reported_lost")
        await eventually(lambda: streamer.state is SessionState.BLIND)
        heard_at = opened.connection.lines.heard_at_s
        sim.step()
        await eventually(lambda: opened.connection.lines.heard_at_s > heard_at)
        sim.connectivity("restored_data_kept")
        await eventually(lambda: streamer.state is SessionState.LIVE)
        await check_that_a_fill_has_no_value_by_the_line(sim, received)
        sim.step()
        await received.row(PUT, by_tick)


async def test_values_from_before_a_loss_of_ib_during_the_first_step_are_not_current(
    lake, running_streamer, monkeypatch
):
    slow, began = make_slow(lake.broker_positions, monkeypatch)
    async with simulate() as sim, running_streamer(sim) as streamer:
        try:
            await eventually(began.is_set)
            connectivity = streamer._link._attached.connectivity
            before = utc_now()
            sim.connectivity("reported_lost")
            await eventually(lambda: connectivity.lost)
            sim.connectivity("restored_data_kept")
            await eventually(lambda: connectivity.lost is None)
        finally:
            slow.set()
        await eventually(lambda: streamer.state is SessionState.LIVE)
        assert streamer.status()["live_since"] > before


async def test_a_gateway_that_hangs_makes_the_stream_blind_until_it_answers(stream_legs):
    stream = stream_legs(PUT, gateway_timeout_s=0.5, gateway_silence_s=0.3)
    async with stream as (sim, streamer, received):
        sim.pause()
        await eventually(lambda: streamer.state is SessionState.BLIND)
        sim.resume()
        await updates_continue(streamer, received)


async def test_while_the_gateway_has_lost_ib_nothing_is_written(stream_legs, lake):
    async with stream_legs(PUT, refresh_interval_s=0.2) as (sim, streamer, received):
        sim.connectivity("lost")
        await eventually(lambda: streamer.state is SessionState.BLIND)
        manager = IBConnectionManager(streamer.settings)
        with pytest.raises(BrokerUnavailableError, match="has been lost"):
            await ConnectionValues(manager).view()
        await manager.close()

        def written():
            return len(received.updates), lake.broker_positions.table.version()

        async def nothing_is_written():
            before = written()
            await asyncio.sleep(0.5)  # what must not happen cannot be waited for
            return written() == before

        await eventually(nothing_is_written)  # once what was under way is
        count = len(received.updates)
        sim.connectivity("restored_data_kept")
        await eventually(lambda: len(received.updates) > count)


async def test_a_farm_that_is_broken_at_the_log_in_is_known(stream_legs):
    breaks = lambda sim: sim.farm("usfarm", 2103)  # noqa: E731
    async with stream_legs(PUT, prepare=breaks, rows=False) as (sim, streamer, _received):
        await eventually(lambda: streamer.detail == "data farm usfarm is broken")
        sim.farm("usfarm", 2104)
        await eventually(lambda: streamer.detail is None)


@pytest.mark.parametrize("restore", ["restored_data_kept", "restored_data_lost"])
async def test_a_restore_before_the_login_ended_makes_the_stream_live_on_the_same_connection(
    lake, running_streamer, restore
):
    await lake.registry.add_active(**leg(PUT))
    async with simulate() as sim:
        sim.connectivity("lost", "none")
        async with running_streamer(sim, gateway_timeout_s=600.0) as streamer:
            await eventually(lambda: requests(sim, "reqPositions"))
            sim.connectivity(restore)
            await eventually(lambda: streamer.state is SessionState.LIVE)
            await eventually(lambda: sim.stats()["lines_in_use"] == 1)
            assert sim.stats()["connections"]["total"] == 1


async def test_an_account_without_an_end_is_in_the_detail_and_is_downloaded_again(
    stream_legs, lake
):
    def rated():
        rows = published(lake, streamer.settings).values()
        return {row.account: row.completeness for row in rows}

    async with stream_legs(PUT, account_quiet_s=0.2) as (sim, streamer, _received):
        sim.download_end(B, delay_s=None)
        await offline(sim, streamer, "restored_data_lost")
        unended = f"account {B}: its download did not end"
        await eventually(lambda: unended in (streamer.detail or ""))
        partial = {A: Completeness.COMPLETE, B: Completeness.PARTIAL}
        await eventually(lambda: rated() == partial)
        sim.download_end(B)
        await eventually(lambda: streamer.detail is None)
        await eventually(lambda: rated() == dict.fromkeys((A, B), Completeness.COMPLETE))


@pytest.mark.parametrize("conid", [0, -5, 2**40])
async def test_an_odd_holding_is_named_and_the_others_are_streamed_and_queued(
    stream_legs, lake, conid
):
    odd = lambda sim: sim.holding(A, conid, "nan", "")  # noqa: E731
    async with stream_legs(PUT, prepare=odd) as (_sim, streamer, _received):
        assert f"1 holding is set aside: conid {conid} of {A}" in streamer.detail
        assert streamer.routes[(A, CALL)] is LegState.MONITORED
        await eventually(lambda: _count_queued(lake))


async def _count_queued(lake):
    return sum((await lake.queue.counts()).values())
