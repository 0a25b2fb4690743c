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


def test_one_that_is_deleted_is_noticed_and_made_again_and_what_is_no_database_is_named(
    home, files
):
    """An inode that nobody holds is the next file's: the same number would say nothing.

    One test, because each time that the files are made, a program imports Dagster.
    """
    assert all((home / name).is_file() for name in STORAGE)
    assert files.lost() == []
    for number, name in enumerate(STORAGE, start=1):
        for _ in range(3):
            (home / name).unlink()
            (home / name).touch()
            assert files.lost() == [one.split("/")[-1] for one in STORAGE[:number]]
    files.make()
    assert files.lost() == []
    with DagsterInstance.get() as instance:
        assert instance.get_runs_count() == 0

    (home / "history" / "runs.db").unlink()
    (home / "history" / "runs.db").write_text("no database" * 500)
    with pytest.raises(CannotRunError, match=r"storage cannot be used: .*not a database"):
        files.make()
