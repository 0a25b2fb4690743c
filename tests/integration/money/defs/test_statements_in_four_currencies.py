"""Statements in four currencies, by Dagster's own command: the profit of each day to the cent."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.settings import load_settings
from tests.integration.defs.assets.test_daily_positions import partition_range
from tests.support.contracts import contract_details
from tests.support.four_currencies import (
    FIRST_FILES,
    FIRST_PROFITS,
    FIRST_UNKNOWN,
    LAST_PROFITS,
    LAST_UNKNOWN,
    LATER_FILES,
    A,
    Profits,
)

IMPORTED = "flex_statements,executions,statement_events"
FILLED = "daily_positions,profit_explained"
RANGE = "2026-03-02...2026-03-09"

# What the first files say wrong of one day is not profit of anybody.
WRONG_DAY = ("2026-03-03", A, "USD")

Materialize = Callable[[str, str | None], None]


@pytest.fixture
def in_this_process(world, folder) -> Materialize:
    """Return what runs an asset job over the selection, and a range of its partitions.

    Definitions that were loaded for another test begin with the first day of that test.
    """
    from position_sync_dagster.component import PositionSyncComponent

    @cache
    def whole() -> dg.Definitions:
        return PositionSyncComponent().definitions(load_settings())

    def run(selection: str, partitions: str | None) -> None:
        tags = {}
        if partitions is not None:
            tags = partition_range(*partitions.split("..."))
        keys = [dg.AssetKey(name) for name in selection.split(",")]
        job = whole().resolve_implicit_global_asset_job_def().get_subset(asset_selection={*keys})
        assert job.execute_in_process(instance=world.instance, tags=tags).success

    return run


@pytest.fixture
def by_command(world, folder, tmp_path, monkeypatch) -> Materialize:
    """Return what runs Dagster's command."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))

    def run(selection: str, partitions: str | None) -> None:
        command = [sys.executable, "-m", "dagster", "asset", "materialize"]
        command += ["-m", "position_sync_dagster.definitions", "--select", selection]
        if partitions is not None:
            command += ["--partition-range", partitions]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]

    return run


def put(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        folder.joinpath(name).write_bytes(content)


def explained(lake: MoneyLake) -> dict[tuple[str, str, str], float | None]:
    """Return the profit by day, account and currency; None where a part of it is unknown."""
    (table,) = (
        derived_table
        for derived_table in lake.derived_tables
        if derived_table.spec.name == "profit_explained"
    )
    total = pl.when(pl.col("profit").is_not_null().all()).then(pl.col("profit").sum())
    rows = table.rows().group_by("session_date", "account", "currency").agg(total)
    return {(str(day), *of): profit for day, *of, profit in rows.iter_rows()}


def assert_profits(lake: MoneyLake, profits: Profits, unknown: set[tuple[str, str]]) -> None:
    profit_of = {key: profit for key, profit in explained(lake).items() if key != WRONG_DAY}
    for key in sorted(profit_of.keys() | profits.keys() - {WRONG_DAY}):
        day, account, _currency = key
        if (account, day) in unknown:
            assert profit_of[key] is None, key
        else:
            assert profit_of.get(key, 0.0) == pytest.approx(profits.get(key, 0.0), abs=0.005), key


def assert_each_state(lake: MoneyLake, folder: Path, materialize: Materialize) -> None:
    """Materialize the first files, then those that correct them, and compare both times."""
    put(folder, FIRST_FILES)
    materialize(IMPORTED, None)
    materialize(FILLED, RANGE)
    assert_profits(lake, FIRST_PROFITS, FIRST_UNKNOWN)

    put(folder, LATER_FILES)
    materialize(IMPORTED, None)
    materialize(FILLED, RANGE)
    assert_profits(lake, LAST_PROFITS, LAST_UNKNOWN)
    assert explained(lake)[WRONG_DAY] == pytest.approx(LAST_PROFITS[WRONG_DAY], abs=0.005)


def test_each_day_is_explained_to_the_cent_before_and_after_it_is_corrected(
    lake, folder, in_this_process
):
    london = contract_details(
        9921, symbol="VOD", sec_type="STK", currency="GBP", multiplier=1.0, price_magnifier=100
    )
    lake.contracts.put([london])
    assert_each_state(lake, folder, in_this_process)


def test_the_same_by_the_command_of_dagster(lake, folder, by_command):
    assert_each_state(lake, folder, by_command)
