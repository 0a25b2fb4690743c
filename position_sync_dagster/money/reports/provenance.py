"""Rows of the ledger by where they come from: a batch, a request, a holding."""

from datetime import date, datetime

from polars import DataFrame, col

from position_sync_dagster.domain.clock import A_DAY, FOREVER, NEVER
from position_sync_dagster.domain.queue_request import QueuedPosition
from position_sync_dagster.lake.ledger_rows import BY_TIME
from position_sync_dagster.lake.schema import moment
from position_sync_dagster.lake.storage.data_files import may_have
from position_sync_dagster.lake.storage.table import Table


def rows_with_id(ledger: Table, id_: str) -> DataFrame:
    """Return the row with this id, or the rows of the batch with it, in order of time."""
    has_id = (col.update_id == id_) | (col.batch_id == id_)
    may_have_row = may_have("update_id", id_, id_)
    may_have_batch = may_have("batch_id", id_, id_)
    return ledger.rows(has_id, may_have_row | may_have_batch).sort(BY_TIME)


def rows_of_request(ledger: Table, request: QueuedPosition) -> DataFrame:
    """Return the rows that were written for a request, and the older one that answers it.

    Searched are the files of the request's days, and those that may have its answer.
    """
    answer = request.update_id or request.request_id
    is_of_request = col.request_id == request.request_id
    is_answer = col.update_id == answer

    first = (request.created_at - A_DAY).date()
    last = (request.updated_at + A_DAY).date()
    is_of_days = col("partition.date").is_between(first, last)
    may_have_answer = may_have("update_id", answer, answer)
    return ledger.rows(is_of_request | is_answer, is_of_days | may_have_answer).sort(BY_TIME)


def rows_of_holding(
    ledger: Table,
    account: str,
    conid: int,
    *,
    day: date | None = None,
    since: datetime = NEVER,
    until: datetime = FOREVER,
    limit: int,
) -> tuple[DataFrame, bool]:
    """Return the newest rows of a holding in order of time, and whether there are more.

    Args:
        ledger: The table.
        account: The account.
        conid: The contract.
        day: Only rows of this UTC date; None: of any.
        since: Only rows from this moment on.
        until: Only rows up to this moment.
        limit: Maximum number of rows.
    """
    is_of_holding = (col.account == account) & (col.conid == conid)
    is_of_time = col.timestamp.is_between(moment(since), moment(until))
    on_days = col("partition.date") >= since.date()
    if day is not None:
        on_days = col("partition.date") == day

    rows = ledger.rows(is_of_holding & is_of_time, on_days).sort(BY_TIME)
    return rows.tail(limit), rows.height > limit
