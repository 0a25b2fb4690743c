"""The queue as plain calls, over any store of its rows."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from random import Random
from threading import Lock
from typing import Protocol, TypeVar

import polars as pl

from position_sync_dagster.domain.clock import Clock
from position_sync_dagster.domain.request import (
    MONITORING_PRIORITY,
    QueuedPosition,
    QueueRequest,
    QueueStatus,
    Reason,
)
from position_sync_dagster.domain.retry import RetryPolicy
from position_sync_dagster.errors import RequestStateError, UnknownRequestError
from position_sync_dagster.lake.queue.arguments import (
    check_lease,
    check_limit,
    check_priority,
    check_request,
    check_text,
    ids_of,
    status_of,
    storable,
)
from position_sync_dagster.lake.queue.transitions import (
    FAILED,
    PENDING,
    Act,
    Failure,
    check,
    claim_order,
    is_ready,
    lease_is_over,
    lease_lost,
    plan_claim,
    plan_failures,
    plan_insert,
    plan_release,
    plan_renew,
    plan_rescue,
    plan_retry,
    plan_success,
)
from position_sync_dagster.lake.storage.codec import requests_of
from position_sync_dagster.lake.storage.ids import NewIds, id_literals, is_id
from position_sync_dagster.lake.storage.lifecycle_table import Change, CountedSnapshot, Snapshot
from position_sync_dagster.lake.storage.partitions import in_bucket, in_parts

T = TypeVar("T")

LEASE_S = 60.0
PROMOTE_AFTER_S = 60.0
"""A pending request older than this is claimed as if it had priority 1."""

_TOKENS_KEPT = 10_000
"""Leases remembered beside those of the newest claim."""


class QueueStore(Protocol):
    """Where the queue's rows lie."""

    def initialize(self) -> None:
        """Create it."""

    def change(self, step: Callable[[Snapshot], Change[T]], commit_info: Mapping[str, str]) -> T:
        """Run a step on the live rows and keep what it decided, all or nothing."""

    def snapshot(self) -> Snapshot:
        """Read the live rows."""

    def finished(self, predicate: str, columns: list[str] | None = None) -> pl.DataFrame:
        """Read finished rows."""

    def counted_snapshot(self) -> CountedSnapshot:
        """Read the live rows and count the finished ones by bucket."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueOverview:
    """The queue at one moment, for sensors and people.

    Attributes:
        counts: Requests by status.
        claimable: Pending requests that may be claimed now (no back-off left).
        oldest_pending_at: When the oldest pending request was inserted; None without any.
        by_priority: Pending requests by priority.
        expired: Requests being processed whose lease is over.
        version: The version of the table that was read; 0 in memory.
    """

    counts: dict[QueueStatus, int]
    claimable: int
    oldest_pending_at: datetime | None
    by_priority: dict[int, int]
    expired: int
    version: int


class SyncQueue:
    """The queue as plain calls, for callers that may block; see `PositionQueue`."""

    def __init__(
        self,
        store: QueueStore,
        *,
        retry: RetryPolicy,
        clock: Clock,
        random: Random,
        new_ids: NewIds,
        promote_after_s: float,
    ) -> None:
        self.store = store
        self._retry = retry
        self._clock = clock
        self._random = random
        self._new_ids = new_ids
        self._promote_after_s = promote_after_s
        self._tokens: dict[str, str] = {}
        self._lock = Lock()

    def initialize(self) -> None:
        """Create the queue's table, or check and migrate the one that is there."""
        self.store.initialize()

    def insert(
        self,
        conid: int,
        symbol: str,
        priority: int = MONITORING_PRIORITY,
        account: str | None = None,
        *,
        reason: Reason = Reason.MANUAL,
    ) -> str:
        """Ask for one position to be valued; give the request's id.

        At most one request per (account, conid) is live: a second insert gives the first one's id
        and raises its priority if it is higher (1 is higher than 2).

        Raises:
            InvalidRequestError: The conid is no whole number above zero, the symbol is empty, or
                the priority is neither 1 nor 2.
        """
        return self.insert_many([QueueRequest(conid, symbol, priority, account, reason)])[0]

    def insert_many(self, requests: Iterable[QueueRequest]) -> list[str]:
        """Ask for many positions in one commit; give the id that stands for each, in order."""
        asked = [check_request(request) for request in requests]
        if not asked:
            return []
        now = self._clock()
        return self.store.change(
            lambda view: plan_insert(
                view.live, asked, now=now, new_ids=lambda count: self._new_ids(now, count)
            ),
            {"action": "insert"},
        )

    def get_batch(
        self,
        priority: int | None = MONITORING_PRIORITY,
        limit: int = 50,
        status: QueueStatus = QueueStatus.PENDING,
    ) -> list[QueuedPosition]:
        """Read requests without taking them.

        Args:
            priority: Only of this priority; None for all.
            status: Live ones come in the order of claims, finished ones newest first.
        """
        check_limit(limit)
        if priority is not None:
            check_priority(priority)
        status = status_of(status)
        wanted = pl.col("status") == status.value
        if priority is not None:
            wanted &= pl.col("priority") == priority
        if status in (QueueStatus.PENDING, QueueStatus.PROCESSING):
            order = claim_order(self._clock(), self._promote_after_s)
            return requests_of(self.store.snapshot().live.filter(wanted).sort(order).head(limit))
        bucket = in_bucket(status.value)
        keys = self.store.finished(bucket, ["request_id", "updated_at", "priority", "status"])
        newest = keys.filter(wanted).top_k(limit, by="updated_at").get_column("request_id")
        if newest.is_empty():
            return []
        frame = self.store.finished(f"{bucket} AND request_id IN ({id_literals(newest)})")
        return requests_of(frame.sort("updated_at", "request_id", descending=True))

    def claim_batch(
        self, limit: int = 50, owner: str | None = None, lease_s: float = LEASE_S
    ) -> list[QueuedPosition]:
        """Take up to `limit` requests under a lease of `lease_s` seconds.

        No request is granted to two callers while its lease lives, in whatever processes they
        are. Priority 1 comes before 2, then the oldest; a request that has waited for more than a
        minute (`promote_after_s`) counts as priority 1, so that priority 2 is never starved.
        The queue object remembers its newest lease of each request: marking needs the ids alone.
        Workers that share one queue object give their `lease_token` with each step.
        """
        check_limit(limit)
        check_lease(lease_s)
        check_text("owner", owner)
        if limit == 0:
            return []
        token = os.urandom(16).hex()
        claimed = self.store.change(
            lambda view: plan_claim(
                view.live,
                limit,
                now=self._clock(),
                owner=storable(owner or f"pid-{os.getpid()}"),
                token=token,
                lease_s=lease_s,
                promote_after_s=self._promote_after_s,
            ),
            {"action": "claim", "lease_token": token},
        )
        granted = requests_of(claimed)
        self._remember([request.request_id for request in granted], token)
        return granted

    def mark_success(
        self, request_ids: str | Iterable[str], *, lease_token: str | None = None
    ) -> None:
        """End requests as SUCCESS, in one commit, all or none.

        Requests that were only read may be marked too, while nobody else holds their lease.

        Raises:
            LeaseLostError: A lease is over or is another's.
            UnknownRequestError, RequestStateError: A request is not there, or has ended.
        """
        ids = ids_of(request_ids)
        if not ids:
            return
        now = self._clock()

        def step(view: Snapshot) -> Change[None]:
            self._check(view, ids, Act.MARK, now, lease_token)
            return plan_success(
                view.live, ids, now=now, new_ids=lambda count: self._new_ids(now, count)
            )

        self.store.change(step, {"action": "success"})
        self._forget(ids)

    def mark_failed(
        self,
        request_id: str,
        error_message: str,
        *,
        retryable: bool = True,
        lease_token: str | None = None,
    ) -> None:
        """Note that a request failed.

        It is PENDING again after a back-off that doubles with each failure, or FAILED when it is
        not `retryable` or its attempts are used up (`RetryPolicy`). Errors as `mark_success`.
        """
        errors = {request_id: error_message}
        self.mark_failed_many(errors, retryable=retryable, lease_token=lease_token)

    def mark_failed_many(
        self,
        errors: Mapping[str, str],
        *,
        retryable: bool = True,
        lease_token: str | None = None,
    ) -> None:
        """Note that many requests failed, in one commit: error message by request id."""
        failures = {
            i: Failure(error_message=storable(text), retryable=retryable)
            for i, text in errors.items()
        }
        if not failures:
            return
        now = self._clock()

        def step(view: Snapshot) -> Change[None]:
            self._check(view, list(failures), Act.MARK, now, lease_token)
            return plan_failures(
                view.live,
                failures,
                now=now,
                policy=self._retry,
                random=self._random,
                new_ids=lambda count: self._new_ids(now, count),
            )

        self.store.change(step, {"action": "failure"})
        self._forget(failures)

    def release(
        self,
        request_ids: str | Iterable[str],
        reason: str = "",
        *,
        lease_token: str | None = None,
    ) -> None:
        """Give claimed requests back at once, without using up an attempt.

        For when the gateway, and not the request, was at fault. Errors as `mark_success`.
        """
        ids = ids_of(request_ids)
        if not ids:
            return
        now = self._clock()

        def step(view: Snapshot) -> Change[None]:
            self._check(view, ids, Act.RELEASE, now, lease_token)
            return plan_release(view.live, ids, now=now)

        self.store.change(step, {"action": "release", "reason": storable(reason)[:200]})
        self._forget(ids)

    def renew(
        self,
        request_ids: str | Iterable[str],
        lease_s: float = LEASE_S,
        *,
        lease_token: str | None = None,
    ) -> None:
        """Let the leases of claimed requests end `lease_s` seconds from now.

        Raises:
            LeaseLostError: A lease is over or is another's.
        """
        ids = ids_of(request_ids)
        check_lease(lease_s)
        if not ids:
            return
        now = self._clock()

        def step(view: Snapshot) -> Change[None]:
            self._check(view, ids, Act.RENEW, now, lease_token)
            return plan_renew(view.live, ids, now=now, lease_s=lease_s)

        self.store.change(step, {"action": "renew"})

    def rescue(self) -> list[str]:
        """Send requests whose lease is over back to PENDING; give their ids.

        No attempt is used up: the worker died, the request is not at fault.
        """
        if not self.overview().expired:
            return []
        return self.store.change(
            lambda view: plan_rescue(view.live, now=self._clock()), {"action": "rescue"}
        )

    def retry(self, request_ids: str | Iterable[str]) -> list[str]:
        """Put FAILED requests back to PENDING with fresh attempts, by a person's wish.

        Gives the id that stands for each: another one when its position is asked for already.
        """
        ids = ids_of(request_ids)
        if not ids:
            return []
        now = self._clock()

        def step(view: Snapshot) -> Change[list[str]]:
            found = self._find(view, ids)
            wrong = {i: s for i, s in found.items() if s != FAILED}
            if wrong:
                raise _wrong_state(wrong, "only a FAILED request is retried")
            failed = view.finished(f"{in_bucket(FAILED)} AND request_id IN ({id_literals(ids)})")
            order = pl.DataFrame({"request_id": ids}, schema={"request_id": pl.String})
            ordered = order.join(failed, on="request_id", how="left", maintain_order="left")
            siblings = view.finished(in_parts(FAILED, failed.get_column("part").unique()))
            return plan_retry(view.live, ordered.select(failed.columns), siblings, now=now)

        return self.store.change(step, {"action": "retry"})

    def holds(self, request_ids: str | Iterable[str], *, lease_token: str | None = None) -> bool:
        """Tell whether the leases of all these requests are ours and not over.

        A worker asks before it writes: one that lost its lease must not.
        """
        ids = ids_of(request_ids)
        live = self.store.snapshot().live.filter(pl.col("request_id").is_in(ids))
        now = self._clock()
        held = {
            request_id: token
            for request_id, token, until in live.select(
                "request_id", "lease_token", "lease_expires_at"
            ).iter_rows()
            if token is not None and until > now
        }
        tokens = self._tokens if lease_token is None else dict.fromkeys(ids, lease_token)
        return all(i in held and held[i] == tokens.get(i) for i in ids)

    def counts(self) -> dict[QueueStatus, int]:
        """Count requests by status; costs the same at any history."""
        return self.overview().counts

    def overview(self) -> QueueOverview:
        """Read counts, ages and what may be claimed now; costs the same at any history."""
        counted = self.store.counted_snapshot()
        view = counted.snapshot
        counts = dict.fromkeys(QueueStatus, 0)
        for status, number in view.live.group_by("status").len().iter_rows():
            counts[QueueStatus(status)] += number
        for bucket, number in counted.finished.items():
            counts[QueueStatus(bucket)] += number
        now = self._clock()
        pending = view.live.filter(pl.col("status") == PENDING)
        oldest = pending.get_column("created_at").min()
        return QueueOverview(
            counts=counts,
            claimable=view.live.filter(is_ready(now)).height,
            oldest_pending_at=oldest if isinstance(oldest, datetime) else None,
            by_priority=dict(pending.group_by("priority").len().sort("priority").iter_rows()),
            expired=view.live.filter(lease_is_over(now)).height,
            version=view.version,
        )

    def _check(
        self, view: Snapshot, ids: Sequence[str], act: Act, now: datetime, lease_token: str | None
    ) -> None:
        tokens = self._tokens if lease_token is None else dict.fromkeys(ids, lease_token)
        missing = check(view.live, ids, tokens, act=act, now=now)
        if not missing:
            return
        lost = [i for i in missing if i in tokens]
        if lost:
            raise lease_lost(lost[0])
        raise _wrong_state(self._find(view, missing), "the step needs a live request")

    def _find(self, view: Snapshot, ids: Sequence[str]) -> dict[str, str]:
        unknown = [i for i in ids if not is_id(i)]
        live = view.live.filter(pl.col("request_id").is_in(ids))
        found = dict(live.select("request_id", "status").iter_rows())
        absent = [i for i in ids if i not in found and is_id(i)]
        if absent:
            ended = view.finished(f"request_id IN ({id_literals(absent)})")
            found |= dict(ended.select("request_id", "status").iter_rows())
        unknown += [i for i in absent if i not in found]
        if unknown:
            raise UnknownRequestError(
                f"The request {unknown[0][:80]!r} is not in the queue"
                + (f", nor are {len(unknown) - 1} others." if len(unknown) > 1 else "."),
                remedy="Use ids as `insert` or `claim_batch` gave them.",
            )
        return found

    def _remember(self, ids: Sequence[str], token: str) -> None:
        with self._lock:
            for request_id in ids:
                self._tokens.pop(request_id, None)
                self._tokens[request_id] = token
            while len(self._tokens) > _TOKENS_KEPT + len(ids):
                self._tokens.pop(next(iter(self._tokens)))

    def _forget(self, ids: Iterable[str]) -> None:
        with self._lock:
            for request_id in ids:
                self._tokens.pop(request_id, None)


def _wrong_state(found: Mapping[str, str], why: str) -> RequestStateError:
    request_id, status = next(iter(found.items()))
    return RequestStateError(
        f"The request {request_id} is {status}.", remedy=f"Leave it as it is: {why}."
    )
