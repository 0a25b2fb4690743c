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


async def test_a_library_user_with_an_open_umask_makes_a_private_lake(tmp_path):
    lake = Lake(tmp_path / "data" / "lake")
    await lake.initialize()
    assert not open_to_others(tmp_path / "data" / "lake")
    tables = [path for path in (tmp_path / "data" / "lake").iterdir() if path.is_dir()]
    assert len(tables) > 5
    assert not any(open_to_others(table) for table in tables)


async def test_a_single_table_is_private_too_and_its_folder_stays_as_it_is(tmp_path):
    (tmp_path / "shared").mkdir(mode=0o775)
    queue = PositionQueue(str(tmp_path / "shared" / "position_queue"))
    await queue.initialize()
    assert open_to_others(tmp_path / "shared")
    assert not open_to_others(tmp_path / "shared" / "position_queue")
