"""Flex statements: codes, ids and corrections of trades, and what else they name."""

import json
from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from position_sync_dagster.domain.closes import (
    FLEX,
    GATEWAY,
    EventKind,
    Execution,
    StatementEvent,
    current_executions,
)
from position_sync_dagster.domain.instrument import NEW_YORK
from position_sync_dagster.gateway.flex import read_statements
from tests.support.flex_files import element, period, statement, trade
from tests.unit.domain.test_causes import CALL, fill


def one_trade(**attributes: str) -> Execution:
    (found,) = read_statements(statement(trades=(trade(**attributes),)), "a.xml")
    return found.executions[0]


def test_a_trade_keeps_its_codes_its_order_and_its_rate() -> None:
    found = one_trade(
        notes="A;GEA;Zz", openCloseIndicator="C", ibOrderID="71", brokerageOrderID="002a",
        transactionType="BookTrade", fxRateToBase="0.92", underlyingConid="756733",
        origTradeID="76", newField="of tomorrow",
    )  # fmt: skip
    assert (found.codes, found.open_close, found.transaction_type) == ("A;GEA;Zz", "C", "BookTrade")
    assert (found.order_id, found.brokerage_order_id) == ("71", "002a")
    assert (found.fx_rate_to_base, found.underlying_conid) == (0.92, 756733)
    assert (found.trade_id, found.corrects) == ("77", "76")
    assert json.loads(found.attributes or "")["newField"] == "of tomorrow"
    assert found.stated_at == datetime(2026, 3, 6, 6, tzinfo=UTC)


EVENTS = {
    "OptionEAE": (
        {
            "transactionType": "Assignment", "conid": "1", "symbol": "SPY  C", "quantity": "1",
            "underlyingSymbol": "SPY", "date": "20260305", "tradeID": "9", "realizedPnl": "112",
        },
        (EventKind.OPTION_EVENT, "Assignment", 1, 1.0, None, 112.0),
    ),
    "CorporateAction": (
        {
            "type": "FS", "conid": "1", "symbol": "SPY", "dateTime": "20260305;202500",
            "quantity": "300", "actionDescription": "SPLIT 4 FOR 1", "transactionID": "10",
        },
        (EventKind.CORPORATE_ACTION, "FS", 1, 300.0, None, None),
    ),
    "Transfer": (
        {
            "type": "ACATS", "direction": "OUT", "conid": "1", "date": "20260305",
            "quantity": "-100", "transactionID": "11",
        },
        (EventKind.TRANSFER, "ACATS", 1, -100.0, None, None),
    ),
    "CashTransaction": (
        {
            "type": "Broker Interest Paid", "amount": "-12.5", "dateTime": "20260305",
            "conid": "", "transactionID": "12", "levelOfDetail": "DETAIL",
        },
        (EventKind.CASH, "Broker Interest Paid", None, None, -12.5, None),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EVENTS)
def test_each_kind_of_event_is_read(name: str) -> None:
    attributes, expected = EVENTS[name]
    more = element(name, {"accountId": "DUSIM0001", "currency": "USD"} | attributes)
    (found,) = read_statements(statement(more=more), "a.xml")
    one = found.events[0]
    values = (one.kind, one.type, one.conid, one.quantity, one.amount, one.realized_pnl)
    assert values == expected
    assert (one.day, one.account, one.statement) == (date(2026, 3, 5), "DUSIM0001", "a.xml")
    assert json.loads(one.attributes).items() >= {k: v for k, v in attributes.items() if v}.items()


def test_an_event_without_an_id_has_one_of_its_content() -> None:
    fees = [
        element("CashTransaction", {"type": "Other Fees", "amount": text}) for text in ("-1", "-2")
    ]
    (found,) = read_statements(statement(more="".join(fees)), "a.xml")
    (again,) = read_statements(statement(more=fees[0]), "b.xml")
    assert found.events[0].event_id == again.events[0].event_id != found.events[1].event_id


def test_only_a_statement_with_its_trades_says_what_did_not_happen() -> None:
    (found,) = read_statements(statement(), "a.xml")
    covered = period(found)
    assert covered is not None
    assert (covered.first_day, covered.day) == (date(2026, 3, 5), date(2026, 3, 5))
    (silent,) = read_statements(statement().replace(b"<Trades></Trades>", b""), "a.xml")
    assert period(silent) is None


def test_a_statement_that_is_made_again_has_another_period() -> None:
    def covered(generated: str) -> StatementEvent:
        text = statement(first="20260304", last="20260305", generated=generated)
        (found,) = read_statements(text, "a.xml")
        made = period(found)
        assert made is not None
        return made

    early, late = covered("20260305;120000"), covered("20260306;010000")
    assert early.event_id != late.event_id == covered("20260306;010000").event_id
    assert late.stated_at == datetime(2026, 3, 6, 1, tzinfo=NEW_YORK)


def execution(
    name: str, source: str = FLEX, price: float = 1.0, hour: int = 1, **values: object
) -> Execution:
    at = datetime(2026, 3, 6, hour, tzinfo=UTC)
    row = fill(CALL, -1.0, price=price, execution_id=name, source=source, stated_at=at)
    return replace(row, **values)  # type: ignore[arg-type]


CHARGED = execution("0001.01", GATEWAY, commission=1.3)
PARTS = [
    execution("0001.01.01", source, account=account)
    for account in ("DU1", "DU2")
    for source in (GATEWAY, FLEX)
]
CURRENT = {
    "a statement counts before a gateway, whenever it was asked": (
        [execution("0001.01", hour=1), execution("0001.01", GATEWAY, hour=9, price=2.0)],
        [0],
    ),
    "the later statement counts": (
        [execution("0001.01", hour=3, price=3.0), execution("0001.01", hour=1)], [0]
    ),
    "a statement of the correction replaces what the gateway said before": (
        [execution("0001.01.01", GATEWAY), execution("0001.01.02", price=4.0)], [1]
    ),
    "an id without parts has no correction": (
        [execution("77"), execution("78", GATEWAY)], [0, 1]
    ),
    "a later answer without a commission replaces none that has it": (
        [CHARGED, execution("0001.01", GATEWAY, hour=2)], [0]
    ),
    "a later answer with a commission does": (
        [execution("0001.01", GATEWAY, hour=2, commission=2.0), CHARGED], [0]
    ),
    "a statement without a commission does": ([CHARGED, execution("0001.01")], [1]),
    "parts of an allocated order with one id count in each account": (PARTS, [1, 3]),
}  # fmt: skip


@pytest.mark.parametrize("name", CURRENT)
def test_of_several_rows_of_an_execution_one_counts(name: str) -> None:
    rows, expected = CURRENT[name]
    assert current_executions(rows) == [rows[at] for at in expected]


def test_a_trade_that_is_cancelled_and_booked_again_with_its_id_counts_once() -> None:
    cancel = {"tradeID": "", "transactionID": "2", "origTradeID": "77", "notes": "Ca"}
    rows = (
        trade("E1", transactionID="1", quantity="2"),
        trade("", quantity="-2", transactionType="TradeCancel", **cancel),
        trade("E1", transactionID="3", quantity="1"),
    )
    (found,) = read_statements(statement(trades=rows), "a.xml")
    assert sum(one.change for one in current_executions(found.executions)) == 1.0
    (before,) = read_statements(statement(trades=(trade("E1", quantity="2"),)), "before.xml")
    gateway = execution("E1", GATEWAY, account="DUSIM0001")
    known = [*before.executions, *found.executions, gateway]
    assert sum(one.change for one in current_executions(known)) == 1.0
