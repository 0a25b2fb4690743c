"""The price of an underlying from which greeks are computed, and how old it is."""

from datetime import UTC, datetime, timedelta

from position_sync_dagster.domain.valuation import Quote
from position_sync_dagster.sync.stream.model_greeks import underlying_price

NOW = datetime(2028, 6, 1, 14, 0, tzinfo=UTC)
BEFORE, EARLIER = NOW - timedelta(minutes=5), NOW - timedelta(minutes=9)


def price_of(sec_type="STK", **values):
    quote = Quote(conid=1, received_at=NOW, **values)
    return underlying_price(quote, sec_type, now=NOW, max_last_age=timedelta(seconds=60))


def test_ticks_without_a_price_make_no_price_of_an_underlying_young():
    sides = {"bid": 99.9, "ask": 100.1}
    assert price_of(mark=100.0, mark_time=BEFORE) == (100.0, BEFORE)
    assert price_of(**sides, quote_time=BEFORE) == (100.0, BEFORE)
    assert price_of(**sides, quote_time=BEFORE, mark=100.0, mark_time=EARLIER) == (100.0, BEFORE)
    assert price_of("IND", last=6500.0, quote_time=BEFORE) == (6500.0, BEFORE)
    assert price_of(last=100.0, quote_time=BEFORE) is None
