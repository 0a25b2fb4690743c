"""The page of `reconciliation_breaks`: the open differences, and its check."""

import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from position_sync_dagster.cli.app import COMMANDS, app
from position_sync_dagster.defs.assets.table_asset import reconciliation_breaks
from position_sync_dagster.defs.checks.tables import breaks_are_decided, breaks_state
from position_sync_dagster.domain.reconciliation import Discrepancy, DiscrepancyType

DIFFERENCE = Discrepancy(
    type=DiscrepancyType.SURPLUS, account="DUSIM1", conid=7, symbol="SPY", expected=None,
    actual=2.0, detail="not held at the broker",
)  # fmt: skip


@pytest.fixture
def breaks(lake):
    lake.breaks.record({"gateway": [DIFFERENCE]}, datetime.now(UTC))
    return lake.breaks


def test_a_difference_that_nobody_decides_about_for_an_hour_fails_the_check(
    check, shown, breaks, later
):
    assert check(breaks_are_decided).passed
    later(timedelta(hours=1, seconds=1))
    late = check(breaks_are_decided)
    assert not late.passed
    (row,) = shown(late)
    assert (row["symbol"], row["broker"], row["tables"]) == ("SPY", "", "2")
    (one,) = breaks.open_breaks()
    breaks.accept(one.break_id, "eva", "transferred out")
    accepted = check(breaks_are_decided)
    assert accepted.passed
    assert accepted.metadata["accepted"].value == 1


def test_an_observation_shows_the_open_differences(lake, breaks):
    found = breaks_state(lake).metadata
    assert (found["open/opened"], found["open/confirmed"]) == (1, 0)
    (row,) = found["open_breaks"].records
    assert row.data["detail"] == "not held at the broker"
    breaks.record({"gateway": []}, datetime.now(UTC))
    assert "open_breaks" not in breaks_state(lake).metadata


def test_the_command_compares_now_and_records_nothing(lake, own_login, write_holdings):
    write_holdings(own_login(), 7)
    shown = CliRunner().invoke(app, ["reconcile"]).stdout
    assert "1 holdings of all accounts compared" in shown
    assert "MISSING DUSIM0001 7 " in shown
    found = json.loads(CliRunner().invoke(app, ["reconcile", "--json"]).stdout)
    assert [one["type"] for one in found["discrepancies"]] == ["MISSING"]
    assert lake.breaks.open_breaks() == []


def test_the_page_names_only_commands_that_exist():
    [check] = breaks_are_decided.check_specs
    texts = f"{reconciliation_breaks.description} {check.description}"
    named = re.findall(r"position-sync (\w+)", texts)
    assert named
    assert set(named) <= set(COMMANDS)
