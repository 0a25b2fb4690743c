"""Counters of what the stream did between two reports."""

from collections import deque
from dataclasses import dataclass, field, fields, replace
from datetime import datetime

from position_sync_dagster.sync.run_recorder import StreamReport

MAX_LATENCIES = 10_000
"""So many tick-to-table times, the newest, are kept between two reports."""


@dataclass(slots=True)
class StreamMetrics:
    """Counters since the last report.

    Attributes:
        version_from, version_to: Delta versions of `position_updates` before the first and after
            the last commit.
        latencies_s: From the arrival of a tick to the end of its delivery, in seconds.
    """

    enqueued: int = 0
    queue_version: int | None = None
    reconnects: int = 0
    promotions: int = 0
    demotions: int = 0
    rows: int = 0
    commits: int = 0
    version_from: int | None = None
    version_to: int | None = None
    first_batch_id: str | None = None
    last_batch_id: str | None = None
    latencies_s: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_LATENCIES))

    def delivered(self, latency_s: float) -> None:
        """Count one tick that reached its table (or another handler)."""
        self.latencies_s.append(latency_s)

    def committed(self, rows: int, version: int, batch_id: str) -> None:
        """Count one commit of streamed rows."""
        self.rows += rows
        self.commits += 1
        self.version_from = version - 1 if self.version_from is None else self.version_from
        self.version_to = version
        self.first_batch_id = self.first_batch_id or batch_id
        self.last_batch_id = batch_id

    def queued(self, count: int, version: int | None) -> None:
        """Count requests put into the queue."""
        self.enqueued += count
        self.queue_version = version

    def report(
        self,
        *,
        since: datetime,
        until: datetime,
        lines_in_use: int,
        line_limit: int,
        legs_streamed: int,
        state: str,
        detail: str | None,
    ) -> StreamReport:
        """Return the counts as a report."""
        ordered = sorted(self.latencies_s)
        return StreamReport(
            since=since,
            until=until,
            rows=self.rows,
            commits=self.commits,
            version_from=self.version_from,
            version_to=self.version_to,
            first_batch_id=self.first_batch_id,
            last_batch_id=self.last_batch_id,
            enqueued=self.enqueued,
            queue_version=self.queue_version,
            lines_in_use=lines_in_use,
            line_limit=line_limit,
            legs_streamed=legs_streamed,
            reconnects=self.reconnects,
            promotions=self.promotions,
            demotions=self.demotions,
            tick_to_table_p50_s=quantile(ordered, 0.5),
            tick_to_table_p95_s=quantile(ordered, 0.95),
            state=state,
            detail=detail,
        )

    def take(self) -> "StreamMetrics":
        """Return the counts so far, and start again from zero."""
        taken = replace(self, latencies_s=self.latencies_s.copy())
        fresh = StreamMetrics()
        for item in fields(self):
            setattr(self, item.name, getattr(fresh, item.name))
        return taken

    def take_queued(self) -> "StreamMetrics":
        """Return only the counts of the queue so far, and start these again from zero."""
        taken = StreamMetrics(enqueued=self.enqueued, queue_version=self.queue_version)
        self.enqueued, self.queue_version = 0, None
        return taken

    def add(self, other: "StreamMetrics") -> None:
        """Add the counts of another span to these."""
        self.enqueued += other.enqueued
        self.queue_version = (
            other.queue_version if other.queue_version is not None else self.queue_version
        )
        self.reconnects += other.reconnects
        self.promotions += other.promotions
        self.demotions += other.demotions
        self.rows += other.rows
        self.commits += other.commits
        self.version_from = (
            self.version_from if self.version_from is not None else (other.version_from)
        )
        self.version_to = other.version_to if other.version_to is not None else self.version_to
        self.first_batch_id = self.first_batch_id or other.first_batch_id
        self.last_batch_id = other.last_batch_id or self.last_batch_id
        self.latencies_s.extend(other.latencies_s)


def quantile(ordered: list[float], share: float) -> float | None:
    """Return the value below which `share` of the ordered values lie; None if there are none.

    >>> quantile([1.0, 2.0, 3.0, 4.0], 0.5)
    3.0
    """
    if not ordered:
        return None
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
