"""Generated statements: the same seed gives the same files, and they end at the book."""

from datetime import date

from ib_gateway_simulator.books.loader import load_book
from ib_gateway_simulator.statements import write_statements
from position_sync_dagster.gateway.flex import read_statements

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
