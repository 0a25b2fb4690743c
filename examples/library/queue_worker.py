"""Queue five positions, and value them with a worker: without a line, in one batch.

The contracts are in the book of the simulator; with another gateway, take some that you hold.
`.venv/bin/position-sync simulate --port 4002 &`
`POSITION_SYNC_GATEWAY_PORT=4002 .venv/bin/python examples/library/queue_worker.py`
"""

import asyncio

from position_sync_dagster import (
    Outcome,
    PositionQueue,
    PositionUpdatesTable,
    ProcessingAttempt,
    QueuedPosition,
    QueueRequest,
    QueueStatus,
    QueueWorker,
    Reason,
    RetryPolicy,
    WorkerStats,
)

HELD = (911000001, 911000003, 911000010, 911000016, 911000038)

# Seconds within which the five are valued.
WITHIN_S = 30.0


async def main() -> None:
    """Insert five requests, drain them, and read what became of each."""
    queue = PositionQueue(retry=RetryPolicy(max_attempts=3))
    await queue.initialize()
    requests = [QueueRequest(conid, "SPY", reason=Reason.MANUAL) for conid in HELD]
    request_ids = await queue.insert_many(requests)
    waiting: list[QueuedPosition] = await queue.get_batch()
    print(f"waiting: {len(waiting)}")
    assert {request.request_id for request in waiting} == set(request_ids)

    worker = QueueWorker(queue, interval=1, batch_size=50)
    await worker.start()
    try:
        async with asyncio.timeout(WITHIN_S):
            while worker.get_stats().total_processed < len(HELD):
                await asyncio.sleep(0.1)
    finally:
        await worker.stop()

    stats: WorkerStats = worker.get_stats()
    print(f"{stats.total_success} success, {stats.total_failed} failed")
    assert (stats.total_success, stats.total_failed) == (5, 0)
    assert (await queue.counts())[QueueStatus.SUCCESS] == len(HELD)

    attempts: list[ProcessingAttempt] = await queue.attempts()
    for attempt in attempts:
        print(f"{attempt.conid}: {attempt.outcome} by {attempt.worker}")
    assert {attempt.outcome for attempt in attempts} == {Outcome.SUCCESS}

    rows = await PositionUpdatesTable().latest()
    print(rows.select("conid", "position", "market_price", "market_value"))
    assert set(rows["conid"]) >= set(HELD)
    assert rows["market_price"].null_count() == 0


if __name__ == "__main__":
    asyncio.run(main())
