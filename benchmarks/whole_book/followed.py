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
from ib_async import IB, Contract, StartupFetchNONE

from benchmarks.bench import Bench
from benchmarks.book.generated import GeneratedBook, generate
from benchmarks.book.running import LINES, simulate
from benchmarks.outcome import Line, Target
from position_sync_dagster.domain.position_update import ValueOrigin
from position_sync_dagster.gateway.translate import details_of
from position_sync_dagster.lake.lake import all_broker_rows
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.reports.book import newest_values
from position_sync_dagster.settings import Settings, load_settings
from position_sync_dagster.sync.broker_view import LakeValues
from position_sync_dagster.sync.confirmations import (
    CONFIRMED,
    with_confirmed,
)
from position_sync_dagster.sync.drain import QueueWorker

STREAMER = Path(__file__).parents[1] / "trust" / "streamer.py"
SUBSCRIPTIONS = "POSITION_SYNC_PNL_SUBSCRIPTIONS"
UNDERLYINGS = "POSITION_SYNC_UNDERLYING_LINES"
HANGS_S = 600.0
DRAIN_S = 5.0
# Part of the holdings that must be followed before the measurement starts.
SETTLED = 0.99


class Figures(NamedTuple):
    """What was measured; `followed` is of the holdings whose newest value PnLSingle gave."""

    age_p50_s: float
    age_p95_s: float
    followed: float
    followed_p50_s: float
    followed_p95_s: float
    rows_an_hour: float
    broker_rows_an_hour: float
    broker_commits_an_hour: float
    messages_a_second: float
    share_of_core: float
    memory_mb: float
    peak_lines: int
    greeks: float
    greeks_p50_s: float
    greeks_p95_s: float
    delta_error_p50: float
    delta_error_p95: float


class Running:
    """A simulator, a stream and the tables between them.

    Attributes:
        drained: How many rows of monitored holdings were written so far.
    """

    def __init__(
        self, folder: Path, book: GeneratedBook, subscriptions: int, *, underlyings: int
    ) -> None:
        folder.mkdir(parents=True)
        self.lake = MoneyLake(folder / "lake")
        self.drained = 0
        self.book = book
        self._simulator, ports = simulate(book)
        self._control = f"http://127.0.0.1:{ports['control_port']}"
        self.settings = load_settings(
            _env_file=None, lake=str(folder / "lake"), gateway_port=ports["port"]
        )
        strategies = yaml.safe_load(book.strategies.read_text())["strategies"]
        legs = [
            {**leg, "strategy_id": one["strategy_id"], "expiry": str(leg["expiry"])}
            for one in strategies
            for leg in one["legs"]
        ]
        asyncio.run(self._learn(ports["port"]))
        self.stream = subprocess.Popen(
            [
                sys.executable, str(STREAMER), str(folder / "lake"), str(ports["port"]),
                str(HANGS_S * 4), *map(json.dumps, legs),
            ],
            env=os.environ | {SUBSCRIPTIONS: str(subscriptions), UNDERLYINGS: str(underlyings)},
            stdout=subprocess.DEVNULL,
            stderr=(folder / "stream.log").open("w"),
        )  # fmt: skip

    async def _learn(self, port: int) -> None:
        """Store all contract details, as on each start but the first, which fetches 10 a second."""
        ib, conids = IB(), [*self.book.active, *self.book.monitored]
        ib.client.MaxRequests = 0
        await self.lake.initialize()
        await ib.connectAsync("127.0.0.1", port, clientId=99, fetchFields=StartupFetchNONE)
        try:
            for start in range(0, len(conids), 500):
                chunk = conids[start : start + 500]
                asked = (ib.reqContractDetailsAsync(Contract(conId=conid)) for conid in chunk)
                found = await asyncio.gather(*asked)
                now = datetime.now(UTC)
                details = [details_of(one, seen_at=now) for several in found for one in several]
                await asyncio.to_thread(self.lake.contracts.put, details)
        finally:
            ib.disconnect()

    def statistics(self) -> dict[str, Any]:
        """Give the simulator's counts."""
        answer = httpx.get(f"{self._control}/stats", timeout=60, trust_env=False)
        counts: dict[str, Any] = answer.raise_for_status().json()
        return counts

    def ages(self) -> pl.DataFrame:
        """Give source and age of the newest value of each monitored holding, as readers see it."""
        holdings = all_broker_rows(self.lake, self.settings)
        monitored = pl.col("conid").is_in(list(self.book.monitored))
        rows = newest_values(self.lake.updates.sync.latest().filter(monitored), holdings)
        now = datetime.now(UTC)
        return with_confirmed(rows, holdings, now).select(
            "value_source", age_s=(pl.lit(now) - pl.col(CONFIRMED)).dt.total_milliseconds() / 1000
        )

    def greeks(self) -> pl.DataFrame:
        """Give the computed greeks as readers see them: ages, and errors of delta."""
        truth = httpx.get(f"{self._control}/greeks", timeout=60, trust_env=False).json()
        deltas = {int(conid): one["delta"] for conid, one in truth.items()}
        now = datetime.now(UTC)
        rows = all_broker_rows(self.lake, self.settings)
        return rows.filter(pl.col("greeks_source") == "MODEL").select(
            age_s=(pl.lit(now) - pl.col("greeks_time")).dt.total_milliseconds() / 1000,
            error=(pl.col("delta") - pl.col("conid").replace_strict(deltas)).abs(),
        )

    def close(self) -> None:
        """End both."""
        for process in (self.stream, self._simulator):
            process.terminate()
            process.wait()


@contextmanager
def running(
    folder: Path, book: GeneratedBook, subscriptions: int, *, underlyings: int
) -> Iterator[Running]:
    """Run both until the end of the block."""
    found = Running(folder, book, subscriptions, underlyings=underlyings)
    try:
        yield found
    finally:
        found.close()


async def measure(run: Running, seconds: float, subscribed: int, *, greeks: int) -> Figures:
    """Drain and look until the book has settled, and for some seconds more.

    Args:
        run: What runs.
        seconds: How long to look.
        subscribed: How many holdings are to be followed before.
        greeks: How many options are to have computed greeks before.
    """
    await run.lake.initialize()
    worker = QueueWorker(
        run.lake.queue,
        batch_size="auto",
        values=LakeValues(run.lake, run.settings),
        updates=run.lake.updates,
        settings=run.settings,
    )
    legs, began = run.book.legs, time.monotonic()

    async def drain() -> None:
        while True:
            report = await worker.drain(DRAIN_S)
            run.drained += report.rows
            await asyncio.sleep(DRAIN_S)

    def settled() -> bool:
        has_all = run.lake.updates.sync.latest().height >= legs
        follows = run.statistics()["pnl_subscriptions"] >= SETTLED * subscribed
        return has_all and follows and (not greeks or run.greeks().height >= SETTLED * greeks)

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
    process, table = psutil.Process(run.stream.pid), run.lake.broker_positions.table
    since, sent = datetime.now(UTC), run.statistics()
    cpu, drained = sum(process.cpu_times()[:2]), run.drained
    version, began = await asyncio.to_thread(table.version), time.monotonic()
    ages: list[pl.DataFrame] = []
    greeks: list[pl.DataFrame] = []
    while time.monotonic() - began < seconds:
        ages.append(await asyncio.to_thread(run.ages))
        greeks.append(await asyncio.to_thread(run.greeks))
        await asyncio.sleep(1.0)
    took_s, after = time.monotonic() - began, run.statistics()
    found, modelled = pl.concat(ages), pl.concat(greeks)
    history = await asyncio.to_thread(_rows_added, table, since)
    followed = found.filter(pl.col("value_source") == ValueOrigin.PNL_SINGLE.value)
    return Figures(
        age_p50_s=_quantile(found, "age_s", 0.5),
        age_p95_s=_quantile(found, "age_s", 0.95),
        followed=followed.height / len(ages),
        followed_p50_s=_quantile(followed, "age_s", 0.5),
        followed_p95_s=_quantile(followed, "age_s", 0.95),
        rows_an_hour=(run.drained - drained) * 3600 / took_s,
        broker_rows_an_hour=history * 3600 / took_s,
        broker_commits_an_hour=(table.version() - version) * 3600 / took_s,
        messages_a_second=(_messages(after) - _messages(sent)) / took_s,
        share_of_core=100 * (sum(process.cpu_times()[:2]) - cpu) / took_s,
        memory_mb=process.memory_info().rss / 2**20,
        peak_lines=after["peak_lines"],
        greeks=modelled.height / len(greeks) / len(run.book.monitored),
        greeks_p50_s=_quantile(modelled, "age_s", 0.5),
        greeks_p95_s=_quantile(modelled, "age_s", 0.95),
        delta_error_p50=_quantile(modelled, "error", 0.5),
        delta_error_p95=_quantile(modelled, "error", 0.95),
    )


def _quantile(frame: pl.DataFrame, name: str, at: float) -> float:
    return float(frame.get_column(name).quantile(at) or 0)


def _rows_added(table: Any, since: datetime) -> int:
    """Count the rows of the appending commits; the folds rewrite rows that were there."""
    history = table.snapshot(lambda handle: handle.history())
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
    "age_p95_s": ("age of a monitored value, p95", "s", None),
    "followed": ("holdings with a value of PnLSingle", "", None),
    "followed_p50_s": ("age of a value of PnLSingle, p50", "s", None),
    "followed_p95_s": ("age of a value of PnLSingle, p95", "s", None),
    "rows_an_hour": ("rows of monitored holdings in the ledger, an hour", "", None),
    "broker_rows_an_hour": ("rows added to broker_positions, an hour", "", None),
    "broker_commits_an_hour": ("commits of broker_positions, an hour", "", None),
    "messages_a_second": ("messages sent to the gateway, a second", "", Target(value=40)),
    "share_of_core": ("stream's share of one core", "%", None),
    "memory_mb": ("stream's memory", "MB", None),
    "peak_lines": ("peak lines", "", None),
}
# How many points of a core the first of two modes takes more than the second.
MORE = "more_of_core"

GREEKS_SHOWN = {
    "greeks": ("part of monitored options with computed greeks", "", None),
    "greeks_p50_s": ("age of computed greeks, p50", "s", None),
    "greeks_p95_s": ("age of computed greeks, p95", "s", None),
    "delta_error_p50": ("error of delta, p50", "", Target(value=0.01)),
    "delta_error_p95": ("error of delta, p95", "", Target(value=0.03)),
}


def followed(bench: Bench) -> None:
    """Measure books with their monitored holdings followed and not, without computed greeks."""
    for legs in _sizes(bench):
        book = generate(bench.new_folder(f"book-{legs}"), legs, _active(bench))
        modes = {"followed": (MOST, 0), "not followed": (0, 0)}
        goals = {
            figure: (what, unit, _goal(figure, legs) or target)
            for figure, (what, unit, target) in SHOWN.items()
        }
        more = ("stream's share, more than not followed", "points", _goal(MORE, legs))
        _compare(bench, book, modes, goals | {MORE: more})


def _goal(figure: str, legs: int) -> Target | None:
    """Return the goal for a book; in a large one, the ages of the followed holdings have one."""
    small = legs <= SIZE
    goals = {"followed_p95_s": Target(value=6 if small else 8)}
    if legs <= MOST:
        goals |= {"age_p95_s": goals["followed_p95_s"], MORE: Target(value=2 if small else 6)}
    return goals.get(figure)


def computed(bench: Bench) -> None:
    """Measure books of options on 12 underlyings, with computed greeks and without."""
    for legs in _sizes(bench):
        folder = bench.new_folder(f"honest-{legs}")
        book = generate(folder, legs, _active(bench), honest=UNDERLYING_COUNT)
        modes = {"with greeks": (MOST, LINES), "without greeks": (MOST, 0)}
        _compare(bench, book, modes, SHOWN | GREEKS_SHOWN)


SIZE = 1_000
MOST = Settings.model_fields["pnl_subscriptions"].default
UNDERLYING_COUNT = 12


def _sizes(bench: Bench) -> tuple[int, ...]:
    return bench.legs or (bench.size(SIZE, 200),)


def _active(bench: Bench) -> int:
    return bench.size(30, 10)


def _compare(
    bench: Bench,
    book: GeneratedBook,
    modes: dict[str, tuple[int, int]],
    shown: dict[str, tuple[str, str, Target | None]],
) -> None:
    """Measure a book in two modes, one after the other: subscriptions, lines of underlyings."""
    seconds = bench.budget_s or bench.size(600.0, 20.0)
    found: dict[str, dict[str, Any]] = {}
    for name, (subscriptions, underlyings) in modes.items():
        monitored = len(book.monitored)
        subscribed = len(book.active) + min(monitored, subscriptions)
        folder = bench.new_folder(f"{book.legs}-{name}")
        with running(folder, book, subscriptions, underlyings=underlyings) as run:
            load = os.getloadavg()[0]
            greeks = monitored if underlyings else 0
            measured = asyncio.run(measure(run, seconds, subscribed, greeks=greeks))
            found[name] = measured._asdict()
        bench.report.say(f"{book.legs} legs, {name}, load {load:.1f}: {found[name]}")
    ours, theirs = modes
    found[ours][MORE] = found[ours]["share_of_core"] - found[theirs]["share_of_core"]
    found[theirs][MORE] = None
    lines = [
        Line(
            what=what,
            state=f"{book.legs:,} legs",
            ours=found[ours][figure],
            unit=unit,
            against=theirs if found[ours][figure] and found[theirs][figure] else "",
            theirs=found[theirs][figure] if found[ours][figure] and found[theirs][figure] else None,
            target=target,
        )
        for figure, (what, unit, target) in shown.items()
    ]
    bench.report.add(f"{book.legs:,} legs, {len(book.active)} active, {seconds:g} s", lines)
