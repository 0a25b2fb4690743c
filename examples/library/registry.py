"""The legs of strategies: add, ask, share, remove. It needs no gateway.

`.venv/bin/python examples/library/registry.py`
"""

import asyncio
from datetime import date

from position_sync_dagster import ActiveContract, PositionSyncError, StrategyRegistry

PUT, CALL = 911000018, 911000037


async def main() -> None:
    """Share a leg between two strategies, and remove it from both."""
    registry = StrategyRegistry()
    await registry.initialize()

    put = {"conid": PUT, "symbol": "SPY", "right": "PUT", "strike": 600.0, "expiry": "20290119"}
    await registry.add_active(strategy_id="condor", **put, quantity=-1)
    await registry.add_active(strategy_id="hedge", **put, quantity=2)
    call = ActiveContract(CALL, "SPY", "CALL", 640.0, date(2029, 1, 19), strategy_id="condor")
    await registry.add_many([call])

    legs = await registry.get_all_active()
    for leg in legs:
        print(f"{leg.strategy_id}: {leg.symbol} {leg.expiry} {leg.strike:g} {leg.right}")
    assert sorted(leg.conid for leg in legs) == [PUT, PUT, CALL]

    try:
        await registry.remove_active(PUT)
    except PositionSyncError as error:
        print(f"refused: {error}")
    else:
        raise AssertionError("two strategies hold the leg, and none was named")

    await registry.remove_active(PUT, "condor")
    assert registry.is_active(PUT), "the other strategy still holds it"
    await registry.remove_active(PUT, "hedge")
    await registry.remove_active(CALL)
    assert not registry.is_active(PUT)
    assert await registry.get_all_active() == []
    print("active legs: 0")


if __name__ == "__main__":
    asyncio.run(main())
