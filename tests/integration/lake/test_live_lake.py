"""A lake that others write to is never called torn."""

from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.position_queue import PositionQueue
from position_sync_dagster.lake.storage.table import CHECKPOINT_EVERY, Table
from tests.support.extent import EVERYTHING
from tests.support.lake_processes import Worker, workers

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
    queue, calls = PositionQueue(path / "position_queue").table, 0
    with workers(*writers):
        while calls < CALLS or queue.version() <= CHECKPOINT_EVERY:
            assert not any(map(Table.examine, Lake(path, fsync=False).all_tables))
            calls += 1
