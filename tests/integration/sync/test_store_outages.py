"""Streams and a drain, as processes, while their object store is out of reach or refuses."""

import asyncio
from collections import Counter
from datetime import timedelta

import polars as pl
import pytest

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.domain.queue_request import QueueRequest, QueueStatus
from position_sync_dagster.errors import StoreError
from position_sync_dagster.lake.storage.threads import offload
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.reports.status import read_status
from tests.support.booked_legs import PUT, leg
from tests.support.empty_lakes import put_tables
from tests.support.extent import EVERYTHING
from tests.support.forked_workers import ForkedWorker
from tests.support.object_store import SECRET
from tests.support.promises import assert_one_writer_each
from tests.support.store_proxy import HANG, TOKEN, Rule
from tests.support.streams import Service, eventually, settings_for, simulate

ACCOUNT = "DUSIM0001"
# Conids that nobody holds: a request of one ends as FAILED, once.
MANY = range(930_000_001, 930_000_041)

LEASE_S = 4.0
# Faults that last, and what a log says of them.
OUTAGES = {
    "slow down": "SlowDown",
    "expired": "ExpiredToken",
    HANG: "HTTP error",
    "region": "PermanentRedirect",
    "no bucket": "NoSuchBucket",
}

IN_SHORT = ("slow down", "expired")


@pytest.fixture
def processes(tmp_path, store):
    """Start processes of `outage_worker`; return their logs."""
    started = []

    def start(name, work, lake, port):
        log = tmp_path / f"{name}.log"
        words = (work, lake.path, port, LEASE_S, str(log))
        started.append(ForkedWorker("tests.support.outage_worker", *words).begin())
        return log

    yield start
    store.proxy.fail()
    for worker in started:
        worker.kill()


@pytest.mark.timeout(1800)
async def test_what_runs_outlives_outages_of_the_store(store, processes):
    lake = MoneyLake(store.lake())
    put_tables(lake.path)
    await lake.registry.add_active(**leg(PUT))

    ids = []
    async with simulate() as sim:
        settings = settings_for(sim, lake=lake.path)
        works = {"a": "stream", "b": "stream", "drain": "drain"}
        logs = [processes(name, work, lake, sim.port) for name, work in works.items()]
        await eventually(lambda: _lives(lake, settings))
        await eventually(lambda: _streamed(lake, utc_now() - timedelta(seconds=30)))
        for fault in OUTAGES if EVERYTHING else IN_SHORT:
            said = OUTAGES[fault]
            read = [len(log.read_text()) for log in logs]
            ids += await lake.queue.insert_many(
                QueueRequest(conid, "SPY", account=ACCOUNT) for conid in MANY
            )
            before = lake.sessions.current(settings.gateway_id)

            store.proxy.fail(Rule(fault))
            with pytest.raises(StoreError):
                await offload(lambda: read_status(MoneyLake(lake.path), settings, utc_now()))
            # Longer than the lease: nobody owns the login, and nobody can take it.
            over = max(before.expires_at, utc_now()) + timedelta(seconds=2 * LEASE_S)
            await eventually(lambda over=over: utc_now() > over)
            await eventually(lambda said=said: any(said in log.read_text() for log in logs[:2]))
            await eventually(lambda said=said: said in logs[2].read_text())
            store.proxy.fail()

            back = utc_now()
            await eventually(lambda back=back: _streamed(lake, back))
            await eventually(lambda: _lives(lake, settings))
            status = await offload(lambda: read_status(lake, settings, utc_now()))
            assert status.session_state == SessionState.LIVE
            await eventually(lambda: _all_ended(lake))
            for log, begin in zip(logs, read, strict=True):
                assert_says_each_thing_once(log.name, log.read_text()[begin:])

    assert_one_writer_each(lake)
    statuses = await lake.queue.get_batch(None, 1000, QueueStatus.FAILED)
    assert Counter(request.request_id for request in statuses) == Counter(ids)
    for log in logs:
        assert TOKEN not in log.read_text()
        assert SECRET not in log.read_text()


async def test_a_stream_keeps_its_session_when_its_lease_runs_out_while_the_store_is_away(store):
    """Nobody can take the login meanwhile; the gateway is left to whoever may own it."""
    lake = MoneyLake(store.lake())
    put_tables(lake.path)
    await lake.registry.add_active(**leg(PUT))
    async with simulate() as sim:
        # The failed renewal is known before the lease runs out, also where the machine stalls.
        settings = settings_for(sim, lake=lake.path, session_lease_s=12.0)
        service = Service(MoneyLake.of(settings), settings)

        async def streams(since) -> bool:
            assert not service.task.done(), service.task.exception()
            return await _streamed(lake, since)

        await eventually(lambda: streams(utc_now() - timedelta(seconds=30)))
        before = service.session
        store.proxy.fail(Rule("slow down"))
        await eventually(lambda: sim.stats()["lines_in_use"] == 0)
        await eventually(lambda: utc_now() > before.expires_at)
        store.proxy.fail()
        back = utc_now()
        await eventually(lambda: streams(back))
        assert (await eventually(lambda: service.session)).session_id == before.session_id
        await service.end()

    rows = lake.updates.table.rows()
    assert_one_writer_each(lake)
    assert rows.get_column("update_id").is_unique().all()


# The parts of a stream that write and say so each: rows, holdings and the lease.
WRITERS = 3


def assert_says_each_thing_once(name: str, text: str) -> None:
    lines = [line for line in text.splitlines() if not line.startswith("INFO")]
    repeated = {line: n for line, n in Counter(lines).items() if n > WRITERS}
    assert not repeated, f"{name} repeats itself"
    assert len(lines) < 40


async def _lives(lake: MoneyLake, settings) -> bool:
    session = lake.sessions.current(settings.gateway_id)
    return session is not None and session.is_alive(utc_now()) and session.state == "LIVE"


async def _streamed(lake: MoneyLake, since) -> bool:
    await asyncio.sleep(0.2)
    rows = await offload(lake.updates.sync.latest)
    streamed = rows.filter(pl.col("timestamp") >= since, source="STREAM", conid=PUT)
    return not streamed.is_empty()


async def _all_ended(lake: MoneyLake) -> bool:
    await asyncio.sleep(0.2)
    counts = await lake.queue.counts()
    return counts[QueueStatus.PENDING] == counts[QueueStatus.PROCESSING] == 0
