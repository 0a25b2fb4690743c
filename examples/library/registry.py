"""The legs of strategies: add, ask, share, remove. It needs no gateway.

`.venv/bin/python examples/library/registry.py`
"""

import asyncio
from datetime import date

from position_sync_dagster import ActiveContract, AmbiguousRemovalError, Right, StrategyRegistry

PUT, CALL = 911000018, 911000037


async def main() -> None:
    """Share a leg between two strategies, and remove it from both."""
    registry = StrategyRegistry()
    await registry.initialize()

    expiry = date(2029, 1, 19)
    put = ActiveContract(PUT, "SPY", Right.PUT, 600.0, expiry, strategy_id="condor", quantity=-1)
    call = ActiveContract(CALL, "SPY", Right.CALL, 640.0, expiry, strategy_id="condor")
    await registry.add_many([put, call])
    await registry.add_active(PUT, "SPY", "PUT", 600.0, "20290119", "hedge", quantity=2)

    legs = await registry.get_all_active()
    for leg in legs:
        print(f"{leg.strategy_id}: {leg.symbol} {leg.expiry} {leg.strike:g} {leg.right}")
    assert sorted(leg.conid for leg in legs) == [PUT, PUT, CALL]

    try:
        await registry.remove_active(PUT)
    except AmbiguousRemovalError as error:
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
