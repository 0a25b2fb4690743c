"""The simulator as a program that serves until a signal."""

from __future__ import annotations

import asyncio
import json
import signal
import sys

from position_sync_dagster.simulator.books.loader import load_book
from position_sync_dagster.simulator.control.scenario import Event, load_scenario, play
from position_sync_dagster.simulator.errors import SimulatorError
from position_sync_dagster.simulator.server import Simulator


def run(
    *,
    book: str = "demo",
    host: str = "127.0.0.1",
    port: int = 7497,
    control_port: int | None = 0,
    seed: int = 7,
    max_lines: int = 100,
    tick_interval_s: float = 0.5,
    refresh_interval_s: float = 180.0,
    scenario: str | None = None,
    tick_ring: int = 0,
) -> int:
    """Serve a book until SIGINT or SIGTERM, and return the exit code.

    Prints one line of JSON with `port` and `control_port` when it is ready. A bad book, a bad
    scenario or a taken port is one line on stderr and exit code 2.
    """
    try:
        simulator = Simulator(
            load_book(book),
            seed=seed,
            host=host,
            port=port,
            control_port=control_port,
            max_lines=max_lines,
            tick_interval_s=tick_interval_s,
            refresh_interval_s=refresh_interval_s,
            tick_ring=tick_ring,
        )
        events = [] if scenario is None else load_scenario(scenario)
        asyncio.run(_serve(simulator, events))
    except SimulatorError as problem:
        print(f"simulator: {problem}", file=sys.stderr, flush=True)  # noqa: T201 - a program's output
        return 2
    return 0


async def _serve(simulator: Simulator, events: list[Event]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with simulator as sim:
        ready = {"port": sim.port, "control_port": sim.control_port, "host": sim.host}
        print(json.dumps(ready), flush=True)  # noqa: T201 - whoever started us reads this line
        player = asyncio.create_task(play(sim, events))
        await stop.wait()
        player.cancel()
