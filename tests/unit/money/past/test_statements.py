"""Flex statements: what is read of them, of each posted shape, and what is refused."""

import json
import re
import tracemalloc
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime

import pytest

from position_sync_dagster.domain.exchange_time import NEW_YORK
from position_sync_dagster.domain.execution import Execution, Side
from position_sync_dagster.domain.instrument import Right
from position_sync_dagster.money.past import flex_fields
from position_sync_dagster.money.past.closes import (
    EventKind,
    Statement,
    StatementEvent,
)
from position_sync_dagster.money.past.flex import read_statements
from position_sync_dagster.money.past.flex_fields import StatementError
from position_sync_dagster.money.past.movement_book import _sections_in
from position_sync_dagster.money.past.movements import (
    Movement,
    MovementSource,
    counting_movements,
)
from tests.support.flex_files import OPTION, element, period, position, sections, statement, trade


def read(data: bytes, name: str = "a.xml") -> Statement:
    """Return the only statement of a file."""
    (statement,) = read_statements(data, name)
    return statement


def test_a_position_has_the_broker_s_values_and_its_cost_per_contract() -> None:
    (holding,) = read(statement(position(position="-2", costBasisMoney="-500"))).positions
    assert holding.conid == 1
    assert holding.symbol == "SPY"
    assert holding.right == Right.CALL
    assert holding.strike == 575.0
    assert holding.day == date(2026, 3, 5)
    assert holding.expiry == date(2028, 12, 15)
    assert holding.position == (-2.0)
    assert holding.market_price == 1.5
    assert holding.market_value == 150.0
    assert holding.average_cost == 250.0
    assert holding.unrealized_pnl == 50.0


@pytest.mark.parametrize("nothing", ["", "-", "N/A"])
def test_what_a_statement_leaves_out_is_unknown_and_not_zero(nothing: str) -> None:
    names = ["markPrice", "positionValue", "costBasisMoney", "fifoPnlUnrealized"]
    empty = dict.fromkeys(names, nothing)
    (holding,) = read(statement(position(**empty))).positions
    assert holding.market_price is None
    assert holding.market_value is None
    assert holding.average_cost is None
    assert holding.unrealized_pnl is None


def left_out(data: bytes) -> tuple[str, str]:
    """Return what is wrong with the only row that is left out, and the remedy."""
    read_rows = read(data, "march.xml")
    ((what, remedy),) = read_rows.left_out
    assert what.startswith("march.xml")
    return what, remedy


def test_a_multiplier_is_never_guessed() -> None:
    for kind in ("OPT", "FUT", "FSFOP"):
        what, _ = left_out(statement(position(assetCategory=kind, multiplier="")))
        assert "has no valid multiplier" in what
    (share,) = read(statement(position(assetCategory="STK", multiplier=""))).positions
    assert share.multiplier == 1.0


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (statement(position(levelOfDetail="LOT")), "no positions, but OpenPosition"),
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
    read_rows = read(data)
    assert not (read_rows.days and period(read_rows))


def test_parts_of_a_holding_are_not_taken_for_holdings() -> None:
    data = statement(position(model="Growth"), position(2), position(position="3"))
    what, remedy = left_out(data)
    assert "DUSIM0001 has conid 1 twice on 2026-03-05" in what
    assert "leave the field Model of Open Positions out" in remedy
    assert [holding.conid for holding in read(data).positions] == [2]


def test_a_trade_has_its_time_in_utc_and_its_commission_as_a_cost() -> None:
    trade = one_trade()
    assert trade.execution_id == "0000e1.01"
    assert trade.time == datetime(2026, 3, 5, 20, 30, tzinfo=UTC)
    assert trade.side == Side.SELL
    assert trade.quantity == 2.0
    assert trade.price == 1.25
    assert trade.commission == 1.3
    assert trade.realized_pnl == 12.5


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
    assert one_trade(**when).time == datetime(2026, 3, 5, 20, 30, tzinfo=UTC)


def test_the_parts_of_net_liquidation_are_each_there_once() -> None:
    row = {
        "reportDate": "20260305", "currency": "USD", "cash": "10.5", "cashLong": "10.5",
        "cashShort": "0", "stock": "90", "dividendAccruals": "-1.5", "total": "99",
        "brokerCashComponent": "10.5",
    }  # fmt: skip
    read_rows = read(statement(more=element("EquitySummaryByReportDateInBase", row)))
    (equity,) = [event for event in read_rows.events if event.kind is EventKind.NET_LIQUIDATION]
    parts = json.loads(equity.attributes)
    assert equity.account == "DUSIM0001"
    assert equity.day == date(2026, 3, 5)
    assert equity.currency == "USD"
    assert parts == {"cash": 10.5, "stock": 90.0, "dividendAccruals": -1.5}
    assert equity.amount == sum(parts.values())
    assert [event.attributes for event in sections(read_rows)] == ['["TRADES"]']


def test_what_a_row_says_of_money_is_read_and_nothing_is_filled_in() -> None:
    written = {
        "proceeds": "250", "multiplier": "100", "reportDate": "20260306", "taxes": "",
        "transactionID": "12", "ibCommissionCurrency": "EUR",
    }  # fmt: skip
    sold = moved(trade(**written))
    assert sold.cash == 250.0
    assert sold.multiplier == 100.0
    assert sold.fee == (-1.3)
    assert sold.fee_currency == "EUR"
    assert sold.day == date(2026, 3, 6)
    assert sold.transaction_id == "12"
    for unknown in ("", "much"):
        assert moved(trade(**written | {"proceeds": unknown})).cash is None


@pytest.mark.parametrize(
    ("rows", "moved_by"),
    [
        ((("OUT", "-58", ""), ("OUT", "58", "")), [-58.0, 58.0]),
        ((("OUT", "58", ""), ("OUT", "58", "Ca")), [58.0, 58.0]),
        ((("IN", "58", ""), ("IN", "-58", "")), [58.0, -58.0]),
        ((("IN", "58", ""), ("OUT", "58", "")), [58.0, 58.0]),
        ((("", "58", ""), ("", "-58", "")), [58.0, -58.0]),
    ],
)
def test_a_transfer_has_the_sign_of_its_section_or_of_its_direction(rows, moved_by) -> None:
    transfers = [
        element(
            "Transfer",
            OPTION | {
                "conid": "1", "date": "20260305", "type": "ACATS", "direction": way,
                "quantity": quantity, "code": code, "transactionID": str(number),
            },
        )
        for number, (way, quantity, code) in enumerate(rows)
    ]  # fmt: skip
    read_rows = read(statement(more=section("Transfers", *transfers)))
    assert [movement.quantity for movement in read_rows.movements] == moved_by
    # Whether what went out was long is known where it is stored, by what was held.
    has_no_side = all(quantity > 0 for quantity in moved_by)
    closing = [movement.open_close == "C" for movement in read_rows.movements]
    assert closing == [has_no_side and way == "OUT" and not code for way, _size, code in rows]


def moved(row: str) -> Movement:
    """Return what a trade moved, as a statement states it."""
    (movement,) = read(statement(trades=(row,))).movements
    return movement


def test_an_account_without_positions_is_flat_only_where_the_section_is_there() -> None:
    assert read(statement()).days == {date(2026, 3, 5)}
    silent = statement().replace(b"<OpenPositions></OpenPositions>", b"")
    assert read(silent).days == set()


@pytest.mark.parametrize(
    ("row", "says", "remedy"),
    [
        (position(position="much"), "position='much', which is no number", "decimal point"),
        (position(position="2,5"), "position='2,5', which is no number", "decimal point"),
        (position(markPrice="1_0"), "markPrice='1_0', which is no number", "decimal point"),
        (position(conid="x"), r"\(conid 'x', .* has no valid conid", "do/statements.md"),
        (position(day="05/03/2026"), "reportDate='05/03/2026', which is no day", "yyyyMMdd"),
        (position(currency=""), "conid '1', symbol .* has no valid currency", "do/statements.md"),
        (position(assetCategory=""), "has no valid assetCategory", "do/statements.md"),
        (trade(assetCategory=""), "has no valid assetCategory", "do/statements.md"),
        (position(position="1e400"), "position='1e400', which is no number", "decimal point"),
        (trade(ibCommission="-1e999"), "Commission='-1e999', which is no number", "decimal point"),
        (trade(dateTime="20260305153000"), "which is no time", "; as their separator"),
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
    read_rows = read(data, "march.xml")
    ((what, to_do),) = read_rows.left_out
    assert re.search(says, what)
    assert what.startswith("march.xml: Trade" if is_trade else "march.xml: OpenPosition")
    assert remedy in to_do
    assert [holding.conid for holding in read_rows.positions] == [2]
    assert [execution.execution_id for execution in read_rows.executions] == ["e2"]
    assert (not read_rows.lacks_positions) == is_trade
    assert (period(read_rows) is not None) == (not is_trade)


def test_what_a_statement_says_is_from_1990_to_today(monkeypatch) -> None:
    monkeypatch.setattr(flex_fields, "utc_now", lambda: datetime(2026, 3, 5, 23, tzinfo=UTC))
    for day, usable in {
        "19891231": False,
        "19900101": True,
        "20260305": True,
        "20260306": False,
    }.items():
        data = statement(position(day=day), first=day, generated="20260305;210000")
        if usable:
            assert read_statements(data, "a.xml")[0].positions
        else:
            with pytest.raises(StatementError, match="which is no day from 1990 to today"):
                read_statements(data, "a.xml")


def one_trade(**attributes: str) -> Execution:
    return read(statement(trades=(trade(**attributes),))).executions[0]


def test_a_trade_keeps_its_codes_its_order_and_its_rate() -> None:
    trade = one_trade(
        notes="A;GEA;Zz", openCloseIndicator="C", ibOrderID="71", brokerageOrderID="002a",
        transactionType="BookTrade", fxRateToBase="0.92", underlyingConid="756733",
        origTradeID="76", newField="of tomorrow",
    )  # fmt: skip
    assert trade.codes == "A;GEA;Zz"
    assert trade.open_close == "C"
    assert trade.transaction_type == "BookTrade"
    assert trade.order_id == "71"
    assert trade.brokerage_order_id == "002a"
    assert trade.fx_rate_to_base == 0.92
    assert trade.underlying_conid == 756733
    assert trade.trade_id == "77"
    assert trade.corrects == "76"
    assert json.loads(trade.attributes or "")["newField"] == "of tomorrow"
    assert trade.stated_at == datetime(2026, 3, 6, 6, tzinfo=UTC)


ASSIGNED = {
    "transactionType": "Assignment", "conid": "1", "symbol": "SPY  C", "quantity": "1",
    "underlyingSymbol": "SPY", "date": "20260305", "tradeID": "9", "realizedPnl": "112",
}  # fmt: skip
SPLIT = {
    "type": "FS", "conid": "1", "symbol": "SPY", "dateTime": "20260305;202500",
    "quantity": "300", "actionDescription": "SPLIT 4 FOR 1", "transactionID": "10",
}  # fmt: skip
TRANSFERRED = {
    "type": "ACATS", "direction": "OUT", "conid": "1", "date": "20260305",
    "quantity": "-100", "transactionID": "11",
}  # fmt: skip
INTEREST = {
    "type": "Broker Interest Paid", "amount": "-12.5", "dateTime": "20260305",
    "conid": "", "transactionID": "12", "levelOfDetail": "DETAIL",
}  # fmt: skip
# The attributes of each element; its kind, type, conid, quantity, amount and realised profit.
EVENTS = {
    "OptionEAE": (ASSIGNED, ("OPTION_EVENT", "Assignment", 1, 1.0, None, 112.0)),
    "CorporateAction": (SPLIT, ("CORPORATE_ACTION", "FS", 1, 300.0, None, None)),
    "Transfer": (TRANSFERRED, ("TRANSFER", "ACATS", 1, -100.0, None, None)),
    "CashTransaction": (INTEREST, ("CASH", "Broker Interest Paid", None, None, -12.5, None)),
}


@pytest.mark.parametrize("name", EVENTS)
def test_each_kind_of_event_is_read(name: str) -> None:
    attributes, expected = EVENTS[name]
    more = element(name, {"accountId": "DUSIM0001", "currency": "USD"} | attributes)
    event = read(statement(more=more)).events[0]
    values = (event.kind, event.type, event.conid, event.quantity, event.amount, event.realized_pnl)
    assert values == expected
    assert event.day == date(2026, 3, 5)
    assert event.account == "DUSIM0001"
    assert event.statement == "a.xml"
    stated = {name: text for name, text in attributes.items() if text}
    assert json.loads(event.attributes).items() >= stated.items()


def test_an_event_without_an_id_has_one_of_its_content() -> None:
    fees = [
        element("CashTransaction", {"type": "Other Fees", "currency": "USD", "amount": text})
        for text in ("-1", "-2")
    ]
    read_rows = read(statement(more="".join(fees)))
    again = read(statement(more=fees[0]), "b.xml")
    assert read_rows.events[0].event_id == again.events[0].event_id != read_rows.events[1].event_id


def test_only_a_statement_with_its_trades_says_what_did_not_happen() -> None:
    covered = period(read(statement()))
    assert covered is not None
    assert covered.first_day == date(2026, 3, 5)
    assert covered.day == date(2026, 3, 5)
    assert period(read(statement().replace(b"<Trades></Trades>", b""))) is None


def test_a_statement_that_is_made_again_has_another_period() -> None:
    def covered(generated: str) -> StatementEvent:
        text = statement(first="20260304", last="20260305", generated=generated)
        made = period(read(text))
        assert made is not None
        return made

    early = covered("20260305;120000")
    late = covered("20260306;010000")
    assert early.event_id != late.event_id
    assert late.event_id == covered("20260306;010000").event_id
    assert late.stated_at == datetime(2026, 3, 6, 1, tzinfo=NEW_YORK)


def test_a_trade_that_is_cancelled_and_booked_again_with_its_id_counts_once() -> None:
    cancel = {"tradeID": "", "transactionID": "2", "origTradeID": "77", "notes": "Ca"}
    rows = (
        trade("E1", transactionID="1", quantity="2"),
        trade("", quantity="-2", transactionType="TradeCancel", **cancel),
        trade("E1", transactionID="3", quantity="1"),
    )
    before = read(statement(trades=(trade("E1", quantity="2"),)), "before.xml")
    read_rows = read(statement(trades=rows, generated="20260307;010000"))
    covered = [
        section
        for stated in (before, read_rows)
        for row in sections(stated)
        for section in _sections_in(row)
    ]
    counting = counting_movements([*before.movements, *read_rows.movements], covered)
    assert sum(movement.quantity or 0.0 for movement in counting) == 1.0
    gateway = replace(counting[0], movement_id="API", source=MovementSource.API, execution_id="E1")
    assert counting_movements([gateway, *read_rows.movements], covered) == counting


EAE = {"transactionType": "Expiration", "conid": "1", "quantity": "1", "tradeID": "9"}
FEE = {"type": "Other Fees", "currency": "USD", "dateTime": "20260305", "amount": "-0.02"}
LOT = {"openDateTime": "20260102;100000", "originatingOrderID": "5", "levelOfDetail": ""}
NO_IDS = {"tradeID": "", "transactionID": "N/A"}


def section(name: str, *rows: str) -> str:
    return f"<{name}>{''.join(rows)}</{name}>"


def test_money_without_a_currency_is_named_and_the_rest_is_read() -> None:
    fees = [element("CashTransaction", FEE | more) for more in ({"currency": ""}, {})]
    read_rows = read(statement(position(1), more=section("CashTransactions", *fees)), "march.xml")
    ((fault, remedy),) = read_rows.left_out
    assert "has no valid currency" in fault
    assert "march.xml: CashTransaction" in fault
    assert "do/statements.md" in remedy
    assert [movement.cash for movement in read_rows.movements] == [-0.02]


def test_levels_of_detail_are_known_in_whatever_letters_they_are_written() -> None:
    fees = [
        element("CashTransaction", FEE | {"transactionID": name, "levelOfDetail": level})
        for name, level in {"1": "Detail", "2": "Summary"}.items()
    ]
    read_rows = read(
        statement(
            position(levelOfDetail="Summary"),
            position(levelOfDetail="Lot"),
            trades=(
                trade("e1", levelOfDetail="execution"),
                trade("", levelOfDetail="Closed Lots"),
                trade("", levelOfDetail="Symbol Summary"),
            ),
            more=section("CashTransactions", *fees),
        )
    )
    assert read_rows.left_out == ()
    assert [holding.conid for holding in read_rows.positions] == [1]
    assert [execution.execution_id for execution in read_rows.executions] == ["e1"]
    [fee] = [event for event in read_rows.events if event.kind is EventKind.CASH]
    assert fee.event_id == "CashTransaction:1"
    assert period(read_rows) is not None


@pytest.mark.parametrize("name", ["OpenPosition", "Trade", "CashTransaction"])
def test_what_rows_of_an_unknown_level_may_say_is_not_known(name: str) -> None:
    unknown = {"levelOfDetail": "Tax Parcel"}
    rows = {
        "OpenPosition": statement(position(), position(2, **unknown)),
        "Trade": statement(trades=(trade(), trade("e2", **unknown))),
        "CashTransaction": statement(more=element("CashTransaction", FEE | unknown)),
    }
    what, remedy = left_out(rows[name])
    assert what.startswith(f"march.xml: {name} (")
    assert "has levelOfDetail='Tax Parcel', which is not known" in what
    assert "Summary for Open Positions" in remedy
    read_rows = read(rows[name])
    assert read_rows.lacks_positions is (name == "OpenPosition")
    assert (period(read_rows) is None) is (name != "OpenPosition")


def test_types_are_known_in_whatever_letters() -> None:
    bill = position(4, assetCategory="Carbon", symbol="EUA DEC26")
    kinds = {1: "stk", 2: "Opt", 3: "FXCFD"}
    read_rows = read(statement(*(position(n, assetCategory=t) for n, t in kinds.items()), bill))
    assert [holding.sec_type for holding in read_rows.positions] == ["STK", "OPT", "CFD", "CARBON"]
    assert read_rows.left_out == ()
    assert read_rows.lacks_positions is False


def test_rows_of_accounts_that_are_not_served_are_not_read() -> None:
    others = {"accountId": "DUSIM0001-P"}, {"accountId": "Savings"}
    data = statement(
        position(),
        *(position(2, position="much", **other) for other in others),
        trades=(trade("e1"), trade("e2", **others[0])),
        more=element("CashTransaction", FEE | others[0]),
    )
    (read_statement,) = read_statements(data, "a.xml", serves={"DUSIM0001"}.__contains__)
    assert [holding.conid for holding in read_statement.positions] == [1]
    assert [execution.execution_id for execution in read_statement.executions] == ["e1"]
    assert read_statement.accounts == {"DUSIM0001"}
    assert read_statement.left_out == ()
    assert period(read_statement) is not None

    (other,) = read_statements(data, "a.xml", serves={"Savings"}.__contains__)
    assert period(other) is None
    assert other.accounts == {"Savings"}


@dataclass(frozen=True)
class Shape:
    """Rows of a statement, and what is read: quantities, executions, events and flaws."""

    positions: tuple[str, ...] = ()
    trades: tuple[str, ...] = ()
    more: str = ""
    held: dict[int, float] = field(default_factory=dict)
    executed: tuple[str, ...] = ()
    events: int = 0
    left_out: tuple[str, ...] = ()

    def read(self) -> Statement:
        return read(statement(*self.positions, trades=self.trades, more=self.more))


SHAPES = {}
SHAPES["an empty section with the name of its rows"] = Shape(more=section("OptionEAE"))
SHAPES["a section with the name of its rows"] = Shape(
    more=section("OptionEAE", element("OptionEAE", EAE)), events=1
)
SHAPES["a section that names its account"] = Shape(
    more=element("OptionEAE", {"accountId": "DUSIM0001", "currency": "USD"})
    + element("CorporateAction", {"accountId": "DUSIM0001", "reportDate": "20260305"})
)
SHAPES["an option with the margin of a future"] = Shape(
    positions=(position(7, assetCategory="FSFOP", position="3", multiplier="1000"),),
    held={7: 3},
)
SHAPES["a fee beside its sum, without levels"] = Shape(
    more=section(
        "CashTransactions",
        element("CashTransaction", FEE | {"accountId": "-", "transactionID": ""}),
        element("CashTransaction", FEE | {"accountId": "DUSIM0001", "transactionID": "3"}),
    ),
    events=1,
)
SHAPES["lots beside their summary, without levels"] = Shape(
    positions=(
        position(1, position="3", levelOfDetail="", openDateTime=""),
        position(1, position="1", **LOT),
        position(1, position="2", **LOT),
    ),
    held={1: 3},
)
SHAPES["a holding beside the sum over all accounts"] = Shape(
    positions=(position(1), position(1, accountId="-", position="1")), held={1: 1}
)
SHAPES["an order beside its executions, without levels"] = Shape(
    trades=(
        trade("", ibOrderID="71", quantity="-5", levelOfDetail="", **NO_IDS),
        trade("e1", ibOrderID="71", quantity="-2", levelOfDetail=""),
        trade("e2", ibOrderID="71", quantity="-3", levelOfDetail=""),
    ),
    executed=("e1", "e2"),
    left_out=("Trade (conid '1'",),
)
SHAPES["a contract for difference without an id"] = Shape(
    trades=(trade("N/A", assetCategory="CFD", conid="290662729", **NO_IDS), trade("e1")),
    executed=("e1",),
    left_out=("Trade (conid '290662729'",),
)
SHAPES["orders and closed lots between executions"] = Shape(
    trades=(
        trade("", levelOfDetail="ORDER"),
        trade("e1"),
        element("Lot", {"conid": "1", "quantity": "2", "levelOfDetail": "CLOSED_LOT"}),
        element("Order", {"conid": "1", "quantity": "2"}),
    ),
    executed=("e1",),
)
SHAPES["cash beside its sum in the base currency"] = Shape(
    more=section(
        "CashTransactions",
        element("CashTransaction", FEE | {"transactionID": "3", "levelOfDetail": "DETAIL"}),
        element("CashTransaction", FEE | {"levelOfDetail": "BASE_SUMMARY"}),
        element("CashTransaction", FEE | {"currency": "BASE_SUMMARY"}),
        element("CashTransaction", FEE | {"currency": "Base Summary", "levelOfDetail": "DETAIL"}),
    )
    + section("Transfers", element("Transfer", EAE | {"currency": "BASE_SUMMARY"})),
    events=1,
)
SHAPES["net liquidation and cash as sums in the base currency"] = Shape(
    more=element(
        "EquitySummaryByReportDateInBase",
        {"reportDate": "20260305", "total": "12", "cash": "12", "levelOfDetail": "SUMMARY"},
    )
    + element("CashReportCurrency", {"currency": "USD", "endingCash": "12"})
    + element("CashReportCurrency", {"currency": "BASE_SUMMARY", "endingCash": "12"})
    + element(
        "CashReportCurrency",
        {"currency": "EUR", "endingCash": "12", "levelOfDetail": "BaseCurrency"},
    ),
    events=2,
)
SHAPES["elements that are not read"] = Shape(
    positions=(position(1),),
    more=element("AccountInformation", {"accountId": "DUSIM0001"})
    + section("SecuritiesInfo", element("SecurityInfo", {"rate": "1,5"})),
    held={1: 1},
)


@pytest.mark.parametrize("name", SHAPES)
def test_nothing_is_counted_twice_and_what_is_left_out_is_named(name: str) -> None:
    shape = SHAPES[name]
    read_rows = shape.read()
    assert {position.conid: position.position for position in read_rows.positions} == shape.held
    executed = sorted(execution.execution_id for execution in read_rows.executions)
    assert tuple(executed) == shape.executed
    covered = (period(read_rows), *sections(read_rows))
    events = [event for event in read_rows.events if event not in covered]
    assert len(events) == shape.events
    assert len(read_rows.left_out) == len(shape.left_out)

    for (what, remedy), named in zip(read_rows.left_out, shape.left_out, strict=True):
        assert what.startswith(f"a.xml: {named}")
        assert remedy
    held_unread = any("OpenPosition" in text for text in shape.left_out)
    assert read_rows.lacks_positions is held_unread
    trades_unread = any("Trade" in one for one in shape.left_out)
    assert (period(read_rows) is None) is trades_unread


def test_the_types_of_a_statement_are_those_of_a_gateway() -> None:
    for theirs, ours in {"FSFOP": "FOP", "FSOPT": "OPT", "STK": "STK"}.items():
        event = element("OptionEAE", EAE | {"assetCategory": theirs})
        read_rows = Shape(
            (position(assetCategory=theirs),), (trade(assetCategory=theirs),), event
        ).read()
        rows = (*read_rows.positions, *read_rows.executions, read_rows.events[0])
        assert [row.sec_type for row in rows] == [ours] * 3  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "content", ["<TradeConfirms><TradeConfirm conid='1'/></TradeConfirms>", ""]
)
def test_a_file_of_another_kind_is_named(content: str) -> None:
    data = statement().decode()
    begin = data.index("<OpenPositions>")
    end = data.index("</FlexStatement>")
    with pytest.raises(StatementError, match=r"a.xml is no activity statement") as caught:
        read_statements(f"{data[:begin]}{content}{data[end:]}".encode(), "a.xml")
    assert "activity Flex query" in caught.value.remedy


def test_elements_without_meaning_take_no_memory() -> None:
    data = statement(position(), more="<a/>" * 30_000)
    tracemalloc.start()
    try:
        (read_statement,) = read_statements(data, "a.xml")
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(read_statement.positions) == 1
    assert peak < 2 * 2**20


def test_a_file_without_a_statement_is_named() -> None:
    with pytest.raises(StatementError, match="has no statement of an account"):
        read_statements(b'<FlexQueryResponse><FlexStatements count="0"/></FlexQueryResponse>', "a")


LOT = {
    "conid": "1", "levelOfDetail": "CLOSED_LOT", "buySell": "BUY", "quantity": "2",
    "dateTime": "20260305;153000", "openDateTime": "20260212;101500", "tradePrice": "2.5",
    "cost": "498.7", "fifoPnlRealized": "245.4",
}  # fmt: skip


def lots_in(*lots: dict[str, str]) -> list[StatementEvent]:
    more = [element("Lot", OPTION | lot) for lot in lots]
    [read] = read_statements(statement(trades=(trade(), *more)), "s.xml")
    assert not read.left_out
    return [event for event in read.events if event.kind is EventKind.CLOSED_LOT]


def test_a_closed_lot_is_an_event_with_the_sign_of_what_was_held():
    [short] = lots_in(LOT, LOT)[:1]
    assert short.quantity == (-2.0)
    assert short.amount == 498.7
    assert short.realized_pnl == 245.4
    assert short.day == date(2026, 3, 5)
    assert short.conid == 1
    assert short.time == datetime(2026, 2, 12, 15, 15, tzinfo=UTC)
    [long] = lots_in(LOT | {"buySell": "SELL", "quantity": "-2", "cost": "-498.7"})
    assert long.quantity == 2.0
    assert long.amount == 498.7
    assert long.event_id != short.event_id


@pytest.mark.parametrize("missing", ["cost", "openDateTime", "fifoPnlRealized", "buySell"])
def test_a_closed_lot_that_does_not_say_all_is_left_to_first_in_first_out(missing):
    assert lots_in({name: text for name, text in LOT.items() if name != missing}) == []
