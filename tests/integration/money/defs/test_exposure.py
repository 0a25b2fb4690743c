"""Latest positions and exposure, derived from the ledger."""

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from position_sync_dagster.defs.assets import past_days
from position_sync_dagster.defs.assets.latest_positions import latest_positions, listed
from position_sync_dagster.domain.position_update import GreeksSource
from position_sync_dagster.lake import lake as tables
from position_sync_dagster.lake.given_leg import make_leg
from position_sync_dagster.lake.schema import LATEST_POSITIONS
from position_sync_dagster.lake.storage.commits import write as write_rows
from position_sync_dagster.money.defs.strategies import strategy_exposure
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past.statement_days import StatementDays
from position_sync_dagster.money.tables import STRATEGY_EXPOSURE
from tests.support.data_dictionary import SPECS
from tests.support.derived_rows import put_rows
from tests.support.legs import leg_rows
from tests.support.never_null import null_where_never

SPY = dict(symbol="SPY", right="C", strike=500, expiry=date(2028, 12, 15))


def add_legs(lake, at: datetime) -> None:
    """Make two legs of a strategy and one of another active."""
    usual = {"added_at": at, **SPY}
    of_a = [make_leg(conid=conid, strategy_id="a", **usual) for conid in (1, 2)]
    lake.registry.sync.add_many([*of_a, make_leg(conid=3, strategy_id="b", **usual)])


def number(materialization: dg.AssetMaterialization, key: str) -> float:
    return float(materialization.metadata[key].value)


def test_the_latest_table_holds_the_newest_row_of_each_holding(world):
    world.row(1, 20, market_value=100.0)
    world.row(1, 10, market_value=150.0)
    world.row(2, 15, position=0.0)
    event = world.event(world.materialize(latest_positions), "latest_positions")
    rows = world.read(LATEST_POSITIONS).sort("conid")
    assert rows["market_value"].to_list() == [150.0, 150.0]
    assert number(event, "held") == 1
    assert number(event, "dagster/row_count") == 2


def test_a_holding_that_closed_two_weeks_ago_leaves_the_table_unless_a_leg_names_it(world, lake):
    world.row(1, 15 * 86_400, more=[2], position=0.0)
    world.row(3, 13 * 86_400, position=0.0)
    world.row(4, 15 * 86_400)
    # The table of an earlier release has all closed holdings.
    put_rows(
        lake.derived_table(LATEST_POSITIONS),
        lake.updates.sync.latest().with_columns(confirmed_at="timestamp"),
    )
    lake.registry.sync.add_active(conid=2, strategy_id="a", **SPY)
    for _ in range(2):
        world.derive(latest_positions)
        world.derive(strategy_exposure)
        assert world.read(LATEST_POSITIONS).sort("conid")["conid"].to_list() == [2, 3, 4]
        leg = world.read(STRATEGY_EXPOSURE).filter(pl.col("strategy_id") == "a")
        assert leg.select("currency", "asset_class").rows() == [("USD", "OPTION")]
        world.row(4, 0)
    assert lake.updates.sync.as_of(world.ago(0))["conid"].to_list() == [1, 2, 3, 4]


def test_a_holding_stays_in_the_table_until_two_weeks_after_it_closed_have_passed():
    now = datetime.now(UTC)
    two_weeks_ago = now - timedelta(days=14)
    closed_at = [two_weeks_ago, two_weeks_ago - timedelta(microseconds=1)]
    rows = pl.DataFrame({"conid": [1, 2], "position": [0.0, 0.0], "timestamp": closed_at})
    assert listed(rows, [], now)["conid"].to_list() == [1]


def test_deriving_again_from_the_same_rows_makes_no_new_version(world):
    world.row(1, 20)
    runs = [world.materialize(latest_positions) for _ in range(2)]
    first, second = (world.event(run, "latest_positions") for run in runs)
    assert number(first, "delta_version") == number(second, "delta_version")
    assert number(second, "changed") == 0


def test_exposure_is_summed_per_strategy_and_says_how_old_it_is(world, lake):
    add_legs(lake, world.ago(0))
    world.row(1, 60, market_value=150.0, delta=0.5)
    world.row(2, 10, market_value=50.0)
    world.materialize(strategy_exposure)
    rows = world.read(STRATEGY_EXPOSURE).sort("strategy_id")
    names = ["strategy_id", "legs", "legs_held", "market_value", "delta"]
    assert rows.select(names).rows() == [("a", 2, 2, 200.0, None), ("b", 1, 0, None, None)]
    assert abs((world.ago(60) - rows["oldest_value_at"][0]).total_seconds()) < 30
    assert rows["legs_without_greeks"].sum() == 1


@pytest.fixture
def printed_query(monkeypatch, tmp_path) -> Callable[[str, MoneyLake], dict[str, Any]]:
    """Run the query of the page that reads a table, on a lake; return its names."""
    page = (Path(__file__).parents[4] / "docs/do/duckdb.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)

    def run(table: str, lake: MoneyLake) -> dict[str, Any]:
        monkeypatch.chdir(tmp_path)
        (tmp_path / ".demo").mkdir()
        (tmp_path / ".demo/lake").symlink_to(lake.path)
        (block,) = [each for each in blocks if f'/{table}")' in each]
        names: dict[str, Any] = {}
        exec(block, names)  # noqa: S102
        return names

    return run


def test_the_query_of_the_page_sums_a_strategy_over_its_classes_and_keeps_unknown_unknown(
    world, lake, printed_query
):
    add_legs(lake, world.ago(0))
    world.row(1, 60, market_value=150.0, daily_pnl=20.0)
    world.row(2, 10, market_value=50.0, daily_pnl=5.0)
    world.row(3, 10, market_value=50.0, daily_pnl=7.0)
    world.materialize(strategy_exposure)
    options = world.read(STRATEGY_EXPOSURE)
    shares = options.filter(pl.col("strategy_id") == "a").with_columns(asset_class=pl.lit("STOCK"))
    more = [shares, shares.with_columns(strategy_id=pl.lit("b"), daily_pnl=None)]
    put_rows(lake.derived_table(STRATEGY_EXPOSURE), pl.concat([options, *more]))

    strategies = printed_query("strategy_exposure", lake)["strategies"]
    today = strategies.order("strategy_id").select("strategy_id, account, today")
    assert today.fetchall() == [("a", "DUSIM0001", 50.0), ("b", "DUSIM0001", None)]


def test_the_query_of_the_page_has_deltas_at_a_close_of_legs_then_active_and_counts_unknown_ones(
    world, lake, printed_query
):
    monday, friday = date(2026, 3, 9), datetime(2026, 3, 6, 20, 59, tzinfo=UTC)
    close = datetime(2026, 3, 9, 20, tzinfo=UTC)
    just_before, just_after = (close + timedelta(minutes=number) for number in (-1, 1))
    days_after = close + timedelta(days=2)
    given = [
        (1, "a", {"quantity": -2.0, "account": "DUSIM0001"}),
        (2, "a", {"removed_at": just_after}),
        (2, "left", {"removed_at": just_before}),
        (3, "a", {}),
        (4, "later", {"added_at": just_after}),
        (4, "b", {"added_at": days_after, "since": monday}),
        (1, "elsewhere", {"account": "DUSIM0002"}),
    ]
    leg = make_leg(conid=1, strategy_id="a", added_at=friday, **SPY)
    legs = [replace(leg, conid=conid, strategy_id=name, **fields) for conid, name, fields in given]
    lake.registry.table.transact(lambda handle: write_rows(handle, leg_rows(legs), {}))

    world.row(1, friday, delta=0.9)
    world.row(1, just_before, position=-3.0, delta=0.3, greeks_source=GreeksSource.GATEWAY)
    world.row(2, just_before, position=1.0, delta=0.2, greeks_source=GreeksSource.MODEL)
    world.row(3, just_before, position=7.0, sec_type="STK", multiplier=1.0, right=None)
    world.row(4, just_before, position=2.0, delta=-0.5, greeks_source=GreeksSource.GATEWAY)
    world.row(4, just_after, position=2.0, delta=-0.9, greeks_source=GreeksSource.GATEWAY)
    service = partial(StatementDays, lake, world.settings)
    past_days.fill(lake, service, [friday.date(), monday])

    deltas = printed_query("daily_positions", lake)["deltas"].sort("strategy_id")
    assert deltas.drop("currency").rows() == [
        (close, "a", "DUSIM0001", pytest.approx(-2 * 30 + 7), 1, 3),
        (close, "b", "DUSIM0001", -100.0, 0, 1),
    ]


def test_an_empty_lake_gives_empty_tables(world, lake):
    world.derive(latest_positions)
    world.derive(strategy_exposure)
    assert world.read(LATEST_POSITIONS).is_empty()


@pytest.fixture
def two_strategies(world, lake) -> None:
    """Hold a dollar strategy of two legs, one without a value, and one in euro."""
    add_legs(lake, world.ago(0))
    world.row(1, 60, market_value=150.0, unrealized_pnl=-20.0, daily_pnl=7.0)
    world.row(2, 10, market_value=None, unrealized_pnl=None)
    world.row(3, 5, market_value=70.0, currency="EUR", daily_pnl=-3.0)


@pytest.mark.usefixtures("two_strategies")
def test_totals_are_plotted_by_currency_unless_they_leave_out_a_leg(world, instance):
    world.materialize(strategy_exposure)
    stored = instance.get_latest_materialization_event(dg.AssetKey("strategy_exposure"))
    plots = {}
    for name, value in stored.asset_materialization.metadata.items():
        if isinstance(value, dg.FloatMetadataValue | dg.IntMetadataValue):
            plots[name] = value.value
    of_euro = {"daily EUR": -3.0, "value EUR": 70.0, "unrealised EUR": 50.0}
    assert plots == of_euro | {"dagster/row_count": 2}, "such a sum would look like a fall"


@pytest.mark.usefixtures("two_strategies")
def test_the_table_has_what_no_strategy_has_and_its_event_the_version_of_the_ledger(world, lake):
    world.row(9, 5, market_value=1000.0, daily_pnl=-1.0, right="CALL", delta=None)
    reported_event = world.event(
        world.materialize(latest_positions, strategy_exposure), "strategy_exposure"
    )
    newest = world.read(LATEST_POSITIONS)["ledger_version"].max()
    assert reported_event.metadata["ledger_version"].value == str(newest)
    exposures = world.read(STRATEGY_EXPOSURE)
    assert set(exposures["ledger_version"]) == {newest}
    assert set(exposures.filter(currency="USD")["market_value"]) == {1000.0, None}
    (rest,) = exposures.filter(strategy_id="UNATTRIBUTED").to_dicts()
    assert rest["market_value"] == 1000.0
    assert rest["legs_without_greeks"] == 1
    assert null_where_never(lake.path, SPECS) == {}


@pytest.mark.parametrize("asset", [latest_positions, strategy_exposure])
@pytest.mark.usefixtures("two_strategies")
def test_a_run_does_not_put_older_rows_over_those_of_another_run(world, monkeypatch, asset):
    """A tick may read the ledger later than a run, and write before it."""
    module = (
        sys.modules[latest_positions.derive.__module__] if asset is latest_positions else tables
    )
    read = tables.all_broker_rows

    def after_another_run(*args):
        monkeypatch.setattr(module, "all_broker_rows", read)
        world.row(3, 1, market_value=999.0, currency="EUR")
        world.derive(asset)
        return read(*args)

    monkeypatch.setattr(module, "all_broker_rows", after_another_run)
    assert world.materialize(asset).success
    spec = LATEST_POSITIONS if asset is latest_positions else STRATEGY_EXPOSURE
    assert 999.0 in world.read(spec)["market_value"].to_list()


def test_a_table_of_a_ledger_that_lost_its_newest_rows_is_derived_all_the_same(world, lake):
    world.row(1, 20, market_value=100.0)
    world.derive(latest_positions)
    table = lake.derived_table(LATEST_POSITIONS)
    put_rows(table, table.rows().with_columns(pl.col("ledger_version") + 9))
    world.derive(latest_positions)
    assert table.rows()["ledger_version"].max() < 9
