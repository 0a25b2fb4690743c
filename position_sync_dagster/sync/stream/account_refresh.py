"""The walks of the accounts: what does not come by itself is asked for, beside the flushes."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import timedelta

from position_sync_dagster.domain.leg import LegState
from position_sync_dagster.domain.request import Reason
from position_sync_dagster.domain.routing import Key
from position_sync_dagster.gateway.account_feed import AccountFeed
from position_sync_dagster.sync.owner.publisher import Publisher


class AccountRefresh:
    """Walk the accounts at the start, each refresh interval, and where a change brought no value.

    There is one download at a time. What it brought is published when it ends; after the first of a
    connection and after a refresh, every holding that is not streamed is queued.
    """

    def __init__(self, publisher: Publisher, *, refresh_interval_s: float) -> None:
        self._publisher = publisher
        self._interval_s = refresh_interval_s
        self._download: asyncio.Task[None] | None = None
        self._reason = Reason.SNAPSHOT
        self._next_at = 0.0
        self._unvalued: set[str] = set()

    @property
    def idle(self) -> bool:
        """Tell whether no download is under way."""
        return self._download is None

    @property
    def opening(self) -> bool:
        """Return whether the first download of a connection runs, which queues every holding."""
        return self._download is not None and self._reason is Reason.SNAPSHOT

    def start(self, feed: AccountFeed, reason: Reason = Reason.SNAPSHOT) -> None:
        """Walk every account whose values are not fresh."""
        self._next_at = time.monotonic() + self._interval_s
        half = timedelta(seconds=self._interval_s / 2)
        self._begin(reason, feed.ensure(half))

    def changed(self, feed: AccountFeed, keys: Collection[Key]) -> None:
        """Note changes; those that bring no value by themselves have their accounts downloaded."""
        self._unvalued |= feed.unsubscribed(keys)

    async def step(
        self,
        feed: AccountFeed,
        routes: Mapping[Key, LegState],
        publish: Callable[[], Awaitable[None]],
    ) -> None:
        """End a download that is over, and begin the next where one is due.

        Raises:
            GatewayError: The download failed.
            LakeError: A table is busy; the same step is taken again the next time.
        """
        download = self._download
        if download is not None and download.done():
            if download.exception() is None:
                await publish()
                if self._reason is not Reason.CHANGED:
                    await self._publisher.enqueue_all(feed, routes, self._reason)
            self._download = None
            download.result()
        elif download is None and time.monotonic() >= self._next_at:
            self.start(feed, Reason.REFRESH)
        elif download is None and self._unvalued:
            accounts, self._unvalued = self._unvalued, set()
            self._begin(Reason.CHANGED, feed.download(accounts))

    async def end(self) -> None:
        """Break off."""
        download, self._download = self._download, None
        if download is not None:
            download.cancel()
            await asyncio.gather(download, return_exceptions=True)

    def _begin(self, reason: Reason, download: Awaitable[None]) -> None:
        self._reason = reason
        self._download = asyncio.ensure_future(download)
