"""Value a whole book: 20 legs by lines, all others by the queue, over one connection.

`.venv/bin/position-sync simulate --port 4002 &`, a book of 200 legs, then
`POSITION_SYNC_GATEWAY_PORT=4002 .venv/bin/python examples/library/hybrid.py`
"""

import asyncio

from position_sync_dagster import (
    BrokerPosition,
    DeltaLakePositionWriter,
    IBConnectionManager,
    IBPositionStreamer,
    ModelGreeks,
    PositionQueue,
    PositionUpdatesTable,
    QueueWorker,
    StrategyRegistry,
    StreamTables,
    load_settings,
)

ACTIVE = 20

# Lines of underlyings at most: they price the options that have no line.
UNDERLYING_LINES = 5

# Seconds within which each leg has a row.
WITHIN_S = 60.0


async def main() -> None:
    """Make the first 20 options active, and wait until each holding has a row."""
    manager = IBConnectionManager(load_settings(underlying_lines=UNDERLYING_LINES))
    connection = await manager.get_connection()
    await connection.feed.snapshot()
    held: list[BrokerPosition] = list(connection.feed.book.holdings)
    options = [holding.instrument for holding in held if holding.instrument.right]

    registry, queue = StrategyRegistry(), PositionQueue()
    await registry.initialize()
    for option in options[:ACTIVE]:
        await registry.add_active(
            conid=option.conid, symbol=option.symbol, right=option.right, strike=option.strike,
            expiry=option.expiry, strategy_id="active",
        )  # fmt: skip

    tables = StreamTables(greeks=ModelGreeks)
    streamer = IBPositionStreamer(registry, queue, manager=manager, tables=tables)
    streamer.register_handler(DeltaLakePositionWriter())
    worker = QueueWorker(queue, interval=1, batch_size=50, manager=manager)
    await streamer.start()
    await worker.start()
    table = PositionUpdatesTable()
    try:
        async with asyncio.timeout(WITHIN_S):
            while (await table.latest()).height < len(held):
                await asyncio.sleep(0.5)

        print(f"{streamer.lines_in_use} lines for {len(held)} legs, greeks: {streamer.greeks}")
        assert streamer.lines_in_use - streamer.underlying_lines == ACTIVE
    finally:
        await worker.stop()
        await streamer.stop()
        assert connection.is_connected, "whoever opened it closes it"
        await manager.close()

    rows = await table.latest()
    print(rows.group_by("source").len().sort("source"))
    assert rows["market_price"].null_count() == 0, "a row without a price"
    assert worker.get_stats().total_failed == 0


if __name__ == "__main__":
    asyncio.run(main())
