"""Metrics of the stream between two reports: counts and tick-to-table times."""

from collections import deque
from dataclasses import dataclass, field, replace

from position_sync_dagster.sync.run_recorder import StreamCounts

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

    def committed(self, rows: int, version: int, batch_id: str) -> None:
        """Count one commit of streamed rows."""
        self.counts += StreamCounts(
            rows=rows,
            commits=1,
            version_from=version - 1,
            version_to=version,
            first_batch_id=batch_id,
            last_batch_id=batch_id,
        )

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
