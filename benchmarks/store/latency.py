"""Claim, mark, append and read at 0, 5, 50 and 200 ms of latency, and the requests of each."""

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import patch

from benchmarks.bench import Bench
from benchmarks.outcome import Line
from benchmarks.timing import Samples, median
from position_sync_dagster.domain.position_update import PositionUpdate, Source
from position_sync_dagster.domain.queue_request import QueuedPosition, QueueRequest
from position_sync_dagster.money.lake import MoneyLake
from tests.support.object_store import running_store

LATENCIES_MS = (0, 5, 50, 200)
BATCH = 50
OPERATIONS = (
    "enqueue 50",
    "claim 50",
    "append 50",
    "mark 50",
    "append 50 of a stream",
    "newest rows",
    "status counts",
)
# A stream's rows carry the fencing token of its login.
LOGIN, TOKEN = "login", 1

Counted = dict[str, list[int]]


def latency(bench: Bench) -> None:
    """Measure each operation of a drain, at each latency and on the local disk."""
    rounds = bench.size(10, 2)
    disk, _ = _measured(bench.new_folder("disk"), rounds, lambda: 0)
    columns = [("local disk", disk)]
    with running_store() as store, patch.dict(os.environ, store.environment):
        for delay_ms in LATENCIES_MS:
            path = store.lake()
            MoneyLake(path).initialize_sync()
            store.proxy.change(latency_s=delay_ms / 1000)
            found, requests = _measured(path, rounds, lambda: len(store.proxy.change()))
            store.proxy.reset()
            columns.append((f"{delay_ms} ms", found))
            bench.report.add(
                f"At {delay_ms} ms",
                [
                    Line(
                        what=what,
                        state=f"{median(requests[what]):g} requests, at most {max(requests[what])}",
                        ours=found.median(what),
                        samples=rounds,
                        against="local disk",
                        theirs=disk.median(what),
                    )
                    for what in OPERATIONS
                ],
            )


def _measured(
    path: Path | str, rounds: int, requests: Callable[[], int]
) -> tuple[Samples, Counted]:
    """Drain so many batches; return the times, and the requests of each operation."""
    lake = MoneyLake(path)
    lake.initialize_sync()
    samples, counted = Samples(), {name: [] for name in OPERATIONS}
    queue, updates = lake.queue.sync, lake.updates.sync
    updates.table.fence(LOGIN, TOKEN)
    batch: list[QueuedPosition] = []
    for turn in range(rounds):
        wanted = [QueueRequest(turn * BATCH + c, "SPY") for c in range(1, BATCH + 1)]

        def claim() -> None:
            batch[:] = queue.claim_batch(limit=BATCH, lease_s=600)

        work: tuple[Callable[[], object], ...] = (
            lambda wanted=wanted: queue.insert_many(wanted),
            claim,
            lambda: updates.append([_row(one) for one in batch]),
            lambda: queue.mark_success([one.request_id for one in batch]),
            lambda: updates.append([_streamed(one) for one in batch]),
            updates.latest,
            queue.counts,
        )
        for name, do in zip(OPERATIONS, work, strict=True):
            requests()
            samples.time(name, do)
            counted[name].append(requests())
    return samples, counted


def _streamed(request: QueuedPosition) -> PositionUpdate:
    row = _row(request)
    return replace(
        row,
        source=Source.STREAM,
        request_id=None,
        update_id="",
        gateway_id=LOGIN,
        fencing_token=TOKEN,
    )


def _row(request: QueuedPosition) -> PositionUpdate:
    return PositionUpdate(
        conid=request.conid,
        symbol=request.symbol,
        right=None,
        position=1.0,
        market_price=1.0,
        market_value=100.0,
        average_cost=None,
        unrealized_pnl=None,
        timestamp=datetime.now(UTC),
        source=Source.QUEUE,
        request_id=request.request_id,
        update_id=request.request_id,
    )
