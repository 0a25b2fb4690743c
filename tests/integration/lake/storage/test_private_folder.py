"""Only its owner may enter a lake that this package made."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from position_sync_dagster import Lake, PositionQueue


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def open_to_others(folder: Path) -> bool:
    return bool(stat.S_IMODE(folder.stat().st_mode) & 0o077)


async def test_a_new_lake_and_a_new_table_are_private_and_the_folder_around_is_not(tmp_path):
    (tmp_path / "shared").mkdir(mode=0o775)
    await Lake(tmp_path / "shared" / "data" / "lake").initialize()
    await PositionQueue(str(tmp_path / "shared" / "position_queue")).initialize()
    assert open_to_others(tmp_path / "shared")
    tables = [path for path in (tmp_path / "shared" / "data" / "lake").iterdir() if path.is_dir()]
    assert len(tables) > 5
    for folder in (tables[0].parent, *tables, tmp_path / "shared" / "position_queue"):
        assert not open_to_others(folder)
