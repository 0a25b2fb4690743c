"""`/api/v1/leg`: a leg, its values over the day with where each came from, and its events."""

from datetime import datetime
from typing import Any

import polars as pl
from pydantic import Field

from position_sync_dagster.errors import UnknownIdError
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.ledger_rows import LedgerProvenance
from position_sync_dagster.sync.reports.book import COLUMNS
from position_sync_dagster.sync.reports.figures import Figures
from position_sync_dagster.web.api_answers import ApiModel, ListedChange, Position

# The most values of a day that are returned, the newest.
MOST_VALUES = 1000

# What is shown of a row of the ledger.
_OF_ROW = (
    "timestamp", "value_time", "position", "market_price", "market_value", "daily_pnl",
    "unrealized_pnl", "delta", "source", "value_source", "note", "update_id", "batch_id",
    "request_id", "run_id",
)  # fmt: skip


class LegQuery(ApiModel):
    """Which leg."""

    account: str = Field(max_length=100)
    conid: int = Field(ge=0)


class LegValue(ApiModel):
    """A row of the ledger."""

    timestamp: datetime
    value_time: datetime | None
    """The time of the value at its source."""
    position: float
    market_price: float | None
    market_value: float | None
    daily_pnl: float | None
    unrealized_pnl: float | None
    delta: float | None
    source: str
    """STREAM or QUEUE: which path wrote it."""
    value_source: str | None
    note: str | None
    update_id: str
    """`position-sync trace` finds by it, and by the next three, all that belongs to the row."""
    batch_id: str | None
    request_id: str | None
    run_id: str | None


class LegAnswer(ApiModel):
    """A leg at a moment, with its values since the day began."""

    at: datetime
    position: Position | None
    """Null: it is not held."""
    values: list[LegValue]
    """Of today, the oldest first."""
    more: bool
    """Whether today has older values."""
    changes: list[ListedChange]
    """What happened to it today, the newest first."""


def read_leg(lake: Lake, figures: Figures, query: LegQuery) -> dict[str, Any]:
    """Return a leg with its values of today; blocks.

    Raises:
        UnknownIdError: It is not held, and has no value of today.
        LakeError: A table cannot be used.
    """
    is_leg = (pl.col("account") == query.account) & (pl.col("conid") == query.conid)
    held = figures.positions.filter(is_leg).select(COLUMNS).to_dicts()
    ledger = LedgerProvenance(lake.updates.table)
    rows, more = ledger.of_holding(
        query.account, query.conid, since=figures.day.since, limit=MOST_VALUES
    )
    if not held and rows.is_empty():
        raise UnknownIdError(
            f"{query.account[:40]}:{query.conid} is not held, and has no value of today.",
            remedy="`position-sync positions --closed` lists accounts and conids.",
        )

    changes = []
    for change in figures.changes:
        if _is_of(change.account, query.account) and query.conid in change.conids:
            changes.append(change)

    return {
        "at": figures.at,
        "position": held[0] if held else None,
        "values": rows.select(_OF_ROW).to_dicts(),
        "more": more,
        "changes": changes,
    }


def _is_of(account: str | None, wanted: str) -> bool:
    """Return whether a change without an account, or of this one, concerns it."""
    return account in (None, wanted)
