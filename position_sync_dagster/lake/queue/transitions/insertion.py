"""New requests: at most one live request for each position."""

from collections.abc import Sequence
from datetime import datetime

import polars as pl

from position_sync_dagster.domain.request import QueueRequest, Reason
from position_sync_dagster.lake.queue.transitions.request_rows import (
    PROCESSING,
    has_id,
    is_request,
)
from position_sync_dagster.lake.schema.codec import moment, new_request_rows, request_rows
from position_sync_dagster.lake.schema.ids import NewIds
from position_sync_dagster.lake.storage.lifecycle_table import Change

POSITION = ["account", "conid"]
"""The columns that name a position; the account may be null."""


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
    now_live = (
        live.filter(is_request())
        .select(*POSITION, "request_id", "status", _before="priority")
        .unique(POSITION, keep="last", maintain_order=True)
    )
    asked = request_rows(requests).join(
        now_live, on=POSITION, how="left", nulls_equal=True, maintain_order="left"
    )
    is_new = pl.col("request_id").is_null()
    first_urgent = pl.all().get(pl.col("priority").arg_min())
    fresh = asked.filter(is_new).group_by(POSITION, maintain_order=True).agg(first_urgent)
    added = new_request_rows(new_ids(now, fresh.height), fresh, now)
    is_raised = pl.col("priority") < pl.col("_before")
    is_changed = (pl.col("status") == PROCESSING) & (pl.col("reason") == Reason.CHANGED.value)
    again = (
        asked.filter(~is_new)
        .group_by("request_id")
        .agg(_raised=pl.col("priority").filter(is_raised).min(), _changed=is_changed.any())
        .filter(pl.col("_raised").is_not_null() | "_changed")
    )
    result = asked.get_column("request_id")
    if not added.is_empty():
        ids = asked.select(POSITION).join(
            added, on=POSITION, how="left", nulls_equal=True, maintain_order="left"
        )
        result = result.fill_null(ids.get_column("request_id"))
    answer = result.to_list()
    if added.is_empty() and again.is_empty():
        return Change(answer)
    if again.is_empty():
        return Change(answer, pl.concat([live, added], how="diagonal"), unchanged=live.height)
    marked = has_id(live, again.get_column("request_id"))
    others = live.filter(~marked)
    touched = (
        live.filter(marked)
        .join(again, on="request_id", how="left", maintain_order="left")
        .with_columns(
            priority=pl.coalesce("_raised", "priority"),
            available_at=pl.when("_changed").then(moment(now)).otherwise("available_at"),
        )
        .drop("_raised", "_changed")
    )
    after = pl.concat([others, touched, added], how="diagonal")
    return Change(answer, after, unchanged=others.height)
