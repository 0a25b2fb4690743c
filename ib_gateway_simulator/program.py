"""The simulator as a program that serves until a signal."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import TYPE_CHECKING

from ib_gateway_simulator.books.loader import load_book
from ib_gateway_simulator.control.scenario import Event, load_scenario, play
from ib_gateway_simulator.errors import SimulatorError
from ib_gateway_simulator.options import PROGRAM_OPTIONS, Options
from ib_gateway_simulator.server import SimulatedGateway

if TYPE_CHECKING:
    from ib_gateway_simulator.replay.server import Replay

DEFAULT_BOOK = "demo"
MOST_OF_AN_ERROR = 500

PARENT_LOOK_S = 0.5
CLIENT_LOOK_S = 0.1


def run(
    book: str = DEFAULT_BOOK,
    options: Options = PROGRAM_OPTIONS,
    *,
    scenario: str | None = None,
    end_with: int | None = None,
) -> int:
    """Serve a book until SIGINT or SIGTERM, and return the exit code.

    Prints one line of JSON with `port`, `control_port` and `host` when it is ready. A bad book,
    a bad scenario or a port in use is one line on stderr and exit code 2.

    Args:
        book: The name of a book of this package, or the path of a YAML file.
        options: How the gateway listens and behaves.
        scenario: The path of a YAML list of actions; their times count from the first client on.
        end_with: The process id of a parent. When it ends, the program ends.
    """
    try:
        simulator = SimulatedGateway(load_book(book), options)
        events = [] if scenario is None else load_scenario(scenario)
        asyncio.run(_serve(simulator, events, end_with))
    except (SimulatorError, OSError, UnicodeError) as error:
        print_trouble(error)
        return 2
    return 0


def replay(path: str, options: Options = PROGRAM_OPTIONS, *, speed: float = 1.0) -> int:
    """Play a recording until SIGINT or SIGTERM, and return the exit code, as `run` does.

    Args:
        path: The recording.
        options: Where to listen; the others have no meaning here, and there is no control port.
        speed: How many recorded seconds a second takes.
    """
    from ib_gateway_simulator.recordings.recording import load_recording
    from ib_gateway_simulator.replay.server import Replay

    try:
        recording = load_recording(path)
        asyncio.run(_replay(Replay(recording, host=options.host, port=options.port, speed=speed)))
    except (SimulatorError, OSError, UnicodeError) as error:
        print_trouble(error)
        return 2
    return 0


async def _replay(server: Replay) -> None:
    stop = stop_signal()
    async with server:
        ready = {"port": server.port, "control_port": None, "host": server.host}
        print(json.dumps(ready), flush=True)  # noqa: T201 - the process that started us reads this
        await stop.wait()


def stop_signal() -> asyncio.Event:
    """Return an event that SIGINT and SIGTERM set from now on."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def _stop_with(parent: int, stop: asyncio.Event) -> None:
    while os.getppid() == parent:  # noqa: ASYNC110 - no event comes when it ends
        await asyncio.sleep(PARENT_LOOK_S)
    stop.set()


def print_trouble(error: Exception) -> None:
    """Print an error on one line: it may repeat an argument of any length, with any characters."""
    text = str(error)
    if len(text) > MOST_OF_AN_ERROR:
        text = f"{text[:MOST_OF_AN_ERROR]}…"

    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    print(f"simulator: {shown}", file=sys.stderr, flush=True)  # noqa: T201 - a program's output


async def play_to_a_client(simulator: SimulatedGateway, events: list[Event]) -> None:
    """Play a scenario once a client has logged in: however late it comes, it sees all of it."""
    while not simulator.stats()["connections"]["total"]:  # noqa: ASYNC110 - no event comes
        await asyncio.sleep(CLIENT_LOOK_S)
    await play(simulator, events)


async def _serve(
    simulator: SimulatedGateway, events: list[Event], end_with: int | None = None
) -> None:
    stop = stop_signal()
    async with simulator as sim:
        ready = {"port": sim.port, "control_port": sim.control_port, "host": sim.host}
        print(json.dumps(ready), flush=True)  # noqa: T201 - the process that started us reads this
        tasks = [asyncio.create_task(play_to_a_client(sim, events))]
        if end_with is not None:
            tasks.append(asyncio.create_task(_stop_with(end_with, stop)))
        await stop.wait()
        for task in tasks:
            task.cancel()
