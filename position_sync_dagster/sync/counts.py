"""The counts of what the stream and the drains did; plain numbers for a log, the UI or a test."""

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Self

from position_sync_dagster.errors import LakeError

if TYPE_CHECKING:
    from position_sync_dagster.lake.ledger_append import AppendResult


FIRST_COUNTS = frozenset({"version_from", "first_batch_id"})
"""Numbers that a sum takes from the earlier span."""

SUMS = frozenset(
    {
        *("rows", "commits", "claimed", "succeeded", "unchanged", "failed", "released"),
        *("enqueued", "reconnects", "promotions", "demotions"),
    }
)
"""Numbers that a sum adds. It takes every other number from the later span, if that has it."""


def added(name: str, earlier: Any, later: Any) -> Any:
    """Return a number of two consecutive spans; None stands for an unknown number of one span.

    >>> added("rows", 1, 2), added("version_from", 3, 6), added("version_to", 4, None)
    (3, 3, 4)
    """
    if earlier is None or later is None:
        return earlier if later is None else later
    if name in FIRST_COUNTS:
        return earlier
    return earlier + later if name in SUMS else later


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerCounts:
    """What was written to `position_updates` in a span of time; `earlier + later` adds two spans.

    Attributes:
        rows: The number of rows.
        commits: The number of commits of these rows.
        version_from, version_to: Delta versions around the span; None without a commit.
        first_batch_id, last_batch_id: The batches of the first and the last commit; batch ids sort
            by time.
    """

    rows: int = 0
    commits: int = 0
    version_from: int | None = None
    version_to: int | None = None
    first_batch_id: str | None = None
    last_batch_id: str | None = None

    @classmethod
    def of(cls, commit: "AppendResult | None") -> Self:
        """Return the counts of one commit, or of none."""
        if commit is None or not commit.rows:
            return cls()
        return cls(
            rows=commit.rows,
            commits=1,
            version_from=commit.version - 1,
            version_to=commit.version,
            first_batch_id=commit.batch_id,
            last_batch_id=commit.batch_id,
        )

    def __add__(self, later: "LedgerCounts") -> Self:
        names = [one.name for one in fields(self)]
        return type(self)(**{n: added(n, getattr(self, n), getattr(later, n)) for n in names})


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamCounts(LedgerCounts):
    """The counts of a stream in a span of time.

    Attributes:
        enqueued: Requests put into `position_queue`.
        queue_version: Delta version of `position_queue` after the last of them.
        reconnects: Number of times the connection was made again.
        promotions, demotions: Legs that got, or lost, a line while they were active.
    """

    enqueued: int = 0
    queue_version: int | None = None
    reconnects: int = 0
    promotions: int = 0
    demotions: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainCounts(LedgerCounts):
    """The counts of a batch or of a drain.

    Attributes:
        claimed: Requests that were claimed.
        succeeded: Those that ended with a row, their own one or an older one.
        unchanged: Those that ended with an older row, which has the same values.
        failed: Those that failed.
        released: Those that became PENDING again, without using up an attempt.
    """

    claimed: int = 0
    succeeded: int = 0
    unchanged: int = 0
    failed: int = 0
    released: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchReport(DrainCounts):
    """The result of one claimed batch.

    Attributes:
        oldest_wait_s: Age of its oldest request when its rows were committed, in seconds.
        reason: Why requests were released; None when none were.
        error: Why its requests could not be marked after the commit of its rows; None when they
            were.
    """

    batch_id: str
    oldest_wait_s: float | None
    duration_s: float
    reason: str | None = None
    error: LakeError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainReport(DrainCounts):
    """The result of one drain; its counts are the sum of those of its batches.

    Attributes:
        rescued: Requests whose lease had expired and that became claimable again.
        exhausted: Whether nothing more could be claimed.
        queue_version: Delta version of `position_queue` at the end; None until it is read.
        pending_after: Requests that still wait at the end; None until they are counted.
        unavailable: Why the broker's data could not be read; None when it could.
        error: The error that ended it after its first batch; None without one.
    """

    batches: tuple[BatchReport, ...]
    rescued: int
    duration_s: float
    exhausted: bool
    queue_version: int | None = None
    pending_after: int | None = None
    unavailable: str | None = None
    error: LakeError | None = None

    @property
    def may_continue(self) -> bool:
        """Whether another drain, at once, is likely to value more requests."""
        if self.exhausted or self.unavailable is not None:
            return False
        return any(batch.released < batch.claimed for batch in self.batches)

    @property
    def reason(self) -> str | None:
        """Why requests were released or left; None when none were."""
        reasons = [b.reason for b in self.batches if b.reason is not None]
        return self.unavailable or (reasons[-1] if reasons else None)


@dataclass(slots=True)
class StreamMetrics:
    """The counts of a stream; add to them."""

    counts: StreamCounts = field(default_factory=StreamCounts)
