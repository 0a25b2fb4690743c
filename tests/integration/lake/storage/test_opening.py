"""Opening a path: nothing there, the table, an older or newer one, or something else."""

import os
import shutil
import stat
import string
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake

from position_sync_dagster import errors
from position_sync_dagster.domain.queue_request import QueueRequest, QueueStatus
from position_sync_dagster.lake import schema
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.position_queue import PositionQueue
from position_sync_dagster.lake.storage import opening
from position_sync_dagster.lake.storage.durability import LOG, entry_name
from position_sync_dagster.lake.storage.object_store import absolute_path
from position_sync_dagster.lake.storage.table import Table
from tests.support.queues import entry, filled_queue


async def test_a_lake_is_made_with_every_table_and_opens_again_as_it_is(tmp_path):
    await Lake(tmp_path).initialize()
    await Lake(tmp_path).initialize()
    specs = (*Lake.specs, *Lake.derived_specs)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(spec.name for spec in specs)
    for spec in specs:
        table = DeltaTable(tmp_path / spec.name)
        assert [f.name for f in table.schema().fields] == list(spec.columns)
        assert table.version() == 0


def test_a_relative_path_does_not_move_with_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lake = Lake("data/lake")
    lake.initialize_sync()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    lake.queue.sync.insert_many([QueueRequest(1, "SPY")])
    assert list(elsewhere.iterdir()) == []


def new(kind: type) -> schema.StoredColumn:
    return schema.StoredColumn(kind=kind, description="New.")


def newer_queue(**columns: schema.StoredColumn) -> schema.TableSpec:
    described = {**schema.POSITION_QUEUE.described, **columns}
    return replace(
        schema.POSITION_QUEUE, version=schema.POSITION_QUEUE.version + 1, described=described
    )


def thesis(path: Path) -> None:
    path.mkdir()
    (path / "thesis.txt").write_text("years of work")


def without_log(path: Path) -> None:
    Lake(path.parent).queue.sync.insert(1, "SPY")
    (path.parent / "position_queue").rename(path)
    shutil.rmtree(path / "_delta_log")
    (path / "_delta_log").mkdir()


def foreign_schema(path: Path) -> None:
    spec = newer_queue(conid=new(str))
    Table(path, replace(spec, version=schema.POSITION_QUEUE.version)).initialize()


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (thesis, errors.ForeignTableError, "thesis"),
        (without_log, errors.ForeignTableError, "no log of a Delta table"),
        (lambda path: write_deltalake(path, pl.DataFrame({"a": [1]})), errors.ForeignTableError,
         "foreign table"),
        (lambda path: Lake(path.parent).updates.table.initialize(), errors.ForeignTableError,
         "'position_updates'"),
        (foreign_schema, errors.ForeignTableError, "conid"),
        (lambda path: path.parent.write_text(""), errors.LakeNotWritableError,
         "POSITION_SYNC_LAKE"),
    ],
    ids=["a folder", "no log", "a foreign table", "another table", "a foreign schema", "no folder"],
)  # fmt: skip
def test_what_is_no_table_of_this_name_is_refused_and_left_alone(tmp_path, make, error, said):
    path = tmp_path / "lake" / "position_updates"
    if error is errors.ForeignTableError:
        path.parent.mkdir()
    make(path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error, match=said):
        PositionQueue(path).sync.insert_many([QueueRequest(1, "SPY")])
    assert sorted(tmp_path.rglob("*")) == before


def test_a_column_that_a_release_no_longer_has_is_gone_and_the_rows_stay(tmp_path):
    spec = schema.CONTRACTS
    older = Table(tmp_path / "c", replace(spec, described=spec.described | {"note": new(str)}))
    older.initialize()
    rows = schema.frame_of(older.spec, [{"conid": 7, "symbol": "XYZ", "note": "kept before"}])
    write_deltalake(tmp_path / "c", rows, mode="append")

    newer = replace(spec, version=spec.version + 1)
    only_read = Table(tmp_path / "c", newer, use="look")
    assert only_read.rows().select("conid", "symbol").rows() == [(7, "XYZ")]

    for _start in range(2):
        table = Table(tmp_path / "c", newer)
        table.initialize()
    assert table.rows().select("conid", "symbol").rows() == [(7, "XYZ")]
    stored = DeltaTable(tmp_path / "c")
    assert stored.schema().fields == spec.delta.fields
    assert stored.metadata().configuration[schema.VERSION_PROPERTY] == str(table.spec.version)
    assert stored.metadata().name == spec.name


def test_an_older_release_is_refused_each_time_once_a_newer_one_migrated_the_table(tmp_path):
    older = filled_queue(tmp_path / "q", 3)
    table = Table(tmp_path / "q", newer_queue(note=new(str)))
    table.initialize()
    migrated = table.version()
    for queue in (older, older, PositionQueue(tmp_path / "q")):
        with pytest.raises(
            errors.NewerTableError, match=f"this release knows {schema.POSITION_QUEUE.version}"
        ):
            queue.sync.insert_many([QueueRequest(9, "SPY")])
    table.initialize()
    assert table.version() == migrated
    assert table.rows(columns=["conid", "note"]).rows() == [(1, None), (2, None), (3, None)]


def test_an_older_release_that_meets_a_migration_says_what_a_later_one_says_too(tmp_path):
    """The columns are added in one commit, and the version is set in the next one."""
    older = filled_queue(tmp_path / "q", 3)
    columns = [field for field in newer_queue(note=new(str)).delta.fields if field.name == "note"]
    DeltaTable(tmp_path / "q").alter.add_columns(columns)
    for queue in (older, PositionQueue(tmp_path / "q")):
        with pytest.raises(errors.NewerTableError, match=r"\(note\); this release knows"):
            queue.sync.insert_many([QueueRequest(9, "SPY")])


def without_data(table: Path) -> None:
    for file in (table / "bucket=live").rglob("*.parquet"):
        file.unlink()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda table: entry(table, 1).write_text('{"add":'), r"is cut.*doctor --repair"),
        (lambda table: entry(table, 0).unlink(), "from a backup"),
        (without_data, r"is missing.*position-sync doctor"),
        (lambda table: (table / "_delta_log/Icon\r").touch(), "deleted, damaged or added"),
    ],
    ids=["cut entry", "no first entry", "no data", "stray file"],
)
def test_a_damaged_table_is_called_broken(tmp_path, damage, said):
    filled_queue(tmp_path / "q")
    damage(tmp_path / "q")
    with pytest.raises(errors.BrokenTableError, match=said):
        PositionQueue(tmp_path / "q").sync.get_batch()


def test_a_table_taken_away_under_a_running_process_is_reported_missing_until_it_is_back(tmp_path):
    queue = filled_queue(tmp_path / "q", 3)
    (tmp_path / "q").rename(tmp_path / "away")
    for step in (queue.sync.counts, lambda: queue.sync.insert_many([QueueRequest(9, "SPY")])):
        with pytest.raises(
            errors.BrokenTableError, match="deleted or moved away while this process had it open"
        ):
            step()
        assert not (tmp_path / "q" / "_delta_log").exists()
    if (tmp_path / "q").exists():
        shutil.rmtree(tmp_path / "q")
    (tmp_path / "away").rename(tmp_path / "q")
    queue.sync.insert_many([QueueRequest(9, "SPY")])
    assert queue.sync.counts()[QueueStatus.PENDING] == 4


def test_a_look_at_a_table_that_was_never_made_says_so_and_makes_nothing(tmp_path):
    only_read = Table(tmp_path / "c", schema.CONTRACTS, use="look")
    with pytest.raises(errors.BrokenTableError, match=r"/c does not exist\."):
        only_read.rows()
    assert not list(tmp_path.iterdir())


def test_a_table_made_anew_by_another_process_is_used(tmp_path):
    queue = filled_queue(tmp_path / "q", 3)
    shutil.rmtree(tmp_path / "q")
    filled_queue(tmp_path / "q", 1)
    assert queue.sync.counts()[QueueStatus.PENDING] == 1


def test_a_reader_that_is_idle_during_a_cleanup_of_the_log_goes_on(tmp_path):
    idle = filled_queue(tmp_path / "q", 1)
    idle.sync.counts()
    busy = PositionQueue(tmp_path / "q")
    for conid in range(2, 15):
        busy.sync.insert_many([QueueRequest(conid, "SPY")])
    log = tmp_path / "q" / "_delta_log"
    for old in sorted(log.glob("*.json"))[:8]:  # the last checkpoint stands for them
        old.unlink()
    assert idle.sync.counts()[QueueStatus.PENDING] == 14


def test_a_table_is_opened_again_after_a_long_pause_alone(tmp_path, monkeypatch):
    queue = filled_queue(tmp_path / "q", 1)
    clock = SimpleNamespace(now=1000.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(opening, "time", clock)

    def look(*, after_s: float) -> DeltaTable:
        clock.now += after_s
        return queue.table.snapshot(lambda handle: handle)

    first = look(after_s=0.0)
    assert {id(look(after_s=15.0)) for _ in range(4)} == {id(first)}

    other = PositionQueue(tmp_path / "q")
    for conid in (2, 3):
        other.sync.insert_many([QueueRequest(conid, "SPY")])
    other.table.checkpoint(other.table.snapshot(lambda handle: handle))
    # A cleanup that is not over: the entry after that of `first` is gone, its own is not yet.
    (tmp_path / "q" / LOG / entry_name(first.version() + 1)).unlink()
    assert look(after_s=15.0) is first
    assert look(after_s=25.0).version() == first.version() + 2


ODD = "".join(mark for mark in string.punctuation if mark not in r"/[]^|\ ") + " é日😀\xa0"


@pytest.mark.parametrize("name", [ODD, "100%", "%zz", " a ", "~", "...", "C:"])
def test_a_table_is_kept_in_the_folder_that_was_named(tmp_path, name):
    path = tmp_path / name / "lake"
    assert absolute_path(path) == str(path)
    Lake(path).registry.sync.add_active(1, "SPY", strategy_id="a")
    assert [leg.conid for leg in Lake(str(path)).registry.sync.get_all_active()] == [1]
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_local_lake_without_tables_is_not_there_whatever_its_name_begins_with(tmp_path, scheme):
    lake = Lake(f"{scheme}{tmp_path}/lake")
    assert not lake.exists
    lake.registry.sync.initialize()
    assert lake.exists
    assert os.listdir(tmp_path) == ["lake"]


def test_a_lake_that_may_not_be_read_is_no_lake_without_tables(tmp_path):
    lake = Lake(tmp_path / "lake")
    user = os.geteuid()
    lake.registry.sync.initialize()
    (tmp_path / "lake").chmod(0)
    try:
        if user == 0:
            os.seteuid(65_534)  # no rights stop root
        with pytest.raises(errors.LakeError, match="Permission denied"):
            _ = lake.exists
    finally:
        os.seteuid(user)
        (tmp_path / "lake").chmod(0o700)


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def open_to_others(folder: Path) -> bool:
    return bool(stat.S_IMODE(folder.stat().st_mode) & 0o077)


@pytest.mark.usefixtures("open_umask")
async def test_a_new_lake_and_a_new_table_are_private_and_the_folder_around_is_not(tmp_path):
    (tmp_path / "shared").mkdir(mode=0o775)
    await Lake(tmp_path / "shared" / "data" / "lake").initialize()
    await PositionQueue(str(tmp_path / "shared" / "position_queue")).initialize()
    assert open_to_others(tmp_path / "shared")
    tables = [path for path in (tmp_path / "shared" / "data" / "lake").iterdir() if path.is_dir()]
    assert len(tables) > 5
    for folder in (tables[0].parent, *tables, tmp_path / "shared" / "position_queue"):
        assert not open_to_others(folder)
