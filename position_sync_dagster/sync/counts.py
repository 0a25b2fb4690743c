"""The counts of what the drains did; plain numbers for a log, the UI or a test."""

from dataclasses import dataclass, fields

from position_sync_dagster.errors import LakeError


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainCounts:
    """The counts of a batch or of a drain; `one + other` adds them.

    Attributes:
        rows: Rows that were written.
        claimed: Requests that were claimed.
        succeeded: Those that ended with a row, their own one or an older one.
        unchanged: Those that ended with an older row, which has the same values.
        failed: Those that failed.
        released: Those that became PENDING again, without using up an attempt.
    """

    rows: int = 0
    claimed: int = 0
    succeeded: int = 0
    unchanged: int = 0
    failed: int = 0
    released: int = 0

    def __add__(self, other: "DrainCounts") -> "DrainCounts":
        names = [one.name for one in fields(DrainCounts)]
        return DrainCounts(**{name: getattr(self, name) + getattr(other, name) for name in names})


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
        pending_after: Requests that still wait at the end; None until they are counted.
        unavailable: Why the broker's data could not be read; None when it could.
        error: The error that ended it after its first batch; None without one.
    """

    batches: tuple[BatchReport, ...]
    rescued: int
    duration_s: float
    exhausted: bool
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
