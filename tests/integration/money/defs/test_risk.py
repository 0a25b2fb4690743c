"""The assets of risk: scenarios each quarter of an hour, and the explained profit of a day."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from position_sync_dagster.defs.assets.past_days import (
    daily_asset,
    exchange_partitions,
    exchange_since,
)
from position_sync_dagster.defs.checks.evaluation import TableCheck
from position_sync_dagster.money.defs import risk
from position_sync_dagster.money.defs.explained_days import explained_asset, profits_are_explained
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past.statement_days import StatementDays
from position_sync_dagster.money.tables import PROFIT_EXPLAINED
from position_sync_dagster.settings import load_settings
from tests.integration.defs.assets.test_daily_positions import partition_range
from tests.support.booked_days import STOCK, Booked, held
from tests.support.data_dictionary import SPECS
from tests.support.flex_files import ACCOUNT
from tests.support.money_rows import row
from tests.support.never_null import null_where_never

DAY = "2026-03-06"
CLOSE = datetime(2026, 3, 6, 21, 0, tzinfo=UTC)


def call(at: datetime, price: float, **values: object):
    usual = dict(right="CALL", strike=600.0, implied_vol=0.2, timestamp=at)
    money = {"market_price": price, "market_value": -200 * price}
    return row(911, **usual | money | {"value_time": at} | values)


def checked(check: TableCheck[MoneyLake], lake) -> dg.AssetCheckResult:
    return check.evaluate(lake, load_settings())


def test_scenarios_are_recorded_and_a_loss_beyond_its_limit_fails_the_check(
    world, lake, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    lake.updates.sync.append([call(datetime.now(UTC), 30.0)])
    Path("scenarios.yaml").write_text(
        "scenarios: [{name: up, spot: 10, largest_loss: {UNATTRIBUTED: 100}}]\n"
    )
    result = world.materialize(risk.risk_scenarios)
    assert result.success
    rows = lake.risk_scenarios.latest()
    assert rows.height == 10
    assert rows.filter(scenario="up")["profit"][0] < -100
    assert null_where_never(lake.path, SPECS) == {}
    found = checked(risk.losses_are_within_their_limits, lake)
    assert not found.passed
    assert "UNATTRIBUTED loses" in (found.description or "")
    assert checked(risk.early_assignment, lake).passed


def test_a_day_is_explained_by_a_run_and_what_no_trade_explains_fails_the_check(world, lake):
    before = CLOSE - timedelta(days=1, minutes=5)
    later = call(CLOSE - timedelta(minutes=5), 27.0, underlying_price=594.0)
    world.set(daily_start="2026-03-02")
    partitions = exchange_partitions(*exchange_since(load_settings(), StatementDays))
    daily = daily_asset(partitions, MoneyLake, StatementDays)
    explained = explained_asset(partitions)

    def filled() -> bool:
        tags = partition_range("2026-03-05", DAY)
        is_filled = world.materialize(daily, tags=tags).success
        return is_filled and world.materialize(explained, partition_key=DAY).success

    assert world.materialize(explained, partition_key=DAY).success  # as the first of a new home
    assert checked(profits_are_explained, lake).passed
    lake.updates.sync.append([call(before, 30.0), later])
    assert filled()
    (row,) = lake.derived_table(PROFIT_EXPLAINED).rows().to_dicts()
    assert row["profit"] == pytest.approx(600.0)
    assert row["unexplained"] == 0.0
    assert checked(profits_are_explained, lake).passed

    bought = {"position": -3.0, "market_value": -8100.0}
    lake.updates.sync.append([replace(later, timestamp=CLOSE - timedelta(minutes=1), **bought)])
    assert filled()
    failed = checked(profits_are_explained, lake)
    assert "SPY 600C" in (failed.description or "")


def test_a_day_without_a_source_keeps_no_other_day_of_its_run_back(world, lake, folder):
    """The days after a gap are explained, the first of them has no close before."""
    for day, mark in ((2, 220), (5, 224), (6, 225)):
        books = Booked(held=[held(STOCK, 100, mark)])
        text = books.xml(date(2026, 3, day), date(2026, 3, day), f"2026030{day};230000", ACCOUNT)
        (folder / f"{day}.xml").write_text(text)
    world.set(daily_start="2026-03-02")
    partitions = exchange_partitions(*exchange_since(load_settings(), StatementDays))
    tags = partition_range("2026-03-02", DAY)
    result = world.materialize(
        daily_asset(partitions, MoneyLake, StatementDays), explained_asset(partitions), tags=tags
    )
    assert result.success
    profits = world.read(PROFIT_EXPLAINED).select("session_date", "profit").sort("session_date")
    assert profits.rows() == [(date(2026, 3, 5), None), (date(2026, 3, 6), pytest.approx(100.0))]
    filled = {
        event.partition for event in result.asset_materializations_for_node("daily_positions")
    }
    assert filled == {"2026-03-02", "2026-03-05", "2026-03-06"}, "the others stay missing"
