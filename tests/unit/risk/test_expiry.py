"""What expires and what it leaves, and which short options may be assigned early."""

from dataclasses import replace
from datetime import timedelta

import pytest

from position_sync_dagster.risk.scenarios import early_assignments, expiries
from position_sync_dagster.risk.terms import DatedDividend
from tests.support.contracts import contract_details
from tests.unit.risk.test_scenarios import EXPIRY, NOW, option, priced, share

SHORT_CALL = option(
    21, symbol="IWM", right="CALL", strike=200.0, underlying_price=210.0, position=-3.0,
    market_price=10.4, market_value=-3 * 1040.0,
)  # fmt: skip
COVER = share(22, symbol="IWM", position=200.0, market_price=210.0, market_value=42_000.0)


def test_a_short_call_in_the_money_takes_shares_and_is_uncovered_beyond_those_held():
    (found,) = expiries(priced([SHORT_CALL, COVER]), until=EXPIRY)
    assert (found["units"], found["cash"], found["is_uncovered"]) == (-300.0, 60_000.0, True)
    covered = replace(SHORT_CALL, position=-2.0, market_value=-2080.0)
    (found,) = expiries(priced([covered, COVER]), until=EXPIRY)
    assert (found["units"], found["is_uncovered"], found["is_pinned"]) == (-200.0, False, False)
    assert expiries(priced([SHORT_CALL]), until=EXPIRY - timedelta(days=1)) == []


def test_an_option_near_its_strike_is_pinned_and_one_on_an_index_is_settled_in_cash():
    near = replace(SHORT_CALL, underlying_price=200.9)
    (found,) = expiries(priced([near]), until=EXPIRY)
    assert found["is_pinned"]
    days = {"last_trade_date": EXPIRY - timedelta(days=1), "expires_on": EXPIRY}
    index = contract_details(21, symbol="IWM", under_sec_type="IND", strike=200.0, **days)
    (found,) = expiries(priced([SHORT_CALL], details={21: index}), until=EXPIRY)
    assert (found["units"], found["cash"]) == (0.0, pytest.approx(-3000.0))
    assert (found["is_cash_settled"], found["is_in_the_morning"]) == (True, True)


def test_a_short_call_worth_less_above_its_exercise_than_the_dividend_may_be_assigned():
    def found(amount: float):
        paid = [DatedDividend(ex_date=NOW + timedelta(days=1), amount=amount)]
        return early_assignments(priced([SHORT_CALL], dividends={"IWM": paid}))

    assert [(one["conid"], one["gain"]) for one in found(1.5)] == [(21, 1.5)]
    assert found(0.3) == []
    assert early_assignments(priced([SHORT_CALL])) == []  # no dividend is known


def test_a_short_put_deep_in_the_money_may_be_assigned_for_the_interest():
    put = replace(
        SHORT_CALL, right="PUT", strike=300.0, market_price=90.2, market_value=-3 * 9020.0
    )
    (found,) = early_assignments(priced([put]))
    assert found["extrinsic"] == pytest.approx(0.2)
    assert found["gain"] > 3
