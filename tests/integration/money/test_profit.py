"""The profit of a day from statements, to the cent: each kind of movement and of contract."""

from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import polars as pl
import pytest

from position_sync_dagster.domain.instrument import Right
from position_sync_dagster.domain.leg import UNATTRIBUTED, ActiveContract
from position_sync_dagster.lake.schema import DAILY_POSITIONS
from position_sync_dagster.money.campaigns.closed_campaigns import CampaignBook
from position_sync_dagster.money.campaigns.strategy_money import live_money
from position_sync_dagster.money.past.movement_book import MovementBook
from position_sync_dagster.money.profit.books import (
    EXPLAINS,
    close_books,
    is_closed,
    open_books,
)
from position_sync_dagster.money.profit.moved_between import TradingDay
from position_sync_dagster.money.profit.profit import explain_days
from position_sync_dagster.money.strategies.strategies_file import RuledFile
from position_sync_dagster.sync.exchange_days import closing_times
from tests.support.booked_days import (
    BOND,
    ES,
    ES_PUT,
    EURUSD,
    FRIDAY,
    FUND,
    MES,
    MONDAY,
    SPX_CALL,
    SPY,
    SPY_PUT,
    STOCK,
    THURSDAY,
    VOD,
    Booked,
    Books,
    booked,
    held,
    paid,
    traded,
)
from tests.support.derived_rows import put_rows
from tests.support.flex_files import ACCOUNT, element
from tests.support.traded_year import traded_year


def cents(amount: float | dict[str, float]) -> object:
    return pytest.approx(amount, abs=0.005)


def usd(profit: float) -> dict[str, object]:
    """Return what the profit of a day is compared with, to the cent."""
    return {"USD": cents(profit)}


def test_an_option_on_a_future_delivers_one_future_whose_profit_is_its_mark(books):
    books.end_day(THURSDAY, held=[held(ES_PUT, -1, 95)])
    trades = [booked(ES_PUT, 1, 0, FRIDAY, "A"), booked(ES, 1, 6600, FRIDAY, "A")]
    books.end_day(FRIDAY, held=[held(ES, 1, 6510)], trades=trades)
    assert books.profit(FRIDAY) == usd(250)


def test_an_assigned_option_on_a_stock_is_known_by_its_event_alone(books):
    books.end_day(THURSDAY, held=[held(SPY_PUT, -1, 11)])
    day = {"date": "20260306", "levelOfDetail": "DETAIL"}
    assignment = {"transactionType": "Assignment", "quantity": "1", "tradeID": "1"}
    delivery = dict(transactionType="Buy", quantity="100", tradePrice="600", tradeID="2")
    events = [
        element("OptionEAE", SPY_PUT | day | assignment),
        element("OptionEAE", SPY | day | delivery),
    ]
    books.end_day(FRIDAY, held=[held(SPY, 100, 590)], trades=None, events=events)
    assert books.profit(FRIDAY) == usd(1100 - 1000)


@pytest.mark.parametrize(("charged", "fee"), [("-1.5", 1.5), ("", 0.0)])
def test_an_event_of_an_option_costs_its_commission_and_tax(books, charged, fee):
    books.end_day(THURSDAY, held=[held(SPY_PUT, 1, 2)])
    ended = SPY_PUT | dict(
        transactionType="Expiration", quantity="-1", date=f"{FRIDAY:%Y%m%d}",
        tradeID="9", commisionsAndTax=charged,
    )  # fmt: skip
    books.end_day(FRIDAY, trades=None, events=[element("OptionEAE", ended)])
    assert books.profit(FRIDAY) == usd(-200 - fee)


@pytest.mark.parametrize(
    ("amounts", "profit"),
    [
        ({"amount": "-42.40"}, 42.4 - 40),
        ({"proceeds": "42.40", "amount": "-42.40"}, 42.4 - 40),
        ({}, None),
    ],
)
def test_the_amount_of_a_merger_is_minus_what_it_paid(books, amounts, profit):
    books.end_day(THURSDAY, held=[held(STOCK, 10, 4)])
    merged = STOCK | dict(
        type="TC", quantity="-10", reportDate=f"{FRIDAY:%Y%m%d}", actionID="5",
        dateTime=f"{FRIDAY:%Y%m%d};202500",
    )  # fmt: skip
    action = element("CorporateAction", merged | amounts)
    books.end_day(FRIDAY, actions=[action])
    assert books.profit(FRIDAY) == (usd(profit) if profit is not None else {"USD": None})


def test_an_index_option_is_settled_at_the_price_that_is_stated(books):
    books.end_day(THURSDAY, held=[held(SPX_CALL, 2, 50)])
    settled = booked(SPX_CALL, -2, 57.25, FRIDAY, "Ep")
    books.end_day(FRIDAY, trades=[settled])
    assert books.profit(FRIDAY) == usd(1450)


def test_a_trade_without_a_multiplier_of_anybody_is_unknown(books):
    books.end_day(THURSDAY, held=[held(STOCK, 1, 220)])
    unstated = MES | {"multiplier": ""}
    trades = [traded(unstated, -2, 6510, FRIDAY), traded(unstated, 2, 6500, FRIDAY)]
    books.end_day(FRIDAY, held=[held(STOCK, 1, 221)], trades=trades)
    assert books.profit(FRIDAY) == {"USD": None}
    # A statement that holds it says it.
    books.end_day(THURSDAY, held=[held(STOCK, 1, 220), held(MES, 1, 6500)])
    books.end_day(FRIDAY, held=[held(STOCK, 1, 221), held(MES, 1, 6500)], trades=trades)
    assert books.profit(FRIDAY) == usd(1 + 100)


def test_a_fund_and_a_bond_in_percent_of_its_face_have_their_values(books):
    books.settings = books.settings.model_copy(update={"sec_types": ("STK", "FUND", "BOND")})
    books.end_day(THURSDAY, held=[held(FUND, 10.5, 400)])
    bought = traded(BOND, 1000, 98.75, FRIDAY)
    ends = [held(FUND, 10.5, 404), held(BOND, 1000, 99.25)]
    books.end_day(FRIDAY, held=ends, trades=[bought])
    assert books.profit(FRIDAY) == usd(42 + 5)


@pytest.mark.parametrize(("followed", "profit"), [(("STK", "BOND"), 100.0), (("STK",), 0.0)])
def test_the_coupon_of_a_bond_is_profit_where_its_price_is(books, followed, profit):
    books.settings = books.settings.model_copy(update={"sec_types": followed})
    rows = [held(BOND, 5000, 98)]
    books.end_day(THURSDAY, held=[*rows, held(STOCK, 1, 220)])
    coupon = paid("Bond Interest Received", 100, FRIDAY, **BOND)
    books.end_day(FRIDAY, held=[*rows, held(STOCK, 1, 220)], cash=[coupon])
    assert books.profit(FRIDAY) == usd(profit)


def test_a_conversion_and_what_is_not_followed_are_in_no_profit_but_their_fees_are(books):
    books.end_day(THURSDAY, held=[held(STOCK, 1, 200)])
    converted = traded(EURUSD, 20_000, 1.08, FRIDAY, ibCommission="-2", notes="AFx")
    bond = traded(BOND, 1000, 98.75, FRIDAY, ibCommission="-1")
    ends = [held(STOCK, 1, 200), held(BOND, 1000, 98.75)]
    books.end_day(FRIDAY, held=ends, trades=[converted, bond])
    assert books.profit(FRIDAY) == usd(-3)


@pytest.mark.parametrize("missing", ["ibCommission", "ibCommissionCurrency"])
def test_a_commission_or_a_currency_that_is_not_stated_makes_the_profit_unknown(books, missing):
    books.end_day(THURSDAY, held=[held(STOCK, 10, 220)])
    unknown = traded(STOCK, 10, 222, FRIDAY, **{"ibCommission": "-1", missing: ""})
    books.end_day(FRIDAY, held=[held(STOCK, 20, 225)], trades=[unknown])
    assert books.profit(FRIDAY) == {"USD": None}


def test_what_the_owner_brings_is_no_profit_and_without_a_stated_value_came_at_its_mark(books):
    books.end_day(THURSDAY, held=[held(STOCK, 1, 220)])
    transfer = STOCK | dict(
        type="ACATS", direction="IN", quantity="50", positionAmount="-",
        date="20260306", reportDate="20260306", transactionID="t1", cashTransfer="0",
    )  # fmt: skip
    came = element("Transfer", transfer)
    deposit = paid("Deposits/Withdrawals", 5000, FRIDAY)
    books.end_day(FRIDAY, held=[held(STOCK, 51, 222)], transfers=[came], cash=[deposit])
    assert books.profit(FRIDAY) == usd(2)


@pytest.mark.parametrize("size", [42, -42])
@pytest.mark.parametrize("left", [0, 10], ids=["all", "a part"])
def test_what_goes_out_in_a_section_without_signs_is_what_was_held(books, size, left):
    """One row, OUT and 42: of what was held long, or of what was short."""
    more = left * size / 42
    all_of_it = size + more
    bought = traded(STOCK, all_of_it, 220, THURSDAY)
    books.end_day(THURSDAY, held=[held(STOCK, all_of_it, 220)], trades=[bought])
    books.fill(THURSDAY)
    transfer = element("Transfer", STOCK | _OUT | {"positionAmount": "9324"})
    ends = [held(STOCK, more, 222)] if left else []
    books.end_day(FRIDAY, held=ends, transfers=[transfer])
    assert books.profit(FRIDAY) == usd(2 * all_of_it)
    [moved] = books.lake.movements.records(None, pl.col("kind") == "TRANSFER")
    assert (moved.quantity, moved.value) == (-size, -size * 222)


@pytest.mark.parametrize(
    ("price", "value", "campaign"),
    [("221", -42 * 221, 42 * 221), ("0", -42 * 220, None)],
    ids=["at its price", "at the mark of the close before"],
)
def test_what_goes_out_without_a_stated_value_has_one_value_in_profit_books_and_campaign(
    books, price, value, campaign
):
    cash = {"USD": 1.0}
    before = Booked(held=[held(STOCK, 42, 220)], worth=worth(42 * 220 + 1), balances=cash)
    books.state(THURSDAY, before)
    out = STOCK | _OUT | {"quantity": "-42", "transferPrice": price}
    gone = Booked(transfers=[element("Transfer", out)], worth=worth(1), balances=cash)
    books.state(FRIDAY, gone)
    row = closed_books(books)
    assert (row["owner"], row["difference"]) == (cents(value), cents(0))
    assert books.profit(FRIDAY) == usd(-value - 42 * 220)
    assert [part.cash for part in CampaignBook(books.lake).parts[1:]] == [campaign]


def test_what_goes_out_and_was_never_seen_is_not_known(books):
    books.end_day(FRIDAY, transfers=[element("Transfer", STOCK | _OUT)])
    [moved] = books.lake.movements.records()
    assert (moved.quantity, moved.value) == (None, None)
    assert books.profit(FRIDAY) == {"USD": None}
    [posting] = CampaignBook(books.lake).parts
    assert posting.unclear == f"the quantity of AAPL of {FRIDAY} is not known"


_OUT = dict(
    type="ACATS", direction="OUT", quantity="42", date=f"{FRIDAY:%Y%m%d}",
    transactionID="t1", cashTransfer="0",
)  # fmt: skip


def test_bookings_without_report_date_or_id_in_overlapping_files_are_stored_once(books, lake):
    trades = [traded(STOCK, 1, 220 + n, FRIDAY, reportDate="", transactionID="") for n in range(5)]
    fee = paid("Other Fees", -10, FRIDAY, reportDate="", transactionID="")
    booked = Booked(held=[held(STOCK, 5, 225)], trades=trades, cash=[fee])
    for last in (FRIDAY, FRIDAY.replace(day=7), MONDAY):
        books.state(last, booked, first=FRIDAY)
    assert lake.executions.table.count() == 5
    events = lake.statement_events.table.rows()
    assert events.filter(kind="CASH").height == 1
    kinds = lake.movements.rows()["kind"].value_counts().sort("count")
    assert kinds.rows() == [("FEE", 1), ("TRADE", 5)]


def test_two_equal_bookings_of_one_statement_are_two(books):
    books.end_day(THURSDAY, held=[held(STOCK, 1, 220)])
    fee = paid("Other Fees", -10, FRIDAY, transactionID="")
    books.end_day(FRIDAY, held=[held(STOCK, 1, 220)], cash=[fee, fee])
    assert books.profit(FRIDAY) == usd(-20)


def test_a_gap_ends_explanation_and_is_never_profit(books):
    first = THURSDAY.replace(day=2)
    last = FRIDAY
    books.end_day(first, held=[held(STOCK, 100, 223)])
    books.fill(first)
    books.end_day(last, held=[held(STOCK, 100, 224)])
    (row,) = books.explained(last).to_dicts()
    assert row["profit"] is None
    assert row["why_unknown"] == "AAPL: no close before"
    books.end_day(MONDAY, held=[held(STOCK, 100, 225)])
    assert books.profit(MONDAY) == usd(100)


def test_a_day_with_values_of_the_day_before_alone_is_not_told_as_profit_of_the_next(books):
    """Without its statement a day on which the program did not run has the last rows before it."""
    books.end_day(THURSDAY, held=[held(STOCK, 100, 223)])
    books.fill(THURSDAY)
    table = books.lake.derived_table(DAILY_POSITIONS)
    a_day = pl.duration(days=1)
    carried = table.rows().with_columns(
        session_date=pl.lit(FRIDAY), closed_at=pl.col("closed_at") + a_day, age_s=24 * 3600.0
    )
    put_rows(table, {FRIDAY: carried})
    books.end_day(MONDAY, held=[held(STOCK, 100, 225)])
    (row,) = books.explained(MONDAY).to_dicts()
    assert row["profit"] is None
    assert row["why_unknown"] == "AAPL: its value at the close before"

    books.end_day(FRIDAY, held=[held(STOCK, 100, 224)])
    assert books.profit(MONDAY) == usd(100)


def test_the_first_day_of_what_was_held_before_has_no_profit(books):
    dividend = paid("Dividends", 10, THURSDAY)
    books.end_day(THURSDAY, held=[held(STOCK, 100, 223)], cash=[dividend])
    assert books.explained(THURSDAY).is_empty()


def test_what_came_to_a_flat_account_without_its_trades_has_an_unknown_profit(books):
    books.state(THURSDAY, Booked())
    books.end_day(FRIDAY, held=[held(STOCK, 100, 223)], trades=None)
    assert books.profit(FRIDAY) == {"USD": None}


def test_an_account_that_begins_with_nothing_has_a_profit_on_its_first_day(books):
    bought = traded(STOCK, 100, 222, THURSDAY)
    books.end_day(THURSDAY, held=[held(STOCK, 100, 223)], trades=[bought])
    assert books.profit(THURSDAY) == usd(100)


def test_what_a_later_statement_closes_twice_was_not_held_before_the_first_day(books):
    """What its strategy has at the first close is what was traded until then."""
    leg = ActiveContract(
        conid=int(SPX_CALL["conid"]), symbol="SPX", right=Right.CALL, strike=6000.0,
        expiry=FRIDAY, strategy_id="a", added_at=datetime(2026, 3, 5, 15, tzinfo=UTC),
        account=ACCOUNT, quantity=-1.0,
    )  # fmt: skip
    books.lake.registry.sync.add_many([leg])
    sold = traded(SPX_CALL, -1, 50, THURSDAY, ibCommission="-1.5", openCloseIndicator="O")
    books.end_day(THURSDAY, held=[held(SPX_CALL, -1, 52)], trades=[sold])
    wrong = [booked(SPX_CALL, size, 57, FRIDAY, "Ep") for size in (1, 3)]
    books.end_day(FRIDAY, trades=wrong)
    assert books.profit(THURSDAY) == usd(-201.5)


def worth(total: float, **parts: float) -> dict[str, float]:
    return {"total": total, **parts}


def closed_books(books: Books) -> dict[str, object]:
    books.explained(FRIDAY)
    (row,) = close_books(books.lake, books.settings, FRIDAY).to_dicts()
    return row


def test_the_books_close_with_every_part_of_the_change(books):
    """100 shares, 10 bought, a dividend that became due, one that was paid, interest, a deposit."""
    before = worth(32_000, cash=10_000, stock=22_000, dividendAccruals=0)
    cash = {"USD": 10_000.0}
    books.end_day(THURSDAY, held=[held(STOCK, 100, 220)], worth=before, balances=cash)

    amounts = {
        "Dividends": 40,
        "Withholding Tax": -6,
        "Broker Interest Paid": -3,
        "Other Fees": -2,
        "Deposits/Withdrawals": 500,
    }
    booked = Booked(
        held=[held(STOCK, 110, 225)],
        trades=[traded(STOCK, 10, 222, FRIDAY, ibCommission="-1")],
        cash=[paid(kind, amount, FRIDAY) for kind, amount in amounts.items()],
        worth=worth(33_073, cash=8_308, stock=24_750, dividendAccruals=15),
    )
    books.state(FRIDAY, booked)

    row = closed_books(books)
    parts = {name: row[name] for name in EXPLAINS}
    assert parts.pop("rates") == 0.0
    by_hand = dict(profit=530, income=34, fees=-3, interest=-3, accruals=15, owner=500)
    assert parts == cents(by_hand)
    assert row["difference"] == cents(0)
    assert open_books([row]) == []


def test_books_of_an_account_that_held_something_are_not_judged_without_its_profit(books):
    cash = {"USD": 1.0}
    for day, mark, held_then in ((THURSDAY, 220, True), (FRIDAY, 221, False)):
        rows = [held(STOCK, 100, mark)] if held_then else []
        booked = Booked(held=rows, worth=worth(22_000), balances=cash)
        books.state(day, booked)
    books.fill(THURSDAY, FRIDAY)
    (row,) = close_books(books.lake, books.settings, FRIDAY).to_dicts()
    assert row["difference"] is None
    assert row["why_unknown"] == "the profit of its holdings"


def test_books_of_an_account_with_nothing_are_those_of_its_cash(books):
    for day in (THURSDAY, FRIDAY):
        books.state(day, Booked(worth=worth(1_000), balances={"USD": 1_000.0}))
    assert closed_books(books)["profit"] == 0.0


LAST_RATES = {"GBP": 1.25, "EUR": 1.09}
RATES = {"GBP": 1.27, "EUR": 1.08}
CASH = {"USD": 10_000.0, "GBP": 1_000.0}


def two_days_of_pounds(books: Books, *, last_rates, rates) -> dict[str, object]:
    """5,000 VOD rise by a penny, the pound by 2 cents; 500 EUR are bought for 550 USD."""
    before = Booked(
        held=[held(VOD, 5_000, 0.74)], worth=worth(15_875), balances=CASH, rates=last_rates
    )
    books.state(THURSDAY, before)
    after = Booked(
        held=[held(VOD, 5_000, 0.75)],
        trades=[traded(EURUSD, 500, 1.10, FRIDAY, ibCommission="0")],
        worth=worth(16_022.5),
        balances={"USD": 9_450.0, "GBP": 1_000.0, "EUR": 500.0},
        rates=rates,
    )
    books.state(FRIDAY, after)
    return closed_books(books)


def test_the_books_of_several_currencies_close_with_the_effect_of_their_rates(books):
    row = two_days_of_pounds(books, last_rates=LAST_RATES, rates=RATES)
    assert row["profit"] == cents(50 * 1.27)
    # 4,700 pounds gained 2 cents each; 500 euros are worth 10 dollars less than was paid.
    assert row["rates"] == cents(4_700 * 0.02 - 10)
    assert row["difference"] == cents(0)
    assert row["change"] == cents(147.5)


@pytest.mark.parametrize(
    ("missing", "why"),
    [
        ({"last_rates": {"GBP": 1.25}}, "the effect of the rates of EUR"),
        ({"rates": None}, "the effect of the rates of EUR, GBP"),
    ],
)
def test_without_rates_of_a_currency_the_books_are_not_judged(books, missing, why):
    given = {"last_rates": LAST_RATES, "rates": RATES} | missing
    row = two_days_of_pounds(books, **given)
    assert row["why_unknown"] == why
    assert row["difference"] is None


def test_books_without_a_cash_report_are_not_judged_though_all_holdings_are_in_one_currency(books):
    """The account has euros that no section of its statements names."""
    for day, total in ((THURSDAY, 32_000), (FRIDAY, 32_170)):
        mark = 220 if day is THURSDAY else 221
        books.end_day(day, held=[held(STOCK, 100, mark)], worth=worth(total))
    row = closed_books(books)
    assert row["change"] == 170
    assert row["difference"] is None
    assert row["why_unknown"] == "its cash by currency"
    assert is_closed(row)


def test_what_no_part_explains_is_the_difference_and_is_named(books):
    cash = {"USD": 1.0}
    before = Booked(held=[held(STOCK, 100, 220)], worth=worth(22_000), balances=cash)
    books.state(THURSDAY, before)
    books.end_day(FRIDAY, held=[held(STOCK, 100, 221)], worth=worth(22_150))
    row = closed_books(books)
    assert row["difference"] == cents(50)
    assert row["change"] == cents(150)
    (sentence,) = open_books([row])
    assert "DUSIM0001 on 2026-03-06: +50.00 USD of +150.00" in sentence
    assert "the largest part is profit with +100.00" in sentence
    assert is_closed(row | {"difference": 2.2})
    assert not is_closed(row | {"difference": 2.3})


@pytest.mark.parametrize(
    ("held_there", "why"),
    [
        (held(VOD, 10, 0.74), "the effect of the rates of GBP"),
        (held(SPY, 1, 600, positionValue="-", markPrice="-"), "the profit of its holdings"),
    ],
)
def test_books_with_a_part_that_is_not_known_are_not_judged(books, held_there, why):
    rows = [held(STOCK, 100, 220), held_there]
    for day, total in ((THURSDAY, 22_000), (FRIDAY, 23_000)):
        books.end_day(day, held=rows, worth=worth(total), balances={"USD": 1.0})
    row = closed_books(books)
    assert row["difference"] is None
    assert row["profit"] is None
    assert row["why_unknown"] == why
    assert is_closed(row)


def test_money_of_no_currency_is_left_out_and_the_books_of_the_day_name_what_it_moved(books):
    rows = [held(STOCK, 100, 220)]
    books.end_day(THURSDAY, held=rows, worth=worth(22_000), balances={"USD": 1.0})
    fees = [paid("Other Fees", -3, FRIDAY, currency=""), paid("Other Fees", -4, FRIDAY)]
    books.end_day(FRIDAY, held=rows, cash=fees, worth=worth(21_993), balances={"USD": -6.0})
    row = closed_books(books)
    assert row["fees"] == -4.0
    assert row["difference"] == cents(-3)


YEAR = traded_year()
SHARES = {int(leg["conid"]) for told in YEAR.told for leg in told.shares}

# Every fourth Monday: the profit of four weeks is that of their days.
MONDAYS = [date(2024, 12, 30) + timedelta(weeks=week) for week in range(0, 56, 4)]


def mark_on(day: date) -> float:
    return 1 + day.toordinal() % 11 / 4


def rounded(sums: dict[tuple[str, str], float]) -> dict[tuple[str, str], float]:
    return {group: round(amount, 2) for group, amount in sums.items() if round(amount, 2)}


def test_over_a_year_profits_of_days_closed_and_open_campaigns_agree_by_strategy_and_currency(
    books, tmp_path
):
    """What a strategy gained until a day is what its campaigns brought, and what they have left."""
    lake = books.lake
    positions = []
    for day in MONDAYS:
        on_day = {"reportDate": f"{day:%Y%m%d}"}
        positions += [held(*holding, mark_on(day), **on_day) for holding in YEAR.held_on(day)]

    trades = [row for day in sorted(YEAR.rows) for row in YEAR.rows[day]]
    last = max(YEAR.rows)
    books.state(last, Booked(held=positions, trades=trades), first=MONDAYS[0])
    strategies = tmp_path / "strategies.yaml"
    strategies.write_text(YEAR.strategies())
    RuledFile(strategies).apply(lake.registry.sync)
    books.fill(*MONDAYS)
    MovementBook(lake).update()

    closes = closing_times(books.settings.calendar, MONDAYS)
    months = [
        TradingDay(day=day, before=before, since=closes[before], closed=closes[day])
        for before, day in pairwise(MONDAYS)
    ]
    explained = explain_days(lake, books.settings, months)
    campaigns = CampaignBook(lake)

    gained: defaultdict[tuple[str, str], float] = defaultdict(float)
    for day, rows in explained.items():
        assert rows["why_unknown"].null_count() == rows.height, rows
        named = rows.select("strategy_id", "currency", "profit")
        for strategy, currency, profit in named.iter_rows():
            gained[strategy, currency] += profit

        until = [part for part in campaigns.parts if part.movement.day <= day]
        brought = {}
        for group, earned in live_money(until).items():
            brought[group] = earned.realised
            for (_account, conid), lot in earned.lots.items():
                size = 1.0 if conid in SHARES else 100.0
                brought[group] += lot.quantity * size * mark_on(day) + lot.cash

        of_strategies = {group: gain for group, gain in gained.items() if group[0] != UNATTRIBUTED}
        assert rounded(of_strategies) == rounded(brought), day

    of_closed: defaultdict[tuple[str, str], float] = defaultdict(float)
    for campaign in campaigns.rows():
        of_closed[campaign.strategy_id, campaign.currency] += campaign.profit
    assert len(of_closed) == 34
    assert rounded(gained) == rounded(of_closed)
