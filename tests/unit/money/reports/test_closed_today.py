"""What closed today earned since the close of yesterday; nothing is filled that is not known."""

from dataclasses import replace
from datetime import timedelta

import pytest

from position_sync_dagster.domain.account_values import AccountSummary
from position_sync_dagster.domain.position_update import ValueOrigin
from position_sync_dagster.lake.schema import rows_of_positions
from position_sync_dagster.money.campaigns.closes_of_strategies import Closes
from position_sync_dagster.money.past.attribution import attributed
from position_sync_dagster.money.past.movements import MovementKind
from position_sync_dagster.money.reports.book import Book
from position_sync_dagster.money.reports.changes import Day, closed_profits
from position_sync_dagster.money.reports.figures import Figures
from position_sync_dagster.money.trading_days import day_began
from tests.support.holdings import make_holding
from tests.support.money_rows import book_of, row
from tests.unit.money.campaigns.test_closed_campaigns import PUT, SHARES, A, leg, moved
from tests.unit.money.campaigns.test_open_campaigns import ASSIGNED
from tests.unit.money.past.test_causes import ACCOUNT
from tests.unit.money.reports.test_changes import NOW, change, trade

CONTRACT = 1

# Two calls are worth 2 × 100 × 3.00 = 600, which is 40 more than at the close: 560 then.
HELD = {"market_price": 3.0, "daily_pnl": 40.0, "multiplier": 100.0}
CLOSED = change(CONTRACT, 2.0, 0.0, **HELD)

# Sold at 3.20: 640 received, and a fee that is no part of the broker's profit of the day.
SALE = trade(CONTRACT, -2.0, 3.2, None, commission=None)


def profit_of(changes, movements) -> float | None:
    day = Day(since=NOW, changes=changes, movements=movements)
    return closed_profits(day)[ACCOUNT, CONTRACT]


def test_a_sale_earns_from_the_close_of_yesterday_to_its_price() -> None:
    assert profit_of([CLOSED], [SALE]) == pytest.approx(640 - 560)


def test_a_sale_in_two_parts_counts_from_the_message_before_the_first() -> None:
    half = change(CONTRACT, 2.0, 1.0, **HELD)
    # After the first part the message has its gain too: 3.50 × 100 = 350, 40 + 20 + 30 = 90.
    rest = change(CONTRACT, 1.0, 0.0, market_price=3.5, daily_pnl=90.0, change_id="rest")
    sale = trade(CONTRACT, -1.0, 3.2, None)
    sales = [sale, trade(CONTRACT, -1.0, 3.6, None, at=NOW + timedelta(minutes=1))]
    assert profit_of([half, rest], sales) == pytest.approx(320 + 360 - 560)


def test_an_option_that_was_sold_and_bought_back_today_earns_the_difference() -> None:
    sale = trade(CONTRACT, -1.0, 5.0, None)
    purchase = trade(CONTRACT, 1.0, 4.0, None)
    opened = change(CONTRACT, 0.0, -1.0)
    bought_back = change(CONTRACT, -1.0, 0.0, market_price=4.1, daily_pnl=88.0)
    assert profit_of([opened, bought_back], [sale, purchase]) == pytest.approx(500 - 400)
    # So does one that no list of positions showed.
    assert profit_of([], [sale, purchase]) == pytest.approx(500 - 400)


def test_a_future_earns_the_difference_of_its_notional_values() -> None:
    # 1 × 50 × 6,500 = 325,000, of which 1,000 were earned today; sold at 6,510.
    closed = change(
        CONTRACT, 1.0, 0.0, market_price=6500.0, daily_pnl=1000.0, multiplier=50.0,
    )  # fmt: skip
    sale = trade(CONTRACT, -1.0, 6510.0, None, multiplier=50.0)
    assert profit_of([closed], [sale]) == pytest.approx(1500.0)


def test_an_option_that_was_assigned_earns_what_it_was_worth() -> None:
    short = change(CONTRACT, -1.0, 0.0, market_price=95.0, daily_pnl=250.0, multiplier=50.0)
    gone = replace(trade(CONTRACT, 1.0, 0.0, None), kind=MovementKind.ASSIGNMENT, cash=0.0, fee=0.0)
    # −4,750 now is 250 more than at the close; what it delivered is a holding of its own.
    assert profit_of([short], [gone]) == pytest.approx(5000.0)


@pytest.mark.parametrize(
    ("changes", "movements"),
    [
        ([replace(CLOSED, market_price=None)], [SALE]),
        ([replace(CLOSED, daily_pnl=None)], [SALE]),
        ([CLOSED], []),
        ([CLOSED], [replace(SALE, quantity=-1.0)]),
        ([CLOSED], [replace(SALE, quantity=None)]),
        ([CLOSED], [replace(SALE, cash=None)]),
    ],
)
def test_what_is_not_known_leaves_the_profit_unknown(changes, movements) -> None:
    assert profit_of(changes, movements) is None


def test_a_holding_that_is_open_has_no_profit_here() -> None:
    half = change(CONTRACT, 2.0, 1.0, **HELD)
    assert closed_profits(Day(since=NOW, changes=[half], movements=[SALE])) == {}


def closed_today(day: Day, book: Book) -> list[dict[str, object]]:
    figures = Figures(status=None, book=book, day=day)  # type: ignore[arg-type]
    names = ("conid", "today", "strategies", "shares")
    return figures.closed_today.select(names).to_dicts()


def test_an_option_sold_and_bought_between_two_rows_belongs_to_its_strategy() -> None:
    """It was never in the ledger: the broker reports it with no quantity, and its trades."""
    sale = trade(CONTRACT, -1.0, 5.0, None)
    purchase = trade(CONTRACT, 1.0, 4.0, None)
    reported = rows_of_positions([make_holding(CONTRACT, NOW, account=ACCOUNT, position=0.0)], None)
    book = book_of([], [], reported=reported)
    day = Day(
        since=day_began("XNYS", NOW),
        movements=[sale, purchase],
        strategies={CONTRACT: frozenset({"0dte"})},
    )
    [row] = closed_today(day, book)
    assert row == {"conid": CONTRACT, "today": 100.0, "strategies": ["0dte"], "shares": [1.0]}
    shared = replace(day, strategies={CONTRACT: frozenset({"0dte", "other"})})
    assert closed_today(shared, book)[0]["strategies"] == []


def test_shares_that_a_put_left_and_that_were_sold_belong_to_the_strategy_of_the_put() -> None:
    """They are no leg of it; of a leg that another strategy has too, the movements say whose."""
    parts = attributed([*ASSIGNED, moved(SHARES, -100.0, 51.0, 9)], [leg(PUT)], {})
    gone = row(SHARES, account=A, position=0.0, timestamp=NOW)
    day = Day(since=day_began("XNYS", NOW), strategies={SHARES: frozenset({"other"})})
    book = book_of([gone], [], closes=Closes(parts=parts))
    assert [closed["strategies"] for closed in closed_today(day, book)] == [["s"]]


def test_what_the_broker_stated_of_a_close_is_not_kept_and_what_trades_say_is() -> None:
    """A portfolio row after a close is in a table that is replaced."""
    gone = row(CONTRACT, account=ACCOUNT, position=0.0, timestamp=NOW)
    sold = replace(SALE, account=ACCOUNT, realized_pnl=7.0)
    day = Day(
        since=day_began("XNYS", NOW), changes=[replace(CLOSED, account=ACCOUNT)], movements=[sold]
    )
    of_close = make_holding(
        CONTRACT, NOW, account=ACCOUNT, position=0.0, realized_pnl=9.0,
        value_source=ValueOrigin.PORTFOLIO,
    )  # fmt: skip
    for reported, profit, is_kept in (([], 7.0, True), ([of_close], 9.0, False)):
        book = book_of([gone], [], reported=rows_of_positions(reported, None))
        figures = Figures(status=None, book=book, day=day)  # type: ignore[arg-type]
        [closed] = figures.closed_today.select("realised_today", "kept").to_dicts()
        assert closed == {"realised_today": profit, "kept": is_kept}


def test_an_account_without_the_sum_of_its_moment_has_that_of_its_newest_rows() -> None:
    account = AccountSummary(account=ACCOUNT, currency="USD", daily_pnl=50.0, timestamp=NOW)
    value = {"market_value": 600.0, "daily_pnl": 40.0, "position": 2.0, "account": ACCOUNT}
    book = book_of([row(CONTRACT, **value)], [], accounts=(account,))
    figures = Figures(status=None, book=book, day=Day(since=NOW))  # type: ignore[arg-type]
    today = figures.accounts[0]["today"]
    assert today.account == 50.0
    assert today.open == 40.0
    assert today.closed == 0.0
    assert today.unexplained == 10.0


def test_a_close_counts_from_when_its_change_was_noticed() -> None:
    """The row that says so is written later, and the account's number has the close already."""
    seen_at = NOW - timedelta(seconds=10)
    closed = replace(CLOSED, seen_at=seen_at, account=ACCOUNT)
    sale = replace(SALE, account=ACCOUNT)
    account = AccountSummary(
        account=ACCOUNT, currency="USD", daily_pnl=80.0, timestamp=seen_at + timedelta(seconds=1),
    ).with_open_profit([], 0)  # fmt: skip
    gone = row(CONTRACT, account=ACCOUNT, position=0.0, timestamp=NOW)
    day = Day(since=day_began("XNYS", NOW), changes=[closed], movements=[sale])
    book = book_of([gone], [], accounts=(account,))
    figures = Figures(status=None, book=book, day=day)  # type: ignore[arg-type]
    today = figures.accounts[0]["today"]
    assert today.closed == 80.0
    assert today.unexplained == 0.0
