"""What needs a decision, and in which order."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from position_sync_dagster.money.reports.decisions import Decision, Kind, decisions
from position_sync_dagster.money.risk.scenarios import Breakdown
from position_sync_dagster.money.strategies.limits import Bound, LimitState, Measure

PART_COLUMNS = {
    "strategy_id": pl.String, "account": pl.String, "conid": pl.Int64,
    "currency": pl.String, "short_in_money": pl.Boolean,
}  # fmt: skip
FRIDAY = datetime(2026, 12, 4, 16, tzinfo=UTC)


def sums(name: str, **values: Any) -> SimpleNamespace:
    usual = {"currency": "USD", "short_in_money": 0, "differences": None}
    return SimpleNamespace(name=name, **usual | values)


def limit(strategy: str | None, **values: Any) -> SimpleNamespace:
    usual = {
        "strategy_id": strategy, "account": None, "currency": None,
        "measure": Measure.UNREALIZED_PNL, "bound": Bound.MIN,
    }  # fmt: skip
    broken = {"outcome": LimitState.BROKEN, "text": f"{strategy} is over its limit"}
    return SimpleNamespace(limit=SimpleNamespace(**usual | values), **broken)


def moved(name: str, *profits: float | None, **values: Any) -> dict[str, Any]:
    usual = {"level": Breakdown.STRATEGY, "currency": "USD"}
    return usual | {"name": name, "profits": list(profits)} | values


def expiring(strategy: str, leg: str, **values: Any) -> dict[str, Any]:
    held = {"strategy_id": strategy, "symbol": "SPY", "leg": leg, "account": "U1", "conid": 1}
    leaves = {"units": 0.0, "cash": 0.0, "currency": "USD", "expires_at": FRIDAY}
    doubts = {"is_uncovered": False, "is_pinned": False, "reason": None}
    return held | leaves | doubts | values


def assignable(strategy: str, **values: Any) -> dict[str, Any]:
    """Return a short call that may be assigned early."""
    held = {"strategy_id": strategy, "account": "U1", "conid": 1, "leg": "SPY 575C"}
    worth = {"currency": "USD", "position": -2.0, "extrinsic": 0.05, "ex_date": None}
    return held | worth | values


def leg_moved(strategy: str, conid: int, *profits: float | None) -> dict[str, Any]:
    return moved(strategy, *profits, level=Breakdown.LEG, account="U1", conid=conid)


def decided(
    *strategies: Any, limits: Any = (), moves: Any = (), legs: Any = (), in_money: Any = (),
    **expiry: Any,
) -> list[Decision]:  # fmt: skip
    """Return the decisions; of `in_money` the strategy and conid of each short option there."""
    account = SimpleNamespace(account="U1", currency="USD")
    rows = [(strategy, "U1", conid, "USD", True) for strategy, conid in in_money]
    parts = pl.DataFrame(rows, PART_COLUMNS, orient="row")
    split = SimpleNamespace(parts=parts)
    book = SimpleNamespace(strategies=strategies, rest=[], accounts=[account], split=split)
    figures: Any = SimpleNamespace(book=book, limits=limits)
    nothing: dict[str, Any] = {"expiries": [], "early_assignments": []}
    return decisions(figures, moves, [0, 1], nothing | expiry, legs)


def test_what_loses_most_at_its_worse_side_comes_first_and_what_is_not_known_last():
    strategies = [sums(name, short_in_money=1) for name in ("small", "unknown", "large", "safe")]
    moves = [moved("small", -100.0, 50.0), moved("large", 20.0, -900.0)]
    moves += [moved("safe", 5.0, 7.0), moved("unknown", None, -5_000.0)]
    listed = decided(*strategies, moves=moves)
    assert [decision.name for decision in listed] == ["large", "small", "safe", "unknown"]
    assert [decision.at_stake for decision in listed] == [900.0, 100.0, 0.0, None]


def test_amounts_of_different_currencies_are_not_compared():
    strategies = [sums("yen", short_in_money=1, currency="JPY"), sums("dollars", short_in_money=1)]
    moves = [moved("yen", -9.0, 0.0, currency="JPY"), moved("dollars", -10.0, 0.0)]
    in_yen, in_dollars = decided(*strategies, moves=moves)
    assert in_yen.name == "yen"
    assert in_yen.at_stake == 9.0
    assert in_dollars.name == "dollars"
    assert in_dollars.at_stake == 10.0


def test_a_strategy_over_several_accounts_has_one_sum():
    moves = [moved("wide", -100.0, 300.0), moved("wide", -50.0, -400.0)]
    (decision,) = decided(sums("wide", short_in_money=2), moves=moves)
    assert decision.at_stake == 150.0
    assert decision.reason == "2 short options are in the money"


def test_a_broken_limit_and_a_broken_structure_say_what_is_the_case():
    broken = sums("condor", differences="1 of 2 held")
    (decision,) = decided(broken, sums("calm"), limits=[limit("condor")])
    assert decision.kind is Kind.LIMIT
    assert decision.reason == "condor is over its limit; broken: 1 of 2 held"
    assert decision.is_urgent


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
    row = assignable("call", ex_date=FRIDAY)
    cheap = assignable("put", extrinsic=-0.34)
    first, second = decided(early_assignments=[row, cheap])
    assert first.reason == "-2 SPY 575C is worth 0.05 above its exercise, ex-date 04 Dec"
    assert second.reason == "-2 SPY 575C is worth 0.34 below its exercise"


def test_what_may_be_assigned_comes_before_what_costs_more_and_needs_no_haste():
    """A strategy that may be assigned is urgent; what leaves shares may have more at stake."""
    row = assignable("call")
    leaves = expiring("large", "SPY 600P", units=100.0, cash=-60_000.0, conid=2)
    legs = [leg_moved("large", 2, -9_000.0, 0.0), leg_moved("call", 1, 0.0, -40.0)]
    first, second = decided(early_assignments=[row], expiries=[leaves], legs=legs)
    assert first.name == "call"
    assert first.at_stake == 40.0
    assert second.name == "large"
    assert second.at_stake == 9_000.0


def test_what_may_expire_by_itself_is_no_decision_and_comes_last_without_a_step():
    calm = [expiring("calm", "SPY 500P"), expiring("calm", "SPY 700C", conid=2)]
    legs = [leg_moved("calm", 1, -5.0, 0.0), leg_moved("calm", 2, 0.0, -7.0)]
    strategies = [sums("calm"), sums("wild", short_in_money=1)]
    first, last = decided(*strategies, expiries=calm, legs=legs)
    assert first.name == "wild"
    assert first.step is not None
    assert last.name == "calm"
    assert last.step is None
    assert last.reason == "2 legs at Fri 04 Dec 16:00 New York: worthless at this price"
    assert last.at_stake == 7.0


def test_a_strategy_has_one_row_with_all_that_is_the_case_and_what_these_legs_have_at_stake():
    row = assignable("condor", position=-1.0)
    moves = [moved("condor", -9_999.0, 0.0)]
    soon = expiring("condor", "SPY 575P", conid=2, cash=-230.0)
    legs = [leg_moved("condor", 1, 10.0, -100.0), leg_moved("condor", 2, -300.0, 0.0)]
    (decision,) = decided(
        sums("condor", short_in_money=2), moves=moves, legs=legs,
        early_assignments=[row], expiries=[soon], in_money=[("condor", 1), ("condor", 2)],
    )  # fmt: skip
    assert decision.kind is Kind.ASSIGNMENT
    assert decision.step == "close or roll it, or take the delivery"
    also = "; expires: 1 leg at Fri 04 Dec 16:00 New York: -230 USD"
    assert decision.reason.endswith(f"above its exercise{also}")
    assert decision.at_stake == 290.0, "of the two legs at the lower price"

    limits = [limit("condor")]
    (over,) = decided(sums("condor"), moves=moves, legs=legs, expiries=[soon], limits=limits)
    assert over.at_stake == 9_999.0, "a limit is about all of it"


def test_options_in_the_money_have_what_these_lose_at_stake():
    legs = [leg_moved("put", 7, -70.0, 90.0)]
    moves = [moved("put", -1.0, -2.0)]
    put = sums("put", short_in_money=1)
    (decision,) = decided(put, moves=moves, legs=legs, in_money=[("put", 7)])
    assert decision.kind == Kind.THREATENED
    assert decision.at_stake == 70.0


def test_a_profit_beyond_its_largest_limit_is_a_target_and_hurts_nobody():
    target = limit("condor", bound=Bound.MAX)
    too_much = limit("wide", bound=Bound.MAX, measure=Measure.VEGA)
    wide, condor = decided(sums("condor"), sums("wide"), limits=[target, too_much])
    assert wide.name == "wide"
    assert wide.kind == Kind.LIMIT
    assert wide.is_urgent is True
    assert condor.name == "condor"
    assert condor.kind == Kind.TARGET
    assert condor.is_urgent is False
    assert condor.step == "take the profit, or set another target"


def test_less_than_a_unit_of_money_is_not_left():
    (decision,) = decided(expiries=[expiring("weekly", "SPY 575P", cash=-0.3)])
    assert "-0" not in decision.reason
    assert "worthless at this price" in decision.reason
