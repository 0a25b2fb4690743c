"""The measured processes: readers that write down when they saw each row.

`python -m benchmarks.follow.reader follow|again LAKE POLL_S FILE [READERS]`
"""

import asyncio
import sys
import time
from pathlib import Path
from typing import TextIO

import polars as pl

from position_sync_dagster.money.lake import MoneyLake


async def _follow(lake: MoneyLake, poll_s: float, out: Path) -> None:
    with out.open("a", buffering=1) as file:
        async for rows, _token in lake.updates.follow("now", poll_s):
            _write(file, rows)


async def _again(lake: MoneyLake, poll_s: float, out: Path) -> None:
    known = 0
    with out.open("a", buffering=1) as file:
        while True:
            rows = await asyncio.to_thread(pl.read_delta, f"{lake.path}/position_updates")
            fresh = rows.filter(pl.col("ledger_version") > known)
            if not fresh.is_empty():
                known = fresh.get_column("ledger_version").max()
                _write(file, fresh)
            await asyncio.sleep(poll_s)


def _write(file: TextIO, rows: pl.DataFrame) -> None:
    now = time.time()
    for conid, update_id in rows.select("conid", "update_id").iter_rows():
        file.write(f"{now:.6f} {conid} {update_id}\n")


async def _read(reader: str, path: str, poll_s: str, out: str, count: str = "1") -> None:
    work, lake = {"follow": _follow, "again": _again}[reader], MoneyLake(path)
    await asyncio.gather(*(work(lake, float(poll_s), Path(out)) for _ in range(int(count))))


if __name__ == "__main__":
    asyncio.run(_read(*sys.argv[1:]))
