"""The broker's own values: when they are requested, published and queued.

`FollowedHoldings` has those of PnLSingle, which takes no line; `AccountRefresh` has the downloads
of the accounts, of which the portfolio rows come.
"""

import asyncio
import math
from collections.abc import Awaitable, Mapping, Set
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain

from position_sync_dagster.domain.holding import Key, grouped
from position_sync_dagster.domain.leg import LegState, LegStates
from position_sync_dagster.domain.queue_request import Reason
from position_sync_dagster.domain.retry import rest_s
from position_sync_dagster.gateway.account_feed import AccountFeed
from position_sync_dagster.gateway.connection import GatewayConnection
from position_sync_dagster.sync.stream.ownership import Ownership
from position_sync_dagster.sync.stream.publisher import Publisher
from position_sync_dagster.sync.stream.routes import Routes
from position_sync_dagster.sync.waits import end_tasks

# Number of streamed holdings whose profit is subscribed, too.
STREAMED_PNL_SUBSCRIPTIONS = 250

# Shortest time between two publications of values by PnLSingle, and of those of over 1,000
# holdings. It is at least the flush interval; slow commits make it longer.
PUBLISH_S = 4.0

PUBLISH_MANY_S = 6.0

# How often monitored holdings whose values moved are queued: each time, a drain follows.
# Readers see the published values in the meantime.
MOVED_INTERVAL_S = 60.0

# How often legs of active strategies without a free line are valued, in seconds.
OVERFLOW_INTERVAL_S = 30.0

# More holdings than these are published less often.
MANY = 1000

# Seconds after which the holdings to follow are chosen again by their values.
CHOOSE_S = 60.0


# A holding that is followed gives way only to one whose value is greater by this factor.
KEEPS_BY = 1.25


def largest(values: Mapping[Key, float | None], followed: Set[Key], limit: int) -> list[Key]:
    """Return the monitored holdings to follow: those without a value, then the largest.

    Args:
        values: The last value of each holding (`HoldingsBook.last_values`); None: unknown.
        followed: The holdings that are followed now: their values count `KEEPS_BY` times, so that
            two of about the same value do not take turns.
        limit: How many may be followed.

    >>> values = {("A", 1): 100.0, ("A", 2): -120.0, ("A", 3): None, ("A", 4): 200.0}
    >>> largest(values, {("A", 1)}, 3)
    [('A', 3), ('A', 4), ('A', 1)]
    """
    weighed = {
        key: math.inf if value is None else abs(value) * (KEEPS_BY if key in followed else 1.0)
        for key, value in values.items()
    }
    # Two sorts, of which the second keeps the order of the first, compare no tuples with numbers.
    return sorted(sorted(values), key=weighed.__getitem__, reverse=True)[:limit]


@dataclass(eq=False, repr=False)
class FollowedHoldings:
    """Follows holdings by PnLSingle, publishes their values, and queues those that are due.

    Legs without a line come first: they are queued at each interval. Streamed holdings come next,
    for their daily profit and a second value that shows a dead line. Last come the monitored
    holdings with the largest values: they are queued when their value moved.
    """

    ownership: Ownership
    publisher: Publisher

    def __post_init__(self) -> None:
        # When the next publication, queueing of legs and of what moved are due.
        self._publish_at_s = -math.inf
        self._queue_legs_at_s = -math.inf
        self._queue_moved_at_s = -math.inf
        # Version of the routes at the last choice, and the number of its minute (`CHOOSE_S`); None
        # in place of the minute: chosen while values were not known.
        self._chosen_as_of: tuple[object, ...] = ()
        # What was chosen: the legs without a line, and the monitored holdings.
        self._overflow_legs: list[Key] = []
        self._monitored: list[Key] = []

    async def step(self, connection: GatewayConnection, routes: Routes, *, may_queue: bool) -> None:
        """Subscribe to the values of holdings; publish and queue them when that is due.

        Args:
            may_queue: False while a download runs, which may queue every holding anyway. Until
                the first one has ended, no monitored holding is followed: their values are unknown.
        """
        now = self.ownership.monotonic()
        self._choose(connection, routes, now, values_known=may_queue)
        connection.pnl.step()

        queues_legs = bool(self._overflow_legs) and may_queue and now >= self._queue_legs_at_s
        if queues_legs or now >= self._publish_at_s:  # a drain values legs by what is published
            await self._publish(connection, now)
            if may_queue:  # a value that became known needs a row at once
                await self.publisher.enqueue_changed(routes.states, self._monitored)
        if queues_legs:
            await self.publisher.enqueue(routes.states, self._overflow_legs)
            self._queue_legs_at_s = now + OVERFLOW_INTERVAL_S
        if may_queue and now >= self._queue_moved_at_s:
            await self.publisher.enqueue_moved(routes.states)
            self._queue_moved_at_s = now + MOVED_INTERVAL_S

    async def _publish(self, connection: GatewayConnection, now: float) -> None:
        """Publish the newest values and greeks, if there are any; set when it is due again.

        Where streamed holdings alone are followed, their rows have their values, and the step
        publishes what else changed. After a slow commit the pause is longer (`rest_s`).
        """
        greeks_moved = bool(self.publisher.greeks.changes)
        if not (self._overflow_legs or self._monitored or greeks_moved):
            return
        if connection.pnl.has_news or greeks_moved:
            connection.pnl.has_news = False
            await self.publisher.publish(connection.feed)

        ended = self.ownership.monotonic()
        are_many = len(self._overflow_legs) + len(self._monitored) > MANY
        shortest_s = PUBLISH_MANY_S if are_many else PUBLISH_S
        pause_s = max(shortest_s, self.ownership.settings.flush_interval_s)
        self._publish_at_s = max(now + pause_s, ended + rest_s(ended - now))

    def _choose(
        self, connection: GatewayConnection, routes: Routes, now: float, *, values_known: bool
    ) -> None:
        """Choose the holdings to follow, when routes changed, and each minute by newer values.

        While values are not known, as during a download, no further monitored holding is chosen:
        the largest are found when they are known again.
        """
        as_of = (routes.version, now // CHOOSE_S if values_known else None)
        if as_of == self._chosen_as_of:
            return
        self._chosen_as_of = as_of

        states = routes.states
        keys = grouped(states.__getitem__, states)
        self._overflow_legs = sorted(keys[LegState.OVERFLOW])
        streamed = sorted(keys[LegState.STREAMED])[:STREAMED_PNL_SUBSCRIPTIONS]
        if values_known:
            values = connection.feed.book.last_values(keys[LegState.MONITORED])
            self._monitored = largest(
                values, connection.pnl.keys, self.ownership.settings.pnl_subscriptions
            )
        else:
            self._monitored = [
                key for key in self._monitored if states.get(key) is LegState.MONITORED
            ]
        connection.pnl.keep(chain(self._overflow_legs, streamed, self._monitored))

    def release(self, connection: GatewayConnection) -> None:
        """End the subscriptions that only this stream needs; the next start chooses anew."""
        connection.pnl.keep(())
        self._overflow_legs = []
        self._monitored = []


@dataclass(eq=False, repr=False)
class AccountRefresh:
    """Downloads the accounts on a new connection, at each refresh interval, and after changes.

    It also requests the list of positions again when that is due, and an account again if its
    values do not arrive. One download runs at a time; its values are published when it ends. After
    the first download of a connection, and after a refresh, every holding that is not streamed is
    queued.
    """

    ownership: Ownership
    publisher: Publisher

    def __post_init__(self) -> None:
        self._download: asyncio.Future[None] | None = None  # the one that runs, or has just ended
        self._reason = Reason.SNAPSHOT  # why it was begun
        self._next_at_s = 0.0  # when all accounts are due again

    @property
    def idle(self) -> bool:
        """Return whether no download is running."""
        return self._download is None

    @property
    def opening(self) -> bool:
        """Return whether the first download of a connection runs, which queues every holding."""
        return self._download is not None and self._reason is Reason.SNAPSHOT

    def start(self, feed: AccountFeed, reason: Reason = Reason.SNAPSHOT) -> None:
        """Begin a refresh: download the accounts, unless the values of all are recent.

        Recent: younger than half an interval (`AccountFeed.ensure`). The next refresh is due an
        interval from now.
        """
        interval_s = self.ownership.settings.refresh_interval_s
        self._next_at_s = self.ownership.monotonic() + interval_s
        self._begin(reason, feed.ensure(timedelta(seconds=interval_s / 2)))

    async def step(self, feed: AccountFeed, routes: LegStates) -> None:
        """Finish a download that has ended, or start the next one that is due.

        Raises:
            GatewayError: The download failed.
            LakeError: A table is busy; the same step is due again.
        """
        feed.values.end_silent()  # a subscription that is silent: its account is due again
        if feed.take_demoted():  # readers are told at once that an account is PARTIAL or UNKNOWN
            await self.publisher.publish(feed)
        download = self._download
        if download is None:
            self._begin_due(feed)
        elif download.cancelled():  # by `interrupt`
            self._download = None
        elif download.done():
            if download.exception() is None:
                # An error of a table leaves the download in place: the next step tries again.
                await self.publisher.publish(feed)
                if self._reason is not Reason.CHANGED:  # else what changed is queued by itself
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
        if self._download is not None:
            await end_tasks(self._download)
            self._download = None

    def _begin_due(self, feed: AccountFeed) -> None:
        """Begin what is due: all accounts, else the list of positions, else single accounts."""
        if self.ownership.monotonic() >= self._next_at_s:
            self.start(feed, Reason.REFRESH)
        elif feed.positions_due:
            self._begin(Reason.CHANGED, feed.snapshot())
        elif overdue := feed.overdue:
            self._begin(Reason.CHANGED, feed.download(overdue))

    def _begin(self, reason: Reason, download: Awaitable[None]) -> None:
        """Begin a download in the background; `step` finishes it, as its reason says."""
        self._reason = reason
        self._download = asyncio.ensure_future(download)
