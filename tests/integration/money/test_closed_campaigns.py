"""Campaigns that are over, from statements and from what the program saw itself."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta

import pytest
import time_machine

from position_sync_dagster.domain.exchange_time import NEW_YORK
from position_sync_dagster.money.campaigns.campaign_days import read_days_of
from position_sync_dagster.money.campaigns.closed_campaign import ClosedCampaign
from position_sync_dagster.money.campaigns.closed_campaigns import CampaignBook
from position_sync_dagster.money.campaigns.closes_of_strategies import read_closes
from position_sync_dagster.money.campaigns.lots import read_lots
from position_sync_dagster.money.past.movement_book import MovementBook
from position_sync_dagster.money.profit.structure_days import read_structure_days
from tests.support.booked_days import (
    ACCOUNT,
    ES,
    ES_PUT,
    FRIDAY,
    MONDAY,
    SPY,
    SPY_PUT,
    STOCK,
    THURSDAY,
    VOD,
    Books,
    booked,
    held,
    paid,
    traded,
)
from tests.unit.money.past.test_causes import change

WEDNESDAY = THURSDAY - timedelta(days=1)


@pytest.mark.parametrize(
    ("looked_at", "profit"),
    [
        pytest.param(time(12, 30), 150, id="after the trade that opened it"),
        pytest.param(time(11, 30), None, id="before that trade"),
    ],
)
def test_what_was_held_at_the_first_look_was_opened_by_an_earlier_trade(books, looked_at, profit):
    """Trades are at noon; the first change that the program saw is the close of the next day."""
    opened = traded(SPY_PUT, -1, 11, THURSDAY)
    closed = traded(SPY_PUT, 1, 9.5, FRIDAY)
    books.end_day(THURSDAY, trades=[opened])
    books.end_day(FRIDAY, trades=[closed])
    since = datetime.combine(THURSDAY, looked_at, NEW_YORK).astimezone(UTC)
    seen = change(int(SPY_PUT["conid"]), -1, 0, since + timedelta(days=1), since=since)
    books.lake.position_changes.add([replace(seen, account=ACCOUNT)])
    MovementBook(books.lake).update()

    campaigns = CampaignBook(books.lake).rows()
    assert [campaign.profit for campaign in campaigns] == ([] if profit is None else [profit])


@pytest.fixture
def wheel_beside_own_shares(books) -> Books:
    """A put of a strategy is assigned beside 50 shares of nobody; all is sold on Monday."""
    books.end_day(WEDNESDAY)
    bought = traded(SPY, 50, 590, THURSDAY)
    sold = traded(SPY_PUT, -1, 11, THURSDAY, ibCommission="-1")
    books.end_day(THURSDAY, held=[held(SPY_PUT, -1, 12), held(SPY, 50, 592)], trades=[bought, sold])
    assigned = [booked(SPY_PUT, 1, 0, FRIDAY, "A"), booked(SPY, 100, 600, FRIDAY, "A")]
    books.end_day(FRIDAY, held=[held(SPY, 150, 595)], trades=assigned)
    dividend = paid("Dividends", 30, MONDAY, conid=SPY["conid"], symbol="SPY")
    gone = traded(SPY, -150, 598, MONDAY, ibCommission="-3")
    books.end_day(MONDAY, trades=[gone], cash=[dividend])
    return books


def add_leg(books: Books, contract: dict[str, str], **more: object) -> None:
    right = {}
    if "strike" in contract:
        right = {"right": "P", "strike": 600.0, "expiry": "20260306"}

    books.lake.registry.sync.add_active(
        int(contract["conid"]), "SPY", strategy_id="w", since=THURSDAY, **right, **more
    )


def profits_by_strategy(books: Books) -> dict[str, list[float | None]]:
    profits: defaultdict[str, list[float | None]] = defaultdict(list)
    for day in (THURSDAY, FRIDAY, MONDAY):
        for row in books.explained(day).to_dicts():
            profits[row["strategy_id"]].append(row["profit"])
    return dict(profits)


def test_the_profits_of_the_days_of_a_strategy_are_that_of_its_campaign(wheel_beside_own_shares):
    """The leg is added months later, with its first day; the shares are no leg."""
    books = wheel_beside_own_shares
    add_leg(books, SPY_PUT)
    profits = profits_by_strategy(books)
    assert profits["w"] == pytest.approx([1100 - 1200 - 1, 1200 - 500, 300 - 2 + 20])
    assert profits["UNATTRIBUTED"] == pytest.approx([100, 150, 150 - 1 + 10])
    rows = CampaignBook(books.lake).rows()
    [campaign] = read_days_of(books.lake, books.settings.calendar, rows)
    assert campaign.profit == pytest.approx(sum(profits["w"]))
    assert campaign.worst == pytest.approx(-101)
    assert campaign.best == pytest.approx(-101 + 700 + 318)


def test_a_close_whose_owner_is_not_known_is_divided_in_the_day_and_unknown_in_the_campaign(
    wheel_beside_own_shares,
):
    """The profit of the account is known, and is the sum of those of its strategies."""
    books = wheel_beside_own_shares
    add_leg(books, SPY_PUT)
    some = traded(SPY, -60, 598, MONDAY)
    books.end_day(MONDAY, held=[held(SPY, 90, 599)], trades=[some])
    profits = profits_by_strategy(books)
    assert profits["w"][2] == pytest.approx(40 * 3 + 60 * 4 + 20)
    assert profits["UNATTRIBUTED"][2] == pytest.approx(20 * 3 + 30 * 4 + 10)
    unclear = {part.unclear for part in CampaignBook(books.lake).parts}
    assert unclear == {None, "it is not known whose SPY closed on 2026-03-09"}


def test_a_future_that_settles_after_an_option_delivered_it_is_of_its_campaign(books):
    """The settlement does not make the assignment one in cash."""
    add_leg(books, ES_PUT)
    sold = traded(ES_PUT, -1, 95, THURSDAY)
    books.end_day(THURSDAY, trades=[sold], held=[held(ES_PUT, -1, 95)])
    delivered = [booked(ES_PUT, 1, 0, FRIDAY, "A"), booked(ES, 1, 6600, FRIDAY, "A")]
    books.end_day(FRIDAY, held=[held(ES, 1, 6510)], trades=delivered)
    books.end_day(MONDAY, trades=[booked(ES, -1, 6500, MONDAY, "Ep;C")])
    [campaign] = CampaignBook(books.lake).rows()
    assert campaign.strategy_id == "w"
    assert campaign.profit == pytest.approx(95 * 50 - 100 * 50)


# Twenty options of as many strategies: the quantity, the price of the first trade, the marks of
# two closes, the price of the last trade, and the fee of each trade, in cents.
LINES = """
     -1  1100  1200   950   800  100
     -2   305   315   295   355   65
     -3   133   127   141   100  205
     -1     5     1     2     0   70
     -5   222   280   390   440  130
     -1   777   777   777   777  100
     -4    95    60    45    20  280
     -2  1500  2250  3100  1240  104
    -10    35    31    36    34  650
     -1   499   501   498   502    1
      1  1100  1200   950   800  100
      2   305   315   295   355   65
      3   133   127   141   100  205
      1     5     1     2     1   70
      5   222   280   390   440  130
      1   777   777   777   777    0
      4    95    60    45    20  280
      2  1500  2250  3100  1240  104
     10    35    31    36    34  650
      1   499   501   498   502    1
"""
TWENTY = [tuple(map(int, line.split())) for line in LINES.strip().splitlines()]


def test_twenty_campaigns_stood_as_a_count_in_whole_cents_says(books):
    contracts = []
    for number in range(len(TWENTY)):
        conid = 900 + number
        contracts.append(SPY_PUT | {"conid": f"{conid}", "symbol": f"SPY P{number}"})
        books.lake.registry.sync.add_active(
            conid, "SPY", "P", 600.0, "20260306", strategy_id=f"s{number}", since=THURSDAY
        )

    options = [*zip(contracts, TWENTY, strict=True)]

    def trades(day, opens):
        rows = []
        for contract, (quantity, price, _first, _second, last, fee) in options:
            size, cents = (quantity, price) if opens else (-quantity, last)
            charged = f"{-fee / 100}"
            rows.append(traded(contract, size, cents / 100, day, ibCommission=charged))
        return rows

    def marked(at):
        return [held(contract, case[0], case[at] / 100) for contract, case in options]

    books.end_day(WEDNESDAY)
    books.end_day(THURSDAY, held=marked(2), trades=trades(THURSDAY, opens=True))
    books.end_day(FRIDAY, held=marked(3))
    books.end_day(MONDAY, trades=trades(MONDAY, opens=False))
    books.explain([THURSDAY, FRIDAY, MONDAY])
    rows = read_days_of(books.lake, books.settings.calendar, CampaignBook(books.lake).rows())
    stood = {}
    for row in rows:
        stood[row.strategy_id] = [round(100 * value) for value in (row.worst, row.best, row.profit)]

    by_hand = {}
    for number, (quantity, price, first, second, last, fee) in enumerate(TWENTY):
        gained = [100 * quantity * (mark - price) for mark in (first, second, last)]
        ends = [gained[0] - fee, gained[1] - fee, gained[2] - 2 * fee]
        by_hand[f"s{number}"] = [min(ends), max(ends), ends[-1]]
    assert stood == by_hand
    assert {row.why_unknown for row in rows} != {None}  # no greeks are recorded


def sell_put(books: Books, commission: str = "-1") -> None:
    """Sell a put for 11 on Thursday, which is worth 12 at its end."""
    sold = traded(SPY_PUT, -1, 11, THURSDAY, ibCommission=commission)
    books.end_day(THURSDAY, held=[held(SPY_PUT, -1, 12)], trades=[sold])


def structures(books: Books, recorded: Sequence[ClosedCampaign] = ()) -> list[ClosedCampaign]:
    """Return the campaigns that are over, with how they stood."""
    book = CampaignBook(books.lake)
    rows = read_days_of(books.lake, books.settings.calendar, book.rows(recorded))
    return read_structure_days(books.lake, books.settings, book.campaigns, rows)


@pytest.mark.parametrize("is_marked", [True, False])
def test_a_structure_of_no_strategy_stood_by_its_cash_and_the_value_of_what_was_left(
    books, is_marked
):
    """1,100 for a put, which is worth 1,200, then 900, and is bought back for 950; fees are 1."""
    books.end_day(WEDNESDAY)
    sell_put(books)
    if is_marked:
        books.end_day(FRIDAY, held=[held(SPY_PUT, -1, 9)])
    bought = traded(SPY_PUT, 1, 9.5, MONDAY, ibCommission="-1")
    books.end_day(MONDAY, trades=[bought])
    books.explain([THURSDAY, FRIDAY, MONDAY] if is_marked else [THURSDAY, MONDAY])

    [campaign] = structures(books)
    why = "delta, gamma, vega, theta, repricing: the days of what is in no strategy are not divided"
    if is_marked:
        assert (campaign.worst, campaign.best, campaign.profit) == (-101, 199, 148)
        assert campaign.why_unknown == why
    else:
        assert (campaign.worst, campaign.best) == (None, None)
        unknown = "worst, best: 1 of its 3 days have no recorded value"
        assert campaign.why_unknown == f"{why}; {unknown}"

    recorded = replace(campaign, worst=-7.0, best=700.0)
    [again] = structures(books, [recorded])
    assert (again.worst, again.best) == (-7.0, 700.0)
    for other in ({"fees": 1.0}, {"profit": 9.0}, {"closed": FRIDAY}):
        [changed] = structures(books, [replace(recorded, **other)])
        assert changed == campaign
    with time_machine.travel(MONDAY + timedelta(days=8)):  # a mark may still be corrected
        [late] = structures(books, [recorded])
    assert late == campaign


def test_a_structure_whose_profit_is_not_known_says_so_of_its_worst(books):
    books.end_day(WEDNESDAY)
    sell_put(books, commission="")
    books.end_day(FRIDAY, trades=[traded(SPY_PUT, 1, 9.5, FRIDAY)])
    books.explain([THURSDAY, FRIDAY])
    [campaign] = structures(books)
    assert (campaign.profit, campaign.worst, campaign.best) == (None, None, None)
    assert "worst, best: its profit is not known" in (campaign.why_unknown or "")
    assert "no recorded value" not in (campaign.why_unknown or "")


@pytest.mark.parametrize(("amount", "worst", "best"), [(150, -101, 1048), (-1100, -202, 898)])
def test_what_a_structure_is_paid_after_its_end_is_in_its_worst_and_best(
    books, amount, worst, best
):
    """1,099 for a put that is worth 1,200; it delivers shares at 600, which are sold at 598 for 1.

    The ends of the days are -101, 1,099 - 60,000 + 59,500 = 599, and 599 + 300 - 1 = 898.
    """
    books.end_day(WEDNESDAY)
    sell_put(books)
    assigned = [booked(SPY_PUT, 1, 0, FRIDAY, "A"), booked(SPY, 100, 600, FRIDAY, "A")]
    books.end_day(FRIDAY, held=[held(SPY, 100, 595)], trades=assigned)
    gone = traded(SPY, -100, 598, MONDAY, ibCommission="-1")
    books.end_day(MONDAY, trades=[gone])
    later = MONDAY + timedelta(days=2)
    dividend = paid("Dividends", amount, later, conid=SPY["conid"], symbol="SPY")
    books.end_day(later, cash=[dividend])
    books.explain([THURSDAY, FRIDAY, MONDAY])

    [campaign] = structures(books)
    assert campaign.closed == MONDAY
    assert campaign.profit == pytest.approx(898 + amount)
    assert (campaign.worst, campaign.best) == pytest.approx((worst, best))

    # What was recorded before that was so is read again, however long ago it closed.
    recorded = replace(campaign, worst=-101, best=898)
    assert structures(books, [recorded]) == [campaign]


# What is sold of a strategy with shares in two currencies costs a fee, of which this is stated.
# USD: 10 × 5 - 1. GBP: 100 × 0.1 - 2 - 1, and the fee, if it is known to be one in GBP.
FEES = {
    "in the currency of its contract": ("-3", "USD", 46, 7, {"USD": [46], "GBP": [7]}),
    "in another currency": ("-3", "GBP", 49, 4, {"USD": [49], "GBP": [-3, 7]}),
    "an unknown amount in another one": ("", "GBP", 49, None, {"USD": [49], "GBP": [None, 7]}),
    "in an unknown currency": ("-3", "", None, 7, {"USD": [None], "GBP": [7]}),
    "nothing": ("", "", None, 7, {"USD": [None], "GBP": [7]}),
}


FEE_LACKS = {("-3", ""): "was charged in an unknown currency", ("", ""): "is not known"}


@pytest.mark.parametrize(("fee", "charged_in", "usd", "gbp", "of_lots"), FEES.values(), ids=FEES)
def test_a_fee_is_the_same_in_campaigns_days_lots_and_what_is_realised(
    books, fee, charged_in, usd, gbp, of_lots
):
    """What does not say in which currency it was charged leaves that of its contract unknown."""
    for contract in (STOCK, VOD):
        add_leg(books, contract)
    books.end_day(WEDNESDAY)
    bought = [
        traded(STOCK, 10, 220, THURSDAY, ibCommission="-1"),
        traded(VOD, 100, 0.7, THURSDAY, ibCommission="-2"),
    ]
    ends = [held(STOCK, 10, 222), held(VOD, 100, 0.75)]
    books.end_day(THURSDAY, held=ends, trades=bought)
    sold = [
        traded(STOCK, -10, 225, FRIDAY, ibCommission=fee, ibCommissionCurrency=charged_in),
        traded(VOD, -100, 0.8, FRIDAY, ibCommission="-1"),
    ]
    books.end_day(FRIDAY, trades=sold)

    days = books.explain([THURSDAY, FRIDAY])
    thursday, friday = (dict(rows.select("currency", "profit").rows()) for rows in days.values())
    assert thursday == pytest.approx({"USD": 20 - 1, "GBP": 5 - 2})
    assert friday == pytest.approx({"USD": usd and usd - 19, "GBP": gbp and gbp - 3})
    reason = f"the fee of {STOCK['symbol']} of {FRIDAY} {FEE_LACKS.get((fee, charged_in))}"
    of_day = {row["currency"]: row for row in days[FRIDAY].to_dicts()}
    hint = None if charged_in else f"fees: {reason}"
    if gbp is not None:
        assert (of_day["GBP"]["why_unknown"], of_day["GBP"]["legs_unknown"]) == (hint, 0)

    by_hand = pytest.approx({"USD": usd, "GBP": gbp})
    rows = CampaignBook(books.lake).rows()
    assert {row.currency: row.profit for row in rows} == by_hand
    may_lack = {row.currency: "; fees: the fee of" in f"; {row.why_unknown}" for row in rows}
    assert may_lack == {"USD": False, "GBP": not charged_in}
    money = read_closes(books.lake).money
    live = {currency: earned.earned for (_, currency), earned in money.items()}
    assert {currency: earned.realised for currency, earned in live.items()} == by_hand
    assert [earned.other_fees for earned in live.values()] == [{}, {}]

    lots = read_lots(books.lake)
    for currency, profits in of_lots.items():
        of_currency = [lot for lot in lots if lot.currency == currency]
        assert [lot.profit for lot in of_currency] == pytest.approx(profits)
    assert [lot.profit is None for lot in lots] == [bool(lot.why_unknown) for lot in lots]


def test_a_day_names_the_fee_of_a_contract_once_and_counts_it_as_no_leg(books):
    for contract in (STOCK, VOD):
        add_leg(books, contract)
    books.end_day(WEDNESDAY)
    bought = [traded(STOCK, 10, 220, THURSDAY), traded(VOD, 100, 0.7, THURSDAY)]
    ends = [held(STOCK, 10, 222), held(VOD, 100, 0.75)]
    books.end_day(THURSDAY, held=ends, trades=bought)
    fill = traded(STOCK, -5, 225, FRIDAY, ibCommission="-1", ibCommissionCurrency="")
    later = traded(STOCK, -5, 226, FRIDAY, ibCommission="-1", ibCommissionCurrency="")
    sold = [fill, later]
    books.end_day(FRIDAY, held=[held(VOD, 100, 0.8)], trades=sold)

    (rows,) = books.explain([FRIDAY]).values()
    (of_vod,) = rows.filter(currency="GBP").to_dicts()
    fee = f"the fee of {STOCK['symbol']} of {FRIDAY} was charged in an unknown currency"
    assert of_vod["profit"] == pytest.approx(5)
    assert (of_vod["why_unknown"], of_vod["legs_unknown"]) == (f"fees: {fee}", 0)
