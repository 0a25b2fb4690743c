"""The stream as a service: own the login, stream into the lake, report, until told to stop."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.gateway_session import Owner
from position_sync_dagster.domain.leg import LegState
from position_sync_dagster.domain.update import PositionUpdate
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.updates.handler import DeltaLakePositionWriter
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.owner.metrics import StreamMetrics
from position_sync_dagster.sync.owner.ownership import Ownership, OwnerStatus
from position_sync_dagster.sync.run_reports import StreamReport
from position_sync_dagster.sync.stream.streamer import IBPositionStreamer


async def stream(
    lake: Lake,
    settings: Settings,
    *,
    run_id: str | None = None,
    stop: asyncio.Event,
    report: Callable[[StreamReport], None],
    report_interval_s: float = 60.0,
    wait_s: float = 60.0,
    clock: Clock = utc_now,
) -> StreamReport:
    """Stream until `stop` is set or the run's time is up; give the totals.

    A gateway that is not there is tried again and again, and the session says BLIND meanwhile.

    Args:
        report: Called every `report_interval_s` when there is something to say.
        wait_s: How long to wait for a present owner of the login to end.

    Raises:
        LoginOwnedError: Another process owns the login and goes on.
        LeaseLostError: The login was taken over; nothing was written afterwards.
        TradingModeError: The lake holds data of another trading mode.
    """
    await lake.initialize()
    async with Ownership(
        lake.sessions,
        settings,
        owner=Owner.STREAM,
        run_id=run_id,
        wait_s=wait_s,
        stop=stop,
        clock=clock,
    ) as own:
        await lake.updates.fence(settings.gateway_id, own.session.fencing_token)
        streamer = IBPositionStreamer(
            lake.registry,
            lake.queue,
            settings=settings,
            broker_positions=lake.broker_positions,
            updates=lake.updates,
            contracts=lake.contracts,
            ownership=own,
            clock=clock,
        )
        writer = DeltaLakePositionWriter(table=lake.updates)
        streamer.register_handler(_Writer(writer, streamer, own))
        own.report_status(lambda: _status(streamer))
        watch = _Watch(streamer, report, clock)
        over = asyncio.Event()
        timers = [
            asyncio.create_task(_after(stop, over)),
            asyncio.create_task(_rotate(settings.rotate_after_s, over)),
            asyncio.create_task(watch.run(report_interval_s)),
        ]
        try:
            await streamer.run(over)
        finally:
            for timer in timers:
                timer.cancel()
            await asyncio.gather(*timers, return_exceptions=True)
        return watch.finish()


LOOK_S = 1.0
"""How often the reports are thought of."""


class _Writer:
    """The persisting handler: counted, and only under a lease that holds."""

    def __init__(
        self, writer: DeltaLakePositionWriter, streamer: IBPositionStreamer, own: Ownership
    ) -> None:
        self._writer = writer
        self._streamer = streamer
        self._own = own

    async def on_position_update(self, update: PositionUpdate) -> None:
        await self.on_position_updates([update])

    async def on_position_updates(self, updates: Sequence[PositionUpdate]) -> None:
        self._own.check()
        before = self._writer.rows_written
        await self._writer.on_position_updates(updates)
        rows, version = self._writer.rows_written - before, self._writer.last_version
        if rows and version is not None:
            self._streamer.metrics.committed(rows, version)


class _Watch:
    """Turn the streamer's metrics into a report a minute, and into the totals at the end."""

    def __init__(
        self, streamer: IBPositionStreamer, report: Callable[[StreamReport], None], clock: Clock
    ) -> None:
        self._streamer = streamer
        self._report = report
        self._clock = clock
        self._started = self._since = clock()
        self._total = StreamMetrics()

    async def run(self, interval_s: float) -> None:
        """Report once per interval; what was enqueued at once, since a drain follows it soon."""
        interval = timedelta(seconds=interval_s)
        queued_at = self._since - interval
        while True:
            await asyncio.sleep(min(LOOK_S, interval_s))
            now = self._clock()
            if now - self._since >= interval:
                queued_at = now if self._streamer.metrics.enqueued else queued_at
                self._flush(self._streamer.metrics.take())
            elif self._streamer.metrics.enqueued and now - queued_at >= interval:
                queued_at = now
                self._flush(self._streamer.metrics.take_queued())

    def finish(self) -> StreamReport:
        """Report what is left and give the totals."""
        self._flush(self._streamer.metrics.take())
        return self._of(self._total, self._started)

    def _flush(self, span: StreamMetrics) -> None:
        self._total.add(span)
        report = self._of(span, self._since)
        if report.rows or report.reconnects:
            self._since = report.until
        if report.rows or report.enqueued or report.reconnects:
            self._report(report)

    def _of(self, metrics: StreamMetrics, since: datetime) -> StreamReport:
        streamer = self._streamer
        return metrics.report(
            since=since,
            until=self._clock(),
            lines_in_use=streamer.lines_in_use,
            line_limit=streamer.line_limit,
            legs_streamed=_streamed(streamer),
            state=streamer.state,
            detail=streamer.detail,
        )


def _streamed(streamer: IBPositionStreamer) -> int:
    return sum(state is LegState.STREAMED for state in streamer.routes.values())


def _status(streamer: IBPositionStreamer) -> OwnerStatus:
    return OwnerStatus(
        state=streamer.state,
        lines_in_use=streamer.lines_in_use,
        line_limit=streamer.line_limit,
        detail=streamer.detail,
    )


async def _after(event: asyncio.Event, over: asyncio.Event) -> None:
    await event.wait()
    over.set()


async def _rotate(seconds: float, over: asyncio.Event) -> None:
    with suppress(OverflowError):
        await asyncio.sleep(seconds)
    over.set()
