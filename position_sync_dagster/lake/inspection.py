"""Queries for the checks of the tables, each bounded by a time or by the open holdings."""

from datetime import datetime

import polars as pl
from deltalake import DeltaTable

from position_sync_dagster.lake.lake import Lake, broker_rows
from position_sync_dagster.lake.ledger_rows import rows_between
from position_sync_dagster.lake.schema.ids import id_prefix
from position_sync_dagster.lake.storage.lifecycle_table import in_bucket
from position_sync_dagster.lake.storage.table import may_have
from position_sync_dagster.settings import Settings

_JUDGED = [
    "request_id", "account", "conid", "symbol", "priority", "status", "reason", "created_at",
    "updated_at", "error_message",
]  # fmt: skip


def finished_requests(lake: Lake, status: str, since: datetime) -> pl.DataFrame:
    """Return the requests with a final status that were inserted since then."""
    first = id_prefix(since)
    chosen = in_bucket(status) & may_have("request_id", first)
    rows = lake.queue.sync.store.finished(chosen, _JUDGED)
    return rows.filter(pl.col("request_id") >= first)


def repeated_ids(lake: Lake, since: datetime, until: datetime) -> pl.DataFrame:
    """Return each `update_id` that the ledger has more than once in a span of time.

    Returns:
        The columns update_id, account, conid and rows (the number of rows with this id).
    """
    ledger = lake.updates

    def step(handle: DeltaTable) -> pl.DataFrame:
        rows = rows_between(ledger.table, handle, since, until)
        return (
            rows.group_by("update_id")
            .agg(pl.len().alias("rows"), pl.col("account", "conid").first())
            .filter(pl.col("rows") > 1)
            .select("update_id", "account", "conid", "rows")
            .collect()
        )

    return ledger.table.snapshot(step)


def held_at_the_broker(lake: Lake, login: Settings) -> pl.DataFrame:
    """Return the broker's newest row of each open holding of a login."""
    columns = [
        "account", "conid", "symbol", "multiplier", "position", "market_value", "received_at",
        "confirmed_at",
    ]  # fmt: skip
    rows = broker_rows(lake, login)
    return rows.select(columns).filter(pl.col("position") != 0)


def newest_values(lake: Lake, login: Settings) -> pl.DataFrame:
    """Return the newest row of the ledger of each open holding of a login."""
    rows = lake.updates.sync.latest()
    return rows.filter(pl.col("gateway_id") == login.gateway_id, pl.col("position") != 0)
