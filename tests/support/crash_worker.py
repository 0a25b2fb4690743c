"""Processes that kill themselves at a named point of their work; see `forked_workers`.

Each point wraps a function that the product calls; the product knows nothing of the points.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
from typing import Any

from deltalake import DeltaTable

from position_sync_dagster.domain.queue_request import QueueRequest
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.position_queue import SyncQueue
from position_sync_dagster.lake.position_updates import SyncUpdates
from position_sync_dagster.lake.storage import commits, merges
from position_sync_dagster.lake.storage.opening import Upkeep
from tests.support.drains import drain_all
from tests.support.object_store import delete_stored

BATCH = 5
# Requests of an insert that is larger than the queue, and so is an append.
MANY = 20

# Few files are merged.
SOON = Upkeep(compact_from=8)

Call = Callable[..., Any]


def die_at(point: str, how: str, owner: Any, name: str, when: Call = lambda *_: True) -> None:
    """Let this process die before a call, after it, or after a commit without its log entry.

    Args:
        how: "before", "after", or "uncommitted": the data files are written, and nobody read the
            entry.
    """
    real = getattr(owner, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        dies = when(*args)
        result = None if dies and how == "before" else real(*args, **kwargs)
        if not dies:
            return result
        if how == "uncommitted":
            entry = f"_delta_log/{args[0].version():020}.json"
            path = f"{args[0].table_uri.removeprefix('file://').rstrip('/')}/{entry}"
            delete_stored(path) if path.startswith("s3://") else os.unlink(path)
        os.write(1, f"at {point}\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)
        return None

    setattr(owner, name, call)


def is_of_ledger(*args: Any) -> bool:
    return any(isinstance(arg, Mapping) and "batch_id" in arg for arg in args)


def is_commit_of(action: str) -> Call:
    """Return a condition: whether the commit's metadata names this action."""
    return lambda *args: any(
        isinstance(arg, Mapping) and arg.get("action") == action for arg in args
    )


# The points of each work: how this process dies there, instead of or after which call.
POINTS: dict[str, dict[str, tuple[Any, ...]]] = {}
POINTS["drain"] = {
    "before the claim": ("before", commits, "write", is_commit_of("claim")),
    "the claim's file is written": ("uncommitted", commits, "write", is_commit_of("claim")),
    "after the claim": ("after", SyncQueue, "claim_batch"),
    "after the value": ("before", SyncUpdates, "append"),
    "the ledger's file is written": ("uncommitted", commits, "write", is_of_ledger),
    "after the ledger": ("after", SyncUpdates, "append"),
    "the mark's files are written": ("uncommitted", commits, "write", is_commit_of("success")),
    "after the mark": ("after", SyncQueue, "mark_success"),
}
POINTS["maintain"] = {
    "before the merge": ("before", commits, "write", is_commit_of("compact")),
    "the merge's file is written": ("uncommitted", commits, "write", is_commit_of("compact")),
    "after the merge": ("after", commits, "write", is_commit_of("compact")),
    "before the checkpoint": ("before", DeltaTable, "create_checkpoint"),
    "after the checkpoint": ("after", DeltaTable, "create_checkpoint"),
    "after the cleanup": ("after", DeltaTable, "cleanup_metadata"),
    "after the vacuum": ("after", DeltaTable, "vacuum"),
}
POINTS["insert"] = {
    "its file is written": ("uncommitted", commits, "write", is_commit_of("insert")),
    "after the insert": ("after", SyncQueue, "insert_many"),
}
POINTS["insert_many"] = POINTS["insert"]


def large_insert() -> list[QueueRequest]:
    """Return requests for positions that the queue does not have."""
    return [QueueRequest(99 + number, "SPY", account="DUSIM1") for number in range(MANY)]


def main(work: str, path: str, point: str) -> None:
    """Do a work, and die at the point."""
    lake = Lake(path, fsync=False, upkeep=SOON)
    die_at(point, *POINTS[work][point])
    match work:
        case "drain":
            asyncio.run(drain_all(lake, BATCH))
        case "maintain":
            merges.maintain(lake.queue.table)
        case "insert":
            lake.queue.sync.insert_many(large_insert()[:1])
        case "insert_many":
            lake.queue.sync.insert_many(large_insert())
