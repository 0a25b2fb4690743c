"""Which price values a position: a table of real cases."""

from datetime import UTC, datetime, timedelta

import pytest

from position_sync_dagster.domain.holding import PriceKind
from position_sync_dagster.domain.instrument import Quote
from position_sync_dagster.domain.valuation import price_of

NOW = datetime(2026, 3, 4, 15, 30, tzinfo=UTC)
RECENT, OLD = NOW - timedelta(seconds=5), NOW - timedelta(hours=3)
MINUTE = timedelta(seconds=60)
AHEAD = NOW + timedelta(hours=1)
DELAYED = 3

MARK, LAST, MID, MODEL = PriceKind.MARK, PriceKind.LAST, PriceKind.MID, PriceKind.MODEL


def quoted(**more: object) -> dict[str, object]:
    """Return a quote with a bid of 1.00 and an ask of 1.20."""
    return {"bid": 1.0, "ask": 1.2} | more


CASES = {
    "young mark wins over all": (quoted(last=1.1, mark=1.15, mark_time=RECENT), (1.15, MARK)),
    "a mark does not age: the gateway sends it when it changes":
        (quoted(last=1.1, last_time=RECENT, mark=1.12, mark_time=OLD), (1.12, MARK)),
    "a quiet short wing: no bid, ask 0.05, mark 0.02":
        (dict(ask=0.05, last=1.2, last_time=RECENT, mark=0.02, mark_time=OLD), (0.02, MARK)),
    "last on the bid counts as inside": (quoted(last=1.0, last_time=RECENT), (1.0, LAST)),
    "a wide quote with an old last trade": (
        dict(bid=1.0, ask=3.0, last=1.1, last_time=NOW - MINUTE - timedelta(seconds=1)), (2.0, MID),
    ),
    "last of unknown age gives the mid": (quoted(last=1.0), (1.1, MID)),
    "last of an exchange whose clock is a second ahead counts":
        (quoted(last=1.0, last_time=NOW + timedelta(seconds=1)), (1.0, LAST)),
    "last from the future is of unknown age": (quoted(last=1.0, last_time=AHEAD), (1.1, MID)),
    "last outside the quote gives the mid": (quoted(last=2.0, last_time=RECENT), (1.1, MID)),
    "a mark that stands still while the quote moved away":
        (dict(bid=4.0, ask=4.1, mark=1.5, mark_time=OLD), (4.05, MID)),
    "a mark outside of the quote by its width":
        (dict(bid=4.0, ask=4.1, mark=4.19, mark_time=OLD), (4.19, MARK)),
    "a mark outside of a locked quote by one tick":
        (dict(bid=4.0, ask=4.0, mark=4.05, mark_time=OLD, min_tick=0.05), (4.05, MARK)),
    "a mark of zero under a bid, as before the open":
        (dict(bid=0.95, mark=0.0, mark_time=RECENT, model_price=1.0), (1.0, MODEL)),
    "a quote of nobody: the model": (dict(bid=0.01, ask=199.99, model_price=3.0), (3.0, MODEL)),
    "a quote of nobody without a model": (dict(bid=0.01, ask=199.99), None),
    "a cheap option is a few ticks wide": (dict(bid=0.01, ask=0.05, min_tick=0.01), (0.03, MID)),
    "locked quote": (dict(bid=1.0, ask=1.0), (1.0, MID)),
    "crossed quote says nothing": (dict(bid=1.3, ask=1.2, last=1.25, last_time=RECENT), None),
    "crossed quote with a model": (dict(bid=1.3, ask=1.2, model_price=1.24), (1.24, MODEL)),
    "a model price of zero is a price": (dict(model_price=0.0), (0.0, MODEL)),
    "the mid comes before the model": (quoted(model_price=1.3), (1.1, MID)),
    "halted without a mark: the model": (quoted(model_price=1.3, halted=True), (1.3, MODEL)),
    "short worthless option: no bid, ask 0.05, last 1.20": (dict(ask=0.05, last=1.2), None),
    "only a bid": (dict(bid=1.0, last=1.0), None),
    "no quote at all": (dict(), None),
    "a worthless mark is a price":
        (dict(ask=0.05, mark=0.0, mark_time=RECENT, min_tick=0.01), (0.0, MARK)),
    "a mark of zero without a quote is no data": (dict(mark=0.0, mark_time=RECENT), None),
    "a mark of zero under an ask of value is no data":
        (dict(ask=5.2, mark=0.0, mark_time=RECENT, min_tick=0.01, model_price=5.0), (5.0, MODEL)),
    "a negative mark of a future is a price": (dict(mark=-37.63, mark_time=RECENT), (-37.63, MARK)),
    "a mark from before the clock was set back is not young":
        (quoted(last=1.1, last_time=RECENT, mark=9.0, mark_time=AHEAD), (1.1, LAST)),
    "halted: the mark does not age":
        (quoted(last=1.1, mark=1.15, mark_time=OLD, halted=True), (1.15, MARK)),
    "halted: nor does it lie ahead": (dict(mark=9.0, mark_time=AHEAD, halted=True), None),
    "halted: the last trade before it":
        (quoted(last=1.1, last_time=RECENT, halted=True), (1.1, LAST)),
    "halted: a frozen quote has no mid": (quoted(halted=True), None),
    "halted: a last trade outside of the frozen quote says nothing":
        (quoted(last=2.0, halted=True), None),
    "halted and worthless: no bid, ask 0.05, last 1.20":
        (dict(ask=0.05, last=1.2, halted=True), None),
    "delayed: the mark as live":
        (quoted(mark=1.15, mark_time=RECENT, market_data_type=DELAYED), (1.15, MARK)),
    "delayed without a mark: the last trade is too old, so the mid":
        (quoted(last=1.2, last_time=OLD, market_data_type=DELAYED), (1.1, MID)),
    "a futures option quoted in cents": (dict(bid=12.375, ask=12.625, last=11.0), (12.5, MID)),
}  # fmt: skip


@pytest.mark.parametrize(("quote", "expected"), CASES.values(), ids=CASES.keys())
def test_the_price_of_a_quote(quote, expected):
    price = price_of(Quote(conid=1, **quote), now=NOW, max_last_age=MINUTE)
    assert (None if price is None else (pytest.approx(price.value), price.kind)) == expected


def at(**quote):
    price = price_of(Quote(conid=1, **quote), now=NOW, max_last_age=MINUTE)
    assert price is not None
    return price.at


def test_a_price_has_the_time_of_the_exchange_or_that_of_its_tick_and_never_now():
    traded = NOW - timedelta(seconds=50)
    assert at(bid=1.0, ask=1.2, last=1.1, last_time=traded, received_at=RECENT) == traded
    assert at(bid=1.0, ask=1.2, quote_time=OLD, received_at=NOW) == OLD
    assert at(mark=1.0, mark_time=RECENT, last_time=traded, received_at=NOW) == RECENT
    assert at(mark=1.0, mark_time=OLD, received_at=NOW) == OLD
    assert at(model_price=1.0, greeks_time=OLD, received_at=NOW) == OLD
