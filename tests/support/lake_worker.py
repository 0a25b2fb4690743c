"""The work of the processes in the tests on races; see `forked_workers`."""

import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import polars as pl
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError

from position_sync_dagster.domain.gateway_session import Owner
from position_sync_dagster.domain.update import PositionUpdate, QueueRequest, Source
from position_sync_dagster.errors import LakeError, LeaseLostError, LoginOwnedError
from position_sync_dagster.lake.lake import Lake


def claim(lake: Lake, limit: int) -> list[str]:
    """Claim until nothing is left; return the ids that were granted."""
    granted: list[str] = []
    while batch := lake.queue.sync.claim_batch(limit=limit, lease_s=600):
        granted += [request.request_id for request in batch]
    return granted


def claim_wrongly(lake: Lake, limit: int) -> list[str]:
    """Claim as if reading and writing were one step: each by path, on handles of their own."""
    path, granted = lake.queue.table.path, []
    while True:
        live = pl.DataFrame(DeltaTable(path).scan(predicate="bucket = 'live'"))
        ids = live.filter(pl.col("status") == "PENDING").get_column("request_id").head(limit)
        if ids.is_empty():
            return granted
        hit = pl.col("request_id").is_in(ids.implode())
        after = live.with_columns(
            status=pl.when(hit).then(pl.lit("PROCESSING")).otherwise("status")
        )
        time.sleep(0.002)  # the gap that a busy machine makes anyway
        try:
            write_deltalake(path, after, mode="overwrite", predicate="bucket = 'live'")
        except CommitFailedError:
            continue
        granted += ids.to_list()


def insert(lake: Lake, first: int, count: int, size: int, pause_s: float = 0.0) -> list[str]:
    """Insert contracts `first` to `first + count`, `size` a commit, with a pause after each."""
    ids: list[str] = []
    for start in range(first, first + count, size):
        stop = min(start + size, first + count)
        ids += lake.queue.sync.insert_many(QueueRequest(c, "SPY") for c in range(start, stop))
        time.sleep(pause_s)
    return ids


def insert_the_same(lake: Lake, count: int) -> list[str]:
    """Insert the same contracts as every other process, one a commit."""
    return [lake.queue.sync.insert_many([QueueRequest(c, "SPY")])[0] for c in range(1, count + 1)]


def drain(lake: Lake, lease_s: float, limit: int, until_empty: bool = True) -> int:
    """Drain as a worker does: claim, write what is not written, mark."""
    queue, updates, done = lake.queue.sync, lake.updates.sync, 0

    while True:
        queue.rescue()
        batch = queue.claim_batch(limit=limit, lease_s=lease_s)
        if not batch:
            if until_empty:
                return done
            time.sleep(0.01)
            continue
        ids = [request.request_id for request in batch]
        known = updates.existing(ids)
        now = datetime.now(UTC)
        rows = [
            PositionUpdate(
                conid=request.conid,
                symbol=request.symbol,
                right=None,
                position=1.0,
                market_price=1.0,
                market_value=100.0,
                average_cost=None,
                unrealized_pnl=None,
                timestamp=now,
                source=Source.QUEUE,
                request_id=request.request_id,
                update_id=request.request_id,
            )
            for request in batch
            if request.request_id not in known
        ]
        try:
            if not queue.holds(ids):
                continue
            updates.append(rows, batch_id=str(uuid4()))
            queue.mark_success(ids)
            done += len(ids)
        except LeaseLostError:
            continue


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


WORK: dict[str, Callable[..., object]] = {
    work.__name__: work
    for work in (
        append_the_same,
        claim,
        claim_wrongly,
        create,
        drain,
        insert,
        insert_the_same,
        maintain,
        own,
    )
}


def main(name: str, path: str, arguments: dict[str, Any]) -> None:
    """Do one work on a lake and print its result."""
    try:
        result = WORK[name](Lake(path, fsync=False), **arguments)
    except LakeError as error:
        print(json.dumps({"error": repr(error)}))
    else:
        print(json.dumps({"result": result}))
