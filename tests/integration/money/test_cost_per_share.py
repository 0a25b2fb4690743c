"""What the shares of a campaign cost each: a wheel and splits, by statements and sums by hand."""

from datetime import date

import pytest

from position_sync_dagster.money.campaigns.closed_campaigns import CampaignBook
from position_sync_dagster.money.campaigns.closes_of_strategies import read_closes
from position_sync_dagster.money.campaigns.open_campaigns import read_open_campaigns
from position_sync_dagster.money.campaigns.strategy_money import StrategyMoney
from tests.support.booked_days import (
    ES,
    ES_PUT,
    FRIDAY,
    MONDAY,
    SPY,
    SPY_PUT,
    THURSDAY,
    Books,
    booked,
    held,
    paid,
    traded,
)
from tests.support.public_cases import acted, bought

MARCH = {day: date(2026, 3, day) for day in (13, 16, 20, 23, 27, 30)}

# A day, and what its statement books.
Day = tuple[date, dict[str, list[str]]]


def option(conid: int, right: str, strike: int, expiry: date) -> dict[str, str]:
    return SPY_PUT | dict(
        symbol=f"SPY {right}{strike}", conid=f"{conid}", strike=f"{strike}",
        putCall=right, expiry=f"{expiry:%Y%m%d}",
    )  # fmt: skip


CALL = option(42, "C", 605, MARCH[13])
PUT = option(43, "P", 590, MARCH[20])
LAST_CALL = option(44, "C", 600, MARCH[27])


def sold(day: date, contract: dict[str, str], price: float, quantity: int = -1) -> Day:
    """Return a sale, with a commission of 1."""
    return day, {"trades": [bought(contract, quantity, price, day)]}


def assigned(day: date, option: dict[str, str], shares: int, price: float) -> Day:
    """Return the assignment of a short option, which delivers shares at its strike."""
    delivered = booked(SPY, shares, price, day, "A")
    return day, {"trades": [booked(option, 1, 0, day, "A"), delivered]}


DIVIDEND = paid("Dividends", 170, MARCH[13], conid="41", symbol="SPY")
EXPIRED = booked(CALL, 1, 0, MARCH[13], "Ep")

# The days of a wheel, and what its shares cost then, each worked out by hand.
WHEEL = [
    (*sold(THURSDAY, SPY_PUT, 11), None),
    # 60,000 for 100 shares, less the premium of 1,099.
    (*assigned(FRIDAY, SPY_PUT, 100, 600), 589.01),
    # Less 499.
    (*sold(MONDAY, CALL, 5), 584.02),
    # The call expired; a dividend of 170 came.
    (MARCH[13], {"trades": [EXPIRED], "cash": [DIVIDEND]}, 582.32),
    # Less 799.
    (*sold(MARCH[16], PUT, 8), 574.33),
    # 57,433 and 59,000 for 200 shares.
    (*assigned(MARCH[20], PUT, 100, 590), 582.165),
    # Less 399.
    (*sold(MARCH[23], LAST_CALL, 4), 580.17),
    # 100 were called away at 600: 116,034 less 60,000 for the other 100.
    (*assigned(MARCH[27], LAST_CALL, -100, 600), 560.34),
    (*sold(MARCH[30], SPY, 598, quantity=-100), None),
]


def claim(books: Books, *contracts: dict[str, str]) -> None:
    for contract in contracts:
        books.lake.registry.sync.add_active(
            int(contract["conid"]), "SPY", right=contract["putCall"],
            strike=float(contract["strike"]), expiry=contract["expiry"], strategy_id="w",
            since=THURSDAY,
        )  # fmt: skip


def open_now(books: Books):
    """Return the open campaign of the strategy; None: it is over."""
    closes = read_closes(books.lake)
    rows = read_open_campaigns(books.lake, closes.parts)
    assert len(rows) <= 1
    row = rows[0] if rows else None
    money = closes.money.get(("w", "USD"), StrategyMoney())
    assert money.cost_per_share == (row and row.cost_per_share)
    return row


def test_three_rounds_of_a_wheel_say_on_each_day_what_its_shares_cost(books):
    claim(books, SPY_PUT, CALL, PUT, LAST_CALL)
    for day, of_day, cost in WHEEL:
        books.end_day(day, **of_day)
        row = open_now(books)
        assert (row and row.cost_per_share) == (cost and pytest.approx(cost)), day

    assert row is None
    [over] = CampaignBook(books.lake).rows()
    # The last shares went at 598: 37.66 more than the 560.34 that they had cost, less a fee of 1.
    assert over.profit == pytest.approx(59_800 - 56_034 - 1)
    assert over.cost_per_share == pytest.approx(560.34)
    assert "cost_per_share" not in (over.why_unknown or "")


RENAMED = SPY | {"symbol": "SPYX", "conid": "141"}
SPLIT = acted(SPY, 100, 0, MONDAY, "FS", actionID="7")
GONE = acted(SPY, -100, 0, MONDAY, "RS", actionID="8")
CAME = acted(RENAMED, 25, 0, MONDAY, "RS", actionID="8")
ACTIONS = {
    "two for one": ([SPLIT], 294.505),
    "one for four under another ticker": ([GONE, CAME], 2356.04),
}


@pytest.mark.parametrize(("actions", "cost"), ACTIONS.values(), ids=ACTIONS)
def test_after_a_split_a_share_costs_its_part(books, actions, cost):
    """The campaign brought -58,901 before and after it."""
    claim(books, SPY_PUT)
    for day, of_day, _cost in WHEEL[:2]:
        books.end_day(day, **of_day)
    books.end_day(MONDAY, actions=actions)
    row = open_now(books)
    assert row.brought == pytest.approx(-58_901)
    assert row.cost_per_share == pytest.approx(cost)
    assert row.opened == THURSDAY


def test_cash_that_is_not_known_leaves_the_cost_unknown_and_says_why(books):
    """The commission of the put is in no statement."""
    claim(books, SPY_PUT)
    books.end_day(THURSDAY, trades=[traded(SPY_PUT, -1, 11, THURSDAY, ibCommission="")])
    books.end_day(FRIDAY, **WHEEL[1][1])
    row = open_now(books)
    assert row.brought is row.cost_per_share is None
    why = "the fee of SPY 600P 06Mar26 of 2026-03-05 is not known"
    assert row.profit_unknown == why
    assert f"cost_per_share: {why}" in row.why_unknown


def test_shares_of_two_contracts_have_no_cost_of_one(books):
    claim(books, SPY_PUT)
    for day, of_day, _cost in WHEEL[:2]:
        books.end_day(day, **of_day)
    action = acted(RENAMED, 10, 0, MONDAY, "SO", actionID="9", description="SPY(US) SPINOFF")
    books.end_day(MONDAY, actions=[action])
    row = open_now(books)
    assert row.cost_per_share is None
    assert "cost_per_share: it has shares of several contracts" in row.why_unknown


def test_a_future_that_an_option_delivered_has_the_cost_of_one_unit(books):
    """The put brought 95 a unit; the future was delivered at 6,600."""
    books.lake.registry.sync.add_active(
        22, "ES", right="P", strike=6600.0, expiry="20260306", strategy_id="w", since=THURSDAY
    )
    sale = traded(ES_PUT, -1, 95, THURSDAY)
    books.end_day(THURSDAY, trades=[sale], held=[held(ES_PUT, -1, 95)])
    delivered = [booked(ES_PUT, 1, 0, FRIDAY, "A"), booked(ES, 1, 6600, FRIDAY, "A")]
    books.end_day(FRIDAY, held=[held(ES, 1, 6510)], trades=delivered)
    assert open_now(books).cost_per_share == pytest.approx(6505)
