"""Activity statements: the program reads what the books of the broker have."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from xml.etree import ElementTree as Xml

import pytest
import time_machine

from ib_gateway_simulator.clearing.activity_statement import CASH, POSITIONS, statement_xml
from ib_gateway_simulator.clearing.back_office import BackOffice
from ib_gateway_simulator.clearing.securities import Category, Security
from position_sync_dagster.money.past.closes import EventKind, Statement
from position_sync_dagster.money.past.flex import read_statements
from tests.year.actions import MERGER_DAY
from tests.year.book import Book
from tests.year.broker import ENDED_AT, A, B, Broker, Delivery
from tests.year.events import SECOND_QUERY, let_pass
from tests.year.exchanges import FIRST, NEW_YORK, sessions_between
from tests.year.market import SPX, D, forget_options, option

SESSIONS = sessions_between(FIRST, MERGER_DAY)


def played(sessions: Sequence[date], seed: int = 1) -> Broker:
    """Return the broker after some sessions."""
    forget_options()
    broker = Broker(seed)
    book = Book(seed, count=12)
    for session in sessions:
        let_pass(broker, book, session, seed)
    return broker


@pytest.fixture(autouse=True)
def _the_sessions_are_past() -> Iterator[None]:
    """Set the clock: a statement from the future is refused."""
    with time_machine.travel(datetime.combine(MERGER_DAY, ENDED_AT, NEW_YORK) + timedelta(days=9)):
        yield


@pytest.fixture(scope="module")
def broker() -> Broker:
    """Return the broker after all sessions, with options that end, a split and a merger."""
    return played(SESSIONS)


def parsed(file: Delivery) -> Xml.Element:
    return Xml.fromstring(file.content)  # noqa: S314 - this project wrote it


def net_liquidation_of(statement: Statement) -> float | None:
    (worth,) = [event for event in statement.events if event.kind is EventKind.NET_LIQUIDATION]
    return worth.amount


@pytest.mark.parametrize("account", [A, B])
def test_each_statement_is_read_whole_and_has_what_the_books_hold(broker, account):
    for books in broker.closed[account]:
        file = broker.statement(account, books.session)
        (statement,) = read_statements(file.content, file.name)
        assert statement.left_out == ()
        held = {
            position.conid: (position.position, position.market_price)
            for position in statement.positions
        }
        marks = books.marks
        assert held == {
            conid: (float(quantity), float(marks[conid]))
            for conid, quantity in books.quantities.items()
        }
        worth = float(books.net_liquidation)
        assert net_liquidation_of(statement) == pytest.approx(worth, abs=1e-6)


@pytest.mark.parametrize("account", [A, B])
def test_trades_actions_and_transfers_explain_each_change_of_a_holding(broker, account):
    held: Counter[int] = Counter()
    for books in broker.closed[account]:
        file = broker.statement(account, books.session)
        (statement,) = read_statements(file.content, file.name)
        for trade in statement.executions:
            if trade.sec_type != "CASH":
                held[trade.conid] += trade.change
        for event in statement.events:
            if event.kind in ("CORPORATE_ACTION", "TRANSFER"):
                held[event.conid] += event.quantity
        stated = {position.conid: position.position for position in statement.positions}
        assert {conid: quantity for conid, quantity in held.items() if quantity} == stated


def test_a_query_leaves_out_sections_and_fields_and_names_the_same_trades(broker):
    first = SESSIONS[9]
    last = SESSIONS[11]
    usual = parsed(broker.statement(A, first, last))
    shortened = parsed(broker.statement(A, first, last, query=SECOND_QUERY))
    assert shortened.find(".//Transfers") is None
    assert "transactionID" not in shortened.find(".//Trade").attrib
    assert date.fromisoformat(shortened.find(".//Trade").get("tradeDate")) >= first
    ids = [[row.get("ibExecID") for row in one.iter("Trade")] for one in (usual, shortened)]
    assert ids[0]
    assert ids[0] == ids[1]
    fewer = replace(SECOND_QUERY, sections=frozenset({POSITIONS, CASH}))
    assert parsed(broker.statement(A, last, query=fewer)).find(".//Trade") is None


def test_an_option_on_an_index_is_closed_at_zero_and_paid_by_a_row_of_its_own():
    broker = Broker(seed=1)
    broker.session = FIRST
    broker.market.move(FIRST)
    put = option(SPX, FIRST, "P", 6850)
    broker.trade(A, put, -1)
    broker.office.end_option(A, put, broker.at(ENDED_AT), level=D("6812.34"))
    broker.close()

    root = parsed(broker.statement(A, FIRST))
    rows = root.findall(".//OptionEAE/OptionEAE")
    ends = [(row.get("transactionType"), row.get("proceeds")) for row in rows]
    assert ends == [("Assignment", "0"), ("Cash Settlement", "-3766")]
    closed = [row for row in root.iter("Trade") if row.get("notes") == "A;C"]
    assert [(row.get("tradePrice"), row.get("transactionType")) for row in closed] == [
        ("0", "BookTrade")
    ]


def test_bonds_and_bills_are_quoted_in_percent_of_their_face_value():
    office = BackOffice({A: "USD"}, lambda *_pair: D(1))
    at = datetime.combine(FIRST, ENDED_AT, NEW_YORK)
    for conid, category in ((8001, Category.BOND), (8002, Category.BILL)):
        bond = Security(conid=conid, symbol=f"T {conid}", category=category, currency="USD")
        office.trade(A, bond, D(20_000), D("98.5"), at, commission=D(5))
    books = office.close(FIRST, lambda _security: D("98.75"))

    content = statement_xml(books, office.securities, made=at)
    (statement,) = read_statements(content, "statement.xml")
    assert statement.left_out == ()
    assert net_liquidation_of(statement) == pytest.approx(2 * (20_000 * 0.0025 - 5))


def test_the_same_seed_gives_the_same_statements():
    files = [played(SESSIONS[:2], seed).statement(A, SESSIONS[1]).content for seed in (1, 1, 2)]
    assert files[0] == files[1] != files[2]
