"""The lake that the commands find in the environment of a test."""

import pytest

from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.settings import load_settings
from tests.support.empty_lakes import put_tables


@pytest.fixture
def lake(monkeypatch: pytest.MonkeyPatch) -> MoneyLake:
    """Return the tables, empty."""
    monkeypatch.setenv("POSITION_SYNC_FSYNC", "false")
    lake = MoneyLake.of(load_settings())
    put_tables(lake.path)
    return lake
