"""Legs of strategies: as a person writes them, which contract they mean, and their routes."""

from datetime import UTC, date, datetime

import pytest

from position_sync_dagster.domain.contract_match import (
    contract_mismatch,
    matching_contracts,
    problem_of,
)
from position_sync_dagster.domain.leg import LegState, route
from position_sync_dagster.errors import InvalidLegError
from position_sync_dagster.lake.given_leg import make_leg
from tests.support.contracts import contract_details
from tests.support.holdings import make_holding
from tests.support.legs import leg

NOW = datetime(2026, 3, 4, tzinfo=UTC)
GOOD = dict(
    conid=7, symbol="SPY", right="c", strike="450", expiry="20260220", strategy_id=12, added_at=NOW
)


def test_a_leg_reads_ibs_spellings():
    leg = make_leg(**GOOD)
    assert leg.right == "CALL"
    assert leg.strike == 450.0
    assert leg.expiry == date(2026, 2, 20)
    assert leg.strategy_id == "12"


@pytest.mark.parametrize("expiry", ["20260220", "2026-02-20", 20260220, date(2026, 2, 20)])
def test_an_expiry_is_read_in_each_spelling(expiry):
    assert make_leg(**GOOD | {"expiry": expiry}).expiry == date(2026, 2, 20)


@pytest.mark.parametrize("missing", ["right", "strike", "expiry"])
def test_an_option_has_right_strike_and_expiry(missing):
    with pytest.raises(InvalidLegError, match="only a part") as caught:
        make_leg(**GOOD | {missing: None})
    assert "all three" in caught.value.remedy


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("conid", 0, "conid 0"),
        ("conid", 2**31, "2147483648 is no contract id"),
        ("conid", "12x", "'12x'"),
        ("conid", 1.5, "1.5"),
        ("conid", True, "True"),
        ("right", "K", "'K'"),
        ("strike", "abc", "'abc'"),
        ("strike", "nan", "'nan'"),
        ("expiry", "20260230", "20260230"),
        ("expiry", "", "''"),
        pytest.param("expiry", -(10**5000), "thousands of digits", id="below every day"),
        ("symbol", " ", "no symbol"),
        ("strategy_id", "", "no strategy"),
        ("strategy_id", "UNATTRIBUTED", "what no strategy has"),
        ("strategy_id", " Unattributed ", "what no strategy has"),
        ("priority", 0, "priority 0"),
        ("quantity", 0, "quantity 0 "),
        ("quantity", "-0.0", "quantity '-0.0'"),
    ],
)
def test_bad_input_is_named_with_a_remedy(field, value, named):
    with pytest.raises(InvalidLegError) as caught:
        make_leg(**GOOD | {field: value})
    assert named in caught.value.what
    assert caught.value.remedy


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
    listed = contract_details(2, trading_class="SPXW", exchange="CBOE")
    assert matching_contracts(described(trading_class="SPXW"), [listed, MONTHLY]) == [listed]


def test_a_description_that_fits_several_contracts_chooses_none_and_names_them():
    leg = described()
    contracts = matching_contracts(leg, [MONTHLY, WEEKLY])
    assert contracts == [MONTHLY, WEEKLY]
    problem = problem_of(leg, contracts, contracts)
    assert problem.startswith("2 contracts are SPX 2026-02-20 5000 CALL: SPX   260220C05000000 (")
    assert "conid 1, class SPX, expiry 2026-02-20, exchange SMART, multiplier 100, USD)" in problem
    assert "conid 2, class SPXW" in problem


OTHER_TERMS = {
    "symbol": "SPY", "right": "P", "strike": 5005, "expiry": "20260221", "trading_class": "SPXQ",
    "multiplier": 10, "currency": "EUR", "sec_type": "FOP",
}  # fmt: skip
OTHERS = [{name: value} for name, value in OTHER_TERMS.items()]


@pytest.mark.parametrize("terms", [*OTHERS, {"right": None, "strike": None}])
def test_a_contract_that_differs_in_anything_given_is_not_the_one(terms):
    assert matching_contracts(described(**terms), [MONTHLY, WEEKLY]) == []


def test_a_day_soon_after_the_last_trade_is_not_certain_enough_to_choose_by():
    unsure = contract_details(1, expires_on=None)
    assert matching_contracts(described(), [unsure]) == []
    assert contract_mismatch(described(), unsure) is None


def test_where_nothing_fits_the_contracts_that_the_gateway_named_are():
    leg = described(strike=5002)
    others = [contract_details(n, strike=4900.0 + 10 * n) for n in range(1, 12)]
    problem = problem_of(leg, [], others)
    assert problem.startswith("The gateway knows no contract SPX 2026-02-20 5002 CALL, but ")
    assert "conid 8," in problem
    assert problem.endswith("and 3 more.")
    assert problem_of(leg, [], []) == "The gateway knows no contract SPX 2026-02-20 5002 CALL."


def held(conid, account, **more):
    return make_holding(conid, NOW, account=account, **more)


def test_each_holding_has_its_route():
    open_ones = [held(*key) for key in ((1, "A"), (1, "B"), (2, "A"), (2, "B"), (3, "A"))]
    holdings = [*open_ones, held(4, "A", position=0.0), held(5, "A", sec_type="BOND")]
    routes = route(holdings, [leg(1), leg(2, account="A")], frozenset({1}), sec_types=("OPT",))
    assert routes == {
        ("A", 1): LegState.STREAMED,
        ("B", 1): LegState.STREAMED,
        ("A", 2): LegState.OVERFLOW,
        ("B", 2): LegState.MONITORED,
        ("A", 3): LegState.MONITORED,
        ("A", 4): LegState.CLOSED,
    }
