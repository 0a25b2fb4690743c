"""A book after trades that somebody thinks of: what they cost, what they close, what they leave."""

import random
from dataclasses import replace
from datetime import date

import numpy as np
import polars as pl
import pytest

from position_sync_dagster.domain.instrument import Right
from position_sync_dagster.domain.leg import UNATTRIBUTED
from position_sync_dagster.domain.position_update import PositionUpdate
from position_sync_dagster.money.risk.curve import curves_of
from position_sync_dagster.money.risk.payoff import Payoff, payoffs
from position_sync_dagster.money.risk.priced_legs import Assumptions, PricedLegs
from position_sync_dagster.money.risk.proposed_trade import ProposedTradeError
from position_sync_dagster.money.risk.scenario_file import Point
from position_sync_dagster.money.risk.scenarios import Breakdown
from position_sync_dagster.money.risk.what_if import WhatIf, read_changes, what_if_of
from position_sync_dagster.settings import Settings
from tests.support import money_rows
from tests.support.legs import leg as claim
from tests.unit.money.risk.test_payoff import LATER, leg
from tests.unit.money.risk.test_scenarios import EXPIRY, NOW, RATES

# Right, strike, quantity, and what one contract cost with its commission.
CONDOR = {
    1: ("PUT", 560.0, 1.0, 150.65),
    2: ("PUT", 570.0, -1.0, 281.29),
    3: ("CALL", 600.0, -1.0, 438.71),
    4: ("CALL", 610.0, 1.0, 169.26),
}
MARK = 4.5


def held(conid: int, right: str, strike: float, quantity: float, cost: float) -> PositionUpdate:
    """Return an option of SPY that is worth `MARK`."""
    money = {
        "average_cost": cost,
        "market_value": 100 * MARK * quantity,
        "unrealized_pnl": quantity * (100 * MARK - cost),
    }
    return leg(
        conid, right, strike, quantity, MARK, symbol="SPY", underlying_price=590.0, **money
    )  # fmt: skip


def claimed(strategy: str, conid: int, quantity: float | None):
    right, strike, *_ = CONDOR[conid]
    terms = {"right": Right(right), "strike": strike, "expiry": EXPIRY}
    return claim(conid, strategy, quantity=quantity, **terms)


def tried(*trades: str, rows=None, legs=None, **more: object) -> WhatIf:
    """Return the condor, or other rows and legs, before and after trades."""
    rows = rows or [held(conid, *terms) for conid, terms in CONDOR.items()]
    if legs is None:
        legs = [claimed("condor", conid, terms[2]) for conid, terms in CONDOR.items()]
    book = money_rows.book_of(rows, legs)
    priced = PricedLegs.of(book.split.parts, Assumptions(now=NOW, rates=RATES))
    changes = read_changes(trades, more.pop("close", ()), more.pop("roll", ()), **more)
    return what_if_of(book, priced, Settings(), changes)


def payoffs_by_strategy(legs: PricedLegs) -> dict[str | None, Payoff]:
    return {payoff.strategy: payoff for payoff in payoffs(legs)}


def day(of: date = EXPIRY) -> str:
    return f"{of:%Y%m%d}"


@pytest.mark.parametrize("strategy", [None, "condor"])
@pytest.mark.parametrize(("price", "greatest_loss"), [(2.0, -799.91), (10.0, -1599.91)])
def test_a_condor_of_which_a_trade_closes_a_leg_has_what_that_realises_in_its_greatest_loss(
    strategy, price, greatest_loss
):
    # By hand: the put spread loses 1,000, the three legs cost 150.65 - 281.29 + 169.26 = 38.62, and
    # what was sold for 438.71 is bought back.
    assert -1000 - 38.62 + 438.71 - 100 * price == pytest.approx(greatest_loss)
    compared = tried(f"1 SPY {day()} C 600 @{price}", strategy=strategy)
    after = payoffs_by_strategy(compared.after_legs)
    assert set(after) == {"condor"}
    assert after["condor"].greatest_loss == pytest.approx(greatest_loss)
    assert len(after["condor"].legs) == 3
    before = payoffs_by_strategy(compared.before_legs)["condor"]
    assert before.greatest_loss == pytest.approx(-1000 + 400.09)

    (curve,) = curves_of(compared.after_legs, Point())
    assert min(curve.at_expiry) == pytest.approx(greatest_loss)
    open_profit = 450 - 150.65 - 450 + 281.29 + 450 - 169.26
    profit = curve.now[curve.prices.index(590.0)]
    assert profit == pytest.approx(open_profit + 438.71 - 100 * price)


def test_a_note_says_what_a_trade_gives_or_costs_against_the_mark():
    rows = [replace(held(1, "CALL", 645.0, -2.0, 6200.0), market_value=-12_550.0)]
    compared = tried(f"-2 SPY {day()} C 645 @3.20", rows=rows, legs=[])
    assert compared.notes[0].startswith("-2 SPY 645C")
    assert ": -11,910 USD against the mark, " in compared.notes[0]
    (row,) = compared.rows([Point()], Breakdown.ACCOUNT)
    assert row["before"]["profit"] == 0.0
    assert row["after"]["profit"] == pytest.approx(-11_910.0)
    assert row["after"]["against_mark"] == pytest.approx(-11_910.0)
    assert row["after"]["value"] == pytest.approx(2 * row["before"]["value"])
    costs = compared.after_legs.parts["average_cost"].to_list()
    assert costs == pytest.approx([6200.0, 320.0])

    purchase = f"1 SPY {day()} C 645 @62"
    bought, sold = tried(purchase, f"-1 SPY {day()} C 645 @63", rows=rows, legs=[]).notes
    assert bought.startswith("+1 SPY 645C")
    assert ": 75 USD against the mark" in bought
    assert ": 25 USD against the mark" in sold
    unmarked = [replace(row, market_price=None, market_value=None) for row in rows]
    unknown = tried(purchase, f"1 SPY {day()} C 645 @63", rows=unmarked, legs=[])
    first, second = unknown.notes
    assert "without a mark" in first
    assert "without a mark" in second
    at_the_mark = tried(f"1 SPY {day()} C 645", rows=rows, legs=[])
    assert ": 0 USD against the mark" in at_the_mark.notes[0]


def test_what_a_closed_strategy_realises_stands_after_it_at_every_level():
    for level in Breakdown:
        rows = tried(close=["condor"]).rows([Point(), Point(spot=-5)], level)
        for n in (0, 1):
            after = [row["after"] for row in rows[n::2]]
            realised = sum(side["realised"] for side in after)
            assert realised == pytest.approx(400.09)
            for side in after:
                assert side["value"] == 0.0
                assert side["profit"] == 0.0


def test_other_strategies_stay_as_they_were_whatever_is_traded_and_none_is_guessed():
    shares = {"condor": -1.0, "other": -2.0, "rest": None}
    legs = [claimed(name, 3, quantity) for name, quantity in shares.items()]
    legs.append(claimed("other", 4, 2.0))
    rows = [held(3, "CALL", 600.0, -7.0, 438.71), held(4, "CALL", 610.0, 3.0, 169.26)]
    back = f"3 SPY {day()} C 600 @10"
    sale = f"-2 SPY {day()} C 600 @1"
    compared = tried(back, sale, rows=rows, legs=legs, strategy="condor")
    for name in ("other", "rest", UNATTRIBUTED):
        before = compared.before_legs.parts.filter(strategy_id=name)
        after = compared.after_legs.parts.filter(strategy_id=name)
        assert before.drop("leg").equals(after.drop("leg"))

    condor = compared.after_legs.parts.filter(strategy_id="condor")
    assert (condor["position"] * condor["share"]).to_list() == [2.0, -2.0]
    assert condor["average_cost"].to_list() == [1000.0, 100.0]
    assert set(condor["conid"]) == {3}

    with pytest.raises(ProposedTradeError, match="closes: condor, other, rest"):
        tried(back, rows=rows, legs=legs)
    traded = tried(f"-1 SPY {day()} C 610 @1", rows=rows, legs=legs)
    in_none = traded.after_legs.parts
    assert in_none.filter(conid=4)["strategy_id"].to_list() == ["other"]


def test_a_rolled_condor_keeps_what_closing_its_nearest_legs_realises():
    compared = tried(roll=[("condor", day(LATER))])
    after = payoffs_by_strategy(compared.after_legs)["condor"]
    (row,) = compared.rows([Point()], Breakdown.LEG)[:1]
    assert row["after"]["realised"] is not None
    cost = sum(leg.quantity * leg.row["average_cost"] for leg in compared.after_legs)
    assert after.greatest_loss == pytest.approx(-1000 - cost + 400.09)


def test_what_closing_realises_is_unknown_without_a_cost():
    rows = [held(conid, *terms) for conid, terms in CONDOR.items()]
    rows[2] = replace(rows[2], average_cost=None)
    compared = tried(f"1 SPY {day()} C 600 @2", rows=rows)
    payoff = payoffs_by_strategy(compared.after_legs)["condor"]
    assert payoff.greatest_loss is None
    assert payoff.why == "not known: the average cost of what trades close"
    (row,) = compared.rows([Point()], Breakdown.ACCOUNT)
    assert row["after"]["realised"] is None
    assert row["after"]["profit"] == pytest.approx(250.0)


def test_a_share_is_traded_where_an_option_on_it_is_held():
    compared = tried("100 SPY @589", legs=[])
    assert compared.notes[0].startswith("+100 SPY in ")
    end = "at 589: 100 USD against the mark, the price that was given"
    assert compared.notes[0].endswith(end)
    (share,) = compared.after_legs.parts.filter(sec_type="STK").to_dicts()
    assert share["market_value"] == 59_000.0
    assert share["average_cost"] == 589.0
    assert share["reason"] is None
    with pytest.raises(ProposedTradeError, match="QQQ is held") as error:
        tried("100 QQQ @500", legs=[])
    assert "an option or its share" in error.value.remedy
    index = replace(held(1, "CALL", 20.0, 1.0, 100.0), symbol="VIX")
    with pytest.raises(ProposedTradeError, match="Nothing like VIX"):
        tried("100 VIX @20", rows=[index], legs=[])


@pytest.mark.parametrize(
    "changes",
    [
        {"close": ["condor", "condor"]},
        {"close": ["condor"], "roll": [("condor", day(LATER))]},
        {"roll": [("condor", day(LATER)), ("condor", "20261218")]},
    ],
)
def test_a_strategy_that_is_closed_or_rolled_twice_is_refused(changes):
    with pytest.raises(ProposedTradeError, match="'condor' is closed or rolled 2 times"):
        tried(**changes)


def test_a_strategy_that_is_closed_after_a_trade_closed_a_leg_of_it_ends_with_nothing():
    compared = tried(f"1 SPY {day()} C 600 @10", close=["condor"])
    assert compared.after_legs.parts.is_empty()
    assert sum(compared.after_legs.settled["realised"]) == pytest.approx(400.09 - 550)


@pytest.mark.parametrize("seed", range(25))
def test_trades_change_the_payoff_of_all_by_what_they_pay_and_cost_at_every_price(seed):
    rng = random.Random(seed)
    rows = []
    legs = []
    for conid, (right, strike, *_) in CONDOR.items():
        quantity = rng.choice([-6.0, -3.0, 4.0, 5.0])
        rows.append(held(conid, right, strike, quantity, rng.uniform(50, 900)))
        parts = rng.choice([(), (1 / 3,), (0.5, 0.5), (0.2, 0.3)])
        legs += [claimed(f"s{n}", conid, quantity * part) for n, part in enumerate(parts)]

    strategies = {leg.strategy_id for leg in legs}
    strategy = rng.choice(sorted(strategies | {UNATTRIBUTED}))
    trades = []
    for _ in range(rng.randint(1, 4)):
        right, strike, *_ = CONDOR[rng.choice([*CONDOR])]
        quantity = rng.choice([-7, -2, -1, 1, 3, 8])
        trades.append((quantity, right, strike, rng.uniform(0.5, 12)))
    texts = [f"{n} SPY {day()} {right} {strike} @{price}" for n, right, strike, price in trades]
    compared = tried(*texts, rows=rows, legs=legs, strategy=strategy)

    prices = np.array([0.0, 400.0, 560.0, 565.5, 590.0, 605.0, 900.0])
    before = payoffs_by_strategy(compared.before_legs)
    after = payoffs_by_strategy(compared.after_legs)
    expected = sum(payoff.profit_at(prices) for payoff in before.values())
    for quantity, right, strike, price in trades:
        worth = np.maximum(0.0, prices - strike if right == "CALL" else strike - prices)
        expected = expected + 100 * quantity * (worth - price)

    total = sum(payoff.profit_at(prices) for payoff in after.values())
    is_gone = ~pl.col("strategy_id").is_in([*after])
    of_gone = compared.after_legs.settled.filter(is_gone)["realised"].sum()
    np.testing.assert_allclose(total + of_gone, expected, rtol=1e-9, atol=1e-6)
    for name in {*before} - {strategy}:
        assert before[name].corners == after[name].corners

    (row,) = compared.rows([Point()], Breakdown.ACCOUNT)
    against_mark = sum(100 * quantity * (MARK - price) for quantity, *_, price in trades)
    assert row["after"]["profit"] == pytest.approx(against_mark)
