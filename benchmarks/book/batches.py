"""Batches of just 50 while few or many requests wait, in turns, by the processor time of each."""

import asyncio
import time

from benchmarks.bench import Bench
from benchmarks.book.tables import BATCH, confirm, hold, wait, worker_of
from benchmarks.outcome import Line, Target
from benchmarks.timing import median
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.settings import load_settings
from position_sync_dagster.sync.broker_view import LakeValues

FEW, MANY = 200, 20_000
# Batches before the first that counts: they open the tables.
WARM = 2


def batches(bench: Bench) -> None:
    """Drain 50 of 200 and 50 of 20,000 in turns; every holding has a new value each time."""
    rounds, many = bench.size((60, MANY), (5, 1_000))
    took = asyncio.run(_in_turns(bench, rounds, many))
    bench.report.add(
        f"A batch of just {BATCH}",
        [
            Line(
                what="claim, value, append, mark: processor time",
                state=f"{many:,} waiting",
                ours=median(took[many]),
                samples=len(took[many]),
                against=f"{FEW} waiting",
                theirs=median(took[FEW]),
                target=Target(ratio=1.5),
            )
        ],
    )


async def _in_turns(bench: Bench, rounds: int, many: int) -> dict[int, list[float]]:
    settings = load_settings(lake="unused")
    lakes, took = {}, {FEW: list[float](), many: list[float]()}
    for legs in took:
        lake = lakes[legs] = MoneyLake(bench.new_folder(f"batches-{legs}"))
        lake.initialize_sync()
        hold(lake, settings, legs)
    workers = {legs: worker_of(lake, settings, BATCH) for legs, lake in lakes.items()}
    for turn in range(WARM + rounds):
        for legs, worker in workers.items():
            began = time.process_time()
            report = await worker.process_batch()
            milliseconds = (time.process_time() - began) * 1e3
            if not report.rows or report.claimed != BATCH:
                raise RuntimeError(f"No whole batch: {report}")
            if turn >= WARM:
                took[legs].append(milliseconds)
        if (turn + 1) % (FEW // BATCH) == 0:
            confirm(lakes[FEW], settings, FEW)
            await LakeValues(lakes[FEW], settings).view()
        wait(lakes[FEW], FEW)
    return took
