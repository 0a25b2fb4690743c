"""The streamer: lines for active legs, the queue for everything else, and each change of route."""

import asyncio
import shutil
import threading
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.domain.leg import LegState
from position_sync_dagster.domain.position_update import PriceKind, ValueOrigin
from position_sync_dagster.domain.queue_request import QueueStatus
from position_sync_dagster.errors import ClockSetBackError, LakeNotWritableError
from position_sync_dagster.gateway.connection import IBConnectionManager
from position_sync_dagster.lake.storage.threads import offload
from position_sync_dagster.lake.strategy_registry import StrategyRegistry
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.stream.streamer import IBPositionStreamer
from tests.support.booked_legs import CALL, CENTS, PUT, STOCK, UNHELD, A, B, leg
from tests.support.streams import eventually, holding, published, requests, settings_for, simulate
from tests.support.waiting import DEADLINE_S


async def queued(lake):
    rows = await lake.queue.get_batch(priority=None, limit=1000, status=QueueStatus.PENDING)
    return {(row.account, row.conid): row for row in rows}


async def connection_of(streamer):
    """Return the connection that every user of this gateway shares in this process."""
    return await IBConnectionManager(streamer.settings).get_connection()


async def test_active_legs_stream_and_everything_else_is_queued(stream_legs, lake):
    async with stream_legs(PUT) as (sim, streamer, _received):
        waiting = await eventually(lambda: queued(lake))
        assert streamer.lines_in_use == 1
        assert sim.stats()["lines_in_use"] == 1
        assert len(waiting) == 8
        assert (A, PUT) not in waiting
        assert len(published(lake, streamer.settings)) == 9


async def test_one_line_serves_every_account_that_holds_the_leg(stream_legs):
    async with stream_legs(leg(CALL, account=A)) as (sim, streamer, received):
        assert (await received.row(CALL)).position == 5.0
        assert (await received.row(CALL, account=B)).position == -1.0
        assert sim.stats()["peak_lines"] == 1
        assert streamer.lines_in_use == 1


async def test_a_streamed_row_agrees_with_the_brokers_own_value(stream_legs, lake):
    async with stream_legs(CALL, CENTS, STOCK) as (_sim, streamer, received):
        for conid, factor in ((CALL, 100), (CENTS, 50), (STOCK, 1)):
            row = await received.row(conid)
            assert row.price_kind == PriceKind.MARK
            assert row.value_source == ValueOrigin.TICK
            assert row.market_value == pytest.approx(row.position * row.market_price * factor)
            broker = await holding(lake, streamer, (A, conid), lambda held: held.market_value)
            assert row.market_value == pytest.approx(broker.market_value, rel=0.05)
            assert row.unrealized_pnl == pytest.approx(
                row.market_value - row.position * broker.average_cost
            )


async def test_a_leg_that_another_process_adds_streams_until_it_is_removed(stream_legs, lake):
    elsewhere = StrategyRegistry(lake.table_path("active_strategies"))
    await elsewhere.initialize()
    async with stream_legs() as (sim, streamer, received):
        await eventually(lambda: queued(lake))
        assert streamer.routes[(A, PUT)] is LegState.MONITORED
        await elsewhere.add_active(**leg(PUT))
        await received.row(PUT)
        assert sim.stats()["lines_in_use"] == 1
        await elsewhere.remove_active(PUT)
        await eventually(lambda: sim.stats()["lines_in_use"] == 0)
        assert streamer.routes[(A, PUT)] is LegState.MONITORED
        assert (A, PUT) in await queued(lake)


async def test_a_streamed_position_that_closes_gives_a_zero_row_and_frees_its_line(stream_legs):
    async with stream_legs(PUT) as (sim, _streamer, received):
        sim.close_position(A, PUT)
        row = await received.row(PUT, lambda row: row.position == 0)
        assert row.market_value == 0.0
        assert row.unrealized_pnl == 0.0
        await eventually(lambda: sim.stats()["lines_in_use"] == 0)


async def test_the_stream_writes_the_row_of_a_close_that_comes_in_the_middle_of_a_step(
    stream_legs, lake, monkeypatch
):
    quiet = {"tick_interval_s": 600}  # so that no tick brings the row
    async with stream_legs(PUT, simulator=quiet, flush_interval_s=1.0) as (sim, streamer, received):
        await eventually(lambda: queued(lake))  # the accounts are downloaded
        await asyncio.sleep(1.3)  # until the downloaded values are handled
        waits = asyncio.Event()
        freed = asyncio.Event()
        refresh = lake.registry.refresh

        async def slow():
            waits.set()
            await freed.wait()
            await refresh()
            return True  # so that this very step routes anew

        monkeypatch.setattr(lake.registry, "refresh", slow)
        await asyncio.wait_for(waits.wait(), DEADLINE_S)
        sim.close_position(A, PUT)
        feed = (await connection_of(streamer)).feed
        await eventually(lambda: feed.book.get((A, PUT)).position == 0)
        freed.set()
        await received.row(PUT, lambda row: row.position == 0)
        await asyncio.sleep(1.3)  # what must not happen cannot be waited for
        assert len(received.closes(PUT)) == 1
        assert (A, PUT) not in await queued(lake)


async def test_fills_reroute_at_once(stream_legs):
    async with stream_legs(UNHELD, rows=False, flush_interval_s=600) as (sim, streamer, _received):
        sim.fill(A, UNHELD, 3)
        await eventually(lambda: streamer.routes.get((A, UNHELD)) is LegState.STREAMED)


async def test_a_leg_that_loses_its_line_while_the_queue_fails_is_queued_later(
    stream_legs, lake, monkeypatch
):
    async with stream_legs(PUT) as (_sim, streamer, _received):
        await eventually(lambda: queued(lake))

        failures = 0

        async def fails(_requests):
            nonlocal failures
            failures += 1
            raise LakeNotWritableError("The disk is full.", remedy="Free some space.")

        monkeypatch.setattr(lake.queue, "insert_many", fails)
        await lake.registry.remove_active(PUT)
        await eventually(lambda: streamer.routes[(A, PUT)] is LegState.MONITORED)
        await eventually(lambda: failures >= 3)
        monkeypatch.undo()
        await eventually(lambda: _both(lake, {(A, PUT)}))


async def test_a_monitored_position_that_changes_or_closes_is_queued_at_once(stream_legs, lake):
    async with stream_legs() as (sim, streamer, _received):
        await eventually(lambda: queued(lake))
        batch = await lake.queue.claim_batch(100)
        await lake.queue.mark_success([r.request_id for r in batch])
        sim.fill(A, CALL, 2)
        sim.close_position(A, PUT)
        waiting = await eventually(lambda: _both(lake, {(A, CALL), (A, PUT)}))
        assert {r.reason for r in waiting.values()} == {"CHANGED"}
        for conid, position in ((CALL, 7.0), (PUT, 0.0)):
            await holding(lake, streamer, (A, conid), lambda held, p=position: held.position == p)


async def _both(lake, keys):
    waiting = await queued(lake)
    if keys <= set(waiting):
        return waiting

    return None


async def test_a_slow_table_delays_no_other(stream_legs, lake, monkeypatch):
    async with stream_legs(PUT, flush_interval_s=0.1) as (sim, _streamer, received):
        waits = threading.Event()
        freed = threading.Event()

        def stuck(*_args, **_more):
            waits.set()
            freed.wait(60)

        monkeypatch.setattr(lake.broker_positions, "replace", stuck)
        monkeypatch.setattr(lake.queue, "insert_many", partial(offload, stuck))
        sim.fill(A, CALL, 1)
        assert await asyncio.to_thread(waits.wait, 30)
        count = len(received.updates)
        await eventually(lambda: len(received.updates) >= count + 5)
        monkeypatch.undo()
        freed.set()


async def test_a_registry_that_vanishes_keeps_its_legs_until_it_is_back(stream_legs, lake, caplog):
    path = Path(lake.registry.table.path)
    async with stream_legs(PUT, flush_interval_s=0.1) as (sim, streamer, received):
        path.rename(path.with_name("away"))
        await eventually(lambda: "deleted or moved away" in (streamer.detail or ""))
        assert streamer.state is SessionState.LIVE
        count = len(received.updates)
        await eventually(lambda: len(received.updates) > count + 5)
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


async def test_a_clock_that_was_set_back_ends_the_stream_and_the_next_one_begins_anew(lake):
    behind = timedelta()
    async with simulate() as sim:
        await lake.registry.add_active(**leg(PUT))
        settings = settings_for(sim)

        def streamer() -> IBPositionStreamer:
            clock = lambda: utc_now() - behind  # noqa: E731
            return IBPositionStreamer(lake.registry, lake.queue, settings=settings, clock=clock)

        before = streamer()
        after = streamer()
        stream = asyncio.create_task(before.run(asyncio.Event()))
        await eventually(lambda: before.state is SessionState.LIVE)
        behind = timedelta(hours=1)
        with pytest.raises(ClockSetBackError, match=r"was set back by 3[56]\d\d s"):
            await stream
        assert before.state is SessionState.ENDED
        await eventually(lambda: sim.stats()["lines_in_use"] == 0)

        await after.start()
        await eventually(lambda: after.routes.get((A, PUT)) is LegState.STREAMED)
        await after.stop()


async def test_legs_without_a_line_are_valued_by_their_own_profit_and_loss_feed(stream_legs, lake):
    legs = leg(PUT, priority=1), leg(STOCK, priority=2)
    limits = {"max_lines": 1, "reserved_lines": 0, "pnl_subscriptions": 0}
    quick = {"simulator": {"pnl_interval_s": 0.1}, "rows": False}
    async with stream_legs(*legs, **limits, **quick) as (sim, streamer, _received):
        by_pnl = lambda held: held.value_source == "PNL_SINGLE"  # noqa: E731
        row = await holding(lake, streamer, (A, STOCK), by_pnl)
        assert row.market_value == pytest.approx(200 * 230, rel=0.1)
        assert row.daily_pnl is not None
        assert sim.stats()["peak_lines"] == 1
        assert streamer.routes[(A, STOCK)] is LegState.OVERFLOW

        await lake.registry.remove_active(PUT)
        await eventually(lambda: streamer.routes[(A, STOCK)] is LegState.STREAMED)
        assert sim.stats()["peak_lines"] == 1
        asked = requests(sim, "reqPnLSingle")
        await eventually(lambda: requests(sim, "cancelPnLSingle"))
        assert asked == 1


async def test_a_leg_whose_line_is_refused_is_queued_and_the_detail_names_the_reason(
    stream_legs, lake
):
    """It was left out when the others were queued, since it was to have a line."""
    refuse = lambda sim: sim.set_permission(PUT, 354)  # noqa: E731
    async with stream_legs(PUT, prepare=refuse, rows=False) as (sim, streamer, _received):
        waiting = await eventually(lambda: _both(lake, {(A, PUT), (A, CALL)}))
        assert waiting[A, PUT].reason == "OVERFLOW"
        assert waiting[A, PUT].priority < waiting[A, CALL].priority
        assert streamer.routes[A, PUT] is LegState.OVERFLOW
        assert "1 leg now by the queue, since " in streamer.detail
        assert "(IB 354 Requested market data" in streamer.detail
        assert str(PUT) not in streamer.detail
        assert streamer.lines_in_use == 0
        assert requests(sim, "reqMktData") == 1


async def test_with_several_accounts_a_change_is_valued_soon_as_well(stream_legs, lake):
    async with stream_legs() as (sim, streamer, _received):
        await eventually(lambda: queued(lake))
        sim.fill(B, UNHELD, 2)
        by_portfolio = lambda held: held.value_source == "PORTFOLIO"  # noqa: E731
        row = await holding(lake, streamer, (B, UNHELD), by_portfolio)
        assert row.position == 2.0
        assert row.completeness == "COMPLETE"
        assert row.market_value > 0
        await eventually(lambda: _both(lake, {(B, UNHELD)}))


async def test_a_close_whose_row_a_dead_process_did_not_write_gets_it(streaming, lake):
    async with simulate() as sim:
        async with streaming(sim) as (streamer, _received):
            await eventually(lambda: queued(lake))
        # The process died after broker_positions and before the row of the close.
        sim.close_position(A, PUT)
        rows = published(lake, streamer.settings)
        rows[A, PUT] = replace(rows[A, PUT], position=0.0, position_time=utc_now())
        lake.broker_positions.replace(streamer.settings.gateway_id, list(rows.values()))
        batch = await lake.queue.claim_batch(100)
        await lake.queue.mark_success([request.request_id for request in batch])
        async with streaming(sim, updates=lake.updates):
            await eventually(lambda: _both(lake, {(A, PUT), (A, CALL)}))


def test_a_handler_without_the_method_is_refused():
    streamer = IBPositionStreamer(settings=Settings(_env_file=None))
    with pytest.raises(TypeError, match="on_position_update"):
        streamer.register_handler(object())
