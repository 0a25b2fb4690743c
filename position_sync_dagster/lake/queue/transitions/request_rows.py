"""Rows of requests: which may be claimed, whose lease has expired, and how they become PENDING."""

from collections.abc import Collection, Iterable
from datetime import datetime

import polars as pl

from position_sync_dagster.domain.clock import SKEW
from position_sync_dagster.domain.request import QueueStatus, Reason
from position_sync_dagster.lake.schema.codec import moment

PENDING, PROCESSING = QueueStatus.PENDING.value, QueueStatus.PROCESSING.value
SUCCESS, FAILED = QueueStatus.SUCCESS.value, QueueStatus.FAILED.value


_NEEDED = ("request_id", "conid", "symbol", "priority", "created_at", "updated_at")
_REASONS = [reason.value for reason in Reason]
_STATUSES = [status.value for status in QueueStatus]


def is_request() -> pl.Expr:
    """Return which rows are requests, as this program writes them.

    Other Delta writers may have left rows without an id, a conid or a known status: these are
    neither claimed nor counted, and stay as they are.
    """
    known = pl.col("reason").is_in(_REASONS) & pl.col("status").is_in(_STATUSES)
    return pl.all_horizontal(pl.col(*_NEEDED).is_not_null(), known.fill_null(value=False))


def is_claimable(now: datetime, except_accounts: Collection[str] = ()) -> pl.Expr:
    """Return which rows are requests that may be claimed: PENDING, and no back-off is left.

    Args:
        now: The time.
        except_accounts: Requests that name one of these accounts may not be claimed.
    """
    waited = pl.col("available_at").is_null() | (pl.col("available_at") <= moment(now))
    found = (pl.col("status") == PENDING) & (waited | is_in_future("updated_at", now))
    return found & is_request() & is_of_others(except_accounts)


def lease_has_expired(now: datetime, except_accounts: Collection[str] = ()) -> pl.Expr:
    """Return which requests are PROCESSING under a lease that has expired; see `is_claimable`."""
    expired = pl.col("lease_expires_at") <= moment(now)
    found = (pl.col("status") == PROCESSING) & (expired | is_in_future("updated_at", now))
    return found & is_request() & is_of_others(except_accounts)


def is_of_others(accounts: Collection[str]) -> pl.Expr:
    """Return which requests name none of some accounts."""
    if not accounts:
        return pl.lit(value=True)
    return ~pl.col("account").is_in(sorted(accounts)).fill_null(value=False)


def is_in_future(column: str, now: datetime) -> pl.Expr:
    """Return which rows have a time that only a wrong clock can have written."""
    return pl.col(column) > moment(now + SKEW)


def has_id(rows: pl.DataFrame, ids: Iterable[str]) -> pl.Series:
    """Return which rows have one of the ids."""
    return rows.get_column("request_id").is_in(list(ids)).fill_null(value=False)


def without_lease(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows without owner, token and end of a lease."""
    return rows.with_columns(
        lease_owner=pl.lit(None, pl.String),
        lease_token=pl.lit(None, pl.String),
        lease_expires_at=moment(None),
    )


def as_pending(rows: pl.DataFrame, now: datetime) -> pl.DataFrame:
    """Return the rows as PENDING: without a lease, and claimable at once."""
    return without_lease(rows).with_columns(
        status=pl.lit(PENDING), updated_at=moment(now), available_at=moment(None)
    )
