"""The age of a price is the time since it arrived, or since the broker confirmed it."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from position_sync_dagster.domain.holding import (
    BrokerPosition,
    PositionUpdate,
    PriceKind,
    ValueOrigin,
)
from position_sync_dagster.domain.instrument import Instrument, Quote
from position_sync_dagster.domain.valuation import allowed_difference
from position_sync_dagster.lake.schema import broker_rows, update_rows
from position_sync_dagster.sync.confirmations import PRICED, with_priced
from tests.support.extent import examples
from tests.support.money_rows import NOW, row

BAND = 0.03


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


# A mark that came 50 s ago, in a row that greeks caused to be written a second ago.
STREAMED = row(
    1, market_price=4.0, market_value=-800.0, bid=3.95, ask=4.05, price_kind=PriceKind.MARK,
    value_source=ValueOrigin.TICK, timestamp=ago(1), value_time=ago(50),
)  # fmt: skip

AT_BROKER = BrokerPosition(
    gateway_id="g", account=STREAMED.account, position=-2.0, market_value=-801.0,
    value_source=ValueOrigin.PNL_SINGLE, received_at=ago(2), confirmed_at=ago(2),
    position_time=ago(900), snapshot_id="s",
    instrument=Instrument(conid=1, symbol="SPY", sec_type="OPT", currency="USD"),
)  # fmt: skip


def priced_at(update: PositionUpdate, *held: BrokerPosition) -> datetime | None:
    found = with_priced(update_rows([update]), broker_rows(held, None), NOW, band=BAND)
    return found.item(0, PRICED)


def test_greeks_that_tick_on_make_no_dead_mark_fresh():
    assert priced_at(STREAMED) == ago(50)


def test_a_quiet_price_is_confirmed_by_a_newer_value_of_the_broker_that_agrees():
    assert priced_at(STREAMED, AT_BROKER) == ago(2)


@pytest.mark.parametrize(
    "other",
    [
        replace(AT_BROKER, market_value=-2400.0),
        replace(AT_BROKER, market_value=None),
        replace(AT_BROKER, position=-3.0),
        replace(AT_BROKER, received_at=ago(60)),
        replace(AT_BROKER, value_source=ValueOrigin.NONE),
        # A portfolio row without a time may be three minutes old when it arrives.
        replace(AT_BROKER, value_source=ValueOrigin.PORTFOLIO),
        replace(AT_BROKER, received_at=NOW + timedelta(hours=1), confirmed_at=None),
    ],
)
def test_no_other_value_of_the_broker_confirms_a_price(other):
    assert priced_at(STREAMED, other) == ago(50)


def test_a_portfolio_row_of_a_later_time_confirms_a_price_until_the_account_was_confirmed():
    row_at_broker = replace(
        AT_BROKER, value_source=ValueOrigin.PORTFOLIO, value_time=ago(30), confirmed_at=ago(5)
    )
    assert priced_at(STREAMED, row_at_broker) == ago(5)
    assert priced_at(STREAMED, replace(row_at_broker, confirmed_at=None)) == ago(30)


def test_a_message_of_the_account_confirms_no_price_by_a_value_of_the_profit_subscription():
    assert priced_at(STREAMED, replace(AT_BROKER, received_at=ago(30))) == ago(30)


@pytest.mark.parametrize("kind", [2, 3, 4])
def test_a_price_of_delayed_or_frozen_data_has_no_age_of_its_own(kind):
    delayed = replace(STREAMED, market_data_type=kind, value_time=None)
    assert priced_at(delayed) is None
    assert priced_at(delayed, AT_BROKER) == ago(2)
    assert priced_at(replace(delayed, value_time=ago(1200))) == ago(1200)  # a last trade


def test_a_value_of_the_broker_is_as_old_as_its_confirmation():
    queued = replace(
        STREAMED, value_source=ValueOrigin.PORTFOLIO, market_value=-801.0, market_price=None
    )
    assert priced_at(queued) == ago(50)
    assert priced_at(queued, AT_BROKER) == ago(2)


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
    update = replace(STREAMED, market_price=price, market_value=own, bid=bid, ask=ask)
    unit = abs(own / price)
    quote = Quote(conid=1, bid=bid, ask=ask, min_tick=min_tick)
    allowed = allowed_difference(own, quote, unit=unit, band=BAND)
    broker = own + part * allowed
    if abs(abs(own - broker) - allowed) > 1e-9 * max(1.0, allowed):  # not on the very edge
        found = priced_at(update, replace(AT_BROKER, market_value=broker))
        stream_agrees = abs(own - broker) <= allowed
        if ask is not None and ask - (bid or 0.0) >= (min_tick or 0.0):
            assert found == (ago(2) if stream_agrees else ago(50))
        elif not stream_agrees:
            assert found == ago(50), "fresh, and the stream does not agree"
