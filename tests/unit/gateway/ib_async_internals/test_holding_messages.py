"""Rows and values of accounts: the same as ib_async reads of them."""

import logging

import pytest
from ib_async import IB, PnLSingle

from position_sync_dagster.gateway.codes import MessageType
from position_sync_dagster.gateway.ib_async_internals.holdings import (
    PnlFields,
    deliver_holdings,
    on_pnl_single,
)

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
    "fields", [["95"], ["95", "4", "-2", "1.5"], ["95", "x", *"12345"], ["95", "4", "x", *"1234"]]
)
async def test_a_profit_message_that_cannot_be_read_is_reported_by_ib_async(fields, caplog):
    caplog.set_level(logging.ERROR, "ib_async.Decoder")  # a connection in another test silences it
    ib, found = IB(), []
    on_pnl_single(ib, lambda *message: found.append(message))
    ib.wrapper.reqId2PnlSingle[4] = PnLSingle("DU1", "", 7)
    ib.client.decoder.interpret(fields)
    assert found == []
    assert [record.name.split(".")[0] for record in caplog.records] == ["ib_async"]


async def test_a_profit_message_is_read_for_the_request_that_it_names():
    ib, found = IB(), []
    on_pnl_single(ib, lambda *message: found.append(message))
    ib.wrapper.reqId2PnlSingle[4] = PnLSingle("DU1", "", 7)
    read = ib.client.decoder.handlers[MessageType.PNL_SINGLE]
    read(["95", "4", "-2", "1.5", "", "1.7976931348623157E308", "-300.25", "a later field"])
    read(["95", "5", "-2", "1.5", "2.5", "0", "1"])
    unset = 1.7976931348623157e308
    assert found == [("DU1", 7, PnlFields(-2.0, 1.5, 0.0, unset, -300.25))]
    ib.wrapper.reset()
    read(["95", "4", "-2", "1.5", "2.5", "0", "1"])
    assert len(found) == 1
