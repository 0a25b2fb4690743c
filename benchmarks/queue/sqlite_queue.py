"""persist-queue's acknowledging SQLite queue, as a contestant."""

import pickle
import sqlite3
import time
from pathlib import Path
from typing import Any

from persistqueue import Empty, SQLiteAckQueue
from persistqueue.sqlackqueue import AckStatus

_ITEM = {"symbol": "SPY", "priority": 2, "account": "DUSIM0001", "reason": "REFRESH"}


class SqliteQueue:
    """One `put`, `get` and `ack` a request: it has no calls for many.

    Args:
        synchronous: Sync each commit, as it does by default.
    """

    def __init__(self, path: Path, *, synchronous: bool = True) -> None:
        self._path = path
        self._queue: Any = SQLiteAckQueue(str(path))
        if not synchronous:
            connection: Any = self._queue._putter
            connection.execute("PRAGMA synchronous = OFF")

    def enqueue(self, count: int) -> None:
        """Put requests."""
        for n in range(count):
            self._queue.put({"conid": n, **_ITEM})

    def claim(self, limit: int) -> list[Any]:
        """Get requests."""
        batch = []
        for _ in range(limit):
            try:
                batch.append(self._queue.get(block=False, raw=True))
            except Empty:
                break
        return batch

    def mark(self, batch: list[Any]) -> None:
        """Acknowledge requests."""
        for item in batch:
            self._queue.ack(item)

    def counts(self) -> list[int]:
        """Count by status."""
        queue = self._queue
        return [queue.size, queue.unack_count(), queue.acked_count(), queue.ack_failed_count()]

    def clear(self) -> None:
        """Delete what is acknowledged, so that it is as quick as it can be."""
        self._queue.clear_acked_data(max_delete=1_000_000, keep_latest=0)

    def write_history(self, rows: int) -> None:
        """Add acknowledged requests, which it keeps until it is told to delete them."""
        now = time.time()
        item = pickle.dumps({"conid": 1, **_ITEM})
        with sqlite3.connect(self._path / "data.db") as connection:
            connection.executemany(
                "INSERT INTO ack_queue_default (data, timestamp, status) VALUES (?, ?, ?)",
                ((item, now, AckStatus.acked) for _ in range(rows)),
            )
        connection.close()
