"""The checks of values and ids, over real tables."""

from datetime import timedelta

import dagster as dg
import pytest

from position_sync_dagster.defs.checks import tables
from position_sync_dagster.domain.holding import AccountSummary
from position_sync_dagster.settings import Settings

ACCOUNT = "DUSIM0001"


def test_a_holding_without_a_value_is_named_and_is_not_zero(check, shown, append_row, seconds_ago):
    append_row(1, seconds_ago(5))
    append_row(2, seconds_ago(1), market_value=None, note="no quote")
    append_row(3, seconds_ago(1), market_value=0.0)
    append_row(4, seconds_ago(5), position=0.0, market_value=None)
    found = check(tables.legs_have_values)
    assert not found.passed
    assert [(row["conid"], row["note"]) for row in shown(found)] == [(2, "no quote")]
    append_row(2, seconds_ago(1))
    assert check(tables.legs_have_values).passed


@pytest.mark.parametrize(
    "definition",
    [tables.agrees_with_the_broker, tables.legs_have_values, tables.values_match_the_broker],
)
def test_without_rows_nothing_is_known(check, lake, definition):
    found = check(definition)
    assert not found.passed
    assert found.metadata["unknown"].value is True


def test_a_value_outside_the_band_is_named_with_both_values(
    check, shown, own_login, write_holdings, append_row, seconds_ago
):
    write_holdings(own_login(), 1, 2, 3)
    append_row(1, seconds_ago(1), market_value=153.0)
    append_row(2, seconds_ago(1), market_value=190.0)
    append_row(3, seconds_ago(1), market_value=None)
    found = check(tables.values_match_the_broker)
    assert not found.passed
    (row,) = shown(found)
    assert (row["conid"], row["market_value"], row["broker_value"]) == (2, "190", "150")
    assert found.metadata["compared"].value == 2


def test_a_value_of_another_time_proves_nothing(
    check, own_login, write_holdings, append_row, seconds_ago
):
    write_holdings(own_login(), 1)
    append_row(1, seconds_ago(20), market_value=190.0)
    assert check(tables.values_match_the_broker).passed


def test_a_few_cents_are_no_difference(
    check, own_login, write_holdings, append_row, seconds_ago, monkeypatch
):
    write_holdings(own_login(), 1)
    monkeypatch.setattr(Settings, "value_band", 0.0)
    append_row(1, seconds_ago(1), market_value=150.04)
    assert check(tables.values_match_the_broker).passed
    append_row(1, seconds_ago(0), market_value=150.06)
    assert not check(tables.values_match_the_broker).passed


def test_a_row_that_is_in_the_ledger_twice_is_an_error(check, shown, lake, append_row, seconds_ago):
    append_row(1, seconds_ago(5), update_id="row-1")
    append_row(2, seconds_ago(5), update_id="row-2")
    assert check(tables.ids_are_unique).passed
    # The ledger itself refuses an id that it holds: this is a commit past it.
    rows = lake.updates.table.rows().filter(conid=2)
    rows.write_delta(lake.updates.table.path, mode="append")
    found = check(tables.ids_are_unique)
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert [(row["update_id"], row["rows"]) for row in shown(found)] == [("row-2", 2)]


def account_row(lake, at) -> None:
    lake.account_values.append([AccountSummary(account=ACCOUNT, cash=1.0, timestamp=at)])


def test_an_account_follows_its_holdings_and_not_the_clock(
    check, own_login, write_holdings, lake, later, seconds_ago
):
    write_holdings(own_login(), 1)
    assert "have no row yet" in check(tables.account_values_follow).description
    account_row(lake, seconds_ago(3600))
    found = check(tables.account_values_follow)
    assert not found.passed
    assert "10 min older than those of their holdings" in found.description
    account_row(lake, seconds_ago(5))
    assert check(tables.account_values_follow).passed
    later(timedelta(hours=12))  # nothing changes in the night: the row stays right
    assert check(tables.account_values_follow).passed


def test_a_clock_that_was_set_back_makes_no_account_late(
    check, own_login, write_holdings, lake, later, seconds_ago
):
    write_holdings(own_login(), 1)
    account_row(lake, seconds_ago(3600))
    later(timedelta(hours=-1))
    assert check(tables.account_values_follow).passed


def test_an_account_without_a_row_is_named_after_a_while(
    check, shown, own_login, write_holdings, monkeypatch
):
    write_holdings(own_login(), 1)
    monkeypatch.setattr(Settings, "stale_after_s", 0.0)
    found = check(tables.account_values_follow)
    assert not found.passed
    assert [row["account"] for row in shown(found)] == [ACCOUNT]
