"""A drain: how much it claims, what it sees of the broker, and a close that overtakes it."""

from dataclasses import replace
from datetime import timedelta

import pytest

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.gateway_session import Owner, SessionState
from position_sync_dagster.domain.holding import Completeness, QueueRequest, QueueStatus, Reason
from position_sync_dagster.errors import BrokerUnavailableError
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.drain import TIME_LIMIT_S, LakeValues, drain
from tests.support.booked_legs import PUT, A
from tests.support.clock import HandClock
from tests.support.empty_lakes import put_tables
from tests.support.holdings import make_holding
from tests.support.streams import eventually, settings_for, simulate

WAITING = 120


def held(settings, now, conid, *, confirmed_at=None):
    return make_holding(
        conid, now, gateway_id=settings.gateway_id, completeness=Completeness.COMPLETE,
        confirmed_at=confirmed_at or now,
    )  # fmt: skip


@pytest.mark.in_store
async def test_what_waits_is_drained_batch_by_batch(place):
    lake, settings, now = Lake(place), Settings(batch_size=40), utc_now()
    put_tables(place)
    session = lake.sessions.acquire(
        settings.gateway_id, Owner.STREAM, lease_s=600, run_id=None, host="here", pid=1
    )
    session = lake.sessions.renew(session, lease_s=600, state=SessionState.LIVE)
    holdings = [held(settings, now, conid) for conid in range(1, WAITING + 1)]
    lake.broker_positions.replace(settings.gateway_id, holdings, session=session)
    await lake.queue.insert_many(
        [
            QueueRequest(
                conid=one.instrument.conid, symbol="X", account=one.account, reason=Reason.REFRESH
            )
            for one in holdings
        ]
    )
    report = await drain(lake, settings)
    claimed = [batch.claimed for batch in report.batches]
    assert claimed == [40, 40, 40]
    assert sum(batch.succeeded for batch in report.batches) == WAITING
    assert report.exhausted


async def test_a_view_has_the_contracts_that_are_asked_for_and_covers_all(lake):
    settings, clock = Settings(), HandClock()
    values = LakeValues(lake, settings, clock=clock)
    first = [held(settings, clock.now, conid) for conid in (1, 2)]
    lake.broker_positions.replace(settings.gateway_id, first)
    view = await values.view()
    assert set(view.holdings.values()) == set(first)
    assert view.complete
    assert set((await values.view([2, 9])).holdings.values()) == set(first[1:])
    second = [*first, replace(held(settings, clock.now, 3), completeness=Completeness.PARTIAL)]
    lake.broker_positions.replace(settings.gateway_id, second)
    assert set((await values.view()).holdings.values()) == set(second)
    assert not (await values.view([1])).complete


async def test_ages_are_those_of_the_moment_and_not_of_the_first_look(lake):
    settings, clock = Settings(), HandClock()
    values = LakeValues(lake, settings, clock=clock)
    span = timedelta(
        seconds=2 * max(settings.refresh_interval_s, settings.account_interval_s) + TIME_LIMIT_S
    )
    old = held(settings, clock.now, 1, confirmed_at=clock.now - span + timedelta(seconds=10))
    new = held(settings, clock.now, 2)
    lake.broker_positions.replace(settings.gateway_id, [old, new])
    assert (await values.view()).unconfirmed == frozenset()
    clock.now += timedelta(seconds=20)
    assert (await values.view()).unconfirmed == {old.key}
    clock.now += timedelta(hours=1)
    with pytest.raises(BrokerUnavailableError, match="were last downloaded"):
        await values.view()
    clock.now -= timedelta(hours=3)
    with pytest.raises(BrokerUnavailableError):
        await values.view()


async def test_a_close_that_arrives_while_a_drain_is_stopped_gets_its_zero_row(
    lake, streaming, monkeypatch
):
    async def waiting(number):
        return (await lake.queue.counts())[QueueStatus.PENDING] == number

    async with simulate() as sim, streaming(sim, updates=lake.updates, pnl_subscriptions=0):
        settings = settings_for(sim)
        await eventually(lambda: waiting(9))
        assert (await drain(lake, settings)).succeeded == 9

        look, looks = LakeValues.view, []

        async def stopped_after_the_first_look(self, conids=None):
            view = await look(self, conids)
            looks.append(view)
            if len(looks) == 1:
                sim.close_position(A, PUT)
                await eventually(lambda: waiting(1))
            return view

        monkeypatch.setattr(LakeValues, "view", stopped_after_the_first_look)
        assert (await drain(lake, settings)).succeeded == 1
        rows = {(u.account, u.conid): u for u in await lake.updates.latest_updates()}
        assert (rows[A, PUT].position, rows[A, PUT].market_value) == (0.0, 0.0)
