"""Causes of closes in `positions --closed` and `history`, on real tables."""

from datetime import UTC, datetime, timedelta

from position_sync_dagster.domain.exchange_time import NEW_YORK
from position_sync_dagster.domain.position_update import PositionUpdate
from position_sync_dagster.money.past.explain_closes import CloseExplainer
from tests.support.command_line import json_of, run
from tests.support.holdings import make_row
from tests.unit.money.past.test_causes import ACCOUNT, CALL, CHARGED, OTHER, change, fill

NOW = datetime.now(UTC)
AT = NOW - timedelta(minutes=5)


def row(position: float, at: datetime) -> PositionUpdate:
    money = {"market_value": -300.0, "unrealized_pnl": -100.0}
    return make_row(CALL, at, ACCOUNT, position=position, **money)


def rolled(lake) -> None:
    """Put a strategy of a short call into the lake, and a roll of that call."""
    for strategy, quantity in (("ic", -2.0), ("part", -1.0)):
        lake.registry.sync.add_active(
            conid=CALL, symbol="SPY", right="CALL", strike=575.0, expiry="20260320",
            strategy_id=strategy, quantity=quantity, account=ACCOUNT,
        )  # fmt: skip
    at = datetime.now(UTC) + timedelta(seconds=1)
    explainer = CloseExplainer(lake)
    lake.position_changes.add([change(CALL, -2, 0, at), change(OTHER, 0, -2, at)])
    bought_back = fill(CALL, 2, at, realized_pnl=-77.3, **CHARGED)
    explainer.explain([bought_back, fill(OTHER, -2, at)])


def test_what_closed_is_listed_and_a_leg_that_is_gone_is_not_missing(lake) -> None:
    assert "No change of a position has been recorded yet." in run("positions", "--closed")
    rolled(lake)
    lake.updates.sync.append([row(0.0, NOW)])
    printed = run("positions", "--closed")
    for wanted in ("SPY 575C 20Mar26", "TRADED", "PROVISIONAL", "ic, part", "1 of 1 closes since"):
        assert wanted in printed

    listed = json_of("positions", "--closed", "--strategy", "ic")
    (one,) = listed["closes"]
    since = listed["since"]
    assert one["quantity"] == (-2.0)
    assert one["price"] == 1.5
    assert one["realized_pnl"] == -77.3
    assert since
    assert json_of("positions", "--closed", "--limit", "1")["closes"] == [one]

    strategies = json_of("exposure")["strategies"]
    ((ic, part),) = [[entry for entry in strategies if entry["name"] in ("ic", "part")]]
    day = f"{datetime.now(UTC).astimezone(NEW_YORK):%Y-%m-%d}"
    assert ic["legs_held"] == 0
    assert ic["closed"] == f"one traded on {day}"
    assert ic["realized_pnl"] == -51.53, "two thirds of 2 × 112 − 300 − 1.30, as it claims it"
    assert part["realized_pnl"] == -25.77
    assert ic["closes"] == 1
    assert ic["closes_without_profit"] == 0
    assert f"(0 of 1 active legs held, one traded on {day}" in run("status")
    assert {entry["state"] for entry in json_of("strategies", "list")} == {"CLOSED"}

    lake.registry.sync.add_active(77, "QQQ", strategy_id="waits")
    assert "Nothing closed" in run("positions", "--closed", "--underlying", "QQQ")
    assert part["closed"] == ic["closed"]


def test_the_history_of_a_holding_says_why_it_closed(lake) -> None:
    rolled(lake)
    lake.updates.sync.append([row(-2.0, AT), row(0.0, NOW)])
    printed = run("history", f"{ACCOUNT}:{CALL}")
    assert printed.splitlines()[-1].split()[2:5] == ["-2", "TRADED", "PROVISIONAL"]
    assert printed.endswith("-77.30  USD\n")
