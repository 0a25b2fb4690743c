"""Closes that users reported in public: the cause, the campaign and the lot say the same."""

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta

import pytest

from position_sync_dagster.domain.exchange_time import NEW_YORK
from position_sync_dagster.domain.instrument import Right
from position_sync_dagster.money.campaigns.closed_campaigns import CampaignBook
from position_sync_dagster.money.campaigns.lots import read_lots
from position_sync_dagster.money.campaigns.results import Grouping, results_of
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past.closes import Cause, Stage
from position_sync_dagster.money.past.explain_closes import CloseExplainer
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.exchange_days import exchange_of
from tests.support.booked_days import ACCOUNT, STOCK, Booked, Books, held, traded
from tests.support.public_cases import acted, bought, moved, option, stock
from tests.unit.money.past.test_causes import change, details

TODAY = datetime.now(UTC).date()
# Trading days of the last weeks: closes of earlier ones are not judged any more.
FROM, UNTIL = TODAY - timedelta(days=20), TODAY - timedelta(days=4)
*_EARLIER, FIRST, SECOND, THIRD = exchange_of("XNYS").trading_days(FROM, UNTIL)


def noon(day, minutes=0):
    return datetime.combine(day, time(12, minutes), NEW_YORK).astimezone(UTC)


def see_close(books: Books, conid: int, before: float, after: float, at: datetime, **terms) -> None:
    seen = change(conid, before, after, at, **terms)
    books.lake.position_changes.add([replace(seen, account=ACCOUNT)])


def test_a_sale_that_is_cancelled_with_the_id_0_and_booked_again_counts_once(books):
    abc = stock(5001, "ABC")
    books.end_day(FIRST, trades=[bought(abc, 100, 9, FIRST)])
    see_close(books, 5001, 100, 70, noon(THIRD) + timedelta(seconds=5), symbol="ABC")
    cancelled = dict(
        transactionType="TradeCancel", notes="Ca", origTransactionID="0",
        origTradeID="", origOrderID="0", ibExecID="", tradeID="", ibCommission="1",
    )  # fmt: skip
    sold = [
        bought(abc, -30, 10, THIRD, fifoPnlRealized="30"),
        bought(abc, 30, 10, THIRD, **cancelled),
        bought(abc, -30, 10.5, THIRD, fifoPnlRealized="45"),
    ]
    books.end_day(THIRD, trades=sold)
    CloseExplainer(books.lake).explain()
    [closure] = books.lake.closures.current()
    assert (closure.cause, closure.stage) == (Cause.TRADED, Stage.STATED)
    assert (closure.price, closure.realized_pnl) == (10.5, 45)
    lots = [(lot.quantity, lot.cost, lot.proceeds) for lot in read_lots(books.lake)]
    assert lots == [
        (30, pytest.approx(270.30), pytest.approx(314)),
        (70, pytest.approx(630.70), None),
    ]


@pytest.mark.parametrize(
    ("day_filled", "stated", "own", "profit"),
    [
        pytest.param(False, "8999", 0, 8999, id="by the stated profit of its close"),
        pytest.param(True, "0", 0, 8999, id="by the cost of its position"),
        pytest.param(False, "10498", 50, 10498, id="beside shares that were bought"),
        pytest.param(False, "0", 0, 999, id="else by the value that the transfer states"),
    ],
)
def test_a_transferred_holding_has_one_profit(books, day_filled, stated, own, profit):
    """100 shares that cost 4000 elsewhere come at 12000, and are sold at 130."""
    nvda = stock(9401, "NVDA")
    books.lake.registry.sync.add_active(9401, "NVDA", strategy_id="s", since=FIRST)
    if own:
        books.end_day(FIRST, trades=[bought(nvda, own, 100, FIRST)])
    position = held(nvda, 100, 120, costBasisMoney="4000", costBasisPrice="40")
    books.end_day(SECOND, held=[position], transfers=[moved(nvda, 100, 12000, SECOND)])
    if day_filled:
        books.fill(SECOND)
    see_close(books, 9401, 100 + own, 0, noon(THIRD) + timedelta(seconds=5), symbol="NVDA")
    sold = bought(nvda, -100 - own, 130, THIRD, fifoPnlRealized=stated)
    books.end_day(THIRD, trades=[sold])
    CloseExplainer(books.lake).explain()

    [closure] = books.lake.closures.current()
    [campaign] = CampaignBook(books.lake).rows()
    assert campaign.profit == pytest.approx(profit)
    assert sum(lot.profit for lot in read_lots(books.lake)) == pytest.approx(profit)
    if stated != "0":
        assert closure.realized_pnl == profit


def test_an_option_near_its_strike_is_known_once_nothing_came_in_the_night(books):
    """Until then results say how many campaigns are not known, and why."""
    put = option(8301, "SPY", "P", 50, SECOND)
    named = details(8301, under_conid=41, last_trade_date=SECOND, trading_hours=None)
    books.lake.contracts.put([named])
    books.end_day(FIRST, trades=[bought(put, -1, 1.5, FIRST)])
    ended = datetime.combine(SECOND, time(16, 15), NEW_YORK).astimezone(UTC)
    seen_at = ended + timedelta(hours=9)
    terms = dict(right=Right.PUT, strike=50.0, expiry=SECOND, sec_type="OPT")
    see_close(books, 8301, -1, 0, seen_at, **terms, multiplier=100.0)
    books.lake.registry.sync.add_active(8301, "SPY", strategy_id="s", since=FIRST)

    explainer = CloseExplainer(books.lake, clock=lambda: seen_at + timedelta(minutes=16))
    explainer.explain(asked={ACCOUNT: (ended, seen_at + timedelta(minutes=1))})
    [result] = results_of(CampaignBook(books.lake).rows(), Grouping.STRATEGY)
    assert (result.number, result.unknown, result.profit) == (1, 1, None)
    assert "how SPY 50P" in (result.why_unknown or "")

    explainer.explain(asked={ACCOUNT: (ended, seen_at + timedelta(minutes=16))})
    [closure] = books.lake.closures.current()
    assert closure.cause is Cause.EXPIRED_WORTHLESS
    assert "nothing came of the underlying" in closure.detail
    [campaign] = CampaignBook(books.lake).rows()
    assert (campaign.profit, campaign.ended) == (149, "expired")


@pytest.mark.parametrize(("zone", "hour"), [("EDT", 5), ("EST", 6)])
def test_the_hour_that_is_there_twice_is_told_apart_by_its_zone(books, zone, hour):
    day = datetime(2025, 11, 2).date()  # noqa: DTZ001 - its day alone
    traded_then = traded(STOCK, 1, 220, day, dateTime=f"20251102;013000 {zone}")
    books.end_day(day, trades=[traded_then])
    [at] = books.lake.movements.rows()["at"].to_list()
    assert at == datetime(2025, 11, 2, hour, 30, tzinfo=UTC)


@pytest.mark.parametrize("calendar", ["XSAU", "24/7"])
def test_monday_is_explained_by_a_session_of_sunday(books, calendar):
    sunday, monday = (datetime(2026, 3, day).date() for day in (8, 9))  # noqa: DTZ001
    books.settings = Settings(lake=books.lake.path, flex_folder=books.folder, calendar=calendar)
    books.lake = MoneyLake.of(books.settings)
    books.state(sunday, Booked(held=[held(STOCK, 10, 220)]))
    books.state(monday, Booked(held=[held(STOCK, 10, 225)]))
    assert books.profit(monday) == {"USD": 50}


def test_statements_that_arrive_one_by_one_end_at_the_same_campaign(books):
    """What an action took is there before what it brought."""
    old, new = stock(101, "AAA"), stock(103, "XXX")
    books.lake.registry.sync.add_active(101, "AAA", strategy_id="s", since=FIRST)
    books.end_day(FIRST, trades=[bought(old, 100, 10, FIRST)])
    books.end_day(SECOND, actions=[acted(old, -100, 0, SECOND, "TC", actionID="1")])
    [campaign] = CampaignBook(books.lake).rows()
    assert campaign.profit_unknown == "what AAA became by a corporate action is not known"

    books.end_day(THIRD, actions=[acted(new, 100, 0, THIRD, "TC", actionID="1")])
    assert CampaignBook(books.lake).rows() == []
    [lot] = read_lots(books.lake)
    assert (lot.conid, lot.quantity, lot.cost, lot.opened) == (103, 100, 1001, FIRST)
