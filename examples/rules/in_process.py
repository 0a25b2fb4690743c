"""Stream the active legs in this process, and print each option whose bid and ask are far apart.

A handler gets the newest value of each holding, once a flush. Nothing is written. Run it while no
other stream uses the login:
`.venv/bin/python examples/rules/in_process.py 0.25` (a quote wider than a quarter of its middle).
"""

import asyncio
import sys

from position_sync_dagster import IBPositionStreamer, PositionUpdate


class WideQuotes:
    """Prints a leg once when its quote becomes wide, and again after it was narrow."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._wide: set[tuple[str, int]] = set()

    async def on_position_update(self, update: PositionUpdate) -> None:
        """Compare one value; without both sides of a quote nothing is known."""
        if update.bid is None or update.ask is None:
            return
        holding, middle = (update.account, update.conid), (update.bid + update.ask) / 2
        if middle <= 0 or update.ask - update.bid <= self._limit * middle:
            self._wide.discard(holding)
        elif holding not in self._wide:
            self._wide.add(holding)
            print(f"{update.symbol} {update.conid}: {update.bid} / {update.ask}", flush=True)


async def main(limit: float) -> None:
    """Stream until Ctrl-C."""
    streamer = IBPositionStreamer()
    streamer.register_handler(WideQuotes(limit))
    await streamer.start()
    try:
        await asyncio.Event().wait()
    finally:
        await streamer.stop()


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1])))
