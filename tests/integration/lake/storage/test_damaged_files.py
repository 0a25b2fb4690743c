"""A table whose files were lost or overwritten behind it: nothing calls it good, each is named."""

import io
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from position_sync_dagster import errors
from position_sync_dagster.domain.queue_request import QueueRequest
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.storage.data_files import data_files
from position_sync_dagster.lake.storage.durability import LOG, entry_name
from position_sync_dagster.lake.storage.table import Table
from position_sync_dagster.processes.repair import examine_files
from tests.support.damaged_parquet import at_which_polars_panics
from tests.support.object_store import delete_stored, put_stored, stored_under


def files_below(place: str) -> dict[str, bytes]:
    """Return the files of a table by their paths or URIs, on a disk or in a store."""
    if "://" in place:
        return stored_under(place)
    return {str(path): path.read_bytes() for path in Path(place).rglob("*") if path.is_file()}


def put(place: str, content: bytes | None) -> None:
    """Overwrite a file, or delete it."""
    match "://" in place, content:
        case True, None:
            delete_stored(place)
        case True, bytes():
            put_stored(place, content)
        case False, None:
            Path(place).unlink()
        case False, bytes():
            Path(place).write_bytes(content)


@pytest.fixture
def ledger(lake: Lake, make_update) -> Table:
    """Return the ledger with three files."""
    for conid in (1, 2, 3):
        lake.updates.sync.append([make_update(conid)])
    return lake.updates.table


def oldest_file(table: Table) -> str:
    files = table.snapshot(data_files).sort("max.ledger_version")
    return f"{table.path}/{files['path'][0]}"


def of_another_schema(_whole: bytes) -> bytes:
    with io.BytesIO() as file:
        pl.DataFrame({"conid": ["none"]}).write_parquet(file)
        return file.getvalue()


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "removed": lambda _whole: None,
    "cut": lambda whole: whole[:-100],
    "longer": lambda whole: whole + b"more",
    "zeros": lambda whole: bytes(len(whole)),
    "another schema": of_another_schema,
    "panic": lambda whole: at_which_polars_panics(whole, "request_id"),
}


@pytest.mark.in_store
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_an_older_file_that_was_damaged_is_named_and_its_rows_are_an_error(lake, ledger, damage):
    assert examine_files(ledger) == [None, None, None]
    path = oldest_file(ledger)
    put(path, damage(files_below(ledger.path)[path]))

    opened = Lake(lake.path, use="look").updates.table
    assert opened.damage() is None, "its log is whole"
    [named] = filter(None, examine_files(opened))
    assert path in named.what
    assert named.remedy
    with pytest.raises(errors.BrokenTableError, match="doctor --files"):
        opened.rows()


@pytest.mark.in_store
def test_a_whole_file_of_other_rows_in_place_of_an_older_one_is_named(lake, ledger, make_update):
    lake.updates.sync.append([make_update(conid) for conid in range(10, 90)])
    files = files_below(ledger.path).values()
    larger = max(files, key=lambda file: (file[:4] == b"PAR1", len(file)))
    path = oldest_file(ledger)
    put(path, larger)
    [named] = filter(None, examine_files(ledger))
    assert path in named.what
    assert "another size" in named.what


@pytest.mark.in_store
def test_a_table_that_lost_its_log_is_not_taken_for_one_that_was_never_made(lake):
    lake.queue.sync.insert(1, "SPY")
    place = lake.queue.table.path
    for path in files_below(place):
        if "_delta_log" in path:
            put(path, None)
    before = files_below(place)

    for use in ("look", "work"):
        opened = Lake(lake.path, use=use)
        assert place in opened.queue.table.damage().what
        for call in (opened.queue.table.exists, opened.queue.sync.counts):
            with pytest.raises(errors.ForeignTableError, match="Put its log"):
                call()
    with pytest.raises(errors.ForeignTableError):
        Lake(lake.path).queue.sync.insert_many([QueueRequest(2, "SPY")])
    assert {path for path in files_below(place) if ".lock" not in path} == {
        path for path in before if ".lock" not in path
    }


def test_an_entry_of_a_log_that_is_gone_is_found_by_a_process_that_looks_all_the_time(lake, ledger):
    assert ledger.damage() is None
    entry = Path(ledger.path) / LOG / entry_name(ledger.version() - 1)
    entry.unlink()
    ledger.version()  # who follows the log does not need it
    assert isinstance(ledger.damage(), errors.BrokenTableError)


@pytest.mark.in_store
def test_a_table_that_was_never_made_is_whole(home):
    lake = Lake(home)
    assert not lake.queue.table.exists()
    assert lake.queue.table.damage() is None
    lake.queue.sync.insert(1, "SPY")
    assert examine_files(lake.queue.table) == [None]
