"""Which computed greeks are worth a row in `broker_positions`."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from position_sync_dagster.domain.holding import HoldingGreeks
from position_sync_dagster.sync.stream.model_greeks import PublishedGreeks
from tests.support.holdings import make_holding

NOW = datetime(2028, 6, 1, 14, 0, tzinfo=UTC)
HOLDING = make_holding(7, NOW, position=2.0)
GREEKS = HoldingGreeks(
    implied_vol=0.3, delta=-0.4, gamma=0.02, vega=0.2, theta=-0.03, underlying_price=450.0,
    greeks_time=NOW, greeks_method="AMERICAN, rate 0.04", volatility_time=NOW,
)  # fmt: skip


def later(seconds=0.0, **changes):
    at = NOW + timedelta(seconds=seconds)
    return replace(GREEKS, greeks_time=at, volatility_time=at, **changes)


@pytest.fixture
def published():
    found = PublishedGreeks()
    found.take(7, GREEKS)
    return found


@pytest.mark.parametrize(
    ("result", "is_news"),
    [
        (later(9.0), False),
        (later(1.0, delta=-0.404, gamma=0.0203), False),
        (later(1.0, delta=-0.406), True),
        (later(1.0, gamma=0.021), True),
        (later(1.0, theta=-0.032), True),
        (later(10.0), True),
        (later(1.0, greeks_method="AMERICAN, rate 0.05"), True),
        (None, True),
    ],
)
def test_a_result_is_published_when_it_says_more(published, result, is_news):
    changes = published.changes
    changes.take()
    published.take(7, result)
    assert (changes.take() == {7}) is is_news
    assert published.of(HOLDING) is (result if is_news else GREEKS)
    assert published.of(replace(HOLDING, position=0.0)) is None


def test_greeks_from_before_the_clock_was_set_back_are_replaced(published):
    published.take(7, later(-3600.0))
    assert published.of(HOLDING).greeks_time == NOW - timedelta(hours=1)


def test_greeks_that_are_not_known_any_more_are_published_once_as_unknown(published):
    published.take(7, None)
    assert published.of(HOLDING) is None
    changes = published.changes
    changes.take()
    published.take(7, None)
    assert not changes
