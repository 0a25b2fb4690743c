"""Which contract a leg means: that of its conid, or the one that its description fits."""

from datetime import UTC, date, datetime

import pytest

from position_sync_dagster.domain.leg import (
    contract_mismatch,
    make_leg,
    matching_contracts,
    problem_of,
)
from tests.support.contracts import contract_details

NOW = datetime(2026, 1, 2, tzinfo=UTC)
WEEKLY = contract_details(
    2, trading_class="SPXW", local_symbol="SPXW  260220C05000000", last_trade_date=date(2026, 2, 20)
)
MONTHLY = contract_details(1)


def described(**more):
    terms = {"symbol": "SPX", "right": "C", "strike": 5000, "expiry": "20260220"}
    return make_leg(strategy_id="s", added_at=NOW, **terms | more)


@pytest.mark.parametrize(
    ("expiry", "expires_on", "agrees"),
    [
        ("20260219", None, True),
        ("20260220", None, True),
        ("20260227", None, False),
        ("20260220", date(2026, 2, 20), True),
        ("20260223", date(2026, 2, 20), False),
    ],
)
def test_a_leg_may_name_the_last_trade_or_the_expiry_of_its_contract(expiry, expires_on, agrees):
    leg = described(conid=1, expiry=expiry)
    details = contract_details(expires_on=expires_on)
    assert (contract_mismatch(leg, details) is None) is agrees


def test_a_description_that_fits_one_contract_finds_it_at_whichever_venue_it_was_listed():
    twice = contract_details(2, trading_class="SPXW", exchange="CBOE")
    assert matching_contracts(described(trading_class="SPXW"), [twice, MONTHLY, twice]) == [twice]


def test_a_description_that_fits_several_contracts_chooses_none_and_names_them():
    leg = described()
    found = matching_contracts(leg, [MONTHLY, WEEKLY])
    assert found == [MONTHLY, WEEKLY]
    problem = problem_of(leg, found)
    assert problem.startswith("2 contracts are SPX 2026-02-20 5000 CALL: SPX   260220C05000000 (")
    assert "conid 1, class SPX, expiry 2026-02-20, exchange SMART, multiplier 100, USD)" in problem
    assert "conid 2, class SPXW" in problem


@pytest.mark.parametrize(
    "terms",
    [
        {"symbol": "SPY"},
        {"right": "P"},
        {"strike": 5005},
        {"expiry": "20260221"},
        {"trading_class": "SPXQ"},
        {"multiplier": 10},
        {"currency": "EUR"},
        {"sec_type": "FOP"},
        {"right": None, "strike": None},
    ],
)
def test_a_contract_that_differs_in_anything_given_is_not_the_one(terms):
    assert matching_contracts(described(**terms), [MONTHLY, WEEKLY]) == []


def test_a_day_soon_after_the_last_trade_is_not_certain_enough_to_choose_by():
    unsure = contract_details(1, expires_on=None)
    assert matching_contracts(described(), [unsure]) == []
    assert contract_mismatch(described(), unsure) is None


def test_where_nothing_fits_the_nearest_contracts_are_named():
    leg = described(strike=5002)
    near = [contract_details(n, strike=4900.0 + 10 * n) for n in range(1, 12)]
    problem = problem_of(leg, [], near)
    assert problem.startswith("The gateway knows no contract SPX 2026-02-20 5002 CALL. Near it: ")
    assert problem.index("conid 10,") < problem.index("conid 11,") < problem.index("conid 9,")
    assert problem.endswith("and 3 more.")
    assert problem_of(leg, []).endswith("and none like it.")
