"""Stream one leg: its values arrive at a handler, and its line is the only one.

The leg is in the book of the simulator; with another gateway, take one that you hold.
`.venv/bin/position-sync simulate --port 4002 &`
`POSITION_SYNC_GATEWAY_PORT=4002 .venv/bin/python examples/library/streamer.py`
"""

import asyncio

from position_sync_dagster import (
    IBPositionStreamer,
    LegState,
    PositionUpdate,
    PositionUpdateHandler,
    StrategyRegistry,
)

CONID = 911000018

# Seconds within which the first value is there.
WITHIN_S = 5.0


class Printer:
    """Prints each value."""

    def __init__(self) -> None:
        self.received = 0
        self.first = asyncio.Event()

    async def on_position_update(self, update: PositionUpdate) -> None:
        """Count a value, and print it."""
        self.received += 1
        self.first.set()
        print(f"{update.symbol} {update.strike}: {update.position:+g} at {update.market_price}")


async def main() -> None:
    """Stream until the first value is there."""
    registry = StrategyRegistry()
    await registry.initialize()
    await registry.add_active(CONID, "SPY", "PUT", 600.0, "20290119", strategy_id="condor")

    printer = Printer()
    assert isinstance(printer, PositionUpdateHandler)
    streamer = IBPositionStreamer(registry)
    streamer.register_handler(printer, immediate=True)
    await streamer.start()
    try:
        await asyncio.wait_for(printer.first.wait(), WITHIN_S)
        streamed = [key for key, state in streamer.routes.items() if state is LegState.STREAMED]
        print(f"updates received: {printer.received}, lines: {streamer.lines_in_use}")
        assert printer.received >= 1
        assert [conid for _account, conid in streamed] == [CONID]
        assert streamer.lines_in_use == 1
    finally:
        await streamer.stop()


if __name__ == "__main__":
    asyncio.run(main())
