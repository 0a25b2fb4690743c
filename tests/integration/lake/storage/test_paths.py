"""Names of folders that real Delta tables can be kept in."""

import os
import string

import pytest

from position_sync_dagster.errors import LakeError
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.settings import lake_path_error

ODD = "".join(mark for mark in string.punctuation if mark not in r"/[]^|\ ") + " é日😀\xa0"


@pytest.mark.parametrize("name", [ODD, "100%", "%zz", " a ", "~", "...", "C:"])
def test_a_table_is_kept_in_the_folder_that_was_named(tmp_path, name):
    path = tmp_path / name / "lake"
    assert lake_path_error(str(path)) is None
    Lake(path).registry.sync.add_active(1, "SPY", strategy_id="a")
    assert [one.conid for one in Lake(str(path)).registry.sync.get_all_active()] == [1]
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_local_lake_without_tables_is_not_there_whatever_its_name_begins_with(tmp_path, scheme):
    lake = Lake(f"{scheme}{tmp_path}/lake")
    assert not lake.exists
    lake.registry.sync.initialize()
    assert lake.exists
    assert os.listdir(tmp_path) == ["lake"]


def test_a_lake_that_may_not_be_read_is_no_lake_without_tables(tmp_path):
    lake, user = Lake(tmp_path / "lake"), os.geteuid()
    lake.registry.sync.initialize()
    (tmp_path / "lake").chmod(0)
    try:
        if user == 0:
            os.seteuid(65_534)  # no rights stop root
        with pytest.raises(LakeError, match="Permission denied"):
            _ = lake.exists
    finally:
        os.seteuid(user)
        (tmp_path / "lake").chmod(0o700)
