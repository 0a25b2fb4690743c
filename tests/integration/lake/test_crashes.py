"""A process that is killed at any step of its work leaves a lake that the next one goes on with."""

from pathlib import Path

import pytest

from position_sync_dagster.domain.queue_request import QueueRequest, QueueStatus
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.storage.table import Table
from tests.support.crash_worker import BATCH, MANY, POINTS, SOON, large_insert
from tests.support.drains import assert_each_ended_once, drain_later
from tests.support.empty_lakes import put_tables
from tests.support.extent import EVERYTHING
from tests.support.forked_workers import ForkedWorker
from tests.support.object_store import put_stored, stored_under
from tests.support.queues import finish_each

REQUESTS = 12

# Where and at which point a drain is killed: in a store, a commit that is not there is the point
# that differs from a disk.
UNCOMMITTED = ("the claim's file is written", "the ledger's file is written")
DRAINS = [("disk", point) for point in POINTS["drain"]]
DRAINS += [("store", point) for point in POINTS["drain"] if EVERYTHING or point in UNCOMMITTED]


def killed_at(path: str, work: str, point: str) -> None:
    """Run a process that kills itself at a point of its work."""
    worker = ForkedWorker("tests.support.crash_worker", work, path, point).begin()
    assert worker.output() == f"at {point}\n", "the process did not reach the point"


def filled(place: Path | str) -> Lake:
    """Return a new lake with requests that wait."""
    put_tables(place)
    lake = Lake(place, fsync=False)
    conids = range(1, REQUESTS + 1)
    requests = [QueueRequest(conid, "SPY", account="DUSIM1") for conid in conids]
    lake.queue.sync.insert_many(requests)
    return lake


@pytest.fixture
def lake(place: Path | str) -> Lake:
    return filled(place)


def requests(lake: Lake) -> dict[QueueStatus, int]:
    return {status: n for status, n in lake.queue.sync.counts().items() if n}


def assert_all_ended_once(lake: Lake, count: int = REQUESTS) -> None:
    drain_later(lake, BATCH)
    assert assert_each_ended_once(lake) == count
    assert not any(map(Table.damage, Lake(lake.path).tables))


P = QueueStatus.PENDING
C = QueueStatus.PROCESSING
S = QueueStatus.SUCCESS
ALL_WAIT = {P: REQUESTS}
CLAIMED = {P: REQUESTS - BATCH, C: BATCH}
MARKED = {P: REQUESTS - BATCH, S: BATCH}
# The requests by their status, and the rows of the ledger.
LEFT = {
    "before the claim": (ALL_WAIT, 0),
    "the claim's file is written": (ALL_WAIT, 0),
    "after the claim": (CLAIMED, 0),
    "after the value": (CLAIMED, 0),
    "the ledger's file is written": (CLAIMED, 0),
    "after the ledger": (CLAIMED, BATCH),
    "the mark's files are written": (CLAIMED, BATCH),
    "after the mark": (MARKED, BATCH),
}


@pytest.mark.parametrize(("place", "point"), DRAINS, indirect=["place"])
def test_a_drain_killed_at_any_step_is_followed_by_one_row_for_each_request(lake, point):
    killed_at(lake.path, "drain", point)
    assert (requests(lake), lake.updates.sync.count()) == LEFT[point]
    assert_all_ended_once(lake)


@pytest.fixture(scope="module")
def worn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a lake whose queue has had enough commits for a maintenance."""
    folder = tmp_path_factory.mktemp("worn")
    finish_each(filled(folder).queue, range(1000, 1000 + SOON.compact_from))
    return folder


def copied(folder: Path, place: Path | str) -> Lake:
    """Return a copy of a lake, in a folder or an object store."""
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    for name in files:
        content = (folder / name).read_bytes()
        if isinstance(place, str):
            put_stored(f"{place}/{name}", content)
        else:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(content)
    return Lake(place, fsync=False)


@pytest.mark.parametrize("place", ["disk", "store"] if EVERYTHING else ["disk"], indirect=True)
@pytest.mark.parametrize("point", POINTS["maintain"])
def test_maintenance_killed_at_any_step_changes_nothing_that_is_read(worn, place, point):
    lake = copied(worn, place)
    before = lake.queue.table.rows().sort("request_id").drop("part")
    killed_at(lake.path, "maintain", point)
    again = Lake(lake.path, fsync=False, upkeep=SOON)
    assert again.queue.table.rows().sort("request_id").drop("part").equals(before)
    assert not any(map(Table.damage, Lake(again.path).tables))
    again.maintain(clean_now=True)
    assert again.queue.table.rows().sort("request_id").drop("part").equals(before)


PLACED = [("disk", "insert"), ("disk", "insert_many"), ("store", "insert")]
PLACED += [("store", "insert_many")] * EVERYTHING


@pytest.mark.parametrize(("place", "work"), PLACED, indirect=["place"])
def test_an_insert_killed_before_its_commit_leaves_nothing(lake, work):
    files = data_files(lake)
    killed_at(lake.path, work, "its file is written")
    assert data_files(lake) > files, "the process was killed before it wrote anything"
    assert requests(lake) == {P: REQUESTS}
    assert_all_ended_once(lake)


@pytest.mark.parametrize(("place", "work"), PLACED, indirect=["place"])
def test_an_insert_killed_before_its_answer_is_there_and_is_not_made_twice(lake, work):
    count = MANY if work == "insert_many" else 1
    killed_at(lake.path, work, "after the insert")
    assert requests(lake) == {P: REQUESTS + count}
    lake.queue.sync.insert_many(large_insert()[:count])
    assert requests(lake) == {P: REQUESTS + count}
    assert_all_ended_once(lake, REQUESTS + count)


def data_files(lake: Lake) -> set[Path] | set[str]:
    """Return the files in the queue's folder, whether a version names them or not."""
    if lake.path.startswith("s3://"):
        return {name for name in stored_under(lake.queue.table.path) if name.endswith(".parquet")}
    return set(Path(lake.queue.table.path).glob("bucket=*/**/*.parquet"))
