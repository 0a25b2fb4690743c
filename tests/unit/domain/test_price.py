"""Which price values a position: a table of real cases."""

from datetime import UTC, datetime, timedelta

import pytest

from position_sync_dagster.domain.quote import Quote, price_of
from position_sync_dagster.domain.update import PriceKind

NOW = datetime(2026, 3, 4, 15, 30, tzinfo=UTC)
RECENT, OLD = NOW - timedelta(seconds=5), NOW - timedelta(seconds=121)

CASES = {
    "young mark wins over all": (
        dict(bid=1.0, ask=1.2, last=1.1, mark=1.15, mark_time=RECENT),
        (1.15, PriceKind.MARK),
    ),
    "a mark older than the setting is not used": (
        dict(bid=1.0, ask=1.2, last=1.1, mark=9.0, mark_time=OLD),
        (1.1, PriceKind.LAST),
    ),
    "a mark of unknown time is not used": (
        dict(bid=1.0, ask=1.2, mark=9.0),
        (1.1, PriceKind.MID),
    ),
    "last on the bid counts as inside": (dict(bid=1.0, ask=1.2, last=1.0), (1.0, PriceKind.LAST)),
    "last outside the quote gives the mid": (
        dict(bid=1.0, ask=1.2, last=2.0),
        (1.1, PriceKind.MID),
    ),
    "locked quote": (dict(bid=1.0, ask=1.0), (1.0, PriceKind.MID)),
    "crossed quote says nothing": (dict(bid=1.3, ask=1.2, last=1.25), None),
    "short worthless option: no bid, ask 0.05, last 1.20": (dict(ask=0.05, last=1.2), None),
    "only a bid": (dict(bid=1.0, last=1.0), None),
    "no quote at all": (dict(), None),
    "only a last trade": (dict(last=3.0), None),
    "a worthless mark is a price": (dict(mark=0.0, mark_time=RECENT), (0.0, PriceKind.MARK)),
    "a negative mark of a future is a price": (
        dict(mark=-37.63, mark_time=RECENT),
        (-37.63, PriceKind.MARK),
    ),
}


@pytest.mark.parametrize(("quote", "expected"), CASES.values(), ids=CASES.keys())
def test_the_price_of_a_quote(quote, expected):
    price = price_of(Quote(conid=1, **quote), now=NOW, max_mark_age=timedelta(seconds=120))
    assert (None if price is None else (pytest.approx(price.value), price.kind)) == expected


def test_only_a_last_trade_carries_the_time_of_the_exchange():
    traded = NOW - timedelta(minutes=3)
    quote = Quote(conid=1, bid=1.0, ask=1.2, last=1.1, last_time=traded)
    price = price_of(quote, now=NOW, max_mark_age=timedelta(seconds=120))
    assert price is not None
    assert price.at == traded
    marked = Quote(conid=1, mark=1.0, mark_time=RECENT, last_time=traded)
    price = price_of(marked, now=NOW, max_mark_age=timedelta(seconds=120))
    assert price is not None
    assert price.at is None
