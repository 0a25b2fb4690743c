"""A short owner of the login: it downloads all, publishes and enqueues once, and disconnects."""

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from position_sync_dagster import errors
from position_sync_dagster.domain import gateway_session
from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.holding import Completeness, Reason
from position_sync_dagster.domain.leg import route
from position_sync_dagster.gateway.account_feed import AccountFeed
from position_sync_dagster.gateway.connection import IBConnectionManager
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.explain_closes import CloseExplainer
from position_sync_dagster.sync.stream.contracts import ContractCache, LegResolver
from position_sync_dagster.sync.stream.ownership import OwnerContext, Ownership
from position_sync_dagster.sync.stream.publisher import Announcements, CloseWatcher, Publisher

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshReport:
    """What was published; `connected` is False where another process owned the login."""

    connected: bool
    enqueued: int = 0
    incomplete_accounts: tuple[str, ...] = ()
    reason: str | None = None


async def refresh(
    lake: Lake, settings: Settings, *, run_id: str | None = None, clock: Clock = utc_now
) -> RefreshReport:
    """Own the login for one short connection: publish, and enqueue every position."""
    await lake.registry.refresh()
    try:
        async with Ownership(
            lake.sessions, settings, owner=gateway_session.Owner.REFRESH, run_id=run_id, clock=clock
        ) as own:
            feed, enqueued = await _download_and_enqueue(lake, settings, own, clock)
    except errors.LoginOwnedError as error:
        return RefreshReport(connected=False, reason=f"{error.what} It enqueues by itself.")
    return RefreshReport(
        connected=True,
        enqueued=enqueued,
        incomplete_accounts=tuple(
            account
            for account, completeness in feed.completeness.items()
            if completeness is not Completeness.COMPLETE
        ),
    )


async def _download_and_enqueue(
    lake: Lake, settings: Settings, own: Ownership, clock: Clock
) -> tuple[AccountFeed, int]:
    """Return the account feed, after its connection is closed, and the number of new requests."""
    context = OwnerContext(settings=settings, lease=own, clock=clock)
    explainer = CloseExplainer(lake, clock=clock, run_id=own.session.run_id, guard=own.check)
    watcher = CloseWatcher(context, explainer)
    publisher = Publisher(
        context, lake.queue, lake.broker_positions, Announcements(lake.updates), watcher=watcher
    )
    manager = IBConnectionManager(settings)
    try:
        connection = await manager.get_connection()
        await own.claim_mode(connection.trading_mode)
        feed = connection.feed
        restored = await publisher.restore()
        feed.book.remember(restored)
        connection.connectivity.require_ib()
        await feed.ensure(timedelta(seconds=settings.refresh_interval_s))
        if set(feed.emptied) and settings.second_list_s < 1:  # else the next owner has to say
            await asyncio.sleep(2 * settings.second_list_s)
            await feed.snapshot()
            await feed.download()
        connection.connectivity.require_ib()
        resolver = LegResolver(context, lake.registry, ContractCache(lake.contracts))
        await resolver.resolve(connection, lake.registry.unresolved)
        executions = await connection.executions()
    finally:
        await manager.close()
    own.check()
    own.status = lambda: {"state": gateway_session.SessionState.LIVE}
    publisher.follow(feed)
    await publisher.publish(feed)
    routes = route(feed.holdings, lake.registry.legs, frozenset(), sec_types=settings.sec_types)
    enqueued = await publisher.enqueue_all(routes, Reason.REFRESH)
    with suppress(errors.LakeError):  # a cause waits for the next look, a value does not
        await watcher.look(feed.accounts, executions)
    return feed, enqueued
