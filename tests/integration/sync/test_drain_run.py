"""A drain as a run does it: how much it claims at once."""

import pytest

from position_sync_dagster.domain.broker_position import Completeness
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.gateway_session import Owner, SessionState
from position_sync_dagster.domain.update import QueueRequest, Reason
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.drain import drain
from tests.support.empty_lakes import put_tables
from tests.support.holdings import make_holding

WAITING = 120


@pytest.mark.in_store
async def test_what_waits_is_drained_batch_by_batch(place):
    lake, settings, now = Lake(place), Settings(batch_size=40), utc_now()
    put_tables(place)
    session = lake.sessions.acquire(
        settings.gateway_id, Owner.STREAM, lease_s=600, run_id=None, host="here", pid=1
    )
    session = lake.sessions.renew(session, lease_s=600, state=SessionState.LIVE)
    held = [
        make_holding(
            conid, now, gateway_id=settings.gateway_id, completeness=Completeness.COMPLETE,
            confirmed_at=now,
        )
        for conid in range(1, WAITING + 1)
    ]  # fmt: skip
    lake.broker_positions.replace(settings.gateway_id, held, session=session)
    await lake.queue.insert_many(
        [
            QueueRequest(
                conid=one.instrument.conid, symbol="X", account=one.account, reason=Reason.REFRESH
            )
            for one in held
        ]
    )
    report = await drain(lake, settings)
    claimed = [batch.claimed for batch in report.batches]
    assert claimed == [40, 40, 40]
    assert sum(batch.succeeded for batch in report.batches) == WAITING
    assert report.exhausted
