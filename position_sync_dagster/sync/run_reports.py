"""Reports of the services to their callers: plain numbers for a log, the UI or a test."""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from position_sync_dagster.lake.updates.table import AppendResult


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamReport:
    """What the stream did in a span of time.

    Attributes:
        rows: Rows written to `position_updates`.
        commits: Commits that hold them.
        version_from, version_to: Delta versions of `position_updates` around the span; None
            without a commit.
        enqueued: Requests put into `position_queue`.
        queue_version: Delta version of `position_queue` after the last of them.
        legs_streamed: Holdings valued by a line at the end of the span.
        reconnects: Number of times the connection was made again.
        promotions, demotions: Legs that got, or lost, a line while they were active.
        tick_to_table_p50_s, tick_to_table_p95_s: From the arrival of a tick to the end of the
            commit that holds it or a newer value, in seconds; None without a tick.
        state: The session's state at the end (LIVE, BLIND, …).
        detail: The reason of that state, for a person.
        first_batch_id, last_batch_id: The batches of the first and the last commit; batch ids sort
            by time.
    """

    since: datetime
    until: datetime
    rows: int
    commits: int
    version_from: int | None
    version_to: int | None
    enqueued: int
    queue_version: int | None
    lines_in_use: int
    line_limit: int
    legs_streamed: int
    reconnects: int
    promotions: int
    demotions: int
    tick_to_table_p50_s: float | None
    tick_to_table_p95_s: float | None
    state: str
    detail: str | None = None
    first_batch_id: str | None = None
    last_batch_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchReport:
    """What became of one claimed batch.

    Attributes:
        appended: The commit of its rows to `position_updates`; None without rows.
        oldest_wait_s: Age of its oldest request when its rows were committed, in seconds.
        unchanged: Of those that succeeded the requests that needed no row: an older one says the
            same.
        reason: Why requests were released; None when none were.
    """

    batch_id: str
    claimed: int
    succeeded: int
    failed: int
    released: int
    appended: "AppendResult | None"
    oldest_wait_s: float | None
    duration_s: float
    unchanged: int = 0
    reason: str | None = None

    @property
    def rows(self) -> int:
        """The number of rows written."""
        return self.appended.rows if self.appended else 0

    @property
    def version(self) -> int | None:
        """The Delta version of `position_updates` that holds the rows; None without rows."""
        return self.appended.version if self.appended else None


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainReport:
    """What one drain did.

    Attributes:
        rescued: Requests whose lease had expired and that became claimable again.
        queue_version: Delta version of `position_queue` at the end.
        pending_after: Requests that still wait at the end.
        unavailable: Why the broker's data could not be read; None when it could.
    """

    batches: tuple[BatchReport, ...]
    rescued: int
    queue_version: int | None
    pending_after: int
    duration_s: float
    unavailable: str | None = None

    @property
    def claimed(self) -> int:
        """The number of requests claimed."""
        return sum(b.claimed for b in self.batches)

    @property
    def succeeded(self) -> int:
        """The number of requests that ended with a row, their own one or an older one."""
        return sum(b.succeeded for b in self.batches)

    @property
    def unchanged(self) -> int:
        """The number of requests that ended with an older row."""
        return sum(b.unchanged for b in self.batches)

    @property
    def failed(self) -> int:
        """The number of requests that failed."""
        return sum(b.failed for b in self.batches)

    @property
    def released(self) -> int:
        """The number of requests that became PENDING again, without using up an attempt."""
        return sum(b.released for b in self.batches)

    @property
    def rows(self) -> int:
        """The number of rows written."""
        return sum(b.rows for b in self.batches)

    @property
    def version_from(self) -> int | None:
        """The Delta version of `position_updates` before the first batch; None without rows."""
        first = min(self._versions, default=None)
        return None if first is None else first - 1

    @property
    def version_to(self) -> int | None:
        """The Delta version of `position_updates` after the last batch; None without rows."""
        return max(self._versions, default=None)

    @property
    def first_batch_id(self) -> str | None:
        """The first batch with rows; None without rows."""
        return next((b.batch_id for b in self.batches if b.rows), None)

    @property
    def last_batch_id(self) -> str | None:
        """The last batch with rows; None without rows."""
        return next((b.batch_id for b in reversed(self.batches) if b.rows), None)

    @property
    def reason(self) -> str | None:
        """Why requests were released or left; None when none were."""
        reasons = [b.reason for b in self.batches if b.reason is not None]
        return self.unavailable or (reasons[-1] if reasons else None)

    @property
    def _versions(self) -> list[int]:
        return [b.version for b in self.batches if b.version is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshReport:
    """What one refresh of the queue from a broker snapshot did.

    Attributes:
        connected: Whether it opened a connection of its own (no stream was alive).
        incomplete_accounts: Accounts whose download is not COMPLETE.
        reason: Why it did not connect; None when it did.
    """

    connected: bool
    accounts: int
    positions: int
    enqueued: int
    queue_version: int | None
    incomplete_accounts: tuple[str, ...]
    duration_s: float
    reason: str | None = None
