"""The broker's books: what each booking does to cash and holdings, by sums done by hand."""

from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal as D
from zoneinfo import ZoneInfo

import pytest

from ib_gateway_simulator.clearing.back_office import BackOffice, ClosedBooks, profit_between
from ib_gateway_simulator.clearing.securities import Category, Security

NEW_YORK = ZoneInfo("America/New_York")
MONDAY = date(2026, 3, 2)
TUESDAY = date(2026, 3, 3)
WEDNESDAY = date(2026, 3, 4)

SHARE = Security(conid=1, symbol="ABC", category=Category.STOCK, currency="USD")
INDEX = Security(conid=2, symbol="IDX", category=Category.INDEX, currency="USD")
FUTURE = Security(
    conid=3, symbol="ESH6", category=Category.FUTURE, currency="USD", multiplier=D(50)
)
BOND = Security(conid=4, symbol="T", category=Category.BOND, currency="USD")
PAIR = Security(conid=5, symbol="EUR.USD", category=Category.CURRENCY, currency="USD")


def put(under: Security, strike: int, multiplier: int = 100) -> Security:
    is_on_future = under.category is Category.FUTURE
    return Security(
        conid=10 + under.conid, symbol=f"{under.symbol} P", currency="USD", underlying=under,
        category=Category.FUTURE_OPTION if is_on_future else Category.OPTION,
        multiplier=D(multiplier), strike=D(strike), right="P", expiry="20260303",
    )  # fmt: skip


def at(day: date, hour: int = 10) -> datetime:
    return datetime(day.year, day.month, day.day, hour, tzinfo=NEW_YORK)


@pytest.fixture
def office() -> BackOffice:
    return BackOffice(
        {"A": "USD"}, lambda currency, _base, _day: D("1.1") if currency == "EUR" else D(1)
    )


def closed(office: BackOffice, day: date, prices: Mapping[int, str]) -> ClosedBooks:
    (books,) = office.close(day, lambda security: D(prices[security.conid]))
    return books


def test_a_share_earns_what_its_price_moves_and_costs_its_commission(office):
    first = closed(office, MONDAY, {})
    office.trade("A", SHARE, 100, 220, at(TUESDAY), commission=D("1.5"))
    second = closed(office, TUESDAY, {1: "222.5"})
    assert second.cash == {"USD": -22001.5}
    assert profit_between(first, second) == {"USD": 248.5}


def test_a_commission_in_another_currency_costs_that_currency(office):
    first = closed(office, MONDAY, {})
    office.trade("A", SHARE, 1, 10, at(TUESDAY), commission=2, commission_currency="EUR")
    second = closed(office, TUESDAY, {1: "10"})
    assert profit_between(first, second) == {"EUR": -2, "USD": 0}
    assert second.net_liquidation == D("-2.2")


def test_a_future_pays_its_move_each_day_and_is_worth_nothing(office):
    office.trade("A", FUTURE, 2, 6500, at(MONDAY))
    first = closed(office, MONDAY, {3: "6510"})
    assert first.cash == {"USD": 1000}
    assert first.wealth == {"USD": 1000}
    office.trade("A", FUTURE, -2, 6505, at(TUESDAY))
    second = closed(office, TUESDAY, {3: "6400"})
    assert second.wealth == {"USD": 500}
    assert not second.quantities


def test_an_assigned_put_delivers_shares_at_its_strike(office):
    office.trade("A", put(SHARE, 220), -1, 3, at(MONDAY))
    first = closed(office, MONDAY, {1: "218", 11: "3.5"})
    office.end_option("A", put(SHARE, 220), at(TUESDAY, 16), level=215)
    second = closed(office, TUESDAY, {1: "215", 11: "0"})
    assert second.quantities == {1: 100}
    assert second.cash == {"USD": 300 - 22000}
    assert profit_between(first, second) == {"USD": 350 - 500}


def test_an_option_on_a_future_delivers_one_future(office):
    office.trade("A", put(FUTURE, 6600, 50), -1, 95, at(MONDAY))
    first = closed(office, MONDAY, {3: "6520", 13: "95"})
    office.end_option("A", put(FUTURE, 6600, 50), at(TUESDAY, 16), level=6510)
    second = closed(office, TUESDAY, {3: "6510", 13: "0"})
    assert second.quantities == {3: 1}
    assert profit_between(first, second) == {"USD": 250}


def test_an_option_on_an_index_pays_cash_and_one_out_of_the_money_expires(office):
    office.trade("A", put(INDEX, 6800), -2, 40, at(MONDAY))
    first = closed(office, MONDAY, {12: "30"})
    (ended,) = office.end_option("A", put(INDEX, 6800), at(TUESDAY, 16), level=6750)
    second = closed(office, TUESDAY, {12: "0"})
    assert ended.codes == "A;C"
    assert ended.price == 0
    assert ended.settlement == -10_000
    assert profit_between(first, second) == {"USD": 6000 - 10_000}
    office.trade("A", put(INDEX, 6800), 1, 1, at(WEDNESDAY))
    (ended,) = office.end_option("A", put(INDEX, 6800), at(WEDNESDAY, 16), level=6801)
    assert ended.codes == "Ep;C"
    assert ended.settlement == 0


def test_what_is_reported_on_the_next_session_changes_nothing_before(office):
    office.trade("A", put(SHARE, 220), -1, 3, at(MONDAY))
    evening = at(TUESDAY, 16)
    office.end_option("A", put(SHARE, 220), evening, level=215, report_day=WEDNESDAY)
    tuesday = closed(office, TUESDAY, {1: "215", 11: "5"})
    wednesday = closed(office, WEDNESDAY, {1: "214", 11: "5"})
    assert tuesday.quantities == {11: -1}
    assert wednesday.quantities == {1: 100}
    assert profit_between(tuesday, wednesday) == {"USD": -100}


def test_what_the_owner_moves_and_what_is_converted_is_no_profit(office):
    first = closed(office, MONDAY, {})
    office.pay("A", "Deposits/Withdrawals", 5000, "USD", at(TUESDAY))
    office.transfer("A", SHARE, 50, 11_000, at(TUESDAY))
    office.trade("A", PAIR, 1000, D("1.08"), at(TUESDAY), commission=2)
    second = closed(office, TUESDAY, {1: "221"})
    assert second.cash == {"USD": 5000 - 1082, "EUR": 1000}
    assert profit_between(first, second) == {"EUR": 0, "USD": 50 - 2}


def test_a_transfer_without_a_stated_value_counts_at_the_close(office):
    first = closed(office, MONDAY, {})
    office.transfer("A", SHARE, 50, None, at(TUESDAY))
    second = closed(office, TUESDAY, {1: "221"})
    assert profit_between(first, second) == {"USD": 0}


def test_money_of_a_sunday_and_income_are_profit_of_the_next_session(office):
    first = closed(office, MONDAY, {})
    office.pay("A", "Broker Interest Paid", D("-12.5"), "USD", at(TUESDAY))
    office.pay("A", "Dividends", 100, "USD", at(WEDNESDAY))
    third = closed(office, WEDNESDAY, {})
    assert third.previous == MONDAY
    assert profit_between(first, third) == {"USD": 87.5}


def test_a_bond_is_in_percent_and_a_split_changes_no_wealth(office):
    office.trade("A", BOND, 20_000, D("98.5"), at(MONDAY))
    office.trade("A", SHARE, 10, 400, at(MONDAY))
    first = closed(office, MONDAY, {4: "98.5", 1: "400"})
    assert first.wealth == {"USD": 0}
    office.act("A", {SHARE: 30}, "FS", at(TUESDAY))
    second = closed(office, TUESDAY, {4: "98.75", 1: "100"})
    assert profit_between(first, second) == {"USD": 50}


def test_accruals_are_part_of_net_liquidation_until_they_are_paid(office):
    office.accrue("A", "interestAccruals", 40)
    assert closed(office, MONDAY, {}).net_liquidation == 40
    office.accrue("A", "interestAccruals", -40)
    office.pay("A", "Broker Interest Received", 40, "USD", at(TUESDAY))
    second = closed(office, TUESDAY, {})
    assert second.net_liquidation == 40
    assert second.wealth == {"USD": 40}
