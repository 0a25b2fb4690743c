"""The money on a terminal: what fits into 80 columns, and what a wide one shows besides."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import date, datetime, timedelta

import pytest

from position_sync_dagster.domain.position_update import PositionUpdate, PriceKind, ValueOrigin
from position_sync_dagster.lake.schema import rows_of_positions
from position_sync_dagster.money.reports.book import Book, open_positions
from position_sync_dagster.money.reports.money_sums import MoneySum
from position_sync_dagster.money.reports.money_tables import (
    POSITIONS,
    money_lines,
    position_cells,
    sums_table,
)
from position_sync_dagster.terminal.output import fitted_table
from tests.support.holdings import make_holding
from tests.support.legs import leg
from tests.support.money_rows import NOW, book_of, money, row, shown


def sums_shown(heading: str, rows: Iterable[MoneySum], width: int) -> list[str]:
    return shown(fitted_table(*sums_table(heading, rows), width), width)


def strategies_shown(book: Book, width: int) -> list[str]:
    rows = [*book.strategies, *book.rest, *book.totals]
    return sums_shown("strategy", rows, width)


def positions_shown(rows: list[PositionUpdate], width: int, legs: object = ()) -> list[str]:
    cells = position_cells(open_positions(book_of(rows, legs)))
    return shown(fitted_table(POSITIONS, cells, width), width)


LEGS = [leg(1, "iron-condor-with-a-very-long-name"), leg(2, "b"), leg(3, "c")]
ROWS = [row(1), row(2, currency="EUR", daily_pnl=None), row(4)]


@pytest.mark.parametrize("width", [80, 100, 140])
def test_strategies_fit_and_no_currency_is_added_to_another(width):
    lines = strategies_shown(money(ROWS, LEGS), width)
    assert max(map(len, lines)) <= width
    heading, first, second, _, rest, *totals = lines
    for wanted in ("strategy", "legs", "value", "unreal", "daily", "oldest"):
        assert wanted in heading.split()
    assert {"$delta", "theta"} <= set(heading.split()) or width == 80
    assert "-246,900" in next(line for line in lines if line.startswith("iron-con"))
    assert [line.split()[:2] for line in totals] == [["total", "EUR"], ["total", "USD"]]
    assert rest.split()[:3] == ["UNATTRIBUTED", "USD", "1/1"]
    assert ("$gamma" in heading) == (width == 140)
    assert {"7.0", "s"} <= set(first.split() + second.split())


def test_a_sum_says_of_how_many_options_it_is_known_and_notes_what_strategies_lack():
    rows = [row(1), row(2, delta=None, gamma=None, vega=None, theta=None, daily_pnl=None)]
    amounts = money(rows, [leg(1, "a", quantity=-3.0), leg(2, "b", quantity=-1.0)])
    assert money_lines(amounts) == [
        "a: SPY 575P 15Dec28: claims -3, has -2",
        "UNATTRIBUTED: SPY 575P 15Dec28: -1 of -2 in no strategy",
    ]
    *_, total = strategies_shown(amounts, 140)
    assert "-493,800" in total
    assert total.count("known for 1 of 2") == 5


def test_a_sum_has_a_star_while_nine_tenths_of_it_are_known_and_no_number_with_less():
    """A leg of ten shares is as large as any other, by its delta or by the value beneath it."""
    unknown = {"delta": None, "theta": None}
    for missing, shown_text in ((1, "540,000*"), (2, "known for 8 of 10")):
        rows = [row(n, **unknown) if n < missing else row(n) for n in range(10)]
        (total,) = money(rows, []).totals
        assert total.unknown["dollar_delta"] == missing
        assert total.known["theta"] == 10 - missing
        assert total.of["theta"] == 10
        assert shown_text in strategies_shown(money(rows, []), 160)[-1]
        if missing == 2:
            assert total.dollar_delta is None
            assert total.theta is None


def test_many_small_legs_do_not_carry_what_a_large_one_would_move():
    rows = [row(n) for n in range(19)]
    large = row(20, position=-40.0, delta=None)
    assert money([*rows, large], []).totals[0].dollar_delta is None
    daily = row(20, delta=-0.9, position=-40.0, daily_pnl=None)  # by delta, which is known
    assert money([*rows, daily], []).totals[0].daily_pnl is None


def test_the_delta_by_betas_leaves_out_what_has_none_and_is_absent_without_betas():
    rows = [row(1), row(2, symbol="AAPL"), row(3, symbol="XYZ", delta=-0.05)]
    plain = money(rows, [leg(1, "a")])
    assert "β" not in strategies_shown(plain, 160)[0]
    assert "beta_delta" not in plain.totals[0].unknown
    read_book = book_of(rows, [leg(1, "a")], betas={"SPY": 1.0, "AAPL": 1.5})
    (total,) = read_book.totals
    assert total.dollar_delta == 2 * 60_000.0 + 6_000.0
    assert total.beta_delta == 60_000.0 * 2.5
    assert total.unknown["beta_delta"] == 1
    assert "150,000*" in strategies_shown(read_book, 160)[-1]
    assert "β $delta" in sums_shown("underlying", read_book.underlyings, 160)[0]


def test_a_stock_without_a_value_is_missing_in_the_dollar_delta():
    stock = {"sec_type": "STK", "right": None, "strike": None, "expiry": None, "delta": None}
    amounts = money([row(1), row(2, **stock), row(3, **stock, market_value=None)], [])
    (total,) = amounts.totals
    assert "dollar_delta" in total.unknown
    assert not {"theta", "vega", "gamma_1pct"} & {*total.unknown}


@pytest.mark.parametrize(
    ("reported", "note"),
    [
        ({1: -2.0}, None),
        ({1: -3.0}, "1 holding is new or changed"),
        ({1: 0.0, 2: 1.0}, "2 holdings are new or changed"),
    ],
)
def test_the_notes_say_that_the_sums_lack_quantities_that_the_broker_reports(reported, note):
    rows = [
        make_holding(conid, NOW, position=position, account="DUSIM0001")
        for conid, position in reported.items()
    ]
    note = note and f"{note}: the sums have the quantity from before, or nothing"
    read_book = book_of([row(1)], [leg(1, "a")], reported=rows_of_positions(rows, None))
    notes = money_lines(read_book)
    assert [one for one in notes if "changed" in one] == ([note] if note else [])


def test_underlyings_have_dollar_greeks_the_nearest_expiry_and_short_options_in_the_money():
    rows = [
        row(1, underlying_price=500.0),
        row(2, symbol="SPX", expiry=date(2026, 4, 17), underlying_price=None),
    ]
    heading, *lines = sums_shown("underlying", money(rows, []).underlyings, 160)
    for wanted in ("$delta", "$gamma 1%", "theta", "vega", "expiry", "short ITM"):
        assert wanted in heading
    spx, spy = lines
    # 2 short puts: delta 0.5 × 2 × 100 × 500; gamma −0.01 × 2 × 100 × 500² × 1 %
    assert {"SPY", "50,000", "-5,000", "15Dec28", "1"} <= set(spy.split())
    assert {"SPX", "17Apr26"} <= set(spx.split())
    assert "0 + 1?" in spx


def test_a_leg_that_is_not_held_has_dashes_and_no_zeros():
    (line,) = strategies_shown(money([], [leg(3, "c")]), 140)[1:]
    assert line.split()[:3] == ["c", "–", "0/1"]
    assert "0.0" not in line


def test_a_leg_that_is_not_held_yet_counts_in_the_currency_that_it_names():
    legs = [leg(1, "b"), leg(77, "b", currency="USD")]
    [line] = [line for line in strategies_shown(money(ROWS, legs), 140) if line.startswith("b ")]
    assert line.split()[1:3] == ["USD", "1/2"]


@pytest.mark.parametrize("width", [110, 160])
def test_positions_fit_with_greeks_strategy_and_age(width):
    legs = [leg(1, "iron-condor-1", quantity=-1.0), leg(1, "calendar-1")]
    lines = positions_shown(ROWS, width, legs)
    assert max(map(len, lines)) <= width
    heading, first, *_ = lines
    for wanted in ("leg", "qty", "value", "unreal", "delta", "theta", "strategy", "age"):
        assert wanted in heading.split()
    assert "SPY 575P 15Dec28" in first
    assert "calendar-1,iron-condor-1" in first
    assert "7.0 s" in first
    assert ("source" in heading) == (width == 160)


def test_an_age_that_is_not_known_makes_the_oldest_unknown():
    rows = [row(1), row(2, timestamp=NOW + timedelta(days=1))]
    (strategy,) = money(rows, [leg(1, "a"), leg(2, "a")]).strategies
    assert strategy.oldest_age_s is None


LINE = {"value_source": ValueOrigin.TICK, "price_kind": PriceKind.MARK}


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def test_the_age_is_that_of_the_price_and_greeks_have_their_own():
    both = [
        row(1, **LINE, timestamp=ago(1), value_time=ago(50), greeks_time=ago(1)),
        row(2, **LINE, timestamp=ago(1), value_time=ago(1), greeks_time=None),
    ]
    _heading, first, second = positions_shown(both, 100)
    assert "50 s" in first
    assert "1.0 s" in second
    ages = open_positions(book_of(both, [])).select("age_s", "greeks_age_s")
    assert ages.rows() == [(50.0, 1.0), (1.0, None)]


@pytest.mark.parametrize("width", [80, 140])
def test_a_price_of_delayed_data_says_so_in_each_table(width):
    rows = [
        row(1, **LINE, market_data_type=3, value_time=None, greeks_time=None),
        row(2, **LINE, value_time=ago(1), greeks_time=ago(1)),
    ]
    strategies = strategies_shown(money(rows, [leg(1, "a"), leg(2, "b")]), width)
    for _heading, delayed, live, *_totals in (positions_shown(rows, width), strategies):
        assert "delayed" in delayed
        assert ("delayed" in live) is False
        assert "1.0 s" in live
    assert "delayed" in strategies[-1]


def test_the_value_of_a_future_is_notional_and_in_no_total():
    rows = [row(1), row(2, sec_type="FUT", right=None, strike=None, market_value=9e6)]
    heading, future, _option = positions_shown(rows, 200)
    assert "notional" in heading
    assert "9,000,000" in future
    (total,) = money(rows, [leg(1, "a"), leg(2, "a")]).totals
    assert total.value == -246_900.0, "it leaves out nothing"
    assert "value" not in total.unknown, "it leaves out nothing"
    rows[1] = replace(rows[1], sec_type="STK", market_value=None)
    (total,) = money(rows, [leg(1, "a"), leg(2, "a")]).totals
    assert total.value is None
    assert total.unknown["value"] == 1
    assert total.known["value"] == 1
