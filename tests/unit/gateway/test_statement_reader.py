"""Flex statements: what is read of them, and what is refused."""

import re
from datetime import UTC, date, datetime

import pytest

from position_sync_dagster.domain.closes import Side
from position_sync_dagster.domain.instrument import Right
from position_sync_dagster.errors import StatementError
from position_sync_dagster.gateway import flex
from position_sync_dagster.gateway.flex import read_statements
from tests.support.flex_files import element, period, position, statement, trade


def test_a_position_has_the_broker_s_values_and_its_cost_per_contract() -> None:
    (found,) = read_statements(statement(position(position="-2", costBasisMoney="-500")), "a.xml")
    (one,) = found.positions
    assert (one.conid, one.symbol, one.right, one.strike) == (1, "SPY", Right.CALL, 575.0)
    assert (one.day, one.expiry) == (date(2026, 3, 5), date(2028, 12, 15))
    assert (one.position, one.market_price, one.market_value) == (-2.0, 1.5, 150.0)
    assert (one.average_cost, one.unrealized_pnl) == (250.0, 50.0)


@pytest.mark.parametrize("nothing", ["", "-", "N/A"])
def test_what_a_statement_leaves_out_is_unknown_and_not_zero(nothing: str) -> None:
    names = ["markPrice", "positionValue", "costBasisMoney", "fifoPnlUnrealized"]
    empty = dict.fromkeys(names, nothing)
    (found,) = read_statements(statement(position(**empty)), "a.xml")
    (one,) = found.positions
    assert (one.market_price, one.market_value, one.average_cost) == (None, None, None)
    assert one.unrealized_pnl is None


def left_out(data: bytes) -> tuple[str, str]:
    """Return what is wrong with the only row that is left out, and the remedy."""
    (found,) = read_statements(data, "march.xml")
    ((what, remedy),) = found.left_out
    assert what.startswith("march.xml")
    return what, remedy


def test_a_multiplier_is_never_guessed() -> None:
    for kind in ("OPT", "FUT", "FSFOP"):
        what, _ = left_out(statement(position(assetCategory=kind, multiplier="")))
        assert "has no valid multiplier" in what
    (found,) = read_statements(statement(position(assetCategory="STK", multiplier="")), "a.xml")
    assert found.positions[0].multiplier == 1.0


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (statement(position(levelOfDetail="LOT")), "is a lot, and its summary is not there"),
        (statement(trades=(element("Order", {"quantity": "2"}),)), "no executions, but Order"),
        (statement(trades=(trade(levelOfDetail="SYMBOL_SUMMARY"),)), "no executions, but Trade"),
    ],
)
def test_a_statement_of_lots_or_orders_alone_does_not_make_an_account_flat_or_idle(
    data: bytes, says: str
) -> None:
    what, remedy = left_out(data)
    assert says in what
    assert "choose Summary for Open Positions and Execution for Trades" in remedy
    (found,) = read_statements(data, "a.xml")
    assert not (found.days and period(found))


def test_parts_of_a_holding_are_not_taken_for_holdings() -> None:
    data = statement(position(model="Growth"), position(2), position(position="3"))
    what, remedy = left_out(data)
    assert "DUSIM0001 has conid 1 twice on 2026-03-05" in what
    assert "leave the field Model of Open Positions out" in remedy
    (found,) = read_statements(data, "a.xml")
    assert [one.conid for one in found.positions] == [2]


def test_a_trade_has_its_time_in_utc_and_its_commission_as_a_cost() -> None:
    (found,) = read_statements(statement(trades=(trade(),)), "a.xml")
    (one,) = found.executions
    assert one.execution_id == "0000e1.01"
    assert one.time == datetime(2026, 3, 5, 20, 30, tzinfo=UTC)
    assert (one.side, one.quantity, one.price) == (Side.SELL, 2.0, 1.25)
    assert (one.commission, one.realized_pnl) == (1.3, 12.5)


@pytest.mark.parametrize(
    "when",
    [
        {"dateTime": "20260305;153000"},
        {"dateTime": "2026-03-05, 15:30:00"},
        {"dateTime": "2026-03-05T15:30:00"},
        {"dateTime": "20260305;203000 GMT"},
        {"dateTime": "2026-03-05;15:30:00 America/New_York"},
        {"dateTime": "", "tradeDate": "20260305", "tradeTime": "153000"},
    ],
)
def test_the_usual_formats_of_a_time_are_read(when: dict[str, str]) -> None:
    (found,) = read_statements(statement(trades=(trade(**when),)), "a.xml")
    assert found.executions[0].time == datetime(2026, 3, 5, 20, 30, tzinfo=UTC)


def test_cash_and_net_liquidation_are_those_of_their_day() -> None:
    row = {"reportDate": "20260305", "currency": "USD", "cash": "10.5", "total": "99"}
    data = statement(more=element("EquitySummaryByReportDateInBase", row))
    (found,) = read_statements(data, "a.xml")
    (one,) = found.cash
    assert (one.cash, one.net_liquidation, one.source) == (10.5, 99.0, "FLEX")
    assert one.timestamp == datetime(2026, 3, 5, 21, tzinfo=UTC)
    assert one.account == "DUSIM0001"


def test_an_account_without_positions_is_flat_only_where_the_section_is_there() -> None:
    (flat,) = read_statements(statement(), "a.xml")
    assert flat.days == {date(2026, 3, 5)}
    silent = statement().replace(b"<OpenPositions></OpenPositions>", b"")
    (unknown,) = read_statements(silent, "a.xml")
    assert unknown.days == set()


@pytest.mark.parametrize(
    ("row", "says", "remedy"),
    [
        (position(position="much"), "position='much', which is no number", "decimal point"),
        (position(position="2,5"), "position='2,5', which is no number", "decimal point"),
        (position(markPrice="1_0"), "markPrice='1_0', which is no number", "decimal point"),
        (position(conid="x"), r"\(conid 'x', .* has no valid conid", "operations.md"),
        (position(day="05/03/2026"), "reportDate='05/03/2026', which is no day", "yyyyMMdd"),
        (position(currency=""), "conid '1', symbol .* has no valid currency", "operations.md"),
        (position(assetCategory=""), "has no valid assetCategory", "operations.md"),
        (trade(assetCategory=""), "has no valid assetCategory", "operations.md"),
        (position(assetCategory="XYZ"), "assetCategory='XYZ', which is not known", "operations.md"),
        (trade(tradePrice="312,50"), "tradePrice='312,50', which is no number", "decimal point"),
        (trade(dateTime="20260305;9am"), "which is no time", "HHmmss"),
        (trade(dateTime="20260305;1530"), "'20260305;1530', which is no time", "HHmmss"),
        (trade(dateTime="20260305;203000 ABC"), "ABC', which is no time .* zone", "HHmmss"),
        (trade("N/A", tradeID="", transactionID="N/A"), "has no ibExecID, tradeID", "Trade ID"),
    ],
)
def test_a_row_that_cannot_be_read_is_named_and_the_others_are_read(
    row: str, says: str, remedy: str
) -> None:
    is_trade = row.startswith("<Trade")
    positions, trades = ((), (row,)) if is_trade else ((row,), ())
    data = statement(position(2), *positions, trades=(trade("e2", conid="2"), *trades))
    (found,) = read_statements(data, "march.xml")
    ((what, to_do),) = found.left_out
    assert re.search(says, what)
    assert what.startswith("march.xml: Trade" if is_trade else "march.xml: OpenPosition")
    assert remedy in to_do
    assert [one.conid for one in found.positions] == [2]
    assert [one.execution_id for one in found.executions] == ["e2"]
    assert (not found.lacks_positions, period(found) is not None) == (is_trade, not is_trade)


def test_what_a_statement_says_is_from_1990_to_tomorrow(monkeypatch) -> None:
    monkeypatch.setattr(flex, "utc_now", lambda: datetime(2026, 3, 5, 23, tzinfo=UTC))
    for day, usable in {
        "19891231": False,
        "19900101": True,
        "20260306": True,
        "20260307": False,
    }.items():
        data = statement(position(day=day), first=day, generated="20260305;210000")
        if usable:
            assert read_statements(data, "a.xml")[0].positions
        else:
            with pytest.raises(StatementError, match="which is no day from 1990 to tomorrow"):
                read_statements(data, "a.xml")
