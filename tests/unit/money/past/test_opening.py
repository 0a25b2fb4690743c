"""What was held before the first movement of a holding, and what it had cost."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from position_sync_dagster.lake.schema import (
    BROKER_POSITIONS,
    DAILY_POSITIONS,
    POSITION_CHANGES,
    frame_of,
)
from position_sync_dagster.money.past.movements import Movement, MovementKind
from position_sync_dagster.money.past.opening import (
    Opening,
    Seen,
    opening_of,
    openings_in,
    openings_of,
)
from position_sync_dagster.money.tables import MOVEMENTS
from tests.unit.money.campaigns.test_closed_campaigns import BOUGHT, PUT, SHARES, SOLD, A, moved

KEY = (A, PUT)
TWENTY_PAST = datetime(2026, 3, 6, 21, 20, tzinfo=UTC)
EXPIRED = moved(
    PUT, 1.0, 0.0, 6, kind=MovementKind.EXPIRATION, fee=0.0, at=TWENTY_PAST, realized_pnl=199.0
)


def seen(spec: Any, **values: Any) -> pl.DataFrame:
    usual = {
        "account": A, "conid": PUT, "symbol": "XYZ", "sec_type": "OPT", "right": "PUT",
        "strike": 50.0, "expiry": date(2026, 3, 6), "multiplier": 100.0, "currency": "USD",
    }  # fmt: skip
    return spec.empty if not values else frame_of(spec, [usual | values])


def changed(before: float, after: float, since: datetime, **values: Any) -> pl.DataFrame:
    of_change = {"change_id": "c", "since": since, "seen_at": since + timedelta(minutes=5)}
    return seen(POSITION_CHANGES, before=before, after=after, **of_change, **values)


def openings(
    movements: Sequence[Movement],
    changes: pl.DataFrame | None = None,
    daily: pl.DataFrame | None = None,
    reported: pl.DataFrame | None = None,
) -> dict[Any, Opening]:
    def rows(spec: Any, given: pl.DataFrame | None) -> pl.DataFrame:
        return spec.empty if given is None else given

    tables = Seen(
        rows(POSITION_CHANGES, changes),
        rows(DAILY_POSITIONS, daily).with_columns(is_held=True),
        rows(BROKER_POSITIONS, reported),
    )
    return openings_in(openings_of(frame_of(MOVEMENTS, map(asdict, movements)), tables))


@pytest.mark.parametrize("minutes", [-20, 1, 20, 120])
def test_an_end_that_is_booked_before_it_is_seen_closes_what_was_held_before_it(minutes):
    """The statement books it at 16:20, and the gateway confirmed the leg until 16:40."""
    since = TWENTY_PAST + timedelta(minutes=minutes)
    found = openings([EXPIRED], changed(-1.0, 0.0, since, average_cost=180.0))
    assert found == {KEY: Opening(quantity=-1.0, cost=180.0)}


def test_a_trade_that_was_made_before_a_quantity_was_confirmed_is_in_it():
    since = SOLD.at + timedelta(minutes=20)
    assert openings([SOLD], changed(-1.0, 0.0, since)) == {}


def test_shares_that_a_night_delivered_were_not_held_before_it():
    """They are sold on Monday: their first change goes the other way."""
    came = moved(SHARES, 100.0, 50.0, 6, kind=MovementKind.ASSIGNMENT, at=TWENTY_PAST)
    monday = TWENTY_PAST + timedelta(days=2, hours=17)
    sold = changed(100.0, 0.0, monday, conid=SHARES, sec_type="STK")
    assert openings([came], sold) == {}


@pytest.mark.parametrize(("held", "cost"), [(-1.0, 180.0), (-2.0, 175.0)])
def test_the_last_close_before_it_counts_with_its_cost_or_that_of_as_much(held, cost):
    at_close = {"session_date": date(2026, 3, 5), "closed_at": TWENTY_PAST - timedelta(days=1)}
    own = None if held == -1.0 else cost
    daily = seen(DAILY_POSITIONS, position=held, average_cost=own, **at_close)
    found = openings([EXPIRED], changed(-1.0, 0.0, TWENTY_PAST, average_cost=180.0), daily)
    assert found == {KEY: Opening(quantity=held, cost=cost)}


def test_of_what_a_close_has_that_was_all_moved_until_then_nothing_was_held_before():
    """What closes more of it later, as a wrong statement may, does not say the contrary."""
    ends = [replace(EXPIRED, movement_id=f"{size}", quantity=size) for size in (1.0, 3.0)]
    movements = [SOLD, *ends]
    at_close = {"session_date": SOLD.session_date, "closed_at": TWENTY_PAST - timedelta(days=4)}
    daily = seen(DAILY_POSITIONS, position=-1.0, average_cost=180.0, **at_close)
    nothing = Opening(quantity=0.0)
    assert openings(movements, None, daily) == {KEY: nothing}
    assert opening_of(movements, nothing) == nothing
    assert opening_of(movements, None).quantity == -3.0
    # Of another quantity it is not known which movement is missing.
    assert openings(movements, None, daily.with_columns(position=-2.0)) == {}


def test_what_was_held_at_a_close_is_held_since_then_whatever_says_how_much_it_was():
    friday = {"session_date": date(2026, 2, 27), "closed_at": TWENTY_PAST - timedelta(days=7)}
    daily = seen(DAILY_POSITIONS, position=-1.0, **friday)
    reported = seen(
        BROKER_POSITIONS, position=-1.0, average_cost=180.0, position_time=TWENTY_PAST,
        gateway_id="g",
    )  # fmt: skip
    gone = changed(-1.0, 0.0, TWENTY_PAST, average_cost=180.0)
    for opening in (openings([], gone, daily)[KEY], openings([], None, daily, reported)[KEY]):
        assert opening.cost == 180.0
        assert opening.seen_at == friday["closed_at"]


def test_what_no_movement_moved_is_held_since_it_was_seen():
    reported = seen(
        BROKER_POSITIONS, position=-1.0, average_cost=180.0, position_time=TWENTY_PAST,
        gateway_id="g",
    )  # fmt: skip
    opening = openings([], None, None, reported)[KEY]
    assert opening.quantity == -1.0
    assert opening.cost == 180.0
    assert opening.contract.right == "PUT"
    at_close = {"session_date": date(2026, 3, 5), "closed_at": TWENTY_PAST}
    daily = seen(DAILY_POSITIONS, position=-2.0, average_cost=170.0, **at_close)
    assert openings([], None, daily)[KEY].quantity == -2.0
    assert openings([], None, daily, reported)[KEY].quantity == -1.0
    # The change that brought it says that it was not held before.
    assert openings([], changed(0.0, -1.0, TWENTY_PAST), None, reported) == {}


@pytest.mark.parametrize(
    ("closes", "cost"),
    [
        ([EXPIRED], 199.0),
        ([replace(BOUGHT, realized_pnl=148.0)], 199.0),
        ([replace(BOUGHT, realized_pnl=0.0)], None),  # so it is written where it is not stated
        ([replace(EXPIRED, kind=MovementKind.ASSIGNMENT)], None),  # it is in that of the shares
        ([replace(BOUGHT, quantity=2.0, realized_pnl=148.0)], None),
    ],
)
def test_what_it_had_cost_follows_from_the_profit_of_its_close(closes, cost):
    held = Opening(quantity=-1.0)
    assert opening_of(closes, held) == replace(held, cost=cost)


def test_a_transfer_of_an_unknown_quantity_has_no_cost():
    """As one without a sign, of which no close says whether it was long or short."""
    left = moved(SHARES, None, None, 2, kind=MovementKind.TRANSFER)
    bought, sold = moved(SHARES, 100.0, 5.0, 3), moved(SHARES, -100.0, 6.0, 4, realized_pnl=98.0)
    assert opening_of([left, bought, sold], None) == Opening(quantity=0.0)
