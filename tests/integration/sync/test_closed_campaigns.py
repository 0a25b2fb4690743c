"""Campaigns that are over, from statements and from what the program saw itself."""

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta

import pytest

from position_sync_dagster.domain.exchange_time import NEW_YORK
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.movement_book import MovementBook
from position_sync_dagster.sync.reports.closed_campaigns import CampaignBook
from tests.support.booked_days import ACCOUNT, FRIDAY, SPY_PUT, THURSDAY, Booked, Books, traded
from tests.unit.domain.test_causes import change


@pytest.fixture
def books(lake, tmp_path) -> Books:
    folder = tmp_path / "flex"
    folder.mkdir()
    return Books(lake, Settings(lake=lake.path, flex_folder=folder), folder)


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
    books.state(THURSDAY, Booked(trades=[opened]))
    books.state(FRIDAY, Booked(trades=[closed]))
    since = datetime.combine(THURSDAY, looked_at, NEW_YORK).astimezone(UTC)
    seen = change(int(SPY_PUT["conid"]), -1, 0, since + timedelta(days=1), since=since)
    books.lake.position_changes.add([replace(seen, account=ACCOUNT)])
    MovementBook(books.lake, books.settings.calendar).update()

    campaigns = CampaignBook(books.lake, books.settings).rows()
    assert [campaign.profit for campaign in campaigns] == ([] if profit is None else [profit])
