"""The command `what-if`, its file of scenarios, and the tables of risk and explained profit."""

import json
import re
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from position_sync_dagster.cli.mcp import told
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.exchange_time import exchange_date
from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.domain.position_update import PositionUpdate
from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.money.risk.recorded_risk import read_risk, risk_rows
from position_sync_dagster.money.tables import DividendSource, ExpectedDividend
from position_sync_dagster.settings import load_settings
from tests.support import command_line
from tests.support.legs import leg
from tests.support.sessions import own
from tests.unit.money.risk.test_scenarios import option, share

CALL = 911
SHARE = 912
UNKNOWN = 913
EXPIRY = (utc_now() + timedelta(days=90)).date()


def rows(at: datetime) -> list[PositionUpdate]:
    usual = {"timestamp": at, "value_time": at}
    call = option(CALL, right="CALL", strike=600.0, market_price=25.0, market_value=-5000.0,
                  expiry=EXPIRY, **usual)  # fmt: skip
    own = share(SHARE, gamma=None, vega=None, theta=None, **usual)
    return [call, own, replace(call, conid=UNKNOWN, implied_vol=None)]


@pytest.fixture
def lake(lake):
    own(lake, load_settings().gateway_id, state=SessionState.LIVE)
    lake.updates.sync.append(rows(utc_now()))
    dividend = ExpectedDividend(
        conid=1, symbol="SPY", source=DividendSource.STATED, amount=1.75, share=None, next_year=7.0,
        ex_date=utc_now().date() + timedelta(days=20), seen_at=utc_now(),
    )  # fmt: skip
    lake.dividends.add([dividend])
    return lake


def carry_the_sums(lake) -> None:
    """Hold so much besides that the leg without a volatility is a small part."""
    of_index = {"symbol": "QQQ", "position": 9000.0, "market_value": 5_400_000.0}
    lake.updates.sync.append([share(919, timestamp=utc_now(), value_time=utc_now(), **of_index)])


run = partial(command_line.run, "what-if")


def test_payoff_prints_an_object_for_each_strategy_account_and_underlying(lake):
    (payoff,) = json.loads(command_line.run("payoff", "--json"))
    names = ["strategy", "account", "underlying", "currency", "expiry", "break_evens"]
    assert set(names) <= set(payoff)
    # Four short calls at 100 a contract, and 100 shares that cost 100 each.
    assert payoff["greatest_profit"] == 100 * 600 - 10_000 + 400
    assert payoff["greatest_loss"] is None
    assert payoff["why"] == "the greatest loss is unbounded"
    assert payoff["corners"][0] == {"price": 0.0, "profit": 400 - 10_000.0}
    printed = command_line.run("payoff")
    assert "unbounded" in printed
    assert "break evens" in printed.splitlines()[0]


def test_expiry_prints_deliveries_and_what_may_be_assigned_early(lake):
    answer = json.loads(command_line.run("expiry", "--days", "100", "--json"))
    assert set(answer) >= {"expiries", "early_assignments", "not_judged", "undated"}
    names = {"strategy_id", "account", "conid", "symbol", "currency", "expires_at", "position"}
    names |= {"units", "cash", "is_pinned", "is_uncovered", "is_cash_settled", "missing"}
    assert all(names <= set(row) for row in answer["expiries"])
    assert [row["conid"] for row in answer["expiries"]] == [CALL, UNKNOWN]
    assert "expires at" in command_line.run("expiry", "--days", "100").splitlines()[1]
    assert command_line.run("expiry", "--days", "1").startswith("Nothing expires within 1 days.")


def test_json_has_a_row_for_each_group_and_point_and_legs_say_what_priced_them(lake):
    answer = json.loads(run("--spot", "-10,0", "--vol", "0,5", "--level", "leg", "--json"))
    assert len(answer) == 3 * 4
    call = next(row for row in answer if row["conid"] == CALL and row["spot"] == -10)
    names = ["level", "name", "account", "conid", "spot", "vol", "days", "value", "profit"]
    names += ["left_out", "underlying_price", "implied_vol", "rate", "dividends", "exercise"]
    assert set(names) <= set(call)
    assert call["profit"] > 0
    assert call["dividends"][0]["amount"] == 1.75
    still = [entry for entry in answer if (entry["spot"], entry["vol"]) == (0, 0)]
    assert {row["profit"] for row in still} == {0.0, None}
    assert [row["left_out"] for row in still if row["conid"] == UNKNOWN] == [1]


def test_a_person_sees_a_table_and_what_is_left_out(lake):
    printed = run("--spot", "-10,0,10")
    assert "-10" in printed.splitlines()[0]
    assert "1 left out: its implied volatility is not known" in printed


def lose_gateway(lake) -> None:
    session = lake.sessions.current(load_settings().gateway_id)
    detail = "1100 connectivity lost"
    lake.sessions.renew(session, lease_s=600.0, state=SessionState.BLIND, detail=detail)


@pytest.mark.parametrize("command", ["what-if", "payoff", "expiry", "why"])
def test_what_rests_on_values_of_before_an_outage_says_so_as_status_does(lake, command):
    lose_gateway(lake)
    state = dict(line.split(maxsplit=1) for line in command_line.run("status").splitlines())
    assert ": BLIND for " in state["gateway"]

    def without_age(text: str) -> str:
        return re.sub(r"for \S+ s ", "", text)

    first, second, *_table = command_line.run(command).splitlines()
    assert first == "Current are 0 of 0 legs: the gateway is not connected"
    assert without_age(second) == without_age(state["gateway"])

    printed = command_line.call(command, "--json")
    assert "BLIND for" in printed.stderr
    assert json.loads(printed.stdout)


def test_an_assistant_and_http_hear_that_values_are_of_before_an_outage(lake):
    lose_gateway(lake)
    settings = load_settings()
    for tool in ("why", "what_if"):
        current, gateway = told(settings, tool)["not_current"].split("; ")
        assert current == "Current are 0 of 0 legs: the gateway is not connected"
        assert gateway.startswith(f"{settings.gateway_id}: BLIND for ")


def test_while_all_is_current_no_state_stands_above_a_table(lake):
    assert run("--spot", "0").startswith("name")
    assert "not_current" not in told(load_settings(), "what_if")


def test_a_chosen_day_without_trading_is_named_with_the_trading_days_beside_it(lake):
    today = exchange_date(utc_now())
    days_to_saturday = (5 - today.weekday()) % 7 or 7
    saturday = today + timedelta(days=days_to_saturday)
    printed = run("--spot", "0", "--days", f"0,{days_to_saturday}")
    (line,) = [line for line in printed.splitlines() if f"{saturday:%a %d %b %Y}" in line]
    # A holiday beside the weekend would move the days.
    before = today + timedelta(days=int(re.search(r"--days (\d+) ", line)[1]))
    after = today + timedelta(days=int(re.search(r"and (\d+) ", line)[1]))
    assert before < saturday < after
    assert f"({before:%a %d %b}) and" in line
    assert f"({after:%a %d %b})" in line
    assert before.weekday() < 5 > after.weekday()

    as_json = command_line.call("what-if", "--json", "--days", f"{days_to_saturday}")
    assert line in as_json.stderr
    trading = (before - today).days
    assert "no trading day" not in run("--days", f"0,{trading}" if trading else "0")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--spot", "5%"), "spot.0='5%' is no number. Write it without a unit"),
        (("--vol", "0,5pts"), "vol.1='5pts' is no number. Write it without a unit"),
        (("--as-of", "09:05"), "'09:05' has no day. Write it as 20"),
        (("--as-of", "09:05Z"), "T09:05Z."),
        (("--as-of", "2026"), "'2026' is no time. Write it as 2026-03-09T15:30:00Z"),
        (("--as-of", "now"), "'now' is no time. Write it as 2026-03-09T15:30:00Z"),
    ],
)
def test_what_cannot_be_read_is_named_with_the_cause_and_what_to_write(lake, arguments, told):
    refused = command_line.call("what-if", *arguments)
    assert refused.exit_code == 2
    words = " ".join(refused.stderr.replace("│", " ").split())
    assert told in words


def test_volatilities_are_printed_as_points(lake):
    def vols(*arguments: str) -> set[str]:
        head, *lines = run("--spot", "-5,5", *arguments).splitlines()
        place = head.index("vol")
        return {line[place:].split()[0] for line in lines if line.startswith("UNATTRIBUTED")}

    assert vols("--vol", "-5,10") == {"-5", "+10"}


def test_a_scenario_by_name_uses_betas_and_is_recorded_with_its_limit(lake):
    carry_the_sums(lake)
    own = "{name: crash, underlying: SPY, spot: -8, vol: 12, largest_loss: {UNATTRIBUTED: 100}}"
    Path("scenarios.yaml").write_text(f"betas: {{SPY: 1.0, QQQ: 1.0}}\nscenarios: [{own}]\n")
    (row,) = json.loads(run("--scenario", "crash", "--level", "account", "--json"))
    assert row["spot"] == (-8)
    assert row["vol"] == 12
    assert row["scenario"] == "crash"
    _book, own, legs = read_risk(lake, load_settings(), utc_now())
    lake.risk_scenarios.record(risk_rows(legs, own))
    stored = lake.risk_scenarios.latest().filter(scenario="crash").to_dicts()
    assert [entry["largest_loss"] for entry in stored] == [100.0]
    assert stored[0]["profit"] == pytest.approx(row["profit"], rel=1e-4)


def test_a_mistake_in_the_file_of_scenarios_names_it(lake):
    Path("scenarios.yaml").write_text("scenarios: [{name: x, spott: 5}]\n")
    with pytest.raises(PositionSyncError, match="spott"):
        run()
    Path("scenarios.yaml").write_text("scenarios:" + "\n  - {name: x}" * 101)
    with pytest.raises(PositionSyncError, match="at most 100 items"):
        run()


NEW = (utc_now() + timedelta(days=60)).date()


def compared(*args: str) -> dict[tuple[str, float], dict]:
    rows = json.loads(run(*args, "--json"))
    return {(row["name"], row["spot"]): row for row in rows}


def test_a_trade_that_is_thought_of_has_a_before_and_an_after_in_each_row(lake):
    carry_the_sums(lake)
    rows = compared("--trade", f"-1 SPY {NEW:%Y%m%d} C 640 @4.10", "--spot", "-5,0,5")
    row = rows["UNATTRIBUTED", 5]
    assert row["profit"] == row["after"]["profit"]
    assert row["after"]["profit"] < row["before"]["profit"]
    assert row["after"]["value"] < row["before"]["value"]
    still = rows["UNATTRIBUTED", 0]
    assert still["after"]["value"] == pytest.approx(still["before"]["value"] - 410)
    assert still["after"]["profit"] == pytest.approx(still["before"]["profit"], abs=1e-6)
    assert still["after"]["dollar_delta"] < still["before"]["dollar_delta"]

    def missing(side: str) -> float:
        return sum(row["missing"] for row in still[side]["uncovered"])

    assert missing("before") == 300
    assert missing("after") == 400
    assert read_risk(lake, load_settings(), utc_now())[0].priced.height == 4  # nothing is stored


def test_a_contract_without_a_price_takes_that_of_the_nearest_held_and_says_which(lake):
    printed = run("--trade", f"-1 SPY {NEW:%Y%m%d} C 640")
    assert "the volatility of SPY 600C" in printed
    assert "would miss" in printed
    with pytest.raises(PositionSyncError, match="Nothing like QQQ"):
        run("--trade", "-1 QQQ 20290119 C 600 @2")
    with pytest.raises(PositionSyncError, match="is no trade"):
        run("--trade", "sell something")
    with pytest.raises(PositionSyncError, match="SPY 300C 17Jan20 has expired"):
        run("--trade", "-1 SPY 20200117 C 300 @2")


def test_shares_that_are_sold_realise_and_what_is_left_keeps_its_cost(lake):
    rows = compared("--trade", "-40 SPY", "--level", "leg", "--spot", "-10")
    row = rows["SPY", -10]
    assert row["before"]["profit"] == pytest.approx(-6000)
    assert row["after"]["profit"] == pytest.approx(-3600)


@pytest.fixture
def strategy(lake):
    lake.registry.sync.add_many([leg(CALL, "calls", right="CALL", strike=600.0, expiry=EXPIRY)])
    return "calls"


def test_a_strategy_that_is_closed_has_what_that_realised_after(lake, strategy):
    row = compared("--close", strategy, "--spot", "5")[strategy, 5]
    # Two calls were sold at 1.00 and are worth 25.00.
    assert row["after"]["realised"] == (-4800.0)
    assert row["after"]["profit"] == 0.0
    assert row["before"]["profit"] < 0
    lake.registry.sync.add_many([leg(99, "nothing")])
    with pytest.raises(PositionSyncError, match="holds nothing"):
        run("--close", "nothing")
    with pytest.raises(PositionSyncError, match="'calls' is closed or rolled 2 times"):
        run("--close", strategy, "--close", strategy)


def test_a_trade_costs_its_price_and_the_first_line_says_how_much(lake, strategy):
    trade = ("--trade", f"2 SPY {EXPIRY:%Y%m%d} C 600 @26")
    printed = run("--spot", "0,5", *trade).splitlines()
    assert printed[0].startswith("+2 SPY 600C")
    assert ": -200 USD against the mark, " in printed[0]
    row = compared(*trade, "--spot", "0,5")[strategy, 5]
    assert row["before"]["realised"] == 0.0
    assert row["after"]["realised"] == (-5000.0)
    assert row["after"]["profit"] == -200.0
    assert row["after"]["against_mark"] == -200.0


def test_a_strategy_that_is_rolled_has_its_contracts_at_the_new_expiry(lake, strategy):
    later = EXPIRY + timedelta(days=60)
    rows = compared("--roll", strategy, f"{later:%Y%m%d}", "--spot", "5")
    assert rows["UNATTRIBUTED", 5]["after"]["payoffs"] == []  # what no strategy has is no strategy
    row = rows[strategy, 5]
    (before,) = row["before"]["payoffs"]
    (after,) = row["after"]["payoffs"]
    assert before["expiry"] == f"{EXPIRY}"
    assert after["expiry"] == f"{later}"
    assert after["greatest_profit"] > before["greatest_profit"]
    assert after["note"] is None
    with pytest.raises(PositionSyncError, match="No option of"):
        run("--roll", strategy, f"{EXPIRY:%Y%m%d}")
