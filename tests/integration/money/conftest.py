"""The streamer over a simulator that the core's tests have too, with the tables of money."""

import pytest

from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.settings import Settings
from tests.integration.sync.conftest import (
    running_streamer,
    stream_legs,
    streaming,
)
from tests.support.booked_days import Books
from tests.support.empty_lakes import put_tables

__all__ = ["running_streamer", "stream_legs", "streaming"]


@pytest.fixture
def lake(tmp_path):
    put_tables(tmp_path / "lake")
    return MoneyLake(tmp_path / "lake")


@pytest.fixture
def books(lake, tmp_path) -> Books:
    """Return days that a test books, in the lake and in a folder of statements."""
    folder = tmp_path / "flex"
    folder.mkdir()
    return Books(lake, Settings(lake=lake.path, flex_folder=folder), folder)
