"""The recorder of a run, which writes a row for each step to the table `runs`.

The reports of the services and the metrics of the stream are here as well: plain numbers for a log,
the UI or a test.
"""

import logging
import socket
from collections import deque
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

from position_sync_dagster import run_slots
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.gateway_session import RunRecord, RunResult
from position_sync_dagster.errors import LakeError

if TYPE_CHECKING:
    from position_sync_dagster.lake.records import RunsTable
    from position_sync_dagster.lake.updates.append import AppendResult


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
class StreamReport(StreamCounts):
    """The counts, latencies and state of a stream in a span of time.

    Attributes:
        legs_streamed: Holdings valued by a line at the end of the span.
        tick_to_table_p50_s, tick_to_table_p95_s: From the arrival of a tick to the end of the
            commit that holds it or a newer value, in seconds; None without a tick.
        state: The session's state at the end (LIVE, BLIND, …).
        detail: The reason of that state, as text.
    """

    since: datetime
    until: datetime
    lines_in_use: int
    line_limit: int
    legs_streamed: int
    tick_to_table_p50_s: float | None = None
    tick_to_table_p95_s: float | None = None
    state: str
    detail: str | None = None


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


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshReport:
    """The result of one refresh of the queue from a broker snapshot.

    Attributes:
        connected: Whether it opened a connection of its own (no stream was alive).
        incomplete_accounts: Accounts whose download is not COMPLETE.
        reason: Why it did not connect; None when it did.
    """

    connected: bool
    accounts: int = 0
    positions: int = 0
    enqueued: int = 0
    queue_version: int | None = None
    incomplete_accounts: tuple[str, ...] = ()
    duration_s: float
    reason: str | None = None


logger = logging.getLogger(__name__)

STREAM_JOB = run_slots.STREAM_JOB
STREAM_STEP = "stream_legs"

RECORD_EVERY_S = 900.0
"""Seconds between two records of a stream that runs. After a kill, `position-sync audit verify`
reads the rest from its rows. Each record is one commit."""


class RunRecorder:
    """Records one step of one run.

    A record that cannot be written does not end the run. The failure is logged, and `position-sync
    audit verify --repair` rebuilds the record from the rows, which name the run.

    Args:
        run_id: None outside Dagster: then nothing is written.
        kept: Where records are kept, which the caller writes together; None writes each at once.

    Attributes:
        record: The record as it is now.

    Example:
        recorder = RunRecorder(lake.runs, run_id=run_id, job="drain_positions", step="drain")
        with recorder:
            recorder.note(rows=12)
    """

    def __init__(
        self,
        runs: "RunsTable",
        *,
        run_id: str | None,
        job: str | None,
        step: str,
        gateway_id: str | None = None,
        kept: list[RunRecord] | None = None,
    ) -> None:
        self._runs = runs
        self._kept = kept
        now = utc_now()
        self.record = RunRecord(
            run_id=run_id or "",
            step=step,
            job=job,
            result=RunResult.RUNNING,
            started_at=now,
            recorded_at=now,
            gateway_id=gateway_id,
            host=socket.gethostname(),
        )

    def note(self, **columns: Any) -> None:
        """Set columns of the record; they are written with the next record."""
        self.record = replace(self.record, **columns)

    def count(self, **columns: Any) -> None:
        """Set columns as `note` does, but add counts to those of the step so far."""
        self.note(**{n: added(n, getattr(self.record, n), v) for n, v in columns.items()})

    def write(self) -> None:
        """Write the record as it is now; without a run there is nothing to record."""
        if not self.record.run_id:
            return
        # The newest record counts, also after the clock was set back.
        later = self.record.recorded_at + timedelta(microseconds=1)
        self.record = replace(self.record, recorded_at=max(utc_now(), later))
        if self._kept is not None:
            self._kept.append(self.record)
        else:
            write_records(self._runs, [self.record])

    def end(self, result: RunResult, reason: str | None = None) -> None:
        """Write the last record of the step."""
        self.note(result=result, reason=reason or self.record.reason, ended_at=utc_now())
        self.write()

    def __enter__(self) -> Self:
        """Begin a block whose end is recorded, unless the process is killed."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        """Record the end of the block."""
        if error is None:
            self.end(RunResult.SUCCESS)
            return
        failed = isinstance(error, Exception)
        reason = str(error) or type(error).__name__
        self.end(RunResult.FAILED if failed else RunResult.STOPPED, reason)


def write_records(runs: "RunsTable", records: list[RunRecord]) -> None:
    """Write records in one commit; a failure is logged, and the run goes on."""
    try:
        runs.record(records)
    except LakeError as error:
        logger.warning(
            "run %s is not recorded in %s; `position-sync audit verify --repair` rebuilds it "
            "from its rows: %s",
            records[0].run_id,
            runs.table.path,
            error,
        )


def stream_columns(total: StreamReport) -> dict[str, Any]:
    """Return the columns of `runs` for a stream's totals."""
    names = ["enqueued", *(field.name for field in fields(LedgerCounts))]
    counts = {name: getattr(total, name) for name in names}
    return {"table_name": "position_updates", "reason": total.detail} | counts


MAX_LATENCIES = 10_000
"""Maximum number of tick-to-table times kept between two reports; the newest stay."""


@dataclass(slots=True)
class StreamMetrics:
    """Counters since the last report.

    Attributes:
        counts: The counts; add to them.
        latencies_s: From the arrival of a tick to the end of its delivery, in seconds.
    """

    counts: StreamCounts = field(default_factory=StreamCounts)
    latencies_s: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_LATENCIES))

    def take(self) -> "StreamMetrics":
        """Return the metrics so far, and reset them."""
        taken = StreamMetrics(self.counts, self.latencies_s.copy())
        self.counts = StreamCounts()
        self.latencies_s.clear()
        return taken

    def take_queued(self) -> "StreamMetrics":
        """Return only the counts of the queue so far, and reset these."""
        counts = self.counts
        self.counts = replace(counts, enqueued=0, queue_version=None)
        return StreamMetrics(
            StreamCounts(enqueued=counts.enqueued, queue_version=counts.queue_version)
        )

    def add(self, later: "StreamMetrics") -> None:
        """Add the metrics of a later span."""
        self.counts += later.counts
        self.latencies_s.extend(later.latencies_s)


def quantile(ordered: list[float], share: float) -> float | None:
    """Return the value below which `share` of the ordered values lie; None if there are none.

    >>> quantile([1.0, 2.0, 3.0, 4.0], 0.5)
    3.0
    """
    if not ordered:
        return None
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
