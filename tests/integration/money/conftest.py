"""The streamer over a simulator that the core's tests have too, with the tables of money."""

import pytest

from position_sync_dagster.money.lake import MoneyLake
from tests.integration.sync.conftest import (
    running_streamer,
    stream_legs,
    streaming,
)
from tests.support.empty_lakes import put_tables

__all__ = ["running_streamer", "stream_legs", "streaming"]


@pytest.fixture
def lake(tmp_path):
    put_tables(tmp_path / "lake")
    return MoneyLake(tmp_path / "lake")
