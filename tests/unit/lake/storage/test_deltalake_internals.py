"""What the private symbols of delta-rs give, and what happens in a release without them."""

from types import SimpleNamespace

import pytest
from deltalake import DeltaTable, Field, Schema, _internal
from deltalake.schema import PrimitiveType

from position_sync_dagster.lake.storage import deltalake_internals
from position_sync_dagster.lake.storage.deltalake_internals import delete_log, is_behind


@pytest.fixture
def handle(tmp_path):
    """Return a new table."""
    deltalake_internals._warn_once.cache_clear()
    return DeltaTable.create(tmp_path / "t", Schema([Field("x", PrimitiveType("long"))]))


def test_a_handle_is_behind_when_another_one_committed(handle, tmp_path):
    assert not is_behind(handle)
    DeltaTable(tmp_path / "t").alter.set_table_properties({"delta.appendOnly": "true"})
    assert is_behind(handle)


def test_without_a_look_at_the_newest_version_a_handle_counts_as_behind(handle, caplog):
    handle._table = SimpleNamespace(version=handle._table.version)
    assert [is_behind(handle), is_behind(handle)] == [True, True]
    (said,) = caplog.messages
    assert "get_latest_version" in said


def test_the_log_of_a_table_is_deleted(handle, tmp_path):
    delete_log(str(tmp_path / "t"), None)
    assert not DeltaTable.is_deltatable(str(tmp_path / "t"))


def test_a_log_that_cannot_be_deleted_stays_and_a_warning_names_its_folder(
    handle, tmp_path, monkeypatch, caplog
):
    monkeypatch.delattr(_internal, "DeltaFileSystemHandler")
    for _ in range(2):
        delete_log(str(tmp_path / "t"), None)
    assert DeltaTable.is_deltatable(str(tmp_path / "t"))
    (said,) = caplog.messages
    assert str(tmp_path) in said
