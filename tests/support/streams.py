"""What a test of a stream works with: a simulator, settings, legs, waits, and what it has said."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from ib_gateway_simulator import Book, SimulatedGateway, load_book
from position_sync_dagster import IBPositionStreamer
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.domain.holding import BrokerPosition
from position_sync_dagster.domain.position_update import PositionUpdate
from position_sync_dagster.domain.retry import Backoff
from position_sync_dagster.gateway.connection import day_begin
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.stream.streamer import Complete, StreamCounts, stream
from tests.support.booked_legs import A
from tests.support.settings import make_settings
from tests.support.waiting import eventually

# Delays that no test waits for.
AT_ONCE = Backoff(first_s=0.05, longest_s=0.05)


# Longer than a test needs from its fills to the second look at their executions.
BEFORE_MIDNIGHT = timedelta(seconds=30)


async def pass_midnight() -> None:
    """Wait for a midnight of a market that is near.

    A gateway names executions since then alone: of a holding that went without one right before it,
    only a statement says why.
    """
    while day_begin(utc_now() + BEFORE_MIDNIGHT) != day_begin(utc_now()):
        await asyncio.sleep(0.1)


@asynccontextmanager
async def simulate(book: str | Book = "small", **options: Any) -> AsyncIterator[SimulatedGateway]:
    """Run a simulator; at its end no order message may have reached it."""
    await pass_midnight()
    options.setdefault("tick_interval_s", 0.1)
    found = book if isinstance(book, Book) else load_book(book)
    async with SimulatedGateway(found, seed=7, port=0, control_port=None, **options) as sim:
        yield sim
        assert sim.orders_received == []


def settings_for(sim: SimulatedGateway, **more: Any) -> Settings:
    """Return settings for a simulator, with short intervals."""
    usual = {"flush_interval_s": 0.2, "min_hold_s": 0.1, "heartbeat_s": 0.5, "reconnect": AT_ONCE}
    usual |= {"gateway_port": sim.port, "gateway_timeout_s": 10.0, "session_lease_s": 30.0}
    return make_settings(**usual | more)


class Recorder:
    """A handler that keeps every update."""

    def __init__(self) -> None:
        self.updates: list[PositionUpdate] = []

    async def on_position_update(self, update: PositionUpdate) -> None:
        self.updates.append(update)

    def closes(self, conid: int) -> list[PositionUpdate]:
        return [u for u in self.updates if u.conid == conid and u.position == 0]

    def newest(self, account: str, conid: int) -> PositionUpdate | None:
        found = [u for u in self.updates if (u.account, u.conid) == (account, conid)]
        return found[-1] if found else None

    async def row(
        self, conid: int, condition: Callable[[PositionUpdate], object] = bool, *, account: str = A
    ) -> PositionUpdate:
        """Wait until the newest row of a holding fulfils a condition, and return it."""
        newest = self.newest
        return await eventually(
            lambda: (row := newest(account, conid)) is not None and condition(row) and row
        )


def requests(sim: SimulatedGateway, name: str, client: str = "17") -> int:
    """Count the requests of a kind that a client has made."""
    return sim.stats()["requests"].get(client, {}).get(name, 0)


def published(lake: Lake, settings: Settings) -> dict[tuple[str, int], BrokerPosition]:
    """Return what is published of each holding."""
    return {row.key: row for row in lake.broker_positions.read(settings.gateway_id)}


async def holding(
    lake: Lake,
    streamer: IBPositionStreamer,
    key: tuple[str, int],
    condition: Callable[[BrokerPosition], object],
) -> BrokerPosition:
    """Wait until what is published of a holding fulfils a condition, and return it."""

    def found() -> BrokerPosition | None:
        held = published(lake, streamer.settings).get(key)
        return held if held is not None and condition(held) else None

    return await eventually(found)


async def updates_continue(streamer: IBPositionStreamer, received: Recorder) -> None:
    """Wait until a streamer is LIVE and delivers another update."""
    await eventually(lambda: streamer.state is SessionState.LIVE)
    count = len(received.updates)
    await eventually(lambda: len(received.updates) > count)


async def offline(
    sim: SimulatedGateway, streamer: IBPositionStreamer, restored: str = "restored_data_kept"
) -> None:
    """Let the gateway of a stream lose IB and find it again."""
    sim.connectivity("lost")
    await eventually(lambda: streamer.state is SessionState.BLIND)
    sim.connectivity(restored)
    await eventually(lambda: streamer.state is SessionState.LIVE)


class Service:
    """A stream as a service, which runs as a task."""

    def __init__(
        self,
        lake: Lake,
        settings: Settings,
        run_id: str = "run-1",
        complete: Complete | None = None,
    ) -> None:
        self.lake, self.settings, self.stop = lake, settings, asyncio.Event()
        running = stream(lake, settings, run_id=run_id, stop=self.stop, complete=complete)
        self.task = asyncio.create_task(running)

    @property
    def session(self) -> Any:
        """Its session; None before it has one."""
        return self.lake.sessions.current(self.settings.gateway_id)

    async def reaches(self, state: SessionState = SessionState.LIVE) -> None:
        await eventually(lambda: (session := self.session) is not None and session.state is state)

    async def end(self) -> StreamCounts:
        self.stop.set()
        return await self.task
