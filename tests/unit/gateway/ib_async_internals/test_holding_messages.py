"""Rows and values of accounts: the same as ib_async reads of them."""

import asyncio
import logging
from datetime import UTC, datetime

import pytest
from ib_async import IB, PnLSingle

from position_sync_dagster.domain.instrument import Instrument
from position_sync_dagster.gateway.accounts.pnl import PnlSubscriptions
from position_sync_dagster.gateway.codes import MessageType
from position_sync_dagster.gateway.ib_async_internals.holdings import (
    PnlFields,
    deliver_holdings,
    lacks_realized,
    read_pnl,
)
from tests.support.holdings import make_book
from tests.support.messages import as_sent

NOW = datetime(2026, 3, 4, 15, 30, tzinfo=UTC)

TERMS = [
    "921000001",
    "SPY",
    "OPT",
    "20281215",
    "550.5",
    "C",
    "100",
    "SMART",
    "USD",
    "SPY C",
    "2SPY",
]
OPTION = ["7", "8", *TERMS, "-2.0", "1.5", "-300.0", "151.25", "2.5", "0.0", "DU1"]
NAMES = ["", "SPY", "STK", "", "", "", "", "", "USD", "SPY", "SPY"]
STOCK = ["7", "8", *NAMES, "10", "1.5", "15", "1.25", "nan", "1.7976931348623157E308", "DU1"]


def rows_of(ib, *messages):
    found = []
    ib.updatePortfolioEvent += found.append
    for fields in messages:
        ib.client.decoder.handlers[MessageType.PORTFOLIO_VALUE](list(fields))
    # ib_async makes the contract of an option a subclass; nan differs from itself.
    return [(vars(row.contract), str(row[1:])) for row in found]


async def test_a_portfolio_row_is_read_as_ib_async_reads_it():
    ours = IB()
    deliver_holdings(ours)
    assert rows_of(ours, OPTION, STOCK) == rows_of(IB(), OPTION, STOCK)
    assert len(rows_of(ours, OPTION)) == 1


@pytest.mark.parametrize("row", [OPTION[:-1], [*OPTION, "more"], [*OPTION[:14], "x", *OPTION[15:]]])
async def test_a_portfolio_row_of_another_form_cannot_be_read(row):
    ib = IB()
    deliver_holdings(ib)
    with pytest.raises(ValueError, match=r"unpack|convert"):
        rows_of(ib, row)


async def test_what_is_no_portfolio_row_at_all_goes_to_ib_async():
    ours, theirs = IB(), IB()
    deliver_holdings(ours)
    raised = []
    for ib in (ours, theirs):
        with pytest.raises(Exception) as error:  # noqa: PT011 - the same one, whichever it is
            rows_of(ib, ["7"])
        raised.append((error.type, str(error.traceback[-1].path)))
    assert raised[0] == raised[1]


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
