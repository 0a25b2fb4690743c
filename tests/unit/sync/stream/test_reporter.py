"""When the stream reports; the streamer is a stand-in whose state changes at the wrong moment."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.lake.updates.append import AppendResult
from position_sync_dagster.sync.owner.ownership import Unowned
from position_sync_dagster.sync.counts import StreamCounts, StreamMetrics, StreamReport
from position_sync_dagster.sync.stream import service
from position_sync_dagster.sync.stream.service import StreamReporter
from tests.support.clock import HandClock
from tests.support.waiting import DEADLINE_S


@dataclass
class Streamer:
    """What a reporter reads of a streamer."""

    state: SessionState = SessionState.STARTING
    detail: str | None = None
    lines_in_use: int = 0
    line_limit: int = 100
    routes: dict[Any, Any] = field(default_factory=dict)
    metrics: StreamMetrics = field(default_factory=StreamMetrics)


async def test_a_state_is_reported_when_the_session_shows_it_and_not_before(monkeypatch) -> None:
    """Who hears of the state reads the table: the check would judge the state before."""
    monkeypatch.setattr(service, "CHECK_INTERVAL_S", 0.001)
    streamer, reports = Streamer(), list[StreamReport]()
    stored = [SessionState.STARTING]
    reporter = StreamReporter(streamer, reports.append, utc_now, stored_state=lambda: stored[-1])
    running = asyncio.create_task(reporter.run(3600.0))
    streamer.state = SessionState.LIVE
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert reports == []
    stored.append(SessionState.LIVE)
    while not reports:
        await asyncio.sleep(0.001)
    assert [report.state for report in reports] == ["LIVE"]
    streamer.metrics.counts += StreamCounts(rows=3, commits=1)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert reporter.finish().rows == 3
    assert [report.rows for report in reports] == [0, 3]


async def test_rows_are_reported_also_after_the_clock_was_set_back(monkeypatch) -> None:
    monkeypatch.setattr(service, "CHECK_INTERVAL_S", 0.001)
    streamer, clock, reports = Streamer(), HandClock(), list[StreamReport]()
    reporter = StreamReporter(streamer, reports.append, clock, stored_state=lambda: streamer.state)
    clock.advance(-3600)
    streamer.metrics.counts += StreamCounts(rows=3, commits=1)
    running = asyncio.create_task(reporter.run(60.0))
    async with asyncio.timeout(DEADLINE_S):
        while not reports:
            await asyncio.sleep(0.001)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert [report.rows for report in reports] == [3]


class Ledger:
    """A ledger whose commit takes until the test lets it end."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    async def append(self, _updates: Any) -> AppendResult:
        await self.ended.wait()
        return AppendResult(version=7, rows=2, batch_id="b")


async def test_what_is_counted_while_rows_are_written_is_neither_lost_nor_counted_twice() -> None:
    metrics, ledger = StreamMetrics(), Ledger()
    writer = service.UpdatesWriter(ledger, Unowned(), metrics)
    metrics.counts += StreamCounts(enqueued=1)
    writing = asyncio.create_task(writer.on_position_updates([]))
    await asyncio.sleep(0)
    assert metrics.take().counts.enqueued == 1
    metrics.counts += StreamCounts(enqueued=5)
    ledger.ended.set()
    await writing
    assert (metrics.counts.enqueued, metrics.counts.rows) == (5, 2)
