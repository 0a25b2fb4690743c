"""Rows of holdings: what is read of them, and which cannot be used."""

from datetime import date

import pytest

from position_sync_dagster.domain.gateway_session import UnusableHoldings, set_aside_of
from position_sync_dagster.gateway.translate import OddRow, portfolio_row, position_row

TERMS = [
    "921000001", "SPY", "OPT", "20281215", "550.5", "C", "100", "SMART", "USD", "SPY C", "2SPY",
]  # fmt: skip
OPTION = ["7", "8", *TERMS, "-2.0", "1.5", "-300.0", "151.25", "2.5", "0.0", "DU1"]
NAMES = ["5", "SPY", "STK", "", "", "", "", "", "USD", "SPY", "SPY"]
STOCK = ["7", "8", *NAMES, "10", "1.5", "15", "1.25", "nan", "1.7976931348623157E308", "DU1"]

SHARE = ["17382246", "000660", "STK", "", "0", "", "", "KRX", "KRW", "000660.KS", "000660"]
VALUES = ["4", "1941000.0", "7764000.0", "2228000.0", "-1148000.0", "0.0"]
# Source: ibkr-go, account_updates.txt, with another account.
RECORDED = ["7", "8", *SHARE, *VALUES, "DU1"]


def changed(fields, place, value):
    return [value if i == place % len(fields) else text for i, text in enumerate(fields)]


def test_a_row_has_what_is_held_and_the_values_that_the_broker_knows():
    option, stock, recorded = map(portfolio_row, (OPTION, STOCK, RECORDED))
    assert option.key == ("DU1", 921000001)
    assert option.position == (-2.0)
    assert option.amounts == {
        "market_price": 1.5,
        "market_value": -300.0,
        "average_cost": 151.25,
        "unrealized_pnl": 2.5,
        "realized_pnl": 0.0,
    }
    assert option.instrument.right == "CALL"
    assert option.instrument.expiry == date(2028, 12, 15)
    assert option.instrument.strike == 550.5
    assert option.instrument.multiplier == 100.0
    assert stock.amounts["unrealized_pnl"] is None
    assert stock.amounts["realized_pnl"] is None
    assert recorded.position == 4.0
    assert recorded.instrument.exchange == "KRX"


def test_the_rows_of_an_account_share_its_name():
    # Each message brings a text of its own, as one that is read from the socket.
    listed = position_row(["61", "3", b"DU1".decode(), *TERMS, "2.0", "1.5"])
    valued = portfolio_row([*OPTION[:-1], b"DU1".decode()])
    assert listed.key[0] is valued.key[0]


@pytest.mark.parametrize("day", ["20281301", "20280230", "2028W501", "2028-W50-1", "2028-366"])
def test_a_text_that_is_no_calendar_day_is_no_expiry(day):
    assert portfolio_row(changed(OPTION, 5, day)).instrument.expiry is None


@pytest.mark.parametrize(("price", "value"), [("0", "0"), ("0.0", "0.0"), ("-1", "-300")])
def test_a_holding_without_a_price_has_no_value_and_keeps_its_cost(price, value):
    row = portfolio_row([*OPTION[:13], "3", price, value, *OPTION[16:]])
    amounts = row.amounts
    assert row.position == 3.0
    assert amounts["market_price"] is None
    assert amounts["market_value"] is None
    assert amounts["unrealized_pnl"] is None
    assert amounts["realized_pnl"] == 0.0
    assert amounts["average_cost"] == 151.25
    closed = portfolio_row([*OPTION[:13], "0", "0", "0", *OPTION[16:]])
    assert closed.amounts["market_value"] == 0.0


@pytest.mark.parametrize(("sent", "cost"), [("3.5", 3.5), ("0", 0.0), ("", None)])
def test_an_empty_cost_of_a_position_is_unknown(sent, cost):
    row = position_row(["61", "3", "DU1", *NAMES, "-2", sent])
    assert row.position == (-2.0)
    assert row.amounts == {"average_cost": cost}


@pytest.mark.parametrize(
    ("place", "text", "why"),
    [
        (2, "0", "conid '0'"),
        (2, "-7", "conid '-7'"),
        (2, "", "conid ''"),
        (2, "1.5", "conid '1.5'"),
        (3, "  ", "no symbol"),
        (-7, "", "quantity ''"),
        (-7, "nan", "quantity 'nan'"),
        (-7, "1.7976931348623157E308", "quantity '1.7976931348623157E308'"),
        (6, "x", "strike 'x'"),
        (-6, "x", "market_price 'x'"),
        (8, "", "multiplier '' (OPT)"),
        (8, "0", "multiplier '0' (OPT)"),
        (8, "-100", "multiplier '-100' (OPT)"),
        (8, "x", "multiplier 'x' (OPT)"),
    ],
)
def test_a_row_is_odd_for_a_reason(place, text, why):
    row = portfolio_row(changed(OPTION, place, text))
    assert isinstance(row, OddRow)
    assert row.why == why


@pytest.mark.parametrize(("conid", "named"), [("seven", 0), ("nan", 0), ("-7", -7)])
def test_a_conid_that_is_no_number_is_set_aside_as_0(conid, named):
    assert position_row(["61", "3", "DU1", conid, *NAMES[1:], "1", ""]).key == ("DU1", named)


def test_rows_that_are_set_aside_are_counted_and_the_first_are_named():
    assert set_aside_of({}) is None
    rows = {("DU1", conid): "no symbol" for conid in range(1, 6)}
    (problem,) = UnusableHoldings(set_aside=set_aside_of(rows)).texts
    assert problem.startswith("5 holdings are set aside: conid 1 of DU1 (no symbol), ")
    assert problem.endswith(" and 2 more")
    (unnamed,) = UnusableHoldings(set_aside=set_aside_of({("", 5): "x"})).texts
    assert unnamed == "1 holding is set aside: conid 5 of no account (x)"
