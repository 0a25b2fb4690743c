"""Profit messages of holdings, from the fields as sent to the book."""

import logging
from datetime import UTC, datetime

import pytest
from ib_async import IB

from position_sync_dagster.domain.instrument import Instrument
from position_sync_dagster.gateway.accounts.pnl_subscriptions import PnlSubscriptions
from tests.support.holdings import make_book

NOW = datetime(2026, 3, 4, 15, 30, tzinfo=UTC)
KEY = ("DU1", 7)
UNSET = "1.7976931348623157E308"
SENT = ["95", "4", "-2", "1.5", "", UNSET, "-300.25", "a later field"]


class Subscribed:
    """A holding with a profit subscription under the request id 4."""

    def __init__(self):
        ib, self.book = IB(), make_book(lambda: NOW, account="DU1")
        stock = Instrument(conid=7, symbol="SPY", sec_type="STK", currency="USD")
        self.book.put_position("DU1", stock, -2.0, None)
        ib.client.getReqId = lambda: 4
        ib.client.reqPnLSingle = ib.client.cancelPnLSingle = lambda *_request: None
        ib.isConnected = lambda: True
        self.subscriptions = PnlSubscriptions(ib, self.book, silence_s=30.0)
        self.valued = self.subscriptions.watch()
        self.subscriptions.keep("test", [KEY])
        self.subscriptions.step()
        self.read = ib.client.decoder.interpret


@pytest.fixture
def subscribed():
    return Subscribed()


@pytest.mark.parametrize("fields", [SENT[:2], SENT[:4], ["95", "4", "x", *"1234"]])
async def test_a_profit_message_that_cannot_be_read_is_reported_by_ib_async(
    subscribed, fields, caplog
):
    caplog.set_level(logging.ERROR, "ib_async.Decoder")  # a connection in another test silences it
    subscribed.read(fields)
    assert [record.name.split(".")[0] for record in caplog.records] == ["ib_async"]
    assert not subscribed.valued.take()
    assert not subscribed.subscriptions.take_fresh()


async def test_a_profit_message_is_read_for_the_request_that_it_names(subscribed):
    subscribed.read(["95", "40", *SENT[2:]])
    assert not subscribed.valued.take()
    subscribed.read(SENT)
    held = subscribed.book.get(KEY)
    assert (held.daily_pnl, held.unrealized_pnl, held.realized_pnl) == (1.5, 0.0, None)
    assert held.market_value == -300.25
    assert set(subscribed.valued.take()) == {KEY}
    assert subscribed.subscriptions.take_fresh()


async def test_a_profit_message_without_a_value_is_not_fresh_and_values_nothing(subscribed):
    subscribed.read([*SENT[:6], UNSET])
    assert not subscribed.subscriptions.take_fresh()
    assert not subscribed.valued.take()
    assert subscribed.book.get(KEY).market_value is None


async def test_a_profit_message_that_comes_after_the_end_of_its_subscription_is_ignored(subscribed):
    subscribed.subscriptions.keep("test", ())
    subscribed.subscriptions.step()
    subscribed.read(SENT)
    assert subscribed.book.get(KEY).market_value is None
