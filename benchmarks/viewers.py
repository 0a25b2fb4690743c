"""What the money page costs: processor time and memory of its server with 0, 1 and 20 viewers.

Run beside a demo: `python -m benchmarks.viewers --home .demo`. It starts `position-sync money` for
the demo's tables, and viewers that ask for figures as the browser does. `--legs 20000` makes the
tables of a book at rest, and says how long the first answer took.
"""

import argparse
import asyncio
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

from position_sync_dagster.processes.home import Home
from tests.support.demo_program import PROGRAM
from tests.support.large_lake import make_lake
from tests.support.ports import free_port

VIEWERS = (0, 1, 20)


async def watch(client: httpx.AsyncClient, until: float, seen: list[float]) -> None:
    """Ask as a browser does, and note when each answer came and how many bytes it had."""
    sequence = 0
    while time.monotonic() < until:
        answer = await client.get("/money/data", params={"after": sequence})
        if answer.status_code == 200:
            sequence = answer.json()["sequence"]
            seen.append(float(answer.num_bytes_downloaded))


async def measure(server: psutil.Process, address: str, viewers: int, seconds: float) -> str:
    seen: list[float] = []
    first_s = 0.0
    async with httpx.AsyncClient(base_url=address, timeout=60, trust_env=False) as client:
        if viewers:  # what is imported first is not part of the share
            asked = time.monotonic()
            await client.get("/money/data")
            first_s = time.monotonic() - asked
        before, began = server.cpu_times(), time.monotonic()
        until = began + seconds
        await asyncio.gather(*(watch(client, until, seen) for _ in range(viewers)))
        await asyncio.sleep(max(0.0, until - time.monotonic()))
    took, after = time.monotonic() - began, server.cpu_times()
    share = (after.user + after.system - before.user - before.system) / took
    memory = server.memory_info().rss / 1e6
    rate = len(seen) / took / viewers if viewers else 0.0
    size = sum(seen) / len(seen) / 1000 if seen else 0.0
    figures = f"{share:.1%} | {memory:.0f} MB | {first_s:.1f} s | {rate:.2f} | {size:.1f} kB"
    return f"| {viewers} | {figures} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    book = parser.add_mutually_exclusive_group(required=True)
    book.add_argument("--home", type=Path)
    book.add_argument("--legs", type=int)
    parser.add_argument("--names", type=int, default=400, help="underlyings of --legs")
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    if options.home:
        measure_home(options.home, options.seconds)
        return

    with tempfile.TemporaryDirectory(prefix="viewers-") as folder:
        home = Home.at(Path(folder))
        home.prepare()
        home.update_settings({})
        make_lake(home.lake, options.legs, options.names)
        measure_home(home.path, options.seconds)


@contextmanager
def serving(home: Path) -> Iterator[tuple[psutil.Process, str]]:
    """Serve the pages of a home; yield the process and its address."""
    port = free_port()
    command = [PROGRAM, "money", "--home", str(home), "--port", str(port)]
    address = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            while process.poll() is None:
                try:
                    httpx.get(f"{address}/money", trust_env=False)
                    break
                except httpx.TransportError:
                    time.sleep(0.2)
            yield psutil.Process(process.pid), address
        finally:
            process.terminate()


def measure_home(home: Path, seconds: float) -> None:
    with serving(home) as (server, address):
        print("| viewers | share of a core | memory | first | answers a second each | size |")
        print("|---|---|---|---|---|---|")
        for viewers in VIEWERS:
            print(asyncio.run(measure(server, address, viewers, seconds)), flush=True)


if __name__ == "__main__":
    main()
