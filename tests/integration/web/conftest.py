"""A lake whose tables are there, for what a browser shows of it."""

import pytest

from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.settings import Settings
from tests.support.empty_lakes import put_tables


@pytest.fixture
def settings(tmp_path) -> Settings:
    put_tables(tmp_path / "lake")
    return Settings(lake=str(tmp_path / "lake"), gateway_id="gate")


@pytest.fixture
def lake(settings) -> Lake:
    return Lake.of(settings)
