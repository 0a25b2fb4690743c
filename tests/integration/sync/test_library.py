"""The package as a library, in one script: 200 legs, 20 lines, one connection."""

import asyncio
import re
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

import position_sync_dagster as ps
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.gateway_session import Owner
from position_sync_dagster.money.strategies.strategies_file import load_strategies
from tests.support.booked_legs import PUT, leg
from tests.support.constants import replace_constant
from tests.support.demo_book import strategies_text
from tests.support.streams import Recorder, eventually, simulate

# A refusal takes some 0.1 s; this bound only a hang reaches.
SLOW_MACHINE_S = 30.0
HOLDER = r"is owned by LIBRARY \(process \d+ on .*\) until"


@pytest.fixture
async def sim(monkeypatch):
    """A simulator with the small book, at the address of the settings."""
    async with simulate(tick_interval_s=0.2) as sim:
        monkeypatch.setenv("POSITION_SYNC_GATEWAY_PORT", str(sim.port))
        yield sim


@pytest.mark.parametrize("folder", ["data/lake", "another"])
async def test_a_second_start_on_a_login_in_the_process_is_refused_at_once_by_name(sim, folder):
    first = ps.IBPositionStreamer()
    registry = ps.StrategyRegistry(f"{folder}/active_strategies")
    second = ps.IBPositionStreamer(registry, ps.PositionQueue(f"{folder}/queue"))
    await first.start()
    with pytest.raises(ps.errors.LoginOwnedError, match=HOLDER):
        await asyncio.wait_for(second.start(), 1.0 + SLOW_MACHINE_S)
    assert sim.stats()["connections"]["total"] == 1
    await first.stop()
    await second.start()
    await second.stop()


@pytest.mark.parametrize("lake", ["data/lake", "lake_of_the_settings"])
async def test_a_script_beside_a_stream_of_dagster_is_refused_by_the_name_of_its_run(
    sim, monkeypatch, lake
):
    monkeypatch.setenv("POSITION_SYNC_LAKE", lake)
    sessions = ps.Lake(lake).sessions
    sessions.table.initialize()
    gateway_id = ps.load_settings().gateway_id
    owner = dict(lease_s=60.0, run_id="run-1", host="elsewhere", pid=7)
    session = sessions.acquire(gateway_id, Owner.STREAM, **owner)
    streamer = ps.IBPositionStreamer()
    with pytest.raises(ps.errors.LoginOwnedError, match="process 7 on elsewhere, run run-1"):
        await streamer.start()

    sessions.end(session)
    await streamer.start()
    of_queue = ps.Lake("data/lake").sessions
    assert of_queue.current(gateway_id).owner is Owner.LIBRARY

    await streamer.stop()
    assert not of_queue.current(gateway_id).is_alive(utc_now())


async def test_a_lease_that_ran_out_goes_on_while_nobody_else_has_the_login(sim, monkeypatch):
    replace_constant("heartbeat_s", 0.2)
    registry = ps.StrategyRegistry()
    await registry.initialize()
    await registry.add_active(**leg(PUT))
    behind = timedelta()
    streamer = ps.IBPositionStreamer(registry, clock=lambda: utc_now() + behind)
    await streamer.start()
    behind = timedelta(minutes=10)  # the machine slept
    await eventually(lambda: streamer.counts.reconnects)
    await eventually(lambda: streamer.lines_in_use == 1)
    await streamer.stop()


class Received:
    """Keeps each update, in order."""

    def __init__(self) -> None:
        self.updates: list[ps.PositionUpdate] = []

    async def on_position_update(self, update: ps.PositionUpdate) -> None:
        self.updates.append(update)


class Failing:
    """Raises at each update."""

    async def on_position_update(self, update: ps.PositionUpdate) -> None:
        raise ValueError("mine")


async def test_a_handler_that_is_registered_twice_gets_each_update_once(sim, monkeypatch):
    monkeypatch.setenv("POSITION_SYNC_FLUSH_INTERVAL_S", "0.2")
    received = Received()
    async with streaming_the_put(received, received):
        await eventually(lambda: len(received.updates) > 5)
    assert len({id(update) for update in received.updates}) == len(received.updates)


async def test_an_immediate_handler_gets_each_tick_before_the_flush_and_that_value_goes_into_it(
    sim, monkeypatch
):
    monkeypatch.setenv("POSITION_SYNC_FLUSH_INTERVAL_S", "3600")
    at_once = Received()
    with_the_flush = Received()
    async with streaming_the_put(with_the_flush) as streamer:
        streamer.register_handler(Failing(), immediate=True)
        streamer.register_handler(at_once, immediate=True)
        await eventually(lambda: len(at_once.updates) > 5)
        assert with_the_flush.updates == []

    times = [update.timestamp for update in at_once.updates]
    assert times == sorted(times)
    [flushed] = with_the_flush.updates
    assert flushed is at_once.updates[-1], "it was not valued again"


@asynccontextmanager
async def streaming_the_put(*handlers):
    """Stream one leg, whose quotes change five times a second, to these handlers."""
    registry = ps.StrategyRegistry()
    await registry.initialize()
    await registry.add_active(**leg(PUT))
    streamer = ps.IBPositionStreamer(registry)
    for handler in handlers:
        streamer.register_handler(handler)
    await streamer.start()
    yield streamer
    await streamer.stop()


async def test_registry_queue_streamer_and_worker_in_one_script(monkeypatch, caplog, tmp_path):
    caplog.set_level("INFO", logger=ps.__name__)
    async with simulate("demo", tick_interval_s=1.0) as sim:
        monkeypatch.setenv("POSITION_SYNC_GATEWAY_PORT", str(sim.port))
        monkeypatch.setenv("POSITION_SYNC_FLUSH_INTERVAL_S", "0.2")
        registry = ps.StrategyRegistry()
        queue = ps.PositionQueue()
        await registry.initialize()

        strategies = tmp_path / "strategies.yaml"
        strategies.write_text(strategies_text())
        await registry.add_many(load_strategies(strategies))
        streamer = ps.IBPositionStreamer(registry, queue)
        streamer.register_handler(ps.DeltaLakePositionWriter())
        worker = ps.QueueWorker(queue, interval=0.2, batch_size=40)
        await streamer.start()
        await worker.start()
        table = ps.PositionUpdatesTable()

        async def all_current():
            return (await table.latest()).height == 200

        await eventually(all_current)
        rows = await table.latest()
        assert sorted(rows["source"].value_counts().iter_rows()) == [("QUEUE", 180), ("STREAM", 20)]
        assert rows["market_value"].null_count() == 0
        assert sim.stats()["peak_lines"] == 20
        assert sim.stats()["connections"]["total"] == 1
        assert worker.get_stats().total_failed == 0
        assert caplog.messages.count("20 streamed, 180 queued") == 1

        await eventually(lambda: worker.get_stats().total_success >= 180)  # then it is logged too
        batches = [text for text in caplog.messages if text.startswith("batch of ")]
        assert re.fullmatch(
            r"batch of 40 in \d+\.\d\d s: 40 succeeded, 0 failed, 0 released", batches[0]
        )
        assert "claimed 40 requests" in caplog.messages
        assert "marked 40 requests SUCCESS" in caplog.messages
        sizes = [int(text.split()[2].rstrip(":")) for text in batches]
        assert sum(sizes) >= 180
        assert max(sizes) == 40, "the number is a maximum"
        await worker.stop()
        await streamer.stop()
        await eventually(lambda: sim.stats()["connections"]["now"] == 0)


async def test_whoever_opened_a_connection_closes_it(sim):
    manager = ps.IBConnectionManager(ps.Settings(_env_file=None), port=sim.port)
    connection = await manager.get_connection()
    listeners = len(connection.ib.pendingTickersEvent)
    streamer = ps.IBPositionStreamer(manager=manager)
    # The address of the settings is another one, where nothing listens.
    worker = ps.QueueWorker(
        streamer.queue, interval=0.1, manager=manager, settings=ps.load_settings(gateway_port=1)
    )
    received = Recorder()
    streamer.register_handler(received, immediate=True)
    registry = streamer.registry
    await registry.initialize()
    await registry.add_active(**leg(PUT))
    for _ in range(2):
        await streamer.start()
        await worker.start()
        await eventually(lambda: worker.stats.total_success and received.updates)
        await worker.stop()
        await streamer.stop()
        assert connection.is_connected
        assert await connection.ib.reqCurrentTimeAsync()
        await eventually(lambda: sim.stats()["lines_in_use"] == 0)
        assert len(connection.ib.pendingTickersEvent) == listeners
        received.updates.clear()

    assert sim.stats()["connections"]["total"] == 1
    await manager.close()
    await eventually(lambda: sim.stats()["connections"]["now"] == 0)


class PlainHandler:
    def on_position_update(self, update): ...


class HalfPlainHandler(Recorder):
    def on_position_updates(self, updates): ...


@pytest.mark.parametrize(
    ("handler", "method"),
    [(PlainHandler, "on_position_update"), (HalfPlainHandler, "on_position_updates")],
)
def test_a_handler_that_nobody_can_await_is_refused_when_it_is_registered(handler, method):
    with pytest.raises(TypeError, match=rf"{handler.__name__}\.{method} is no coroutine: .*async"):
        ps.IBPositionStreamer().register_handler(handler())
