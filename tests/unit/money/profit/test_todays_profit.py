"""Why today's profit is what it is, against numbers by hand."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from position_sync_dagster.domain.leg import UNATTRIBUTED, ActiveContract
from position_sync_dagster.domain.position_update import PositionUpdate
from position_sync_dagster.lake.schema import DAILY_POSITIONS, rows_of_positions
from position_sync_dagster.money.past.movements import MovementKind, Section
from position_sync_dagster.money.profit.moved_between import TradingDay
from position_sync_dagster.money.profit.profit import BY_GREEKS, PROFIT_PARTS
from position_sync_dagster.money.profit.todays_profit import (
    TodaysProfit,
    day_and_close_before,
    explained,
)
from position_sync_dagster.money.reports.changes import Day
from position_sync_dagster.money.reports.figures import Figures
from position_sync_dagster.money.tables import MOVEMENTS
from position_sync_dagster.money.trading_days import day_began
from position_sync_dagster.settings import Settings
from tests.support.holdings import make_holding
from tests.support.legs import leg
from tests.support.money_rows import book_of, row
from tests.unit.money.past.test_causes import ACCOUNT as OWNER
from tests.unit.money.reports.test_changes import trade

NOW = datetime(2026, 3, 9, 15, 0, tzinfo=UTC)  # 11:00 in New York, in daylight saving time
FRIDAY = date(2026, 3, 6)
MONDAY = date(2026, 3, 9)
CLOSE = datetime(2026, 3, 6, 21, tzinfo=UTC)
DAYS = 66 / 24
FAR = date(2026, 6, 19)
ACCOUNT = "DUSIM0001"

PUT_ON_SPY: dict[str, Any] = {
    "symbol": "SPY", "sec_type": "OPT", "right": "PUT", "strike": 600.0, "expiry": FAR,
    "multiplier": 100.0,
}  # fmt: skip
GREEKS: dict[str, Any] = {
    "underlying_price": 600.0, "implied_vol": 0.2, "delta": -0.5, "gamma": 0.01, "vega": 1.0,
    "theta": -0.2,
}  # fmt: skip
SHARE: dict[str, Any] = dict.fromkeys(["right", "strike", "expiry", *GREEKS])
SHARE |= {"sec_type": "STK", "multiplier": 1.0}


def at_close(conid: int, position: float, price: float, **values: Any) -> dict[str, Any]:
    holding: dict[str, Any] = {
        "account": ACCOUNT, "conid": conid, "currency": "USD", "position": position,
        "source": "STREAM", "market_price": price, "session_date": FRIDAY, "magnifier": 1.0,
    }  # fmt: skip
    chosen = holding | PUT_ON_SPY | GREEKS | values
    return {"market_value": position * price * chosen["multiplier"]} | chosen


def held(conid: int, position: float, price: float, today: float | None, **values: Any):
    usual: dict[str, Any] = {
        "position": position, "market_price": price, "daily_pnl": today, "strike": 600.0,
        "expiry": FAR, "implied_vol": 0.2, "source": "STREAM", "sec_type": "OPT",
    }  # fmt: skip
    size = values.get("multiplier", 100.0)
    return row(conid, **usual | {"market_value": position * price * size} | values)


def moved(conid: int, by: float, price: float, **values: Any) -> dict[str, Any]:
    trade = {
        "movement_id": f"m{conid}{by:+g}", "account": ACCOUNT, "symbol": "SPY", "sec_type": "OPT",
        "kind": MovementKind.TRADE, "section": Section.TRADES, "conid": conid,
    }  # fmt: skip
    amounts = {"quantity": by, "price": price, "cash": -by * price * 100.0, "currency": "USD"}
    fee = {"fee": -1.0, "fee_currency": "USD"}
    times = {"day": MONDAY, "session_date": MONDAY, "at": NOW - timedelta(hours=1)}
    return trade | amounts | fee | times | values


def rows_of(
    before: list[dict[str, Any]],
    now: list[PositionUpdate],
    movements: list[dict[str, Any]] = [],  # noqa: B006 - never changed
    legs: list[ActiveContract] = [],  # noqa: B006
    day: Day = Day(since=NOW),  # noqa: B008
    **of_book: Any,
) -> list[TodaysProfit]:
    schema = {**DAILY_POSITIONS.polars, "magnifier": pl.Float64()}
    opening = pl.DataFrame(before, schema=schema)
    book = book_of(now, legs, **of_book)
    figures = Figures(status=None, book=book, day=day)  # type: ignore[arg-type]
    frame = pl.DataFrame(movements, schema=MOVEMENTS.polars)
    so_far = TradingDay(MONDAY, FRIDAY, CLOSE, book.now)
    profits = explained(figures, so_far, opening, frame, Settings())

    for strategy in profits:
        parts = [getattr(strategy, name) for name in PROFIT_PARTS]
        if None not in parts:
            assert sum(parts) == pytest.approx(strategy.profit, abs=1e-9)
        else:
            assert parts[4] is None  # the repricing, as soon as a greek is
            assert strategy.why_unknown
    return profits


def parts_of(todays_profit: TodaysProfit, *names: str) -> list[float]:
    return [getattr(todays_profit, name) for name in names]


def test_a_kept_option_is_split_by_the_greeks_of_the_close() -> None:
    # 594 is 6 below the close, 21 % a point above it, and 1.75 days are over.
    now = held(1, -2.0, 15.1, -620.0, underlying_price=594.0, implied_vol=0.21)
    (row,) = rows_of([at_close(1, -2.0, 12.0)], [now])
    delta = -200 * -0.5 * -6
    gamma = -200 * 0.01 * 36 / 2
    vega = -200 * 1.0 * 1
    theta = -200 * -0.2 * DAYS

    assert row.delta == pytest.approx(delta)
    assert row.gamma == pytest.approx(gamma)
    assert row.vega == pytest.approx(vega)
    assert row.theta == pytest.approx(theta)
    assert row.repricing == pytest.approx(-620 - delta - gamma - vega - theta)
    assert row.unexplained == pytest.approx(0.0)
    assert row.profit == (-620.0)
    assert row.strategy == UNATTRIBUTED
    assert row.left_out == 0

    (largest,) = row.largest["delta"]
    assert largest.leg == "SPY 600P 19Jun26"
    assert largest.amount == pytest.approx(-600.0)


def test_the_broker_counts_from_another_closing_price() -> None:
    now = held(1, -2.0, 12.0, -30.0)
    (row,) = rows_of([at_close(1, -2.0, 12.0)], [now])
    assert row.unexplained == pytest.approx(-30.0)


def test_a_leg_opened_today_and_a_part_that_was_sold_earn_from_the_price_of_the_trade() -> None:
    opened = held(1, -1.0, 9.0, 100.0)
    reduced = held(2, 1.0, 13.0, 100.0 + 200.0)  # one kept from 12 to 13, one sold at 14
    trades = [moved(1, -1.0, 10.0), moved(2, -1.0, 14.0)]
    (row,) = rows_of([at_close(2, 2.0, 12.0)], [opened, reduced], trades)
    assert row.trades == pytest.approx(100.0 + 100.0)
    assert row.fees == pytest.approx(0.0)
    assert row.unexplained == pytest.approx(0.0)
    assert [leg.conid for leg in row.largest["trades"]] == [1, 2]


def test_shares_that_an_assignment_left_earn_from_the_strike() -> None:
    now = held(5, 100.0, 594.0, -600.0, **SHARE)
    assignment = {"kind": MovementKind.ASSIGNMENT, "fee": 0.0}
    ended = moved(1, 1.0, 0.0, cash=0.0, **assignment)
    delivered = moved(5, 100.0, 600.0, cash=-60_000.0, sec_type="STK", **assignment)
    (row,) = rows_of([at_close(1, -1.0, 5.0)], [now], [ended, delivered])
    assert row.assignments == pytest.approx(-600.0)
    assert row.profit == pytest.approx(-600.0)


def test_currencies_and_strategies_have_rows_of_their_own_and_a_shared_leg_is_divided() -> None:
    in_euros = {"currency": "EUR", "right": "CALL"}
    before = [at_close(1, -2.0, 12.0), at_close(2, 1.0, 12.0, **in_euros)]
    now = [held(1, -2.0, 11.0, 200.0), held(2, 1.0, 11.5, -50.0, **in_euros)]
    legs = [leg(1, "a", strike=600.0, expiry=FAR, quantity=-0.5)]
    of_euros, of_dollars, of_strategy = rows_of(before, now, legs=legs)

    assert of_euros.strategy == UNATTRIBUTED
    assert of_euros.currency == "EUR"
    assert of_euros.profit == -50.0
    assert of_dollars.strategy == UNATTRIBUTED
    assert of_dollars.currency == "USD"
    assert of_dollars.profit == 150.0

    assert of_strategy.strategy == "a"
    assert of_strategy.currency == "USD"
    assert of_strategy.profit == 50.0
    theta = -200 * -0.2 * DAYS
    assert of_strategy.theta == pytest.approx(theta / 4)


def test_a_weekend_and_a_holiday_count_from_the_last_close() -> None:
    sunday = datetime(2026, 3, 8, 15, tzinfo=UTC)
    assert day_and_close_before("XNYS", sunday)[1:] == (FRIDAY, CLOSE)
    after_christmas = datetime(2026, 12, 26, 3, tzinfo=UTC)  # the evening of Christmas
    assert day_and_close_before("XNYS", after_christmas)[1] == date(2026, 12, 24)
    late = datetime(2026, 3, 10, 3, tzinfo=UTC)  # Monday evening in New York
    assert day_and_close_before("XNYS", late) == (MONDAY, FRIDAY, CLOSE)
    assert timedelta(days=DAYS) == NOW - CLOSE


@pytest.mark.parametrize(
    ("close", "now"),
    [
        (dict.fromkeys(("delta", "gamma", "vega", "theta")), {}),
        ({"underlying_price": None}, {}),
        ({}, {"underlying_price": None}),
        ({}, {"implied_vol": None}),
    ],
)
def test_what_greeks_do_not_split_of_the_only_leg_is_in_no_part(close, now) -> None:
    present = held(1, 2.0, 24.0, 800.0, **{"underlying_price": 590.0} | now)
    (row,) = rows_of([at_close(1, 2.0, 20.0, **close)], [present])
    assert row.repricing is None
    assert None in parts_of(row, *BY_GREEKS)
    assert parts_of(row, "profit", "trades", "unexplained") == pytest.approx([800, 0, 0])
    assert "too few legs have greeks" in str(row.why_unknown)


@pytest.mark.parametrize(
    ("before", "why"),
    [
        (at_close(1, 2.0, 12.0, market_value=None), "its value at the close before"),
        (at_close(1, 1.0, 12.0), "what moved 1.0"),
    ],
)
def test_a_number_that_is_not_known_makes_the_parts_unknown_and_never_the_profit(
    before, why
) -> None:
    (row,) = rows_of([before], [held(1, 2.0, 13.0, 100.0)])
    assert row.profit == 100.0
    assert row.delta is None
    assert row.why_unknown == f"SPY 600P 19Jun26: {why}"


def test_an_account_without_a_close_says_so_and_leaves_the_others_known() -> None:
    other = held(2, -1.0, 5.0, 60.0, account="DUSIM0002")
    rows = rows_of([at_close(1, 2.0, 12.0)], [held(1, 2.0, 13.0, 200.0), other])
    with_close, without_close = rows
    assert with_close.account == ACCOUNT
    assert with_close.theta is not None
    assert without_close.account == "DUSIM0002"
    assert without_close.theta is None
    assert "the close of 2026-03-06 is not recorded" in str(without_close.why_unknown)


def test_a_profit_of_the_day_that_is_not_known_is_left_out_of_all_numbers() -> None:
    before = [at_close(1, 20.0, 12.0), at_close(2, 1.0, 3.0)]
    (row,) = rows_of(before, [held(1, 20.0, 13.0, 200.0), held(2, 1.0, 4.0, None)])
    assert row.profit == 200.0
    assert row.left_out == 1
    (little,) = rows_of(before, [held(1, 1.0, 13.0, 200.0), held(2, 1.0, 4.0, None)])
    assert little.profit is None
    assert little.delta is None
    assert little.known == 1
    assert little.of == 2
    assert "its profit of the day, which is left out" in str(row.why_unknown)
    (nothing,) = rows_of(before[1:], [held(2, 1.0, 4.0, None)])
    assert nothing.profit is None
    assert nothing.left_out == 1


def test_each_strategy_names_its_three_largest_legs_and_has_no_part_of_what_is_left_out() -> None:
    """The underlying fell by 1: each put gained half a point, which those that were sold lost."""
    sizes = {1: -20.0, 2: 5.0, 3: -60.0, 4: -40.0, 5: 1.0, 6: 3.0}
    fell = {"underlying_price": 599.0}
    now = [held(conid, size, 12.0, 0.0, **fell) for conid, size in sizes.items()]
    now[4] = held(5, 1.0, 12.0, None, **fell)
    terms = {"strike": 600.0, "expiry": FAR}
    legs = [leg(conid, "large", **terms) for conid in (1, 2, 3, 4, 5)]
    legs.append(leg(6, "small", **terms))
    before = [at_close(conid, size, 12.0) for conid, size in sizes.items()]
    large, small = rows_of(before, now, legs=legs)

    by_delta = [(leg.conid, leg.amount) for leg in large.largest["delta"]]
    assert by_delta == [(3, -3000.0), (4, -2000.0), (1, -1000.0)]
    assert large.delta == -5750.0
    assert large.left_out == 1
    assert small.delta == 150.0
    assert [leg.conid for leg in small.largest["delta"]] == [6]


def test_what_closed_today_is_beside_the_number_of_its_strategy() -> None:
    """A call of 0dte was sold and bought back between two rows; another leg of it stays open."""
    sale = trade(2, -1.0, 5.0, None)
    purchase = trade(2, 1.0, 4.0, None)
    gone = rows_of_positions([make_holding(2, NOW, account=OWNER, position=0.0)], None)
    names = {1: frozenset({"0dte"}), 2: frozenset({"0dte"})}
    day = Day(since=day_began("XNYS", NOW), movements=[sale, purchase], strategies=names)
    listed = [moved(2, -1.0, 5.0, account=OWNER), moved(2, 1.0, 4.0, account=OWNER)]
    before = at_close(1, 2.0, 12.0, account=OWNER)
    now = held(1, 2.0, 13.0, 200.0, account=OWNER)
    legs = [leg(1, "0dte", strike=600.0, expiry=FAR)]
    (row,) = rows_of([before], [now], listed, legs, day=day, reported=gone)
    assert row.profit == 200.0
    assert row.closed == 100.0
    assert row.trades == 0.0
