"""What it costs that an acknowledged commit is on the disk: `POSITION_SYNC_FSYNC` 1 and 0."""

import os
from collections.abc import Callable
from typing import Any

from benchmarks.bench import Bench
from benchmarks.outcome import Line
from benchmarks.queue.contestant import BATCH, REFRESH, drain
from benchmarks.queue.lake_queue import LakeQueue
from benchmarks.queue.sqlite_queue import SqliteQueue
from benchmarks.timing import Samples

PROMISES = {True: "synced", False: "not synced"}

STEPS: dict[str, tuple[str, ...]] = {
    "claim 50 + mark 50": ("claim", "mark"),
    "enqueue 180": ("enqueue",),
}


def durability(bench: Bench) -> None:
    """Compare with and without, each beside an SQLite queue that promises the same."""
    ours = {flag: LakeQueue(bench.new_folder("lake"), fsync=flag) for flag in PROMISES}
    theirs = {flag: SqliteQueue(bench.new_folder("sqlite"), synchronous=flag) for flag in PROMISES}
    of_ours = {flag: Samples() for flag in PROMISES}
    of_theirs = {flag: Samples() for flag in PROMISES}
    for _ in range(bench.size(30, 3)):
        for flag in PROMISES:
            drain(ours[flag], of_ours[flag])
            theirs[flag].clear()
            drain(theirs[flag], of_theirs[flag])
    lines = []
    for flag, promise in PROMISES.items():
        for what, names in STEPS.items():
            lines += [
                Line(
                    what=what,
                    state=f"POSITION_SYNC_FSYNC={flag:d}",
                    ours=of_ours[flag].median(*names),
                    samples=len(of_ours[flag].of(*names)),
                    against=against,
                    theirs=baseline.median(*names),
                )
                for against, baseline in (
                    (f"persist-queue, {promise}", of_theirs[flag]),
                    ("ours, not synced", of_ours[False]),
                )
                if baseline is not of_ours[flag]
            ]
    syncs = {flag: _syncs_of_a_claim(bench, flag) for flag in PROMISES}
    told = ", ".join(f"{count} with POSITION_SYNC_FSYNC={flag:d}" for flag, count in syncs.items())
    bench.report.add("Durability", lines, f"Calls of fsync in one claim: {told}.")


def _syncs_of_a_claim(bench: Bench, flag: bool) -> int:
    """Count them, so that the comparison is known to be one."""
    contestant = LakeQueue(bench.new_folder("lake"), fsync=flag)
    contestant.enqueue(REFRESH)
    calls: list[str] = []
    originals = {name: getattr(os, name) for name in ("fsync", "fdatasync")}

    def counting(name: str) -> Callable[[Any], None]:
        def sync(file: Any) -> None:
            calls.append(name)
            originals[name](file)

        return sync

    try:
        for name in originals:
            setattr(os, name, counting(name))
        contestant.claim(BATCH)
    finally:
        for name, original in originals.items():
            setattr(os, name, original)
    return len(calls)
