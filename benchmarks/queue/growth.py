"""Drain after drain for days, accelerated: what grows, and does anything get slower?"""

import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.outcome import Line, Target
from benchmarks.queue.contestant import BATCH, REFRESH
from benchmarks.queue.curve import Point, draw, write_csv
from benchmarks.queue.history import RETENTION_DRAINS, UPKEEP_EVERY, keep_for
from benchmarks.queue.lake_queue import LakeQueue
from benchmarks.queue.values import now, updates
from benchmarks.timing import Samples, elapsed_ms, median
from position_sync_dagster.lake.position_updates import PositionUpdatesTable
from position_sync_dagster.lake.storage.merges import maintain
from position_sync_dagster.lake.storage.table import Table

DRAINS = 100_000

BUDGET_S = 600.0
_OPENS = 5


@dataclass
class Pair:
    """The two tables that a drain writes."""

    queue: LakeQueue
    ledger: PositionUpdatesTable
    left: int = 0

    @property
    def tables(self) -> tuple[Table, Table]:
        """Give both."""
        return self.queue.queue.table, self.ledger.table

    def drain(self, samples: Samples) -> None:
        """Claim 50, write their values, mark them; enqueue a refresh when too few are left."""
        if self.left < BATCH:
            samples.time("enqueue", lambda: self.queue.enqueue(REFRESH))
            self.left = REFRESH
        batch = samples.time("claim", lambda: self.queue.claim(BATCH))
        values = updates(len(batch), now(), request_ids=[r.request_id for r in batch])
        samples.time("append", lambda: self.ledger.sync.append(values))
        samples.time("mark", lambda: self.queue.mark(batch))
        self.left -= len(batch)


def growth(bench: Bench) -> None:
    """Run as many drains as the budget allows, at most 100,000, maintained as in production."""
    folder = bench.new_folder("growth")
    pair = Pair(LakeQueue(folder / "queue"), PositionUpdatesTable(folder / "ledger"))
    pair.ledger.sync.initialize()
    upkeep_every = bench.size(UPKEEP_EVERY, 36)
    budget_s = bench.budget_s or bench.size(BUDGET_S, 10.0)
    began = time.monotonic()
    points: list[Point] = []
    upkeeps = []
    while len(points) * upkeep_every < DRAINS and time.monotonic() - began < budget_s:
        samples, turn_began = Samples(), time.monotonic()
        for _ in range(upkeep_every):
            pair.drain(samples)
        # The fullest moment: just before an upkeep.
        points.append(_measure(pair, (len(points) + 1) * upkeep_every, samples))
        # Time runs faster here, so retention shrinks with it.
        kept_s = (time.monotonic() - turn_began) * RETENTION_DRAINS / UPKEEP_EVERY
        for table in pair.tables:
            keep_for(table, kept_s)
        upkeeps.append(elapsed_ms(lambda: [maintain(table) for table in pair.tables]))
    bench.report.add(f"Growth over {points[-1].drains:,} drains", _lines(points), _note(points))
    bench.report.say(f"An upkeep of both tables took {median(upkeeps):,.0f} ms (median).")
    target = bench.docs or bench.folder
    target.mkdir(parents=True, exist_ok=True)
    write_csv(points, target / "growth.csv")
    draw(points, target / "growth.png")


def _measure(pair: Pair, drains: int, samples: Samples) -> Point:
    queue, ledger = (Path(table.path) for table in pair.tables)

    def open_anew() -> None:
        LakeQueue(queue).counts()

    return Point(
        drains=drains,
        commits=sum(table.version() for table in pair.tables),
        queue_files=_count(queue),
        ledger_files=_count(ledger),
        log_entries=_count(queue / "_delta_log") + _count(ledger / "_delta_log"),
        log_kb=round((_bytes(queue / "_delta_log") + _bytes(ledger / "_delta_log")) / 1000),
        disk_mb=round((_bytes(queue) + _bytes(ledger)) / 1e6, 1),
        open_ms=median([elapsed_ms(open_anew) for _ in range(_OPENS)]),
        counts_ms=median([elapsed_ms(pair.queue.counts) for _ in range(_OPENS)]),
        claim_ms=samples.median("claim"),
        mark_ms=samples.median("mark"),
        append_ms=samples.median("append"),
    )


def _count(folder: Path) -> int:
    return sum(1 for path in folder.rglob("*") if path.is_file())


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _lines(points: list[Point]) -> list[Line]:
    # The first hour fills up what retention keeps, so the course begins with the second.
    settled = points[1:] or points
    tenth = max(1, len(settled) // 10)
    first, last = settled[:tenth], settled[-tenth:]
    wanted = (
        ("claim 50", "claim_ms", "ms", 1.2),
        ("mark 50", "mark_ms", "ms", 1.2),
        ("append 50", "append_ms", "ms", 1.2),
        ("open and count", "open_ms", "ms", 1.2),
        ("counts", "counts_ms", "ms", 1.2),
        ("files of the queue", "queue_files", "", 1.2),
        ("files of the ledger", "ledger_files", "", 1.2),
        ("log entries of both", "log_entries", "", 1.2),
        ("log of both", "log_kb", "kB", 1.2),
        ("all of both", "disk_mb", "MB", None),
    )
    return [
        Line(
            what=what,
            state=f"last {tenth} of {len(points)} hours",
            ours=median([getattr(point, name) for point in last]),
            unit=unit,
            samples=len(last),
            against="first hours",
            theirs=median([getattr(point, name) for point in first]),
            target=Target(ratio=bound) if bound else None,
        )
        for what, name, unit, bound in wanted
    ]


def _note(points: list[Point]) -> str:
    last = points[-1]
    bounded = "all" if last.drains >= DRAINS else f"what the time allowed of {DRAINS:,}"
    return (
        f"{last.drains:,} drains ({bounded}), {last.commits:,} commits, measured before each "
        "upkeep, when most is there. An hour is 720 drains."
    )
