"""What a contract is priced as, or why it is not, and the dividends that are assumed."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from position_sync_dagster.domain.instrument import Instrument, Right
from position_sync_dagster.money.risk import terms as risk_terms
from position_sync_dagster.money.risk.model import Exercise
from position_sync_dagster.money.risk.terms import (
    ExerciseTerms,
    NotPriced,
    OptionTerms,
    dividends_stated,
    option_terms,
)
from tests.support.contracts import contract_details

NOW = datetime(2026, 3, 9, 15, 0, tzinfo=UTC)
EXPIRY = date(2026, 6, 19)
RATES = {"USD": 0.04}


def terms(under: str = "STK", sec_type: str = "OPT", **values: Any) -> ExerciseTerms | NotPriced:
    usual: dict[str, Any] = {
        "symbol": "SPY", "currency": "USD", "right": "CALL", "strike": 600.0, "expiry": EXPIRY,
        "trading_class": "SPY",
    }  # fmt: skip
    contract = Instrument(conid=1, sec_type=sec_type, **usual | values)
    details = contract_details(
        1, symbol=contract.symbol, trading_class=contract.trading_class, sec_type=sec_type,
        under_sec_type=under, last_trade_date=EXPIRY, expires_on=EXPIRY, last_trade_time="15:00:00",
    )  # fmt: skip
    return option_terms(contract, details, RATES)


@pytest.mark.parametrize(
    ("given", "exercise"),
    [
        ({}, Exercise.AMERICAN),
        ({"under": "IND", "symbol": "SPX", "trading_class": "SPXW"}, Exercise.EUROPEAN),
        ({"under": "FUT", "sec_type": "FOP", "symbol": "ES"}, Exercise.FUTURE),
        ({"under": "IND", "symbol": "VIX", "trading_class": "VIXW"}, Exercise.EUROPEAN_FUTURE),
        ({"symbol": "BRK B", "trading_class": "BRKB"}, Exercise.AMERICAN),
    ],
)
def test_an_option_is_priced_as_what_it_is(given: dict[str, Any], exercise: Exercise) -> None:
    option_terms = terms(**given)
    assert isinstance(option_terms, OptionTerms)
    assert option_terms.exercise is exercise


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"symbol": "LCID", "trading_class": "LCID1"}, NotPriced.ADJUSTED),
        ({"symbol": "LCID", "trading_class": "LCIQ"}, NotPriced.ADJUSTED),
        ({"under": "CASH"}, NotPriced.OTHER_PAYOFF),
        ({"sec_type": "WAR"}, NotPriced.OTHER_PAYOFF),
        ({"strike": 0.0, "right": None}, None),
    ],
)
def test_what_the_model_does_not_fit_has_a_reason(given, reason) -> None:
    option_terms = terms(**given)
    assert option_terms is reason or (reason is None and isinstance(option_terms, OptionTerms))


def test_without_a_rate_it_is_known_what_an_option_delivers_and_no_more() -> None:
    option_terms = terms(currency="SEK")
    assert isinstance(option_terms, ExerciseTerms)
    assert not isinstance(option_terms, OptionTerms)


def test_a_class_of_another_exchange_may_have_a_name_of_its_own() -> None:
    option = Instrument(
        conid=1, sec_type="OPT", symbol="700", currency="USD", right=Right.PUT, strike=300.0,
        expiry=EXPIRY, trading_class="TCH",
    )  # fmt: skip
    assert option_terms(option, None, RATES) is NotPriced.ADJUSTED
    in_hong_kong = replace(option, currency="HKD")
    terms = option_terms(in_hong_kong, None, {"HKD": 0.03}, magnifier=1.0)
    assert isinstance(terms, OptionTerms)


def test_a_strike_in_pence_is_in_pounds_only_where_its_unit_is_known() -> None:
    option = Instrument(
        conid=1, sec_type="OPT", symbol="VOD", currency="GBP", right=Right.CALL, strike=240.0,
        expiry=EXPIRY, trading_class="VOD",
    )  # fmt: skip
    assert option_terms(option, None, {"GBP": 0.04}) is NotPriced.NO_UNIT
    terms = option_terms(option, None, {"GBP": 0.04}, magnifier=100.0)
    assert isinstance(terms, OptionTerms)
    assert terms.strike == 2.4


def test_the_parts_of_the_price_until_expiries_give_dividends_between_them() -> None:
    known = [(NOW + timedelta(days=days), share) for days, share in ((30, 0.0), (60, 0.004))]
    dividends_of_shares = risk_terms.dividends_of_shares(known, NOW)
    assert dividends_of_shares[0].share == pytest.approx(0.004)
    assert NOW + timedelta(days=30) < dividends_of_shares[0].ex_date < NOW + timedelta(days=60)
    gaps = {later.ex_date - dividend.ex_date for dividend, later in pairwise(dividends_of_shares)}
    assert gaps == {timedelta(days=365 / 4)}
    assert risk_terms.dividends_of_shares([(NOW + timedelta(days=90), 0.0)], NOW) == ()


def test_a_stated_dividend_is_paid_again_as_often_as_the_sum_of_a_year_says() -> None:
    found = dividends_stated(NOW + timedelta(days=9), 1.75, 7.0)
    assert {dividend.amount for dividend in found} == {1.75}
    assert found[1].ex_date - found[0].ex_date == timedelta(days=365 / 4)
    assert len(dividends_stated(NOW, 1.75, None)) == 1
    assert dividends_stated(NOW, 0.0, 7.0) == ()
