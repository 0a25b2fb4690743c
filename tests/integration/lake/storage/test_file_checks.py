"""A data file that is not as the log says is found; the table, the file and the cure are named."""

from pathlib import Path
from urllib.parse import unquote

import pytest

from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.storage.table import Table
from tests.support.object_store import put_stored, stored_under

DAMAGES = [
    ("is empty", lambda whole: b""),
    ("is cut", lambda whole: whole[:-20]),
    ("was overwritten", lambda whole: whole + b"\0"),
]


@pytest.fixture
def ledger(lake: Lake, make_update) -> Table:
    """Return a ledger of three files."""
    for conid in (1, 2, 3):
        lake.updates.sync.append([make_update(conid)])
    return lake.updates.table


def first_file(table: Table) -> str:
    return unquote(table.read(lambda files: min(files.get_column("path"))))


@pytest.mark.parametrize(("flaw", "damage"), DAMAGES)
def test_a_ledger_file_that_was_cut_or_written_over_is_named_with_its_cure(ledger, flaw, damage):
    name = first_file(ledger)
    file = Path(ledger.path, name)
    file.write_bytes(damage(file.read_bytes()))

    text = str(ledger.damage())
    assert f"{ledger.path} cannot be read whole: of 3 files, 1 are damaged: {name} {flaw}" in text
    assert "from a copy" in text


def test_a_store_is_listed_once(store, make_update):
    lake = Lake(store.lake())
    for conid in (1, 2):
        lake.updates.sync.append([make_update(conid)])
    table = lake.updates.table
    name = first_file(table)
    assert table.damage() is None

    store.proxy.counts()
    assert table.damage() is None
    assert store.proxy.counts()["LIST"] == 2  # of the log, and of the table

    whole = stored_under(table.path)[f"{table.path}/{name}"]
    put_stored(f"{table.path}/{name}", whole[:-20])
    assert f"{name} is cut" in str(table.damage())
