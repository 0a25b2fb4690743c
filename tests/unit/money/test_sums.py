"""Totals in the base currency: two currencies by hand, and each rate missing once."""

from datetime import date

import pytest

from position_sync_dagster.domain.account_values import AccountSummary
from position_sync_dagster.money.campaigns.results import Grouping
from position_sync_dagster.money.campaigns.results_in_base import DayRates, results_in_base
from position_sync_dagster.money.defs.strategies import plots_of
from position_sync_dagster.money.reports.book import Book
from position_sync_dagster.money.reports.money_tables import base_line, money_lines
from position_sync_dagster.money.sums import in_base
from tests.support.money_rows import NOW, book_of, row
from tests.unit.money.campaigns.test_results import campaign

EURO = 100.0, "EUR", 1.0
DOLLAR = -50.0, "USD", 0.8


def test_the_sum_is_by_hand_and_without_a_rate_or_an_amount_there_is_none():
    assert in_base([EURO, DOLLAR, (10.0, "EUR", 1.0)]) == (70.0, None)
    assert in_base([EURO, (-50.0, "USD", None)]) == (None, "no exchange rate of USD is known")
    assert in_base([(1.0, "EUR", None), DOLLAR]) == (None, "no exchange rate of EUR is known")
    neither = in_base([(1.0, "USD", None), (1.0, "EUR", None)])
    assert neither == (None, "no exchange rate of EUR, USD is known")
    assert in_base([EURO, DOLLAR, (None, "USD", 0.8)]) == (None, "the sum in USD is not known")
    assert in_base([(1.0, None, None)])[0] is None


def account(name: str, currency: str | None = "EUR", rates: str | None = '{"USD": 0.8}'):
    return AccountSummary(
        account=name, currency=currency, exchange_rates=rates, timestamp=NOW, rates_received_at=NOW
    )


def book(*accounts: AccountSummary, holders: tuple[str, ...] = ("U1",), **of_euro: object) -> Book:
    rows = []
    for number, name in enumerate(holders):
        common = {"account": name, "underlying_price": 440.0, "position": 2.0}
        of_dollar = {"market_price": 5.0, "market_value": 1000.0, "daily_pnl": -50.0, **common}
        rows.append(row(2 * number + 1, **of_dollar))
        in_euro = {"market_price": 1.5, "market_value": 300.0, "daily_pnl": 20.0} | common
        rows.append(row(2 * number + 2, currency="EUR", **in_euro | of_euro))
    return book_of(rows, (), accounts=accounts)


def test_the_total_of_a_book_is_its_sums_by_the_rates_of_the_broker():
    read_book = book(account("U1"))
    [total] = read_book.in_base
    assert total.account is None
    assert total.currency == "EUR"
    assert total.value == 300.0 + 0.8 * 1000.0
    assert total.daily_pnl == 20.0 + 0.8 * -50.0
    by_currency = {sums.currency: sums.theta for sums in read_book.totals}
    assert total.theta == pytest.approx(by_currency["EUR"] + 0.8 * by_currency["USD"])
    assert total.rates == {"EUR": 1.0, "USD": 0.8}
    assert total.rates_at == NOW
    assert total.why_unknown is None
    assert base_line(total).startswith("all in EUR: value 1,100, unreal ")
    assert base_line(total).endswith("(1 USD = 0.8)")
    assert base_line(total) in money_lines(read_book)
    plots = plots_of(read_book)
    assert plots["daily in EUR"] == -20.0
    assert plots["daily USD"] == -50.0


@pytest.mark.parametrize(
    ("of_account", "missing"),
    [
        (account("U1", rates=None), "USD"),
        (account("U1", rates='{"GBP": 1.2}'), "USD"),
        (account("U1", "USD", None), "EUR"),
        (account("U1", None), "EUR, USD"),
        (account("U2"), "EUR, USD"),
    ],
)
def test_without_a_rate_there_is_no_total_and_the_currency_is_named(of_account, missing):
    [total] = book(of_account).in_base
    assert total.value is total.daily_pnl is total.theta is total.dollar_delta is None
    assert f"no exchange rate of {missing} is known" in (total.why_unknown or "")
    assert base_line(total).split(": ")[1].startswith("not known")


def test_a_sum_that_is_not_known_leaves_the_others():
    [total] = book(account("U1"), daily_pnl=None).in_base
    assert total.daily_pnl is None
    assert total.value == 1100.0
    assert total.why_unknown == "the sum in EUR is not known"


def test_shares_have_no_theta_and_take_none_away():
    without = dict.fromkeys(("right", "strike", "expiry", "delta", "gamma", "vega", "theta"))
    read_book = book(account("U1"), sec_type="STK", **without)
    [total] = read_book.in_base
    of_dollars = next(sums.theta for sums in read_book.totals if sums.currency == "USD")
    assert total.theta == pytest.approx(0.8 * of_dollars)


def test_accounts_of_one_base_currency_have_a_total_and_others_their_own():
    holders = ("U1", "U2", "U3")
    accounts = account("U1"), account("U2"), account("U3", "USD", '{"EUR": 1.25}')
    totals = book(*accounts, holders=holders).in_base
    rows = {(total.account, total.currency): total for total in totals}
    assert [*rows] == [("U1", "EUR"), ("U2", "EUR"), (None, "EUR"), ("U3", "USD")]
    assert rows[None, "EUR"].value == 2200.0
    assert rows["U3", "USD"].value == 1000.0 + 1.25 * 300.0

    without = book(account("U1"), account("U2", rates=None), holders=holders[:2]).in_base[-1]
    assert without.value is None
    assert without.why_unknown == "no exchange rate of USD is known"


def test_a_book_in_its_base_currency_alone_has_its_totals_and_no_other():
    in_dollars = book_of([row(1)], (), accounts=(account("U1", "USD"),))
    assert in_dollars.in_base == []
    assert book_of([row(1)], ()).in_base == []


MARCH = [
    campaign(100.0, 2, account="U1"),
    campaign(-50.0, 3, account="U1"),
    campaign(30.0, 4, account="U1", currency="EUR", campaign_id="e"),
]
RATES = {
    ("U1", date(2026, 3, 2)): {"USD": 0.8},
    ("U1", date(2026, 3, 3)): {"USD": 0.9},
}


def test_results_count_by_the_rates_of_the_day_of_each_close():
    rates = DayRates(bases={"U1": "EUR"}, of_day=RATES)
    [result] = results_in_base(MARCH, Grouping.UNDERLYING, rates)
    assert result.group == "SPY"
    assert result.currency == "EUR"
    assert result.number == 3
    assert result.wins == 2
    assert result.profit == pytest.approx(0.8 * 100 - 0.9 * 50 + 30)
    assert result.fees == pytest.approx(0.8 * 2 + 0.9 * 2 + 2)
    assert result.return_on_risk == pytest.approx(65 / (500 * (0.8 + 0.9 + 1)))
    assert result.drawdown == pytest.approx(45)


def test_a_campaign_with_fees_in_another_currency_is_one():
    fees = campaign(-2.0, 2, account="U1", currency="EUR", capital_at_risk=0.0)
    rates = DayRates(bases={"U1": "EUR"}, of_day=RATES)
    [result] = results_in_base([MARCH[0], fees], Grouping.STRATEGY, rates)
    assert result.number == 1
    assert result.profit == pytest.approx(0.8 * 100 - 2)


@pytest.mark.parametrize("day", [2, 3])
def test_without_the_rate_of_a_day_its_group_has_no_sum(day):
    of_day = {key: rates for key, rates in RATES.items() if key[1].day != day}
    rates = DayRates(bases={"U1": "EUR"}, of_day=of_day)
    [result] = results_in_base(MARCH, Grouping.STRATEGY, rates)
    assert result.profit is None
    assert result.why_unknown == f"s:{day}: no exchange rate of USD is known for 2026-03-0{day}"


def test_groups_that_are_in_the_base_currency_alone_are_left_out():
    rates = DayRates(bases={"U1": "EUR"}, of_day=RATES)
    months = results_in_base([MARCH[2]], Grouping.MONTH, rates)
    assert months == []
    assert results_in_base(MARCH[:2], Grouping.STRATEGY, DayRates({"U1": "USD"}, {})) == []
