"""The queue one writes first: a commit per row, and the whole table read through pandas.

One append commit per insert, `get_batch` reads everything and updates row by row, marks update row
by row; times are ISO texts.
"""

import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
from deltalake import DeltaTable, write_deltalake

_SCHEMA = {
    "request_id": pl.String,
    "conid": pl.Int64,
    "symbol": pl.String,
    "priority": pl.Int64,
    "status": pl.String,
    "created_at": pl.String,
    "updated_at": pl.String,
    "error_message": pl.String,
}


class NaiveQueue:
    """A queue in a Delta table without any of the care that it takes."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        if not path.exists():
            write_deltalake(self.path, pl.DataFrame(schema=_SCHEMA), mode="overwrite")

    def enqueue(self, count: int) -> None:
        """Insert one by one."""
        for n in range(count):
            self._insert(conid=n, symbol=f"SYM{n % 40}")

    def claim(self, limit: int) -> list[str]:
        """Read everything, take the oldest, update each."""
        table = pl.from_pandas(DeltaTable(self.path).to_pandas(), schema_overrides=_SCHEMA)
        batch = (
            table.filter((pl.col("priority") == 2) & (pl.col("status") == "PENDING"))
            .sort("created_at")
            .head(limit)
        )
        request_ids = batch.get_column("request_id").to_list()
        self._update(request_ids, "PROCESSING")
        return request_ids

    def mark(self, batch: list[str]) -> None:
        """Update each."""
        self._update(batch, "SUCCESS")

    def counts(self) -> dict[str, int]:
        """Read everything and count."""
        table = pl.from_pandas(DeltaTable(self.path).to_pandas(), schema_overrides=_SCHEMA)
        return dict(table.group_by("status").len().iter_rows())

    def write_history(self, rows: int, *, commits: int = 1) -> None:
        """Add finished requests in few commits, which is kinder than its own way of one each."""
        now = datetime.now(UTC) - timedelta(days=1)
        per_commit = -(-rows // commits)
        for first in range(0, rows, per_commit):
            if first // per_commit % 50 == 0:
                handle = DeltaTable(self.path)
            count = min(per_commit, rows - first)
            times = [(now + timedelta(milliseconds=n)).isoformat() for n in range(count)]
            frame = pl.DataFrame(
                {
                    "request_id": [str(uuid.uuid4()) for _ in range(count)],
                    "conid": list(range(count)),
                    "symbol": [f"SYM{n % 40}" for n in range(count)],
                    "priority": [2] * count,
                    "status": ["SUCCESS"] * count,
                    "created_at": times,
                    "updated_at": times,
                    "error_message": [None] * count,
                },
                schema=_SCHEMA,
            )
            write_deltalake(handle, frame, mode="append")

    def _insert(self, conid: int, symbol: str) -> None:
        now = datetime.now(UTC).isoformat()
        row = {
            "request_id": str(uuid.uuid4()),
            "conid": conid,
            "symbol": symbol,
            "priority": 2,
            "status": "PENDING",
            "created_at": now,
            "updated_at": now,
            "error_message": None,
        }
        write_deltalake(self.path, pl.DataFrame([row], schema=_SCHEMA), mode="append")

    def _update(self, request_ids: list[str], status: str) -> None:
        table = DeltaTable(self.path)
        values: dict[str, Any] = {"status": status, "updated_at": datetime.now(UTC).isoformat()}
        for request_id in request_ids:
            table.update(predicate=f"request_id = '{request_id}'", new_values=values)
