"""Booking: quantities and cost are conserved along the edges, whoever had what."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from itertools import chain
from random import Random
from typing import Any

import pytest

from position_sync_dagster.domain.holding import grouped
from position_sync_dagster.money.campaigns.campaigns import closed_campaigns, money_of
from position_sync_dagster.money.campaigns.strategy_money import live_money
from position_sync_dagster.money.past.attribution import attributed
from position_sync_dagster.money.past.booking import (
    Booking,
    EdgeKind,
    Share,
    booked,
    of_account,
    of_owner,
)
from position_sync_dagster.money.past.movements import Movement, MovementKind
from position_sync_dagster.money.past.postings import Effect, Posting
from tests.unit.money.campaigns.test_closed_campaigns import (
    CALL,
    NEW_SHARES,
    OTHER,
    PUT,
    SHARES,
    SOLD,
    A,
    acted,
    leg,
    moved,
    movements_in,
    parts_of,
)
from tests.unit.money.campaigns.test_closed_campaigns import (
    booked as booked_by_broker,
)
from tests.unit.money.past.test_attribution import claims, history


def split_history(random: Random) -> list[Movement]:
    """Return a history with a split of the shares, three for two, and a part that is called."""
    movements = history(random)
    held = 0.0
    for movement in list(movements):
        if movement.conid != SHARES:
            continue
        held += movement.quantity or 0.0
        if held and movement.day.day == 12:
            movements.append(acted(SHARES, held / 2, 12, cash=7.0))
            held *= 1.5
    return movements


def source_of(share: Share) -> tuple[str, str | None]:
    """Return what the share was opened by, and what brought it last."""
    brought = share.brought_by
    return share.posting.posting_id, brought.posting_id if brought else None


def taken_and_left(booking: Booking) -> tuple[dict[Any, float], dict[Any, float]]:
    """Return by source what edges brought of it, and what edges took of it with what is left."""
    brought: defaultdict[Any, float] = defaultdict(float)
    taken: defaultdict[Any, float] = defaultdict(float)
    for edge in booking.edges:
        if edge.opened is not None:
            taken[source_of(edge.opened)] += edge.opened.quantity
        if edge.kind is EdgeKind.CAME_FROM:
            brought[source_of(edge.by)] += edge.by.quantity
    for shares in booking.held.values():
        for share in shares:
            taken[source_of(share)] += share.quantity
    return brought, taken


@pytest.mark.parametrize("group_of", [of_owner, of_account])
@pytest.mark.parametrize("seed", range(30))
def test_of_each_posting_what_edges_took_and_what_is_left_make_its_quantity_and_cost(
    seed, group_of
):
    random = Random(seed)
    postings = attributed(split_history(random), claims(random))
    booking = booked(postings, group_of)

    brought, taken = taken_and_left(booking)
    for (name, by), quantity in brought.items():
        assert taken[name, by] == pytest.approx(quantity), (name, by)

    # What one movement closed and opened has its money in both.
    closing = {p.movement.movement_id for p in postings if p.effect is Effect.CLOSES}
    for group, of_posting in openings_of(postings, group_of).items():
        name = group[1]
        shares = [
            share
            for share in shares_at_their_end(booking)
            if (group_of(share.posting), share.posting.movement.movement_id) == group
        ]
        if name not in closing and None not in [share.cash for share in shares]:
            cost = sum(posting.cash - posting.fee for posting in of_posting)
            assert sum(share.cash for share in shares) == pytest.approx(cost)


def openings_of(postings: list[Posting], group_of: Any) -> dict[Any, list[Posting]]:
    """Return what opened something by group and movement."""
    opening = [posting for posting in postings if posting.effect is Effect.OPENS]
    return grouped(lambda p: (group_of(p), p.movement.movement_id), opening)


def shares_at_their_end(booking: Booking) -> list[Share]:
    """Return what was closed, and what is held."""
    closed = [edge.opened for edge in booking.edges if edge.kind is EdgeKind.CLOSES]
    return [share for share in (*closed, *chain.from_iterable(booking.held.values())) if share]


def edges_of(booking: Booking, kind: EdgeKind) -> list[tuple[float, float | None, float]]:
    """Return of each edge what was opened and what that had brought, and by how much of what."""
    return [
        (edge.opened.quantity, edge.opened.cash, edge.by.quantity)
        for edge in booking.edges
        if edge.kind is kind and edge.opened
    ]


STOCK: dict[str, Any] = {"sec_type": "STK", "right": None, "strike": None}
TWO_OWNERS = movements_in("""
    2 trade  100 SHARES at 1 fee=0
    3 trade  100 SHARES at 3 fee=0
    6 trade -100 SHARES at 4 fee=0
""")


def of_two_owners() -> list[Posting]:
    """Return postings in which A buys at 1, B at 3, and B sells at 4."""
    [first, second, sold] = TWO_OWNERS
    return [
        posted(first, Effect.OPENS),
        posted(second, Effect.OPENS, "b"),
        posted(sold, Effect.CLOSES, "b"),
    ]


def test_of_one_owners_close_the_account_takes_what_was_opened_first_and_the_owner_its_own():
    by_owner = booked(of_two_owners(), of_owner)
    by_account = booked(of_two_owners(), of_account)
    assert edges_of(by_owner, EdgeKind.CLOSES) == [(100.0, -300.0, -100.0)]
    assert edges_of(by_account, EdgeKind.CLOSES) == [(100.0, -100.0, -100.0)]
    assert [edge.gain for edge in (*by_owner.edges, *by_account.edges)] == [100.0, 300.0]


def test_what_is_live_has_one_average_cost_and_the_same_sum():
    trades = movements_in("""
        2 trade 100 SHARES at 1 fee=0
        3 trade 100 SHARES at 3 fee=0
        6 trade -50 SHARES at 4 fee=0
    """)
    pooled = booked(parts_of(trades, leg(SHARES)), of_owner, is_pooled=True)
    assert edges_of(pooled, EdgeKind.CLOSES) == [(50.0, -100.0, -50.0)]
    assert cost_in(pooled.held["s", (A, SHARES)]) == (150.0, -300.0)


def test_what_is_taken_for_cash_takes_its_cost_along():
    """A bond of 1,000 at 0.80, of which 3 are called at 1.00."""
    movements = movements_in("""
        2 trade  1000 SHARES at 0.8 fee=0
        6 action   -3 SHARES        type=BC cash=3
    """)
    booking = booked(parts_of(movements, leg(SHARES)), of_account)
    assert edges_of(booking, EdgeKind.CLOSES) == [(3.0, pytest.approx(-2.4), -3.0)]
    assert cost_in(booking.held[A, SHARES]) == (997.0, pytest.approx(-797.6))


def test_a_split_in_the_other_direction_that_pays_for_a_fraction_sells_nothing():
    movements = movements_in("""
        2 trade  100 SHARES at 1 fee=0
        6 action -90 SHARES      type=RS cash=3
    """)
    booking = booked(parts_of(movements, leg(SHARES)), of_account)
    assert edges_of(booking, EdgeKind.CLOSES) == []
    assert edges_of(booking, EdgeKind.CAME_FROM) == [(100.0, -100.0, 10.0)]
    assert [edge.gain for edge in booking.edges] == [0.0, 3.0]


def test_a_delivery_carries_its_owner_and_not_its_cost():
    movements = movements_in("""
        2 trade       -1 PUT    at 2
        6 assignment   1 PUT    at 0
        6 assignment 100 SHARES at 50
    """)
    postings = parts_of(movements, leg(PUT))
    [_sold, end, came] = postings
    assert came.owner == "s"
    assert came.came_from == (end.posting_id,)
    booking = booked(postings, of_owner)
    assert [edge.gain for edge in booking.edges] == [199.0]
    [held] = booking.held["s", (A, SHARES)]
    assert held.cash == -5000.0


def test_what_a_close_of_unknown_owner_leaves_is_unknown_to_each_and_known_to_the_account():
    trades = movements_in("""
        2 trade -2 OTHER at 2 fee=0
        3 trade  1 OTHER at 1 fee=0
        4 trade  1 OTHER at 1 fee=0
    """)
    postings = parts_of(trades, leg(OTHER, "a", quantity=-1.0), leg(OTHER, "b", quantity=-1.0))
    assert [edge.gain for edge in booked(postings, of_account).edges] == [100.0, 100.0]
    assert {edge.gain for edge in booked(postings, of_owner).edges} == {None}


def test_the_cash_of_a_settlement_is_a_part_of_what_its_end_brought():
    end = booked_by_broker(PUT, 1.0, 0.0, 20, MovementKind.CASH_SETTLEMENT)
    cash = booked_by_broker(PUT, 0.0, 0.0, 20, MovementKind.CASH_SETTLEMENT, cash=-350.0)
    postings = parts_of([SOLD, end, cash], leg(PUT))
    [paid] = [posting for posting in postings if posting.pays_for]
    [closed] = [posting for posting in postings if posting.effect is Effect.CLOSES]
    assert paid.pays_for == closed.movement.movement_id
    assert [edge.gain for edge in booked(postings, of_owner).edges] == [199.0 - 350.0]


def test_a_contract_that_is_replaced_by_two_leaves_an_unknown_cost_to_both():
    movements = movements_in("""
        2 trade   100 SHARES     at 10
        6 action -100 SHARES           type=TC
        6 action   50 NEW_SHARES       type=TC
    """)
    second = acted(OTHER, 20.0, 6, type="TC", symbol="NEW", **STOCK)
    booking = booked(parts_of([*movements, second], leg(SHARES)), of_owner)
    held = {key[1][1]: shares[0].cash for key, shares in booking.held.items() if shares}
    assert held == {NEW_SHARES: None, OTHER: None}


def test_what_comes_for_several_is_booked_in_the_order_in_which_it_names_them():
    """It is the same each time the same sources are read."""
    opened, left = [], []
    for number in range(8):
        bought = replace(moved(SHARES, 1.0, 5.0, 2), conid=number, movement_id=f"b{number}")
        taken = replace(acted(SHARES, -1.0, 6), conid=number, movement_id=f"t{number}")
        opened.append(posted(bought, Effect.OPENS))
        left.append(posted(taken, Effect.LEAVES))

    came_from = tuple(posting.posting_id for posting in left)
    came = posted(acted(NEW_SHARES, 8.0, 6), Effect.COMES, came_from=came_from)
    edges = booked([*opened, *left, came], of_owner).edges
    assert [edge.opened.posting for edge in edges if edge.opened] == opened


def posted(movement: Movement, effect: Effect, owner: str = "a", **more: Any) -> Posting:
    """Return all of a movement as a posting of one owner."""
    quantity = movement.quantity or 0.0
    return Posting(
        owner=owner, movement=movement, effect=effect, fraction=1.0, quantity=quantity, **more
    )


def test_an_action_is_known_by_its_id_and_not_by_its_day_and_type():
    """Two contracts become two others on one day, each at another cost."""
    bought, taken, came = movements_in("""
        2 trade   100 SHARES     at 10 fee=0
        6 action -100 SHARES           type=TC action_id=1
        6 action  200 NEW_SHARES       type=TC action_id=1
    """)
    of_second = {"type": "TC", "action_id": "2", "multiplier": 1.0} | STOCK
    second = [
        moved(OTHER, 10.0, 50.0, 2, fee=0.0, multiplier=1.0, **STOCK),
        acted(OTHER, -10.0, 6, **of_second),
        acted(CALL, 5.0, 6, **of_second),
    ]
    movements = [bought, second[0], taken, came, *second[1:]]
    postings = parts_of(movements, leg(SHARES, "a"), leg(OTHER, "b"))
    held = held_of(booked(postings, of_owner))
    assert held.keys() == {("a", (A, NEW_SHARES)), ("b", (A, CALL))}
    assert cost_in(held["a", (A, NEW_SHARES)]) == (200.0, -1000.0)
    assert cost_in(held["b", (A, CALL)]) == (5.0, -50_000.0)


def held_of(booking: Booking) -> dict[Any, list[Share]]:
    return {group: [*shares] for group, shares in booking.held.items() if shares}


def cost_in(shares: Sequence[Share]) -> tuple[float, float | None]:
    """Return the quantity of the only share, and the cash that it brought."""
    [share] = shares
    return share.quantity, share.cash


def test_what_goes_to_another_own_account_takes_owner_cost_and_day_along():
    """The leg names the first account alone."""
    movements = movements_in("""
        2 trade     100 SHARES at 10 fee=0
        6 transfer -100 SHARES       fee=0 cash=0 value=-1200
        6 transfer  100 SHARES       fee=0 cash=0 value=1200 account=U2
        9 trade     -40 SHARES at 15 fee=0 account=U2
    """)
    postings = parts_of(movements, leg(SHARES, "a", account=A))
    assert {posting.owner for posting in postings} == {"a"}
    for group_of in (of_owner, of_account):
        booking = booked(postings, group_of)
        assert edges_of(booking, EdgeKind.CLOSES) == [(40.0, -400.0, -40.0)]
        [[held]] = held_of(booking).values()
        assert held.key == ("U2", SHARES)
        assert held.quantity == 60.0
        assert held.cash == -600.0
        assert held.posting.movement.day.day == 2


@pytest.mark.parametrize("group_of", [of_owner, of_account])
@pytest.mark.parametrize(
    ("left", "came"),
    [
        ([(6, 40)], [(6, 25), (6, 15)]),
        ([(6, 25), (6, 15)], [(6, 40)]),
        ([(6, 30), (6, 10)], [(6, 25), (6, 15)]),
        ([(6, 40)], [(6, 25), (7, 15)]),
        ([(6, 40), (6, 7)], [(6, 7), (6, 25), (6, 15)]),
    ],
)
def test_what_goes_to_another_own_account_in_several_rows_does_so_too(left, came, group_of):
    """Shares that cost 40; the leg names the first account alone."""
    rows = ["2 trade 100 SHARES at 40 fee=0"]
    rows += [f"{day} transfer -{size} SHARES fee=0" for day, size in left]
    rows += [f"{day} transfer {size} SHARES fee=0 account=U2" for day, size in came]
    moved_size = sum(size for _day, size in came)
    movements = movements_in("\n".join(rows))
    postings = parts_of(movements, leg(SHARES, "a", account=A))
    assert {posting.owner for posting in postings} == {"a"}

    booking = booked(postings, group_of)
    assert edges_of(booking, EdgeKind.CLOSES) == []
    kept, brought = sorted(held_of(booking).values(), key=lambda shares: shares[0].key)
    for shares, size in ((kept, 100 - moved_size), (brought, moved_size)):
        assert sum(share.quantity for share in shares) == pytest.approx(size)
        assert sum(share.cash for share in shares) == pytest.approx(-40 * size)
        assert {share.posting.movement.day.day for share in shares} == {2}


def test_what_goes_to_two_own_accounts_in_several_rows_is_not_paired_by_guess():
    """30 leave each of two accounts, in two rows; 50 and 10 come to a third one and a fourth."""
    movements = movements_in("""
        2 trade    30 SHARES at 40 fee=0
        2 trade    30 SHARES at 50 fee=0 account=U2
        6 transfer -30 SHARES      fee=0
        6 transfer -30 SHARES      fee=0 account=U2
        6 transfer  50 SHARES      fee=0 account=U3
        6 transfer  10 SHARES      fee=0 account=U4
    """)
    booking = booked(parts_of(movements, leg(SHARES)), of_account)
    assert [share.cash for shares in held_of(booking).values() for share in shares] == [None] * 2


@pytest.mark.parametrize("group_of", [of_owner, of_account])
def test_what_an_action_brings_closes_by_the_day_on_which_it_was_opened(group_of):
    """As for the tax: what comes for it has the holding period of what left."""
    movements = movements_in("""
        2 trade   40 SHARES     at 10 fee=0
        3 trade   30 NEW_SHARES at 11 fee=0
        6 action -40 SHARES           type=TC action_id=1
        6 action  40 NEW_SHARES       type=TC action_id=1
        9 trade  -35 NEW_SHARES at 15 fee=0
    """)
    booking = booked(parts_of(movements, leg(SHARES, "a"), leg(NEW_SHARES, "a")), group_of)
    assert edges_of(booking, EdgeKind.CLOSES) == [(35.0, -350.0, -35.0)]
    [held] = held_of(booking).values()
    days = [(share.quantity, share.posting.movement.day.day) for share in held]
    assert days == [(5.0, 2), (30.0, 3)]


def test_a_booking_that_is_taken_back_is_no_posting():
    bought, wrong, taken_back, again = movements_in("""
        2 trade 100 SHARES at 10
        6 trade -30 SHARES at 9
        6 trade  30 SHARES at 9  codes=Ca fee=1 cash=-270
        6 trade -30 SHARES at 11 movement_id=again
    """)
    postings = parts_of([bought, wrong, taken_back, again], leg(SHARES))
    assert [posting.movement for posting in postings] == [bought, again]


def test_a_commission_that_is_adjusted_is_in_lots_and_a_dividend_is_not():
    movements = movements_in("""
        2 trade    -1 PUT at 2
        5 fee       - PUT      cash=-0.25 fee=0 type="Commission Adjustments"
        5 dividend  - PUT      cash=3 fee=0
    """)
    booking = booked(parts_of(movements, leg(PUT)), of_owner)
    gains = {edge.kind: edge.gain for edge in booking.edges}
    assert gains == {EdgeKind.PAYS: -0.25, EdgeKind.EARNS: 3.0}


ADJUSTED = 'type="Commission Adjustments" description="Refund (XYZ, {}, 2026-03-0{})"'


@pytest.mark.parametrize("group_of", [of_owner, of_account])
def test_an_adjusted_commission_is_cost_of_the_trade_that_its_words_name(group_of):
    """Three puts are sold in two trades; 0.25 of the fee of the second is refunded much later."""
    movements = movements_in(f"""
        2  trade -1 PUT at 2 fee=-1
        3  trade -2 PUT at 3 fee=-2
        9  trade  1 PUT at 1 fee=-1
        10 trade  2 PUT at 1 fee=-2
        20 fee    - PUT cash=0.25 fee=0 {ADJUSTED.format(2, 3)}
    """)
    postings = parts_of(movements, leg(PUT, "a", removed_at=datetime(2026, 3, 12, tzinfo=UTC)))
    [paid] = [posting for posting in postings if posting.effect is Effect.PAYS]
    assert (paid.owner, paid.cash) == ("a", 0.25)
    assert paid.pays_for == movements[1].movement_id
    edges = booked(postings, group_of).edges
    assert [edge.gain for edge in edges] == [200 - 1 - 100 - 1, 600 - 2 + 0.25 - 200 - 2]


@pytest.mark.parametrize(
    "words", ['type="Commission Adjustments"', ADJUSTED.format(3, 3), ADJUSTED.format(2, 2)]
)
def test_of_an_adjusted_commission_no_trade_is_guessed(words):
    """It names none, or one that there is not, or two trades are such."""
    movements = movements_in(f"""
        2 trade -2 PUT at 2
        2 trade -2 PUT at 2.5
        5 fee    - PUT cash=0.25 fee=0 {words}
    """)
    postings = parts_of(movements, leg(PUT))
    assert {posting.pays_for for posting in postings} == {None}
    [edge] = booked(postings, of_owner).edges
    assert edge.gain == 0.25


def test_an_adjusted_commission_in_another_currency_is_no_cost_of_the_trade():
    movements = movements_in(f"""
        2 trade -2 PUT at 3
        5 fee    - PUT cash=0.5 fee=0 currency=EUR {ADJUSTED.format(2, 2)}
        9 trade  2 PUT at 1
    """)
    money = live_money(parts_of(movements, leg(PUT)))
    realised = {currency: amounts.realised for (_, currency), amounts in money.items()}
    assert realised == {"USD": 600 - 200 - 2, "EUR": 0.5}


def test_what_is_paid_for_what_comes_is_cost_of_it_and_realises_nothing():
    """Rights that are exercised for cash."""
    movements = movements_in("""
        2 trade   100 SHARES     at 1 fee=0
        6 action -100 SHARES          type=SR cash=-600 action_id=1
        6 action  100 NEW_SHARES      type=SR action_id=1
        9 trade   -50 NEW_SHARES at 9 fee=0
    """)
    booking = booked(parts_of(movements, leg(SHARES)), of_owner)
    assert edges_of(booking, EdgeKind.CAME_FROM) == [(100.0, -100.0, 100.0)]
    assert edges_of(booking, EdgeKind.CLOSES) == [(50.0, -350.0, -50.0)]
    assert [edge.gain for edge in booking.edges] == [0.0, 100.0]


def test_rights_that_are_given_cost_nothing_and_what_comes_for_them_what_is_paid():
    movements = movements_in("""
        5 action  100 SHARES      type=RI
        6 action -100 SHARES      type=SR cash=-600 action_id=1
        6 action  100 NEW_SHARES  type=SR action_id=1
    """)
    booking = booked(parts_of(movements, leg(SHARES)), of_account)
    assert {edge.kind for edge in booking.edges} == {EdgeKind.CAME_FROM}
    [shares] = held_of(booking).values()
    assert cost_in(shares) == (100.0, -600.0)


def test_a_quantity_of_eight_digits_is_held():
    trades = movements_in("2 trade 0.00025289 SHARES at 79085; 3 trade -0.0002526 SHARES at 79085")
    booking = booked(parts_of(trades, leg(SHARES)), of_account)
    [[held]] = held_of(booking).values()
    assert held.quantity == pytest.approx(0.00000029, rel=1e-6)


@pytest.mark.parametrize("names", [None, "0", "t1", "x1"])
def test_a_cancellation_names_what_it_takes_back_by_either_id_or_not(names):
    bought, wrong, unnamed = movements_in("""
        2 trade 100 SHARES at 10
        6 trade -30 SHARES at 9 trade_id=t1 transaction_id=x1
        6 trade  30 SHARES at 9 codes=Ca
    """)
    taken_back = replace(unnamed, corrects=names)
    postings = parts_of([bought, wrong, taken_back], leg(SHARES))
    assert [posting.movement for posting in postings] == [bought]


@pytest.mark.parametrize("held", [1.0, 0.0])
def test_after_an_unknown_quantity_what_its_owner_closes_of_that_contract_is_not_known(held):
    """Nobody knows how much an action of the 4th changed; another contract has nothing of it."""
    text = """
         2 trade  1 PUT   at 2
         4 action 0 PUT
         9 trade  1 PUT   at 3
         9 trade  1 OTHER at 3
        10 trade -1 PUT   at 4
        10 trade -1 OTHER at 4
        11 trade -1 PUT   at 4
    """
    bought, acted_on, *traded, last = movements_in(text)
    action = replace(acted_on, quantity=None, cash=None)
    history = [bought, action, *traded, last] if held else [action, *traded]
    postings = parts_of(history, leg(PUT), leg(OTHER))

    profits = {campaign.opened: money_of(campaign.parts, "USD").profit
               for campaign in closed_campaigns(postings)}  # fmt: skip
    assert profits[max(filter(None, profits))] is None
    for group_of in (of_owner, of_account):
        closes = [e for e in booked(postings, group_of).edges if e.kind is EdgeKind.CLOSES]
        assert [e.gain for e in closes if e.by.posting.conid == PUT] == [None] * int(1 + held)
        assert [e.gain for e in closes if e.by.posting.conid == OTHER] == [400 - 300 - 2]


def test_an_unknown_quantity_of_one_owner_says_nothing_of_another_one():
    """What `b` opens of the contract afterwards, and closes, is known."""
    lost = replace(acted(PUT, 0.0, 4), quantity=None, cash=None)
    traded = movements_in("9 trade 1 PUT at 3; 10 trade -1 PUT at 4")
    ended = datetime(2026, 3, 6, tzinfo=UTC)
    begun = leg(PUT, "b", since=date(2026, 3, 7))
    postings = parts_of([SOLD, lost, *movements_in("5 trade 1 PUT at 1"), *traded],
                        leg(PUT, "a", removed_at=ended), begun)  # fmt: skip
    closes = [edge for edge in booked(postings, of_owner).edges if edge.kind is EdgeKind.CLOSES]
    assert [(edge.by.posting.owner, edge.gain) for edge in closes] == [("a", None), ("b", 98.0)]
