"""Compare what the broker holds with the rows of the ledger.

`POSITION_SYNC_GATEWAY_PORT=4002 .venv/bin/python examples/library/reconciliation.py`
"""

import asyncio

from position_sync_dagster import (
    BrokerPosition,
    Completeness,
    Discrepancy,
    DiscrepancyType,
    IBPositionStreamer,
    Lake,
    PositionReconciler,
    QueueWorker,
    ReconciliationResult,
    ReconciliationService,
    StreamTables,
    load_settings,
)

# Seconds within which each holding has a row.
WITHIN_S = 60.0


async def main() -> None:
    """Value every holding by the queue, compare, and compare again without the rows."""
    settings = load_settings()
    lake = Lake.of(settings)
    await lake.initialize()
    tables = StreamTables(broker_positions=lake.broker_positions, contracts=lake.contracts)
    streamer = IBPositionStreamer(lake.registry, lake.queue, tables=tables)
    worker = QueueWorker(lake.queue, 1, "auto", updates=lake.updates)
    await streamer.start()
    await worker.start()
    try:
        async with asyncio.timeout(WITHIN_S):
            while not await is_valued(lake, settings.gateway_id):
                await asyncio.sleep(0.5)
        result: ReconciliationResult = await ReconciliationService(lake, settings).run()
    finally:
        await worker.stop()
        await streamer.stop()

    print(f"{result.checked} holdings, {len(result.discrepancies)} differences")
    assert result.discrepancies == ()

    holdings = lake.broker_positions.read(settings.gateway_id)
    missing = PositionReconciler().reconcile(holdings, [], complete=True).discrepancies
    first: Discrepancy = missing[0]
    print(f"without rows: {len(missing)}, such as {first.symbol} {first.conid}: {first.detail}")
    assert {one.type for one in missing} == {DiscrepancyType.MISSING}


async def is_valued(lake: Lake, gateway_id: str) -> bool:
    """Return whether the accounts are complete, and each of their holdings has a row."""
    holdings: list[BrokerPosition] = lake.broker_positions.read(gateway_id)
    complete = all(holding.completeness is Completeness.COMPLETE for holding in holdings)
    return complete and (await lake.updates.latest()).height >= len(holdings) > 0


if __name__ == "__main__":
    asyncio.run(main())
