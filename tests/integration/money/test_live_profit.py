"""The profit of a day from what a gateway says: rows, executions, and causes of closes."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from position_sync_dagster.domain.instrument import Right
from position_sync_dagster.domain.leg import ActiveContract
from position_sync_dagster.lake.storage.commits import write as write_rows
from position_sync_dagster.money.past.closes import Cause, Closure, Stage
from position_sync_dagster.money.past.movement_book import MovementBook
from position_sync_dagster.money.past.owned_parts import PostingBook
from tests.support.booked_days import FRIDAY, MONDAY, STOCK, held
from tests.support.contracts import contract_details as details
from tests.support.flex_files import ACCOUNT
from tests.support.legs import leg_rows
from tests.unit.money.past.test_causes import fill
from tests.unit.money.risk.test_scenarios import option, share

FRIDAYS_CLOSE = datetime(2026, 3, 6, 21, tzinfo=UTC)
MONDAYS_CLOSE = datetime(2026, 3, 9, 20, tzinfo=UTC)  # in daylight saving time
NOON = datetime(2026, 3, 9, 16, tzinfo=UTC)
NIGHT = datetime(2026, 3, 7, 4, tzinfo=UTC)


@pytest.fixture
def write(lake) -> Callable[..., None]:
    """Write rows right before a close: conid, position, price, and what differs."""

    def written(kind, closed, conid, position, price, **values):
        size = values.get("multiplier", 100.0 if kind is option else 1.0)
        at = closed - timedelta(minutes=1)
        value = {"market_price": price, "market_value": position * price * size}
        row = kind(
            conid, **value | {"position": position, "timestamp": at, "value_time": at} | values
        )
        lake.updates.sync.append([row])

    return written


def executed(lake, *executions) -> None:
    lake.executions.add(executions)
    MovementBook(lake).update()


def sold(conid, quantity, price, at=NOON, **values):
    usual = {"account": ACCOUNT, "commission": 1.0, "commission_currency": "USD"}
    return fill(conid, quantity, at, price, **usual | values)


def with_leg(lake, leg: ActiveContract) -> None:
    def append(handle) -> None:
        write_rows(handle, leg_rows([leg]), {})

    lake.registry.table.transact(append)


def closure(conid: int, quantity: float, cause: Cause, **values) -> Closure:
    usual = dict(
        change_id=f"c{conid}", account=ACCOUNT, conid=conid, symbol="SPY",
        sec_type="OPT", right=Right.PUT, strike=600.0, expiry=FRIDAY,
        closed_at=NIGHT, quantity=quantity, cause=cause, stage=Stage.PROVISIONAL,
        detail="", currency="USD", judged_at=NIGHT,
    )  # fmt: skip
    return Closure(**usual | values)


def usd(profit: float) -> dict[str, object]:
    """Return what the profit of a day is compared with."""
    return {"USD": pytest.approx(profit)}


def closed(lake, *closures: Closure) -> None:
    lake.closures.add(closures)


def test_a_trade_counts_with_the_multiplier_of_its_contract_and_its_commission(books, lake, write):
    write(share, FRIDAYS_CLOSE, 20, 2.0, 6500.0, sec_type="FUT", multiplier=5.0)
    write(share, MONDAYS_CLOSE, 20, 0.0, 0.0, sec_type="FUT", multiplier=5.0)
    executed(lake, sold(20, -2, 6510.0, sec_type="FUT", multiplier=5.0))
    assert books.profit(MONDAY) == usd(100 - 1)


@pytest.mark.parametrize(("sec_type", "currency"), [("FUT", "USD"), ("OPT", "GBP")])
def test_a_multiplier_or_a_unit_that_nobody_states_is_no_guess(
    books, lake, write, sec_type, currency
):
    write(share, FRIDAYS_CLOSE, 10, 1.0, 220.0)
    write(share, MONDAYS_CLOSE, 10, 1.0, 220.0)
    usual = {"sec_type": sec_type, "currency": currency}
    opening, closing = sold(20, -1, 65.0, **usual), sold(20, 1, 64.0, **usual)
    executed(lake, opening, closing)
    assert books.profit(MONDAY)[currency] is None


def test_a_commission_that_has_not_come_yet_makes_the_profit_unknown(books, lake, write):
    write(share, FRIDAYS_CLOSE, 10, 100.0, 220.0)
    write(share, MONDAYS_CLOSE, 10, 50.0, 221.0)
    sale = sold(10, -50, 222.0, sec_type="STK", commission=None, commission_currency=None)
    executed(lake, sale)
    assert books.profit(MONDAY) == {"USD": None}
    executed(lake, replace(sale, commission=2.0, commission_currency="EUR"))
    assert books.profit(MONDAY) == usd(150.0) | {"EUR": pytest.approx(-2.0)}


def test_a_price_in_pence_is_one_of_pounds(books, lake, write):
    in_pence = {"currency": "GBP", "market_value": 370_000.0 / 100}
    write(share, FRIDAYS_CLOSE, 50, 5000.0, 74.0, **in_pence)
    write(share, MONDAYS_CLOSE, 50, 0.0, 0.0, currency="GBP")
    sale = sold(50, -5000, 74.5, sec_type="STK", currency="GBP", commission_currency="GBP")
    lake.contracts.put([details(50, currency="GBP", price_magnifier=100, multiplier=1.0)])
    executed(lake, sale)
    assert books.profit(MONDAY) == {"GBP": pytest.approx(25.0 - 1)}


@pytest.mark.parametrize(
    ("minutes", "at_close", "profit"), [(30, 100.0, 300 + 20 - 1), (0, 110.0, 330)]
)
def test_a_trade_after_the_close_is_of_the_next_day_and_one_at_the_close_is_not(
    books, lake, write, minutes, at_close, profit
):
    write(share, FRIDAYS_CLOSE, 10, at_close, 220.0)
    write(share, MONDAYS_CLOSE, 10, 110.0, 223.0)
    traded_at = FRIDAYS_CLOSE + timedelta(minutes=minutes)
    executed(lake, sold(10, 10, 221.0, traded_at, sec_type="STK"))
    assert books.profit(MONDAY) == usd(profit)


def test_a_transfer_without_a_time_was_before_the_close_of_its_day(books, lake, write):
    transfer = (
        f'<Transfer accountId="{ACCOUNT}" conid="10" assetCategory="STK" currency="USD" '
        'symbol="SPY" type="ACATS" direction="IN" quantity="50" positionAmount="11000" '
        'date="20260309" reportDate="20260309" transactionID="1" />'
    )
    write(share, FRIDAYS_CLOSE, 10, 100.0, 220.0)
    write(share, MONDAYS_CLOSE, 10, 150.0, 221.0)
    write(share, MONDAYS_CLOSE + timedelta(days=1), 10, 150.0, 222.0)
    books.end_day(MONDAY, held=[held(STOCK, 150, 221)], transfers=[transfer])
    assert books.profit(MONDAY) == usd(100 + 50)
    assert books.profit(MONDAY + timedelta(days=1)) == usd(150)


@pytest.mark.parametrize("time", [";162000", ""])
def test_an_option_that_settled_in_the_morning_ended_before_the_close_that_lacks_it(
    books, lake, write, time
):
    write(option, FRIDAYS_CLOSE, 40, 2.0, 50.0)
    write(share, FRIDAYS_CLOSE, 10, 1.0, 220.0)
    write(option, NOON, 40, 0.0, 0.0)
    write(share, MONDAYS_CLOSE, 10, 1.0, 220.0)
    write(share, MONDAYS_CLOSE + timedelta(days=1), 10, 1.0, 220.0)
    settled = (
        f'<OptionEAE accountId="{ACCOUNT}" conid="40" assetCategory="OPT" currency="USD" '
        'symbol="SPX" putCall="C" strike="600" transactionType="Cash Settlement" quantity="-2" '
        f'multiplier="100" proceeds="11400" dateTime="20260309{time}" tradeID="9" />'
    )
    books.end_day(MONDAY, held=[held(STOCK, 1, 220)], trades=None, events=[settled])
    assert books.profit(MONDAY) == usd(11_400 - 10_000)
    assert books.profit(MONDAY + timedelta(days=1)) == usd(0.0)


def test_an_option_opened_and_closed_within_the_day_is_its_strategys(books, lake, write):
    write(share, FRIDAYS_CLOSE, 10, 1.0, 220.0)
    write(share, MONDAYS_CLOSE, 10, 1.0, 220.0)
    leg = ActiveContract(
        conid=90, symbol="SPY", right=Right.CALL, strike=600.0, expiry=MONDAY,
        strategy_id="0dte", added_at=NOON - timedelta(hours=1), quantity=-1.0,
        removed_at=NOON + timedelta(hours=3),
    )  # fmt: skip
    with_leg(lake, leg)
    opening = sold(90, -1, 2.5, multiplier=100.0)
    closing = sold(90, 1, 1.0, NOON + timedelta(hours=1), multiplier=100.0)
    executed(lake, opening, closing)
    rows = books.explained(MONDAY).select("strategy_id", "profit").rows()
    assert rows == [("0dte", pytest.approx(150 - 2)), ("UNATTRIBUTED", pytest.approx(0.0))]


def test_an_assignment_that_follows_from_a_close_delivers_at_the_strike(books, lake, write):
    write(option, FRIDAYS_CLOSE, 40, -1.0, 11.0)
    write(option, MONDAYS_CLOSE, 40, 0.0, 0.0)
    write(share, MONDAYS_CLOSE, 41, 100.0, 590.0)
    lake.contracts.put([details(40, multiplier=100.0, under_conid=41)])
    closed(lake, closure(40, -1.0, Cause.ASSIGNED, counter_conid=41))
    assert books.profit(MONDAY) == usd(1100 - 1000)


def test_an_option_on_a_future_delivers_one_future(books, lake, write):
    write(option, FRIDAYS_CLOSE, 22, -1.0, 95.0, sec_type="FOP", multiplier=50.0)
    write(option, MONDAYS_CLOSE, 22, 0.0, 0.0, sec_type="FOP", multiplier=50.0)
    write(share, MONDAYS_CLOSE, 21, 1.0, 6510.0, sec_type="FUT", multiplier=50.0)
    lake.contracts.put([details(22, multiplier=50.0, under_conid=21, sec_type="FOP")])
    closed(lake, closure(22, -1.0, Cause.ASSIGNED, sec_type="FOP", strike=6600.0))
    assert books.profit(MONDAY) == usd(250.0)


def test_a_cash_settlement_is_unknown_until_its_price_is(books, lake, write):
    write(option, FRIDAYS_CLOSE, 30, 2.0, 50.0)
    write(option, MONDAYS_CLOSE, 30, 0.0, 0.0)
    lake.contracts.put([details(30, multiplier=100.0, under_conid=31, under_sec_type="IND")])
    settled = closure(30, 2.0, Cause.CASH_SETTLED, right=Right.CALL)
    closed(lake, settled)
    (row,) = books.explained(MONDAY).to_dicts()
    assert row["profit"] is None
    assert row["unexplained"] is None
    closed(lake, replace(settled, price=57.0, judged_at=NIGHT + timedelta(hours=1)))
    assert books.profit(MONDAY) == usd(1400.0)


def test_an_expiry_that_follows_from_a_close_and_the_one_of_the_statement_count_once(
    books, lake, write
):
    write(option, FRIDAYS_CLOSE, 40, -1.0, 0.4)
    write(option, MONDAYS_CLOSE, 40, 0.0, 0.0)
    lake.contracts.put([details(40, multiplier=100.0, under_conid=41)])
    closed(lake, closure(40, -1.0, Cause.EXPIRED_WORTHLESS))
    assert books.profit(MONDAY) == usd(40.0)
    expired = (
        f'<OptionEAE accountId="{ACCOUNT}" conid="40" assetCategory="OPT" currency="USD" '
        'symbol="SPY" putCall="P" strike="600" transactionType="Expiration" quantity="1" '
        'date="20260306" tradeID="9" />'
    )
    books.end_day(FRIDAY, trades=None, events=[expired])
    assert lake.movements.rows()["source"].to_list() == ["STATEMENT"]
    assert books.profit(MONDAY) == usd(40.0)


def test_new_facts_of_recent_days_leave_older_movements_as_they_are(books, lake, write):
    write(share, FRIDAYS_CLOSE, 10, 100.0, 220.0)
    early = sold(10, 1, 221.0, NOON - timedelta(days=90), sec_type="STK")
    executed(lake, early)
    before = lake.movements.rows()
    lake.executions.add([sold(10, 2, 222.0, sec_type="STK")])
    MovementBook(lake).update(since=FRIDAY)
    rows = lake.movements.rows()
    assert rows.head(1).equals(before)
    assert rows["quantity"].to_list() == [1.0, 2.0]
    MovementBook(lake).update()
    assert lake.movements.rows().equals(rows)


def test_what_follows_from_a_cause_alone_is_posted_and_is_no_row_of_movements(lake):
    """What judges closes reads `movements`: it must not find what it has judged itself."""
    lake.contracts.put([details(40, multiplier=100.0, under_conid=41)])
    closed(lake, closure(40, -1.0, Cause.ASSIGNED, counter_conid=41))
    assert lake.movements.rows().is_empty()
    ended = [part for part in PostingBook(lake).postings() if not part.is_prior]
    assert {part.movement.source for part in ended} == {"INFERRED"}
    moved = {part.conid: (part.quantity, part.cash) for part in ended}
    assert moved == {40: (1.0, 0.0), 41: (100.0, -60_000.0)}

    later = NIGHT + timedelta(hours=1)
    closed(lake, closure(40, -1.0, Cause.EXPIRED_WORTHLESS, judged_at=later))
    [expired] = [part for part in PostingBook(lake).postings() if not part.is_prior]
    assert (expired.movement.kind, expired.quantity) == ("EXPIRATION", 1.0)
