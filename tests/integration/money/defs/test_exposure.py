"""Latest positions and exposure, derived from the ledger."""

from datetime import UTC, date, datetime, timedelta
from operator import itemgetter
from typing import Any

import dagster as dg
import polars as pl
import pytest

from position_sync_dagster.defs.assets.latest_positions import latest_positions, listed
from position_sync_dagster.lake import derived
from position_sync_dagster.lake import lake as tables
from position_sync_dagster.lake.given_leg import make_leg
from position_sync_dagster.lake.schema import LATEST_POSITIONS
from position_sync_dagster.money.defs.exposure import aligned_table, strategy_exposure
from position_sync_dagster.money.reports.columns import Column
from position_sync_dagster.money.tables import STRATEGY_EXPOSURE

SPY = {"symbol": "SPY", "right": "C", "strike": 500, "expiry": date(2028, 12, 15)}


def add_legs(lake, at: datetime) -> None:
    """Make two legs of a strategy and one of another active."""
    lake.registry.sync.add_many(
        make_leg(conid=conid, strategy_id=strategy, added_at=at, **SPY)
        for conid, strategy in ((1, "a"), (2, "a"), (3, "b"))
    )


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
    derived.replace(
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
    event = world.event(world.materialize(strategy_exposure), "strategy_exposure")
    rows = world.read(STRATEGY_EXPOSURE).sort("strategy_id")
    names = ["strategy_id", "legs", "legs_held", "market_value", "delta"]
    assert rows.select(names).rows() == [("a", 2, 2, 200.0, 50.0), ("b", 1, 0, None, None)]
    assert abs((world.ago(60) - rows["oldest_value_at"][0]).total_seconds()) < 30
    assert number(event, "without_greeks") == 1


def test_an_empty_lake_gives_empty_tables(world, lake):
    world.derive(latest_positions)
    world.derive(strategy_exposure)
    assert world.read(LATEST_POSITIONS).is_empty()


TABLE = dg.TableMetadataValue


def records(materialization: dg.AssetMaterialization, key: str) -> list[dict[str, Any]]:
    table = materialization.metadata[key]
    assert isinstance(table, dg.TableMetadataValue)
    return [dict(record.data) for record in table.records]


@pytest.fixture
def two_strategies(world, lake) -> None:
    """Hold a dollar strategy of two legs, one without a value, and one in euro."""
    add_legs(lake, world.ago(0))
    world.row(1, 60, market_value=150.0, unrealized_pnl=-20.0, daily_pnl=7.0)
    world.row(2, 10, market_value=None, unrealized_pnl=None)
    world.row(3, 5, market_value=70.0, currency="EUR", daily_pnl=-3.0)


def plain(text: str) -> str:
    """Return a cell without the spaces that align it."""
    return text.replace("\u00a0", " ").strip()


@pytest.mark.usefixtures("two_strategies")
def test_the_exposure_page_shows_money_first_and_never_adds_currencies(world, instance):
    world.materialize(strategy_exposure)
    stored = instance.get_latest_materialization_event(dg.AssetKey("strategy_exposure"))
    asset_materialization = stored.asset_materialization
    tables = [
        name for name, value in asset_materialization.metadata.items() if isinstance(value, TABLE)
    ]
    assert tables == ["money EUR", "money USD", "risk EUR", "risk USD"]
    assert list(asset_materialization.metadata)[: len(tables)] == tables
    assert all(len(asset_materialization.metadata[name].schema.columns) <= 6 for name in tables)

    first, total = records(asset_materialization, "money USD")
    little = "known for 1 of 2"
    assert first["strategy"] == "a"
    assert plain(first["value"]) == little
    assert plain(first["unreal"]) == little
    assert plain(first["daily"]) == little
    assert plain(first["legs"]) == "2/2"
    assert plain(total["legs"]) == "2/2"
    assert 59 <= float(plain(first["oldest"]).removesuffix(" s")) < 90

    (second, _) = records(asset_materialization, "money EUR")
    assert second["strategy"] == "b"
    assert plain(second["daily"]) == "-3.0"
    assert plain(records(asset_materialization, "risk USD")[0]["theta"]) == "–"
    plots = {
        name: value.value
        for name, value in asset_materialization.metadata.items()
        if isinstance(value, dg.FloatMetadataValue | dg.IntMetadataValue)
    }
    of_euro = {"daily EUR": -3.0, "value EUR": 70.0, "unrealised EUR": 50.0}
    assert plots == of_euro | {"dagster/row_count": 2}, (
        "a sum that leaves out a leg would look like a fall"
    )


def test_figures_are_aligned_to_the_right_with_separators():
    columns = [Column("leg", "leg", 0, itemgetter("leg"), left=True), Column("value", "value")]
    rows = [{"leg": "a", "value": -13_844.8}, {"leg": "b", "value": 7.0}]
    record, other = aligned_table(columns, rows).records
    assert record.data == {"leg": "a", "value": "-13,845"}
    assert other.data == {"leg": "b", "value": "\u00a0" * 4 + "7.0"}


@pytest.mark.usefixtures("two_strategies")
def test_the_page_and_the_table_have_what_no_strategy_has_and_the_totals_of_all_holdings(world):
    world.row(9, 5, market_value=1000.0, daily_pnl=-1.0, right="CALL", delta=None)
    reported_event = world.event(
        world.materialize(latest_positions, strategy_exposure), "strategy_exposure"
    )
    listed = {row["strategy"]: row for row in records(reported_event, "money USD")}
    (rest,) = (row for name, row in listed.items() if name.startswith("UNATTRIBUTED"))
    assert plain(rest["value"]) == "1,000"
    assert plain(listed["total"]["value"]) == "known for 2 of 3"
    assert plain(listed["total"]["daily"]) == "known for 2 of 3"
    assert "total USD: greeks of 0 of 1 options" in reported_event.metadata["notes"].value
    assert reported_event.metadata["unattributed"].value == "1"

    newest = world.read(LATEST_POSITIONS)["ledger_version"].max()
    assert reported_event.metadata["ledger_version"].value == str(newest)
    table = world.read(STRATEGY_EXPOSURE).filter(pl.col("currency") == "USD")
    assert set(table["market_value"]) == {1000.0, None}
    assert set(world.read(STRATEGY_EXPOSURE)["ledger_version"]) == {newest}
    without = world.read(STRATEGY_EXPOSURE).group_by(pl.col("strategy_id") == "UNATTRIBUTED")
    counts = dict(without.agg(pl.col("legs_without_greeks").sum()).iter_rows())
    assert reported_event.metadata["without_greeks"].value == str(counts[False])
    assert counts[True] == 1


@pytest.mark.parametrize("asset", [latest_positions, strategy_exposure])
@pytest.mark.usefixtures("two_strategies")
def test_a_run_does_not_put_older_rows_over_those_of_another_run(world, monkeypatch, asset):
    """A tick may read the ledger later than a run, and write before it."""
    read = tables.all_broker_rows

    def after_another_run(*args):
        monkeypatch.setattr(tables, "all_broker_rows", read)
        world.row(3, 1, market_value=999.0, currency="EUR")
        world.derive(asset)
        return read(*args)

    monkeypatch.setattr(tables, "all_broker_rows", after_another_run)
    assert world.materialize(asset).success
    spec = LATEST_POSITIONS if asset is latest_positions else STRATEGY_EXPOSURE
    assert 999.0 in world.read(spec)["market_value"].to_list()


def test_a_table_of_a_ledger_that_lost_its_newest_rows_is_derived_all_the_same(world, lake):
    world.row(1, 20, market_value=100.0)
    world.derive(latest_positions)
    table = lake.derived_table(LATEST_POSITIONS)
    derived.replace(table, table.rows().with_columns(pl.col("ledger_version") + 9))
    world.derive(latest_positions)
    assert table.rows()["ledger_version"].max() < 9
