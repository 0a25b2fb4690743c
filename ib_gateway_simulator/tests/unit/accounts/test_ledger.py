"""The ledger: average costs, realized profits, assignments and the nightly reset."""

import pytest

from ib_gateway_simulator import ActionError, load_book
from ib_gateway_simulator.accounts.ledger import Ledger

A = "DUSIM0001"
CALL = 921000001
PUT = 921000002
STOCK = 920000001
FUTURE = 920000002
INDEX_PUT = 921000006


def ledger(price: float = 10.0) -> Ledger:
    return Ledger(load_book("small"), lambda conid: price)


COST = 2150.65


@pytest.mark.parametrize(
    ("conid", "quantity", "price", "left", "cost", "realized"),
    [
        (CALL, 5, 20.0, 10, (5 * COST + 5 * 2000.65) / 10, 0),
        (CALL, -2, 30.0, 3, COST, 2 * (2999.35 - COST)),
        (PUT, 1, 10.0, -2, 1398.7, 1398.7 - 1000.65),
        (CALL, -8, 30.0, -3, 2999.35, 5 * (2999.35 - COST)),
    ],
    ids=["more averages the cost", "less keeps it", "a short is bought back", "through zero"],
)
def test_a_fill_changes_the_cost_or_realizes_a_profit(conid, quantity, price, left, cost, realized):
    row = ledger().fill(A, conid, quantity, price)
    assert row.quantity == left
    assert row.average_cost == pytest.approx(cost)
    assert row.realized == pytest.approx(realized)


def test_a_closed_row_stays_until_the_day_ends():
    book = ledger()
    row = book.close(A, CALL)
    assert row.quantity == 0
    assert row.average_cost == 0
    assert book.holding(A, CALL) is not None
    book.reset_day()
    assert book.holding(A, CALL) is None
    assert all(holding.realized is None for holding in book.holdings())
    with pytest.raises(ActionError, match="does not hold"):
        book.close(A, CALL)


def test_what_opens_and_closes_at_one_price_has_lost_both_commissions():
    """A share that IB sold for 0.05 less realized −2.056812, with 1 and 1.006809 of commissions."""
    book = Ledger(load_book("small"), lambda conid: 20.0)
    opened = book.fill("DUSIM0002", STOCK, 1, 20.0, 1.000003)
    assert opened.average_cost == 21.000003
    closed = book.fill("DUSIM0002", STOCK, -1, 19.95, 1.006809)
    assert closed.realized == pytest.approx(-2.056812)


def test_an_expiry_and_a_delivery_have_no_commission():
    book = ledger()
    assert book.expire(A, CALL).realized == pytest.approx(-5 * COST)
    option, _stock = book.assign(A, PUT)
    assert option.realized == pytest.approx(3 * 1398.7)


def test_cash_moves_with_fills_but_not_with_futures():
    book = ledger()
    book.fill(A, CALL, 1, 20.0)
    assert book.cash[A] == 100_000 - 2000.65
    book.fill(A, FUTURE, 1, 6500.0)
    assert book.cash[A] == pytest.approx(100_000 - 2001.3)


def test_an_index_option_settles_in_cash():
    book = ledger()
    book.fill("DUSIM0002", INDEX_PUT, -3, 50.0)
    rows = book.assign("DUSIM0002", INDEX_PUT)
    assert [row.contract.conid for row in rows] == [INDEX_PUT]
    assert rows[0].quantity == 0


def test_a_short_call_assigned_delivers_the_stock():
    book = ledger()
    book.fill(A, CALL, -7, 20.0)
    option, stock = book.assign(A, CALL)
    assert option.quantity == 0
    assert option.realized is not None
    assert stock.contract.conid == STOCK
    assert stock.quantity == 0
    assert stock.realized == pytest.approx(200 * (240 - 201.88))


def test_an_assigned_futures_option_delivers_one_future_per_option():
    _, future = ledger().assign("DUSIM0002", 921000005)
    assert future.contract.conid == FUTURE
    assert future.quantity == 1 + 4
