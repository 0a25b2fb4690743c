"""The queue at one moment, in numbers."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from position_sync_dagster.domain.request import QueueStatus
from position_sync_dagster.lake.queue.transitions.request_rows import (
    PENDING,
    SUCCESS,
    is_claimable,
    is_request,
    lease_has_expired,
)
from position_sync_dagster.lake.storage.lifecycle_table import CountedSnapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueOverview:
    """The queue at one moment, for sensors and people.

    Attributes:
        counts: Requests by status.
        claimable: Pending requests that may be claimed now (no back-off left).
        oldest_pending_at: When the oldest pending request was inserted; None without any.
        by_priority: Pending requests by priority.
        expired: Requests in processing whose lease has expired.
        version: The version of the table that was read; 0 in memory.
        last_success_at: When a request last succeeded; None before the first.
    """

    counts: dict[QueueStatus, int]
    claimable: int
    oldest_pending_at: datetime | None
    by_priority: dict[int, int]
    expired: int
    version: int
    last_success_at: datetime | None = None


def overview_of(
    counted: CountedSnapshot, now: datetime, except_accounts: Collection[str] = ()
) -> QueueOverview:
    """Return the overview of one snapshot.

    Args:
        counted: The snapshot.
        now: The time.
        except_accounts: Requests of these accounts count as neither claimable nor expired.
    """
    live = counted.snapshot.live.filter(is_request())
    counts = dict.fromkeys(QueueStatus, 0)
    for status, number in live.group_by("status").len().iter_rows():
        counts[QueueStatus(status)] += number
    for bucket, number in counted.finished.items():
        if bucket in counts:
            counts[QueueStatus(bucket)] += number
    pending = live.filter(pl.col("status") == PENDING)
    oldest = pending.get_column("created_at").min()
    return QueueOverview(
        counts=counts,
        claimable=live.filter(is_claimable(now, except_accounts)).height,
        oldest_pending_at=oldest if isinstance(oldest, datetime) else None,
        by_priority=dict(pending.group_by("priority").len().sort("priority").iter_rows()),
        expired=live.filter(lease_has_expired(now, except_accounts)).height,
        version=counted.snapshot.version,
        last_success_at=counted.newest.get(SUCCESS),
    )
