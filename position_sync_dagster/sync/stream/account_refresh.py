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

    There is one walk at a time. What it brought is published when it ends; after the first of a
    connection and after a refresh, every holding that is not streamed is queued.
    """

    def __init__(self, publisher: Publisher, *, refresh_interval_s: float) -> None:
        self._publisher = publisher
        self._interval_s = refresh_interval_s
        self._walk: asyncio.Task[None] | None = None
        self._reason = Reason.SNAPSHOT
        self._due = 0.0
        self._unvalued: set[str] = set()

    @property
    def idle(self) -> bool:
        """Tell whether no walk is under way."""
        return self._walk is None

    @property
    def opening(self) -> bool:
        """Tell whether the first walk of a connection is under way, which queues every holding."""
        return self._walk is not None and self._reason is Reason.SNAPSHOT

    def start(self, feed: AccountFeed, reason: Reason = Reason.SNAPSHOT) -> None:
        """Walk every account whose values are not fresh."""
        self._due = time.monotonic() + self._interval_s
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
        """End a walk that is over, and begin the next where one is due.

        Raises:
            GatewayError: The walk failed.
            LakeError: A table is busy; the same step is taken again the next time.
        """
        walk = self._walk
        if walk is not None and walk.done():
            if walk.exception() is None:
                await publish()
                if self._reason is not Reason.CHANGED:
                    await self._publisher.enqueue_all(feed, routes, self._reason)
            self._walk = None
            walk.result()
        elif walk is None and time.monotonic() >= self._due:
            self.start(feed, Reason.REFRESH)
        elif walk is None and self._unvalued:
            accounts, self._unvalued = self._unvalued, set()
            self._begin(Reason.CHANGED, feed.download(accounts))

    async def end(self) -> None:
        """Break off."""
        walk, self._walk = self._walk, None
        if walk is not None:
            walk.cancel()
            await asyncio.gather(walk, return_exceptions=True)

    def _begin(self, reason: Reason, walk: Awaitable[None]) -> None:
        self._reason = reason
        self._walk = asyncio.ensure_future(walk)
