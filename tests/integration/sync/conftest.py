"""A streamer over a simulator and real tables."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from position_sync_dagster import IBPositionStreamer, StreamTables
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.position_updates import DeltaLakePositionWriter
from position_sync_dagster.sync.stream import router
from tests.support.booked_legs import terms_of
from tests.support.empty_lakes import put_tables

A, B = "DUSIM0001", "DUSIM0002"
CALL, PUT, WORTHLESS, CENTS, STOCK, UNHELD = (
    921000001, 921000002, 921000003, 921000004, 920000001, 921000007,
)  # fmt: skip


class Recorder:
    """A handler that keeps every update."""

    def __init__(self):
        self.updates = []

    async def on_position_update(self, update):
        self.updates.append(update)

    def closes(self, conid):
        return [u for u in self.updates if u.conid == conid and u.position == 0]

    def newest(self, account, conid):
        found = [u for u in self.updates if (u.account, u.conid) == (account, conid)]
        return found[-1] if found else None


@pytest.fixture
def lake(tmp_path):
    put_tables(tmp_path / "lake")
    return Lake(tmp_path / "lake")


@pytest.fixture
def leg():
    """Return the arguments of a leg, as the small book has it."""

    def make(conid, strategy_id="s", **more):
        return {"conid": conid, "strategy_id": strategy_id} | terms_of(conid) | more

    return make


@pytest.fixture
def streaming(lake, settings_for, monkeypatch):
    """Stream into the lake, and into a handler that keeps every update.

    With `pnl_subscriptions=0` streamed holdings have no profit subscription either.
    """

    @asynccontextmanager
    async def run(
        sim, *, updates=None, account_values=None, closes=None, rolls=None, rules=None, **more
    ):
        settings = settings_for(sim, **more)
        if not settings.pnl_subscriptions:
            monkeypatch.setattr(router, "MAX_STREAMED", 0)
        streamer = IBPositionStreamer(
            lake.registry, lake.queue, settings=settings,
            tables=StreamTables(
                broker_positions=lake.broker_positions, contracts=lake.contracts, updates=updates,
                account_values=account_values, closes=closes, rolls=rolls, rules=rules,
            ),
        )  # fmt: skip
        received = Recorder()
        streamer.register_handler(received)
        streamer.register_handler(DeltaLakePositionWriter(table=lake.updates))
        await streamer.start()
        try:
            yield streamer, received
        finally:
            await streamer.stop()

    return run


@pytest.fixture
def running_streamer(lake, settings_for):
    """Run a streamer that connects by itself, until the end of the block."""

    @asynccontextmanager
    async def run(sim, *, clock=utc_now, **more):
        streamer = IBPositionStreamer(
            lake.registry, lake.queue, clock=clock,
            tables=StreamTables(broker_positions=lake.broker_positions),
            settings=settings_for(sim, **{"flush_interval_s": 0.1} | more),
        )  # fmt: skip
        stop = asyncio.Event()
        task = asyncio.create_task(streamer.run(stop))
        yield streamer
        stop.set()
        await task

    return run


@pytest.fixture
def updates_continue(eventually):
    """Wait until a streamer is LIVE and delivers another update."""

    async def wait(streamer, received):
        await eventually(lambda: streamer.state is SessionState.LIVE)
        count = len(received.updates)
        await eventually(lambda: len(received.updates) > count)

    return wait


@pytest.fixture
def offline(eventually):
    """Let the gateway of a stream lose IB and find it again."""

    async def take(sim, streamer, restored="restored_data_kept"):
        sim.connectivity("lost")
        await eventually(lambda: streamer.state is SessionState.BLIND)
        sim.connectivity(restored)
        await eventually(lambda: streamer.state is SessionState.LIVE)

    return take


@pytest.fixture
def stream_legs(simulate, streaming, lake, leg, eventually):
    """Stream the legs of a strategy from a simulator of their own.

    The test begins once account A has a row of each, unless it asks for no `rows`.
    """

    @asynccontextmanager
    async def run(*conids, simulator=None, rows=True, **more):
        async with simulate(**simulator or {}) as sim:
            for conid in conids:
                await lake.registry.add_active(**leg(conid))
            async with streaming(sim, **more) as (streamer, received):
                if rows:
                    await eventually(lambda: all(received.newest(A, one) for one in conids))
                yield sim, streamer, received

    return run
