"""The flushes: what changed since the last one is valued and handed to the handlers."""

import asyncio
from collections.abc import Callable

from position_sync_dagster.domain.broker_position import Key
from position_sync_dagster.domain.update import PositionUpdateHandler
from position_sync_dagster.gateway.changes import PendingChanges
from position_sync_dagster.gateway.connection import GatewayConnection
from position_sync_dagster.sync.owner.account_recorder import AccountRecorder
from position_sync_dagster.sync.owner.ownership import OwnerContext
from position_sync_dagster.sync.owner.publisher import Announcements
from position_sync_dagster.sync.stream.delivery import Delivery
from position_sync_dagster.sync.stream.pricing import StreamPricer

GATHER_S = 0.05
"""Ticks of one packet and its neighbours are flushed together."""

SHORTER = 0.1
"""By this part of all pauses some may be shorter, so that flushes come no more than a tenth more
often. The first two may be half as long: that suffices for ticks that come in step."""

CLOSE_TIMEOUT_S = 5.0
"""At the end of the stream, each handler has this long to take its last updates."""


class Flusher:
    """Hands the newest value of each streamed holding to the handlers, once per interval.

    Args:
        announced: What has its row or request already; a close is written once.
        accounts: Records the values of the accounts with each flush.
    """

    def __init__(
        self,
        context: OwnerContext,
        pricer: StreamPricer,
        announced: Announcements,
        accounts: AccountRecorder,
    ) -> None:
        self._context = context
        self._pricer = pricer
        self._announced = announced
        self._accounts = accounts
        self._interval_s = context.settings.flush_interval_s
        self._ticks: PendingChanges[int, float] = PendingChanges()
        self._valued: PendingChanges[Key, None] = PendingChanges()
        self._deliveries: list[Delivery] = []

    def add_handler(self, handler: PositionUpdateHandler) -> None:
        """Deliver each flush to this handler too."""
        delivered = self._context.metrics.latencies_s.append
        monotonic = self._context.monotonic
        self._deliveries.append(Delivery(handler, on_delivered=delivered, monotonic=monotonic))

    def watch(self, connection: GatewayConnection) -> None:
        """Collect the ticks and the profits of a new connection."""
        self._ticks = connection.lines.watch()
        self._valued = connection.pnl.watch()

    async def run(self, live_connection: Callable[[], GatewayConnection | None]) -> None:
        """Flush once per interval, whatever tables and requests the other steps wait for.

        Args:
            live_connection: Returns the connection, or None while nothing may be flushed.

        Raises:
            LeaseLostError: The login belongs to another process now.
        """
        pause, pace = self._interval_s, FlushPace(self._interval_s)
        while True:
            await asyncio.sleep(pause)
            pause, connection = self._interval_s, live_connection()
            if connection is not None:
                self._flush(connection)
                pause = pace.pause_s(self._context.monotonic() - connection.lines.ticked_at)

    async def close(self) -> None:
        """Deliver what is left, and end the deliveries."""
        for delivery in self._deliveries:
            await delivery.close(timeout_s=CLOSE_TIMEOUT_S)
        await self._accounts.close(timeout_s=CLOSE_TIMEOUT_S)

    def _flush(self, connection: GatewayConnection) -> None:
        self._context.lease.check()
        provenance = self._context.lease.provenance
        valued = self._pricer.flush(
            connection,
            self._ticks.take(),
            valued=self._valued.take(),
            now=self._context.clock(),
            provenance=provenance,
        )
        updates = [
            pending
            for pending in valued
            if pending.update.position or not self._announced.has_zero_row(pending.key)
        ]
        urgent = not all(
            self._announced.is_held(pending.key, pending.update.position) for pending in updates
        )
        holdings = (connection.feed.get(pending.key) for pending in updates)
        self._announced.record(holding for holding in holdings if holding is not None)
        for delivery in self._deliveries:
            delivery.put(updates, urgent=urgent)
        self._accounts.flush(connection, provenance)


class FlushPace:
    """The pause before the next flush, so that a flush comes right behind the ticks.

    Where ticks come in step (a slow feed, or a snapshot a second), a flush at any moment would
    find each of its values to be old already. A shorter pause moves it to where the values are new.
    Where they come in step at another interval (each 0.6 s), it would have to be moved each time:
    so pauses are shortened by a tenth in all.

    >>> pace = FlushPace(1.0)
    >>> pace.pause_s(0.45), pace.pause_s(0.02), pace.pause_s(30.0)
    (0.6, 1.0, 1.0)
    """

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._spare_s = interval_s

    def pause_s(self, waited_s: float) -> float:
        """Return the pause after a flush.

        Args:
            waited_s: How long ago the newest tick arrived when the flush took it.
        """
        self._spare_s = min(self._spare_s + self._interval_s * SHORTER, self._interval_s)
        late_s = waited_s - GATHER_S
        shorter_s = min(late_s, self._interval_s / 2)
        if not 0 < late_s < self._interval_s or shorter_s > self._spare_s:
            return self._interval_s
        self._spare_s -= shorter_s
        return self._interval_s - shorter_s
