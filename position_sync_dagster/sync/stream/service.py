"""The stream as a service: it owns the login, streams into the lake, and reports until its end."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import KW_ONLY, asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from position_sync_dagster.domain.clock import Clock, elapsed, utc_now
from position_sync_dagster.domain.gateway_session import LineUse, Owner, SessionState
from position_sync_dagster.domain.leg import LegState
from position_sync_dagster.domain.update import OwnUpdates, PositionUpdate
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.storage.threads import begin, offload
from position_sync_dagster.lake.updates.position_updates import PositionUpdatesTable
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync import run_recorder
from position_sync_dagster.sync.explain_closes import CloseExplainer
from position_sync_dagster.sync.owner import memory_and_threads
from position_sync_dagster.sync.owner.ownership import Ownership, OwnerStatus, end_tasks
from position_sync_dagster.sync.roll_legs import RollFollower
from position_sync_dagster.sync.rule_legs import RuleFollower
from position_sync_dagster.sync.stream.streamer import IBPositionStreamer, StreamTables

CHECK_INTERVAL_S = 1.0
"""Seconds between two checks whether a report is due."""

LOGIN_WAIT_S = 60.0
"""Maximum wait for the present owner of the login to end, in seconds."""


@dataclass(eq=False, repr=False)
class StreamReporter:
    """Makes a report of the streamer's metrics per interval, and the totals at the end.

    Args:
        stored_state: Returns the state as stored in `gateway_sessions`: a new state is reported
            only after the table has it.
    """

    streamer: IBPositionStreamer
    report: Callable[[run_recorder.StreamReport], None]
    clock: Clock
    _: KW_ONLY
    stored_state: Callable[[], SessionState]

    def __post_init__(self) -> None:
        self._reported_state = SessionState.STARTING
        self._started = self._since = self.clock()
        self._total = run_recorder.StreamMetrics()

    async def run(self, interval_s: float) -> None:
        """Report once per interval.

        A new state is reported at once, and so are new requests, since a drain follows soon.
        """
        interval = timedelta(seconds=interval_s)
        queued_at = self._since - interval
        while True:
            await asyncio.sleep(min(CHECK_INTERVAL_S, interval_s))
            now, metrics, changed = self.clock(), self.streamer.metrics, self._state_changed()
            is_queued = metrics.counts.enqueued > 0
            if changed or elapsed(self._since, now) >= interval:
                queued_at = now if is_queued else queued_at
                self._send(metrics.take(), always=changed)
            elif is_queued and elapsed(queued_at, now) >= interval:
                queued_at = now
                self._send(metrics.take_queued())

    def total(self) -> run_recorder.StreamReport:
        """Return the totals so far, including counts that were not reported yet."""
        total = run_recorder.StreamMetrics()
        total.add(self._total)
        total.add(self.streamer.metrics)
        return self._report_of(total, self._started)

    def finish(self) -> run_recorder.StreamReport:
        """Report the counts since the last report, and return the totals."""
        self._send(self.streamer.metrics.take())
        return self._report_of(self._total, self._started)

    def _state_changed(self) -> bool:
        state = self.streamer.state
        return state is not self._reported_state and state is self.stored_state()

    def _send(self, span: run_recorder.StreamMetrics, *, always: bool = False) -> None:
        self._total.add(span)
        report = self._report_of(span, self._since)
        if always:
            self._reported_state = self.streamer.state
        if always or report.rows or report.reconnects:
            self._since = report.until
        if always or report.rows or report.enqueued or report.reconnects:
            self.report(report)

    def _report_of(
        self, metrics: run_recorder.StreamMetrics, since: datetime
    ) -> run_recorder.StreamReport:
        streamer, ordered = self.streamer, sorted(metrics.latencies_s)
        return run_recorder.StreamReport(
            **asdict(metrics.counts),
            since=since,
            until=self.clock(),
            lines_in_use=streamer.lines_in_use,
            line_limit=streamer.line_limit,
            legs_streamed=sum(state is LegState.STREAMED for state in streamer.routes.values()),
            tick_to_table_p50_s=run_recorder.quantile(ordered, 0.5),
            tick_to_table_p95_s=run_recorder.quantile(ordered, 0.95),
            state=streamer.state,
            detail=streamer.detail,
        )


async def stream(
    lake: Lake,
    settings: Settings,
    *,
    run_id: str | None = None,
    stop: asyncio.Event,
    report: Callable[[run_recorder.StreamReport], None],
    report_interval_s: float = 60.0,
) -> run_recorder.StreamReport:
    """Stream until `stop` is set or the run's time is up, and return the totals.

    While there is no gateway, the stream tries again to connect, and its session is BLIND. A run is
    recorded in the table `runs` when it owns the login, every 15 minutes, and at its end.

    Args:
        report: Called every `report_interval_s` if there is something to report, at once when the
            state has changed, and always at the end.

    Raises:
        LoginOwnedError: Another process owns the login and did not end.
        LeaseLostError: The login was taken over; nothing was written afterwards.
        TradingModeError: The lake holds data of another trading mode.
    """
    sessions = lake.open_sessions()
    begin(sessions.table.version)
    opened = begin(lake.initialize_sync)  # during the wait for the lease, which has its own handle
    recorder = run_recorder.RunRecorder(
        lake.runs,
        run_id=run_id,
        job=run_recorder.STREAM_JOB,
        step=run_recorder.STREAM_STEP,
        gateway_id=settings.gateway_id,
    )
    # The end is recorded when nothing else runs in this event loop: it may block.
    with recorder:
        async with Ownership(
            sessions,
            settings,
            owner=Owner.STREAM,
            run_id=run_id,
            wait_s=LOGIN_WAIT_S,
            stop=stop,
        ) as own:
            recorder.note(session_id=own.session.session_id)
            await asyncio.wrap_future(opened)
            token = own.session.fencing_token
            await asyncio.gather(
                lake.updates.fence(settings.gateway_id, token),
                offload(lake.account_values.fence, settings.gateway_id, token),
            )
            streamer = _streamer_of(lake, settings, own)
            reporter = StreamReporter(
                streamer, report, utc_now, stored_state=lambda: own.session.state
            )
            end = asyncio.Event()
            besides = [
                _end_by(stop, settings.rotate_after_s, end),
                reporter.run(report_interval_s),
                _record(recorder, reporter),
                _store_changed_detail(streamer, own),
                _return_freed_memory(),
            ]
            try:
                with memory_and_threads.rare_garbage_collection():
                    await run_beside(streamer.run(end), besides, end)
            finally:
                total = reporter.finish()
                recorder.note(**run_recorder.stream_columns(total))
            return total


async def run_beside(
    work: Coroutine[Any, Any, None],
    besides: Iterable[Coroutine[Any, Any, None]],
    end: asyncio.Event,
) -> None:
    """Run tasks beside the work until it ends; an error in one of them ends it.

    Without the rotation, the status or the reports the stream would seem well and not be.

    Args:
        work: Ends cleanly after `end` is set.
        besides: What runs meanwhile, and is cancelled at the end.
    """

    def end_after_an_error(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            end.set()

    tasks = [asyncio.create_task(one) for one in besides]
    for task in tasks:
        task.add_done_callback(end_after_an_error)
    try:
        await work
    finally:
        await end_tasks(*tasks)
    for task in tasks:
        if not task.cancelled():
            task.result()


def _streamer_of(lake: Lake, settings: Settings, own: Ownership) -> IBPositionStreamer:
    """Return the streamer that writes the tables of a lake, and reports its status to the lease."""
    file = settings.strategies_file
    streamer = IBPositionStreamer(
        lake.registry,
        lake.queue,
        settings=settings,
        tables=StreamTables(
            broker_positions=lake.broker_positions,
            updates=lake.updates,
            contracts=lake.contracts,
            account_values=lake.account_values,
            closes=CloseExplainer(lake, run_id=own.session.run_id, guard=own.check),
            rolls=RollFollower(lake, file),
            rules=None if file is None else RuleFollower(lake.registry, file),
            ownership=own,
        ),
    )
    streamer.register_handler(UpdatesWriter(lake.updates, own, streamer.metrics))
    own.report_status(lambda: _status(streamer))
    return streamer


@dataclass(eq=False, repr=False)
class UpdatesWriter:
    """The handler that checks the lease, then writes and counts streamed updates."""

    table: PositionUpdatesTable
    ownership: Ownership
    metrics: run_recorder.StreamMetrics

    async def on_position_update(self, update: PositionUpdate) -> None:
        await self.on_position_updates([update])

    async def on_position_updates(self, updates: Sequence[PositionUpdate]) -> None:
        self.ownership.check()
        written = await self.table.append(OwnUpdates(updates))
        # Others count during the await: the sum is read after it.
        self.metrics.counts += run_recorder.StreamCounts.of(written)


def _status(streamer: IBPositionStreamer) -> OwnerStatus:
    return OwnerStatus(
        state=streamer.state,
        lines=LineUse(streamer.lines_in_use, streamer.line_limit, streamer.underlying_lines),
        detail=streamer.detail,
        live_since=streamer.live_since,
        greeks=streamer.greeks,
        gateway=streamer.gateway_run,
    )


async def _record(recorder: run_recorder.RunRecorder, reporter: StreamReporter) -> None:
    while True:
        recorder.note(**run_recorder.stream_columns(reporter.total()))
        await offload(recorder.write)
        await asyncio.sleep(run_recorder.RECORD_EVERY_S)


async def _store_changed_detail(streamer: IBPositionStreamer, own: Ownership) -> None:
    """Renew the lease when the detail changed: a problem that is gone must not stay on display."""
    stored = streamer.detail
    while True:
        await asyncio.sleep(CHECK_INTERVAL_S)
        if streamer.detail != stored:
            stored = streamer.detail
            own.renew_now()


async def _return_freed_memory() -> None:
    while True:
        await asyncio.sleep(memory_and_threads.RETURN_EVERY_S)
        await offload(memory_and_threads.return_freed_memory)


async def _end_by(stop: asyncio.Event, seconds: float, end: asyncio.Event) -> None:
    """Set `end` when `stop` is set, or after some seconds."""
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
    end.set()
