"""`position-sync strategies rolls`, and the causes in `history`, on real tables."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from typer.testing import CliRunner

from position_sync_dagster.cli.app import app
from position_sync_dagster.domain.update import PositionUpdate
from position_sync_dagster.sync.explain_closes import CloseExplainer
from tests.unit.domain.test_causes import ACCOUNT, CALL, OTHER, change, fill

NOW = datetime.now(UTC)
AT = NOW - timedelta(minutes=5)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.output


def rolled(lake) -> None:
    """Put a strategy of a short call into the lake, and a roll of that call."""
    for strategy, quantity in (("ic", -2.0), ("part", -1.0)):
        lake.registry.sync.add_active(
            conid=CALL, symbol="SPY", right="CALL", strike=575.0, expiry="20260320",
            strategy_id=strategy, quantity=quantity, account=ACCOUNT,
        )  # fmt: skip
    at = datetime.now(UTC) + timedelta(seconds=1)
    explainer = CloseExplainer(lake)
    explainer.record([change(CALL, -2, 0, at), change(OTHER, 0, -2, at)])
    explainer.explain([fill(CALL, 2, at, realized_pnl=112.0), fill(OTHER, -2, at)])


def test_a_rolled_leg_is_proposed_and_replaced_in_one_commit_on_demand(lake) -> None:
    assert "No leg of a strategy was rolled." in run("strategies", "rolls")
    rolled(lake)
    before = lake.registry.table.version()
    said = run("strategies", "rolls")
    assert "ic: -2 SPY 575C 20Mar26 → SPY 580C 20Mar26" in said
    assert "part:" not in said
    assert lake.registry.table.version() == before
    assert json.loads(run("strategies", "rolls", "--apply", "--json"))["replaced"] == 1
    assert lake.registry.table.version() == before + 1
    legs = {
        (leg.strategy_id, leg.conid, leg.quantity) for leg in lake.registry.sync.get_all_active()
    }
    assert legs == {("ic", OTHER, -2.0), ("part", CALL, -1.0)}
    assert "No leg of a strategy was rolled." in run("strategies", "rolls")


def test_the_history_of_a_holding_says_why_it_closed(lake) -> None:
    rolled(lake)
    row = PositionUpdate(
        conid=CALL, symbol="SPY", right=None, position=-2.0, market_price=1.5, market_value=-300.0,
        average_cost=100.0, unrealized_pnl=-100.0, timestamp=AT, account=ACCOUNT,
    )  # fmt: skip
    lake.updates.sync.append([row, replace(row, position=0.0, timestamp=NOW)])
    said = run("history", f"{ACCOUNT}:{CALL}")
    assert "closed -2: TRADED, PROVISIONAL" in said
    assert "traded  +112.00 USD" in said
