"""When the accounts are downloaded: on a new connection, at each interval, and after changes."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import timedelta

from position_sync_dagster.domain.leg import LegStates
from position_sync_dagster.domain.queue_request import Reason
from position_sync_dagster.gateway.account_feed import AccountFeed
from position_sync_dagster.sync.stream.ownership import OwnerContext
from position_sync_dagster.sync.stream.publisher import Publisher


@dataclass(eq=False, repr=False)
class AccountRefresh:
    """Downloads the accounts on a new connection, at each refresh interval, and after changes.

    It also requests the list of positions again when that is due, and an account again if its
    values do not arrive. One download runs at a time; its values are published when it ends. After
    the first download of a connection, and after a refresh, every holding that is not streamed is
    queued.
    """

    context: OwnerContext
    publisher: Publisher

    def __post_init__(self) -> None:
        self._download: asyncio.Future[None] | None = None
        self._reason = Reason.SNAPSHOT
        self._next_at = 0.0

    @property
    def idle(self) -> bool:
        """Return whether no download is running."""
        return self._download is None

    @property
    def opening(self) -> bool:
        """Return whether the first download of a connection runs, which queues every holding."""
        return self._download is not None and self._reason is Reason.SNAPSHOT

    def start(self, feed: AccountFeed, reason: Reason = Reason.SNAPSHOT) -> None:
        """Start to download every account whose values are older than half an interval."""
        interval_s = self.context.settings.refresh_interval_s
        self._next_at = self.context.monotonic() + interval_s
        self._begin(reason, feed.ensure(timedelta(seconds=interval_s / 2)))

    async def step(self, feed: AccountFeed, routes: LegStates) -> None:
        """Finish a download that has ended, or start the next one that is due.

        Raises:
            GatewayError: The download failed.
            LakeError: A table is busy; the same step is due again.
        """
        if feed.lapse():  # an account is silent: readers are told that it is PARTIAL
            await self.publisher.publish(feed)
        download = self._download
        if download is None:
            self._begin_due(feed)
        elif download.cancelled():
            self._download = None
        elif download.done():
            if download.exception() is None:
                await self.publisher.publish(feed)
                if self._reason is not Reason.CHANGED:
                    await self.publisher.enqueue_all(routes, self._reason)
            self._download = None
            download.result()  # raises why it failed

    def interrupt(self) -> None:
        """Cancel the running download: the gateway dropped its subscriptions.

        Otherwise it would count as complete, with values of some accounts from before the loss.
        """
        if self._download is not None:
            self._download.cancel()

    async def end(self) -> None:
        """Cancel the running download, and wait until it has ended."""
        self.interrupt()
        download, self._download = self._download, None
        if download is not None:
            await asyncio.gather(download, return_exceptions=True)

    def _begin_due(self, feed: AccountFeed) -> None:
        if self.context.monotonic() >= self._next_at:
            self.start(feed, Reason.REFRESH)
        elif feed.positions_due:
            self._begin(Reason.CHANGED, feed.snapshot())
        elif overdue := feed.overdue:
            self._begin(Reason.CHANGED, feed.download(overdue))

    def _begin(self, reason: Reason, download: Awaitable[None]) -> None:
        self._reason = reason
        self._download = asyncio.ensure_future(download)
