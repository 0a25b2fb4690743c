"""Generated statements: the same seed gives the same files, and they end at the book."""

from datetime import date, timedelta

import pytest

from ib_gateway_simulator.books.loader import load_book
from ib_gateway_simulator.statements import write_statements
from position_sync_dagster.money.past.flex import read_statements

DAYS = [date(2026, 3, 4), date(2026, 3, 5), date(2026, 3, 6)]


def test_the_same_seed_gives_the_same_statements(tmp_path):
    book = load_book("small")
    first = write_statements(book, DAYS, tmp_path / "a", seed=3)
    again = write_statements(book, DAYS, tmp_path / "b", seed=3)
    other = write_statements(book, DAYS, tmp_path / "c", seed=4)
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    assert [path.read_bytes() for path in first] != [path.read_bytes() for path in other]


def test_after_the_last_day_the_holdings_are_those_of_the_book(tmp_path):
    book = load_book("demo")
    *_, path = write_statements(book, DAYS, tmp_path)
    (last,) = read_statements(path.read_bytes(), path.name)
    held = {one.conid: one.quantity for one in book.openings if one.quantity}
    assert {one.conid: one.position for one in last.positions} == held


def test_trades_explain_how_holdings_change_from_day_to_day(tmp_path):
    paths = write_statements(load_book("demo"), DAYS, tmp_path)
    before, after = (read_statements(path.read_bytes(), path.name)[0] for path in paths[-2:])
    held = {one.conid: one.position for one in before.positions}
    for trade in after.executions:
        sign = 1 if trade.side == "BUY" else -1
        held[trade.conid] = held.get(trade.conid, 0.0) + sign * trade.quantity
    expected = {one.conid: one.position for one in after.positions}
    assert {conid: quantity for conid, quantity in held.items() if quantity} == expected


def test_the_orders_of_past_sessions_are_trades_of_their_day_and_leave_the_book(tmp_path):
    book = load_book("demo")
    days = [date(2026, 3, 2) + timedelta(days=n) for n in range(10)]
    statements = [
        read_statements(path.read_bytes(), path.name)[0]
        for path in write_statements(book, days, tmp_path)
    ]
    spread = {916000001, 916000005}
    of_spread = [
        (statement.last, trade.conid, trade.change, trade.order_id, trade.realized_pnl)
        for statement in statements
        for trade in statement.executions
        if trade.conid in spread
    ]
    opened, closed = of_spread[:2], of_spread[2:]
    assert [row[:3] for row in opened] == [(days[1], 916000001, 2.0), (days[1], 916000005, -2.0)]
    assert [row[:3] for row in closed] == [(days[6], 916000001, -2.0), (days[6], 916000005, 2.0)]
    assert len({row[3] for row in opened}) == len({row[3] for row in closed}) == 1
    assert [row[4] for row in opened] == [0.0, 0.0]
    price = {
        (statement.last, trade.conid): trade.price
        for statement in statements
        for trade in statement.executions
    }
    gain = price[days[6], 916000001] - price[days[1], 916000001]
    assert closed[0][4] == pytest.approx(200 * gain, abs=0.02)
    held = [{one.conid for one in statement.positions} & spread for statement in statements]
    assert held == [set(), *[spread] * 5, *[set()] * 4]
