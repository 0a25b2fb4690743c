"""Lots: first in, first out, through assignments and actions, or as the broker matched them."""

from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from position_sync_dagster.money.campaigns.lots import (
    LotSource,
    TradedLot,
    as_the_broker_matched,
    lots_of,
)
from position_sync_dagster.money.past.closes import EventKind, StatementEvent
from position_sync_dagster.money.past.movements import Movement, MovementKind
from tests.unit.money.campaigns.test_closed_campaigns import (
    OTHER,
    PUT,
    SHARES,
    A,
    leg,
    moved,
    movements_in,
    parts_of,
)


def lots(*movements: Movement, **before: float) -> list[TradedLot]:
    return lots_of(parts_of([*movements], leg(PUT), **before))


def money(lot: TradedLot) -> tuple[float | None, ...]:
    amounts = (lot.cost, lot.proceeds, lot.profit)
    return lot.quantity, *(amount and round(amount, 6) for amount in amounts)


def shares(quantity: float, price: float | None, day: int, **more: object) -> Movement:
    return moved(SHARES, quantity, price, day, **({"fee": 0.0} | more))


def action(conid: int, quantity: float, day: int, cash: float = 0.0, **more: object) -> Movement:
    kind = MovementKind.CORPORATE_ACTION
    return moved(conid, quantity, None, day, kind=kind, cash=cash, fee=0.0, **more)


def test_what_was_opened_first_closes_first_and_a_close_may_take_of_several():
    movements = movements_in("""
         2 trade  100 SHARES at 10 fee=0
         3 trade   50 SHARES at 12 fee=0
        10 trade -120 SHARES at 15 fee=0
        12 trade  -30 SHARES at 9  fee=0
    """)
    oldest, partial, last = closed = lots(*movements)
    assert money(oldest) == (100, 1000, 1500, 500)
    assert money(partial) == (20, 240, 300, 60)
    assert money(last) == (30, 360, 270, -90)
    assert [lot.opened.day for lot in closed] == [2, 3, 3]
    assert [lot.closed.day for lot in closed] == [10, 10, 12]
    assert [lot.days for lot in closed] == [8, 7, 9]


def test_what_was_sold_first_has_a_negative_quantity_and_fees_are_in_both_sides():
    [lot] = lots(*movements_in("2 trade -2 PUT at 5; 6 trade 2 PUT at 3"))
    assert money(lot) == (-2, 601, 999, 398)
    assert lot.fees == 2.0


def test_a_fee_in_another_currency_is_a_lot_of_its_own():
    movements = movements_in("2 trade -2 PUT at 5 fee_currency=EUR; 6 trade 2 PUT at 3")
    lot, fee = lots(*movements)
    assert money(lot) == (-2, 601, 1000, 399)
    assert lot.currency == "USD"
    assert lot.fees == 1.0
    assert money(fee) == (0, 0, -1, -1)
    assert fee.currency == "EUR"
    assert fee.fees == 1.0
    assert fee.closed == date(2026, 3, 2)


def test_a_fee_of_unknown_amount_in_another_currency_is_one_lot_whatever_its_option_delivered():
    sold, end = movements_in("2 trade -1 PUT at 2; 6 assignment 1 PUT at 0")
    _option, fee = lots(sold, replace(end, fee=None, fee_currency="EUR"))
    assert fee.currency == "EUR"
    assert fee.quantity == 0
    assert fee.profit is None
    assert fee.why_unknown == "the fee of XYZ 50P 20Mar26 of 2026-03-06 is not known"


def test_a_trade_through_zero_closes_and_opens():
    closed, held = lots(shares(100, 10, 2), shares(-150, 12, 3))
    assert money(closed) == (100, 1000, 1200, 200)
    assert money(held) == (-50, None, 600, None)
    assert held.closed is None
    assert held.why_unknown is None


def test_an_assignment_closes_the_option_and_opens_shares_through_it():
    opened, assigned, delivered, sale = movements_in("""
        2 trade        -1 PUT    at 2
        6 assignment    1 PUT    at 0
        6 assignment  100 SHARES at 50
        9 trade      -100 SHARES at 49 fee=0
    """)
    option, sold = lots(opened, assigned, replace(delivered, counter_conid=PUT), sale)
    assert money(option) == (-1, 0, 199, 199)
    assert option.closed_by == MovementKind.ASSIGNMENT
    assert money(sold) == (100, 5000, 4900, -100)
    assert sold.opened_by == MovementKind.ASSIGNMENT
    assert sold.opened_through == PUT
    assert sold.closed_through is None


def test_the_cash_of_a_settlement_that_has_a_row_of_its_own_is_of_the_lot():
    sold, end = movements_in("2 trade -1 PUT at 5; 20 cash_settlement 1 PUT at 0")
    cash = replace(end, quantity=0.0, cash=-350.0, movement_id="cash")
    [lot] = lots(sold, end, cash)
    assert money(lot) == (-1, 350, 499, 149)


def test_a_split_keeps_what_lots_cost_and_what_is_paid_for_a_fraction_is_counted():
    movements = movements_in("""
        2 trade    60 SHARES at 10 fee=0
        3 trade    40 SHARES at 20 fee=0
        5 action  300 SHARES       type=FS cash=7
        9 trade  -400 SHARES at 5  fee=0
    """)
    paid, first, second = lots(*movements)
    assert money(paid) == (0, 0, 7, 7)
    assert money(first) == (240, 600, 1200, 600)
    assert money(second) == (160, 800, 800, 0)


def test_what_comes_for_another_contract_was_opened_when_that_was_and_cost_as_much():
    """A new ticker for two shares each: the rows of what came and what went have one time."""
    gone = action(SHARES, -100, 5, type="TC", movement_id="b")
    came = action(OTHER, 50, 5, type="TC", movement_id="a", **STOCK)
    sold = moved(OTHER, -50, 25, 9, fee=0.0, cash=1250.0, **STOCK)
    [lot] = lots(shares(100, 10, 2), gone, came, sold)
    assert money(lot) == (50, 1000, 1250, 250)
    assert lot.conid == OTHER
    assert lot.opened.day == 2


def test_what_divides_one_cost_or_comes_for_nothing_has_an_unknown_cost():
    came = action(OTHER, 50, 5, type="SO", **STOCK)
    gone = moved(OTHER, -50, 3, 9, fee=0.0, cash=150.0, **STOCK)
    sold, lot = lots(shares(100, 10, 2), came, gone)
    assert sold.cost is None
    assert sold.proceeds == 150
    assert sold.profit is None
    assert "a corporate action brought it" in sold.why_unknown
    assert money(lot) == (100, 1000, None, None)


def test_what_was_held_before_all_movements_has_no_day_and_no_cost():
    [lot] = lots(shares(-100, 12, 6), c99=100.0)
    assert lot.opened is None
    assert lot.cost is None
    assert lot.proceeds == 1200
    assert lot.days is None
    assert "it was held before its first movement" in lot.why_unknown


@pytest.mark.parametrize("missing", ["price", "fee"])
def test_a_lot_whose_price_or_fee_is_not_known_has_no_profit(missing):
    bought = shares(100, 10, 2)
    unknown = {"cash": None, "price": None} if missing == "price" else {"fee": None}
    [lot] = lots(replace(bought, **unknown), shares(-100, 12, 6))
    assert lot.cost is None
    assert lot.proceeds == 1200
    assert lot.profit is None
    assert missing in lot.why_unknown


STOCK = {"sec_type": "STK", "multiplier": 1.0, "expiry": None, "right": None, "strike": None}


def stated(quantity: float, cost: float, profit: float, opened: int) -> StatementEvent:
    opened_at = datetime(2026, 3, opened, 15, tzinfo=UTC)
    return StatementEvent(
        event_id=f"TradedLot:{opened}", kind=EventKind.CLOSED_LOT, account=A, conid=SHARES,
        day=date(2026, 3, 10), attributes="{}", source="FLEX", statement="s.xml",
        quantity=quantity, amount=cost, realized_pnl=profit, time=opened_at,
    )  # fmt: skip


def test_the_lots_of_a_statement_count_if_they_are_all_of_a_close():
    """The broker was told to sell what cost most."""
    movements = movements_in("""
         2 trade  100 SHARES at 10 fee=0
         3 trade  100 SHARES at 12 fee=0
        10 trade -100 SHARES at 15 fee=0
    """)
    fifo = lots(*movements)
    closed, held = as_the_broker_matched(fifo, [stated(100, 1201, 298, 3)])
    assert money(closed) == (100, 1201, 1499, 298)
    assert closed.source == LotSource.BROKER
    assert closed.opened.day == 3
    assert closed.days == 7
    assert held.closed is None

    assert as_the_broker_matched(fifo, [stated(60, 720, 180, 3)]) == fifo


def test_a_short_lot_of_a_statement_brought_what_its_opening_did():
    fifo = lots(shares(-100, 15, 3), shares(100, 12, 10))
    [lot] = as_the_broker_matched(fifo, [stated(-100, 1499, 298, 3)])
    assert money(lot) == (-100, 1201, 1499, 298)


def test_fees_in_another_currency_are_lots_beside_those_that_the_broker_matched():
    """The second fee is of the day of the close; the campaign lost both."""
    movements = movements_in("""
         2 trade  100 SHARES at 10 fee=-1 fee_currency=EUR
        10 trade -100 SHARES at 15 fee=-1 fee_currency=EUR
    """)
    fifo = lots(*movements)
    of_broker, *fees = as_the_broker_matched(fifo, [stated(100, 1000, 500, 2)])
    assert of_broker.source == LotSource.BROKER
    assert money(of_broker) == (100, 1000, 1500, 500)
    assert [fee.currency for fee in fees] == ["EUR", "EUR"]
    assert [fee.profit for fee in fees] == [-1, -1]
