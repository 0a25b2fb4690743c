"""The streamer: lines for active legs, the queue for everything else, and what moves between."""

import asyncio
import shutil
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.domain.leg import LegState
from position_sync_dagster.domain.request import QueueStatus
from position_sync_dagster.domain.retry import Backoff
from position_sync_dagster.domain.update import PriceKind, ValueOrigin
from position_sync_dagster.errors import (
    BrokerUnavailableError,
    GatewayRefusedError,
    LakeNotWritableError,
)
from position_sync_dagster.gateway import connection
from position_sync_dagster.gateway.connection import IBConnectionManager
from position_sync_dagster.lake.registry.table import StrategyRegistry
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.drain.shared_connection import ConnectionValues
from position_sync_dagster.sync.stream import streamer as streamer_module
from position_sync_dagster.sync.stream.streamer import IBPositionStreamer

A, B = "DUSIM0001", "DUSIM0002"
CALL, PUT, WORTHLESS, CENTS, STOCK, UNHELD = (
    921000001, 921000002, 921000003, 921000004, 920000001, 921000007,
)  # fmt: skip


async def queued(lake):
    rows = await lake.queue.get_batch(priority=None, limit=1000, status=QueueStatus.PENDING)
    return {(row.account, row.conid): row for row in rows}


async def test_active_legs_stream_and_everything_else_is_queued(desk, lake, eventually):
    async with desk(PUT) as (sim, streamer, heard):
        await eventually(lambda: heard.newest(A, PUT))
        requests = await eventually(lambda: queued(lake))
        assert streamer.lines_in_use == sim.stats()["lines_in_use"] == 1
        assert len(requests) == 8
        assert (A, PUT) not in requests
        rows = await lake.broker_positions.read(streamer.settings.gateway_id)
        assert len(rows) == 9


async def test_one_line_serves_every_account_that_holds_the_leg(
    simulate, streaming, lake, leg, eventually
):
    async with simulate() as sim:
        await lake.registry.add_active(**leg(CALL, account=A))
        async with streaming(sim) as (streamer, heard):
            await eventually(lambda: heard.newest(A, CALL) and heard.newest(B, CALL))
            assert sim.stats()["peak_lines"] == streamer.lines_in_use == 1
            assert heard.newest(A, CALL).position == 5.0
            assert heard.newest(B, CALL).position == -1.0


async def test_a_streamed_row_agrees_with_the_brokers_own_value(
    simulate, streaming, lake, leg, eventually
):
    async with simulate() as sim:
        for conid in (CALL, CENTS, STOCK):
            await lake.registry.add_active(**leg(conid))
        async with streaming(sim) as (_streamer, heard):
            for conid, factor in ((CALL, 100), (CENTS, 50), (STOCK, 1)):
                row = await eventually(lambda c=conid: heard.newest(A, c))
                assert (row.price_kind, row.value_source) == (PriceKind.MARK, ValueOrigin.TICK)
                assert row.market_value == pytest.approx(row.position * row.market_price * factor)

                async def told_of(conid=conid):
                    rows = await lake.broker_positions.read(f"127.0.0.1:{sim.port}")
                    return [r for r in rows if r.key == (A, conid) and r.market_value]

                (told,) = await eventually(told_of)
                assert row.market_value == pytest.approx(told.market_value, rel=0.05)
                assert row.unrealized_pnl == pytest.approx(
                    row.market_value - row.position * told.average_cost
                )


async def test_a_worthless_option_without_a_bid_has_no_value(desk, eventually):
    async with desk(WORTHLESS) as (_sim, _streamer, heard):
        row = await eventually(lambda: heard.newest(A, WORTHLESS))
        assert (row.ask, row.bid) == (0.05, None)
        if row.price_kind is None:
            assert row.market_value is None
        else:
            assert row.price_kind is PriceKind.MARK


async def test_a_leg_added_by_another_process_streams_and_removed_goes_back(
    simulate, streaming, lake, leg, eventually
):
    async with simulate() as sim:
        elsewhere = StrategyRegistry(lake.table_path("active_strategies"))
        await elsewhere.initialize()
        async with streaming(sim) as (streamer, heard):
            await eventually(lambda: queued(lake))
            assert streamer.routes[(A, PUT)] is LegState.MONITORED
            await elsewhere.add_active(**leg(PUT))
            await eventually(lambda: heard.newest(A, PUT))
            assert sim.stats()["lines_in_use"] == 1
            await elsewhere.remove_active(PUT)
            await eventually(lambda: sim.stats()["lines_in_use"] == 0)
            assert streamer.routes[(A, PUT)] is LegState.MONITORED
            assert (A, PUT) in await queued(lake)


async def test_an_armed_leg_takes_its_line_when_it_is_first_held(desk, lake, eventually):
    async with desk(UNHELD) as (sim, streamer, heard):
        await eventually(lambda: queued(lake))
        assert streamer.lines_in_use == 0
        sim.fill(A, UNHELD, 3)
        row = await eventually(lambda: heard.newest(A, UNHELD))
        assert row.position == 3.0
        assert streamer.lines_in_use == 1


async def test_a_streamed_position_that_closes_gives_a_zero_row_and_frees_its_line(
    desk, eventually
):
    async with desk(PUT) as (sim, _streamer, heard):
        await eventually(lambda: heard.newest(A, PUT))
        sim.close_position(A, PUT)
        row = await eventually(lambda: heard.newest(A, PUT).position == 0 and heard.newest(A, PUT))
        assert (row.market_value, row.unrealized_pnl) == (0.0, 0.0)
        await eventually(lambda: sim.stats()["lines_in_use"] == 0)


async def test_a_close_that_comes_in_the_middle_of_a_step_is_still_the_streams(
    desk, lake, eventually, monkeypatch
):
    quiet = {"tick_interval_s": 600}  # so that no tick brings the row
    async with desk(PUT, simulator=quiet, flush_interval_s=2.0) as (sim, streamer, heard):
        await eventually(lambda: heard.newest(A, PUT) and streamer._account_refresh.idle)
        await asyncio.sleep(2.5)  # until what the walk brought is dealt with
        waits, freed = asyncio.Event(), asyncio.Event()
        refresh = lake.registry.refresh

        async def slow():
            waits.set()
            await freed.wait()
            await refresh()
            return True  # so that this very step routes anew

        monkeypatch.setattr(lake.registry, "refresh", slow)
        await asyncio.wait_for(waits.wait(), 30)
        sim.close_position(A, PUT)
        await eventually(lambda: streamer._connection.feed.get((A, PUT)).position == 0)
        freed.set()
        await eventually(lambda: heard.newest(A, PUT).position == 0)
        await asyncio.sleep(2.5)  # what must not happen cannot be waited for
        assert len(heard.closes(PUT)) == 1
        assert (A, PUT) not in await queued(lake)


async def test_a_close_is_told_once_however_long_a_step_takes(desk, lake, eventually, monkeypatch):
    async with desk(PUT) as (sim, streamer, heard):
        await eventually(lambda: heard.newest(A, PUT))
        refresh = lake.registry.refresh

        async def slow():
            await asyncio.sleep(0.3)  # some flushes
            return await refresh()

        monkeypatch.setattr(lake.registry, "refresh", slow)
        sim.close_position(A, PUT)
        await eventually(lambda: streamer.routes[(A, PUT)] is LegState.CLOSED)
        await asyncio.sleep(0.5)  # what must not happen cannot be waited for
        assert len(heard.closes(PUT)) == 1


async def test_fills_reroute_at_once(desk, eventually):
    async with desk(UNHELD, flush_interval_s=600) as (sim, streamer, _heard):
        sim.fill(A, UNHELD, 3)
        await eventually(lambda: streamer.routes.get((A, UNHELD)) is LegState.STREAMED)


async def test_fills_without_end_make_no_step_without_end(desk, lake, eventually):
    async with desk(PUT, flush_interval_s=1.0) as (sim, streamer, heard):
        await eventually(lambda: heard.newest(A, PUT) and streamer._account_refresh.idle)
        before = await lake.broker_positions.version()
        began = time.monotonic()
        for _ in range(30):
            sim.fill(A, CALL, 1)
            await asyncio.sleep(0.1)
        steps = await lake.broker_positions.version() - before
        assert steps <= 2 * (time.monotonic() - began + 1)


async def test_a_leg_that_loses_its_line_while_the_queue_fails_is_queued_later(
    desk, lake, eventually, monkeypatch
):
    async with desk(PUT) as (_sim, streamer, heard):
        await eventually(lambda: heard.newest(A, PUT) and streamer._account_refresh.idle)
        await eventually(lambda: queued(lake))

        async def fails(_requests):
            raise LakeNotWritableError("The disk is full.", remedy="Free some space.")

        monkeypatch.setattr(lake.queue, "insert_many", fails)
        await lake.registry.remove_active(PUT)
        await eventually(lambda: streamer.routes[(A, PUT)] is LegState.MONITORED)
        await asyncio.sleep(0.3)  # some steps
        monkeypatch.undo()
        await eventually(lambda: _both(lake, {(A, PUT)}))


async def test_a_monitored_position_that_changes_or_closes_is_queued_at_once(
    simulate, streaming, lake, eventually
):
    async with simulate() as sim, streaming(sim):
        await eventually(lambda: queued(lake))
        batch = await lake.queue.claim_batch(100)
        await lake.queue.mark_success([r.request_id for r in batch])
        sim.fill(A, CALL, 2)
        sim.close_position(A, PUT)
        requests = await eventually(lambda: _both(lake, {(A, CALL), (A, PUT)}))
        assert {r.reason for r in requests.values()} == {"CHANGED"}
        rows = {r.key: r for r in await lake.broker_positions.read(f"127.0.0.1:{sim.port}")}
        assert rows[(A, CALL)].position == 7.0
        assert rows[(A, PUT)].position == 0.0


async def _both(lake, keys):
    requests = await queued(lake)
    return requests if keys <= set(requests) else None


async def test_legs_beyond_the_budget_overflow_into_the_queue_first(
    simulate, streaming, lake, leg, eventually
):
    async with simulate() as sim:
        for priority, conid in ((1, PUT), (2, CALL), (3, STOCK)):
            await lake.registry.add_active(**leg(conid, priority=priority))
        async with streaming(sim, max_lines=3, reserved_lines=2) as (streamer, heard):
            await eventually(lambda: heard.newest(A, PUT))
            requests = await eventually(lambda: queued(lake))
            assert sim.stats()["peak_lines"] == 1
            assert streamer.routes[(A, CALL)] is LegState.OVERFLOW
            assert requests[(A, CALL)].priority == requests[(B, CALL)].priority == 1
            assert requests[(A, WORTHLESS)].priority == 2


async def test_a_gateway_with_fewer_lines_than_configured_is_believed(
    simulate, streaming, lake, leg, eventually
):
    async with simulate() as sim:
        sim.set_line_limit(1)
        for conid in (PUT, CALL):
            await lake.registry.add_active(**leg(conid))
        async with streaming(sim, reserved_lines=0) as (streamer, heard):
            await eventually(lambda: streamer.line_limit == 1)
            await eventually(lambda: LegState.OVERFLOW in streamer.routes.values())
            await eventually(lambda: heard.updates)
            assert sim.stats()["lines_in_use"] == streamer.lines_in_use == 1


async def test_after_a_dropped_connection_it_streams_again_by_itself(desk, eventually, goes_on):
    async with desk(PUT) as (sim, streamer, heard):
        await eventually(lambda: heard.newest(A, PUT))
        sim.close_position(A, CALL)
        await eventually(lambda: streamer.routes[(A, CALL)] is LegState.CLOSED)
        sim.disconnect()
        await eventually(lambda: streamer.metrics.reconnects == 1)
        await goes_on(streamer, heard)
        assert sim.stats()["lines_in_use"] == 1
        assert sim.stats()["connections"]["now"] == 1


async def test_connectivity_lost_and_restored_with_data_lost_takes_everything_anew(
    desk, eventually, goes_on
):
    async with desk(PUT) as (sim, streamer, heard):
        await eventually(lambda: heard.newest(A, PUT))
        sim.connectivity("lost")
        await eventually(lambda: streamer.state is SessionState.BLIND)
        assert "has been lost" in streamer.detail
        sim.connectivity("restored_data_lost")
        await goes_on(streamer, heard)
        assert sim.stats()["lines_in_use"] == 1


async def test_a_gateway_that_drops_each_connection_is_asked_later_and_later(
    simulate, lake, leg, settings_for, eventually, monkeypatch
):
    asked: list[int] = []

    class Remembered(Backoff):
        def delay_s(self, failures, random=None):
            asked.append(failures)
            return 0.01

    remembered = Remembered(first_s=0.01, longest_s=0.01)
    monkeypatch.setattr(streamer_module, "RECONNECT", remembered)
    async with simulate() as sim:
        await lake.registry.add_active(**leg(PUT))
        streamer = IBPositionStreamer(
            lake.registry, lake.queue, settings=settings_for(sim, flush_interval_s=0.1)
        )
        stop = asyncio.Event()
        task = asyncio.create_task(streamer.run(stop))
        for reconnects in range(4):
            await eventually(lambda n=reconnects: streamer.metrics.reconnects == n)
            await eventually(lambda: streamer.state is SessionState.LIVE)
            sim.disconnect()
        await eventually(lambda: streamer.metrics.reconnects == 4)
        stop.set()
        await task
    assert asked == [1, 2, 3, 4]


def test_the_delay_before_a_connection_grows_to_half_a_minute_and_is_jittered():
    random, delay_s = Random(1), streamer_module.RECONNECT.delay_s
    most = [max(delay_s(n, random) for _ in range(200)) for n in range(1, 8)]
    for found, bound_s in zip(most, [2, 4, 8, 16, 30, 30, 30], strict=True):
        assert 0.95 * bound_s < found <= bound_s
    assert len({delay_s(3, random) for _ in range(10)}) == 10


async def test_a_table_that_is_slow_delays_no_other(desk, lake, eventually, monkeypatch):
    async with desk(PUT, flush_interval_s=0.1) as (sim, _streamer, heard):
        await eventually(lambda: heard.newest(A, PUT))
        freed = asyncio.Event()

        async def stuck(*_args, **_more):
            await freed.wait()

        monkeypatch.setattr(lake.broker_positions, "replace", stuck)
        monkeypatch.setattr(lake.queue, "insert_many", stuck)
        sim.fill(A, CALL, 1)
        await asyncio.sleep(0.3)
        count = len(heard.updates)
        await eventually(lambda: len(heard.updates) >= count + 5)
        monkeypatch.undo()
        freed.set()


async def test_a_lake_that_fails_while_it_connects_is_tried_again(
    simulate, lake, leg, settings_for, eventually, monkeypatch
):
    monkeypatch.setattr(streamer_module, "RECONNECT", Backoff(first_s=0.05, longest_s=0.05))
    replace = lake.broker_positions.replace
    failures = iter([LakeNotWritableError("The disk is full.", remedy="Make room.")] * 3)

    async def full(*args, **more):
        for error in failures:
            raise error
        return await replace(*args, **more)

    monkeypatch.setattr(lake.broker_positions, "replace", full)
    async with simulate() as sim:
        streamer = IBPositionStreamer(
            lake.registry,
            lake.queue,
            broker_positions=lake.broker_positions,
            settings=settings_for(sim, flush_interval_s=0.1),
        )
        stop = asyncio.Event()
        task = asyncio.create_task(streamer.run(stop))
        await eventually(lambda: "The disk is full" in (streamer.detail or ""))
        await eventually(lambda: streamer.state is SessionState.LIVE)
        stop.set()
        await task


async def test_a_registry_that_vanishes_keeps_its_legs_until_it_is_back(
    desk, lake, leg, eventually, caplog
):
    path = Path(lake.registry.table.path)
    async with desk(PUT, flush_interval_s=0.1) as (sim, streamer, heard):
        await eventually(lambda: heard.newest(A, PUT))
        path.rename(path.with_name("away"))
        await eventually(lambda: "deleted or moved away" in (streamer.detail or ""))
        assert streamer.state is SessionState.LIVE
        count = len(heard.updates)
        await eventually(lambda: len(heard.updates) > count + 5)
        assert streamer.routes[(A, PUT)] is LegState.STREAMED
        assert sim.stats()["lines_in_use"] == 1
        assert caplog.text.count("the legs known so far stay active") == 1
        assert not (path / "_delta_log").exists()
        if path.exists():
            shutil.rmtree(path)
        path.with_name("away").rename(path)
        await eventually(lambda: streamer.detail is None)
        await lake.registry.add_active(**leg(CALL))
        await eventually(lambda: streamer.routes[(A, CALL)] is LegState.STREAMED)


async def test_a_clock_that_goes_back_stops_neither_refresh_nor_queue(
    simulate, lake, leg, settings_for, eventually
):
    behind = timedelta()
    async with simulate() as sim:
        streamer = IBPositionStreamer(
            lake.registry,
            lake.queue,
            broker_positions=lake.broker_positions,
            settings=settings_for(sim, flush_interval_s=0.1, refresh_interval_s=1),
            clock=lambda: utc_now() - behind,
        )
        stop = asyncio.Event()
        task = asyncio.create_task(streamer.run(stop))
        await eventually(lambda: streamer.metrics.enqueued)
        behind = timedelta(hours=1)
        enqueued = streamer.metrics.enqueued
        await eventually(lambda: streamer.metrics.enqueued >= 3 * enqueued)
        stop.set()
        await task


async def test_a_gateway_that_is_itself_off_line_is_waited_for_on_one_connection(
    simulate, lake, leg, settings_for, eventually
):
    async with simulate() as sim:
        await lake.registry.add_active(**leg(PUT))
        sim.connectivity("lost")
        settings = settings_for(sim, flush_interval_s=0.1)
        streamer = IBPositionStreamer(lake.registry, lake.queue, settings=settings)
        stop = asyncio.Event()
        task = asyncio.create_task(streamer.run(stop))
        await eventually(lambda: streamer.state is SessionState.BLIND)
        assert "is broken" in streamer.detail  # code 2110
        await asyncio.sleep(0.5)
        assert sim.stats()["connections"]["total"] == 1
        assert not streamer.routes
        sim.connectivity("restored_data_kept")
        await eventually(lambda: streamer.state is SessionState.LIVE)
        await eventually(lambda: sim.stats()["lines_in_use"] == 1)
        assert streamer.metrics.reconnects == 0
        stop.set()
        await task


async def test_a_start_without_a_gateway_is_a_named_error(lake):
    settings = Settings(_env_file=None, gateway_port=1)
    streamer = IBPositionStreamer(lake.registry, lake.queue, settings=settings)
    with pytest.raises(GatewayRefusedError, match=r"127\.0\.0\.1:1"):
        await streamer.start()


async def test_run_keeps_trying_until_the_gateway_comes(
    simulate, lake, leg, settings_for, eventually, monkeypatch
):
    monkeypatch.setattr(streamer_module, "RECONNECT", Backoff(first_s=0.05, longest_s=0.05))
    async with simulate() as sim:
        port = sim.port
    settings = Settings(_env_file=None, gateway_port=port, flush_interval_s=0.1)
    streamer = IBPositionStreamer(lake.registry, lake.queue, settings=settings)
    stop = asyncio.Event()
    task = asyncio.create_task(streamer.run(stop))
    await eventually(lambda: streamer.state is SessionState.BLIND)
    assert f"127.0.0.1:{port}" in streamer.detail
    from position_sync_dagster.simulator import Simulator, load_book

    async with Simulator(load_book("small"), port=port, control_port=None):
        await eventually(lambda: streamer.state is SessionState.LIVE)
        stop.set()
        await task


async def test_two_streamers_of_one_process_share_connection_and_lines(
    simulate, lake, leg, settings_for, eventually
):
    async with simulate() as sim:
        await lake.registry.add_active(**leg(PUT))
        settings = settings_for(sim)
        streamers = [
            IBPositionStreamer(lake.registry, manager=IBConnectionManager(settings))
            for _ in range(2)
        ]
        for streamer in streamers:
            await streamer.start()
        await eventually(lambda: sim.stats()["lines_in_use"] == 1)
        assert sim.stats()["connections"]["now"] == 1
        await streamers[0].stop()
        assert sim.stats()["lines_in_use"] == 1
        await streamers[1].stop()
        await eventually(lambda: sim.stats()["connections"]["now"] == 0)
        assert sim.stats()["peak_lines"] == 1


async def test_legs_without_a_line_are_valued_by_their_own_profit_and_loss_feed(
    simulate, streaming, lake, leg, eventually
):
    async with simulate(pnl_interval_s=0.1) as sim:
        for priority, conid in ((1, PUT), (2, STOCK)):
            await lake.registry.add_active(**leg(conid, priority=priority))
        async with streaming(sim, max_lines=1, reserved_lines=0) as (streamer, _heard):
            row = await eventually(lambda: _row(lake, sim, (A, STOCK), "PNL_SINGLE"))
            assert row.market_value == pytest.approx(200 * 230, rel=0.1)
            assert row.daily_pnl is not None
            assert sim.stats()["peak_lines"] == 1
            assert streamer.routes[(A, STOCK)] is LegState.OVERFLOW
            await lake.registry.remove_active(PUT)
            await eventually(lambda: streamer.routes[(A, STOCK)] is LegState.STREAMED)
            assert streamer.metrics.promotions == 1
            assert sim.stats()["peak_lines"] == 1
            requests = sim.stats()["requests"]["17"]
            await eventually(lambda: "cancelPnLSingle" in sim.stats()["requests"]["17"])
            assert requests["reqPnLSingle"] == 1


async def _row(lake, sim, key, value_source):
    rows = {r.key: r for r in await lake.broker_positions.read(f"127.0.0.1:{sim.port}")}
    row = rows.get(key)
    return row if row is not None and row.value_source == value_source else None


async def test_a_leg_without_permission_is_queued_and_its_state_says_why(
    simulate, streaming, lake, leg, eventually
):
    async with simulate() as sim:
        sim.set_permission(PUT, 354)
        await lake.registry.add_active(**leg(PUT))
        async with streaming(sim) as (streamer, _heard):
            await eventually(lambda: streamer.routes.get((A, PUT)) is LegState.OVERFLOW)
            assert f"{PUT} has no market data: 354 Requested market data" in streamer.detail
            assert sim.stats()["lines_in_use"] == 0
            assert sim.stats()["requests"]["17"]["reqMktData"] == 1


async def test_a_leg_without_live_permission_streams_delayed_data_if_that_is_wished(
    simulate, streaming, lake, leg, eventually
):
    async with simulate() as sim:
        sim.set_permission(PUT, 354)
        await lake.registry.add_active(**leg(PUT))
        await lake.registry.add_active(**leg(CALL))
        async with streaming(sim, delayed_fallback=True) as (streamer, heard):
            await eventually(lambda: heard.newest(A, PUT) and heard.newest(A, CALL))
            assert heard.newest(A, PUT).market_data_type == 3
            assert heard.newest(A, CALL).market_data_type == 1
            assert sim.stats()["lines_in_use"] == streamer.lines_in_use == 2


@pytest.mark.parametrize(("broken", "well"), [(2103, 2104), (2105, 2106), (2105, 2107)])
async def test_a_broken_data_farm_is_told_and_nothing_is_torn_down(desk, eventually, broken, well):
    async with desk(PUT) as (sim, streamer, heard):
        await eventually(lambda: heard.newest(A, PUT))
        sim.farm("usopt", broken)
        await eventually(lambda: streamer.detail)
        assert streamer.detail == "data farm usopt is broken"
        assert streamer.state is SessionState.LIVE
        sim.farm("usopt", well)
        await eventually(lambda: streamer.detail is None)
        assert sim.stats()["requests"]["17"]["reqMktData"] == 1


async def test_what_a_broken_farm_said_is_no_quote_until_it_ticks_again(desk, eventually):
    async with desk(PUT, simulator={"autostep": False}, flush_interval_s=0.1) as (
        sim,
        streamer,
        heard,
    ):
        sim.step()
        row = await eventually(lambda: heard.newest(A, PUT))
        assert (row.value_source, row.bid is None) == (ValueOrigin.TICK, False)
        sim.farm("usopt", 2103)
        await eventually(lambda: streamer.detail)
        position = sim.fill(A, PUT, 1)["quantity"]
        row = await eventually(
            lambda: (found := heard.newest(A, PUT)).position == position and found
        )
        assert row.value_source is not ValueOrigin.TICK
        assert (row.bid, row.ask, row.delta) == (None, None, None)
        sim.farm("usopt", 2104)
        await eventually(lambda: streamer.detail is None)
        sim.step()
        await eventually(lambda: heard.newest(A, PUT).value_source is ValueOrigin.TICK)


async def test_a_gateway_that_moves_to_another_port_is_followed(desk, eventually, goes_on):
    async with desk(PUT) as (sim, streamer, heard):
        await eventually(lambda: heard.newest(A, PUT))
        await sim.move_port()
        await eventually(lambda: streamer.metrics.reconnects == 1)
        await goes_on(streamer, heard)


async def test_after_data_was_lost_the_lines_have_new_request_ids(desk, eventually, goes_on):
    async with desk(PUT) as (sim, streamer, heard):
        await eventually(lambda: heard.newest(A, PUT))
        sim.connectivity("lost")
        sim.connectivity("restored_data_lost")
        await eventually(lambda: sim.stats()["requests"]["17"]["reqMktData"] == 2)
        await goes_on(streamer, heard)
        assert sim.stats()["lines_in_use"] == streamer.lines_in_use == 1
        assert sim.stats()["connections"]["total"] == 1


async def test_with_several_accounts_a_change_is_valued_soon_too(
    simulate, streaming, lake, eventually
):
    async with simulate() as sim, streaming(sim):
        await eventually(lambda: queued(lake))
        sim.fill(B, UNHELD, 2)
        row = await eventually(lambda: _row(lake, sim, (B, UNHELD), "PORTFOLIO"))
        assert (row.position, row.completeness) == (2.0, "COMPLETE")
        assert row.market_value > 0
        await eventually(lambda: _both(lake, {(B, UNHELD)}))


async def test_a_gateway_that_hangs_makes_the_stream_blind_and_is_left(
    desk, eventually, monkeypatch, goes_on
):
    monkeypatch.setattr(connection, "SILENCE_S", 0.3)
    monkeypatch.setattr(streamer_module, "RECONNECT", Backoff(first_s=0.1, longest_s=0.1))
    async with desk(PUT, gateway_timeout_s=0.5) as (sim, streamer, heard):
        await eventually(lambda: heard.newest(A, PUT))
        sim.pause()
        await eventually(lambda: streamer.state is SessionState.BLIND)
        sim.resume()
        await goes_on(streamer, heard)


async def test_a_frame_longer_than_any_message_ends_the_connection(desk, eventually, goes_on):
    async with desk(PUT) as (sim, streamer, heard):
        await eventually(lambda: heard.newest(A, PUT))
        sim.send_raw(bytes.fromhex("7fffffff41"))
        await eventually(lambda: streamer.metrics.reconnects == 1)
        await goes_on(streamer, heard)


async def test_a_close_that_a_dead_process_still_owed_gets_its_row(
    simulate, streaming, lake, eventually
):
    async with simulate() as sim:
        gateway_id = f"127.0.0.1:{sim.port}"
        async with streaming(sim):
            await eventually(lambda: queued(lake))
        # It died between broker_positions and the row of the close.
        sim.close_position(A, PUT)
        rows = {row.key: row for row in await lake.broker_positions.read(gateway_id)}
        gone = replace(rows[(A, PUT)], position=0.0, position_time=utc_now())
        await lake.broker_positions.replace(gateway_id, [*rows.values(), gone])
        batch = await lake.queue.claim_batch(100)
        await lake.queue.mark_success([request.request_id for request in batch])
        async with streaming(sim, updates=lake.updates):
            await eventually(lambda: _both(lake, {(A, PUT), (A, CALL)}))


async def test_while_the_gateway_has_lost_ib_nothing_is_told_as_news(desk, lake, eventually):
    async with desk(PUT, refresh_interval_s=0.2) as (sim, streamer, heard):
        await eventually(lambda: heard.newest(A, PUT))
        sim.connectivity("lost")
        await eventually(lambda: streamer.state is SessionState.BLIND)
        values = ConnectionValues(IBConnectionManager(streamer.settings))
        with pytest.raises(BrokerUnavailableError, match="has been lost"):
            await values.view()
        await values.close()
        await asyncio.sleep(0.5)  # until what was under way is written
        count, version = len(heard.updates), await lake.broker_positions.version()
        await asyncio.sleep(0.5)
        assert len(heard.updates) == count
        assert await lake.broker_positions.version() == version
        sim.connectivity("restored_data_kept")
        await eventually(lambda: len(heard.updates) > count)


async def test_an_account_without_a_value_is_not_walked_again_and_again(
    simulate, streaming, lake, eventually, monkeypatch
):
    async with simulate() as sim, streaming(sim) as (streamer, _heard):
        await eventually(lambda: queued(lake))
        feed = streamer._wired.feed
        key = (B, CALL)
        before = sim.stats()["requests"]["17"]["reqAccountUpdates"]
        feed._store(replace(feed.get(key), market_value=None))
        await asyncio.sleep(0.5)
        assert sim.stats()["requests"]["17"]["reqAccountUpdates"] == before


async def test_two_streamers_share_the_profit_feeds_of_legs_without_a_line(
    simulate, lake, leg, settings_for, eventually
):
    async with simulate(pnl_interval_s=0.1) as sim:
        for conid in (PUT, STOCK):
            await lake.registry.add_active(**leg(conid))
        settings = settings_for(sim, max_lines=2, reserved_lines=1)
        streamers = [
            IBPositionStreamer(lake.registry, manager=IBConnectionManager(settings))
            for _ in range(2)
        ]
        for streamer in streamers:
            await streamer.start()
        await eventually(lambda: sim.stats()["requests"]["17"].get("reqPnLSingle") == 2)
        await asyncio.sleep(0.5)
        assert sim.stats()["requests"]["17"]["reqPnLSingle"] == 2
        await streamers[0].stop()
        assert (A, STOCK) in streamers[1]._wired.pnl.keys
        await streamers[1].stop()


def test_a_handler_without_the_method_is_refused(settings_for):
    streamer = IBPositionStreamer(settings=Settings(_env_file=None))
    with pytest.raises(TypeError, match="on_position_update"):
        streamer.register_handler(object())
