"""What is held and no movement says why."""

from collections.abc import Iterable
from dataclasses import asdict, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from position_sync_dagster.domain.leg import UNATTRIBUTED
from position_sync_dagster.lake.schema import (
    BROKER_POSITIONS,
    DAILY_POSITIONS,
    POSITION_CHANGES,
    frame_of,
)
from position_sync_dagster.money.campaigns.campaigns import closed_campaigns, money_of
from position_sync_dagster.money.past.attribution import attributed
from position_sync_dagster.money.past.booking import booked as booked_of
from position_sync_dagster.money.past.booking import of_owner
from position_sync_dagster.money.past.movements import Movement, MovementKind
from position_sync_dagster.money.past.opening import Opening, Seen
from position_sync_dagster.money.past.postings import Posting
from position_sync_dagster.money.past.unexplained import Held, held_in, held_of
from position_sync_dagster.money.tables import MOVEMENTS
from tests.unit.money.campaigns.test_closed_campaigns import (
    GONE,
    HELD_PUT,
    PUT,
    SHARES,
    A,
    booked,
    leg,
    moved,
    movements_in,
)

CLOSE = 21  # the hour (UTC)
MIDNIGHT = datetime(2026, 3, 1, 5, tzinfo=UTC)  # in New York


def at_close(day: int, quantity: float) -> Held:
    return Held(quantity, datetime(2026, 3, day, CLOSE, tzinfo=UTC), MIDNIGHT.replace(day=day + 1))


def seen_at(day: int, hour: int, quantity: float) -> Held:
    at = datetime(2026, 3, day, hour, tzinfo=UTC)
    return Held(quantity, at, at)


def shares_of(movements: Iterable[Movement], *held: Held, before: float = 0.0) -> list[Posting]:
    opening = {(A, SHARES): Opening(quantity=before, cost=10.0)}
    return attributed(movements, [leg(SHARES, "a")], opening, {(A, SHARES): held})


def effects(parts: Iterable[Posting]) -> list[tuple[str, float, bool]]:
    return [(str(part.effect), part.quantity, part.unknown is None) for part in parts]


@pytest.mark.parametrize(
    "held", [[at_close(3, 5.0)], [seen_at(4, 15, 5.0)], [at_close(3, 5.0), seen_at(4, 15, 5.0)]]
)
def test_more_that_is_held_than_was_bought_was_not_opened_by_what_sells_it(held):
    """3 are bought at 10, 5 are held, and 5 are sold at 12: of 2 it is not known what they cost."""
    movements = movements_in("2 trade 3 SHARES at 10 fee=0; 5 trade -5 SHARES at 12 fee=0")
    parts = shares_of(movements, *held)
    assert effects(parts) == [("OPENS", 3, True), ("OPENS", 2, False), ("CLOSES", -5, True)]
    assert {part.owner for part in parts} == {"a"}
    assert parts[1].at == held[0].at
    assert parts[1].unknown == "what XYZ cost is not known: no movement brought it"
    gains = [edge.gain for edge in booked_of(parts, of_owner).edges]
    assert gains == [pytest.approx(3 * (12 - 10)), None]
    [campaign] = closed_campaigns(parts)
    assert money_of(campaign.parts, "USD").profit is None


def test_a_movement_that_comes_late_takes_the_place_of_what_was_not_explained():
    late = "3 trade 2 SHARES at 11 fee=0;"
    movements = movements_in(f"2 trade 3 SHARES at 10 fee=0; {late} 5 trade -5 SHARES at 12 fee=0")
    parts = shares_of(movements, at_close(3, 5.0))
    assert effects(parts) == [("OPENS", 3, True), ("OPENS", 2, True), ("CLOSES", -5, True)]


def test_what_differs_no_more_is_none():
    """30 are seen of 20 shares, and 20 again; or the 10 are booked nine days later."""
    movements = movements_in("2 trade 20 SHARES at 10; 12 transfer 10 SHARES at 10")
    parts = shares_of(movements[:1], at_close(3, 30.0), at_close(5, 20.0))
    assert [part.quantity for part in parts] == [20]
    parts = shares_of(movements, at_close(3, 30.0), at_close(20, 30.0))
    assert [part.quantity for part in parts] == [20, 10]


def test_each_difference_is_dated_when_it_was_seen_first():
    movements = movements_in("2 trade 3 SHARES at 10")
    parts = shares_of(movements, at_close(3, 5.0), at_close(4, 6.0), at_close(5, 5.0))
    assert [(part.quantity, part.at.day) for part in parts] == [(3, 2), (2, 3)]
    parts = shares_of(movements, at_close(3, 5.0), at_close(4, 1.0))
    assert [(part.quantity, part.at.day) for part in parts] == [(3, 2), (-2, 4)]


@pytest.mark.parametrize(
    ("came", "held"),
    [
        ("6 transfer 3 SHARES at 10", at_close(10, 0.0)),  # a long weekend
        ("6 transfer 3 SHARES at 10", at_close(4, 3.0)),  # seen before it is booked
    ],
)
def test_what_a_movement_near_it_explains_is_explained(came, held):
    assert [part.quantity for part in shares_of(movements_in(came), held)] == [3]


@pytest.mark.parametrize(("hour", "quantity"), [(14, 3.0), (20, 0.0)])
def test_a_trade_without_a_time_may_be_of_any_time_of_its_day(hour, quantity):
    [bought] = movements_in("2 trade 3 SHARES at 10")
    parts = shares_of([replace(bought, at=None)], seen_at(2, hour, quantity))
    assert [part.quantity for part in parts] == [3]


def test_what_was_traded_in_the_evening_may_be_in_the_positions_of_a_statement():
    [bought] = movements_in("2 trade 3 SHARES at 10")
    evening = replace(bought, at=datetime(2026, 3, 2, 23, tzinfo=UTC))
    for quantity in (0.0, 3.0):
        assert effects(shares_of([evening], at_close(2, quantity))) == [("OPENS", 3, True)]
    with_more = shares_of([evening], at_close(2, 5.0))
    assert [part.quantity for part in with_more] == [2, 3]
    seen_later = shares_of([evening], at_close(3, 0.0))
    assert [part.quantity for part in seen_later] == [3, -3]


@pytest.mark.parametrize("day", [6, 7, 9])
def test_an_end_that_is_booked_days_after_it_was_seen_is_that_end(day):
    """The put is gone on the 6th without a cause; its expiry is booked on that day, or later."""
    expired = booked(PUT, 1.0, 0.0, day, MovementKind.EXPIRATION)
    parts = attributed([expired], [leg(PUT)], {(A, PUT): HELD_PUT}, GONE)
    assert effects(parts) == [("OPENS", -1, True), ("CLOSES", 1, True)]
    [campaign] = closed_campaigns(parts)
    assert money_of(campaign.parts, "USD").profit == 250


# ---- what the broker books near what is not explained


def ended(kind: MovementKind, conid: int, quantity: float, day: int, hour: int) -> Movement:
    at = datetime(2026, 3, day, hour, tzinfo=UTC)
    return replace(booked(conid, quantity, 0.0, day, kind), at=at)


def quantities(parts: Iterable[Posting]) -> list[tuple[str, int, float]]:
    return [(str(part.movement.kind), part.at.day, part.quantity) for part in parts]


@pytest.mark.parametrize(
    ("day", "hour", "seen_on"),
    [
        (21, 5, 16),  # as it is inferred
        (20, 20, 21),  # booked before the gateway shows it: Monday's may be that, until Saturday
    ],
)
def test_an_expiry_does_not_explain_what_went_days_before_it(day, hour, seen_on):
    """Of -10 options 5 go without a cause on Monday, the 5 others expire on Friday."""
    expired = ended(MovementKind.EXPIRATION, PUT, 5.0, day, hour)
    held = [
        seen_at(16, 12, -10.0), seen_at(16, 16, -5.0),
        seen_at(21, 4, -5.0), seen_at(21, 5, 0.0),
    ]  # fmt: skip
    movements = [*movements_in("2 trade -10 PUT at 2 fee=0"), expired]
    for stated, first in ((held, seen_on), (held[:2], 16)):
        parts = attributed(movements, [leg(PUT)], {}, {(A, PUT): stated})
        assert sorted(quantities(parts)) == [
            ("EXPIRATION", day, 5.0), ("TRADE", 2, -10.0), ("UNEXPLAINED", first, 5.0)
        ]  # fmt: skip
        [campaign] = closed_campaigns(parts)
        assert money_of(campaign.parts, "USD").profit is None


def test_what_was_delivered_and_seen_is_not_waited_for_again():
    """100 shares are delivered on Friday, seen on Saturday, and gone on Monday without a cause."""
    delivered = ended(MovementKind.ASSIGNMENT, SHARES, 100.0, 20, 20)
    held = [seen_at(21, 4, 0.0), seen_at(21, 5, 100.0), seen_at(23, 12, 100.0)]
    assert quantities(shares_of([delivered], *held)) == [("ASSIGNMENT", 20, 100.0)]
    parts = shares_of([delivered], *held, seen_at(23, 15, 0.0))
    assert quantities(parts) == [("ASSIGNMENT", 20, 100.0), ("UNEXPLAINED", 23, -100.0)]


@pytest.mark.parametrize("is_seen", [False, True])
def test_what_goes_after_a_split_was_seen_is_not_of_the_split(is_seen):
    """100 shares become 200 on Friday evening, seen on Monday; on Tuesday 150 are held."""
    movements = movements_in("2 trade 100 SHARES at 10 fee=0; 13 action 100 SHARES")
    held = [seen_at(16, 11, 100.0), seen_at(17, 12, 200.0), seen_at(17, 15, 150.0)]
    if is_seen:
        held.insert(1, seen_at(16, 12, 200.0))
    parts = shares_of(movements, *held)
    assert quantities(parts)[-1] == ("UNEXPLAINED", 17, -50.0)
    assert sum(part.quantity for part in parts) == 150


@pytest.mark.parametrize(
    "more", [{"type": "BookTrade"}, {"type": "BookTrade", "price": 0.0}, {"price": 0.0}]
)
def test_a_trade_that_the_broker_booked_may_be_seen_in_the_night(more):
    [bought, sold] = movements_in("13 trade 2 SHARES at 10 fee=0; 20 trade -2 SHARES at 12 fee=0")
    sold = replace(sold, **more)
    held = [seen_at(21, 4, 2.0), seen_at(21, 5, 0.0)]
    for stated in (held[:1], held):
        parts = shares_of([bought, sold], *stated)
        assert [part.quantity for part in parts] == [2, -2]
        [campaign] = closed_campaigns(parts)
        assert campaign.closed == date(2026, 3, 20)


def test_what_an_action_brought_before_it_is_booked_counts_once():
    """10 more of 100 shares are seen on the 9th, all are sold on the 11th; booked on the 17th."""
    traded = movements_in("2 trade 100 SHARES at 10 fee=0; 11 trade -110 SHARES at 12 fee=0")
    held = [seen_at(9, 12, 100.0), seen_at(9, 13, 110.0), seen_at(11, 18, 0.0)]
    before = shares_of(traded, *held)
    assert quantities(before)[1] == ("UNEXPLAINED", 9, 10.0)

    action = movements_in("17 action 10 SHARES")
    for stated in (held, [*held, seen_at(18, 12, 0.0)]):
        parts = shares_of([*traded, *action], *stated)
        assert sum(part.quantity for part in parts) == 0
        assert "UNEXPLAINED" not in {kind for kind, _day, _quantity in quantities(parts)}
        assert [money_of(each.parts, "USD").profit for each in closed_campaigns(parts)] == [None]


def test_a_trade_whose_execution_comes_later_is_not_explained_until_then():
    """3 are seen to go at 17:00, and the execution says 17:01: there are two clocks."""
    [bought, sold] = movements_in("2 trade 3 SHARES at 10 fee=0; 5 trade -3 SHARES at 12 fee=0")
    held = [seen_at(5, 17, 0.0)]
    assert quantities(shares_of([bought], *held))[-1] == ("UNEXPLAINED", 5, -3.0)
    sold = replace(sold, at=sold.at + timedelta(minutes=1))
    for stated in (held, [*held, seen_at(6, 15, 0.0)]):
        parts = shares_of([bought, sold], *stated)
        assert quantities(parts) == [("TRADE", 2, 3.0), ("TRADE", 5, -3.0)]
        [campaign] = closed_campaigns(parts)
        assert money_of(campaign.parts, "USD").profit == 3 * (12 - 10)


def test_what_came_without_a_movement_belongs_to_those_that_claim_it_then():
    """a claims 3 shares and has them: the 2 others are nobody's, and a sells its own."""
    movements = movements_in("2 trade 3 SHARES at 10 fee=0; 5 trade -5 SHARES at 12 fee=0")
    claim = leg(SHARES, "a", quantity=3.0)
    parts = attributed(movements, [claim], {}, {(A, SHARES): [at_close(3, 5.0)]})
    owned = [(part.owner, part.quantity, part.unknown is None) for part in parts]
    assert owned == [
        ("a", 3, True), (UNATTRIBUTED, 2, False), ("a", -3, True), (UNATTRIBUTED, -2, True)
    ]  # fmt: skip
    [of_a, of_nobody] = [
        closed_campaigns([part for part in parts if part.owner == owner])
        for owner in ("a", UNATTRIBUTED)
    ]
    assert money_of(of_a[0].parts, "USD").profit == pytest.approx(6)
    assert of_nobody == []  # shares of no strategy are in no campaign


# ---- what tables have of it


def rows_of(spec: Any, *rows: dict[str, Any]) -> pl.DataFrame:
    usual = {"account": A, "conid": SHARES, "symbol": "XYZ", "sec_type": "STK", "currency": "USD"}
    return frame_of(spec, [usual | row for row in rows])


def stated(*closes: dict[str, Any], changes: Iterable[dict[str, Any]] = ()) -> list[Held]:
    seen = Seen(
        rows_of(POSITION_CHANGES, *changes),
        rows_of(DAILY_POSITIONS, *closes),
        BROKER_POSITIONS.empty,
    )
    movements = frame_of(MOVEMENTS, [asdict(moved(SHARES, 3.0, 10.0, 2))])
    return held_in(held_of(movements, seen)).get((A, SHARES), [])


def close_on(day: int, position: float, **more: Any) -> dict[str, Any]:
    closed_at = datetime(2026, 3, day, CLOSE, tzinfo=UTC)
    usual = {"session_date": date(2026, 3, day), "closed_at": closed_at, "timestamp": closed_at}
    return usual | {"position": position} | more


def test_a_change_says_what_was_held_before_it_and_after_it():
    seen = datetime(2026, 3, 4, 15, tzinfo=UTC)
    two_minutes = timedelta(minutes=2)  # there are two clocks
    change = {"change_id": "c", "before": 5.0, "after": 1.0, "seen_at": seen}
    earlier = change | {"since": seen - timedelta(days=1)}
    before = Held(5.0, seen - timedelta(days=1) - two_minutes, seen - timedelta(days=1))
    after = Held(1.0, seen, seen)
    assert stated(changes=[change]) == [Held(5.0, seen - two_minutes, seen), after]
    assert stated(changes=[earlier]) == [before, after]
    assert stated(changes=[change | {"sec_type": "BILL"}]) == []  # units and face value differ


def test_a_close_whose_row_is_older_says_what_was_held_then():
    older = datetime(2026, 3, 2, 15, tzinfo=UTC)
    closes = close_on(3, 5.0), close_on(4, 5.0, timestamp=older)
    assert stated(*closes) == [at_close(3, 5.0), Held(5.0, older, MIDNIGHT.replace(day=3))]


def test_what_a_trade_near_it_says_takes_nothing_from_an_older_difference():
    """The sale is seen seconds before its time; as much came days before, without a movement."""
    movements = movements_in("6 trade -200 SHARES at 12")
    [sale] = movements
    sold = sale.at
    assert sold is not None
    seen = Held(0.0, sold - timedelta(seconds=22), sold - timedelta(seconds=22))
    parts = shares_of(movements, seen_at(3, 15, 200.0), seen)
    assert effects(parts) == [("OPENS", 200.0, False), ("CLOSES", -200.0, True)]
    assert [part.movement.day.day for part in parts] == [3, 6]


def test_one_booking_takes_the_place_of_all_that_differed_before_it():
    """A transfer that names its day alone is seen in two steps."""
    movements = movements_in("3 transfer 300 SHARES fee=0 cash=0 value=3000")
    [transfer] = movements
    at = datetime(2026, 3, 3, 10, tzinfo=UTC)
    later = at + timedelta(seconds=10)
    steps = (Held(0.0, at, at), Held(100.0, at, at), Held(300.0, later, later))
    parts = shares_of([replace(transfer, at=at + timedelta(hours=5))], *steps)
    assert [(part.quantity, part.movement.kind) for part in parts] == [
        (300.0, MovementKind.TRANSFER)
    ]
