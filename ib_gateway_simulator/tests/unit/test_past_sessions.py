"""Past sessions of a book: the same seed gives the same statements, and they end at the book."""

from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from ib_gateway_simulator.books.dates import expiry_after
from ib_gateway_simulator.books.loader import load_book
from ib_gateway_simulator.past_sessions import closing_market, play_sessions
from position_sync_dagster.money.past.flex import read_statements

TODAY = date(2026, 3, 9)
CLOSED_AT = datetime(2026, 3, 6, 21, tzinfo=UTC)
HOLIDAY = date(2026, 2, 16)
ALL_DAYS = [date(2026, 1, 9) + timedelta(days=n) for n in range(57)]
WEEKDAYS = [day for day in ALL_DAYS if day.weekday() < 5]
DAYS = [day for day in WEEKDAYS if day not in (date(2026, 1, 19), HOLIDAY)]


def play(book, *, seed=7):
    return play_sessions(book, DAYS, closing_market(book, CLOSED_AT), seed=seed)


@pytest.fixture(scope="module")
def book():
    return load_book("demo", TODAY)


@pytest.fixture(scope="module")
def past(book):
    return play(book)


@pytest.fixture(scope="module")
def statements(past):
    return [read_statements(content, name)[0] for name, content in past.statements()]


def test_the_same_seed_gives_the_same_statements():
    small = load_book("small")
    first, again, other_seed = (dict(play(small, seed=seed).statements()) for seed in (3, 3, 4))
    assert first == again
    assert first != other_seed


def test_after_the_last_session_holdings_costs_and_cash_are_those_of_the_book(
    book, past, statements
):
    last = statements[-1]
    assert {row.conid: row.position for row in last.positions} == {
        opening.conid: opening.quantity for opening in book.openings
    }
    assert past.costs.keys() == {opening.conid for opening in book.openings}
    assert past.books[-1].cash == {"USD": pytest.approx(book.accounts[0].cash)}


def test_trades_and_ends_explain_how_holdings_change_from_session_to_session(statements):
    assert len(statements) == len(DAYS) == 39
    held = {row.conid: row.position for row in statements[0].positions}
    for statement in statements[1:]:
        for trade in statement.executions:
            held[trade.conid] = held.get(trade.conid, 0.0) + trade.change
        held = {conid: quantity for conid, quantity in held.items() if quantity}
        assert held == {row.conid: row.position for row in statement.positions}


def test_each_campaign_trades_all_its_legs_by_one_order_and_leaves_nothing(past):
    strategy_of = {leg.contract.conid: leg.strategy for leg in past.legs}
    orders = defaultdict(set)
    quantity_left: defaultdict[Any, int] = defaultdict(int)
    for books in past.books:
        for entry in books.entries:
            conid = getattr(entry, "security", None) and entry.security.conid
            if conid in strategy_of:
                quantity_left[conid] += entry.quantity
                orders[books.session, strategy_of[conid]].add(entry.order)
    assert quantity_left.keys() == strategy_of.keys()
    assert not any(quantity_left.values())
    assert len(set(strategy_of.values())) == 8
    traded = [ids for ids in orders.values() if len(ids) > 1]
    assert not traded


def test_a_put_that_is_assigned_brings_shares_which_are_sold_in_the_next_session(past):
    codes = {}
    for books in past.books:
        for entry in books.entries:
            if hasattr(entry, "codes") and ";" in entry.codes:
                code, _side = entry.codes.split(";")
                codes[code] = (books.session, entry)
    assert codes.keys() <= {"A", "Ep"}
    day, delivered = codes["A"]
    following = next(books for books in past.books if books.session > day)
    [sold] = [
        entry for entry in following.entries if entry.security.conid == delivered.security.conid
    ]
    assert sold.quantity == -delivered.quantity
    assert sold.kind == "ExchTrade"


@pytest.mark.parametrize(
    ("day", "weeks", "expiry"),
    [
        (date(2026, 3, 9), 0, date(2026, 3, 13)),
        (date(2026, 3, 12), 0, date(2026, 3, 13)),
        (date(2026, 3, 13), 0, date(2026, 3, 20)),
        (date(2026, 3, 11), 1, date(2026, 3, 20)),
        (date(2026, 3, 11), 3, date(2026, 4, 2)),
    ],
)
def test_an_expiry_is_a_friday_to_come_or_the_trading_day_before(day, weeks, expiry):
    good_friday = date(2026, 4, 3)
    ended = expiry_after(
        day, weeks, lambda candidate: candidate.weekday() < 5 and candidate != good_friday
    )
    assert ended == expiry
