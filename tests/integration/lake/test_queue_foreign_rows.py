"""Rows of the queue that another Delta writer left: nothing stops for them, and they stay."""

import polars as pl
import pytest
from deltalake import write_deltalake

from position_sync_dagster.domain.update import QueueStatus
from position_sync_dagster.lake.position_queue import PositionQueue
from tests.support.filled_queue import filled_queue

NULLS = (
    "request_id",
    "conid",
    "symbol",
    "priority",
    "status",
    "created_at",
    "updated_at",
    "reason",
)
ODD = [{name: None} for name in NULLS]
ODD += [dict.fromkeys(NULLS), {"status": "ODD"}, {"reason": "ODD"}]
ODD += [{"status": "PROCESSING", "reason": None}, {"status": "PROCESSING", "request_id": None}]


@pytest.mark.parametrize("change", ODD, ids=str)
def test_a_row_that_is_no_request_stops_nothing_and_stays(tmp_path, change) -> None:
    before = filled_queue(tmp_path / "q", 4).table
    kinds = before.spec.polars
    odd = before.rows().head(1).with_columns(conid=pl.lit(99, pl.Int64), account=pl.lit("odd"))
    odd = odd.with_columns(request_id=pl.col("request_id").str.replace("0", "f", literal=True))
    odd = odd.with_columns(pl.lit(value, kinds[name]).alias(name) for name, value in change.items())
    write_deltalake(before.path, odd.to_arrow(), mode="append")

    queue = PositionQueue(tmp_path / "q").sync
    assert queue.counts()[QueueStatus.PENDING] == 4
    assert queue.overview().claimable == 4
    assert {one.conid for one in queue.get_batch(None)} == {1, 2, 3, 4}
    claimed = {one.conid: one.request_id for one in queue.claim_batch(50)}
    assert claimed.keys() == {1, 2, 3, 4}
    queue.mark_success(claimed[1])
    queue.release([claimed[2]])
    queue.mark_failed(claimed[3], "for a test")
    queue.insert(5, "SPY")
    queue.rescue()
    left = PositionQueue(tmp_path / "q").table.rows().filter(pl.col("account") == "odd")
    assert left.select(odd.columns).drop("part").equals(odd.drop("part"))
