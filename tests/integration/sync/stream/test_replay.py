"""A recorded session of the stream, played again, ends in the same ledger."""

import asyncio
from dataclasses import replace

import pytest

from ib_gateway_simulator.recordings.recording import load_recording
from ib_gateway_simulator.replay.server import Replay
from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.sync.drain import drain
from tests.support.booked_legs import CALL, CENTS, PUT, WORTHLESS, A, leg
from tests.support.empty_lakes import put_tables
from tests.support.streams import eventually, simulate

# What two rows say alike, apart from times and ids.
SAME = (
    "symbol", "right", "strike", "expiry", "position", "market_price", "market_value",
    "average_cost", "unrealized_pnl", "price_kind", "value_source", "currency", "multiplier",
)  # fmt: skip


@pytest.fixture
def stream_to(tmp_path, streaming):
    """Run a stream into tables of its own while a script goes on; return the newest rows."""

    async def run(server, name, script):
        lake = Lake(tmp_path / name, fsync=False)
        put_tables(tmp_path / name)
        for conid in (CALL, PUT, CENTS):
            await lake.registry.add_active(**leg(conid))

        async def newest():
            await drain(lake, streamer.settings)
            rows = await lake.updates.latest_updates()
            return {
                (row.account, row.conid): {column: getattr(row, column) for column in SAME}
                for row in rows
            }

        # The newest row of a followed holding is that of its last move by 1 %: when that was
        # depends on when the stream looked. Without them, a download has the last word.
        quiet = {"account_quiet_s": 1.0, "pnl_subscriptions": 0}
        async with streaming(server, to=lake, **quiet) as (streamer, _received):
            return await script(streamer, newest)

    return run


async def settled(newest):
    """Return the newest rows once they have not changed for longer than accounts take turns."""
    rows = await newest()
    while True:
        await asyncio.sleep(5.0)
        again = await newest()
        if again == rows:
            return rows
        rows = again


def without_account_times(recording):
    """Leave out the times of account values: minutes of a day, which are in the past by now."""
    entries = [e for e in recording.entries if getattr(e, "name", "") != "updateAccountTime"]
    return replace(recording, entries=tuple(entries))


async def test_a_replay_ends_in_the_same_ledger(recorded, stream_to):
    async with (
        simulate(tick_interval_s=0.1) as sim,
        recorded(sim.port, keep_quantities=True) as tap,
    ):

        async def session(streamer, newest):
            await eventually(lambda: streamer.state is SessionState.LIVE)
            await eventually(lambda: streamer.lines_in_use == 3)
            sim.fill(A, CALL, 2)
            sim.fill(A, WORTHLESS, -1)
            await asyncio.sleep(1.0)  # some of the market's steps
            sim.freeze()  # each account is downloaded once more, and says the same whenever it is
            sim.disconnect()
            await eventually(lambda: streamer.counts.reconnects == 1)
            await eventually(lambda: streamer.state is SessionState.LIVE)
            await eventually(lambda: streamer.lines_in_use == 3)

            feed = streamer._link.connection.feed
            await eventually(
                lambda: all(feed.states[account].ended_at for account in feed.accounts)
            )  # later nothing changes
            sim.close_position(A, PUT)
            await asyncio.sleep(1.0)
            return await settled(newest)

        expected = await stream_to(tap, "first", session)
        await eventually(lambda: sim.stats()["connections"]["now"] == 0)
    sources = {row["value_source"] for row in expected.values()}
    assert "TICK" in sources
    assert sources & {"PORTFOLIO", "PNL_SINGLE"}
    assert expected[A, CALL]["position"] == 7
    assert expected[A, PUT]["position"] == 0
    recording = without_account_times(load_recording(tap.path))
    async with Replay(recording) as replay:

        async def again(streamer, newest):
            await eventually(lambda: replay.left == 0)
            found = {}

            async def same():
                nonlocal found
                found = await newest()
                return found == expected or replay.is_over

            await eventually(same)
            return await settled(newest)

        found = await stream_to(replay, "second", again)
        assert replay.stats.orders == []
    assert found == expected
