"""Maintenance: fewer files, the same rows, and no effect on others."""

import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable

import position_sync_dagster
from position_sync_dagster.domain.queue_request import QueueRequest, QueueStatus
from position_sync_dagster.errors import BrokenTableError
from position_sync_dagster.lake import schema
from position_sync_dagster.lake.position_queue import PositionQueue
from position_sync_dagster.lake.storage import commits, merges
from position_sync_dagster.lake.storage import table as storage
from position_sync_dagster.lake.storage.data_files import data_files
from position_sync_dagster.lake.storage.opening import UPKEEP, Upkeep
from tests.support.derived_rows import put_rows
from tests.support.queues import finish_each, requests_of
from tests.support.whole_lake import WholeLake

# Commits of each table between two maintenances: more than make a compaction due.
COMMITS = 12

# So many small files are merged, so that it takes fewer commits.
DUE = COMMITS - 2
SOON = Upkeep(compact_from=DUE)


@pytest.fixture
def queue(tmp_path: Path) -> PositionQueue:
    made = PositionQueue(tmp_path / "q", upkeep=SOON)
    made.sync.initialize()
    return made


def test_finished_requests_are_merged_and_live_ones_left_alone(queue):
    ids = finish_each(queue, range(1, DUE + 1))
    queue.sync.insert_many(requests_of(range(1000, 1010)))
    live = {uri for uri in queue.table.snapshot(DeltaTable.file_uris) if "bucket=live" in uri}
    result = merges.maintain(queue.table)
    assert result.compacted == DUE
    assert result.skipped is None
    assert result.files == len(live) + 1
    assert live < set(queue.table.snapshot(DeltaTable.file_uris))
    done = queue.sync.get_batch(priority=None, status=QueueStatus.SUCCESS, limit=100)
    assert {r.request_id for r in done} == set(ids)
    assert queue.sync.counts()[QueueStatus.SUCCESS] == DUE


async def test_in_an_object_store_no_change_waits_for_a_merge(store, monkeypatch, eventually):
    queue = PositionQueue(f"{store.lake()}/q", upkeep=Upkeep(compact_every=2))
    queue.sync.initialize()
    begun = threading.Event()
    go_on = threading.Event()
    merged = []

    def slow(of: storage.Table, _small_bytes: int) -> None:
        begun.set()
        assert go_on.wait(60)
        merged.append(of.path)

    monkeypatch.setattr(merges, "compact", slow)
    finish_each(queue, [1])
    assert begun.wait(60)
    finish_each(queue, [2])
    assert not merged
    go_on.set()
    await eventually(lambda: set(merged) == {queue.table.path})


def test_the_counts_of_a_queue_need_no_read_of_finished_requests(queue):
    [failed, *done] = queue.sync.insert_many(requests_of(range(1, 41)))
    queue.sync.mark_success(done)
    queue.sync.mark_failed(failed, "no such contract", retryable=False)
    queue.sync.insert_many(QueueRequest(c, "SPY", 1) for c in (1000, 1001))
    expected = queue.sync.overview()
    merges.maintain(queue.table)  # a checkpoint: opening the table does not check older files
    for bucket in (QueueStatus.SUCCESS, QueueStatus.FAILED):
        [file] = Path(queue.table.path, f"bucket={bucket}").rglob("*.parquet")
        file.unlink()

    for again in (queue, PositionQueue(queue.table.path)):
        assert again.sync.overview() == expected
        assert again.sync.counts() == dict(zip(QueueStatus, (2, 0, 39, 1), strict=True))
    queue.sync.release(r.request_id for r in queue.sync.claim_batch())
    assert queue.sync.overview().claimable == 2

    with pytest.raises(BrokenTableError, match="cannot be read whole"):
        queue.sync.get_batch(None, status=QueueStatus.SUCCESS)


def test_files_and_folders_that_no_version_needs_are_deleted_only_after_the_retention(queue):
    finish_each(queue, range(1, DUE + 1))
    assert merges.maintain(queue.table).deleted == 0
    folders = list(Path(queue.table.path).glob("bucket=*/part=*"))
    assert len(folders) > DUE
    assert merges.maintain(queue.table, clean_now=True).deleted > DUE
    left = {folder.name for folder in folders if folder.exists() and not any(folder.iterdir())}
    assert left <= {"part=0"}
    files = [p for p in Path(queue.table.path).rglob("*.parquet") if "_delta_log" not in p.parts]
    assert len(files) == 1
    assert merges.maintain(queue.table).files == 1
    finish_each(queue, [200])
    assert queue.sync.counts()[QueueStatus.SUCCESS] == DUE + 1


@pytest.mark.parametrize("step", ["vacuum", "create_checkpoint", "cleanup_metadata"])
def test_maintenance_that_meets_a_log_cut_by_another_one_looks_again(queue, tmp_path, step):
    finish_each(queue, [1, 2])
    log = tmp_path / "q" / "_delta_log"
    seen = []

    def work(handle: DeltaTable) -> None:
        seen.append(handle.version())
        if len(seen) == 1:  # another process commits, writes a checkpoint and deletes the rest
            PositionQueue(tmp_path / "q").sync.insert_many([QueueRequest(99, "SPY")])
            DeltaTable(tmp_path / "q").create_checkpoint()
            for entry in sorted(log.glob("*.json"))[:-1]:
                entry.unlink()
        getattr(handle, step)()

    queue.table.snapshot(work)
    assert seen == ([4] if step == "cleanup_metadata" else [4, 5])


# Maintenances.
HOURS = 2

NOW = datetime(2026, 3, 2, tzinfo=UTC)


def a_row(number: int, spec: schema.TableSpec = schema.LATEST_POSITIONS) -> pl.DataFrame:
    """Return one row with an id of its own."""
    text = [column for column, kind in spec.polars.items() if kind == pl.String]
    places: dict[str, list[Any]] = {
        name: [name if name in spec.partition_by else f"{name}-{number}"] for name in text
    }
    days = [column for column, kind in spec.polars.items() if kind == pl.Date]
    rest = {name: [None] for name in spec.columns if name not in places}
    keys = {
        name: [NOW if isinstance(spec.polars[name], pl.Datetime) else number]
        for name in spec.key
        if name in rest
    }
    places |= rest | keys | {name: [NOW.date()] for name in days}
    if spec.order and spec.order not in text:
        is_count = spec.polars[spec.order] == pl.Int64
        places[spec.order] = [number if is_count else NOW + timedelta(seconds=number)]
    if "part" in spec.partition_by:
        places |= {"bucket": ["SUCCESS"], "part": schema.new_ids(datetime.now(UTC), 1)}
    return pl.DataFrame(places, schema=spec.polars)


def write(table: storage.Table, number: int) -> None:
    row = a_row(number, table.spec)
    if table.spec not in WholeLake.derived_specs:
        table.transact(lambda handle: commits.write(handle, row, {}))
    elif table.spec.partition_by:
        day = row.get_column(table.spec.partition_by[0]).item()
        put_rows(storage.Table(table.path, table.spec), {day: row})
    else:
        put_rows(storage.Table(table.path, table.spec), row)


def stored(table: storage.Table) -> tuple[int, int]:
    """Return the number of data files, and of entries and checkpoints in the log."""
    folder = Path(table.path)
    log = list((folder / "_delta_log").iterdir())
    return len([p for p in folder.rglob("*.parquet") if p not in log]), len(log)


def test_no_table_grows_in_files_or_log_over_a_day_of_commits(tmp_path):
    lake = WholeLake(tmp_path, fsync=False, upkeep=SOON)
    lake.initialize_sync()
    for table in lake.all_tables:
        storage.Table(table.path, table.spec).initialize()
        retention = {"delta.logRetentionDuration": "interval 0 seconds"}
        DeltaTable(table.path).alter.set_table_properties(retention)

    afterwards = []
    for hour in range(HOURS):
        for table in lake.all_tables:
            for number in range(COMMITS):
                write(table, hour * COMMITS + number)
        lake.maintain(clean_now=True)
        afterwards.append({table.spec.name: stored(table) for table in lake.all_tables})

    for table in lake.all_tables:
        files, entries = zip(*(afterward[table.spec.name] for afterward in afterwards), strict=True)
        assert max(files) < DUE, table.spec.name
        assert max(entries) <= 2 * UPKEEP.checkpoint_every, table.spec.name
        rows = 1 if table.spec in WholeLake.derived_specs else HOURS * COMMITS
        assert table.count() == rows, table.spec.name


def test_one_small_file_is_left_of_each_day_that_is_over(tmp_path):
    spec = schema.POSITION_UPDATES
    table = storage.Table(tmp_path / spec.name, spec, fsync=False)
    table.initialize()
    for number in range(6):
        row = a_row(number, spec).with_columns(date=NOW.date() + timedelta(days=number // 2))
        table.transact(lambda handle, row=row: commits.write(handle, row, {}))
    before = table.rows().sort(spec.order)
    assert merges.maintain(table).compacted == 4
    assert table.rows().sort(spec.order).equals(before, null_equal=True)
    by_day = table.snapshot(data_files).group_by("partition.date").len()
    files = by_day.sort("partition.date").get_column("len").to_list()
    assert files == [1, 1, 2]  # the last day may get more
    assert merges.maintain(table).compacted == 0


def test_rows_that_are_appended_meanwhile_do_not_delay_a_merge(tmp_path, monkeypatch):
    spec = schema.ACCOUNT_VALUES
    table, other = (
        storage.Table(tmp_path / spec.name, spec, fsync=False, upkeep=SOON) for _ in range(2)
    )
    table.initialize()
    for number in range(DUE):
        write(table, number)
    tries = []
    transact = table.transact

    def beside(step):
        def once(handle):
            tries.append(handle.version())
            if len(tries) == 1:
                write(other, DUE)
            return step(handle)

        return transact(once)

    monkeypatch.setattr(table, "transact", beside)
    result = merges.maintain(table)
    assert result.compacted == DUE
    assert result.files == 2
    assert result.skipped is None
    assert len(tries) == 2  # the merge, and the look that found nothing more


def test_small_files_behind_some_larger_ones_are_merged(tmp_path):
    spec = schema.POSITION_UPDATES
    table = storage.Table(tmp_path / spec.name, spec, fsync=False, upkeep=SOON)
    table.initialize()
    for number in range(2 * DUE):
        row = a_row(number, schema.POSITION_UPDATES)
        if number < 6:  # as the first rows of a day, when all holdings are written
            row = row.with_columns(note=pl.lit(os.urandom(30_000).hex()))
        table.transact(lambda handle, row=row: commits.write(handle, row, {}))
    sizes = sorted(table.snapshot(data_files).get_column("size_bytes"))
    assert sizes[-1] < 100_000 < merges.MAX_SMALL * 100_000 < sum(sizes[-6:])
    assert merges.compact(table, 100_000) >= 2 * DUE - 6
    assert table.count() == 2 * DUE


def test_nothing_of_ours_uses_optimize():
    """Two of them at once would add each merged row twice (delta-rs 1.6)."""
    package = Path(position_sync_dagster.__file__).parent
    paths = [path for path in package.rglob("*.py") if ".optimize." in path.read_text()]
    assert paths == []
