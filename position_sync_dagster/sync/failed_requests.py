"""The requests that failed for good lately, and whether their holding has had a value since."""

from datetime import datetime, timedelta

import polars as pl
from polars import DataFrame, col, concat, lit

from position_sync_dagster.domain.holding import KEY, Completeness
from position_sync_dagster.domain.queue_request import NOT_HELD, QueueStatus
from position_sync_dagster.lake.lake import Lake, all_broker_rows
from position_sync_dagster.lake.schema import id_prefix
from position_sync_dagster.lake.storage.data_files import in_bucket, may_have
from position_sync_dagster.settings import Settings

# Maximum age of a failure that counts; `position-sync queue list --status FAILED` has older ones.
LOOK_BACK = timedelta(days=1)

# A holding whose values can be read is requested again far more often than this.
ANSWERED_WITHIN = timedelta(hours=1)

REQUEST_COLUMNS = ["request_id", *KEY, "symbol", "status", "error_message"]


def read_failed(lake: Lake, settings: Settings, now: datetime) -> DataFrame:
    """Return the requests of the last day that are FAILED and whose holding has no value since.

    In the column `never_held` it is true that there is no such holding: neither ledger nor broker
    has it, and the broker's list is complete, or was so when the request failed.

    Raises:
        LakeError: A table cannot be used.
    """
    failed = _finished(lake, QueueStatus.FAILED, now - LOOK_BACK)
    if failed.is_empty():  # as nearly always: no holding is read for it
        return failed.with_columns(never_held=lit(value=False))

    # A closed holding needs no value: its time is now. One that the broker alone has waits for its
    # first: its time is before each failure.
    valued_at = pl.when(col.position == 0).then(now).otherwise("timestamp")
    valued = lake.updates.sync.latest().select(*KEY, at=valued_at)
    reported = all_broker_rows(lake, settings)
    holdings = concat([valued, reported.select(*KEY, at=lit(now - 2 * LOOK_BACK))])
    # A request without an account is one for the holding in any of them.
    any_account = holdings.with_columns(account=lit(None, pl.String))
    lasting = _without_later(failed, concat([holdings, any_account]))

    is_complete = reported["completeness"].unique().to_list() == [Completeness.COMPLETE]
    was_complete = col.error_message.eq_missing(NOT_HELD)  # which only a complete list shows
    lasting = lasting.select(
        *REQUEST_COLUMNS,
        "created_at",
        "updated_at",
        never_held=col.at.is_null() & (was_complete | is_complete),
    )
    if lasting["never_held"].all():
        return lasting  # no request for what is not held succeeds

    # A later SUCCESS is a value too: an unchanged row answers it. It is in many small files, and is
    # looked for last, in the last hour alone: by then a holding with values has a new one.
    done = _finished(lake, QueueStatus.SUCCESS, now - ANSWERED_WITHIN)
    return _without_later(lasting, done.select(*KEY, at="updated_at"))


def _without_later(requests: DataFrame, times: DataFrame) -> DataFrame:
    """Return the requests whose holding has no later time, with its newest time, if any (`at`)."""
    newest = times.group_by(KEY).agg(col.at.max())
    return requests.join(newest, on=KEY, how="left", nulls_equal=True).remove(
        col.at >= col.updated_at
    )


def _finished(lake: Lake, status: QueueStatus, since: datetime) -> DataFrame:
    """Return the requests with a final status that were inserted since then.

    Their ids begin with the time of their insertion, so that old data files are left unread. The
    bucket of a data file is the final status of its requests.
    """
    first = id_prefix(since)
    chosen = in_bucket(status) & may_have("request_id", first)
    return lake.queue.sync.store.finished(
        chosen, [*REQUEST_COLUMNS, "created_at", "updated_at"], col.request_id >= first
    )
