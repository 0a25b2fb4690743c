"""From a tick leaving the simulator to the commit that holds it or a newer value."""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
import urllib.request
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import psutil
from deltalake import DeltaTable

from benchmarks.bench import Bench
from benchmarks.outcome import Line, Target
from position_sync_dagster.lake.given_leg import make_leg
from position_sync_dagster.money.lake import MoneyLake
from tests.support.booked_legs import terms_of

# The start takes the first seconds: connecting, the first download, contract details.
SETTLE_S = 5.0

TARGETS = {"tick to row p95": 1100.0, "newest value's age p95": 250.0, "share of one core": 10.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The figures of one run of one process; times in ms, memory in MB."""

    tick_to_row: list[float]
    age: list[float]
    rows_per_commit: float
    cpu_percent: float
    memory_start: float
    memory_end: float


def latency(bench: Bench) -> None:
    """Measure 100 lines at 10 ticks a second, and 20 lines at 2."""
    for lines, rate in ((100, 10), (20, 2)):
        seconds = bench.size(60, 8)
        ours = measure(bench, "streamer", lines, rate, seconds)
        theirs = measure(bench, "prototype", lines, rate, seconds)
        state = f"{lines} lines × {rate}/s"
        rows = [
            _line("tick to row p50", state, ours.tick_to_row, theirs.tick_to_row, 0.5),
            _line("tick to row p95", state, ours.tick_to_row, theirs.tick_to_row, 0.95),
            _line("tick to row p99", state, ours.tick_to_row, theirs.tick_to_row, 0.99),
            _line("newest value's age p95", state, ours.age, theirs.age, 0.95),
            _plain("rows per commit", state, ours.rows_per_commit, theirs.rows_per_commit, ""),
            _plain("share of one core", state, ours.cpu_percent, theirs.cpu_percent, "%"),
            _plain("memory at the start", state, ours.memory_start, theirs.memory_start, "MB"),
            _plain("memory at the end", state, ours.memory_end, theirs.memory_end, "MB"),
            Line(
                what="memory, at the end",
                state=state,
                ours=ours.memory_end,
                theirs=ours.memory_start,
                unit="MB",
                against="ours, at the start",
                target=Target(ratio=1.1),
            ),
        ]
        bench.report.add(f"The stream, {state}, {seconds} s", rows)


def measure(bench: Bench, program: str, lines: int, rate: int, seconds: int) -> Figures:
    """Run a program against a simulator of its own."""
    lake = bench.new_folder(f"{program}-{lines}")
    lake.mkdir(parents=True)
    legs = asyncio.run(activate(lake, lines))
    (cpu, start, end), sent = run_beside_simulator(lake, program, lines, rate, seconds)
    return _figures(lake, legs, sent, cpu, start, end)


def run_beside_simulator(
    lake: Path, program: str, lines: int, rate: int, seconds: int, **environment: str
) -> tuple[tuple[float, float, float], list[dict[str, float]]]:
    """Run a program; give its share of a core, its memory twice, and the ticks that were sent."""
    simulator = subprocess.Popen(
        [
            sys.executable, "-m", "ib_gateway_simulator", "--port", "0",
            "--control-port", "0", "--book", "demo", "--max-lines", "105",
            "--tick-interval", str(1 / rate),
            "--tick-ring", str(lines * rate * 8 * (seconds + 30)),
        ],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert simulator.stdout is not None
        ports = json.loads(simulator.stdout.readline())
        span = seconds + 2 * SETTLE_S
        child = subprocess.Popen(
            [
                sys.executable, "-m", f"benchmarks.stream.{program}", str(lake),
                str(ports["port"]), str(span),
            ],
            env=os.environ | environment,
        )  # fmt: skip
        used = _watch(child, seconds)
        child.wait(60)
        url = f"http://127.0.0.1:{ports['control_port']}/ticks?recent=1"
        with urllib.request.urlopen(url) as answer:
            sent = json.loads(answer.read())
    finally:
        simulator.terminate()
        simulator.wait()
    return used, sent


def _watch(child: "subprocess.Popen[bytes]", seconds: int) -> tuple[float, float, float]:
    process = psutil.Process(child.pid)
    time.sleep(SETTLE_S)
    process.cpu_percent()
    start = process.memory_info().rss / 1e6
    time.sleep(seconds)
    return process.cpu_percent(), start, process.memory_info().rss / 1e6


def _figures(
    lake: Path, legs: set[int], sent: list[dict[str, float]], cpu: float, start: float, end: float
) -> Figures:
    ticks: dict[int, list[float]] = defaultdict(list)
    for tick in sent:
        if tick["field"] == "mark" and tick["conid"] in legs:
            ticks[int(tick["conid"])].append(tick["sent_at_us"] / 1e6)
    table = DeltaTable(lake / "position_updates")
    committed = {
        entry["batch_id"]: entry["timestamp"] / 1e3
        for entry in table.history()
        if entry.get("batch_id")
    }
    frame = pl.DataFrame(table.scan(columns=["conid", "timestamp", "batch_id"]))
    rows: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for conid, at, batch_id in frame.iter_rows():
        if batch_id in committed:
            rows[conid].append((at.replace(tzinfo=UTC).timestamp(), committed[batch_id]))
    first = min(at for found in rows.values() for at, _ in found) + SETTLE_S
    to_row, age = [], []
    for conid, sent_at in ticks.items():
        known = sorted(rows.get(conid, []))
        if len(sent_at) < len(known):
            continue  # the price of a worthless option does not move: its rows are of its greeks

        moments = [at for at, _ in known]
        for moment in sent_at:
            place = bisect_left(moments, moment)
            if moment >= first and place < len(known):
                to_row.append((known[place][1] - moment) * 1e3)
        for at, commit in known:
            place = bisect_right(sent_at, at)
            if at >= first and place:
                age.append((commit - sent_at[place - 1]) * 1e3)
    sizes = frame.group_by("batch_id").len().get_column("len")
    return Figures(
        tick_to_row=to_row,
        age=age,
        rows_per_commit=float(sizes.median() or 0),  # type: ignore[arg-type]
        cpu_percent=cpu,
        memory_start=start,
        memory_end=end,
    )


async def activate(folder: Path, lines: int) -> set[int]:
    """Add the first legs of the demo's book to the registry."""
    from ib_gateway_simulator import load_book

    lake = MoneyLake(folder)
    await lake.registry.initialize()
    book = load_book("demo")
    held = sorted({opening.conid for opening in book.openings})[:lines]
    now = datetime.now(UTC)
    await lake.registry.add_many(
        make_leg(conid=conid, strategy_id="all", added_at=now, **terms_of(conid, book))
        for conid in held
    )
    (folder / "legs.txt").write_text("\n".join(map(str, held)))
    return set(held)


def quantile(values: Sequence[float], share: float) -> float:
    return statistics.quantiles(values, n=100)[round(share * 100) - 1]


def _line(what: str, state: str, ours: list[float], theirs: list[float], share: float) -> Line:
    bound = TARGETS.get(what)
    return Line(
        what=what,
        state=state,
        ours=quantile(ours, share),
        theirs=quantile(theirs, share),
        against="prototype",
        samples=len(ours),
        target=Target(value=bound) if bound else None,
    )


def _plain(what: str, state: str, ours: float, theirs: float, unit: str) -> Line:
    bound = TARGETS.get(what)
    return Line(
        what=what,
        state=state,
        ours=ours,
        theirs=theirs,
        unit=unit,
        against="prototype",
        target=Target(value=bound) if bound else None,
    )
