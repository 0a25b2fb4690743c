"""Four processes that claim and mark at once, as fast as they can: how long does each wait?"""

import multiprocessing
import time
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.outcome import Line, Target
from benchmarks.queue.contestant import BATCH
from benchmarks.queue.lake_queue import LakeQueue
from benchmarks.timing import median

CLAIMERS = 4

# Milliseconds that one process waited, for "claim" and for "mark".
Waits = dict[str, list[float]]


def claimers(bench: Bench) -> None:
    """Drain one queue by four processes; no wait may be ten times the median."""
    requests = bench.size(5_000, 1_000)
    rounds = [
        drain_together(bench.new_folder("claimers"), requests) for _ in range(bench.size(5, 1))
    ]
    state = f"{requests:,} requests, {CLAIMERS} processes"
    lines = [_longest(rounds, what, state) for what in ("claim", "mark")]
    for number in range(CLAIMERS):
        waits = [wait for turn in rounds for wait in turn[number]["claim"]]
        lines.append(
            Line(
                what=f"longest claim of process {number + 1}",
                state=f"{state}, {len(rounds)} rounds",
                ours=max(waits),
                samples=len(waits),
                against="its own median",
                theirs=median(waits),
            )
        )
    bench.report.add("Four claimers at once", lines)


def _longest(rounds: list[list[Waits]], what: str, state: str) -> Line:
    waits = [[wait for worker in turn for wait in worker[what]] for turn in rounds]
    worst = max(waits, key=lambda turn: max(turn) / median(turn))
    return Line(
        what=f"longest {what}",
        state=f"{state}, worst of {len(rounds)}",
        ours=max(worst),
        samples=len(worst),
        against="median of all four",
        theirs=median(worst),
        target=Target(ratio=10) if what == "claim" else None,
    )


def drain_together(path: Path | str, requests: int) -> list[Waits]:
    """Drain one queue by four processes; return how long each of them waited."""
    LakeQueue(path).enqueue(requests)
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(CLAIMERS)
    results: Queue[tuple[int, Waits]] = context.Queue()
    workers = [
        context.Process(target=_claim_until_empty, args=(path, start, results))
        for _ in range(CLAIMERS)
    ]
    for worker in workers:
        worker.start()
    told = [results.get(timeout=300) for _ in workers]
    for worker in workers:
        worker.join()
    granted = sum(count for count, _ in told)
    assert granted == requests, f"{granted} requests were granted, of {requests}"
    return [waits for _, waits in told]


def _claim_until_empty(
    path: Path | str, start: Barrier, results: "Queue[tuple[int, Waits]]"
) -> None:
    contestant = LakeQueue(path)
    contestant.counts()
    waits: Waits = {"claim": [], "mark": []}
    granted = 0
    start.wait()
    while True:
        began = time.perf_counter()
        batch = contestant.claim(BATCH)
        claimed = time.perf_counter()
        if not batch:
            break
        contestant.mark(batch)
        waits["claim"].append((claimed - began) * 1000)
        waits["mark"].append((time.perf_counter() - claimed) * 1000)
        granted += len(batch)
    results.put((granted, waits))
