"""`position-sync strategies propose`, on real tables."""

import json
from datetime import UTC, datetime
from functools import partial

import pytest

from position_sync_dagster.cli import strategies
from position_sync_dagster.domain.account_values import AccountSummary
from position_sync_dagster.money.strategies.strategies_file import load_strategies
from position_sync_dagster.settings import load_settings
from tests.support import command_line
from tests.support.command_line import attention
from tests.support.option_books import book, contract, order

CONDOR = {"90P": 2.0, "95P": -2.0, "105C": -2.0, "110C": 2.0}
COVERED = {"stock": 100.0, "120C": -1.0}


run = partial(command_line.run, "strategies")


@pytest.fixture
def held(lake):
    gateway_id = load_settings().gateway_id
    lake.broker_positions.replace(gateway_id, book({**CONDOR, **COVERED, "bond": 3.0}))
    lake.movements.add([*order(5, CONDOR), *order(6, COVERED, minute=9)])
    return lake


def test_proposals_are_printed_with_their_legs(held) -> None:
    printed = run("propose")
    assert "SPY IC 15Dec28" in printed
    assert "+2 SPY 90P 15Dec28, -2 SPY 95P 15Dec28" in printed
    assert "SPY CC 15Dec28" in printed
    assert held.registry.sync.get_all_active() == []


def test_on_a_terminal_of_80_columns_nothing_is_wider_and_all_is_there(held, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    printed = run("propose")
    *table, _hint = printed.splitlines()
    assert max(map(len, table)) <= 80
    words = " ".join(printed.split())
    assert "legs: +2 SPY 90P 15Dec28, -2 SPY 95P 15Dec28" in words
    assert "why: opened by one order" in words
    assert "greatest loss" in words


def test_json_has_a_list_of_proposals(held) -> None:
    covered, condor = json.loads(run("propose", "--json"))
    legs = {leg["conid"]: leg["quantity"] for leg in condor.pop("legs")}
    assert legs == {contract(name).conid: quantity for name, quantity in CONDOR.items()}
    assert condor.pop("name") == "SPY IC 15Dec28"
    assert condor.pop("why") == "opened by one order"
    terms = dict(kind="iron-condor", account="A", underlying="SPY", currency="USD")
    money = dict(credit=0.0, greatest_loss=1000.0, unlimited=False, alternatives=[])
    assert condor == terms | money
    assert covered["kind"] == "covered-call"
    held.account_values.append([AccountSummary(account="B", timestamp=datetime.now(UTC))])
    assert json.loads(run("propose", "--json", "--account", "B")) == []
    assert len(json.loads(run("propose", "--json", "--underlying", "spy"))) == 2


@pytest.mark.parametrize("chosen", [["1", "2"], ["2,SPY CC 15Dec28"], ["all"]])
def test_accepted_proposals_are_active_and_not_proposed_again(held, chosen) -> None:
    assert "is active with 4 legs" in run("propose", "--accept", *chosen)
    legs = {leg.conid: (leg.account, leg.quantity) for leg in held.registry.sync.get_all_active()}
    every = {**CONDOR, **COVERED}
    assert legs == {contract(name).conid: ("A", quantity) for name, quantity in every.items()}
    assert "No option is held that is in no strategy." in run("propose")


def test_all_leaves_out_single_legs_and_a_single_leg_is_a_strategy_where_it_is_named(held) -> None:
    gateway_id = load_settings().gateway_id
    held.broker_positions.replace(gateway_id, book({**CONDOR, **COVERED, "150C": 1.0}))
    assert "SPY 150C 15Dec28" in run("propose")
    assert "150C" not in run("propose", "--accept", "all")
    assert "SPY 150C 15Dec28 is active" in run("propose", "--accept", "1")


def test_what_the_strategies_cost_in_lines_is_said_before_and_on_a_terminal_one_may_decline(
    held, monkeypatch
) -> None:
    monkeypatch.setenv("POSITION_SYNC_MAX_LINES", "10")
    monkeypatch.setattr(strategies, "is_terminal", lambda: True)
    printed = command_line.call("strategies", "propose", "--accept", "all", typed="n\n").stderr
    assert "Market data lines: 5, of which up to 1 are for underlyings." in printed
    assert "0 now, 6 with these strategies." in printed
    assert "have none, so that the queue values them: 2." in printed
    assert held.registry.sync.get_all_active() == []


def test_a_number_that_is_not_in_the_list_is_refused(held) -> None:
    assert command_line.call("strategies", "propose", "--accept", "3").exit_code == 2
    assert held.registry.sync.get_all_active() == []


def test_beside_a_strategies_file_what_is_accepted_is_printed_for_it(
    held, tmp_path, monkeypatch
) -> None:
    file = tmp_path / "strategies.yaml"
    monkeypatch.setenv("POSITION_SYNC_STRATEGIES_FILE", str(file))
    file.write_text(run("propose", "--accept", "2"))
    legs = {leg.conid: (leg.account, leg.quantity) for leg in load_strategies(file)}
    assert legs == {contract(name).conid: ("A", quantity) for name, quantity in CONDOR.items()}
    assert held.registry.sync.get_all_active() == []


def test_status_and_changes_name_the_first_step_of_a_new_user(held) -> None:
    [first] = attention()
    assert "`position-sync strategies propose` shows the strategies" in first
    assert first in command_line.run("changes")
    run("propose", "--accept", "all")
    assert attention() == []
