"""Several processes on one lake: nothing is granted twice, lost, or called torn."""

from collections import Counter
from pathlib import Path

from position_sync_dagster.domain.queue_request import QueueRequest, QueueStatus
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.position_queue import PositionQueue
from position_sync_dagster.lake.storage import commits
from position_sync_dagster.lake.storage.commits import write
from position_sync_dagster.lake.storage.opening import UPKEEP, Upkeep
from position_sync_dagster.lake.storage.table import Table
from tests.support.demo_program import wait_for
from tests.support.drains import assert_each_ended_once, drain_later
from tests.support.empty_lakes import put_tables
from tests.support.extent import EVERYTHING
from tests.support.lake_worker import Worker, together, workers

REQUESTS = 5000
# Claims that take them all, in `make test` half of them, and a sixth on a store, where each takes
# longer.
COMMITS = 60


def commits_on(place: Path | str) -> int:
    if EVERYTHING:
        return COMMITS
    return COMMITS // 2 if isinstance(place, Path) else COMMITS // 6


def filled(path: Path | str, count: int) -> tuple[Lake, list[str]]:
    put_tables(path)
    lake = Lake(path)
    requests = (QueueRequest(c, "SPY", account="A") for c in range(1, count + 1))
    return lake, lake.queue.sync.insert_many(requests)


def double_or_lost(granted: list[list[str]], ids: list[str]) -> tuple[list[str], set[str]]:
    """Return the requests that were granted more than once, and those that never were."""
    times = Counter(request_id for some in granted for request_id in some)
    return [i for i, n in times.items() if n > 1], set(ids) - set(times)


def test_four_claimers_are_never_granted_the_same_request_and_lose_none(place):
    lake, ids = filled(place, REQUESTS)
    limit = REQUESTS // commits_on(place)
    granted = together(*(Worker("claim", place, limit=limit) for _ in range(4)))
    assert double_or_lost(granted, ids) == ([], set())
    # Writers of one machine take turns; those of a store do not.
    assert isinstance(place, str) or all(granted), "a claimer was starved"
    assert lake.queue.sync.counts()[QueueStatus.PROCESSING] == len(ids)


def test_racing_inserts_keep_one_live_request_per_position(place):
    put_tables(place)
    lake = Lake(place)
    count = commits_on(place) // 2
    results = together(*(Worker("insert_the_same", place, count=count) for _ in range(4)))
    assert results[0] == results[1] == results[2] == results[3]
    assert lake.queue.sync.counts()[QueueStatus.PENDING] == count


def test_the_first_inserts_of_two_hosts_at_once_are_one_request(tmp_path, monkeypatch):
    """Neither replaces a row: the two conflict all the same."""
    at_once = Upkeep(lock_wait_s=0.001)
    first, other = (
        PositionQueue(tmp_path / "queue", fsync=False, upkeep=at_once).sync for _ in range(2)
    )
    first.initialize()
    ids = []

    def after_the_other(*arguments, **more):
        monkeypatch.setattr(commits, "write", write)
        ids.append(other.insert(1, "SPY"))
        write(*arguments, **more)

    monkeypatch.setattr(commits, "write", after_the_other)
    ids.append(first.insert(1, "SPY"))
    assert len(set(ids)) == 1 < len(ids)
    assert first.counts()[QueueStatus.PENDING] == 1


def test_inserting_claiming_and_compacting_at_once_loses_nothing(place):
    lake, _ = filled(place, 1)
    maintaining = Worker("maintain", place)
    commits = commits_on(place)
    size = 300 // commits
    limit = 540 // commits
    inserting = [
        Worker("insert", place, first=first, count=100, size=size) for first in (1000, 2000)
    ]
    draining = [Worker("drain", place, lease_s=600, limit=limit)]
    with workers(maintaining, *inserting, *draining):
        ids = [i for worker in inserting for i in worker.result()]
        wait_for("all are claimed", lambda: not lake.queue.sync.overview().claimable)
    assert len(set(ids)) == 200

    drain_later(lake)
    assert assert_each_ended_once(lake) >= 201


def test_racing_writers_of_the_same_rows_write_each_once(place):
    put_tables(place)
    lake = Lake(place)
    written = together(*(Worker("append_the_same", place, count=60) for _ in range(3)))
    assert sum(written) == 60
    assert lake.updates.sync.count() == 60


def test_racing_processes_create_a_lake_together(place):
    versions = together(*(Worker("create", place) for _ in range(4)))
    assert versions == [[0] * len(Lake(place).tables)] * 4


def test_one_of_several_processes_owns_a_login(place):
    put_tables(place)
    tokens = together(*(Worker("own", place) for _ in range(4)))
    assert sorted(tokens, key=str) == [1, None, None, None]


CALLS = 60 if EVERYTHING else 10


def test_a_lake_that_is_being_written_is_whole_at_each_of_many_examinations(tmp_path):
    path = tmp_path / "lake"
    Lake(path, fsync=False).initialize_sync()
    writers = (
        # The log keeps minutes: without a pause it outgrows the examinations of a busy machine.
        Worker("insert", path, first=1, count=100_000, size=1, pause_s=0.1),
        Worker("drain", path, lease_s=60, limit=5),
        Worker("maintain", path),
    )
    queue = PositionQueue(path / "position_queue").table
    calls = 0
    with workers(*writers):
        while calls < CALLS or queue.version() <= UPKEEP.checkpoint_every:
            assert not any(map(Table.damage, Lake(path, fsync=False).all_tables))
            calls += 1
