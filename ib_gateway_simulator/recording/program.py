"""The recorder as a program: it records until its time is over, or until a signal."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

from ib_gateway_simulator.errors import PortInUseError, SimulatorError
from ib_gateway_simulator.recording.proxy import LOCALHOST, Proxy
from ib_gateway_simulator.recording.recorder import Recorder


def run(
    out: Path,
    gateway: tuple[str, int],
    *,
    port: int = 0,
    minutes: float = 30.0,
    keep_quantities: bool = False,
) -> int:
    """Record for so many minutes, or until SIGINT or SIGTERM, and return the exit code.

    Prints one line of JSON with `port`, `host` and `gateway` when it listens, and one with what
    was recorded at the end. A file that exists or a port in use is one line on stderr and exit
    code 2; a recording that ended early, because the disk was full for example, is exit code 1.
    """
    recorder = Recorder(out, keep_quantities=keep_quantities)
    try:
        with recorder:
            proxy = Proxy(recorder, gateway, port=port)
            try:
                asyncio.run(_record(proxy, gateway, minutes * 60.0))
            except PortInUseError:
                recorder.path.unlink(missing_ok=True)
                raise
    except SimulatorError as error:
        print(f"record: {error}", file=sys.stderr, flush=True)  # noqa: T201 - a program's output
        return 2

    done = {
        "recording": str(out),
        "entries": recorder.entries,
        "connections": proxy.connections,
        "not_passed_on": proxy.refused,
        "failed": recorder.failed,
    }
    print(json.dumps(done), flush=True)  # noqa: T201 - a program's output
    if recorder.failed is None:
        return 0

    return 1


async def _record(proxy: Proxy, gateway: tuple[str, int], seconds: float) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with proxy:
        ready = {"port": proxy.port, "host": LOCALHOST, "gateway": "{}:{}".format(*gateway)}
        print(json.dumps(ready), flush=True)  # noqa: T201 - the user's client connects there
        try:
            async with asyncio.timeout(seconds):
                await stop.wait()
        except TimeoutError:
            return
