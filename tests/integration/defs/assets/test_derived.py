"""Latest positions and exposure, derived from the ledger."""

from dataclasses import replace
from datetime import date

import dagster as dg
import polars as pl

from position_sync_dagster.defs.assets.latest_positions import latest_positions
from position_sync_dagster.defs.assets.strategy_exposure import strategy_exposure
from position_sync_dagster.domain.leg import make_leg
from position_sync_dagster.lake.derived import LATEST_POSITIONS, STRATEGY_EXPOSURE, DerivedTable
from tests.support.contracts import contract_details


def rows(settings, spec) -> pl.DataFrame:
    return DerivedTable(settings.table(spec.name), spec).read()


def number(result: dg.ExecuteInProcessResult, name: str, key: str) -> float:
    (event,) = result.asset_materializations_for_node(name)
    return event.metadata[key].value


def test_the_latest_table_holds_the_newest_row_of_each_holding(
    materialize, settings, append_row, seconds_ago
) -> None:
    append_row(1, seconds_ago(20), market_value=100.0)
    append_row(1, seconds_ago(10), market_value=150.0)
    append_row(2, seconds_ago(15), position=0.0)
    result = materialize(latest_positions)
    found = rows(settings, LATEST_POSITIONS).sort("conid")
    assert found["market_value"].to_list() == [150.0, 150.0]
    assert number(result, "latest_positions", "held") == 1
    assert number(result, "latest_positions", "dagster/row_count") == 2


def test_later_rows_replace_earlier_ones_and_leave_the_others(
    materialize, settings, append_row, seconds_ago
) -> None:
    append_row(1, seconds_ago(7200), market_value=1.0)
    append_row(2, seconds_ago(20), market_value=2.0)
    materialize(latest_positions)
    append_row(2, seconds_ago(5), market_value=3.0)
    materialize(latest_positions)
    found = rows(settings, LATEST_POSITIONS).sort("conid")
    assert found["market_value"].to_list() == [1.0, 3.0]


def test_a_row_of_a_clock_that_ran_days_ahead_hides_no_later_row(
    materialize, settings, append_row, seconds_ago
) -> None:
    append_row(1, seconds_ago(-3 * 86_400), market_value=9.0)
    append_row(2, seconds_ago(20), market_value=2.0)
    materialize(latest_positions)
    append_row(1, seconds_ago(0), market_value=1.0)
    append_row(2, seconds_ago(0), market_value=3.0)
    materialize(latest_positions)
    found = rows(settings, LATEST_POSITIONS).sort("conid")
    assert found["market_value"].to_list() == [1.0, 3.0]


def test_deriving_again_from_the_same_rows_makes_no_new_version(
    materialize, append_row, seconds_ago
) -> None:
    append_row(1, seconds_ago(20))
    first = materialize(latest_positions)
    second = materialize(latest_positions)
    versions = [number(r, "latest_positions", "delta_version") for r in (first, second)]
    assert versions[0] == versions[1]
    assert number(second, "latest_positions", "changed") == 0


def test_exposure_is_summed_per_strategy_and_says_how_old_it_is(
    materialize, settings, lake, append_row, seconds_ago
) -> None:
    now = seconds_ago(0)
    legs = [
        make_leg(
            conid=conid,
            symbol="SPY",
            right="C",
            strike=500,
            expiry=date(2028, 12, 15),
            strategy_id=strategy,
            added_at=now,
        )
        for conid, strategy in ((1, "a"), (2, "a"), (3, "b"))
    ]
    lake.registry.sync.add_many(legs)
    append_row(1, seconds_ago(60), market_value=150.0, delta=0.5)
    append_row(2, seconds_ago(10), market_value=50.0)
    result = materialize(strategy_exposure)
    found = rows(settings, STRATEGY_EXPOSURE).sort("strategy_id")
    assert found.select("strategy_id", "legs", "legs_held", "market_value", "delta").rows() == [
        ("a", 2, 2, 200.0, 50.0),
        ("b", 1, 0, None, None),
    ]
    assert number(result, "strategy_exposure", "legs_without_greeks") == 1
    assert 59 < number(result, "strategy_exposure", "oldest_value_age_s") < 90


def test_a_leg_that_is_another_contract_than_its_conid_is_named_and_not_summed(
    materialize, settings, lake, append_row, seconds_ago
) -> None:
    terms = {"symbol": "SPX", "right": "C", "expiry": date(2026, 2, 20)}
    lake.contracts.sync.put([contract_details(1), contract_details(2)])
    lake.registry.sync.add_active(conid=1, strike=5000, strategy_id="a", **terms)
    lake.registry.sync.add_active(conid=2, strike=5100, strategy_id="a", **terms)
    append_row(1, seconds_ago(60), market_value=150.0)
    append_row(2, seconds_ago(60), market_value=50.0)
    result = materialize(strategy_exposure)
    (found,) = rows(settings, STRATEGY_EXPOSURE).iter_rows(named=True)
    assert (found["legs"], found["market_value"]) == (2, 150.0)
    assert found["mismatches"] == "2: its strike is 5000, not 5100"
    assert number(result, "strategy_exposure", "legs_without_value") == 1


def test_an_exposure_table_of_the_version_before_gets_the_new_columns(
    materialize, settings, lake, append_row, seconds_ago
) -> None:
    new = list(STRATEGY_EXPOSURE.columns)[-9:]
    assert new[0] == "dollar_delta"
    columns = {name: kind for name, kind in STRATEGY_EXPOSURE.columns.items() if name not in new}
    before = replace(STRATEGY_EXPOSURE, version=1, columns=columns)
    DerivedTable(settings.table(before.name), before).replace(pl.DataFrame(schema=before.polars))
    lake.registry.sync.add_active(
        conid=1,
        symbol="SPY",
        right="C",
        strike=500,
        expiry=date(2028, 12, 15),
        strategy_id="a",
    )
    append_row(1, seconds_ago(60), market_value=150.0, daily_pnl=7.0)
    assert materialize(strategy_exposure).success
    (found,) = rows(settings, STRATEGY_EXPOSURE).iter_rows(named=True)
    assert (found["daily_pnl"], found["legs_expiring"]) == (7.0, 0)
    assert 59 < found["worst_value_age_s"] < 90


def test_an_empty_lake_gives_empty_tables(materialize, settings, lake) -> None:
    assert materialize(latest_positions, strategy_exposure).success
    assert rows(settings, LATEST_POSITIONS).is_empty()
