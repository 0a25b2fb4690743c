"""From a tick to another process that follows, and what readers cost that wait."""

import asyncio
import os
import subprocess
import sys
import time
from bisect import bisect_left
from collections import defaultdict

import polars as pl
import psutil
from deltalake import DeltaTable

from benchmarks.bench import Bench
from benchmarks.outcome import Line, Target
from benchmarks.stream.latency import SETTLE_S, activate, quantile, run_beside_simulator
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.position_update import PositionUpdate
from position_sync_dagster.money.lake import MoneyLake

READERS, READER = 50, "benchmarks.follow.reader"

# Seconds between flushes, between a reader's looks, and the goal for a tick to be seen, in ms.
WAITS = ((1.0, 0.5, 1500.0), (0.25, 0.1, 600.0))


def seen(bench: Bench) -> None:
    """Measure a tick until another process has its value, 100 lines at 10 ticks a second."""
    seconds = bench.size(60, 10)
    for flush_s, poll_s, goal_ms in WAITS:
        delays = {}
        for reader in ("follow", "again"):
            delays[reader], cpu = _delays(bench, reader, flush_s, poll_s, seconds)
            if reader == "follow":
                ours_cpu = cpu
        state = f"flush {flush_s:g} s, a look each {poll_s:g} s"
        lines = [
            Line(
                what=f"tick to seen p{round(100 * share)}",
                state=state,
                ours=quantile(delays["follow"], share),
                theirs=quantile(delays["again"], share),
                against="read the table again",
                samples=len(delays["follow"]),
                target=Target(value=goal_ms) if share == 0.95 else None,
            )
            for share in (0.5, 0.95)
        ]
        lines.append(
            Line(what="the stream's share of one core", state=state, ours=ours_cpu, unit="%",
                 target=Target(value=12.0))
        )  # fmt: skip
        bench.report.add(f"Seen in another process, {state}, {seconds} s", lines)


def idle(bench: Bench) -> None:
    """Measure 50 readers of one process while nothing is committed, then with a commit a second."""
    lake = MoneyLake(bench.new_folder("idle"))
    lake.initialize_sync()
    lake.updates.sync.append([_row(conid) for conid in range(200)])
    seconds = bench.size(20, 3)
    for commits in (False, True):
        ours, theirs = (
            _share_of_core(reader, lake, seconds, commits=commits) for reader in ("follow", "again")
        )
        state = "a commit a second" if commits else "nothing is committed"
        line = Line(
            what=f"{READERS} readers, each",
            state=state,
            ours=ours / READERS,
            theirs=theirs / READERS,
            unit="%",
            against="read the table again",
            target=Target(value=1.0),
        )
        bench.report.add(f"The share of one core of {READERS} readers, {state}", [line])


def _row(conid: int) -> PositionUpdate:
    return PositionUpdate(
        conid, "SPY", None, 1.0, 1.5, 150.0, 120.0, 30.0, utc_now(), account="DUSIM1"
    )


def _delays(
    bench: Bench, reader: str, flush_s: float, poll_s: float, seconds: int
) -> tuple[list[float], float]:
    lake = bench.new_folder(f"{reader}-{flush_s}")
    lake.mkdir(parents=True)
    legs = asyncio.run(activate(lake, 100))
    MoneyLake(lake).initialize_sync()
    seen_at = lake / "seen.txt"
    command = [sys.executable, "-m", READER, reader, str(lake), str(poll_s), str(seen_at)]
    follower = subprocess.Popen(command)
    try:
        (cpu, _start, _end), sent = run_beside_simulator(
            lake, "streamer", 100, 10, seconds, POSITION_SYNC_FLUSH_INTERVAL_S=str(flush_s)
        )
    finally:
        follower.terminate()
        follower.wait()
    made = dict(
        pl.DataFrame(DeltaTable(lake / "position_updates").scan(columns=["update_id", "timestamp"]))
        .select("update_id", pl.col("timestamp").dt.epoch("us") / 1e6)
        .iter_rows()
    )
    rows: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for line in seen_at.read_text().rpartition("\n")[0].splitlines():
        at, conid, update_id = line.split()
        rows[int(conid)].append((made[update_id], float(at)))
    first = min(at for found in rows.values() for _, at in found) + SETTLE_S
    delays = []
    for tick in sent:
        moment, known = tick["sent_at_us"] / 1e6, rows.get(int(tick["conid"]), [])
        place = bisect_left(known, (moment, 0.0))
        if tick["field"] == "mark" and tick["conid"] in legs and moment >= first:
            delays += [1e3 * (known[place][1] - moment)] if place < len(known) else []
    return delays, cpu


def _share_of_core(reader: str, lake: MoneyLake, seconds: int, *, commits: bool) -> float:
    command = [sys.executable, "-m", READER, reader, lake.path, "0.5", os.devnull, str(READERS)]
    process = subprocess.Popen(command)
    try:
        time.sleep(SETTLE_S)
        measured = psutil.Process(process.pid)
        measured.cpu_percent()
        for _second in range(seconds):
            if commits:
                lake.updates.sync.append([_row(conid) for conid in range(20)])
            time.sleep(1)
        return measured.cpu_percent()
    finally:
        process.terminate()
        process.wait()
