"""Rows that another program wrote without what each row needs: left out, kept, and no obstacle."""

from dataclasses import replace
from datetime import datetime

import polars as pl
import pytest
from deltalake import write_deltalake
from polars.testing import assert_frame_equal

from position_sync_dagster.domain.queue_request import QueueStatus
from position_sync_dagster.lake import schema
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.storage.table import Table
from tests.support.queues import requests_of


def odd_rows(good: pl.DataFrame, spec: schema.TableSpec) -> pl.DataFrame:
    """Return copies of a row, each without one of the values that it needs; Delta refuses a key."""
    kinds = spec.polars
    refused = [field.name for field in spec.delta.fields if not field.nullable]
    without = [
        good.with_columns(pl.lit(None, kinds[name]).alias(name))
        for name in spec.required
        if name not in refused
    ]
    unknown = [
        good.with_columns(pl.lit("ODD").alias(name))
        for name in spec.required
        if spec.described[name].choices
    ]
    return pl.concat([*without, *unknown])


def write(table: Table, rows: pl.DataFrame) -> None:
    write_deltalake(table.path, rows.to_arrow(), mode="append")


def stored(table: Table) -> pl.DataFrame:
    return table.read(lambda files: table.scan_stored(files).collect())


def test_a_row_that_is_no_request_stops_nothing_and_stays_as_it_is(lake, caplog):
    queue = lake.queue.sync
    ids = queue.insert_many(requests_of(range(1, 6)))
    good = queue.store.snapshot().live.head(1)
    with_columns = good.with_columns(request_id=pl.lit("foreign"), conid=pl.lit(99, pl.Int64))
    odd = odd_rows(with_columns, schema.POSITION_QUEUE)
    write(lake.queue.table, odd)

    queue = Lake(lake.path).queue.sync
    assert queue.counts()[QueueStatus.PENDING] == 5
    assert queue.overview().claimable == 5
    claimed = [request.request_id for request in queue.claim_batch(50)]
    assert claimed == ids
    queue.mark_success(ids[0])
    queue.release([ids[1]])
    queue.mark_failed(ids[2], "for a test")
    queue.insert(6, "SPY")
    queue.rescue()
    assert queue.counts()[QueueStatus.PENDING] == 3

    rows = stored(lake.queue.table).filter(~schema.POSITION_QUEUE.readable)
    assert_frame_equal(rows, odd, check_row_order=False)
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said == [
        f"{odd.height} rows of {lake.queue.table.path} lack a value that they need, and are left "
        "out and kept: correct them where they were written"
    ]


@pytest.mark.in_store
@pytest.mark.parametrize("before", [1, 3])
def test_a_request_that_another_program_appends_inside_an_insert_stays(lake, before):
    queue = lake.queue.sync
    queue.insert_many(requests_of(range(1, 1 + before)))
    row = queue.store.snapshot().live.head(1)
    foreign = row.with_columns(request_id=pl.lit("foreign"), conid=pl.lit(99, pl.Int64))

    def append_and_make_ids(now: datetime, count: int) -> list[str]:
        """Append between the read and the commit of the insert, once."""
        if queue.new_ids is append_and_make_ids:
            queue.new_ids = schema.new_ids
            write(lake.queue.table, foreign)
        return schema.new_ids(now, count)

    queue.new_ids = append_and_make_ids
    queue.insert_many(requests_of(range(200, 220)))
    assert queue.new_ids is schema.new_ids
    queue.mark_success(queue.claim_batch(1)[0].request_id)
    queue.insert(300, "SPY")
    waiting = Lake(lake.path).queue.sync.get_batch(2, 50)
    assert "foreign" in {request.request_id for request in waiting}


def test_a_failed_row_that_is_no_request_stays_when_others_of_its_part_are_retried(lake):
    queue = lake.queue.sync
    ids = queue.insert_many(requests_of((1, 2)))
    queue.mark_failed_many(dict.fromkeys(ids, "for a test"), retryable=False)
    good = stored(lake.queue.table).filter(request_id=ids[1])
    odd = odd_rows(good.with_columns(request_id=pl.lit("foreign")), schema.POSITION_QUEUE)
    odd = odd.filter(pl.col("status") == "FAILED", pl.col("bucket") == "FAILED")
    write(lake.queue.table, odd)

    queue = Lake(lake.path).queue.sync
    assert queue.retry(ids[0]) == [ids[0]]
    kept = stored(lake.queue.table).filter(~schema.POSITION_QUEUE.readable)
    assert_frame_equal(kept.drop("part"), odd.drop("part"), check_row_order=False)


def test_a_row_that_is_no_leg_is_in_no_strategy_and_the_others_stay(lake):
    registry = lake.registry.sync
    for conid in (1, 2):
        registry.add_active(conid, "SPY", "C", 450.0, "20260220", strategy_id="ic")
    good = registry._memberships.snapshot().live.head(1)
    odd = odd_rows(good, schema.ACTIVE_STRATEGIES)
    write(lake.registry.table, odd)

    registry = Lake(lake.path).registry.sync
    registry.add_active(3, "SPY", "C", 450.0, "20260220", strategy_id="ic")
    registry.remove_active(1, "ic")
    assert [leg.conid for leg in registry.get_all_active()] == [2, 3]
    rows = stored(lake.registry.table).filter(~schema.ACTIVE_STRATEGIES.readable)
    assert_frame_equal(rows, odd, check_row_order=False)


def test_a_row_that_is_of_no_holding_is_not_read_and_the_others_are(lake, make_update, clock):
    ledger = lake.updates.sync
    ledger.append([make_update(conid) for conid in (1, 2)])
    odd = ledger.latest().head(1).with_columns(update_id=pl.lit("foreign"))
    write(lake.updates.table, odd_rows(odd, schema.POSITION_UPDATES))

    clock.advance(1)
    ledger = Lake(lake.path, clock=clock).updates.sync
    ledger.append([replace(make_update(2), market_value=7.0)])
    newest = {row.conid: row.market_value for row in ledger.latest_updates()}
    assert newest == {1: 150.0, 2: 7.0}
