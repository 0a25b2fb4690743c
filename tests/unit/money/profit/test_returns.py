"""What accounts returned, against units of a fund, a bisection and a published number."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from math import prod

import pytest

from position_sync_dagster.money.profit.returns import (
    AccountDay,
    Period,
    PeriodReturn,
    rate_for_a_year,
    returns_of,
)

FIRST = date(2026, 1, 2)
# What a unit of the fund is worth at each close: a rise, a crash, and a recovery.
PRICES = [
    100.0, 104.0, 109.0, 118.0, 131.0, 92.0, 61.0, 55.0, 58.0, 71.0, 70.0, 83.0, 97.0, 96.0, 108.0,
    111.0, 102.0, 105.0, 113.0, 117.0, 116.0, 121.0,
]  # fmt: skip


@dataclass
class Fund:
    """An account that has units of one fund alone, by hand."""

    flows: dict[int, float]
    name: str = "U1"
    units: float = 1_000.0

    def days(self) -> list[AccountDay]:
        """Return its days: what is brought buys at the price before, what is taken sells after."""
        days = []
        for number in range(1, len(PRICES)):
            day = FIRST + timedelta(days=2 * number)
            flow = self.flows.get(number, 0.0)
            before = self.units * PRICES[number - 1]
            self.units += flow / PRICES[number - 1 if flow > 0 else number]
            row = AccountDay(
                account=self.name, currency="USD", day=day, since=day - timedelta(days=2),
                before=before, after=self.units * PRICES[number],
                owner=flow,
            )  # fmt: skip
            days.append(row)
        return days


def bisected(payments: Sequence[tuple[date, float]]) -> float:
    """Return the rate as a spreadsheet finds it: powers of days, halved by hand."""

    def worth(rate: float) -> float:
        return sum(
            paid / (1 + rate) ** ((day - payments[0][0]).days / 365) for day, paid in payments
        )

    low = -0.9999
    high = 1e4
    for _step in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if worth(low) * worth(middle) > 0 else (low, middle)
    return low


# Bought at the top and sold at the bottom; brought right before the fall; taken at the top; many.
FIVE = [
    {}, {4: 400_000.0, 7: -60_000.0}, {5: 1_000_000.0}, {4: -120_000.0, 7: 300_000.0},
    {1: 5_000.0, 6: 80_000.0, 7: 80_000.0, 8: -3_000.0, 15: -200_000.0, 20: 10_000.0},
]  # fmt: skip


@pytest.mark.parametrize("flows", FIVE)
def test_flows_at_bad_moments_change_the_money_weighted_return_alone(flows):
    days = Fund(flows).days()
    [returned] = returns_of(days, Period.ALL)
    assert returned.time_weighted == pytest.approx(1.21 - 1)
    assert returned.deepest_fall == pytest.approx(1 - 55 / 131)
    assert returned.worst_return == pytest.approx(61 / 92 - 1)
    assert returned.worst_on == FIRST + timedelta(days=12)
    assert returned.best_return == pytest.approx(71 / 58 - 1)

    paid = [(FIRST, -100_000.0)]
    paid += [(FIRST + timedelta(days=2 * number), -flow) for number, flow in flows.items()]
    paid.append((days[-1].day, days[-1].after))
    assert returned.money_weighted == pytest.approx(bisected(paid), rel=1e-9)
    assert returned.brought == sum(flows.values())
    assert returned.profit == pytest.approx(days[-1].after - 100_000 - sum(flows.values()))
    assert returned.days == 21
    assert returned.days_known == 21
    assert returned.why_unknown is None


def test_the_example_of_a_spreadsheets_manual_has_its_rate():
    """Source: Microsoft, the function XIRR: 37.3362535 %."""
    payments = """
        2008-01-01 -10000
        2008-03-01   2750
        2008-10-30   4250
        2009-02-15   3250
        2009-04-01   2750
    """
    rows = [row.split() for row in payments.strip().splitlines()]
    flows = [(date.fromisoformat(day), float(amount)) for day, amount in rows]
    assert rate_for_a_year(flows) == pytest.approx(0.373362535, abs=1e-8)


def test_a_rate_that_several_fit_or_none_is_not_known():
    years = [date(2020 + year, 1, 1) for year in range(3)]
    assert rate_for_a_year(list(zip(years, (-100.0, 230.0, -132.0), strict=True))) is None
    assert rate_for_a_year([(years[0], 100.0), (years[1], 110.0)]) is None
    assert rate_for_a_year([(years[0], -100.0), (years[1], 100.0)]) == pytest.approx(0, abs=1e-9)


def test_a_day_that_is_not_known_breaks_its_chains_and_says_so():
    days = Fund({4: 400_000.0}).days()
    days[9] = replace(days[9], before=None, after=None)
    days[14] = replace(days[14], owner=None)
    [returned] = returns_of(days, Period.ALL)
    assert returned.days == 21
    assert returned.days_known == 19
    assert returned.time_weighted is None
    assert returned.money_weighted is None
    assert returned.profit is None
    assert returned.why_unknown == (
        "2026-01-22: no statement says its worth; "
        "2026-02-01: what the owner moved has no known value"
    )

    january, february = returns_of(days, Period.MONTH)
    assert january.time_weighted is None
    assert february.time_weighted is None
    by_day = returns_of(days, Period.DAY)
    assert [row.period for row in by_day if row.time_weighted is None] == [
        "2026-01-22",
        "2026-02-01",
    ]


def test_months_chain_to_the_whole():
    days = Fund(FIVE[4]).days()
    months = returns_of(days, Period.MONTH)
    assert [month.period for month in months] == ["2026-01", "2026-02"]
    assert prod(1 + month.time_weighted for month in months) == pytest.approx(1.21)
    [whole] = returns_of(days, Period.YEAR)
    assert sum(month.profit for month in months) == pytest.approx(whole.profit)


def test_accounts_of_a_currency_are_added_and_what_goes_between_them_is_no_flow():
    """The second account joins in the middle, with what the first one gives it."""
    first = Fund({10: -50_000.0}).days()
    second = Fund({}, "U2", 50_000 / 70).days()[10:]
    euros = [replace(day, account="E1", currency="EUR") for day in Fund({}).days()]
    rows = {
        (row.account, row.currency): row
        for row in returns_of([*first, *second, *euros], Period.ALL)
    }
    assert rows.keys() == {(None, "USD"), ("U1", "USD"), ("U2", "USD"), ("E1", "EUR")}
    together: PeriodReturn = rows[None, "USD"]
    assert together.time_weighted == pytest.approx(0.21)
    assert together.days == 21


def test_what_is_brought_counts_from_the_start_of_its_day_and_what_is_taken_until_its_end():
    day = AccountDay(
        account="U1", currency="USD", day=FIRST, since=FIRST, before=1_000.0, after=2_400.0,
        owner=800.0,
    )  # fmt: skip
    assert day.returned == pytest.approx(2_400 / 1_800 - 1)
    taken = replace(day, after=150.0, owner=-800.0)
    assert taken.returned == pytest.approx(950 / 1_000 - 1)


def test_an_empty_account_neither_gains_nor_loses_and_a_debt_has_no_return():
    day = AccountDay(
        account="U1", currency="USD", day=FIRST, since=FIRST, before=0.0, after=0.0, owner=0.0
    )
    assert day.returned == 0.0
    indebted = replace(day, before=-5.0, after=1.0)
    assert indebted.returned is None
    assert indebted.why_unknown == "nothing was in it"
