"""What the stream trusts after a restore, a silence or an odd message of the gateway."""

import pytest

from position_sync_dagster.domain.clock import Backoff
from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.domain.holding import Completeness
from position_sync_dagster.domain.leg import LegState
from position_sync_dagster.gateway import account_feed
from position_sync_dagster.sync.stream import streamer as link
from tests.support.booked_legs import CALL, PUT, A, B, leg
from tests.support.streams import eventually, offline, simulate


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    quick = Backoff(first_s=0.05, longest_s=0.05)
    monkeypatch.setattr(account_feed, "AGAIN", quick)
    monkeypatch.setattr(link, "RECONNECT", quick)


def positions_requests(sim):
    return sim.stats()["requests"]["17"]["reqPositions"]


@pytest.mark.parametrize("restore", ["restored_data_kept", "restored_data_lost"])
async def test_a_restore_before_the_login_ended_makes_the_stream_live_on_the_same_connection(
    lake, running_streamer, restore
):
    await lake.registry.add_active(**leg(PUT))
    async with simulate() as sim:
        sim.connectivity("lost", "none")
        async with running_streamer(sim, gateway_timeout_s=600.0) as streamer:
            await eventually(lambda: sim.stats()["requests"].get("17", {}).get("reqPositions"))
            sim.connectivity(restore)
            await eventually(lambda: streamer.state is SessionState.LIVE)
            await eventually(lambda: sim.stats()["lines_in_use"] == 1)
            assert sim.stats()["connections"]["total"] == 1


async def test_after_a_restore_that_kept_the_data_the_positions_are_listed_again(stream_legs):
    async with stream_legs(PUT) as (sim, streamer, received):
        before = positions_requests(sim)
        await offline(sim, streamer)
        await eventually(lambda: positions_requests(sim) == before + 1)
        assert streamer.counts.reconnects == 0
        assert not received.closes(PUT)


async def test_an_account_without_an_end_is_in_the_detail_and_is_downloaded_again(
    stream_legs, lake
):
    async with stream_legs(PUT, account_quiet_s=0.2) as (sim, streamer, _received):
        sim.download_end(B, delay_s=None)
        await offline(sim, streamer, "restored_data_lost")
        await eventually(
            lambda: f"account {B}: its download did not end" in (streamer.detail or "")
        )

        async def published():
            rows = lake.broker_positions.read(streamer.settings.gateway_id)
            return {row.account: row.completeness for row in rows}

        partial = {A: Completeness.COMPLETE, B: Completeness.PARTIAL}
        await eventually(lambda: _equals(published, partial))
        sim.download_end(B)
        await eventually(lambda: streamer.detail is None)
        await eventually(lambda: _equals(published, dict.fromkeys((A, B), Completeness.COMPLETE)))


async def _equals(read, expected):
    return await read() == expected


@pytest.mark.parametrize("conid", [0, -5, 2**40])
async def test_an_odd_holding_is_named_and_the_others_are_streamed_and_queued(
    streaming, lake, conid
):
    async with simulate() as sim:
        sim.holding(A, conid, "nan", "")
        await lake.registry.add_active(**leg(PUT))
        async with streaming(sim) as (streamer, received):
            await eventually(lambda: received.newest(A, PUT))
            assert f"1 holding is set aside: conid {conid} of {A}" in streamer.detail
            assert streamer.routes[(A, CALL)] is LegState.MONITORED
            await eventually(lambda: _queued(lake))


async def _queued(lake):
    return sum((await lake.queue.counts()).values())
