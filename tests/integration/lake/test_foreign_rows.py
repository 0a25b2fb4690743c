"""Rows that another program wrote into the queue: they cost nobody else.

One loop over the columns: each row has an extreme value in one column, and is a good row besides.
"""

from datetime import date, timedelta

import polars as pl
import pytest
from deltalake import write_deltalake

from position_sync_dagster.domain.queue_request import QueueRequest, QueueStatus
from position_sync_dagster.lake import schema
from position_sync_dagster.lake.position_queue import PositionQueue
from position_sync_dagster.lake.storage.table import Table

LONG = (None, -(2**63), -1, 0, 2**40, 2**63 - 1)
TIMES = (date.min, date(1899, 12, 31), date(9999, 12, 31))
MICROSECONDS = [(day - date(1970, 1, 1)).days * 86_400_000_000 for day in TIMES]

# The extreme values of a column, by its type in Delta. Python holds no time of the years 0 and
# 292,277 and no day of the year 5,879,611, so times and days are given as numbers.
EXTREMES = {
    "string": (None, "", " ", "\0", "ODD", "unattributed", "1e400", "'); --", "\N{SNOWMAN}" * 5000),
    "long": LONG,
    "double": (None, float("nan"), float("inf"), -float("inf"), 1.797e308, 5e-324, -0.0),
    "timestamp": (None, -(2**63) + 1, 2**63 - 1, *MICROSECONDS),
    "date": (None, -(2**31), 2**31 - 1, *((day - date(1970, 1, 1)).days for day in TIMES)),
    "boolean": (None, True, False),
}
PARTITIONS = {"bucket", "part", "date"}
AS_NUMBER = {"timestamp": pl.Int64, "date": pl.Int32}


def extreme_rows(good: pl.DataFrame, column: str, spec: schema.TableSpec) -> pl.DataFrame:
    """Return copies of one row, each with another extreme value in a column."""
    kind = spec.columns[column]
    values = pl.Series(column, EXTREMES[kind], AS_NUMBER.get(kind) or spec.polars[column])
    copies = pl.concat([good] * len(values))
    return copies.with_columns(values.cast(spec.polars[column]))


def numbered(rows: pl.DataFrame, column: str, first: int, **ids: str) -> pl.DataFrame:
    """Return rows with ids and conids of their own, apart from a column."""
    numbers = pl.int_range(first, first + rows.height, dtype=pl.Int64)
    own = {"conid": numbers} | {name: pl.format(text, numbers) for name, text in ids.items()}
    return rows.with_columns(value.alias(name) for name, value in own.items() if name != column)


def write(table: Table, rows: pl.DataFrame) -> None:
    write_deltalake(table.path, rows.to_arrow(), mode="append")


QUEUE = schema.POSITION_QUEUE


@pytest.mark.parametrize("column", [name for name in QUEUE.columns if name not in PARTITIONS])
@pytest.mark.parametrize("status", [QueueStatus.PENDING, QueueStatus.PROCESSING])
def test_a_row_that_cannot_be_read_is_failed_with_its_reason_and_the_others_go_on(
    lake, clock, column, status
):
    queue = lake.queue.sync
    ids = queue.insert_many([QueueRequest(conid, "SPY") for conid in range(1, 6)])
    taken = {} if status is QueueStatus.PENDING else {"lease_owner": "other", "lease_token": "t"}
    good = (
        queue.store.snapshot()
        .live.head(1)
        .with_columns(
            pl.lit(status.value).alias("status"),
            *(pl.lit(value).alias(name) for name, value in taken.items()),
            lease_expires_at=schema.moment(clock.now - timedelta(seconds=1) if taken else None),
        )
    )
    rows = numbered(extreme_rows(good, column, QUEUE), column, 100, request_id="foreign-{}")
    write(lake.queue.table, rows)

    opened = PositionQueue(lake.queue.table.path, clock=clock).sync
    opened.rescue()
    claimed = opened.claim_batch(50)
    opened.mark_success([one.request_id for one in claimed])
    assert set(ids) <= {one.request_id for one in claimed}
    opened.overview()
    assert opened.store.snapshot().live.filter(~_is_follow_up(column)).is_empty()

    failed = opened.get_batch(None, 100, QueueStatus.FAILED)
    assert all(f"{column} is" in one.error_message or "lease" in column for one in failed)
    followed = opened.counts()[QueueStatus.PENDING]
    assert len(claimed) + len(failed) == 5 + rows.height
    opened.retry([one.request_id for one in failed])
    again = opened.claim_batch(50)
    assert len(again) == len({(one.account, one.conid) for one in failed}) + followed


def _is_follow_up(column: str) -> pl.Expr:
    return (pl.col("reason") == "CHANGED") if column == "changed_at" else pl.lit(value=False)
