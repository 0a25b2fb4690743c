"""Activity statements: the program reads what the books of the broker have."""

from collections import Counter
from dataclasses import replace
from xml.etree import ElementTree as Xml

import pytest

from ib_gateway_simulator.clearing.activity_statement import CASH, POSITIONS
from position_sync_dagster.gateway.flex import read_statements
from tests.support.month.broker import A, B, Broker, Delivery
from tests.support.month.script import MONTH, SECOND_QUERY


@pytest.fixture(scope="module")
def broker() -> Broker:
    """Return the broker after all sessions."""
    played = Broker()
    for session in MONTH.sessions:
        MONTH.play(played, session)
    return played


def parsed(file: Delivery) -> Xml.Element:
    return Xml.fromstring(file.content)  # noqa: S314 - this project wrote it


@pytest.mark.parametrize("account", [A, B])
def test_each_statement_is_read_whole_and_has_what_the_books_hold(broker, account):
    for books in broker.closed[account]:
        file = broker.statement(account, books.session)
        (found,) = read_statements(file.content, file.name)
        assert found.left_out == ()
        held = {one.conid: (one.position, one.market_price) for one in found.positions}
        marks = books.marks
        assert held == {
            conid: (float(quantity), float(marks[conid]))
            for conid, quantity in books.quantities.items()
        }
        (summary,) = found.cash
        assert summary.net_liquidation == pytest.approx(float(books.net_liquidation), abs=1e-6)


@pytest.mark.parametrize("account", [A, B])
def test_trades_actions_and_transfers_explain_each_change_of_a_holding(broker, account):
    held: Counter[int] = Counter()
    for books in broker.closed[account]:
        file = broker.statement(account, books.session)
        (found,) = read_statements(file.content, file.name)
        for trade in found.executions:
            if trade.sec_type != "CASH":
                held[trade.conid] += trade.change
        for event in found.events:
            if event.kind in ("CORPORATE_ACTION", "TRANSFER"):
                held[event.conid] += event.quantity
        stated = {one.conid: one.position for one in found.positions}
        assert {conid: quantity for conid, quantity in held.items() if quantity} == stated


def test_a_query_leaves_out_sections_and_fields_and_names_the_same_trades(broker):
    first, last = MONTH.sessions[9], MONTH.sessions[11]
    usual = parsed(broker.statement(A, first, last))
    other = parsed(broker.statement(A, first, last, query=SECOND_QUERY))
    assert other.find(".//Transfers") is None
    assert "transactionID" not in other.find(".//Trade").attrib
    assert other.find(".//Trade").get("tradeDate") == "2025-12-29"
    ids = [[row.get("ibExecID") for row in one.iter("Trade")] for one in (usual, other)]
    assert ids[0] == ids[1]
    fewer = replace(SECOND_QUERY, sections=frozenset({POSITIONS, CASH}))
    assert parsed(broker.statement(A, last, query=fewer)).find(".//Trade") is None


def test_an_option_on_an_index_is_closed_at_zero_and_paid_by_a_row_of_its_own(broker):
    root = parsed(broker.statement(A, MONTH.sessions[2]))
    rows = root.findall(".//OptionEAE/OptionEAE")
    ends = [(row.get("transactionType"), row.get("proceeds")) for row in rows]
    assert ends == [("Assignment", "0"), ("Cash Settlement", "-3766"), ("Expiration", "0")]
    closed = [row for row in root.iter("Trade") if row.get("notes") == "A;C"]
    assert [(row.get("tradePrice"), row.get("transactionType")) for row in closed] == [
        ("0", "BookTrade")
    ]


def test_the_same_seed_gives_the_same_statements():
    files = []
    for seed in (1, 1, 2):
        broker = Broker(seed)
        for session in MONTH.sessions[:2]:
            MONTH.play(broker, session)
        files.append(broker.statement(A, MONTH.sessions[1]).content)
    assert files[0] == files[1] != files[2]
