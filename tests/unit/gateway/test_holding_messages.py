"""Messages of holdings: profit messages are kept, and read as sent."""

import asyncio
import logging
from datetime import UTC, datetime

import pytest
from ib_async import IB, PnLSingle

from position_sync_dagster.domain.instrument import Instrument
from position_sync_dagster.gateway.accounts.portfolio_rows import PnlSubscriptions
from position_sync_dagster.gateway.ib_async_internals import (
    PnlFields,
    lacks_realized,
    read_pnl,
)
from tests.support.holdings import make_book
from tests.support.messages import as_sent

NOW = datetime(2026, 3, 4, 15, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    "fields", [["95", "4"], ["95", "4", "-2", "1.5"], ["95", "4", "x", *"1234"]]
)
async def test_a_profit_message_that_cannot_be_read_is_reported_by_ib_async(fields, caplog):
    caplog.set_level(logging.ERROR, "ib_async.Decoder")  # a connection in another test silences it
    ib = IB()
    ib.wrapper.reqId2PnlSingle[4] = PnLSingle("DU1", "", 7)
    assert read_pnl(ib, as_sent(*fields)) is None
    assert not caplog.records
    await asyncio.sleep(0)
    assert [record.name.split(".")[0] for record in caplog.records] == ["ib_async"]


def test_a_profit_message_is_read_as_sent():
    unset = "1.7976931348623157E308"
    sent = as_sent("95", "4", "-2", "1.5", "", unset, "-300.25", "a later field")
    assert read_pnl(IB(), sent) == PnlFields(-2.0, 1.5, 0.0, float(unset), -300.25)
    assert lacks_realized(sent)
    assert not lacks_realized(sent.replace(unset.encode(), b"0"))
    assert not lacks_realized(as_sent("95", "4", "-2", unset))


async def test_a_profit_message_is_kept_for_the_request_that_it_names():
    ib, book = IB(), make_book(lambda: NOW, account="DU1")
    stock = Instrument(conid=7, symbol="SPY", sec_type="STK", currency="USD")
    book.put_position("DU1", stock, -2.0, None)
    ib.client.getReqId = lambda: 4
    ib.client.reqPnLSingle = ib.client.cancelPnLSingle = lambda *_request: None
    subscriptions = PnlSubscriptions(ib, book)
    valued = subscriptions.watch()
    subscriptions.keep("test", {("DU1", 7)})
    of_it = as_sent("95", "4", "-2", "1.5", "", "0", "-300.25")
    of_another = as_sent("95", "40", "-2", "1.5", "", "0", "-400.25")
    others = (b"95", b"9\x001\0", as_sent("95"), as_sent("95", "x", *"12345"))
    assert not any(map(subscriptions.keep_message, (of_another, *others)))
    assert subscriptions.keep_message(of_it)
    assert set(valued.take()) == {("DU1", 7)}
    assert book.get(("DU1", 7)).market_value == -300.25
    subscriptions.keep("test", ())
    assert not subscriptions.keep_message(of_it)
