"""The refresh: enqueue all positions from one short connection, while no stream is alive.

The drain of a run is here as well: value the queue's requests from the tables, within a time limit.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

from position_sync_dagster import errors
from position_sync_dagster.domain import gateway_session
from position_sync_dagster.domain.broker_position import Completeness
from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.line_allocation import route
from position_sync_dagster.domain.update import QueueStatus, Reason
from position_sync_dagster.domain.valuation import Provenance
from position_sync_dagster.gateway.accounts.account_feed import AccountFeed
from position_sync_dagster.gateway.connection import IBConnectionManager
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.object_store import is_remote
from position_sync_dagster.lake.storage.threads import offload
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.drain.batch import LakeValues
from position_sync_dagster.sync.drain.worker import QueueWorker
from position_sync_dagster.sync.explain_closes import CloseExplainer
from position_sync_dagster.sync.owner.close_watcher import CloseWatcher, changes_between
from position_sync_dagster.sync.owner.leg_resolver import LegResolver
from position_sync_dagster.sync.owner.ownership import OwnerContext, Ownership, OwnerStatus
from position_sync_dagster.sync.owner.publisher import Announcements, Publisher
from position_sync_dagster.sync.run_recorder import DrainReport, RefreshReport

logger = logging.getLogger(__name__)


async def refresh(
    lake: Lake, settings: Settings, *, run_id: str | None = None, clock: Clock = utc_now
) -> RefreshReport:
    """Enqueue every position that no line values.

    A live stream enqueues by itself: then nothing is requested from the gateway. Otherwise this
    process owns the login for one short connection. It downloads all positions and the values of
    every account, looks up the contracts of legs without a conid, writes `broker_positions`,
    enqueues, and disconnects. The holdings of an emptied account are closed if the refresh before
    found the account emptied too.

    Args:
        lake: The tables, initialized.

    Raises:
        GatewayError: The gateway cannot be used, or it has lost IB; nothing was enqueued.
        TradingModeError: The lake holds data of another trading mode.
    """
    started = clock()
    await lake.registry.refresh()
    before = await offload(lake.sessions.current, settings.gateway_id)
    try:
        async with Ownership(
            lake.sessions, settings, owner=gateway_session.Owner.REFRESH, run_id=run_id, clock=clock
        ) as own:
            emptied = _emptied_before(before, own.session)
            feed, enqueued = await _download_and_enqueue(lake, settings, own, clock, emptied)
    except errors.LoginOwnedError as error:
        return RefreshReport(
            connected=False,
            duration_s=(clock() - started).total_seconds(),
            reason=f"{error.what} It enqueues by itself.",
        )
    return RefreshReport(
        connected=True,
        accounts=len(feed.accounts),
        positions=sum(holding.position != 0 for holding in feed.holdings),
        enqueued=enqueued,
        queue_version=(await lake.queue.overview()).version,
        incomplete_accounts=tuple(
            account
            for account, completeness in feed.completeness.items()
            if completeness is not Completeness.COMPLETE
        ),
        duration_s=(clock() - started).total_seconds(),
    )


async def refresh_logins(
    lake: Lake,
    logins: Sequence[Settings],
    *,
    run_id: str | None = None,
    within_s: float | None,
    clock: Clock = utc_now,
) -> dict[str, RefreshReport | errors.PositionSyncError]:
    """Refresh several logins concurrently, so that none waits for another one's gateway.

    Args:
        lake: The tables, initialized.
        logins: The settings of each.
        run_id: Written into the rows.
        within_s: Time limit of each refresh, in seconds; None for no limit.
        clock: Returns the current time.

    Returns:
        The report of each refresh, or its error, by the name of the login.
    """

    async def one(login: Settings) -> RefreshReport | errors.PositionSyncError:
        try:
            async with asyncio.timeout(within_s):
                return await refresh(lake, login, run_id=run_id, clock=clock)
        except TimeoutError:
            return errors.GatewayTimeoutError(
                f"The refresh of {login.gateway_id} did not end within {within_s} s.",
                remedy="Check its gateway; the next refresh tries again.",
            )
        except errors.PositionSyncError as error:
            return error

    reports = await asyncio.gather(*(one(login) for login in logins))
    return {login.gateway_id: report for login, report in zip(logins, reports, strict=True)}


def _emptied_before(
    before: gateway_session.GatewaySession | None, own: gateway_session.GatewaySession
) -> dict[str, float]:
    """Return the accounts that the refresh right before this one found emptied, and their age.

    A second list of positions confirms that an account is emptied. A refresh is too short for it:
    the next refresh has that list. The accounts that a stream found emptied do not count, because
    the next list of the stream may have differed.
    """
    if (
        before is None
        or before.owner is not gateway_session.Owner.REFRESH
        or before.state is not gateway_session.SessionState.ENDED
        or before.fencing_token != own.fencing_token - 1
    ):
        return {}
    age_s = (own.started_at - before.heartbeat_at).total_seconds()
    return dict.fromkeys(
        gateway_session.unknown_accounts(before.detail, gateway_session.EMPTIED), age_s
    )


async def _download_and_enqueue(
    lake: Lake, settings: Settings, own: Ownership, clock: Clock, emptied: Mapping[str, float]
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
        feed.emptied.recall(emptied)
        connection.require_online()
        await feed.ensure(timedelta(seconds=settings.refresh_interval_s))
        connection.require_online()
        resolver = LegResolver(
            context, lake.registry, lambda found: offload(lake.contracts.put, found)
        )
        await resolver.resolve(connection, lake.registry.unresolved)
        before, after = ({one.key: one for one in ones} for ones in (restored, feed.holdings))
        closed = any(change.closed for change in changes_between(before, after, {}))
        with suppress(errors.LakeError):  # a cause waits for the next look, a value does not
            closed = closed or await offload(explainer.has_open_closes)
        executions = await connection.executions() if closed else None
    finally:
        await manager.close()
    own.check()
    own.report_status(lambda: OwnerStatus(gateway_session.SessionState.LIVE))
    own.final_detail = "; ".join(feed.problems) or None
    publisher.follow(feed)
    await publisher.publish(feed, session=own.session)
    routes = route(feed.holdings, lake.registry.legs, frozenset(), sec_types=settings.sec_types)
    enqueued = await publisher.enqueue_all(routes, Reason.REFRESH)
    if closed:
        try:
            await watcher.look(feed.accounts, executions)
        except errors.LakeError as error:
            logger.warning("the causes of closes are not stored, they are due later: %s", error)
    return feed, enqueued


STOP_LOOK_S = 0.05
"""Seconds between two checks whether a drain is to stop."""


async def drain(
    lake: Lake,
    settings: Settings,
    *,
    run_id: str | None = None,
    stop: Callable[[], bool] = lambda: False,
    clock: Clock = utc_now,
) -> DrainReport:
    """Value every pending request from `broker_positions`; it connects to nothing.

    It ends when nothing more can be claimed or after `drain_time_limit_s`. Requests that the
    broker's current data does not cover are released at its end. While the owner of the login is
    not connected to the broker, it claims nothing and reports the reason. In an object store it
    claims all waiting requests at once, up to `max_batch_size`.

    Args:
        lake: The tables, initialized.
        stop: Once it returns True, the batch in progress is the last one.

    Raises:
        LakeError: A table could not be used; claimed requests are rescued by a later drain. After
            the first batch, the report has the error.
    """
    batch_size = settings.batch_size
    if is_remote(lake.path):  # a batch takes seconds there, whatever its size
        batch_size = settings.max_batch_size
    worker = QueueWorker(
        lake.queue,
        batch_size=batch_size,
        values=LakeValues(lake, settings, clock=clock),
        updates=lake.updates,
        settings=settings,
        by=Provenance(run_id=run_id),
        clock=clock,
    )
    watch = asyncio.create_task(_stop_when(stop, worker))
    try:
        report = await worker.try_drain(settings.drain_time_limit_s)
    finally:
        watch.cancel()
    try:
        backlog = await lake.queue.overview()
    except errors.LakeError as error:
        if not report.batches:
            raise
        return replace(report, error=report.error or error)
    return replace(
        report,
        queue_version=backlog.version,
        pending_after=backlog.counts.get(QueueStatus.PENDING, 0),
    )


async def _stop_when(stop: Callable[[], bool], worker: QueueWorker) -> None:
    while not stop():  # noqa: ASYNC110 - a handler of signals asks for it, which sets no event
        await asyncio.sleep(STOP_LOOK_S)
    await worker.stop()
