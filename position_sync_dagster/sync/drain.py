"""The queue worker: drain the queue, batch after batch, once per interval.

A worker claims requests under a lease, values their holdings, appends the rows, and marks each
request with the row that answers it. Requests that the broker's data do not cover it releases: they
are PENDING again, with no attempt used up. `broker_view` has the values, and decides whose count.
What becomes of each request of a batch, the rows to write and the row that answers it, is
decided by pure functions at the begin of this module.
"""

import asyncio
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import uuid4

from polars import col

from position_sync_dagster.domain import streamed_holding
from position_sync_dagster.domain.clock import SKEW, Clock, is_recent, utc_now
from position_sync_dagster.domain.holding import BrokerPosition, Key
from position_sync_dagster.domain.position_update import (
    PositionUpdate,
    Source,
)
from position_sync_dagster.domain.queue_request import (
    LEASE_S,
    NOT_HELD,
    Answer,
    QueuedPosition,
    QueueRequest,
    Reason,
)
from position_sync_dagster.domain.valuation import Provenance, from_portfolio, says_the_same
from position_sync_dagster.errors import (
    BrokerUnavailableError,
    LakeError,
    LeaseLostError,
    NewerRowError,
    PositionSyncError,
    SettingsError,
    fault_of,
)
from position_sync_dagster.gateway.connection import IBConnectionManager
from position_sync_dagster.lake import schema
from position_sync_dagster.lake.lake import Lake, all_broker_rows
from position_sync_dagster.lake.position_queue import PositionQueue
from position_sync_dagster.lake.position_updates import PositionUpdatesTable
from position_sync_dagster.lake.storage.threads import offload
from position_sync_dagster.outage_log import OutageLog
from position_sync_dagster.settings import BatchSize, Settings, load_settings
from position_sync_dagster.sync import broker_view
from position_sync_dagster.sync.broker_view import (
    BrokerView,
    ConnectionValues,
    LakeValues,
    ValueSource,
)
from position_sync_dagster.sync.confirmations import CONFIRMED, with_confirmed
from position_sync_dagster.sync.waits import wait_for_first

# Requests that a batch claims at most if `batch_size` is "auto": its rows are in memory, and must
# be written within the lease. A number in the settings may be greater.
MAX_BATCH_SIZE = 5_000


@dataclass(slots=True)
class BatchPlan:
    """The rows to write for a batch, and what becomes of its requests.

    Attributes:
        answers: The row that answers each valued request: one of `rows`, or one of the ledger; by
            the id of the request.
        not_held: Requests whose holding no account has: they fail.
        not_covered: Requests of whose holding the view says too little: they are released.
    """

    rows: list[PositionUpdate] = field(default_factory=list)
    answers: dict[str, Answer] = field(default_factory=dict)
    not_held: list[QueuedPosition] = field(default_factory=list)
    not_covered: list[QueuedPosition] = field(default_factory=list)


def plan_batch(
    batch: Sequence[QueuedPosition],
    view: BrokerView,
    newest: Mapping[Key, PositionUpdate],
    *,
    now: datetime,
    provenance: Provenance,
    repeat_after: timedelta,
    written: Collection[str] = (),
) -> BatchPlan:
    """Decide about each request of a batch.

    A request has a row of its own in the ledger if its worker was killed before it marked the
    request. That row answers the request, whatever was written since. If the quantity is another
    one now, the holding needs a further row.

    Otherwise, a holding needs no new row if its newest row in the ledger has the same values, or is
    from the stream and newer than the view. That row then answers the request; so does the row that
    an earlier request of the batch needs.

    The update_id of a row is derived from its request and its holding, so that a row of an earlier
    claim is recognized. It sorts by the time of the request; that of a further row by its own time.

    Args:
        batch: The requests.
        view: What the broker reports.
        newest: The newest row of each holding, as far as it is known.
        now: The time of the rows.
        provenance: The writer of the rows.
        repeat_after: A row that is older is written again, even with the same values.
        written: Ids of the requests' own rows that the ledger holds; see `ids_of_earlier_claims`.
    """
    plan = BatchPlan()
    newest_or_planned = dict(newest)
    answered: dict[str, tuple[PositionUpdate, BrokerPosition]] = {}

    for request in batch:
        holdings = match_holdings(request, view)
        if not holdings:  # None: the view says too little of it
            (plan.not_covered if holdings is None else plan.not_held).append(request)
            continue

        for holding in holdings:
            own_row = replace(
                from_portfolio(holding, source=Source.QUEUE, now=now, by=provenance),
                request_id=request.request_id,
                update_id=_own_id(request, holding.key),
            )
            newest_row = newest_or_planned.get(holding.key)
            row: PositionUpdate | None = own_row
            answer: PositionUpdate | None = own_row
            if own_row.update_id in written:
                row, answer = _after_own_row(request, own_row, newest_row, now)
            elif newest_row is not None and _answers(newest_row, own_row, view, now, repeat_after):
                row = None
                answer = newest_row

            if row is not None:
                plan.rows.append(row)
                newest_or_planned[holding.key] = row
            if request.request_id in plan.answers:
                continue  # the row of another account answers it

            # Without `answer` it is the own row of an earlier claim, whose value cannot be dated.
            plan.answers[request.request_id] = Answer(update_id=(answer or own_row).update_id)
            if answer is not None:
                answered[request.request_id] = (answer, holding)

    _date_answers(plan, answered, now)
    return plan


def _after_own_row(
    request: QueuedPosition,
    own_row: PositionUpdate,
    newest_row: PositionUpdate | None,
    now: datetime,
) -> tuple[PositionUpdate | None, PositionUpdate | None]:
    """Return what is to be written although an earlier claim wrote the own row of a request.

    Its worker died between the commit of rows and the mark. The own row of a request and a holding
    is the one whose id follows from both (`_own_id`).

    Returns:
        The row to write, if the holding has another quantity by now; and the newest row of the
        holding if that is the own row. It is None where a later row follows, which shows nothing of
        the value of the own one.
    """
    if newest_row is None or newest_row.position != own_row.position:
        # The change has no request of its own while this one is live.
        key = (own_row.account, own_row.conid)
        return replace(own_row, update_id=schema.content_id(now, request.request_id, *key)), None
    # A later row of the holding does not show when the value of the own row was true.
    return None, newest_row if newest_row.update_id == own_row.update_id else None


def _date_answers(
    plan: BatchPlan,
    answered: Mapping[str, tuple[PositionUpdate, BrokerPosition]],
    now: datetime,
) -> None:
    """Record until when the broker has confirmed the value of each answer.

    An older row that answers is written no more: its request alone says how long it has been true.
    """
    if not answered:
        return
    rows = schema.update_rows([row for row, _holding in answered.values()])
    holdings = {holding.key: holding for _row, holding in answered.values()}
    of_broker = schema.rows_of_positions(holdings.values(), None)  # without a writer: to compare
    confirmed = with_confirmed(rows, of_broker, now)
    for request_id, at in zip(answered, confirmed.get_column(CONFIRMED), strict=True):
        plan.answers[request_id] = replace(plan.answers[request_id], confirmed_at=at)


def ids_of_earlier_claims(
    batch: Iterable[QueuedPosition],
    view: BrokerView,
    newest: Mapping[Key, PositionUpdate],
    since: datetime,
) -> list[str]:
    """Return the ids of the rows that an earlier claim of a request may have written.

    Such a row is newer than its request, apart from the difference of two clocks. If it exists,
    the newest row of its holding is also newer than the request.

    Args:
        newest: The newest row of each holding that has a row after `since`.
    """
    ids: list[str] = []
    for request in batch:
        for holding in match_holdings(request, view) or ():
            row = newest.get(holding.key)
            # Without such a row, its newest one is no newer than `since`.
            newest_at = since if row is None else row.timestamp
            if newest_at > request.created_at - SKEW:
                ids.append(_own_id(request, holding.key))
    return ids


def _own_id(request: QueuedPosition, key: Key) -> str:
    """Return the id of the row that answers a request for a holding, the same at each claim."""
    return schema.content_id(request.created_at, request.request_id, *key)


def _answers(
    newest: PositionUpdate,
    row: PositionUpdate,
    view: BrokerView,
    now: datetime,
    repeat_after: timedelta,
) -> bool:
    """Return whether the newest row of a holding makes another row unnecessary.

    The stream may have written a row, such as that of a close, before it published the holding. It
    uses one clock for both, so that the two times can be compared. Rows of other writers are
    compared by their values, never by their time.

    Args:
        newest: The newest row of the holding in the ledger, or planned before in this batch.
        row: The row that would be written.
        view: What the broker reports, and when each stream read it (`captured`).
        now: The time of `row`.
        repeat_after: A row that is older is written again, even with the same values.
    """
    if newest.source is Source.STREAM and newest.session_id:
        captured_at = view.captured.get(newest.session_id)
        if captured_at is not None and newest.timestamp > captured_at:
            return True
    return is_recent(newest.timestamp, repeat_after, now) and says_the_same(row, newest)


def match_holdings(request: QueuedPosition, view: BrokerView) -> tuple[BrokerPosition, ...] | None:
    """Return the holdings that a request asks for; one per account if it names no account.

    Returns:
        None where the view does not cover them: no holding was found, and its account was not
        downloaded completely, or the value of a holding is too old.
    """
    keys: Iterable[Key] = view.holdings
    if request.account is not None:
        keys = [(request.account, request.conid)]
    holdings = [
        view.holdings[key] for key in keys if key[1] == request.conid and key in view.holdings
    ]
    # A close has no value that could be too old.
    if any(holding.key in view.unconfirmed and holding.position for holding in holdings):
        return None
    if holdings or view.covers(request.account):
        return tuple(holdings)

    return None


logger = logging.getLogger(__name__)

# A batch is planned again if newer rows of its holdings arrive, at most this many times in total;
# then it is released.
MAX_PLANS = 10

NOT_COVERED = "the broker's answer did not cover every account"


# A batch claims the number of waiting requests divided by this.
SHARE = 4


# A batch claims at least so many, if they wait.
LEAST_BATCH = 50


def batch_limit(waiting: int, batch_size: BatchSize) -> int:
    """Return how many requests to claim at once.

    Each batch costs three commits, however many rows it has.

    Args:
        waiting: Requests that may be claimed now.
        batch_size: The number, as it is; "auto": a share of those that wait, within bounds.

    >>> [batch_limit(waiting, "auto") for waiting in (20, 200, 1_000, 100_000)]
    [50, 50, 250, 5000]
    >>> batch_limit(100_000, 50)
    50
    """
    if batch_size != "auto":
        return batch_size
    return min(max(LEAST_BATCH, -(-waiting // SHARE)), MAX_BATCH_SIZE)  # the share is rounded up


@dataclass(frozen=True, slots=True)
class WorkerStats:
    """Counts of a worker since it was created.

    Attributes:
        last_batch_time: When the newest batch ended.
    """

    total_processed: int = 0
    total_success: int = 0
    total_failed: int = 0
    last_batch_time: datetime | None = None
    last_batch_size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainReport:
    """The result of one batch, or of a drain: then its counts are the sums of those of its batches.

    Attributes:
        rows: Rows that were written.
        claimed: Requests that were claimed.
        succeeded: Those that ended with a row, their own one or an older one.
        failed: Those that failed.
        released: Those that became PENDING again, without using up an attempt.
        oldest_wait_s: Age of the oldest request when its rows were committed, in seconds.
        reason: Why requests were released or left; None when none were.
        error: The error after the first batch of a drain, which ended it.
        unavailable: Whether the broker's data could not be read.
    """

    rows: int = 0
    claimed: int = 0
    succeeded: int = 0
    failed: int = 0
    released: int = 0
    oldest_wait_s: float | None = None
    duration_s: float = 0.0
    reason: str | None = None
    error: LakeError | None = None
    unavailable: bool = False
    batches: tuple["DrainReport", ...] = ()


# The counts of a drain, which are sums.
_SUMMED = ("rows", "claimed", "succeeded", "failed", "released")


class QueueWorker:
    """Drains the queue in batches, without using a market data line.

    Rows are written before their requests are marked, with an `update_id` derived from the request:
    after a kill in between, each request still ends with its row exactly once. A batch whose lease
    has expired is not written. Nothing is claimed without a current view of the broker.

    Args:
        queue: The table of the requests.
        interval: Seconds between drains.
        batch_size: Requests that a batch claims at most; "auto": more of them while many wait.
        delta_lake_path: The table `position_updates`.
        values: The source of the values; by default the process's shared connection.
        manager: Whose connection it shares, at its address; it stays open while others use it.

    Example:
        worker = QueueWorker(queue, interval=5, batch_size=50)
        await worker.start()
        ...
        await worker.stop()
        print(worker.stats)
    """

    def __init__(
        self,
        queue: PositionQueue,
        interval: float = 5,
        batch_size: BatchSize = 50,
        delta_lake_path: str = "data/lake/position_updates",
        *,
        values: ValueSource | None = None,
        manager: IBConnectionManager | None = None,
        updates: PositionUpdatesTable | None = None,
        settings: Settings | None = None,
        by: Provenance | None = None,
        clock: Clock = utc_now,
    ) -> None:
        if interval <= 0 or (batch_size != "auto" and batch_size < 1):
            raise SettingsError(
                f"A worker with interval={interval!r} and batch_size={batch_size!r} is invalid.",
                remedy="Give seconds above 0 and at least one request a batch.",
            )

        settings = settings or (manager.settings if manager else load_settings())
        self.queue = queue
        self.interval = interval
        self.batch_size = batch_size

        self._settings = settings
        self._updates = updates or PositionUpdatesTable(delta_lake_path, fsync=settings.fsync)
        # Managers of an address share a connection, which ends with the last of them: to close
        # this one never closes that of `manager`.
        self._shared = IBConnectionManager(manager.settings if manager else settings)
        self._values = values or ConnectionValues(self._shared)
        self._clock = clock
        self._by = by or Provenance()  # who writes the rows

        self._owner = f"worker-{uuid4()}"  # who claims the requests
        self.stats = WorkerStats()
        self._task: asyncio.Task[None] | None = None  # `_run`, from `start` to `stop`
        self._stop = asyncio.Event()  # set: no further batch begins

    def get_stats(self) -> WorkerStats:
        """Return the counts so far."""
        return self.stats

    async def start(self) -> None:
        """Start draining in the background, once per interval."""
        if self._task is None:
            await self.queue.initialize()
            await self._updates.initialize()
            self._stop.clear()
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Finish the batch in progress and stop; the shared connection ends with its last user."""
        self._stop.set()
        task = self._task
        self._task = None
        try:
            if task is not None:
                await task
        finally:
            await self._shared.close()

    async def process_batch(self) -> DrainReport:
        """Claim one batch, write its rows in one commit and mark its requests.

        Raises:
            BrokerUnavailableError: There is no current view of the broker; nothing was claimed.
            LeaseLostError: The batch took longer than its lease; nothing was written.
            LakeError: A table could not be used; the requests are rescued later.
        """
        overview = await self.queue.overview()
        report, not_covered = await self._process(batch_limit(overview.claimable, self.batch_size))
        await self._release(not_covered, NOT_COVERED)
        return report

    async def drain(self, time_limit_s: float) -> DrainReport:
        """Process batches until nothing more can be claimed, the time is up or the worker stops.

        Requests that the broker's data does not cover are released at the end. Released at once,
        they would be the oldest again and fill the next batch: the requests behind them would
        never be claimed.

        A LakeError after the first batch ends the drain, and is in the report. So is, at any time,
        that the broker's data cannot be read.

        Args:
            time_limit_s: Seconds in which batches begin; must be less than a lease, since claims
                are held up to this long.

        Raises:
            LeaseLostError: The first batch took longer than its lease; it was not written.
            LakeError: A table could not be used, and no batch was done before; the requests are
                rescued later.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        overview = await self.queue.overview()
        # Requests of a worker that was killed are claimable again.
        if overview.expired and await self.queue.rescue():
            overview = await self.queue.overview()

        limit = batch_limit(overview.claimable, self.batch_size)
        batches: list[DrainReport] = []
        unreleased: list[Sequence[QueuedPosition]] = []
        unavailable: str | None = None
        failure: LakeError | None = None

        try:
            while not self._stop.is_set() and loop.time() < started + time_limit_s:
                report, not_covered = await self._process(limit)
                unreleased.append(not_covered)
                if report.claimed:
                    batches.append(report)
                if report.claimed < limit:
                    break  # nothing more waits
        except BrokerUnavailableError as error:
            unavailable = str(error)
        except LakeError as error:
            if not batches:
                raise
            failure = error
        finally:
            for requests in unreleased:
                await self._release(requests, NOT_COVERED)

        reason = unavailable or (NOT_COVERED if any(unreleased) else None)
        sums: dict[str, Any] = {
            name: sum(getattr(batch, name) for batch in batches) for name in _SUMMED
        }
        waits_s = [batch.oldest_wait_s for batch in batches if batch.oldest_wait_s is not None]
        return DrainReport(
            **sums,
            batches=tuple(batches),
            oldest_wait_s=max(waits_s, default=None),
            duration_s=loop.time() - started,
            reason=reason,
            unavailable=unavailable is not None,
            error=failure,
        )

    async def _run(self) -> None:
        """Drain once per interval until stopped; an outage of broker or tables is logged once."""
        outage = OutageLog(logger)
        while not self._stop.is_set():
            try:
                # Half a lease: a batch claimed at the end still has time to be written.
                result = await self.drain(LEASE_S / 2)
                if result.error is not None:
                    raise result.error
                if result.unavailable and result.reason:
                    outage.report(result.reason, level=logging.WARNING)
                else:
                    outage.fault = None
            except PositionSyncError as error:
                outage.report(fault_of(error), text=str(error))

            await wait_for_first([self._stop], timeout_s=self.interval)

    async def _process(self, limit: int) -> tuple[DrainReport, Sequence[QueuedPosition]]:
        """Process one batch; return its report, and the requests that are still to be released.

        A first view says whose requests may be claimed. The one that values them is read after the
        claim (`_plan_and_append`) and contains what the owner published before it inserted a
        request, so that no value is older than its request. What it does not cover is released by
        the caller.
        """
        started = self._clock()
        view = await self._values.view(())  # it raises without current rows: nothing is claimed
        batch = await self.queue.claim_batch(
            limit, self._owner, LEASE_S, except_accounts=view.unavailable
        )
        if not batch:
            return NOTHING, ()

        (batch_id,) = schema.new_ids(started, 1)
        try:
            plan, rows = await self._plan_and_append(batch, batch_id)
            await self._mark(batch, plan)
        except LeaseLostError:
            raise  # another worker may have the requests: they are not to be released here
        except (LakeError, BrokerUnavailableError, asyncio.CancelledError) as error:
            await self._release(batch, str(error) or "the worker was stopped")
            raise

        now = self._clock()
        oldest = min(request.created_at for request in batch)
        report = DrainReport(
            rows=rows,
            claimed=len(batch),
            succeeded=len(plan.answers),
            failed=len(plan.not_held),
            released=len(plan.not_covered),
            oldest_wait_s=(now - oldest).total_seconds(),
            duration_s=(now - started).total_seconds(),
            reason=NOT_COVERED if plan.not_covered else None,
        )
        self._count(report)
        return report, plan.not_covered

    def _count(self, report: DrainReport) -> None:
        """Add a batch to the counts of the worker, and log it."""
        stats = self.stats
        self.stats = replace(
            stats,
            total_processed=stats.total_processed + report.claimed,
            total_success=stats.total_success + report.succeeded,
            total_failed=stats.total_failed + report.failed,
            last_batch_time=self._clock(),
            last_batch_size=report.claimed,
        )
        logger.info(
            "batch of %d in %.2f s: %d succeeded, %d failed, %d released",
            report.claimed,
            report.duration_s,
            report.succeeded,
            report.failed,
            report.released,
        )

    async def _plan_and_append(
        self, batch: Sequence[QueuedPosition], batch_id: str
    ) -> tuple[BatchPlan, int]:
        """Plan the batch and commit its rows; plan again if newer rows arrived meanwhile."""
        for _ in range(MAX_PLANS - 1):
            with suppress(NewerRowError):
                return await self._plan_and_append_once(batch, batch_id)
        return await self._plan_and_append_once(batch, batch_id)  # the last attempt raises why not

    async def _plan_and_append_once(
        self, batch: Sequence[QueuedPosition], batch_id: str
    ) -> tuple[BatchPlan, int]:
        """Plan the batch and commit its rows; return the plan, and the number of rows.

        Raises:
            NewerRowError: Newer rows of its holdings arrived meanwhile.
        """
        now = self._clock()
        # The ledger is read before the view: a row that is added later may be newer than the view,
        # and makes the append fail.
        ledger = self._updates.sync
        conids = {request.conid for request in batch}
        # A holding without any change has a row this often: no older row answers a request.
        interval = timedelta(seconds=streamed_holding.MONITORED_ROW_INTERVAL_S)
        newest = await offload(ledger.newest_of, conids, now - interval)
        view = await self._values.view(conids)
        # A worker that was killed may have written the rows of these requests, and not marked them.
        earlier_ids = ids_of_earlier_claims(batch, view, newest.rows, now - interval)
        written = await offload(ledger.existing, earlier_ids) if earlier_ids else ()

        plan = plan_batch(
            batch,
            view,
            newest.rows,
            now=now,
            provenance=self._by,
            # One refresh before the interval is over: else the next row would come with the next
            # request, up to one refresh late.
            repeat_after=interval - timedelta(seconds=self._settings.refresh_interval_s),
            written=written,
        )
        # The lease is checked right before the commit, which fails if a row of the holdings was
        # added after `through`: so far the ledger was read above.
        check = partial(self._check_lease, batch, batch_id)
        appended = await self._updates.append(
            plan.rows, batch_id=batch_id, guard=check, through=newest.through
        )
        return plan, appended.rows

    def _check_lease(self, batch: Sequence[QueuedPosition], batch_id: str) -> None:
        """Raise an error if another worker may have claimed a request of the batch by now."""
        if not self.queue.sync.holds(_ids(batch), lease_token=batch[0].lease_token):
            raise LeaseLostError(
                f"The lease of batch {batch_id} ended before its rows were written.",
                remedy="The requests are claimed again; see what made the lake slow.",
            )

    async def _mark(self, batch: Sequence[QueuedPosition], plan: BatchPlan) -> None:
        """End the requests that have an answer, and those whose holding is not held: they fail."""
        lease = batch[0].lease_token  # one claim gives all its requests the same
        await self.queue.mark_success(list(plan.answers), answers=plan.answers, lease_token=lease)
        await offload(
            self.queue.sync.mark_failed_many,
            dict.fromkeys(_ids(plan.not_held), NOT_HELD),
            retryable=False,
            lease_token=lease,
        )

    async def _release(self, batch: Sequence[QueuedPosition], reason: str) -> None:
        """Release requests of one claim; if that fails, their lease expires by itself."""
        if batch:
            with suppress(LakeError):
                await self.queue.release(_ids(batch), reason, lease_token=batch[0].lease_token)


def _ids(requests: Sequence[QueuedPosition]) -> list[str]:
    return [request.request_id for request in requests]


# The report where nothing waits.
NOTHING = DrainReport()


async def drain(
    lake: Lake, settings: Settings, *, run_id: str | None = None, clock: Clock = utc_now
) -> DrainReport:
    """Value every pending request from `broker_positions`; it connects to nothing.

    It ends when nothing more can be claimed; after `DRAIN_TIME_LIMIT_S` it begins no further batch.
    Requests that the broker's current data does not cover are released at its end. While the owner
    of the login is not connected to the broker, it claims nothing and reports the reason.

    Args:
        lake: The tables, initialized.

    Raises:
        LakeError: A table could not be used; claimed requests are rescued by a later drain. After
            the first batch, the report has the error.
    """
    worker = QueueWorker(
        lake.queue,
        batch_size=settings.batch_size,
        values=LakeValues(lake, settings, clock=clock),
        updates=lake.updates,
        settings=settings,
        by=Provenance(run_id=run_id),
        clock=clock,
    )
    return await worker.drain(broker_view.DRAIN_TIME_LIMIT_S)


async def enqueue_monitored(lake: Lake, settings: Settings) -> list[str]:
    """Queue every open holding of `broker_positions` that is in no strategy, in one commit.

    Those of security types that are not valued are left out. The asset `position_queue` does it,
    when a person materializes it.

    Returns:
        The ids of the requests; a holding with a live request has the id of that one.
    """
    await lake.registry.refresh()
    has_wanted_type = col.sec_type.is_in(list(settings.sec_types))
    is_held = col.position != 0
    held = all_broker_rows(lake, settings).filter(is_held, has_wanted_type)

    return await lake.queue.insert_many(
        QueueRequest(conid=conid, symbol=symbol, account=account, reason=Reason.REFRESH)
        for account, conid, symbol in held.select("account", "conid", "symbol").iter_rows()
        if not lake.registry.is_active(conid, account)
    )
