"""The queue of positions to be valued, with blocking calls and for asyncio.

Each call checks its arguments, runs one transition on the live rows (`queue_transitions.py`) and
commits its result. A bad argument raises `InvalidRequestError`, which names it and its value. A
queue object remembers the lease tokens of its claims, so that marking needs the ids alone.

A request is *live* until it is SUCCESS or FAILED; then it is *finished*. A caller has *only read* a
request that it got by `get_batch`, or by another read: it has no lease on it.
"""

import logging
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Unpack

import polars as pl
from polars import DataFrame, Series, String, col, concat

from position_sync_dagster.domain.clock import FOREVER, Clock, utc_now
from position_sync_dagster.domain.queue_request import (
    LEASE_S,
    MONITORING_PRIORITY,
    Answer,
    ProcessingAttempt,
    QueuedPosition,
    QueueRequest,
    QueueStatus,
    Reason,
    RetryPolicy,
    attempts_of,
)
from position_sync_dagster.errors import (
    InvalidRequestError,
    LeaseLostError,
    RequestStateError,
    UnknownRequestError,
    shown,
)
from position_sync_dagster.lake import schema
from position_sync_dagster.lake.queue_transitions import (
    FAILED,
    PENDING,
    SUCCESS,
    WAS_CLAIMED,
    Action,
    check_lease,
    claim_order,
    claimed,
    fail_requests,
    first_claimable,
    insert_requests,
    is_claimable,
    lease_has_expired,
    lease_lost,
    release_requests,
    requests_of,
    rescue_requests,
    retry_requests,
    succeed_requests,
)
from position_sync_dagster.lake.schema import storable
from position_sync_dagster.lake.storage.data_files import (
    EVERY,
    in_bucket,
    may_have,
    may_have_one_of,
)
from position_sync_dagster.lake.storage.lifecycle_table import Change, LifecycleTable, Snapshot
from position_sync_dagster.lake.storage.table import Table, TableOptions
from position_sync_dagster.lake.storage.threads import offloaded

logger = logging.getLogger(__name__)


def failed_rows(snapshot: Snapshot, ids: Sequence[str]) -> DataFrame:
    """Return all rows of the parts in which FAILED requests are stored, for `retry`.

    A part is what one commit finished. `retry` writes it anew without the requests that it takes
    out, since Delta replaces a part as a whole.

    Raises:
        UnknownRequestError: An id is not in the queue.
        RequestStateError: A request is not FAILED.
    """
    requests = stored_requests(snapshot, ids)
    others = requests.filter(col.status != FAILED)
    if not others.is_empty():
        request_id, status = others.select(STATE).row(0)
        raise wrong_state(request_id, status, "only a FAILED request is retried")

    is_of_part = col("partition.part").is_in(requests["part"].unique().implode())
    files = snapshot.finished_files(in_bucket(FAILED) & is_of_part)
    return snapshot.table.scan_stored(files).collect()


STATE = ["request_id", "status"]


def stored_requests(snapshot: Snapshot, ids: Sequence[str]) -> DataFrame:
    """Return id, status and `part` of requests, live or finished.

    The part is the partition of its bucket: the commit that finished it.

    Raises:
        UnknownRequestError: An id is not in the queue.
    """
    columns = [*STATE, "part"]
    may_have_one = may_have_one_of("request_id", Series(ids, dtype=String))
    rows = concat([snapshot.live.select(columns), snapshot.finished(may_have_one, columns)])
    requests = rows.filter(col.request_id.is_in(ids))

    unknown = set(ids).difference(requests["request_id"])
    if unknown:
        message = f"The request {min(unknown)[:80]!r} is not in the queue."
        raise UnknownRequestError(message, remedy=_WHICH_IDS)
    return requests


def last_attempted(snapshot: Snapshot, limit: int) -> DataFrame:
    """Return the live requests that have attempts, and the finished ones that changed last.

    Of these there are at most `limit` of SUCCESS, and as many of FAILED.
    """
    newest = [snapshot.newest_finished(bucket, EVERY, limit) for bucket in (SUCCESS, FAILED)]
    return concat([snapshot.live.filter(WAS_CLAIMED), *newest])


def wrong_state(request_id: str, status: str, why: str) -> RequestStateError:
    """Return the error of a request whose status does not allow a step."""
    return RequestStateError(
        f"The request {request_id} is {status}.", remedy=f"Leave it as it is: {why}."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueOverview:
    """The queue at one moment, for sensors and people.

    Attributes:
        counts: Requests by status.
        claimable: Pending requests that may be claimed now (no back-off left).
        oldest_pending_at: When the oldest pending request was inserted; None without any.
        expired: Requests in processing whose lease has expired.
        version: The version of the table that was read; 0 in memory.
        last_success_at: When a request last succeeded; None before the first.
    """

    counts: dict[QueueStatus, int]
    claimable: int
    oldest_pending_at: datetime | None
    expired: int
    version: int
    last_success_at: datetime | None = None


_WHICH_IDS = "Use ids of `insert`, `claim_batch` or `position-sync queue --status FAILED`."

# For each argument: its type, which values of the type are right, and the remedy.
_RULES: Mapping[str, tuple[Any, Callable[[Any], object], str]] = {
    "conid": (int, range(1, 2**63).__contains__, "Use the contract id that TWS shows."),
    "symbol": (str, str.strip, "Use the symbol of the position's underlying."),
    "priority": (int, (1, 2).__contains__, "Use 1 for an active leg without a line, else 2."),
    "reason": (Reason, bool, f"Use a Reason: {', '.join(Reason)}."),
    "limit": (int, range(2**32).__contains__, "Use a whole number of requests, 0 or more."),
    "lease_s": (int | float, lambda s: 0 < s < 10**9, "Use seconds above 0, such as 60."),
}


def check_arguments(request: QueueRequest | None = None, /, **arguments: object) -> None:
    """Check arguments by the rules of their names; those of a request name its conid.

    Raises:
        InvalidRequestError: One is wrong.
    """
    for name, value in arguments.items():
        kind, is_right, remedy = _RULES[name]
        is_of_kind = isinstance(value, kind) and not isinstance(value, bool)
        if not (is_of_kind and is_right(value)):
            whose = f" of the request for {shown(request.conid)}" if request else ""
            message = f"The {name} {shown(value)}{whose} is not valid."
            raise InvalidRequestError(message, remedy=remedy)


# One id, or several.
Ids = str | Iterable[str]


def ids_of(request_ids: Ids) -> list[str]:
    """Return ids as a list, each once, in the form in which UTF-8 can store them."""
    if isinstance(request_ids, str):
        request_ids = [request_ids]
    return list(dict.fromkeys(map(storable, request_ids)))


@dataclass(eq=False, repr=False)
class SyncQueue:
    """The queue with blocking calls; see `PositionQueue`."""

    store: LifecycleTable
    clock: Clock
    policy: RetryPolicy
    random: Random
    new_ids: schema.NewIds = schema.new_ids
    # The newest lease token of each request that this object has claimed and not ended.
    _tokens: dict[str, str] = field(default_factory=dict, init=False)

    def initialize(self) -> None:
        """Create the queue's table, or check and migrate the one that is there."""
        self.store.table.initialize()

    def insert(
        self,
        conid: int,
        symbol: str,
        priority: int = MONITORING_PRIORITY,
        account: str | None = None,
        *,
        reason: Reason = Reason.MANUAL,
    ) -> str:
        """Insert a request to value one position, and return its id.

        At most one request per (account, conid) is live: a second insert returns the id of the
        first and raises its priority if the new one is higher (1 is higher than 2).

        Raises:
            InvalidRequestError: The conid is not a whole number above zero, the symbol is empty,
                or the priority is neither 1 nor 2.
        """
        [request_id] = self.insert_many([QueueRequest(conid, symbol, priority, account, reason)])
        return request_id

    def insert_many(self, requests: Iterable[QueueRequest]) -> list[str]:
        """Insert many requests in one commit.

        Returns:
            For each request, in order, the id of the live request of its position.

        Raises:
            InvalidRequestError: A conid, symbol, priority or reason is wrong; nothing was inserted.
        """
        checked = list(requests)
        for request in checked:
            fields = schema.fields_of(request)
            del fields["account"]  # any text, or None
            check_arguments(request, **fields)
        if not checked:
            return []

        now = self.clock()
        ids = self.store.change(
            lambda snapshot: insert_requests(snapshot.live, checked, now, self.new_ids),
            {"action": "insert"},
        )
        logger.debug("inserted %d requests", len(ids))
        return ids

    def get_batch(
        self,
        priority: int | None = MONITORING_PRIORITY,
        limit: int = 50,
        status: QueueStatus = QueueStatus.PENDING,
    ) -> list[QueuedPosition]:
        """Read requests without claiming them: another caller gets the same ones.

        Two workers that read the same requests would both do all the work. Use `claim_batch`
        where more than one caller works.

        Args:
            priority: Only requests of this priority; None for all.
            status: Live requests come in claim order, finished ones newest first.
        """
        check_arguments(limit=limit)
        status = QueueStatus(status)
        wanted = col.status == status
        if priority is not None:
            check_arguments(priority=priority)
            wanted &= col.priority == priority

        if status in (QueueStatus.PENDING, QueueStatus.PROCESSING):
            live = self.store.snapshot().live
            requests = live.filter(wanted).sort(claim_order(self.clock())).head(limit)
        else:
            newest = self.store.read(
                lambda snapshot: snapshot.newest_finished(status, wanted, limit)
            )
            requests = newest.sort("updated_at", "request_id", descending=True)
        return requests_of(requests)

    def beginning_with(self, prefix: str) -> list[QueuedPosition]:
        """Read the live and finished requests whose id begins with a prefix."""
        # LAST sorts after each character of an id: the span has all ids with the prefix.
        chosen = may_have("request_id", prefix, prefix + schema.LAST)
        requests = self.store.read(
            lambda snapshot: concat([snapshot.live, snapshot.finished(chosen)])
        )
        return requests_of(requests.filter(col.request_id.str.starts_with(prefix)))

    def claim_batch(
        self,
        limit: int = 50,
        owner: str | None = None,
        lease_s: float = LEASE_S,
        *,
        except_accounts: Collection[str] = (),
    ) -> list[QueuedPosition]:
        """Claim up to `limit` requests under a lease of `lease_s` seconds.

        While its lease lasts, a request is granted to no other caller in any process. Priority 1
        comes before 2, then the oldest request. A request that has waited for more than a minute
        counts as priority 1, so that no request is starved. The queue object
        remembers its newest lease of each request, so that marking needs the ids alone. Workers
        that share one queue object pass their `lease_token` to each step.

        Args:
            limit: The maximum number of requests to claim.
            owner: A name for people; by default the id of this process.
            lease_s: The length of the lease, in seconds.
            except_accounts: Requests of these accounts are not claimed.
        """
        check_arguments(limit=limit, lease_s=lease_s)
        if limit == 0:
            return []

        token = os.urandom(16).hex()
        worker = storable(owner or f"pid-{os.getpid()}")  # without what UTF-8 cannot store

        def step(snapshot: Snapshot) -> Change[list[QueuedPosition]]:
            # It runs again if another change was committed first: on the newest rows.
            now = self.clock()
            is_granted = snapshot.live["lease_token"] == token
            if is_granted.any():  # by an attempt before, of which only the answer was lost
                return Change(requests_of(snapshot.live.filter(is_granted).sort(claim_order(now))))

            granted = [
                claimed(request, now, worker, token, lease_s)
                for request in first_claimable(snapshot.live, now, limit, except_accounts)
            ]
            return Change(granted, granted)

        granted = self.store.change(step, {"action": "claim", "lease_token": token})
        self._tokens |= {request.request_id: token for request in granted}
        if granted:
            logger.info("claimed %d requests", len(granted))
        return granted

    def mark_success(
        self,
        request_ids: Ids,
        *,
        answers: Mapping[str, Answer] | None = None,
        lease_token: str | None = None,
    ) -> None:
        """Finish requests as SUCCESS, in one commit, all or none.

        Requests that were only read may be marked too, while nobody else holds their lease. A
        request whose position changed in the meantime is followed by a new request.

        Args:
            request_ids: The requests.
            answers: The row that answers a request, by request id, as far as it is known.
            lease_token: The lease under which they were claimed.

        Raises:
            LeaseLostError: A lease has expired, or another worker holds it.
            UnknownRequestError, RequestStateError: A request does not exist, or is finished.
        """
        self._succeed(ids_of(request_ids), Action.MARK, lease_token, answers or {})

    def mark_processed(self, request_ids: Ids, *, lease_token: str | None = None) -> None:
        """Finish requests that the caller claimed, and valued by itself, as SUCCESS.

        As `mark_success`, but for claimed requests alone: two workers that only read the same
        requests cannot both finish them.

        Args:
            request_ids: The requests.
            lease_token: The lease under which they were claimed.

        Raises:
            LeaseLostError: A lease has expired, or another worker holds it.
            RequestStateError: A request was not claimed, or is finished; none was finished now.
            UnknownRequestError: A request does not exist.
        """
        self._succeed(ids_of(request_ids), Action.HOLD, lease_token, {})

    def _succeed(
        self, ids: list[str], action: Action, token: str | None, answers: Mapping[str, Answer]
    ) -> None:
        """Finish requests as SUCCESS.

        Args:
            ids: The requests.
            action: MARK: also those that were only read. HOLD: only claimed ones.
            token: The lease under which they were claimed; None: what this object remembers.
            answers: The row that answers a request, by request id, as far as it is known.
        """
        columns = {request_id: schema.fields_of(answer) for request_id, answer in answers.items()}
        succeed = partial(succeed_requests, answers=columns, new_ids=self.new_ids)
        self._change_claimed(ids, action, token, succeed, {"action": "success"})
        if ids:
            logger.info("marked %d requests SUCCESS", len(ids))

    def mark_failed(
        self,
        request_id: str,
        error_message: str,
        *,
        retryable: bool = True,
        lease_token: str | None = None,
    ) -> None:
        """Record that a request failed.

        It is PENDING again after a back-off that doubles with each failure. It becomes FAILED with
        its last attempt, the fifth by default (`RetryPolicy.max_attempts`), or with the first if it
        is not `retryable`. The errors are those of `mark_success`.
        """
        self.mark_failed_many(
            {request_id: error_message}, retryable=retryable, lease_token=lease_token
        )

    def mark_failed_many(
        self, errors: Mapping[str, str], *, retryable: bool = True, lease_token: str | None = None
    ) -> None:
        """Record that many requests failed, in one commit.

        Args:
            errors: Error message by request id.
            retryable: Whether they may be tried again; else each is FAILED at once.
            lease_token: The lease under which they were claimed.
        """
        texts = {storable(failed_id): storable(text) for failed_id, text in errors.items()}
        fail = partial(
            fail_requests,
            errors=texts,
            # With one attempt a failure is the last one.
            policy=self.policy if retryable else RetryPolicy(max_attempts=1),
            random=self.random,
            new_ids=self.new_ids,
        )
        self._change_claimed(list(texts), Action.MARK, lease_token, fail, {"action": "failure"})
        for request_id, text in texts.items():
            logger.info("request %s failed: %s", request_id, text)

    def release(
        self, request_ids: Ids, reason: str = "", *, lease_token: str | None = None
    ) -> None:
        """Return claimed requests to PENDING at once, without using up an attempt.

        For cases in which the gateway failed and not the request: `reason` says how, and is kept
        with the attempt. The errors are those of `mark_success`.
        """
        ids = ids_of(request_ids)
        why = storable(reason)
        info = {"action": "release", "reason": why[:200]}
        self._change_claimed(
            ids, Action.RELEASE, lease_token, partial(release_requests, why=why), info
        )

    def rescue(self) -> list[str]:
        """Return requests with an expired lease to PENDING, and return their ids.

        No attempt is used up: the worker died, the request is not at fault. A drain calls it first.
        """
        # To look takes no lock of writers; a change does, also one of nothing.
        if not self.overview().expired:
            return []

        now = self.clock()
        return self.store.change(
            lambda snapshot: rescue_requests(snapshot.live, now), {"action": "rescue"}
        )

    def retry(self, request_ids: Ids) -> list[str]:
        """Return FAILED requests to PENDING when a person decides so; their attempts begin anew.

        Returns:
            For each request the id of the live request of its position, which may be another one.
        """
        ids = ids_of(request_ids)
        if not ids:
            return []
        now = self.clock()
        return self.store.change(
            lambda snapshot: retry_requests(
                snapshot.live, failed_rows(snapshot, ids), ids, now=now
            ),
            {"action": "retry"},
        )

    def holds(self, request_ids: Ids, *, lease_token: str | None = None) -> bool:
        """Return whether the caller holds unexpired leases on all these requests.

        A worker checks this before it writes: without its lease it must not write.
        """
        ids = ids_of(request_ids)
        # Each of the errors says that it does not hold one of them.
        with suppress(LeaseLostError, RequestStateError, UnknownRequestError):
            # The time after the table was read: that may take long.
            self.store.read(
                lambda rows: self._checked(rows, ids, Action.HOLD, lease_token, self.clock())
            )
            return True
        return False

    def attempts(self, limit: int = 50, request_id: str | None = None) -> list[ProcessingAttempt]:
        """Read the attempts of all workers: those in progress first, then the newest.

        Args:
            limit: Maximum number of attempts.
            request_id: Only of requests whose ids begin so.
        """
        check_arguments(limit=limit)
        if request_id is not None:
            requests = self.beginning_with(request_id)
        else:
            requests = requests_of(self.store.read(partial(last_attempted, limit=limit)))

        attempts = [attempt for request in requests for attempt in attempts_of(request)]
        attempts.sort(key=lambda attempt: attempt.ended_at or FOREVER, reverse=True)
        return attempts[:limit]

    def confirmations(self, since: datetime, until: datetime) -> DataFrame:
        """Return the newest `confirmed_at` by `update_id`, of requests answered in a span.

        They were inserted in it as well. They show until when an unchanged row was confirmed: to
        reconciliation, and to past closes. The ids of requests sort by the time of insertion, so
        few files are read.

        Args:
            since: The start of the span.
            until: Its end; one without a time zone is local time.
        """
        first = schema.id_prefix(since)
        chosen = in_bucket(SUCCESS) & may_have("request_id", first)
        was_inserted_since = col.request_id >= first
        # By the clocks of two machines: neither may lie behind the span.
        answered_at = pl.max_horizontal("updated_at", "confirmed_at")
        is_of_span = was_inserted_since & (answered_at <= until.astimezone(UTC))
        answered = self.store.finished(chosen, ["update_id", "confirmed_at"], is_of_span)
        return answered.drop_nulls().group_by("update_id").max()

    def counts(self) -> dict[QueueStatus, int]:
        """Count requests by status; the cost does not grow with the finished requests."""
        return self.overview().counts

    def overview(self, except_accounts: Collection[str] = ()) -> QueueOverview:
        """Read counts and ages, and how many requests are claimable.

        A drain starts with it, and `status` shows it. The cost does not grow with the finished
        requests. Times ahead of the clock are passed over.

        Args:
            except_accounts: Requests of these accounts count as neither claimable nor expired.
        """
        now = self.clock()
        # Both of one version; `ended` has a row for each bucket of finished requests.
        snapshot, ended = self.store.read(lambda snapshot: (snapshot, snapshot.counts(now)))
        live = snapshot.live

        numbers = dict(live.group_by("status").len().iter_rows())
        newest = {}
        for bucket, number, last in ended.iter_rows():
            numbers[bucket] = number
            newest[bucket] = last

        oldest = live.filter(status=PENDING)["created_at"].min()
        claimable = live.filter(is_claimable(now, except_accounts))
        expired = live.filter(lease_has_expired(now, except_accounts))
        return QueueOverview(
            counts={status: numbers.get(status, 0) for status in QueueStatus},
            claimable=claimable.height,
            oldest_pending_at=oldest if isinstance(oldest, datetime) else None,
            expired=expired.height,
            version=snapshot.version,
            last_success_at=newest.get(SUCCESS),
        )

    def _change_claimed(
        self,
        ids: Sequence[str],
        action: Action,
        lease_token: str | None,
        step: Callable[[Sequence[QueuedPosition], datetime], Change[None]],
        commit_info: Mapping[str, str],
    ) -> None:
        """Check that the caller may act on the requests, and change them: its claim ends.

        Args:
            ids: The requests.
            action: What the caller does; `Action` says which requests it is allowed for.
            lease_token: That of the caller's claims; None: what this object remembers of them.
            step: Returns the change of these requests, at this time.
            commit_info: What the log says of the commit.
        """
        if not ids:
            return
        now = self.clock()
        self.store.change(
            lambda snapshot: step(self._checked(snapshot, ids, action, lease_token, now), now),
            commit_info,
        )
        for request_id in ids:
            self._tokens.pop(request_id, None)

    def _checked(
        self,
        snapshot: Snapshot,
        ids: Sequence[str],
        action: Action,
        lease_token: str | None,
        now: datetime,
    ) -> list[QueuedPosition]:
        """Return live requests, if the caller may act on all of them; else none may change.

        Args:
            snapshot: The rows of the table now.
            ids: The requests.
            action: What the caller does; `Action` says which requests it is allowed for.
            lease_token: That of the caller's claims; None: what this object remembers of them.
            now: The time: a lease that has ended by it is lost.

        Raises:
            LeaseLostError: A lease has ended, or another worker holds it.
            RequestStateError: A request was not claimed, or is finished.
            UnknownRequestError: A request is not in the queue (from `stored_requests`).
        """
        live = requests_of(snapshot.live.filter(col.request_id.is_in(ids)))
        tokens = self._tokens if lease_token is None else dict.fromkeys(ids, lease_token)
        for request in live:
            check_lease(request, tokens.get(request.request_id), action, now)

        # What is not live is finished or unknown; one that the caller had claimed, another ended.
        missing = set(ids).difference(request.request_id for request in live)
        for request_id in missing:
            if request_id in tokens:
                raise lease_lost(request_id)
        if missing:
            request_id, status = stored_requests(snapshot, [*missing]).select(STATE).row(0)
            raise wrong_state(request_id, status, "the step needs a live request")
        return live


class PositionQueue:
    """The queue in a Delta table, shared by any number of processes.

    The blocking work of each call runs in the threads of the lake.

    Args:
        delta_lake_path: Folder or `s3://` URI of the table.
        retry: Attempts and back-off of requests that fail.
        random: Draws the jitter of the back-off.
        **options: `fsync`: whether a change is synced to the disk before the call returns.

    Attributes:
        sync: The same queue with blocking calls.

    >>> queue = PositionQueue("data/lake/position_queue")  # doctest: +SKIP
    >>> await queue.initialize()                           # doctest: +SKIP
    >>> await queue.insert(265598, "AAPL")                 # doctest: +SKIP
    >>> batch = await queue.claim_batch(limit=50)          # doctest: +SKIP
    >>> await queue.mark_success([r.request_id for r in batch])  # doctest: +SKIP
    """

    def __init__(
        self,
        delta_lake_path: str | Path = "data/lake/position_queue",
        *,
        retry: RetryPolicy | None = None,
        clock: Clock = utc_now,
        random: Random | None = None,
        new_ids: schema.NewIds = schema.new_ids,
        **options: Unpack[TableOptions],
    ) -> None:
        self.table = Table(delta_lake_path, schema.POSITION_QUEUE, **options)
        store = LifecycleTable(self.table, clock)
        jitter = random or Random()  # noqa: S311 - not a secret
        self.sync = SyncQueue(store, clock, retry or RetryPolicy(), jitter, new_ids)

    @property
    def delta_lake_path(self) -> str:
        """Return the folder or URI of the table."""
        return self.table.path

    initialize = offloaded(SyncQueue.initialize)
    insert = offloaded(SyncQueue.insert)
    insert_many = offloaded(SyncQueue.insert_many)
    get_batch = offloaded(SyncQueue.get_batch)
    claim_batch = offloaded(SyncQueue.claim_batch)
    mark_success = offloaded(SyncQueue.mark_success)
    mark_processed = offloaded(SyncQueue.mark_processed)
    mark_failed = offloaded(SyncQueue.mark_failed)
    release = offloaded(SyncQueue.release)
    rescue = offloaded(SyncQueue.rescue)
    attempts = offloaded(SyncQueue.attempts)
    retry = offloaded(SyncQueue.retry)
    counts = offloaded(SyncQueue.counts)
    overview = offloaded(SyncQueue.overview)
