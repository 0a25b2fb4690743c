"""How campaigns stood at the ends of their days, against sums by hand."""

from dataclasses import fields, replace
from datetime import date

import polars as pl
import pytest

from position_sync_dagster.domain.leg import UNATTRIBUTED
from position_sync_dagster.money.campaigns.campaign_days import (
    CAUSES,
    ExplainedDays,
    path_of,
    with_days,
)
from position_sync_dagster.money.campaigns.closed_campaign import (
    CampaignColumns,
    CampaignEnd,
    ClosedCampaign,
)
from position_sync_dagster.money.campaigns.open_campaigns import OpenCampaign
from position_sync_dagster.money.tables import PROFIT_EXPLAINED

DAYS = [date(2026, 3, day) for day in (2, 3, 4, 5, 6)]
COLUMNS = ("session_date", "strategy_id", "account", "currency", "profit", *CAUSES)

# It falls to -300, rises to 500 and ends at 397.
PROFITS = (-100.0, -200.0, 800.0, -103.0)

CAMPAIGN = ClosedCampaign(
    campaign_id="csp:U1:2026-03-02", strategy_id="csp", currency="USD", underlying="SPY",
    kind="short-put", closed=DAYS[3], profit=397.0, fees=3.0, capital_at_risk=9000.0,
    profit_unknown=None, account="U1", opened=DAYS[0], days=3, ended=CampaignEnd.CLOSED, legs=1,
    contracts="SPY", conids="1", rolls=0, premium_received=None, premium_paid=None,
    return_on_risk=None, why_unknown=None,
)  # fmt: skip


def explained(profits=PROFITS, strategy="csp", currency="USD", theta=10.0, account="U1"):
    """Return a row for each of the first days."""
    rows = [
        (day, strategy, account, currency, profit, 1.0, 2.0, 3.0, theta, 5.0)
        for day, profit in zip(DAYS, profits, strict=False)
    ]
    schema = {name: PROFIT_EXPLAINED.polars[name] for name in COLUMNS}
    return pl.DataFrame(rows, schema, orient="row")


def told(*frames, campaign=CAMPAIGN):
    return with_days(campaign, ExplainedDays.of(pl.concat(frames), DAYS))


def test_worst_and_best_are_the_extremes_of_the_sum_of_the_days():
    campaign = told(explained(), explained((9.0,) * 4, "other"), explained((9.0,), currency="EUR"))
    assert campaign.worst == -300.0
    assert campaign.best == 500.0
    assert [getattr(campaign, name) for name in CAUSES] == [4.0, 8.0, 12.0, 40.0, 20.0]
    assert campaign.why_unknown is None


def test_a_campaign_that_only_won_was_never_below_the_end_of_its_first_day():
    campaign = told(explained((100.0, 297.0, 0.0, 0.0)))
    assert campaign.worst == 100.0
    assert campaign.best == 397.0


def test_the_next_campaign_of_a_strategy_has_days_of_its_own():
    rows = explained((*PROFITS, 7.0))
    assert told(rows).best == 500.0
    later = replace(CAMPAIGN, opened=DAYS[4], closed=DAYS[4], profit=7.0)
    of_later = told(rows, campaign=later)
    assert of_later.worst == 7.0
    assert of_later.best == 7.0


def test_a_recorded_day_on_which_it_had_nothing_changes_nothing():
    beside = explained((1.0,) * 4, UNATTRIBUTED)
    rows = explained((-100.0, 0.0, 600.0, -103.0)).filter(pl.col.session_date != DAYS[1])
    of_all = told(rows, beside)
    assert of_all.worst == -100.0
    assert of_all.best == 500.0


@pytest.mark.parametrize(
    ("rows", "changed", "why"),
    [
        (explained((-100.0, None, 800.0, -103.0)), {}, "1 of its 4 days have no recorded profit"),
        (explained(PROFITS[:2]), {}, "2 of its 4 days have no recorded profit"),
        (explained()[:0], {}, "4 of its 4 days have no recorded profit"),
        (explained(), {"profit": 427.0}, "its days add up to 397.00, which is not its profit"),
        (explained(), {"profit": None}, "its profit is not known"),
        (explained(), {"opened": None}, "it was held before all movements"),
    ],
)
def test_it_is_null_and_says_why(rows, changed, why):
    before = replace(CAMPAIGN, why_unknown="kind: it has none", **changed)
    campaign = told(rows, campaign=before)
    assert {getattr(campaign, name) for name in ("worst", "best", *CAUSES)} == {None}
    assert campaign.why_unknown == f"kind: it has none; worst, best, {', '.join(CAUSES)}: {why}"


def test_what_a_structure_of_no_strategy_earned_from_is_not_known():
    campaign = told(
        explained(strategy=UNATTRIBUTED), campaign=replace(CAMPAIGN, strategy_id=UNATTRIBUTED)
    )
    assert {getattr(campaign, name) for name in CAUSES} == {None}
    why = "the days of what is in no strategy are not divided"
    assert campaign.why_unknown == f"{', '.join(CAUSES)}: {why}"


def test_a_day_without_a_greek_leaves_that_sum_unknown_alone():
    campaign = told(explained(theta=None))
    assert campaign.worst == -300.0
    assert campaign.theta is None
    assert campaign.vega == 12.0
    assert campaign.why_unknown == "theta: 4 of its 4 days have no recorded greeks"


def test_the_days_of_a_campaign_that_went_to_another_account_are_those_of_both():
    """On the third day it goes: 500 of a value that is above the mark by 50 leave, and come."""
    in_source = explained((-100.0, -200.0, 850.0))
    in_target = explained((0.0, 0.0, -50.0, -103.0), account="U2")
    moved = replace(CAMPAIGN, account="U1,U2")
    days = ExplainedDays.of(pl.concat([in_source, in_target[2:]]), DAYS)
    campaign = with_days(moved, days)
    assert campaign.worst == -300.0
    assert campaign.best == 500.0
    assert campaign.theta == 50.0
    assert [day.stands for day in path_of(moved, days)] == [-100.0, -300.0, 500.0, 397.0]


def so_far(*stays):
    """Return a campaign of two accounts that is open; it was in them at these times."""
    columns = {field.name: getattr(CAMPAIGN, field.name) for field in fields(CampaignColumns)}
    return OpenCampaign(**columns | {"account": "U1,U2"}, brought=-100.0, stays=stays)


def test_of_an_open_one_each_account_that_had_something_has_to_be_recorded():
    in_both = so_far(("U1", DAYS[0], date.max), ("U2", DAYS[0], date.max))
    in_target = explained((0.0, 0.0, -50.0, -103.0), account="U2")
    both = ExplainedDays.of(pl.concat([explained(), in_target]), DAYS[:4])
    assert with_days(in_both, both).stands == 397.0 - 153.0
    without_a_day = ExplainedDays.of(pl.concat([explained(), in_target[:3]]), DAYS[:4])
    told_of = with_days(in_both, without_a_day)
    assert told_of.stands is None
    assert "1 of its 4 days have no recorded profit" in str(told_of.why_unknown)


@pytest.mark.parametrize(
    ("came", "path"),
    [(DAYS[2], (-100.0, -300.0, -350.0, -453.0)), (DAYS[3], (-100.0, -300.0, -403.0))],
)
def test_an_account_in_which_an_open_one_had_nothing_adds_nothing(came, path):
    """All of it goes on the second day; it comes on the third, or is on the way then."""
    stays = (("U1", *DAYS[:2]), ("U2", came, date.max))
    in_target = explained((0.0, 0.0, -50.0, -103.0), account="U2")
    in_target = in_target.filter(pl.col.session_date >= came)
    rows = ExplainedDays.of(pl.concat([explained()[:2], in_target]), DAYS[:4])
    campaign = with_days(so_far(*stays), rows)
    assert campaign.path == path
    assert campaign.stands == path[-1]
    assert campaign.until == DAYS[3]
    assert campaign.why_unknown is None
