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
    booked,
    leg,
    moved,
    parts_of,
)


def lots(*movements: Movement, **before: float) -> list[TradedLot]:
    return lots_of(parts_of([*movements], leg(PUT), **before))


def money(lot: TradedLot) -> tuple[float | None, ...]:
    rounded = [amount and round(amount, 6) for amount in (lot.cost, lot.proceeds, lot.profit)]
    return lot.quantity, *rounded


def shares(quantity: float, price: float | None, day: int, **more: object) -> Movement:
    return moved(SHARES, quantity, price, day, **({"fee": 0.0} | more))


def action(conid: int, quantity: float, day: int, cash: float = 0.0, **more: object) -> Movement:
    kind = MovementKind.CORPORATE_ACTION
    return moved(conid, quantity, None, day, kind=kind, cash=cash, fee=0.0, **more)


def test_what_was_opened_first_closes_first_and_a_close_may_take_of_several():
    closed = lots(shares(100, 10, 2), shares(50, 12, 3), shares(-120, 15, 10), shares(-30, 9, 12))
    assert [money(lot) for lot in closed] == [
        (100, 1000, 1500, 500), (20, 240, 300, 60), (30, 360, 270, -90),
    ]  # fmt: skip
    assert [(lot.opened.day, lot.closed.day, lot.days) for lot in closed] == [
        (2, 10, 8), (3, 10, 7), (3, 12, 9),
    ]  # fmt: skip


def test_what_was_sold_first_has_a_negative_quantity_and_fees_are_in_both_sides():
    [lot] = lots(moved(PUT, -2, 5, 2), moved(PUT, 2, 3, 6))
    assert money(lot) == (-2, 601, 999, 398)
    assert lot.fees == 2.0


def test_a_fee_in_another_currency_is_a_lot_of_its_own():
    lot, fee = lots(moved(PUT, -2, 5, 2, fee_currency="EUR"), moved(PUT, 2, 3, 6))
    assert money(lot) == (-2, 601, 1000, 399)
    assert lot.currency == "USD"
    assert lot.fees == 1.0
    assert money(fee) == (0, 0, -1, -1)
    assert fee.currency == "EUR"
    assert fee.fees == 1.0
    assert fee.closed == date(2026, 3, 2)


def test_a_fee_of_unknown_amount_in_another_currency_is_one_lot_whatever_its_option_delivered():
    end = booked(PUT, 1, 0, 6, MovementKind.ASSIGNMENT)
    _option, fee = lots(moved(PUT, -1, 2, 2), replace(end, fee=None, fee_currency="EUR"))
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
    assigned = booked(PUT, 1, 0, 6, MovementKind.ASSIGNMENT)
    delivered = replace(booked(SHARES, 100, 50, 6, MovementKind.ASSIGNMENT), counter_conid=PUT)
    option, sold = lots(moved(PUT, -1, 2, 2), assigned, delivered, shares(-100, 49, 9))
    assert money(option) == (-1, 0, 199, 199)
    assert option.closed_by == MovementKind.ASSIGNMENT
    assert money(sold) == (100, 5000, 4900, -100)
    assert sold.opened_by == MovementKind.ASSIGNMENT
    assert sold.opened_through == PUT
    assert sold.closed_through is None


def test_the_cash_of_a_settlement_that_has_a_row_of_its_own_is_of_the_lot():
    end = booked(PUT, 1, 0, 20, MovementKind.CASH_SETTLEMENT)
    cash = replace(end, quantity=0.0, cash=-350.0, movement_id="cash")
    [lot] = lots(moved(PUT, -1, 5, 2), end, cash)
    assert money(lot) == (-1, 350, 499, 149)


def test_a_split_keeps_what_lots_cost_and_what_is_paid_for_a_fraction_is_counted():
    split = action(SHARES, 300, 5, cash=7.0, type="FS")
    paid, *sold = lots(shares(60, 10, 2), shares(40, 20, 3), split, shares(-400, 5, 9))
    assert money(paid) == (0, 0, 7, 7)
    assert [money(lot) for lot in sold] == [(240, 600, 1200, 600), (160, 800, 800, 0)]


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
    return StatementEvent(
        event_id=f"TradedLot:{opened}", kind=EventKind.CLOSED_LOT, account=A, conid=SHARES,
        day=date(2026, 3, 10), attributes="{}", source="FLEX", statement="s.xml",
        quantity=quantity, amount=cost, realized_pnl=profit,
        time=datetime(2026, 3, opened, 15, tzinfo=UTC),
    )  # fmt: skip


def test_the_lots_of_a_statement_count_if_they_are_all_of_a_close():
    """The broker was told to sell what cost most."""
    fifo = lots(shares(100, 10, 2), shares(100, 12, 3), shares(-100, 15, 10))
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
    in_euros = {"fee": -1.0, "fee_currency": "EUR"}
    fifo = lots(shares(100, 10, 2, **in_euros), shares(-100, 15, 10, **in_euros))
    of_broker, *fees = as_the_broker_matched(fifo, [stated(100, 1000, 500, 2)])
    assert of_broker.source == LotSource.BROKER
    assert money(of_broker) == (100, 1000, 1500, 500)
    assert [(fee.currency, fee.profit) for fee in fees] == [("EUR", -1), ("EUR", -1)]
