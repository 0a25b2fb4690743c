"""Reads of requests by status and by id, live and finished ones."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol, TypeVar

import polars as pl

from position_sync_dagster.domain.request import QueuedPosition, QueueStatus
from position_sync_dagster.errors import RequestStateError, UnknownRequestError
from position_sync_dagster.lake.queue.transitions import FAILED, IS_REQUEST, claim_order
from position_sync_dagster.lake.schema.codec import requests_of
from position_sync_dagster.lake.schema.ids import id_literals, id_prefix, is_id
from position_sync_dagster.lake.schema.lifecycle_partitions import PartRange, in_bucket, ranges_of
from position_sync_dagster.lake.storage.lifecycle_table import Change, CountedSnapshot, Snapshot

T = TypeVar("T")


class QueueStore(Protocol):
    """The rows of a queue; a `LifecycleTable` is one."""

    def initialize(self) -> None:
        """Create the store, or check the one that is there."""

    def change(self, step: Callable[[Snapshot], Change[T]], commit_info: Mapping[str, str]) -> T:
        """Run a step on the live rows and commit its decision, all or nothing."""

    def snapshot(self) -> Snapshot:
        """Read the live rows."""

    def finished(self, predicate: str, columns: list[str] | None = None) -> pl.DataFrame:
        """Read finished rows."""

    def counted_snapshot(self) -> CountedSnapshot:
        """Read the live rows and count the finished ones by bucket."""


def read_batch(
    store: QueueStore,
    status: QueueStatus,
    priority: int | None,
    limit: int,
    *,
    now: datetime,
    promote_after_s: float,
) -> list[QueuedPosition]:
    """Read requests: live ones in claim order, finished ones newest first."""
    wanted = pl.col("status") == status.value
    if priority is not None:
        wanted &= pl.col("priority") == priority
    if status in (QueueStatus.PENDING, QueueStatus.PROCESSING):
        order = claim_order(now, promote_after_s)
        return requests_of(
            store.snapshot().live.filter(wanted & IS_REQUEST).sort(order).head(limit)
        )
    bucket = in_bucket(status.value)
    keys = store.finished(bucket, ["request_id", "updated_at", "priority", "status"])
    newest = keys.filter(wanted).top_k(limit, by="updated_at").get_column("request_id")
    rows = store.snapshot().finished_with("request_id", newest, bucket)
    known = rows.filter(IS_REQUEST)
    return requests_of(known.sort("updated_at", "request_id", descending=True))


def read_confirmations(store: QueueStore, since: datetime, until: datetime) -> pl.DataFrame:
    """Read `update_id` and `confirmed_at` of requests inserted and answered in a span of time.

    The ids of requests sort by insertion time, so few files are read.
    """
    found = store.finished(
        f"{in_bucket(QueueStatus.SUCCESS.value)} AND request_id >= '{id_prefix(since)}'",
        ["update_id", "confirmed_at", "updated_at"],
    )
    answered = found.filter(pl.col("updated_at") <= until.astimezone(UTC))
    return answered.select("update_id", "confirmed_at").drop_nulls()


def failed_rows(
    snapshot: Snapshot, ids: Sequence[str]
) -> tuple[pl.DataFrame, pl.DataFrame, tuple[PartRange, ...]]:
    """Read FAILED requests, and all rows of the parts in which they are stored.

    Returns:
        The rows of the requests in the order of their ids, the rows of the parts, and the parts.

    Raises:
        UnknownRequestError: An id is not in the queue.
        RequestStateError: A request is not FAILED.
    """
    statuses = statuses_of(snapshot, ids)
    others = {request_id: status for request_id, status in statuses.items() if status != FAILED}
    if others:
        raise wrong_state(others, "only a FAILED request is retried")
    found = snapshot.finished_with("request_id", ids, in_bucket(FAILED))
    order = pl.DataFrame({"request_id": ids}, schema={"request_id": pl.String})
    ordered = order.join(found, on="request_id", how="left", maintain_order="left")
    parts = ranges_of(FAILED, found.get_column("part"))
    siblings = snapshot.finished(f"({' OR '.join(one.predicate for one in parts)})")
    return ordered.select(found.columns), siblings, parts


def statuses_of(snapshot: Snapshot, ids: Sequence[str]) -> dict[str, str]:
    """Return the status of each request, live or finished.

    Raises:
        UnknownRequestError: An id is not in the queue.
    """
    unknown = [i for i in ids if not is_id(i)]
    live = snapshot.live.filter(pl.col("request_id").is_in(ids))
    found = dict(live.select("request_id", "status").iter_rows())
    absent = [i for i in ids if i not in found and is_id(i)]
    if absent:
        finished = snapshot.finished_with("request_id", absent, columns=["request_id", "status"])
        found |= dict(finished.iter_rows())
    unknown += [i for i in absent if i not in found]
    if unknown:
        raise UnknownRequestError(
            f"The request {unknown[0][:80]!r} is not in the queue"
            + (f", nor are {len(unknown) - 1} others." if len(unknown) > 1 else "."),
            remedy="Use ids that `insert` or `claim_batch` returned.",
        )
    return found


def beginning_with(store: QueueStore, prefix: str) -> list[QueuedPosition]:
    """Read the live and finished requests whose id begins with a prefix."""
    if not is_id(prefix):
        return []
    live = store.snapshot().live.filter(pl.col("request_id").str.starts_with(prefix))
    end = prefix + "\N{TILDE}"  # sorts after every character of an id
    finished = store.finished(f"request_id >= {id_literals([prefix])} AND request_id <= '{end}'")
    found = pl.concat([live, finished.select(live.columns)])
    found = found.filter(IS_REQUEST)
    return requests_of(found.unique("request_id", keep="first", maintain_order=True))


def wrong_state(statuses: Mapping[str, str], why: str) -> RequestStateError:
    """Return the error of a request whose status does not allow a step."""
    request_id, status = next(iter(statuses.items()))
    return RequestStateError(
        f"The request {request_id} is {status}.", remedy=f"Leave it as it is: {why}."
    )
