"""The ten formulas of results, and what is not known of them."""

from dataclasses import fields
from datetime import date
from typing import Any

import pytest

from position_sync_dagster.money.campaigns.closed_campaign import CampaignEnd, ClosedCampaign
from position_sync_dagster.money.campaigns.results import Grouping, days_of, results_of


def campaign(profit: float | None, day: int = 2, **more: Any) -> ClosedCampaign:
    unknown = dict.fromkeys(field.name for field in fields(ClosedCampaign))
    whose = {"campaign_id": f"s:{day}", "strategy_id": "s", "kind": "vertical"}
    ended = {"closed": date(2026, 3, day), "ended": CampaignEnd.CLOSED}
    money = {"underlying": "SPY", "currency": "USD", "fees": 2.0, "capital_at_risk": 500.0}
    result = {"profit": profit, "profit_unknown": None if profit is not None else "a fee"}
    return ClosedCampaign(**unknown | whose | ended | money | result | more)


def test_each_formula_is_what_its_name_says():
    won = campaign(100.0, 2, worst=-30.0)
    lost = campaign(-40.0, 3, worst=-90.0)
    campaigns = [won, lost, campaign(-80.0, 4), campaign(0.0, 5)]
    [result] = results_of(campaigns, Grouping.STRATEGY)

    counted = {"group": "s", "currency": "USD", "number": 4, "wins": 1, "win_rate": 0.25}
    profits = {"profit": -20.0, "fees": 8.0, "average_win": 100.0, "average_loss": -60.0}
    rates = {"expectancy": -5.0, "profit_factor": pytest.approx(100 / 120), "return": -0.01}
    worst = {"wins_with_days": 1, "median_worst_of_wins": -30.0, "worst_of_wins": -30.0}
    lacking = {"unknown": 0, "why_unknown": None}
    assert result.row == counted | profits | rates | {"drawdown": 120.0} | worst | lacking


def test_how_far_those_that_won_had_been_down_is_of_those_of_which_it_is_known():
    worst_by_day = {2: -50.0, 3: None, 4: 4.0, 5: -10.0}
    won = [campaign(9.0, day, worst=worst) for day, worst in worst_by_day.items()]
    [group] = results_of([*won, campaign(-1.0, 7, worst=-700.0)], Grouping.KIND)
    assert group.wins == 4
    assert group.wins_with_days == 3
    assert group.median_worst_of_wins == -10.0
    assert group.worst_of_wins == -50.0

    [none] = results_of([campaign(9.0)], Grouping.KIND)
    assert none.wins_with_days == 0
    assert none.median_worst_of_wins is none.worst_of_wins is None


def test_without_losses_there_is_no_profit_factor_and_without_wins_no_average_win():
    [won] = results_of([campaign(5.0)], Grouping.KIND)
    assert won.profit_factor is None
    assert won.average_loss is None
    assert won.win_rate == 1.0
    [lost] = results_of([campaign(-5.0)], Grouping.KIND)
    assert lost.profit_factor == 0.0
    assert lost.average_win is None
    assert lost.drawdown == 5.0


def test_currencies_are_groups_of_their_own():
    campaigns = [campaign(5.0), campaign(7.0, currency="EUR")]
    in_euros, in_dollars = results_of(campaigns, Grouping.UNDERLYING)
    assert in_euros.group == "SPY"
    assert in_euros.currency == "EUR"
    assert in_euros.profit == 7.0
    assert in_dollars.group == "SPY"
    assert in_dollars.currency == "USD"
    assert in_dollars.profit == 5.0


def test_one_unknown_profit_makes_each_sum_of_its_group_unknown_and_says_whose():
    [group] = results_of([campaign(5.0), campaign(None, 3)], Grouping.MONTH)
    assert group.group == "2026-03"
    assert group.number == 2
    assert group.unknown == 1
    sums = {name: value for name, value in group.row.items() if name not in ("group", "currency")}
    known = {name for name, value in sums.items() if value is not None}
    assert known == {"number", "fees", "unknown", "why_unknown"}
    assert group.why_unknown == "s:3: a fee"


def test_an_unknown_capital_leaves_the_return_alone_unknown():
    [group] = results_of([campaign(5.0, capital_at_risk=None)], Grouping.KIND)
    assert group.profit == 5.0
    assert group.return_on_risk is None
    assert group.why_unknown == "return: the capital at risk of a campaign is not known"


def test_an_unknown_fee_leaves_the_fees_unknown():
    [group] = results_of([campaign(None, fees=None), campaign(1.0)], Grouping.KIND)
    assert group.fees is None


def test_a_kind_that_is_not_known_is_a_group_without_a_name():
    vertical, unnamed = results_of([campaign(5.0, kind=None), campaign(7.0)], Grouping.KIND)
    assert vertical.group == "vertical"
    assert vertical.profit == 7.0
    assert unnamed.group is None
    assert unnamed.profit == 5.0


def test_days_have_the_profit_of_all_and_the_sum_of_what_was_realised():
    campaigns = [campaign(10.0, 2), campaign(-4.0, 3), campaign(None, 4), campaign(1.0, 5)]
    profits = [(date(2026, 3, 2), "USD", 6.5), (date(2026, 3, 6), "USD", None)]
    days = days_of(campaigns, profits)
    assert [day.day.day for day in days] == [2, 3, 4, 5, 6]
    assert [day.profit for day in days] == [6.5, None, None, None, None]
    assert [day.realised for day in days] == [10.0, -4.0, None, 1.0, 0.0]
    assert [day.total for day in days] == [10.0, 6.0, None, None, None]
    assert [day.drawdown for day in days] == [0.0, 4.0, None, None, None]
