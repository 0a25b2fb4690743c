"""Rows that another program wrote, with every extreme value of every column: they cost nobody else.

One loop over the columns of the queue, the registry and the ledger: each row has an extreme value
in one column, and is a good row besides.
"""

import json
from dataclasses import replace
from datetime import date, timedelta

import polars as pl
import pytest
from deltalake import write_deltalake

from position_sync_dagster.domain.queue_request import QueueRequest, QueueStatus
from position_sync_dagster.lake import schema
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.position_queue import PositionQueue
from position_sync_dagster.lake.storage.table import Table, compact, maintain
from position_sync_dagster.lake.strategy_registry import IS_LEG, StrategyRegistry

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


def rows_of_kind(good: pl.DataFrame, kind: str, spec: schema.TableSpec, **ids: str) -> pl.DataFrame:
    """Return the extreme rows of each column of a type; none is of a column that names a folder.

    Delta itself refuses null in a key.
    """
    frames = []
    for name, of_column in spec.columns.items():
        if of_column == kind and name not in PARTITIONS:
            first = 100 * (len(frames) + 1)
            frames.append(numbered(extreme_rows(good, name, spec), name, first, **ids))
    never_null = [field.name for field in spec.delta.fields if not field.nullable]
    return pl.concat(frames).drop_nulls(never_null)


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


REGISTRY = schema.ACTIVE_STRATEGIES


@pytest.mark.parametrize("kind", sorted({*REGISTRY.columns.values()}))
def test_a_row_that_is_no_leg_is_in_no_strategy_and_the_others_stay(lake, clock, kind):
    registry = lake.registry.sync
    registry.refresh()
    for conid in range(1, 5):
        registry.add_active(conid, "SPY", "C", 450.0, "20260220", strategy_id="ic")
    good = Lake(lake.path).registry.sync._memberships.snapshot().live.head(1)
    rows = rows_of_kind(good, kind, REGISTRY)
    write(lake.registry.table, rows)

    opened = StrategyRegistry(lake.registry.table.path, clock=clock).sync
    opened.refresh()
    assert {1, 2, 3, 4} <= {leg.conid for leg in opened.legs}
    read = len(opened.legs) + len(opened.unresolved)
    opened.add_active(5, "SPY", "C", 450.0, "20260220", strategy_id="ic")
    opened.remove_active(1, "ic")
    assert {2, 3, 4, 5} <= {leg.conid for leg in opened.get_all_active()}
    opened.history()

    unreadable = opened._memberships.snapshot().live.filter(~IS_LEG)
    assert unreadable.height == 4 + rows.height - read
    json.dumps([leg.quantity for leg in opened.legs], allow_nan=False)


LEDGER = schema.POSITION_UPDATES


@pytest.mark.parametrize("kind", sorted({*LEDGER.columns.values()}))
def test_a_value_that_no_program_can_use_is_unknown_and_the_others_are_shown(
    lake, make_update, clock, kind
):
    ledger = lake.updates.sync
    ledger.append([make_update(conid) for conid in (1, 2)])
    good = ledger.latest().head(1)
    rows = rows_of_kind(good, kind, LEDGER, update_id="foreign-{}")
    write(lake.updates.table, rows.filter(pl.col("update_id").is_not_null()))  # Delta refuses it
    compact(lake.updates.table, 2**20)

    clock.advance(1)
    opened = Lake(lake.path, clock=clock)
    now, updates = clock.now, opened.updates.sync
    added = updates.append(replace(make_update(conid), market_value=7.0) for conid in (2, 3))
    assert added.rows == 2
    maintain(opened.updates.table, clean_now=True)
    newest = {row.conid: row.market_value for row in updates.latest_updates()}
    assert {conid: newest[conid] for conid in (1, 2, 3)} == {1: 150.0, 2: 7.0, 3: 7.0}

    day = timedelta(days=1)
    for frame in (
        updates.latest(),
        updates.as_of(now),
        updates.between(now - day, now + day),
        updates.sampled([1, 2, 3], now - day, now, 5),
        updates.added_after(0),
    ):
        assert {1, 2, 3} <= {*frame["conid"]}
        json.dumps(frame.to_dicts(), default=str, allow_nan=False)
    follower = updates.follow("start")
    assert {1, 2, 3} <= {*follower.read().rows["conid"]} | {*_rows_of(follower.read())}


def _rows_of(found):
    return [] if found is None else found.rows["conid"]


def test_merging_files_leaves_rows_that_cannot_be_read_as_they_are(lake, make_update, clock):
    ledger = lake.updates.sync
    ledger.append([make_update(1)])
    odd = ledger.latest().with_columns(
        update_id=pl.lit("odd"), market_value=pl.lit(float("inf")), bid=pl.lit(float("nan"))
    )
    write(lake.updates.table, odd)
    for conid in range(2, 40):
        clock.advance(1)
        ledger.append([make_update(conid)])
    assert compact(lake.updates.table, 2**20)
    files = lake.updates.table.snapshot(lambda handle: handle.file_uris())
    stored = pl.read_parquet(files).filter(pl.col("update_id") == "odd")
    assert stored.select("market_value").item() == float("inf")
    assert stored.select(pl.col("bid").is_nan()).item()
