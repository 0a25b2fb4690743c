"""The age of a value is that of its source's newest confirmation."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from position_sync_dagster.domain.holding import Source, ValueOrigin
from position_sync_dagster.domain.valuation import OUTSIDE_SESSION, Provenance, from_portfolio
from position_sync_dagster.lake.schema import broker_rows, update_rows
from position_sync_dagster.sync.confirmations import CONFIRMED, with_confirmed
from tests.support.holdings import make_holding

NOW = datetime(2026, 3, 4, 15, 30, tzinfo=UTC)


def ago(minutes):
    return NOW - timedelta(minutes=minutes)


def confirmed_time(row, holding):
    holdings = broker_rows([holding] if holding else [], None)
    return with_confirmed(update_rows([row]), holdings, NOW).get_column(CONFIRMED).item()


HELD = make_holding(
    1, ago(20), position=2.0, market_price=1.5, market_value=300.0,
    value_source=ValueOrigin.PORTFOLIO, value_time=ago(20), confirmed_at=ago(20),
)  # fmt: skip
ROW = from_portfolio(HELD, source=Source.QUEUE, now=ago(1), by=Provenance())


def test_a_row_of_the_account_feed_is_as_old_as_its_value_and_not_as_its_writing():
    assert confirmed_time(ROW, None) == ago(20)
    assert confirmed_time(ROW, HELD) == ago(20)


def test_a_value_that_the_broker_confirmed_since_is_as_new_as_the_confirmation():
    old = replace(ROW, timestamp=ago(19))
    assert confirmed_time(old, replace(HELD, confirmed_at=ago(2))) == ago(2)
    other = replace(HELD, confirmed_at=ago(2), market_value=310.0)
    assert confirmed_time(old, other) == ago(20)


def test_that_there_is_no_value_is_confirmed_like_a_value():
    held = replace(
        HELD, value_source=ValueOrigin.NONE, value_time=None, market_price=None, market_value=None
    )
    row = from_portfolio(held, source=Source.QUEUE, now=ago(30), by=Provenance())
    assert confirmed_time(row, replace(held, confirmed_at=ago(2))) == ago(2)
    assert confirmed_time(row, held) == ago(20)
    assert confirmed_time(row, HELD) == ago(30)


def test_a_subscription_for_one_position_confirms_by_each_message():
    live = replace(HELD, value_source=ValueOrigin.PNL_SINGLE, received_at=ago(3))
    assert confirmed_time(ROW, live) == ago(3)


def test_a_row_by_such_a_subscription_is_as_old_as_its_message_once_the_value_has_moved():
    live = replace(HELD, value_source=ValueOrigin.PNL_SINGLE, value_time=None, received_at=ago(9))
    row = from_portfolio(live, source=Source.QUEUE, now=ago(1), by=Provenance())
    assert confirmed_time(row, replace(live, market_value=310.0, received_at=NOW)) == ago(9)


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
    assert confirmed_time(row, None) == ago(1)


def test_a_price_outside_the_session_is_as_new_as_the_confirmation_of_its_holding():
    row = replace(ROW, value_source=ValueOrigin.TICK, note=OUTSIDE_SESSION, timestamp=ago(50))
    assert confirmed_time(row, replace(HELD, confirmed_at=ago(2))) == ago(2)
    assert confirmed_time(row, replace(HELD, position=3.0, confirmed_at=ago(2))) == ago(50)
    assert confirmed_time(replace(row, note="why"), HELD) == ago(50)
    assert confirmed_time(row, None) == ago(50)


def test_a_row_of_a_source_that_is_not_known_is_confirmed_as_one_without_a_value():
    unknown = update_rows([replace(ROW, timestamp=ago(60), market_value=None)]).with_columns(
        value_source=pl.lit("NEW")
    )
    held = broker_rows([replace(HELD, confirmed_at=NOW, market_value=None)], None)
    assert with_confirmed(unknown, held, NOW).get_column(CONFIRMED).item() == NOW


def test_a_time_in_the_future_makes_nothing_fresh():
    ahead = NOW + timedelta(hours=1)
    assert confirmed_time(ROW, replace(HELD, confirmed_at=ahead)) == ago(20)
    assert confirmed_time(replace(ROW, value_time=None, timestamp=ahead), None) is None
