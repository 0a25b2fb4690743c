"""Kill processes at random while all of them work; then drain, and count."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from time import monotonic, sleep

from deltalake import DeltaTable

from position_sync_dagster.domain.request import QueueStatus
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.recovery.diagnosis import diagnose
from position_sync_dagster.sync.drain.worker import QueueWorker
from tests.chaos.victims import AlwaysCurrent
from tests.support.forked_workers import Child, nursery

VICTIMS = "tests.chaos.victims"
CREW = ("insert", "insert", "drain", "drain", "claim", "keep_house")
RETENTION = {
    "delta.logRetentionDuration": "interval 2 seconds",
    "delta.deletedFileRetentionDuration": "interval 5 seconds",
}
"""Short, so that log and files are deleted while others use them; far longer than a commit."""

WHOLE = 100
"""Kills from which a campaign must have merged and deleted files beside them: fewer may be over
before the house was kept once."""

BACKLOG = 2000
"""Waiting requests from which the inserters rest for a while."""


@dataclass
class Tally:
    """What a campaign did.

    Attributes:
        kills: By what the killed process did.
    """

    seed: int
    kills: dict[str, int] = field(default_factory=dict)
    requests: int = 0
    acknowledged: int = 0
    values: int = 0
    merged: int = 0
    deleted: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        by = ", ".join(f"{work} {count}" for work, count in sorted(self.kills.items()))
        return (
            f"seed {self.seed}: {sum(self.kills.values())} kills ({by}) in {self.seconds:.0f} s; "
            f"{self.requests} requests ({self.acknowledged} acknowledged inserts) ended once, "
            f"{self.values} values, {self.merged} files merged, {self.deleted} deleted"
        )


def run(path: Path, *, kills: int, seed: int, tell: Callable[[str], None] = print) -> Tally:
    """Do a campaign in a folder of its own.

    The seed decides who is killed, after how long, and what each process does; when they reach
    which point is the machine's.
    """
    random, tally, began = Random(seed), Tally(seed), monotonic()
    tell(f"chaos with seed {seed}: replay with --seed {seed}")
    lake = Lake(path)
    lake.initialize_sync()
    for table in (lake.queue.table, lake.updates.table):
        DeltaTable(table.path).alter.set_table_properties(RETENTION)
    with crew(path, random) as running:
        for left in range(kills, 0, -1):
            sleep(random.uniform(0.02, 0.25))  # the moment of the kill, not a wait
            work, victim = running.pop(choose([work for work, _ in running], random, tally, left))
            said = victim.kill()
            assert not said, said
            tally.kills[work] = tally.kills.get(work, 0) + 1
            check_readable(lake, tally)
            if work == "insert" and lake.queue.sync.overview().claimable > BACKLOG:
                work = "drain"
            running.append((work, start(work, path, random)))
    finish(path)
    check_end(lake, path, tally)
    check_breadth(tally)
    tally.seconds = monotonic() - began
    return tally


@contextmanager
def crew(path: Path, random: Random) -> Iterator[list[tuple[str, Child]]]:
    """Start one process of each of the crew, and leave none behind."""
    running: list[tuple[str, Child]] = []
    try:
        running += [(work, start(work, path, random)) for work in CREW]
        yield running
    finally:
        for _, child in running:
            child.kill()


def start(work: str, path: Path, random: Random) -> Child:
    """Start a process; it works at once."""
    child = nursery(VICTIMS).start(work, str(path), random.randrange(10**9))
    child.go()
    return child


def choose(running: list[str], random: Random, tally: Tally, left: int) -> int:
    """Choose who is killed: anybody, as long as enough kills are left for each kind."""
    spared = set(CREW) - tally.kills.keys()
    wanted = [at for at, work in enumerate(running) if work in spared]
    return random.choice(wanted if wanted and left <= len(spared) else range(len(running)))


def check_readable(lake: Lake, tally: Tally) -> None:
    """Read both tables; nothing that ended may be gone."""
    counts = lake.queue.sync.counts()
    total, values = sum(counts.values()), lake.updates.sync.count()
    assert total >= tally.requests, f"{tally.requests - total} requests are gone"
    assert values >= tally.values, f"{tally.values - values} values are gone"
    tally.requests, tally.values = total, values
    lake.queue.sync.get_batch(limit=5)
    lake.updates.sync.latest()


def finish(path: Path) -> None:
    """Drain what is left, an hour later, so that every lease is over."""

    async def drain() -> None:
        later = Lake(path, clock=lambda: datetime.now(UTC) + timedelta(hours=1))
        await later.queue.rescue()
        worker = QueueWorker(
            later.queue, batch_size=200, values=AlwaysCurrent(), updates=later.updates
        )
        while (await worker.process_batch()).claimed:
            pass

    asyncio.run(drain())


def check_end(lake: Lake, path: Path, tally: Tally) -> None:
    """Every request ended once, with one row; what was acknowledged is there; all is whole."""
    counts = lake.queue.sync.counts()
    assert counts[QueueStatus.PENDING] == counts[QueueStatus.PROCESSING] == 0, counts
    assert counts[QueueStatus.FAILED] == 0, counts
    requests = lake.queue.table.rows(columns=["request_id"]).get_column("request_id")
    assert not requests.is_duplicated().any(), "a request ended twice"
    written = lake.updates.table.rows(columns=["update_id", "request_id"])
    assert not written.get_column("update_id").is_duplicated().any(), "a value was written twice"
    assert not written.get_column("request_id").is_duplicated().any()
    assert set(written.get_column("request_id")) == set(requests)
    acknowledged = set(notes(path, "insert"))
    assert acknowledged <= set(requests), "an acknowledged request is gone"
    for table in lake.tables:
        found = diagnose(table)
        assert found.healthy, found
    tally.requests, tally.values = len(requests), written.height
    tally.acknowledged = len(acknowledged)
    done = [int(number) for number in notes(path, "keep_house")]
    tally.merged, tally.deleted = sum(done[::2]), sum(done[1::2])


def check_breadth(tally: Tally) -> None:
    """Tell a campaign that tried less than it should from one that found nothing."""
    kills = sum(tally.kills.values())
    assert len(tally.kills) == min(kills, len(set(CREW))), f"never killed in {tally}"
    assert tally.acknowledged, f"no insert was acknowledged in {tally}"
    assert kills < WHOLE or tally.merged, f"nothing was merged in {tally}"
    assert kills < WHOLE or tally.deleted, f"nothing was deleted in {tally}"


def notes(path: Path, work: str) -> list[str]:
    """Give the words that processes of a work noted; their last line may be cut."""
    words: list[str] = []
    for note in path.parent.glob(f"{path.name}.{work}-*"):
        words += note.read_text().rpartition("\n")[0].split()
    return words
