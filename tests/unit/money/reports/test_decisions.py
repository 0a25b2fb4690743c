"""What needs a decision, and in which order."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from position_sync_dagster.money.reports.decisions import Decision, Kind, decisions
from position_sync_dagster.money.risk.scenarios import Breakdown
from position_sync_dagster.money.strategies.limits import LimitState

FRIDAY = datetime(2026, 12, 4, 16, tzinfo=UTC)


def sums(name: str, **values: Any) -> SimpleNamespace:
    usual = {"currency": "USD", "short_in_money": 0, "differences": None}
    return SimpleNamespace(name=name, **usual | values)


def limit(strategy: str | None, **values: Any) -> SimpleNamespace:
    usual = {"strategy_id": strategy, "account": None, "currency": None}
    broken = {"outcome": LimitState.BROKEN, "text": f"{strategy} is over its limit"}
    return SimpleNamespace(limit=SimpleNamespace(**usual | values), **broken)


def moved(name: str, *profits: float | None, **values: Any) -> dict[str, Any]:
    usual = {"level": Breakdown.STRATEGY, "currency": "USD"}
    return usual | {"name": name, "profits": list(profits)} | values


def expiring(strategy: str, leg: str, **values: Any) -> dict[str, Any]:
    usual = {
        "strategy_id": strategy, "currency": "USD", "symbol": "SPY", "leg": leg, "units": 0.0,
        "cash": 0.0, "expires_at": FRIDAY, "is_uncovered": False, "is_pinned": False,
        "reason": None,
    }  # fmt: skip
    return usual | values


def decided(*strategies: Any, limits: Any = (), moves: Any = (), **expiry: Any) -> list[Decision]:
    account = SimpleNamespace(account="U1", currency="USD")
    book = SimpleNamespace(strategies=strategies, rest=[], accounts=[account])
    figures: Any = SimpleNamespace(book=book, limits=limits)
    nothing: dict[str, Any] = {"expiries": [], "early_assignments": []}
    return decisions(figures, moves, [0, 1], nothing | expiry)


def test_what_loses_most_at_its_worse_side_comes_first_and_what_is_not_known_last():
    strategies = [sums(name, short_in_money=1) for name in ("small", "unknown", "large", "safe")]
    moves = [
        moved("small", -100.0, 50.0), moved("large", 20.0, -900.0), moved("safe", 5.0, 7.0),
        moved("unknown", None, -5_000.0),
    ]  # fmt: skip
    listed = decided(*strategies, moves=moves)
    assert [(decision.name, decision.at_stake) for decision in listed] == [
        ("large", 900.0), ("small", 100.0), ("safe", 0.0), ("unknown", None),
    ]  # fmt: skip


def test_amounts_of_different_currencies_are_not_compared():
    strategies = [sums("yen", short_in_money=1, currency="JPY"), sums("dollars", short_in_money=1)]
    moves = [moved("yen", -9.0, 0.0, currency="JPY"), moved("dollars", -10.0, 0.0)]
    listed = decided(*strategies, moves=moves)
    assert [(decision.name, decision.at_stake) for decision in listed] == [
        ("yen", 9.0), ("dollars", 10.0),
    ]  # fmt: skip


def test_a_strategy_over_several_accounts_has_one_sum():
    moves = [moved("wide", -100.0, 300.0), moved("wide", -50.0, -400.0)]
    (decision,) = decided(sums("wide", short_in_money=2), moves=moves)
    assert decision.at_stake == 150.0
    assert decision.reason == "2 short options are in the money"


def test_a_broken_limit_and_a_broken_structure_say_what_is_the_case():
    listed = decided(
        sums("condor", differences="1 of 2 held"), sums("calm"), limits=[limit("condor")]
    )
    assert [(campaign.kind, campaign.reason) for campaign in listed] == [
        (Kind.LIMIT, "condor is over its limit"), (Kind.BROKEN, "1 of 2 held"),
    ]  # fmt: skip
    assert all(decision.is_urgent for decision in listed)


def test_a_limit_of_an_account_has_the_loss_of_the_account_at_stake():
    of_account = limit(None, account="U1")
    moves = [moved("U1", -700.0, 3.0, level=Breakdown.ACCOUNT)]
    (decision,) = decided(limits=[of_account], moves=moves)
    assert decision.name == "U1"
    assert decision.strategy is None
    assert decision.at_stake == 700.0


@pytest.mark.parametrize(
    ("legs", "said", "step"),
    [
        ([{}, {}], "2 legs at Fri 04 Dec 16:00 New York: worthless at this price", "let it expire"),
        ([{"units": 100.0, "cash": -57_500.0}], "+100 SPY and -57,500 USD", "take what it leaves"),
        (
            [{"cash": -230.0}, {"symbol": "QQQ"}],
            "2 legs at Fri 04 Dec 16:00 New York: -230 USD",
            "",
        ),
        ([{"units": -100.0, "cash": 1.0, "is_uncovered": True}], "uncovered: leg 0", "before then"),
        ([{"is_pinned": True}], "at the strike: leg 0", "before then"),
        ([{"units": None, "cash": None, "reason": "no price"}], "not known (no price)", "close or"),
    ],
)
def test_what_expires_says_what_it_leaves_and_what_can_be_done(legs, said, step):
    rows = [expiring("weekly", f"leg {n}", **values) for n, values in enumerate(legs)]
    (decision,) = decided(sums("weekly", short_in_money=1), expiries=rows)
    assert decision.kind is Kind.EXPIRY, "it is not threatened besides"
    assert said in decision.reason
    assert step in decision.step


def test_what_may_be_assigned_names_the_leg_its_time_value_and_the_dividend():
    row = {"strategy_id": "call", "currency": "USD", "position": -2.0, "leg": "SPY 575C",
           "extrinsic": 0.05, "ex_date": FRIDAY}  # fmt: skip
    cheap = row | {"strategy_id": "put", "extrinsic": -0.34, "ex_date": None}
    first, second = decided(early_assignments=[row, cheap])
    assert first.reason == "-2 SPY 575C is worth 0.05 above its exercise, ex-date 04 Dec"
    assert second.reason == "-2 SPY 575C is worth 0.34 below its exercise"
