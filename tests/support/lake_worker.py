"""Processes that work on a lake, in the tests on races; and their work."""

import asyncio
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from position_sync_dagster.domain.gateway_session import GatewaySession, Owner, SessionState
from position_sync_dagster.domain.position_update import PositionUpdate
from position_sync_dagster.domain.queue_request import QueueRequest, QueueStatus
from position_sync_dagster.errors import LakeError, LeaseLostError, LoginOwnedError
from position_sync_dagster.lake.lake import Lake
from tests.support.drains import drain_for_ever
from tests.support.forked_workers import ForkedWorker
from tests.support.queues import requests_of


class Worker(ForkedWorker):
    """One process, which does one of the works below on a lake."""

    def __init__(self, work: str, lake: Path | str, **arguments: Any) -> None:
        super().__init__(__name__, work, str(lake), arguments)

    def result(self) -> Any:
        answer = json.loads(self.output())
        assert "error" not in answer, answer["error"]
        return answer["result"]


@contextmanager
def workers(*some: Worker) -> Iterator[list[Worker]]:
    """Start workers at the same time, and end all of them at the end."""
    try:
        yield [worker.begin() for worker in some]
    finally:
        for worker in some:
            worker.kill()


def together(*some: Worker) -> list[Any]:
    """Run workers at the same time and return their results."""
    with workers(*some) as running:
        return [worker.result() for worker in running]


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


def acquired(lake: Lake, login: str = "g", lease_s: float = 600) -> GatewaySession:
    pid = os.getpid()
    return lake.sessions.acquire(
        login, Owner.STREAM, lease_s=lease_s, run_id=None, host="here", pid=pid
    )


def own(lake: Lake) -> int | None:
    """Try once to own a login; return the token, or None if another one owns it."""
    try:
        return acquired(lake).fencing_token
    except LoginOwnedError:
        return None


def hold(lake: Lake) -> None:
    """Own the login `g`, and print each renewal of a short lease."""
    session = acquired(lake, lease_s=2)
    while True:
        session = lake.sessions.renew(session, lease_s=2, state=SessionState.LIVE)
        print(session.heartbeat_at, flush=True)
        time.sleep(0.2)


def write_as_owner(lake: Lake, clock_s: float = 0.0, lease_s: float = 2.0) -> str:
    """Own the login `g` with a lease that is not renewed, and write until it is refused.

    Args:
        clock_s: By how much this machine's clock is ahead of the others; negative: behind.
    """

    def clock() -> datetime:
        return datetime.now(UTC) + timedelta(seconds=clock_s)

    lake = Lake(lake.path, clock=clock)
    session = acquired(lake, lease_s=lease_s)
    price = 0.0
    lake.updates.table.fence("g", session.fencing_token)
    while True:
        price += 1.0
        row = PositionUpdate(
            1, "SPY", None, 1.0, 1.0, price, 1.0, 1.0, clock(),
            gateway_id="g", fencing_token=session.fencing_token,
        )  # fmt: skip
        try:
            lake.updates.sync.append([row])
        except LeaseLostError as error:
            return type(error).__name__
        time.sleep(0.05)


def use_many(lake: Lake, count: int, some: int = 100) -> None:
    """Fail, read, retry and mark `count` requests at once, first `some` in each commit.

    A predicate with as many terms, or as many parts, would end this process.
    """
    queue = lake.queue.sync
    ids = queue.insert_many(requests_of(range(1, count + 1)))
    queue.claim_batch(count, lease_s=3600.0)
    parts = [ids[start : start + some] for start in range(0, 60 * some, some)]
    for part in (*parts, ids[60 * some :]):
        queue.mark_failed_many(dict.fromkeys(part, "x"), retryable=False)
    failed = queue.get_batch(None, count, QueueStatus.FAILED)
    assert {request.request_id for request in failed} == set(ids)
    from position_sync_dagster.cli.queue import retry_all  # a face, of which the core has none

    assert set(retry_all(queue)) == set(ids)
    assert queue.counts()[QueueStatus.PENDING] == count
    assert queue.counts()[QueueStatus.FAILED] == 0

    claimed = queue.claim_batch(count, lease_s=3600.0)
    assert len(claimed) == count
    assert queue.holds(ids)
    queue.mark_success(ids)
    assert queue.counts()[QueueStatus.SUCCESS] == count


def append_the_same(lake: Lake, count: int) -> int:
    """Write the same rows as every other process, ten a commit; return how many were new."""
    at = datetime(2026, 1, 2, tzinfo=UTC)
    rows = [
        PositionUpdate(c, "SPY", None, 1.0, 1.0, 1.0, 1.0, 1.0, at, update_id=f"row-{c}")
        for c in range(count)
    ]
    new = 0
    for first in range(0, count, 10):
        batch_id = f"b-{first}-{os.getpid()}"
        new += lake.updates.sync.append(rows[first : first + 10], batch_id=batch_id).rows
    return new


SOME = (append_the_same, claim, create, drain, hold, insert, insert_the_same, maintain, own)
WORK: dict[str, Callable[..., object]] = {
    work.__name__: work for work in (*SOME, use_many, write_as_owner)
}


def main(name: str, path: str, arguments: dict[str, Any]) -> None:
    """Do one work on a lake and print its result."""
    try:
        result = WORK[name](Lake(path, fsync=False), **arguments)
    except LakeError as error:
        print(json.dumps({"error": repr(error)}))
    else:
        print(json.dumps({"result": result}))
