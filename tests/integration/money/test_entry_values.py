"""Delta, volatility and price of the underlying at entry, against rows recorded by hand."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from position_sync_dagster.domain.position_update import PositionUpdate
from position_sync_dagster.money.campaigns.closed_campaigns import CampaignBook
from position_sync_dagster.money.campaigns.lots import read_lots
from position_sync_dagster.money.campaigns.open_campaigns import read_open_campaigns
from position_sync_dagster.money.campaigns.results import read_campaigns
from position_sync_dagster.money.defs.explained_days import closed_campaigns
from position_sync_dagster.settings import Settings
from tests.unit.money.campaigns.test_closed_campaigns import (
    CALL,
    OTHER,
    PUT,
    SHARES,
    A,
    leg,
    moved,
)

# When the fills of `moved` on 2 March were.
FILLED = datetime(2026, 3, 2, 17, tzinfo=UTC)

OPENED = [moved(PUT, -2.0, 2.0, 2), moved(CALL, -1.0, 1.0, 2)]
CLOSED = [moved(PUT, 2.0, 1.0, 6), moved(CALL, 1.0, 0.5, 6)]


def recorded(conid, after_s, delta=None, implied_vol=None, underlying_price=None, **more):
    """Return a row that was written so long after the fills."""
    given = dict(right="PUT", position=-1.0, market_price=1.0, market_value=-100.0)
    given |= dict(average_cost=100.0, unrealized_pnl=0.0, symbol="XYZ", account=A) | more
    return PositionUpdate(
        conid=conid, timestamp=FILLED + timedelta(seconds=after_s), delta=delta,
        implied_vol=implied_vol, underlying_price=underlying_price, **given,
    )  # fmt: skip


PUT_ROW = recorded(PUT, 5, -0.3, 0.25, 52.0)
CALL_ROW = recorded(CALL, 20, 0.2, 0.19, 52.5, right="CALL")
ROWS = [
    recorded(PUT, -3, -0.9, 0.9, 90.0),  # of what was held before
    recorded(PUT, 2),  # a line that has no model yet
    PUT_ROW,
    recorded(PUT, 15, -0.4, 0.26, 51.0),
    CALL_ROW,
]
OF_BOTH = (leg(PUT), leg(CALL), leg(OTHER), leg(SHARES))


def put(lake, movements, rows, legs=OF_BOTH):
    lake.movements.derive(lambda: movements)
    lake.registry.sync.add_many(legs)
    lake.updates.sync.append(rows)


ENTRY = ("delta", "implied_vol", "underlying_price", "after_s")


def entry(record):
    return tuple(getattr(record, f"entry_{name}") for name in ENTRY)


# Two puts have 2 × 100 × 0.3, a call -100 × 0.2; three options have (2 × 25 % + 19 %) / 3.
BY_HAND = (pytest.approx(40.0), pytest.approx(0.23), 52.0, 20.0)


def test_a_campaign_has_the_first_rows_after_its_first_fills(lake):
    put(lake, [*OPENED, *CLOSED], ROWS)
    [campaign] = CampaignBook(lake).rows()
    assert entry(campaign) == BY_HAND
    assert campaign.entry_unknown is None


def test_an_open_campaign_has_them_too_and_a_share_counts_as_1(lake):
    put(lake, [*OPENED, moved(SHARES, 100.0, 52.0, 2)], ROWS)
    parts = CampaignBook(lake).parts
    [campaign] = read_open_campaigns(lake, parts)
    assert entry(campaign) == (pytest.approx(140.0), *BY_HAND[1:])


def test_what_came_on_a_later_day_is_no_part_of_the_entry(lake):
    later = [moved(OTHER, -1.0, 1.0, 3), moved(OTHER, 1.0, 1.0, 5)]
    put(lake, [*OPENED, *later, *CLOSED], ROWS)
    [campaign] = CampaignBook(lake).rows()
    assert entry(campaign) == BY_HAND


NO_DELTA = "no delta of XYZ 60C 20Mar26 was recorded in the minute after its first fill"


@pytest.mark.parametrize(
    ("movements", "row", "known", "why"),
    [
        pytest.param(OPENED, None, (), NO_DELTA, id="row"),
        pytest.param(
            OPENED, replace(CALL_ROW, timestamp=FILLED + timedelta(seconds=61)), (), NO_DELTA,
            id="row in time",
        ),
        pytest.param(OPENED, replace(CALL_ROW, delta=None), (), NO_DELTA, id="delta"),
        pytest.param(
            OPENED, replace(CALL_ROW, implied_vol=None), ("delta", "underlying_price", "after_s"),
            "entry_implied_vol: a first row has none", id="volatility",
        ),
        pytest.param(
            OPENED, replace(CALL_ROW, timestamp=FILLED, underlying_price=None),
            ("delta", "implied_vol", "after_s"), "entry_underlying_price: the first row has none",
            id="price of the underlying",
        ),
        pytest.param(
            [OPENED[0], replace(OPENED[1], at=None)], CALL_ROW, (),
            "when XYZ 60C 20Mar26 was filled is not known", id="time of the fill",
        ),
        pytest.param(
            [OPENED[0], replace(OPENED[1], multiplier=None, cash=None)], CALL_ROW, (),
            "the multiplier of XYZ 60C 20Mar26 is not known", id="multiplier",
        ),
    ],
)  # fmt: skip
def test_what_lacks_is_null_and_says_why(lake, movements, row, known, why):
    rows = ROWS[:-1] + ([row] if row else [])
    # With the close of the second, whose multiplier would be known from it.
    put(lake, [*movements, *(CLOSED if movements is OPENED else [])], rows)
    book = CampaignBook(lake)
    campaigns = book.rows() or read_open_campaigns(lake, book.parts)
    [campaign] = campaigns
    values = zip(ENTRY, entry(campaign), strict=True)
    assert {name for name, value in values if value is not None} == {*known}
    assert campaign.entry_unknown == why


def test_shares_alone_have_no_entry(lake):
    bought, sold = moved(SHARES, 100.0, 50.0, 2), moved(SHARES, -100.0, 52.0, 6)
    put(lake, [bought, sold], ROWS)
    [campaign] = CampaignBook(lake).rows()
    assert entry(campaign) == (None,) * 4
    assert campaign.entry_unknown == "it began without an option"


def test_a_lot_has_the_row_of_its_own_option(lake):
    # Another fill of the day, an hour earlier: the row from before is read, and does not count.
    earlier = moved(OTHER, -1.0, 1.0, 2, at=FILLED - timedelta(hours=1))
    put(lake, [earlier, *OPENED, *CLOSED, moved(SHARES, 100.0, 52.0, 2)], ROWS)
    lots = {lot.conid: lot for lot in read_lots(lake)}
    assert entry(lots[PUT]) == (-0.3, 0.25, 52.0, 5.0)
    assert entry(lots[CALL]) == (0.2, 0.19, 52.5, 20.0)
    assert entry(lots[SHARES]) == (None,) * 4
    assert [lots[conid].entry_unknown for conid in (PUT, CALL, SHARES)] == [None] * 3


def test_a_lot_without_a_row_says_why(lake):
    put(lake, [*OPENED, *CLOSED], [PUT_ROW])
    lots = {lot.conid: lot for lot in read_lots(lake)}
    assert entry(lots[CALL]) == (None,) * 4
    assert lots[CALL].entry_unknown == NO_DELTA


def test_a_fee_in_another_currency_has_no_entry_that_lacks(lake):
    """Nothing was opened with it, whatever lacks of the option."""
    put(lake, [replace(OPENED[0], fee_currency="EUR"), *OPENED[1:], *CLOSED], [])
    lots = read_lots(lake)
    assert [lot.entry_unknown for lot in lots if lot.currency == "EUR"] == [None]
    assert all(lot.entry_unknown for lot in lots if lot.currency == "USD")


def test_what_was_recorded_at_the_entry_stays_until_the_fills_are_others(lake):
    """The ledger is read once for each campaign."""
    put(lake, [*OPENED, *CLOSED], ROWS)
    settings = Settings(lake=lake.path)
    closed_campaigns.derive(lake, settings, None)
    lake.updates.sync.append([recorded(PUT, 1, -0.7, 0.5, 50.0)])
    closed_campaigns.derive(lake, settings, None)
    [campaign] = read_campaigns(lake)
    assert entry(campaign) == BY_HAND

    corrected = replace(OPENED[0], fee=-3.0)
    lake.movements.derive(lambda: [corrected, OPENED[1], *CLOSED])
    closed_campaigns.derive(lake, settings, None)
    [campaign] = read_campaigns(lake)
    assert campaign.entry_delta == pytest.approx(120.0)
