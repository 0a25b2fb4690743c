"""Which computed greeks are worth a row in `broker_positions`."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from position_sync_dagster.domain.instrument import Right
from position_sync_dagster.risk.account import ModelledGreeks, NoGreeks
from position_sync_dagster.risk.model import Exercise
from position_sync_dagster.risk.terms import DatedDividend, OptionTerms
from position_sync_dagster.sync.stream.model_greeks import ModelledLeg, PublishedGreeks
from tests.support.holdings import make_holding

NOW = datetime(2028, 6, 1, 14, 0, tzinfo=UTC)
TERMS = OptionTerms(
    right=Right.PUT, strike=100.0, expires_at=NOW + timedelta(days=90),
    exercise=Exercise.AMERICAN, rate=0.04,
)  # fmt: skip
PAID = (DatedDividend(ex_date=NOW + timedelta(days=9), share=0.01),)
GREEKS = ModelledGreeks(
    implied_vol=0.3, delta=-0.4, gamma=0.02, vega=0.2, theta=-0.03, underlying_price=4.5
)
HOLDING = make_holding(7, NOW, position=2.0)


def leg(seconds=0.0, terms=TERMS, reason=None, **changes):
    at = NOW + timedelta(seconds=seconds)
    greeks = None if reason else replace(GREEKS, **changes)
    return ModelledLeg(
        conid=7,
        terms=terms,
        underlying=1,
        greeks=greeks,
        reason=reason,
        value_at=at,
        underlying_at=at,
    )


@pytest.fixture
def published():
    found = PublishedGreeks()
    found.take(leg(), price_magnifier=100)
    return found


def test_greeks_have_the_price_of_the_underlying_as_quoted_and_their_times(published):
    found = published.of(HOLDING)
    assert (found.delta, found.underlying_price) == (-0.4, 450.0)
    assert (found.greeks_time, found.volatility_time) == (NOW, NOW)
    assert found.greeks_method == "AMERICAN, rate 0.04, dividends unknown: none assumed"
    assert published.of(replace(HOLDING, position=0.0)) is None


@pytest.mark.parametrize(
    ("result", "is_news"),
    [
        (leg(9.0), False),
        (leg(1.0, delta=-0.404, gamma=0.0203), False),
        (leg(1.0, delta=-0.406), True),
        (leg(1.0, gamma=0.021), True),
        (leg(1.0, theta=-0.032), True),
        (leg(10.0), True),
        (
            leg(
                1.0,
                terms=replace(
                    TERMS, dividends=(DatedDividend(ex_date=NOW + timedelta(days=9), share=0.01),)
                ),
            ),
            True,
        ),
        (leg(1.0, reason=NoGreeks.UNDERLYING_OLD), True),
    ],
)
def test_a_result_is_published_when_it_says_more(published, result, is_news):
    changes = published.watch()
    published.take(result, price_magnifier=100)
    assert (changes.take() == {7}) is is_news


def test_greeks_from_before_the_clock_was_set_back_are_replaced(published):
    published.take(leg(-3600.0), price_magnifier=100)
    assert published.of(HOLDING).greeks_time == NOW - timedelta(hours=1)


def test_greeks_that_are_not_known_any_more_are_published_once_as_unknown(published):
    published.take(leg(1.0, reason=NoGreeks.UNDERLYING_OLD), price_magnifier=100)
    assert published.of(HOLDING) is None
    changes = published.watch()
    published.take(leg(2.0, reason=NoGreeks.UNDERLYING_OLD), price_magnifier=100)
    assert not changes
