"""A short owner of the login: it downloads all, publishes and enqueues once, and disconnects."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import NamedTuple

from position_sync_dagster import errors
from position_sync_dagster.domain import account_state
from position_sync_dagster.domain.gateway_session import Owner, SessionState
from position_sync_dagster.domain.holding import Completeness
from position_sync_dagster.domain.leg import route
from position_sync_dagster.domain.queue_request import Reason
from position_sync_dagster.gateway.account_feed import AccountFeed
from position_sync_dagster.gateway.connection import IBConnectionManager
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.storage.threads import offload
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.stream.contracts import ContractCache, LegResolver
from position_sync_dagster.sync.stream.ownership import Ownership
from position_sync_dagster.sync.stream.parts import ChangeFollower, PublishedGreeks
from position_sync_dagster.sync.stream.position_changes import ChangeWatcher
from position_sync_dagster.sync.stream.publisher import Publisher, Submissions


class RefreshReport(NamedTuple):
    """What was published; `connected` is False where another process owned the login."""

    connected: bool
    incomplete_accounts: tuple[str, ...] = ()
    reason: str = ""


async def refresh(
    lake: Lake, settings: Settings, followers: Sequence[ChangeFollower] = ()
) -> RefreshReport:
    """Own the login for one short connection: publish, and enqueue every position."""
    await lake.registry.refresh()
    try:
        async with Ownership(lake.sessions, settings, owner=Owner.REFRESH) as own:
            feed = await _download_and_enqueue(lake, settings, own, followers)
    except errors.LoginOwnedError as error:
        return RefreshReport(connected=False, reason=error.what)
    known = feed.completeness.items()
    partial = [account for account, found in known if found is not Completeness.COMPLETE]
    return RefreshReport(connected=True, incomplete_accounts=tuple(partial))


async def _download_and_enqueue(
    lake: Lake, settings: Settings, own: Ownership, followers: Sequence[ChangeFollower]
) -> AccountFeed:
    """Return the account feed, after its connection is closed."""
    watcher = ChangeWatcher(own, lake.position_changes, followers)
    publisher = Publisher(
        own, lake.queue, lake.broker_positions, Submissions(lake.updates),
        greeks=PublishedGreeks(), watcher=watcher,
    )  # fmt: skip
    manager = IBConnectionManager(settings)
    try:
        connection = await manager.get_connection()
        await offload(own.sessions.claim_mode, connection.trading_mode)

        feed = connection.feed
        feed.book.remember(await publisher.restore())
        connection.connectivity.require_ib()
        await feed.ensure(timedelta(seconds=settings.refresh_interval_s))
        # Otherwise the next owner has to say it.
        if feed.states.doubted and account_state.SECOND_LIST_S < 1:
            await asyncio.sleep(2 * account_state.SECOND_LIST_S)
            await feed.snapshot()
            await feed.download()

        connection.connectivity.require_ib()
        resolver = LegResolver(own, lake.registry, ContractCache(lake.contracts))
        await resolver.resolve(connection, lake.registry.unresolved)
        executions = await connection.executions()
    finally:
        await manager.close()

    own.check()
    own.status = lambda: {"state": SessionState.LIVE}
    publisher.attach(feed)
    await publisher.publish(feed)
    routes = route(
        feed.book.holdings, lake.registry.legs, frozenset(), sec_types=settings.sec_types
    )
    await publisher.enqueue_all(routes, Reason.REFRESH)
    with suppress(errors.LakeError):  # a cause waits for the next look, a value does not
        await watcher.tell_followers(feed.accounts, executions)
    return feed
