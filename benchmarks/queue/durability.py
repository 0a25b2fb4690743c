"""What it costs that an acknowledged commit is on the disk: `POSITION_SYNC_FSYNC` 1 and 0."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.bench import Bench
from benchmarks.outcome import Line
from benchmarks.queue.contestant import BATCH, REFRESH, drain
from benchmarks.queue.lake_queue import LakeQueue
from benchmarks.queue.sqlite_queue import SqliteQueue
from benchmarks.timing import Samples

VARIABLE = "POSITION_SYNC_FSYNC"

PROMISES = {"1": "synced", "0": "not synced"}
"""What each value of the variable promises."""


STEPS: dict[str, tuple[str, ...]] = {
    "claim 50 + mark 50": ("claim", "mark"),
    "enqueue 180": ("enqueue",),
}


def durability(bench: Bench) -> None:
    """Compare with and without, each beside an SQLite queue that promises the same."""
    ours = {flag: _with_setting(flag, lambda: _lake_queue(bench)) for flag in PROMISES}
    theirs = {
        flag: SqliteQueue(bench.new_folder("sqlite"), synchronous=flag == "1") for flag in PROMISES
    }
    of_ours = {flag: Samples() for flag in PROMISES}
    of_theirs = {flag: Samples() for flag in PROMISES}
    for _ in range(bench.size(20, 3)):
        for flag in PROMISES:
            with _setting(flag):
                drain(ours[flag], of_ours[flag])
            theirs[flag].clear()
            drain(theirs[flag], of_theirs[flag])
    lines = []
    for flag, promise in PROMISES.items():
        for what, names in STEPS.items():
            lines += [
                Line(
                    what=what,
                    state=f"{VARIABLE}={flag}",
                    ours=of_ours[flag].median(*names),
                    samples=len(of_ours[flag].of(*names)),
                    against=against,
                    theirs=baseline.median(*names),
                )
                for against, baseline in (
                    (f"persist-queue, {promise}", of_theirs[flag]),
                    ("ours, not synced", of_ours["0"]),
                )
                if baseline is not of_ours[flag]
            ]
    syncs = {flag: _with_setting(flag, lambda: _syncs_of_a_claim(bench)) for flag in PROMISES}
    bench.report.add("Durability", lines, _note(syncs))


def _note(syncs: dict[str, int]) -> str:
    if not any(syncs.values()):
        return f"This version syncs nothing: {VARIABLE} has no effect, its two values are the same."
    return "Syncs in one claim: " + ", ".join(
        f"{count} with {VARIABLE}={flag}" for flag, count in syncs.items()
    )


def _lake_queue(bench: Bench) -> LakeQueue:
    return LakeQueue(bench.new_folder("lake"))


def _syncs_of_a_claim(bench: Bench) -> int:
    """Count the calls of one claim; a setting that syncs from elsewhere shows as 0."""
    contestant = _lake_queue(bench)
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


def _with_setting(flag: str, work: Callable[[], Any]) -> Any:
    with _setting(flag):
        return work()


@contextmanager
def _setting(flag: str) -> Iterator[None]:
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = flag
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before
