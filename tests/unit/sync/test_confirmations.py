"""How old a row and its price are."""

from dataclasses import replace
from datetime import datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from position_sync_dagster.domain.holding import BrokerPosition
from position_sync_dagster.domain.position_update import (
    PositionUpdate,
    PriceKind,
    Source,
    ValueOrigin,
)
from position_sync_dagster.domain.streamed_holding import allowed_difference
from position_sync_dagster.domain.valuation import (
    OUTSIDE_SESSION,
    Provenance,
    from_portfolio,
)
from position_sync_dagster.lake.schema import rows_of_positions, update_rows
from position_sync_dagster.sync.confirmations import (
    CONFIRMED,
    PRICED,
    with_confirmed,
    with_priced,
)
from tests.support.extent import examples
from tests.support.holdings import make_holding
from tests.support.spy_rows import NOW, row


def ago(minutes: float = 0.0, *, s: float = 0.0) -> datetime:
    return NOW - timedelta(minutes=minutes, seconds=s)


def confirmed_time(row, holding):
    holdings = rows_of_positions([holding] if holding else [], None)
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
    held = rows_of_positions([replace(HELD, confirmed_at=NOW, market_value=None)], None)
    assert with_confirmed(unknown, held, NOW).get_column(CONFIRMED).item() == NOW


def test_a_time_in_the_future_makes_nothing_fresh():
    ahead = NOW + timedelta(hours=1)
    assert confirmed_time(ROW, replace(HELD, confirmed_at=ahead)) is None
    assert confirmed_time(replace(ROW, value_time=None, timestamp=ahead), None) is None
    assert priced_at(QUOTED, replace(AT_BROKER, received_at=ahead)) is None


# A mark that came 50 s seconds_ago, in a row that greeks caused to be written a second seconds_ago.
QUOTED = row(
    1, market_price=4.0, market_value=-800.0, bid=3.95, ask=4.05, price_kind=PriceKind.MARK,
    value_source=ValueOrigin.TICK, timestamp=ago(s=1), value_time=ago(s=50),
)  # fmt: skip

AT_BROKER = make_holding(
    1, ago(s=2), account=QUOTED.account, position=-2.0, market_value=-801.0,
    value_source=ValueOrigin.PNL_SINGLE, confirmed_at=ago(s=2), position_time=ago(s=900),
)  # fmt: skip


def priced_at(update: PositionUpdate, *held: BrokerPosition) -> datetime | None:
    found = with_priced(update_rows([update]), rows_of_positions(held, None), NOW)
    return found.item(0, PRICED)


def test_greeks_that_tick_on_make_no_dead_mark_fresh():
    assert priced_at(QUOTED) == ago(s=50)


def test_a_quiet_price_is_confirmed_by_a_newer_value_of_the_broker_that_agrees():
    assert priced_at(QUOTED, AT_BROKER) == ago(s=2)


@pytest.mark.parametrize(
    "other",
    [
        replace(AT_BROKER, market_value=-2400.0),
        replace(AT_BROKER, market_value=None),
        replace(AT_BROKER, position=-3.0),
        replace(AT_BROKER, received_at=ago(s=60)),
        replace(AT_BROKER, value_source=ValueOrigin.NONE),
        # A portfolio row without a time may be three minutes old when it arrives.
        replace(AT_BROKER, value_source=ValueOrigin.PORTFOLIO),
    ],
)
def test_no_other_value_of_the_broker_confirms_a_price(other):
    assert priced_at(QUOTED, other) == ago(s=50)


@pytest.mark.parametrize(("factor", "since"), [(1.029, ago(s=2)), (1.031, ago(s=50))])
def test_without_a_quote_a_price_is_confirmed_within_three_hundredths_of_the_value(factor, since):
    update = replace(QUOTED, bid=None, ask=None)
    broker = replace(AT_BROKER, market_value=factor * update.market_value)
    assert priced_at(update, broker) == since


def test_a_portfolio_row_of_a_later_time_confirms_a_price_until_the_account_was_confirmed():
    row_at_broker = replace(
        AT_BROKER, value_source=ValueOrigin.PORTFOLIO, value_time=ago(s=30), confirmed_at=ago(s=5)
    )
    assert priced_at(QUOTED, row_at_broker) == ago(s=5)
    assert priced_at(QUOTED, replace(row_at_broker, confirmed_at=None)) == ago(s=30)


def test_a_message_of_the_account_confirms_no_price_by_a_value_of_the_profit_subscription():
    assert priced_at(QUOTED, replace(AT_BROKER, received_at=ago(s=30))) == ago(s=30)


@pytest.mark.parametrize("kind", [2, 3, 4])
def test_a_price_of_delayed_or_frozen_data_has_no_age_of_its_own(kind):
    delayed = replace(QUOTED, market_data_type=kind, value_time=None)
    assert priced_at(delayed) is None
    assert priced_at(delayed, AT_BROKER) == ago(s=2)
    assert priced_at(replace(delayed, value_time=ago(s=1200))) == ago(s=1200)  # a last trade


def test_a_value_of_the_broker_is_as_old_as_its_confirmation():
    queued = replace(
        QUOTED, value_source=ValueOrigin.PORTFOLIO, market_value=-801.0, market_price=None
    )
    assert priced_at(queued) == ago(s=50)
    assert priced_at(queued, AT_BROKER) == ago(s=2)


@given(
    own=st.floats(-1e6, 1e6),
    price=st.floats(0.01, 500),
    bid=st.none() | st.floats(0, 500),
    ask=st.none() | st.floats(0, 500),
    min_tick=st.none() | st.sampled_from((0.01, 0.05, 0.25)),
    part=st.floats(-2, 2),
)
@settings(max_examples=examples(200), deadline=None)
def test_the_broker_agrees_within_what_the_stream_allows(own, price, bid, ask, min_tick, part):
    """A row has no smallest change of its price; that says more only without a usual quote."""
    update = replace(QUOTED, market_price=price, market_value=own, bid=bid, ask=ask)
    unit = abs(own / price)
    allowed = allowed_difference(own, bid=bid, ask=ask, unit=unit, min_tick=min_tick)
    broker = own + part * allowed
    if abs(abs(own - broker) - allowed) > 1e-9 * max(1.0, allowed):  # not on the very edge
        found = priced_at(update, replace(AT_BROKER, market_value=broker))
        stream_agrees = abs(own - broker) <= allowed
        if ask is not None and ask - (bid or 0.0) >= (min_tick or 0.0):
            assert found == (ago(s=2) if stream_agrees else ago(s=50))
        elif not stream_agrees:
            assert found == ago(s=50), "fresh, and the stream does not agree"
