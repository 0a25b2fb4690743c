"""The files of Dagster's storage are made, and a change of them is noticed."""

from collections.abc import Iterator

import pytest
from dagster import DagsterInstance

from position_sync_dagster.dagster_host.services import STORAGE, CannotRunError, StorageFiles


@pytest.fixture
def home(tmp_path, monkeypatch):
    home = tmp_path / "dagster_home"
    home.mkdir()
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    return home


@pytest.fixture
def files(home) -> Iterator[StorageFiles]:
    files = StorageFiles()
    files.make()
    yield files
    files.close()


def test_one_that_is_deleted_and_made_again_by_a_program_is_noticed(home, files):
    """An inode that nobody holds is the next file's: the same number would say nothing."""
    assert all((home / name).is_file() for name in STORAGE)
    assert files.lost() == []
    for name in STORAGE:
        for _ in range(3):
            (home / name).unlink()
            (home / name).touch()
            assert files.lost() == [name.split("/")[-1]]
        files.make()
        assert files.lost() == []
        with DagsterInstance.get() as instance:
            assert instance.get_runs_count() == 0


def test_what_is_no_database_is_named(home, files):
    (home / "history" / "runs.db").unlink()
    (home / "history" / "runs.db").write_text("no database" * 500)
    with pytest.raises(CannotRunError, match=r"storage cannot be used: .*not a database"):
        files.make()
