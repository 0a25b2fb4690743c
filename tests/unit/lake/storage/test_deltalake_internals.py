"""What the private symbol of delta-rs does, and what happens in a release without it."""

import pytest
from deltalake import DeltaTable, Field, Schema, _internal
from deltalake.schema import PrimitiveType

from position_sync_dagster.lake.storage.object_store import delete_log


@pytest.fixture
def path(tmp_path):
    """Return the path of a new table."""
    DeltaTable.create(tmp_path / "t", Schema([Field("x", PrimitiveType("long"))]))
    return str(tmp_path / "t")


def test_the_log_of_a_table_is_deleted(path):
    delete_log(path, None)
    assert not DeltaTable.is_deltatable(path)


def test_a_log_that_cannot_be_deleted_stays_and_a_warning_names_its_folder(
    path, tmp_path, monkeypatch, caplog
):
    monkeypatch.delattr(_internal, "DeltaFileSystemHandler")
    delete_log(path, None)
    assert DeltaTable.is_deltatable(path)
    (said,) = caplog.messages
    assert str(tmp_path) in said
