"""Profit messages of holdings, from the fields as sent to the book."""

from datetime import UTC, datetime

import pytest
from ib_async import IB

from position_sync_dagster.domain.instrument import Instrument
from position_sync_dagster.gateway.connection import MessageReader
from position_sync_dagster.gateway.subscriptions import PnlSubscriptions
from tests.support.holdings import make_book

NOW = datetime(2026, 3, 4, 15, 30, tzinfo=UTC)
KEY = ("DU1", 7)
UNSET = "1.7976931348623157E308"
SENT = ["95", "4", "-2", "1.5", "", UNSET, "-300.25", "a later field"]


class Subscribed:
    """A holding with a profit subscription under the request id 4."""

    def __init__(self):
        ib = IB()
        self.book = make_book(lambda: NOW, account="DU1")
        stock = Instrument(conid=7, symbol="SPY", sec_type="STK", currency="USD")
        self.book.put_position("DU1", stock, -2.0, None)

        ib.client.getReqId = lambda: 4  # type: ignore[method-assign]
        for name in ("reqPnLSingle", "cancelPnLSingle"):
            setattr(ib.client, name, lambda *_request: None)
        ib.isConnected = lambda: True  # type: ignore[method-assign]
        self.subscriptions = PnlSubscriptions(ib, self.book)
        self.subscriptions.keep([KEY])
        self.subscriptions.step()
        MessageReader(ib, "g")
        self.read = ib.client.decoder.interpret

    def valued(self):
        """Return the holdings that were valued since the last call."""
        valued = set(self.subscriptions.valued)
        self.subscriptions.valued.clear()
        return valued

    def news(self):
        """Return whether a message counted since the last call."""
        had_news = self.subscriptions.has_news
        self.subscriptions.has_news = False
        return had_news

    @property
    def value(self):
        return self.book.get(KEY).market_value


@pytest.fixture
def subscribed():
    return Subscribed()


@pytest.mark.parametrize("fields", [SENT[:2], SENT[:4], ["95", "4", "x", *"1234"]])
async def test_a_profit_message_that_cannot_be_read_is_reported_and_the_value_stays(
    subscribed, fields, caplog
):
    subscribed.read(SENT)
    assert subscribed.valued() == {KEY}
    assert subscribed.news()
    subscribed.read(fields)
    assert "sent a message that cannot be read (type '95'" in caplog.text
    assert not subscribed.valued()
    assert not subscribed.news()
    assert subscribed.value == -300.25
    subscribed.read(sent("-302"))
    assert subscribed.value == -302.0


async def test_a_profit_message_is_read_for_the_request_that_it_names(subscribed):
    subscribed.read(["95", "40", *SENT[2:]])
    assert not subscribed.valued()
    subscribed.read(SENT)
    held = subscribed.book.get(KEY)
    assert held.daily_pnl == 1.5
    assert held.unrealized_pnl is None
    assert held.realized_pnl is None
    assert held.market_value == -300.25
    assert subscribed.valued() == {KEY}
    assert subscribed.news()


async def test_a_profit_message_without_a_value_is_no_news_and_values_nothing(subscribed):
    subscribed.read([*SENT[:6], UNSET])
    assert not subscribed.news()
    assert not subscribed.valued()
    assert subscribed.book.get(KEY).market_value is None


async def test_a_profit_message_that_comes_after_the_end_of_its_subscription_is_ignored(subscribed):
    subscribed.subscriptions.keep(())
    subscribed.subscriptions.step()
    subscribed.read(SENT)
    assert subscribed.book.get(KEY).market_value is None


def sent(value):
    """Return a message whose daily profit moves with its value."""
    return [*SENT[:3], value, *SENT[4:6], value]


async def test_of_several_messages_the_newest_counts(subscribed):
    for value in ("-300.25", "-301", "-302"):
        subscribed.read(sent(value))
    assert subscribed.value == -302.0
    assert subscribed.valued() == {KEY}
    assert subscribed.valued() == set()
