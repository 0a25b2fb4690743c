"""The work of the processes in the tests on races; see `forked_workers`."""

import asyncio
import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from position_sync_dagster.domain.gateway_session import Owner
from position_sync_dagster.domain.holding import PositionUpdate, QueueRequest
from position_sync_dagster.errors import LakeError, LoginOwnedError
from position_sync_dagster.lake.lake import Lake
from tests.support.drains import drain_for_ever


def claim(lake: Lake, limit: int) -> list[str]:
    """Claim until nothing is left; return the ids that were granted."""
    granted: list[str] = []
    while batch := lake.queue.sync.claim_batch(limit=limit, lease_s=600):
        granted += [request.request_id for request in batch]
    return granted


def insert(lake: Lake, first: int, count: int, size: int, pause_s: float = 0.0) -> list[str]:
    """Insert contracts `first` to `first + count`, `size` a commit, with a pause after each."""
    ids: list[str] = []
    for start in range(first, first + count, size):
        stop = min(start + size, first + count)
        requests = (QueueRequest(c, "SPY", account="A") for c in range(start, stop))
        ids += lake.queue.sync.insert_many(requests)
        time.sleep(pause_s)
    return ids


def insert_the_same(lake: Lake, count: int) -> list[str]:
    """Insert the same contracts as every other process, one a commit."""
    return [lake.queue.sync.insert_many([QueueRequest(c, "SPY")])[0] for c in range(1, count + 1)]


def drain(lake: Lake, lease_s: float, limit: int) -> None:
    """Drain for ever."""
    asyncio.run(drain_for_ever(lake, limit, lease_s))


def maintain(lake: Lake) -> None:
    """Maintain for ever."""
    while True:
        lake.maintain()


def create(lake: Lake) -> list[int]:
    """Create all tables; return their versions."""
    lake.initialize_sync()
    return [table.version() for table in lake.tables]


def own(lake: Lake) -> int | None:
    """Try once to own a login; return the token, or None if another one owns it."""
    try:
        session = lake.sessions.acquire(
            "127.0.0.1:7497", Owner.REFRESH, lease_s=600, run_id=None, host="h", pid=os.getpid()
        )
    except LoginOwnedError:
        return None
    return session.fencing_token


def append_the_same(lake: Lake, count: int) -> int:
    """Write the same rows as every other process, ten a commit; return how many were new."""
    at = datetime(2026, 1, 2, tzinfo=UTC)
    rows = [
        PositionUpdate(c, "SPY", None, 1.0, 1.0, 1.0, 1.0, 1.0, at, update_id=f"row-{c}")
        for c in range(count)
    ]
    return sum(
        lake.updates.sync.append(rows[i : i + 10], batch_id=f"b-{i}-{os.getpid()}").rows
        for i in range(0, count, 10)
    )


SOME = (append_the_same, claim, create, drain, insert, insert_the_same, maintain, own)
WORK: dict[str, Callable[..., object]] = {work.__name__: work for work in SOME}


def main(name: str, path: str, arguments: dict[str, Any]) -> None:
    """Do one work on a lake and print its result."""
    try:
        result = WORK[name](Lake(path, fsync=False), **arguments)
    except LakeError as error:
        print(json.dumps({"error": repr(error)}))
    else:
        print(json.dumps({"result": result}))
