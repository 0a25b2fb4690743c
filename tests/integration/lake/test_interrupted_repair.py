"""A repair that is killed at any step, twice, and started again loses nothing."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from position_sync_dagster.domain.update import PositionUpdate, QueueRequest
from position_sync_dagster.errors import BrokenTableError
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.recovery import diagnose
from tests.support.crash_worker import POINTS
from tests.support.empty_lakes import put_tables
from tests.support.extent import part_of
from tests.support.forked_workers import worker_forker
from tests.support.torn_queues import entry

MODULE = "tests.support.crash_worker"
REQUESTS, UNDONE = 5, 25
VALUES = 12

END = "the repair is finished"
SECONDS = {
    first: sorted({END, *(second for one, second in part_of(POINTS["repair"], 1) if one == first)})
    for first in POINTS["repair"]
}
"""Where a repair is killed again that was killed first at a point and started again."""


def torn_queue(lake: Lake, _: Callable[..., PositionUpdate]) -> set[str]:
    """Insert requests, and tear the log so that most of them are in undone commits."""
    queue = lake.queue.sync
    ids = queue.insert_many(QueueRequest(conid, "SPY") for conid in range(1, REQUESTS + 1))
    ids += queue.insert_many(QueueRequest(conid, "SPY") for conid in range(100, 100 + UNDONE))
    queue.claim_batch(limit=3)
    entry(Path(lake.queue.table.path), 2).write_bytes(b"")
    return set(ids)


def torn_ledger(lake: Lake, make_update: Callable[..., PositionUpdate]) -> set[str]:
    """Append values, and tear the log so that most of them are in undone commits."""
    for first in range(0, VALUES, VALUES // 3):
        rows = (make_update(c, update_id=f"row-{c}") for c in range(first, first + VALUES // 3))
        lake.updates.sync.append(rows)
    entry(Path(lake.updates.table.path), 2).write_bytes(b"{")
    return {f"row-{conid}" for conid in range(VALUES)}


TORN = {"queue": torn_queue, "ledger": torn_ledger}


@pytest.mark.parametrize("kind", TORN)
@pytest.mark.parametrize("first", POINTS["repair"])
def test_a_repair_killed_at_any_step_twice_and_started_again_loses_nothing(
    tmp_path, make_update, first, kind
):
    put_tables(tmp_path / "lake")
    torn = Lake(tmp_path / "lake", fsync=False)
    acknowledged = TORN[kind](torn, make_update)
    assert run(torn, first) == f"at {first}\n", "the repair did not reach the point"
    assert_refused_or_whole(torn.path, acknowledged)
    reached = set()
    for second in SECONDS[first]:
        again = shutil.copytree(torn.path, tmp_path / second)
        if run(Lake(again), second) == f"at {second}\n":
            reached.add(second)
            assert_refused_or_whole(str(again), acknowledged)
            assert run(Lake(again), "") == "done\n"
        assert stored(str(again)) == acknowledged
        assert all(diagnose(table).healthy for table in Lake(again).tables)
    # What was killed before its end comes to its end in the second run.
    assert END in reached or first == END


def run(lake: Lake, point: str) -> str:
    """Repair all tables in a process that kills itself at a point; return what it said."""
    worker = worker_forker(MODULE).start("repair", str(lake.path), point)
    worker.begin()
    return worker.output()


def assert_refused_or_whole(path: str, acknowledged: set[str]) -> None:
    """Check that nobody reads the tables while something is missing in them."""
    tables = Lake(path).tables
    if all(diagnose(table, pause_s=0).healthy for table in tables):
        assert stored(path) == acknowledged
        return
    with pytest.raises(BrokenTableError, match="position-sync doctor"):
        stored(path)


def stored(path: str) -> set[str]:
    """Read the ids of all requests and values, each of which is there once."""
    lake = Lake(path)
    rows = [
        *lake.queue.table.rows(columns=["request_id"]).get_column("request_id"),
        *lake.updates.table.rows(columns=["update_id"]).get_column("update_id"),
    ]
    assert len(rows) == len(set(rows))
    return set(rows)
