"""Processes that kill themselves at a named point of their work; see `forked_workers`.

Each point wraps a function that the product calls; the product knows nothing of the points.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from deltalake import DeltaTable

from position_sync_dagster.domain.broker_position import BrokerPosition
from position_sync_dagster.domain.instrument import Instrument
from position_sync_dagster.domain.update import QueueRequest
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.position_queue import SyncQueue
from position_sync_dagster.lake.position_updates import SyncUpdates
from position_sync_dagster.lake.storage import maintenance, table
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.drain import BrokerView, QueueWorker
from tests.support.object_store import delete_stored

POINTS = {
    "drain": (
        "before the claim",
        "the claim's file is written",
        "after the claim",
        "after the value",
        "the ledger's file is written",
        "after the ledger",
        "the mark's files are written",
        "after the mark",
    ),
    "maintain": (
        "before the merge",
        "the merge's file is written",
        "after the merge",
        "before the checkpoint",
        "after the checkpoint",
        "after the cleanup",
        "after the vacuum",
    ),
}
BATCH = 5
# Requests of an insert that is larger than the queue, and so is an append.
MANY = 20

Call = Callable[..., Any]


def die(point: str) -> None:
    os.write(1, f"at {point}\n".encode())
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner: Any, name: str, point: str, when: Call = lambda *_: True) -> None:
    """Die instead of a call."""
    real = getattr(owner, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        if when(*args):
            die(point)
        return real(*args, **kwargs)

    setattr(owner, name, call)


def after(owner: Any, name: str, point: str, when: Call = lambda *_: True) -> None:
    """Die after a call."""
    real = getattr(owner, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        result = real(*args, **kwargs)
        if when(*args):
            die(point)
        return result

    setattr(owner, name, call)


def uncommitted(owner: Any, name: str, point: str, when: Call = lambda *_: True) -> None:
    """Die in a commit between its data files and its log entry: nobody read the entry."""
    real = getattr(owner, name)

    def call(handle: DeltaTable, *args: Any, **kwargs: Any) -> Any:
        real(handle, *args, **kwargs)
        if when(handle, *args):
            entry = f"_delta_log/{handle.version():020}.json"
            path = f"{handle.table_uri.removeprefix('file://').rstrip('/')}/{entry}"
            delete_stored(path) if path.startswith("s3://") else os.unlink(path)
            die(point)

    setattr(owner, name, call)


def is_commit_of(action: str) -> Call:
    """Return a condition: whether the commit's metadata names this action."""
    return lambda *args: any(
        isinstance(arg, Mapping) and arg.get("action") == action for arg in args
    )


ARM: dict[str, Callable[[str], None]] = {
    "before the claim": lambda p: before(table, "overwrite", p, is_commit_of("claim")),
    "the claim's file is written": lambda p: uncommitted(
        table, "overwrite", p, is_commit_of("claim")
    ),
    "after the claim": lambda p: after(SyncQueue, "claim_batch", p),
    "after the value": lambda p: before(SyncUpdates, "append", p),
    "the ledger's file is written": lambda p: uncommitted(
        table, "append", p, lambda handle, frame, *_: frame.height > 0
    ),
    "after the ledger": lambda p: after(SyncUpdates, "append", p),
    "the mark's files are written": lambda p: uncommitted(
        table, "overwrite", p, is_commit_of("success")
    ),
    "after the mark": lambda p: after(SyncQueue, "mark_success", p),
    "before the merge": lambda p: before(table, "overwrite", p, is_commit_of("compact")),
    "the merge's file is written": lambda p: uncommitted(
        table, "overwrite", p, is_commit_of("compact")
    ),
    "after the merge": lambda p: after(table, "overwrite", p, is_commit_of("compact")),
    "before the checkpoint": lambda p: before(DeltaTable, "create_checkpoint", p),
    "after the checkpoint": lambda p: after(DeltaTable, "create_checkpoint", p),
    "after the cleanup": lambda p: after(DeltaTable, "cleanup_metadata", p),
    "after the vacuum": lambda p: after(DeltaTable, "vacuum", p),
    "the insert's file is written": lambda p: uncommitted(
        table, "overwrite", p, is_commit_of("insert")
    ),
    "the large insert's file is written": lambda p: uncommitted(
        table, "append", p, is_commit_of("insert")
    ),
    "after the insert": lambda p: after(SyncQueue, "insert_many", p),
}


class Holdings(dict[tuple[str, int], BrokerPosition]):
    """A broker that holds each contract that it is asked for."""

    def get(self, key: tuple[str, int], default: Any = None) -> BrokerPosition:
        now = datetime.now(UTC)
        return BrokerPosition(
            gateway_id="127.0.0.1:7497",
            account=key[0],
            instrument=Instrument(conid=key[1], symbol="SPY", sec_type="OPT", currency="USD"),
            position=1.0,
            market_value=100.0,
            received_at=now,
            position_time=now,
            snapshot_id="test",
        )


class Values:
    """A source of values that is always available."""

    async def view(self, _conids: object = None) -> BrokerView:
        return BrokerView(holdings=Holdings(), complete=True)

    async def close(self) -> None:
        """Do nothing: there is nothing to close."""


def large_insert() -> list[QueueRequest]:
    """Return requests for positions that the queue does not have."""
    return [QueueRequest(99 + number, "SPY", account="DUSIM1") for number in range(MANY)]


async def drained(lake: Lake) -> None:
    worker = QueueWorker(
        lake.queue,
        batch_size=BATCH,
        values=Values(),
        updates=lake.updates,
        settings=Settings(_env_file=None),
    )
    await lake.queue.rescue()
    while (await worker.process_batch()).claimed:
        pass


def main(work: str, path: str, point: str) -> None:
    """Do a work, and die at the point."""
    lake = Lake(path, fsync=False)
    if point:
        ARM[point](point)
    match work:
        case "drain":
            asyncio.run(drained(lake))
        case "drain_later":  # when every lease is over
            clock = lambda: datetime.now(UTC) + timedelta(hours=1)  # noqa: E731
            asyncio.run(drained(Lake(path, clock=clock, fsync=False)))
            print("done")
        case "maintain":
            maintenance.maintain(lake.queue.table)
        case "insert":
            lake.queue.sync.insert_many(large_insert()[:1])
        case "insert_many":
            lake.queue.sync.insert_many(large_insert())
