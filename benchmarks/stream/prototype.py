"""The baseline process: ib_async events into a dict, one append a second on one handle.

`python -m benchmarks.stream.prototype LAKE PORT SECONDS`
"""

import asyncio
import sys
from datetime import UTC, datetime
from uuid import uuid4

import polars as pl
from deltalake import CommitProperties, DeltaTable, write_deltalake
from ib_async import IB, StartupFetchNONE

SCHEMA = {
    "conid": pl.Int64,
    "price": pl.Float64,
    "timestamp": pl.Datetime("us", "UTC"),
    "batch_id": pl.String,
}


async def main(lake: str, port: str, seconds: str) -> None:
    """Stream every position for some seconds."""
    path = f"{lake}/position_updates"
    write_deltalake(path, pl.DataFrame(schema=SCHEMA))
    table = DeltaTable(path)
    ib = IB()
    await ib.connectAsync("127.0.0.1", int(port), clientId=9, fetchFields=StartupFetchNONE)
    newest: dict[int, float] = {}
    ib.pendingTickersEvent += lambda tickers: newest.update(
        (ticker.contract.conId, ticker.markPrice) for ticker in tickers
    )
    wanted = {int(line) for line in open(f"{lake}/legs.txt")}  # noqa: ASYNC230, SIM115
    for position in await ib.reqPositionsAsync():
        if position.contract.conId in wanted:
            position.contract.exchange = "SMART"
            ib.reqMktData(position.contract, "232")

    def commit(rows: dict[int, float], batch_id: str) -> None:
        now = datetime.now(UTC)
        frame = pl.DataFrame([(c, p, now, batch_id) for c, p in rows.items()], SCHEMA, orient="row")
        note = CommitProperties(custom_metadata={"batch_id": batch_id})
        write_deltalake(table, frame, mode="append", commit_properties=note)

    for _ in range(int(float(seconds))):
        await asyncio.sleep(1)
        rows, newest = dict(newest), {}
        if rows:
            await asyncio.to_thread(commit, rows, str(uuid4()))
    ib.disconnect()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
