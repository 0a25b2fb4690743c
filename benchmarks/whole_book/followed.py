"""A stream over a generated book, with its monitored holdings followed and not followed.

The stream is a process of its own, as is the simulator; this process drains the queue every five
seconds, as Dagster's sensor does, and looks at the tables once a second, as a reader does.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import polars as pl
import psutil
import yaml

from benchmarks.bench import Bench
from benchmarks.book.generated import GeneratedBook, generate
from benchmarks.book.running import simulate
from benchmarks.outcome import Line, Target
from position_sync_dagster.lake.lake import Lake, all_broker_rows
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.drain.broker_view import LakeValues
from position_sync_dagster.sync.drain.worker import QueueWorker
from position_sync_dagster.sync.reports.confirmations import (
    CONFIRMED,
    newest_values,
    with_confirmed,
)

STREAMER = Path(__file__).parents[1] / "trust" / "streamer.py"
SUBSCRIPTIONS = "POSITION_SYNC_PNL_SUBSCRIPTIONS"
HANGS_S = 600.0
DRAIN_S = 5.0
SETTLED = 0.99
"""Part of the holdings that must be followed before the measurement starts."""


class Figures(NamedTuple):
    """What was measured."""

    age_p50_s: float
    age_p95_s: float
    rows_an_hour: float
    broker_rows_an_hour: float
    broker_commits_an_hour: float
    messages_a_second: float
    share_of_core: float
    memory_mb: float
    peak_lines: int


class Running:
    """A simulator, a stream and the tables between them.

    Attributes:
        drained: How many rows of monitored holdings were written so far.
    """

    def __init__(self, folder: Path, book: GeneratedBook, subscriptions: int) -> None:
        folder.mkdir(parents=True)
        self.lake = Lake(folder / "lake")
        self.drained = 0
        self.book = book
        self._simulator, ports = simulate(book)
        self._control = f"http://127.0.0.1:{ports['control_port']}"
        self.settings = Settings(
            _env_file=None, lake=str(folder / "lake"), gateway_port=ports["port"]
        )
        strategies = yaml.safe_load(book.strategies.read_text())["strategies"]
        legs = [
            {**leg, "strategy_id": one["strategy_id"], "expiry": str(leg["expiry"])}
            for one in strategies
            for leg in one["legs"]
        ]
        self.stream = subprocess.Popen(
            [
                sys.executable, str(STREAMER), str(folder / "lake"), str(ports["port"]),
                str(HANGS_S * 4), *map(json.dumps, legs),
            ],
            env=os.environ | {SUBSCRIPTIONS: str(subscriptions)},
            stdout=subprocess.DEVNULL,
            stderr=(folder / "stream.log").open("w"),
        )  # fmt: skip

    def statistics(self) -> dict[str, Any]:
        """Give the simulator's counts."""
        answer = httpx.get(f"{self._control}/stats", timeout=60, trust_env=False)
        counts: dict[str, Any] = answer.raise_for_status().json()
        return counts

    def ages_s(self) -> pl.Series:
        """Give the age of the newest value of each monitored holding, as readers see it."""
        holdings = all_broker_rows(self.lake, self.settings)
        monitored = pl.col("conid").is_in(list(self.book.monitored))
        rows = newest_values(self.lake.updates.sync.latest().filter(monitored), holdings)
        now = datetime.now(UTC)
        confirmed = with_confirmed(rows, holdings, now).get_column(CONFIRMED)
        return (pl.lit(now) - confirmed).dt.total_milliseconds().pipe(_evaluated) / 1000

    def close(self) -> None:
        """End both."""
        for process in (self.stream, self._simulator):
            process.terminate()
            process.wait()


def _evaluated(expression: pl.Expr) -> pl.Series:
    return pl.select(expression).to_series()


@contextmanager
def running(folder: Path, book: GeneratedBook, subscriptions: int) -> Iterator[Running]:
    """Run both until the end of the block."""
    found = Running(folder, book, subscriptions)
    try:
        yield found
    finally:
        found.close()


async def measure(run: Running, seconds: float, subscribed: int) -> Figures:
    """Drain and look until the book has settled, and for some seconds more."""
    await run.lake.initialize()
    worker = QueueWorker(
        run.lake.queue,
        values=LakeValues(run.lake.broker_positions, run.lake.sessions, run.settings),
        updates=run.lake.updates,
        settings=run.settings,
    )
    legs, began = run.book.legs, time.monotonic()

    async def drain() -> None:
        while True:
            report = await worker.drain(DRAIN_S)
            run.drained += sum(one.appended.rows for one in report.batches if one.appended)
            await asyncio.sleep(DRAIN_S)

    def settled() -> bool:
        has_all = run.lake.updates.sync.latest().height >= legs
        return has_all and run.statistics()["pnl_subscriptions"] >= SETTLED * subscribed

    draining = asyncio.create_task(drain())
    try:
        while not await asyncio.to_thread(settled):
            if run.stream.poll() is not None or time.monotonic() - began > HANGS_S:
                raise RuntimeError("The stream ended or hangs: see stream.log in its folder.")
            await asyncio.sleep(1.0)
        await asyncio.sleep(10.0)
        return await _figures(run, seconds)
    finally:
        draining.cancel()
        await asyncio.gather(draining, return_exceptions=True)


async def _figures(run: Running, seconds: float) -> Figures:
    process, table = psutil.Process(run.stream.pid), run.lake.broker_positions
    since, sent = datetime.now(UTC), run.statistics()
    cpu, drained = sum(process.cpu_times()[:2]), run.drained
    version, began = await table.version(), time.monotonic()
    ages: list[pl.Series] = []
    while time.monotonic() - began < seconds:
        ages.append(await asyncio.to_thread(run.ages_s))
        await asyncio.sleep(1.0)
    took_s, after = time.monotonic() - began, run.statistics()
    found = pl.concat(ages)
    history = await asyncio.to_thread(_rows_added, table, since)
    return Figures(
        age_p50_s=float(found.quantile(0.5) or 0),
        age_p95_s=float(found.quantile(0.95) or 0),
        rows_an_hour=(run.drained - drained) * 3600 / took_s,
        broker_rows_an_hour=history * 3600 / took_s,
        broker_commits_an_hour=(await table.version() - version) * 3600 / took_s,
        messages_a_second=(_messages(after) - _messages(sent)) / took_s,
        share_of_core=(sum(process.cpu_times()[:2]) - cpu) / took_s,
        memory_mb=process.memory_info().rss / 2**20,
        peak_lines=after["peak_lines"],
    )


def _rows_added(table: Any, since: datetime) -> int:
    """Count the rows of the appending commits; the folds rewrite rows that were there."""
    history = table.sync.table.snapshot(lambda handle: handle.history())
    return sum(
        int(entry.get("operationMetrics", {}).get("num_added_rows", 0))
        for entry in history
        if entry["timestamp"] >= since.timestamp() * 1000
    )


def _messages(statistics: dict[str, Any]) -> int:
    """Count the messages that the simulator received."""
    return sum(sum(counts.values()) for counts in statistics["requests"].values())


SHOWN = {
    "age_p50_s": ("age of a monitored value, p50", "s", None),
    "age_p95_s": ("age of a monitored value, p95", "s", Target(value=6)),
    "rows_an_hour": ("rows of monitored holdings in the ledger, an hour", "", None),
    "broker_rows_an_hour": ("rows added to broker_positions, an hour", "", None),
    "broker_commits_an_hour": ("commits of broker_positions, an hour", "", None),
    "messages_a_second": ("messages sent to the gateway, a second", "", Target(value=40)),
    "share_of_core": ("stream's share of one core", "", None),
    "memory_mb": ("stream's memory", "MB", None),
    "peak_lines": ("peak lines", "", Target(ratio=1)),
}


def followed(bench: Bench) -> None:
    """Measure books with their monitored holdings followed and not, one after the other."""
    default = Settings.model_fields["pnl_subscriptions"].default
    seconds = bench.budget_s or bench.size(600.0, 20.0)
    for legs in bench.legs or (bench.size(1_000, 200),):
        active = bench.size(30, 10)
        book = generate(bench.new_folder(f"book-{legs}"), legs, active)
        found = {}
        for name, subscriptions in (("followed", default), ("not followed", 0)):
            subscribed = active + min(legs - active, subscriptions)
            with running(bench.new_folder(f"{legs}-{name}"), book, subscriptions) as run:
                load = os.getloadavg()[0]
                found[name] = asyncio.run(measure(run, seconds, subscribed))._asdict()
            bench.report.say(f"{legs} legs, {name}, load {load:.1f}: {found[name]}")
        lines = [
            Line(
                what=what,
                state=f"{legs:,} legs",
                ours=found["followed"][figure],
                unit=unit,
                against="not followed" if found["followed"][figure] else "",
                theirs=found["not followed"][figure] if found["followed"][figure] else None,
                target=target,
            )
            for figure, (what, unit, target) in SHOWN.items()
        ]
        bench.report.add(f"{legs:,} legs, {active} active, {seconds:g} s", lines)
