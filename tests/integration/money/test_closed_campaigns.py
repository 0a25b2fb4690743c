"""Campaigns that are over, from statements and from what the program saw itself."""

from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta

import pytest

from position_sync_dagster.domain.exchange_time import NEW_YORK
from position_sync_dagster.money.campaigns.campaign_days import read_days_of
from position_sync_dagster.money.campaigns.closed_campaigns import CampaignBook
from position_sync_dagster.money.past.movement_book import MovementBook
from tests.support.booked_days import (
    ACCOUNT,
    ES,
    ES_PUT,
    FRIDAY,
    MONDAY,
    SPY,
    SPY_PUT,
    THURSDAY,
    Booked,
    Books,
    booked,
    held,
    paid,
    traded,
)
from tests.unit.money.past.test_causes import change


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
    MovementBook(books.lake, books.settings.calendar).update()

    campaigns = CampaignBook(books.lake).rows()
    assert [campaign.profit for campaign in campaigns] == ([] if profit is None else [profit])


@pytest.fixture
def wheel_beside_own_shares(books) -> Books:
    """A put of a strategy is assigned beside 50 shares of nobody; all is sold on Monday."""
    books.state(THURSDAY - timedelta(days=1), Booked())
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
    books.end_day(THURSDAY, trades=[traded(ES_PUT, -1, 95, THURSDAY)], held=[held(ES_PUT, -1, 95)])
    delivered = [booked(ES_PUT, 1, 0, FRIDAY, "A"), booked(ES, 1, 6600, FRIDAY, "A")]
    books.end_day(FRIDAY, held=[held(ES, 1, 6510)], trades=delivered)
    books.end_day(MONDAY, trades=[booked(ES, -1, 6500, MONDAY, "Ep;C")])
    [campaign] = CampaignBook(books.lake).rows()
    assert campaign.strategy_id == "w"
    assert campaign.profit == pytest.approx(95 * 50 - 100 * 50)
