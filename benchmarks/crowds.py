"""What the header and the live feed wait for while many others ask large questions.

Run `python -m benchmarks.crowds`: it makes the tables of a book, starts `position-sync money` for
them, and asks for the header and the feed as a browser does, beside each crowd in turn. `--home`
takes the tables of a demo instead.
"""

import argparse
import asyncio
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx

from benchmarks.viewers import serving
from position_sync_dagster.processes.home import Home
from tests.support.large_lake import make_lake

# The longest that somebody waits for an answer.
PATIENCE_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Crowd:
    """Those who ask at once, each again as soon as he has an answer.

    Attributes:
        question: What each asks; `{at}` is a past moment, another one each time.
    """

    name: str
    size: int
    question: str


SPOTS = ",".join(map(str, range(-20, 20)))
CROWDS = (
    Crowd(name="nobody", size=0, question=""),
    Crowd(name="60 what-if of each leg", size=60, question="/api/v1/what-if?level=leg&spot=-5,0,5"),
    Crowd(name="60 what-if", size=60, question=f"/api/v1/what-if?spot={SPOTS}&vol=-5,0,5"),
    Crowd(name="60 trades", size=60, question="/api/v1/what-if?close=SYM000-0&spot=-5,0,5"),
    Crowd(name="60 curves", size=60, question="/api/v1/curve?days=3"),
    Crowd(name="60 payoffs", size=60, question="/api/v1/payoff"),
    Crowd(name="60 scenarios", size=60, question="/api/v1/scenarios"),
    Crowd(name="60 figures", size=60, question="/api/v1/figures"),
    Crowd(name="60 positions", size=60, question="/api/v1/positions"),
    Crowd(name="60 reasons", size=60, question="/api/v1/why"),
    Crowd(name="24 pages of the past", size=24, question="/money/data?at={at}"),
    Crowd(name="24 figures of the past", size=24, question="/api/v1/figures?at={at}"),
    Crowd(name="24 positions of the past", size=24, question="/api/v1/positions?at={at}"),
)


@dataclass
class Answers:
    """What came: how long each took, and its status."""

    took: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)

    def add(self, began: float, status: str) -> None:
        self.took.append(time.monotonic() - began)
        self.statuses[status] += 1

    def __str__(self) -> str:
        if not self.took:
            return "none"
        took = sorted(self.took)
        median, longest = took[len(took) // 2], took[-1]
        statuses = ", ".join(f"{number} x {status}" for status, number in self.statuses.items())
        return f"{median:.2f} / {longest:.2f} s ({statuses})"


def a_moment_ago() -> str:
    """Return a time that has passed, and that nobody has asked for."""
    return f"{datetime.now(UTC) - timedelta(seconds=1):%Y-%m-%dT%H:%M:%S.%fZ}"


async def ask(client: httpx.AsyncClient, path: str, answers: Answers) -> httpx.Response | None:
    began = time.monotonic()
    try:
        answer = await client.get(path)
    except httpx.TransportError as error:
        answers.add(began, type(error).__name__)
        return None
    answers.add(began, str(answer.status_code))
    return answer


async def member(client: httpx.AsyncClient, crowd: Crowd, of: Answers) -> None:
    while True:
        answer = await ask(client, crowd.question.format(at=a_moment_ago()), of)
        if answer is not None and answer.status_code == 503:
            await asyncio.sleep(float(answer.headers.get("retry-after", 1)))


async def look_at_header(client: httpx.AsyncClient, of: Answers) -> None:
    while True:
        await ask(client, "/api/v1/header", of)
        await asyncio.sleep(0.5)


async def look_at_feed(client: httpx.AsyncClient, of: Answers) -> None:
    sequence = 0
    while True:
        answer = await ask(client, f"/money/data?after={sequence}", of)
        if answer is not None and answer.status_code == 200:
            sequence = answer.json()["sequence"]


async def measure(address: str, crowd: Crowd, seconds: float) -> str:
    """Return what the header, the feed, and the crowd itself got."""
    header, feed, large = Answers(), Answers(), Answers()
    limits = httpx.Limits(max_connections=200)
    async with httpx.AsyncClient(
        base_url=address, timeout=PATIENCE_S, trust_env=False, limits=limits
    ) as client:
        tasks = [
            asyncio.create_task(look)
            for look in (
                look_at_header(client, header),
                look_at_feed(client, feed),
                *(member(client, crowd, large) for _ in range(crowd.size)),
            )
        ]
        await asyncio.wait(tasks, timeout=seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return f"| {crowd.name} | {header} | {feed} | {large} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--home", type=Path)
    parser.add_argument("--legs", type=int, default=1000)
    parser.add_argument("--names", type=int, default=20, help="underlyings of --legs")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--only", default="", help="crowds whose names have this")
    options = parser.parse_args()
    if options.home:
        measure_home(options.home, options.seconds, options.only)
        return

    with tempfile.TemporaryDirectory(prefix="crowds-") as folder:
        home = Home.at(Path(folder))
        home.prepare()
        home.update_settings({})
        make_lake(home.lake, options.legs, options.names)
        measure_home(home.path, options.seconds, options.only)


def measure_home(home: Path, seconds: float, only: str) -> None:
    print("| beside | header: median / longest | live feed | the others |")
    print("|---|---|---|---|")
    for crowd in CROWDS:
        if only in crowd.name:  # a server for each: nothing waits there for the crowd before
            with serving(home) as (_server, address):
                print(asyncio.run(measure(address, crowd, seconds)), flush=True)


if __name__ == "__main__":
    main()
