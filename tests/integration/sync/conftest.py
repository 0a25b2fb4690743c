"""A streamer over a simulator and real tables."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from position_sync_dagster import IBPositionStreamer, StreamTables
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.position_updates import DeltaLakePositionWriter
from tests.support.booked_legs import leg
from tests.support.empty_lakes import put_tables
from tests.support.streams import Recorder, settings_for, simulate


@pytest.fixture
def lake(tmp_path):
    put_tables(tmp_path / "lake")
    return Lake(tmp_path / "lake")


@pytest.fixture
def streaming(lake):
    """Stream into the lake, and into a handler that keeps every update.

    With `pnl_subscriptions=0` streamed holdings have no profit subscription either.
    """

    @asynccontextmanager
    async def run(
        sim, *, to=lake, updates=None, account_values=None, followers=(), rules=None,
        greeks=None, **more,
    ):  # fmt: skip
        if more.get("pnl_subscriptions") == 0:
            more["streamed_pnl_subscriptions"] = 0
        settings = settings_for(sim, **more)
        tables = StreamTables(
            broker_positions=to.broker_positions, contracts=to.contracts, updates=updates,
            account_values=account_values, followers=followers, rules=rules,
            position_changes=to.position_changes if followers else None, greeks=greeks,
        )  # fmt: skip
        streamer = IBPositionStreamer(to.registry, to.queue, settings=settings, tables=tables)

        received = Recorder()
        streamer.register_handler(received)
        streamer.register_handler(DeltaLakePositionWriter(table=to.updates))
        await streamer.start()
        try:
            yield streamer, received
        finally:
            await streamer.stop()

    return run


@pytest.fixture
def running_streamer(lake):
    """Run a streamer that connects by itself, until the end of the block."""

    @asynccontextmanager
    async def run(sim, *, clock=utc_now, **more):
        streamer = IBPositionStreamer(
            lake.registry, lake.queue, clock=clock,
            tables=StreamTables(broker_positions=lake.broker_positions),
            settings=settings_for(sim, **more),
        )  # fmt: skip
        stop = asyncio.Event()
        task = asyncio.create_task(streamer.run(stop))
        yield streamer
        stop.set()
        await task

    return run


@pytest.fixture
def stream_legs(streaming, lake):
    """Stream legs of a strategy from a simulator of their own.

    A leg is a conid of the small book, or the arguments of a leg. The test begins once account A
    has a row of each conid, unless it asks for no `rows`. `prepare` is called with the simulator.
    """

    @asynccontextmanager
    async def run(*legs, book="small", prepare=None, simulator=None, rows=True, **more):
        async with simulate(book, **simulator or {}) as sim:
            if prepare is not None:
                prepare(sim)
            legs = [leg(one) if isinstance(one, int) else one for one in legs]
            for active_leg in legs:
                await lake.registry.add_active(**active_leg)
            async with streaming(sim, **more) as (streamer, received):
                for conid in [row["conid"] for row in legs if rows and "conid" in row]:
                    await received.row(conid)
                yield sim, streamer, received

    return run
