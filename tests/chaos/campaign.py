"""Kill and stop processes at random while all of them work; then drain the queue, and count."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from fcntl import LOCK_EX, LOCK_NB, flock
from io import FileIO
from pathlib import Path
from random import Random
from time import monotonic, sleep

import polars as pl
from deltalake import DeltaTable

from position_sync_dagster.domain.queue_request import QueueRequest, QueueStatus
from position_sync_dagster.errors import LakeError, LeaseLostError, TokenError
from position_sync_dagster.lake.followed_rows import START
from position_sync_dagster.lake.storage import merges
from position_sync_dagster.lake.storage.durability import ENTRY, LOG, entry_name, versions_of
from position_sync_dagster.lake.storage.opening import Upkeep
from position_sync_dagster.lake.storage.table import Table
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.processes.repair import set_torn_aside
from tests.support.drains import drain_for_ever, drain_later, price_at
from tests.support.forked_workers import ForkedWorker
from tests.support.waiting import eventually

ACCOUNT = "DUSIM1"
# Few enough that requests for the same position meet.
CONIDS = 400

LEASE_S = 1.0


def insert(lake: MoneyLake, random: Random, records: Path) -> None:
    """Insert requests; record the ids that were acknowledged."""
    with records.open("ab", buffering=0) as out:
        while True:
            requests = [
                QueueRequest(random.randint(1, CONIDS), "SPY", random.randint(1, 2), ACCOUNT)
                for _ in range(random.randint(1, 30))
            ]
            ids = lake.queue.sync.insert_many(requests)
            out.write("".join(f"{request_id}\n" for request_id in ids).encode())


def drain(lake: MoneyLake, random: Random, records: Path) -> None:
    """Drain as the product's worker does, with short leases."""
    asyncio.run(drain_for_ever(lake, random.randint(5, 40), LEASE_S))


def claim(lake: MoneyLake, random: Random, records: Path) -> None:
    """Claim requests; release them, or let their lease expire."""
    while True:
        batch = lake.queue.sync.claim_batch(limit=random.randint(1, 20), lease_s=LEASE_S / 4)
        if batch and random.random() < 0.7:
            try:
                lake.queue.sync.release([request.request_id for request in batch])
            except LeaseLostError:
                continue


def maintain(lake: MoneyLake, random: Random, records: Path) -> None:
    """Merge a few files at a time, write checkpoints, cut the log, vacuum; record how much."""
    lake = MoneyLake(lake.path, upkeep=Upkeep(compact_from=4))
    with records.open("ab", buffering=0) as out:
        while True:
            for table in lake.tables:
                done = merges.maintain(table)
                out.write(f"{done.compacted} {done.deleted}\n".encode())


def doctor(lake: MoneyLake, random: Random, records: Path) -> None:
    """Set what is torn aside, as `position-sync doctor --repair` does."""
    for table in lake.all_tables:
        set_torn_aside(table)


READERS = 4


def follow(lake: MoneyLake, random: Random, records: Path) -> None:
    """Follow the ledger from its first row on; record each read's token and ids in one line.

    A reader goes on where a killed one of the same file ended. One whose rows a repair took back
    begins again with the first row, and says so.
    """
    with open_first_free(records) as out:
        last = whole_lines(out)
        reader = lake.updates.sync.follow(last[-1][0] if last else START)
        while True:
            try:
                read_rows = reader.read()
                if read_rows is None:
                    sleep(0.01)
                    continue
                ids = read_rows.rows.get_column("update_id")
                out.write(" ".join([read_rows.token, *ids]).encode() + b"\n")
            except TokenError:
                out.truncate(0)
                reader = lake.updates.sync.follow(START)


def open_first_free(records: Path) -> FileIO:
    """Return the first of the files of all readers that no living process follows for."""
    while True:
        for number in range(READERS):
            name = f"{records.name.partition('.follow-')[0]}.follow-{number}"
            out = FileIO(records.with_name(name), "a+")
            with suppress(BlockingIOError):
                flock(out, LOCK_EX | LOCK_NB)
                return out
            out.close()


def whole_lines(out: FileIO) -> list[list[str]]:
    """Return the words of each line that is whole, and cut off the rest."""
    out.seek(0)
    text = out.readall().decode()
    whole = text.rpartition("\n")[0]
    out.truncate(len(whole.encode()) + 1 if whole else 0)
    return [line.split() for line in whole.splitlines()]


WORK = {work.__name__: work for work in (insert, drain, claim, maintain, doctor, follow)}


def main(work: str, path: str, seed: int) -> None:
    """Work until killed; an error of the lake is printed and ends the process."""
    records = Path(f"{path}.{work}-{os.getpid()}-{seed}")
    try:
        WORK[work](MoneyLake(path), Random(seed), records)
    except LakeError as error:
        print(f"{work}: {error!r}")


WORKERS = (
    *("insert", "insert", "drain", "drain", "claim", "maintain", "maintain"),
    *("follow",) * READERS,
)
VICTIMS = {*WORKERS, "doctor"}

# Kills between two losses of power, after each of which a repair is killed twice.
POWER_LOSS_EVERY = 20

# Short, so that log and files are deleted while others use them; far longer than a commit, and
# longer than a process stands still.
RETENTION = {
    "delta.logRetentionDuration": "interval 8 seconds",
    "delta.deletedFileRetentionDuration": "interval 10 seconds",
}

# A writer waits 2 s for the writer lock of one that stands still, and goes on without it.
LONGEST_STOP_S = 3.5

# Kills from which a campaign must have merged and deleted files: a shorter one may end before the
# first maintenance.
FULL_CAMPAIGN = 100

# Waiting requests from which a killed inserter is replaced by a drain.
BACKLOG = 2000


@dataclass
class CampaignResult:
    """The counts of a campaign.

    Attributes:
        kills: By the work of the killed process.
        stops: How often a process stood still for up to `LONGEST_STOP_S`.
        unchanged: Requests that ended with a row which said the same already.
    """

    seed: int
    kills: dict[str, int] = field(default_factory=dict)
    stops: int = 0
    requests: int = 0
    acknowledged: int = 0
    values: int = 0
    unchanged: int = 0
    merged: int = 0
    deleted: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        by = ", ".join(f"{work} {count}" for work, count in sorted(self.kills.items()))
        return (
            f"seed {self.seed}: {sum(self.kills.values())} kills ({by}) and {self.stops} stops in "
            f"{self.seconds:.0f} s; "
            f"{self.requests} requests ({self.acknowledged} acknowledged inserts) ended once, "
            f"{self.values} values, {self.unchanged} unchanged, "
            f"{self.merged} files merged, "
            f"{self.deleted} deleted"
        )


def run(
    path: Path, *, kills: int, seed: int, report: Callable[[str], None] = print
) -> CampaignResult:
    """Run a campaign in a folder of its own.

    The seed decides which process is killed, after how long, and what each process does. How far
    each of them is by then depends on the machine.
    """
    random = Random(seed)
    result = CampaignResult(seed)
    began = monotonic()
    report(f"chaos with seed {seed}: replay with --seed {seed}")
    lake = MoneyLake(path)
    lake.initialize_sync()
    for table in (lake.queue.table, lake.updates.table):
        DeltaTable(table.path).alter.set_table_properties(RETENTION)

    with worker_processes(path, random) as running:
        left = kills
        stopped = dict[int, float]()
        while left:
            result.stops += stop_and_go_on(running, stopped, random)
            if (kills - left) % POWER_LOSS_EVERY == POWER_LOSS_EVERY - 1:
                left -= lose_power(lake, running, random, result, left)
                lake = MoneyLake(path)
                check_readable(lake, result)
                continue

            sleep(random.uniform(0.02, 0.25))  # the moment of the kill, not a wait
            work, worker = running.pop(choose([work for work, _ in running], random, result, left))
            output = worker.kill()
            assert not output, output

            result.kills[work] = result.kills.get(work, 0) + 1
            check_readable(lake, result)
            if work == "insert" and lake.queue.sync.overview().claimable > BACKLOG:
                work = "drain"
            running.append((work, start(work, path, random)))
            left -= 1
        for pid in stopped.keys() & {worker.pid for _, worker in running}:
            os.kill(pid, signal.SIGCONT)
        if kills >= FULL_CAMPAIGN:  # on a busy machine no maintenance may have come to its end yet
            asyncio.run(eventually(lambda: all(maintained(path))))

    drain_later(lake, 200)
    check_end(lake, path, result)
    check_breadth(result)
    result.seconds = monotonic() - began
    return result


def stop_and_go_on(
    running: list[tuple[str, ForkedWorker]], stopped: dict[int, float], random: Random
) -> int:
    """Let processes go on whose time is over, and stop another one in half of all calls.

    Args:
        stopped: The processes that stand still, and when each goes on.
    """
    pids = [worker.pid for _, worker in running]
    for pid in [pid for pid, until in stopped.items() if pid not in pids or until < monotonic()]:
        del stopped[pid]
        if pid in pids:
            os.kill(pid, signal.SIGCONT)
    moving = [pid for pid in pids if pid not in stopped]
    if random.random() < 0.5 or len(stopped) > 1:
        return 0

    pid = random.choice(moving)
    try:
        os.kill(pid, signal.SIGSTOP)
    except ProcessLookupError:
        worker = next(worker for _, worker in running if worker.pid == pid)
        raise AssertionError(f"a process ended by itself: {worker.kill()}") from None
    stopped[pid] = monotonic() + random.uniform(0.05, LONGEST_STOP_S)
    return 1


@contextmanager
def worker_processes(path: Path, random: Random) -> Iterator[list[tuple[str, ForkedWorker]]]:
    """Start one process for each of `WORKERS`, and end all of them at the end."""
    running: list[tuple[str, ForkedWorker]] = []
    try:
        running += [(work, start(work, path, random)) for work in WORKERS]
        yield running
    finally:
        for _, worker in running:
            worker.kill()


def start(work: str, path: Path, random: Random) -> ForkedWorker:
    """Start a process that works at once."""
    return ForkedWorker(__name__, work, str(path), random.randrange(10**9)).begin()


def lose_power(
    lake: MoneyLake,
    running: list[tuple[str, ForkedWorker]],
    random: Random,
    result: CampaignResult,
    left: int,
) -> int:
    """End all processes, tear the newest commits, and kill the repair; return how many kills."""
    path = Path(lake.path)
    for _, worker in running:
        output = worker.kill()
        assert not output, output
    for table in (lake.queue.table, lake.updates.table):
        tear(Path(table.path), random)

    kills = min(2, left)
    for _ in range(kills):
        doctor = start("doctor", path, random)
        sleep(random.uniform(0.0, 0.4))  # the moment of the kill, not a wait
        output = doctor.kill()
        assert not output, output
    result.kills["doctor"] = result.kills.get("doctor", 0) + kills
    output = start("doctor", path, random).output()
    assert not output, output

    running[:] = [(work, start(work, path, random)) for work in WORKERS]
    return kills


def tear(table: Path, random: Random) -> None:
    """Add some torn entries, of commits that nobody acknowledged."""
    log = table / LOG
    newest = versions_of(log, ENTRY)[-1]
    whole = (log / entry_name(newest)).read_bytes()
    for version in range(newest + 1, newest + random.randint(2, 4)):
        (log / entry_name(version)).write_bytes(whole[: random.randrange(len(whole))])


def choose(running: list[str], random: Random, result: CampaignResult, left: int) -> int:
    """Choose the process to kill: any, as long as enough kills are left for each kind."""
    never_killed = set(WORKERS) - result.kills.keys()
    wanted = [at for at, work in enumerate(running) if work in never_killed]
    return random.choice(wanted if wanted and left <= len(never_killed) else range(len(running)))


def check_readable(lake: MoneyLake, result: CampaignResult) -> None:
    """Read both tables and check that no request and no value is gone."""
    counts = lake.queue.sync.counts()
    total, values = sum(counts.values()), lake.updates.sync.count()
    assert total >= result.requests, f"{result.requests - total} requests are gone"
    assert values >= result.values, f"{result.values - values} values are gone"
    result.requests, result.values = total, values
    lake.queue.sync.get_batch(limit=5)
    lake.updates.sync.latest()


def check_end(lake: MoneyLake, path: Path, result: CampaignResult) -> None:
    """Check that every request ended once, with its row, and that every table is whole."""
    counts = lake.queue.sync.counts()
    assert counts[QueueStatus.PENDING] == 0, counts
    assert counts[QueueStatus.PROCESSING] == 0, counts
    assert counts[QueueStatus.FAILED] == 0, counts
    requests = lake.queue.table.rows(
        columns=["request_id", "update_id", "account", "conid", "created_at"]
    )
    ids = set(requests.get_column("request_id"))
    assert len(ids) == requests.height, "a request ended twice"
    written = lake.updates.table.rows(
        columns=[
            *("update_id", "request_id", "account", "conid", "market_price", "timestamp"),
            "ledger_version",
        ]
    )
    assert not written.get_column("update_id").is_duplicated().any(), "a row was written twice"
    assert not written.get_column("request_id").is_duplicated().any()
    assert set(written.get_column("request_id")) <= ids, "a row of no request"

    acknowledged = set(records(path, "insert"))
    assert acknowledged <= ids, "an acknowledged request is gone"
    check_answers(requests, written)
    check_readers(lake, path, written)
    for table in lake.tables:
        damage = Table(table.path, table.spec).damage()
        assert damage is None, damage
    result.requests = len(ids)
    result.values = written.height
    result.unchanged = len(ids) - written.height
    result.acknowledged = len(acknowledged)
    result.merged, result.deleted = maintained(path)


def maintained(path: Path) -> tuple[int, int]:
    """Return how many files the maintenance has merged and deleted so far."""
    done = [int(number) for number in records(path, "maintain")]
    return sum(done[::2]), sum(done[1::2])


def check_answers(requests: pl.DataFrame, written: pl.DataFrame) -> None:
    """Check that each request has a row of its holding with a value that is no older than it.

    It is the request's own row where there is one. Between two rows of a holding the value changed,
    or the time for another row had come.
    """
    answered = requests.join(written, on=["update_id", "account", "conid"], suffix="_of_row")
    assert answered.height == requests.height, "a request without its row"
    own = answered.join(written.select("request_id"), on="request_id", how="semi")
    assert own.filter(pl.col("request_id") != pl.col("request_id_of_row")).is_empty()
    assert own.height == written.height, "a row that its request does not name"
    for created_at, price in answered.select("created_at", "market_price").iter_rows():
        assert price >= price_at(created_at), "a value that is older than its request"
    holding = ["account", "conid"]
    interval = timedelta(minutes=50)
    again = written.sort("ledger_version").filter(
        pl.col("market_price") == pl.col("market_price").shift().over(holding),
        pl.col("timestamp") - pl.col("timestamp").shift().over(holding) < interval,
    )
    assert again.is_empty(), "a value was written twice"


def check_readers(lake: MoneyLake, path: Path, written: pl.DataFrame) -> None:
    """Check that each reader, with what it has not read yet, has each row of the ledger once."""
    ids = set(written.get_column("update_id"))
    for file in sorted(path.parent.glob(f"{path.name}.follow-*")):
        with FileIO(file, "a+") as out:
            lines = whole_lines(out)
        reader = lake.updates.sync.follow(lines[-1][0] if lines else START)
        read = [update_id for _token, *its_ids in lines for update_id in its_ids]
        while (added := reader.read()) is not None:
            read.extend(added.rows.get_column("update_id"))
        assert len(read) == len(set(read)), f"{file} has a row twice"
        assert set(read) == ids, f"{file} has other rows than the ledger"


def check_breadth(result: CampaignResult) -> None:
    """Check that the campaign tried everything that it should."""
    kills = sum(result.kills.values())
    tried = VICTIMS if kills >= POWER_LOSS_EVERY + len(VICTIMS) else result.kills.keys()
    assert result.kills.keys() == tried, f"never killed in {result}"
    assert result.acknowledged, f"no insert was acknowledged in {result}"
    assert result.values, f"no value was written in {result}"
    if kills >= FULL_CAMPAIGN:
        assert result.unchanged, f"no request met an unchanged value in {result}"
    assert kills < FULL_CAMPAIGN or result.merged, f"nothing was merged in {result}"
    assert kills < FULL_CAMPAIGN or result.deleted, f"nothing was deleted in {result}"


def records(path: Path, work: str) -> list[str]:
    """Return the words that processes of a work recorded; their last line may be cut."""
    words: list[str] = []
    for file in path.parent.glob(f"{path.name}.{work}-*"):
        words += file.read_text().rpartition("\n")[0].split()
    return words
