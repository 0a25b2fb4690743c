"""New requests: at most one live request for each position."""

from collections.abc import Sequence
from datetime import datetime

import polars as pl

from position_sync_dagster.domain.request import QueueRequest, Reason
from position_sync_dagster.lake.queue.transitions.request_rows import PROCESSING, has_id
from position_sync_dagster.lake.schema.codec import moment, new_request_rows
from position_sync_dagster.lake.schema.ids import NewIds
from position_sync_dagster.lake.storage.lifecycle_table import Change


def insert(
    live: pl.DataFrame, requests: Sequence[QueueRequest], *, now: datetime, new_ids: NewIds
) -> Change[list[str]]:
    """Add requests, at most one live request per (account, conid).

    When a position has a live request already, that request's id is the result, and its priority
    is raised if the new one is higher. A request with the reason CHANGED for a position that is
    PROCESSING sets `available_at` of the live request. Its end then inserts a new request, since
    the value in progress may be the old one.

    Returns:
        For each request, in order, the id of the live request of its position.
    """
    known = {
        (account, conid): (request_id, priority, status)
        for account, conid, request_id, priority, status in live.select(
            "account", "conid", "request_id", "priority", "status"
        ).iter_rows()
    }
    fresh: dict[tuple[str | None, int], QueueRequest] = {}
    raised: dict[str, int] = {}
    changed: set[str] = set()
    for request in requests:
        key = (request.account, request.conid)
        if key in known:
            request_id, priority, status = known[key]
            if request.priority < raised.get(request_id, priority):
                raised[request_id] = request.priority
            if status == PROCESSING and request.reason is Reason.CHANGED:
                changed.add(request_id)
        elif key not in fresh or request.priority < fresh[key].priority:
            fresh[key] = request
    ids = dict(zip(fresh, new_ids(now, len(fresh)), strict=True))
    result = [
        known[k][0] if k in known else ids[k] for k in ((r.account, r.conid) for r in requests)
    ]
    if not (fresh or raised or changed):
        return Change(result)
    added = new_request_rows(ids.values(), fresh.values(), now)
    if not (raised or changed):
        return Change(result, pl.concat([live, added], how="diagonal"), unchanged=live.height)
    marked = has_id(live, {*raised, *changed})
    others = live.filter(~marked)
    is_changed = pl.col("request_id").is_in(list(changed))
    touched = live.filter(marked).with_columns(
        priority=pl.col("request_id").replace_strict(
            raised, default=pl.col("priority"), return_dtype=pl.Int64
        ),
        available_at=pl.when(is_changed).then(moment(now)).otherwise("available_at"),
    )
    after = pl.concat([others, touched, added], how="diagonal")
    return Change(result, after, unchanged=others.height)
