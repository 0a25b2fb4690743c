"""The age of a value is that of its source's newest confirmation."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from position_sync_dagster.domain.streamed_holding import OUTSIDE_SESSION, confirmed_time
from position_sync_dagster.domain.update import Source, ValueOrigin
from position_sync_dagster.domain.valuation import Provenance, from_portfolio
from tests.support.holdings import make_holding

NOW = datetime(2026, 3, 4, 15, 30, tzinfo=UTC)


def ago(minutes):
    return NOW - timedelta(minutes=minutes)


HELD = make_holding(
    1, ago(20), position=2.0, market_price=1.5, market_value=300.0,
    value_source=ValueOrigin.PORTFOLIO, value_time=ago(20), confirmed_at=ago(20),
)  # fmt: skip
ROW = from_portfolio(HELD, source=Source.QUEUE, now=ago(1), by=Provenance())


def test_a_row_of_the_account_feed_is_as_old_as_its_value_and_not_as_its_writing():
    assert confirmed_time(ROW, None, NOW) == ago(20)
    assert confirmed_time(ROW, HELD, NOW) == ago(20)


def test_a_value_that_the_broker_confirmed_since_is_as_new_as_the_confirmation():
    old = replace(ROW, timestamp=ago(19))
    assert confirmed_time(old, replace(HELD, confirmed_at=ago(2)), NOW) == ago(2)
    other = replace(HELD, confirmed_at=ago(2), market_value=310.0)
    assert confirmed_time(old, other, NOW) == ago(20)


def test_that_there_is_no_value_is_confirmed_like_a_value():
    held = replace(
        HELD, value_source=ValueOrigin.NONE, value_time=None, market_price=None, market_value=None
    )
    row = from_portfolio(held, source=Source.QUEUE, now=ago(30), by=Provenance())
    assert confirmed_time(row, replace(held, confirmed_at=ago(2)), NOW) == ago(2)
    assert confirmed_time(row, held, NOW) == ago(20)
    assert confirmed_time(row, HELD, NOW) == ago(30)


def test_a_subscription_for_one_position_confirms_by_each_message():
    live = replace(HELD, value_source=ValueOrigin.PNL_SINGLE, received_at=ago(3))
    assert confirmed_time(ROW, live, NOW) == ago(3)


def test_a_row_by_such_a_subscription_is_as_old_as_its_message_once_the_value_has_moved():
    live = replace(HELD, value_source=ValueOrigin.PNL_SINGLE, value_time=None, received_at=ago(9))
    row = from_portfolio(live, source=Source.QUEUE, now=ago(1), by=Provenance())
    assert confirmed_time(row, replace(live, market_value=310.0, received_at=NOW), NOW) == ago(9)


@pytest.mark.parametrize(
    "row",
    [
        replace(ROW, value_source=ValueOrigin.TICK),
        replace(ROW, value_source=ValueOrigin.NONE, value_time=None),
        replace(ROW, position=0.0),
        replace(ROW, value_time=None),
    ],
)
def test_other_rows_are_as_old_as_they_say(row):
    assert confirmed_time(row, None, NOW) == ago(1)


def test_a_price_outside_the_session_is_as_new_as_the_confirmation_of_its_holding():
    row = replace(ROW, value_source=ValueOrigin.TICK, note=OUTSIDE_SESSION, timestamp=ago(50))
    assert confirmed_time(row, replace(HELD, confirmed_at=ago(2)), NOW) == ago(2)
    assert confirmed_time(row, replace(HELD, position=3.0, confirmed_at=ago(2)), NOW) == ago(50)
    assert confirmed_time(replace(row, note="why"), HELD, NOW) == ago(50)
    assert confirmed_time(row, None, NOW) == ago(50)


def test_a_time_in_the_future_makes_nothing_fresh():
    ahead = NOW + timedelta(hours=1)
    assert confirmed_time(ROW, replace(HELD, confirmed_at=ahead), NOW) == ago(20)
    assert confirmed_time(replace(ROW, value_time=None, timestamp=ahead), None, NOW) is None
