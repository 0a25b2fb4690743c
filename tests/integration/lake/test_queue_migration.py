"""A queue of the release before gets its new columns, and its requests go on."""

from dataclasses import replace
from datetime import UTC, datetime

from position_sync_dagster.domain.update import Answer, QueueRequest, QueueStatus
from position_sync_dagster.lake.position_queue import PositionQueue
from position_sync_dagster.lake.schema.codec import new_request_rows
from position_sync_dagster.lake.schema.tables import POSITION_QUEUE
from position_sync_dagster.lake.storage.table import Table, append

AT = datetime(2026, 1, 2, 15, tzinfo=UTC)


async def test_a_queue_without_answers_is_migrated_and_its_requests_end_with_one(tmp_path):
    columns = dict(POSITION_QUEUE.described)
    del columns["update_id"], columns["confirmed_at"], columns["changed_at"]
    before = Table(tmp_path / "queue", replace(POSITION_QUEUE, version=1, described=columns))
    before.initialize()
    rows = new_request_rows(["r-1"], [QueueRequest(1, "SPY")], AT).select(list(columns))
    before.transact(lambda handle: append(handle, rows, {}))
    queue = PositionQueue(tmp_path / "queue")
    await queue.initialize()
    (claimed,) = await queue.claim_batch()
    assert (claimed.request_id, claimed.update_id) == ("r-1", None)
    answer = Answer(update_id="row-1", confirmed_at=AT)
    await queue.mark_success("r-1", answers={"r-1": answer})
    (done,) = await queue.get_batch(priority=None, status=QueueStatus.SUCCESS)
    assert (done.update_id, done.confirmed_at) == ("row-1", AT)
