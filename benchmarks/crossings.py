"""How many of the program's own modules a value crosses, over the simulator's small book.

`python -m benchmarks.crossings [--names]` counts the modules in which a function was called: in a
second of ticks that become rows, in a refresh, and in a drain. The other work of a stream (its
steps and its heartbeats) falls into most seconds, and is counted with the ticks.
"""

import argparse
import asyncio
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Any

from ib_gateway_simulator import SimulatedGateway, load_book
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.stream_parts import with_money
from position_sync_dagster.settings import load_settings
from position_sync_dagster.sync.drain import drain
from position_sync_dagster.sync.stream.streamer import stream
from tests.support.booked_legs import terms_of

PACKAGE = "position_sync_dagster"
SECONDS = 5


class CalledModules:
    """Collects the modules of the package in which a function is called, in any new thread."""

    def __init__(self) -> None:
        self._found: set[str] | None = None
        threading.setprofile(self._note)
        sys.setprofile(self._note)

    @contextmanager
    def collected(self) -> Iterator[set[str]]:
        """Collect the modules while the block runs."""
        self._found = found = set[str]()
        try:
            yield found
        finally:
            self._found = None

    def _note(self, frame: FrameType, event: str, _argument: Any) -> None:
        name = frame.f_globals.get("__name__", "")
        if self._found is not None and event == "call" and name.startswith(PACKAGE):
            self._found.add(name)


async def add_legs(lake: MoneyLake) -> None:
    """Make each holding of the book a leg of a strategy."""
    book = load_book("small")
    for conid in {opening.conid for opening in book.openings}:
        await lake.registry.add_active(
            conid=conid, strategy_id="crossings", **terms_of(conid, book)
        )


async def measured(folder: Path) -> dict[str, list[set[str]]]:
    """Stream and drain the book, and return the modules that were called."""
    modules, lake = CalledModules(), MoneyLake(folder)
    await lake.initialize()
    await add_legs(lake)
    found: dict[str, list[set[str]]] = {"a second of ticks": [], "a drain": []}
    async with SimulatedGateway(book="small", seed=7) as gateway:
        settings = load_settings(_env_file=None, lake=str(folder), gateway_port=gateway.port)
        stop = asyncio.Event()
        running = asyncio.create_task(stream(lake, settings, stop=stop, complete=with_money))
        async for _rows in lake.updates.follow("start"):
            if await lake.updates.count():
                break
        for _ in range(SECONDS):
            with modules.collected() as called:
                await asyncio.sleep(1.0)
            found["a second of ticks"].append(called)
        stop.set()
        await running
    with modules.collected() as called:
        await drain(lake, settings)
    found["a drain"].append(called)
    return found


def main() -> None:
    """Print the counts, of the ticks the median of some seconds."""
    parser = argparse.ArgumentParser(prog="crossings", description=__doc__)
    parser.add_argument("--names", action="store_true", help="name the modules")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measured(Path(folder)))
    for what, counts in found.items():
        print(f"{what}: {median(map(len, counts)):g} modules")
        if chosen.names:
            print("\n".join(f"  {name}" for name in sorted(counts[-1])))


if __name__ == "__main__":
    main()
