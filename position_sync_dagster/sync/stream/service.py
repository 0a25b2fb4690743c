"""The stream as a service: it owns the login, and streams into the lake until its end."""

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from position_sync_dagster.domain.gateway_session import LineUse, Owner
from position_sync_dagster.domain.update import OwnUpdates, PositionUpdate
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.position_updates import PositionUpdatesTable
from position_sync_dagster.lake.storage.threads import begin, offload
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.counts import StreamCounts, StreamMetrics
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


async def stream(
    lake: Lake, settings: Settings, *, run_id: str | None = None, stop: asyncio.Event
) -> StreamCounts:
    """Stream until `stop` is set or the run's time is up, and return what was written.

    While there is no gateway, the stream tries again to connect, and its session is BLIND.

    Raises:
        LoginOwnedError: Another process owns the login and did not end.
        LeaseLostError: The login was taken over; nothing was written afterwards.
        TradingModeError: The lake holds data of another trading mode.
    """
    sessions = lake.open_sessions()
    begin(sessions.table.version)
    opened = begin(lake.initialize_sync)  # during the wait for the lease, which has its own handle
    async with Ownership(
        sessions, settings, owner=Owner.STREAM, run_id=run_id, wait_s=LOGIN_WAIT_S, stop=stop
    ) as own:
        await asyncio.wrap_future(opened)
        token = own.session.fencing_token
        await asyncio.gather(
            lake.updates.fence(settings.gateway_id, token),
            offload(lake.account_values.fence, settings.gateway_id, token),
        )
        streamer = _streamer_of(lake, settings, own)
        end = asyncio.Event()
        besides = [
            _end_by(stop, settings.rotate_after_s, end),
            _store_changed_detail(streamer, own),
            _return_freed_memory(),
        ]
        with memory_and_threads.rare_garbage_collection():
            await run_beside(streamer.run(end), besides, end)
        return streamer.metrics.counts


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
            dividends=lake.dividends,
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
    metrics: StreamMetrics

    async def on_position_update(self, update: PositionUpdate) -> None:
        await self.on_position_updates([update])

    async def on_position_updates(self, updates: Sequence[PositionUpdate]) -> None:
        self.ownership.check()
        written = await self.table.append(OwnUpdates(updates))
        # Others count during the await: the sum is read after it.
        self.metrics.counts += StreamCounts.of(written)


def _status(streamer: IBPositionStreamer) -> OwnerStatus:
    return OwnerStatus(
        state=streamer.state,
        lines=LineUse(streamer.lines_in_use, streamer.line_limit, streamer.underlying_lines),
        detail=streamer.detail,
        live_since=streamer.live_since,
        greeks=streamer.greeks,
        gateway=streamer.gateway_run,
    )


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
