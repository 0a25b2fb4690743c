"""Reports of the stream: one per interval, and the totals at the end."""

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timedelta

from position_sync_dagster.domain.clock import Clock
from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.domain.leg import LegState
from position_sync_dagster.sync.owner.metrics import StreamMetrics, quantile
from position_sync_dagster.sync.run_recorder import StreamReport
from position_sync_dagster.sync.stream.streamer import IBPositionStreamer

CHECK_INTERVAL_S = 1.0
"""How often the reporter checks whether a report is due."""


class StreamReporter:
    """Turns the streamer's metrics into a report per interval, and into the totals at the end.

    Args:
        stored_state: The state as `gateway_sessions` shows it: who hears of a new state and reads
            the table finds it there.
    """

    def __init__(
        self,
        streamer: IBPositionStreamer,
        report: Callable[[StreamReport], None],
        clock: Clock,
        *,
        stored_state: Callable[[], SessionState],
    ) -> None:
        self._streamer = streamer
        self._report = report
        self._clock = clock
        self._stored_state = stored_state
        self._reported_state = SessionState.STARTING
        self._started = self._since = clock()
        self._total = StreamMetrics()

    async def run(self, interval_s: float) -> None:
        """Report once per interval.

        Report a new state at once, and new requests as well, since a drain follows soon.
        """
        interval = timedelta(seconds=interval_s)
        queued_at = self._since - interval
        while True:
            await asyncio.sleep(min(CHECK_INTERVAL_S, interval_s))
            now = self._clock()
            if self._state_changed():
                queued_at = now if self._streamer.metrics.counts.enqueued else queued_at
                self._send(self._streamer.metrics.take(), always=True)
            elif now - self._since >= interval:
                queued_at = now if self._streamer.metrics.counts.enqueued else queued_at
                self._send(self._streamer.metrics.take())
            elif self._streamer.metrics.counts.enqueued and now - queued_at >= interval:
                queued_at = now
                self._send(self._streamer.metrics.take_queued())

    def total(self) -> StreamReport:
        """Return the totals so far, with what was not reported yet; nothing is reported by it."""
        total = StreamMetrics()
        total.add(self._total)
        total.add(self._streamer.metrics)
        return self._report_of(total, self._started)

    def finish(self) -> StreamReport:
        """Report what was counted since the last report, and return the totals."""
        self._send(self._streamer.metrics.take())
        return self._report_of(self._total, self._started)

    def _state_changed(self) -> bool:
        state = self._streamer.state
        return state is not self._reported_state and state is self._stored_state()

    def _send(self, span: StreamMetrics, *, always: bool = False) -> None:
        self._total.add(span)
        report = self._report_of(span, self._since)
        if always:
            self._reported_state = self._streamer.state
        if always or report.rows or report.reconnects:
            self._since = report.until
        if always or report.rows or report.enqueued or report.reconnects:
            self._report(report)

    def _report_of(self, metrics: StreamMetrics, since: datetime) -> StreamReport:
        streamer, ordered = self._streamer, sorted(metrics.latencies_s)
        return StreamReport(
            **asdict(metrics.counts),
            since=since,
            until=self._clock(),
            lines_in_use=streamer.lines_in_use,
            line_limit=streamer.line_limit,
            legs_streamed=sum(state is LegState.STREAMED for state in streamer.routes.values()),
            tick_to_table_p50_s=quantile(ordered, 0.5),
            tick_to_table_p95_s=quantile(ordered, 0.95),
            state=streamer.state,
            detail=streamer.detail,
        )
