"""Downloads of the accounts' values that do not arrive by themselves, beside the flushes."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import timedelta

from position_sync_dagster.domain.broker_position import Key
from position_sync_dagster.domain.leg import LegState
from position_sync_dagster.domain.request import Reason
from position_sync_dagster.gateway.accounts.account_feed import AccountFeed
from position_sync_dagster.sync.owner.publisher import Publisher


class AccountRefresh:
    """Downloads the accounts on a new connection, at each refresh interval, and after changes.

    It also lists the positions again when that is due, and requests an account again whose values
    do not arrive. One download runs at a time. Its values are published when it ends. After the
    first download of a connection, and after a refresh, every holding that is not streamed is
    queued.

    Args:
        refresh_interval_s: Time between two refreshes, in seconds.
        monotonic: The clock of this interval, in seconds.

    Attributes:
        ended: Set when a download ends that queues every holding: the next step is due at once.
    """

    def __init__(
        self,
        publisher: Publisher,
        *,
        refresh_interval_s: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._publisher = publisher
        self._interval_s = refresh_interval_s
        self._monotonic = monotonic
        self.ended = asyncio.Event()
        self._download: asyncio.Future[None] | None = None
        self._reason = Reason.SNAPSHOT
        self._next_at = 0.0
        self._accounts_to_download: set[str] = set()

    @property
    def idle(self) -> bool:
        """Return whether no download is under way."""
        return self._download is None

    @property
    def opening(self) -> bool:
        """Return whether the first download of a connection runs, which queues every holding."""
        return self._download is not None and self._reason is Reason.SNAPSHOT

    def start(self, feed: AccountFeed, reason: Reason = Reason.SNAPSHOT) -> None:
        """Start to download every account whose values are older than half an interval."""
        self._next_at = self._monotonic() + self._interval_s
        half = timedelta(seconds=self._interval_s / 2)
        self._begin(reason, feed.ensure(half))

    def add_changes(self, feed: AccountFeed, keys: Collection[Key]) -> None:
        """Add changed holdings; an account that sends no values by itself is downloaded next."""
        self._accounts_to_download |= feed.unsubscribed(keys)

    async def step(
        self,
        feed: AccountFeed,
        routes: Mapping[Key, LegState],
        publish: Callable[[], Awaitable[None]],
    ) -> None:
        """Finish a download that ended, or start the next one that is due.

        Args:
            publish: Writes `broker_positions`.

        Raises:
            GatewayError: The download failed.
            LakeError: A table is busy; the same step is due again.
        """
        if feed.lapse():
            await publish()
        download = self._download
        if download is not None and download.cancelled():
            self._download = None
        elif download is not None and download.done():
            if download.exception() is None:
                await publish()
                if self._reason is not Reason.CHANGED:
                    await self._publisher.enqueue_all(routes, self._reason)
            self._download = None
            download.result()
        elif download is None and self._monotonic() >= self._next_at:
            self.start(feed, Reason.REFRESH)
        elif download is None and feed.positions_due:
            self._begin(Reason.CHANGED, feed.snapshot())
        elif download is None and (overdue := feed.overdue):
            self._begin(Reason.CHANGED, feed.download(overdue))
        elif download is None and self._accounts_to_download:
            accounts, self._accounts_to_download = self._accounts_to_download, set()
            self._begin(Reason.CHANGED, feed.download(accounts))

    def interrupt(self) -> None:
        """Cancel the download that is under way: the gateway dropped its subscriptions.

        A download that went on would count as whole, with some accounts from before.
        """
        if self._download is not None:
            self._download.cancel()

    async def end(self) -> None:
        """Cancel the download that is under way, and wait until it has ended."""
        self.interrupt()
        download, self._download = self._download, None
        if download is not None:
            await asyncio.gather(download, return_exceptions=True)

    def _begin(self, reason: Reason, download: Awaitable[None]) -> None:
        self._reason = reason
        self._download = asyncio.ensure_future(download)
        if reason is not Reason.CHANGED:
            self.ended.clear()
            self._download.add_done_callback(lambda _: self.ended.set())
