"""What the services tell their caller: plain numbers for a log, the UI or a test."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamReport:
    """What the stream did in a span of time.

    Attributes:
        rows: Rows written to `position_updates`.
        commits: Commits that hold them.
        version_from, version_to: Delta versions of `position_updates` around the span, where
            there was a commit.
        enqueued: Requests put into `position_queue`.
        queue_version: Delta version of `position_queue` after the last of them.
        legs_streamed: Holdings valued by a line at the end of the span.
        reconnects: Times the session connected anew.
        promotions, demotions: Legs that got, or lost, a line while they were active.
        tick_to_table_p50_s, tick_to_table_p95_s: From the arrival of a tick to the end of the
            commit that holds it or a newer value, in seconds; None without a tick.
        state: The session's state at the end (LIVE, BLIND, …), with `detail` for a person.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchReport:
    """What one claimed batch became.

    Attributes:
        version: Delta version of `position_updates` that holds its rows; None without rows.
        oldest_wait_s: Age of its oldest request when its rows were committed, in seconds.
    """

    batch_id: str
    claimed: int
    succeeded: int
    failed: int
    released: int
    rows: int
    version: int | None
    oldest_wait_s: float | None
    duration_s: float
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainReport:
    """What one drain did; `reason` says why requests were released or left."""

    batches: tuple[BatchReport, ...]
    rescued: int
    version_from: int | None
    version_to: int | None
    queue_version: int | None
    pending_after: int
    duration_s: float
    reason: str | None = None

    @property
    def claimed(self) -> int:
        """Count the requests claimed."""
        return sum(b.claimed for b in self.batches)

    @property
    def succeeded(self) -> int:
        """Count the requests that ended with a row."""
        return sum(b.succeeded for b in self.batches)

    @property
    def failed(self) -> int:
        """Count the requests that failed."""
        return sum(b.failed for b in self.batches)

    @property
    def released(self) -> int:
        """Count the requests given back unharmed."""
        return sum(b.released for b in self.batches)

    @property
    def rows(self) -> int:
        """Count the rows written."""
        return sum(b.rows for b in self.batches)


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshReport:
    """What one refresh of the queue from a broker snapshot did.

    Attributes:
        connected: Whether it opened a connection of its own (no stream was alive).
        incomplete_accounts: Accounts of which the walk is not COMPLETE.
    """

    connected: bool
    accounts: int
    positions: int
    enqueued: int
    queue_version: int | None
    incomplete_accounts: tuple[str, ...]
    duration_s: float
    reason: str | None = None
