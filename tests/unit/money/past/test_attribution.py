"""Whose movements are, over random histories: nothing is lost, and nothing belongs to two."""

from collections import defaultdict
from dataclasses import replace
from datetime import UTC, date, datetime
from random import Random

import pytest

from position_sync_dagster.domain.leg import UNATTRIBUTED, ActiveContract
from position_sync_dagster.money.campaigns.campaigns import closed_campaigns, money_of
from position_sync_dagster.money.campaigns.strategy_money import live_money
from position_sync_dagster.money.past.attribution import attributed
from position_sync_dagster.money.past.movements import Movement, MovementKind
from position_sync_dagster.money.past.opening import Opening
from position_sync_dagster.money.past.postings import Effect
from tests.unit.money.campaigns.test_closed_campaigns import (
    CALL,
    GONE,
    HELD_PUT,
    NEW_CALL,
    NEW_SHARES,
    OTHER,
    PUT,
    SHARES,
    A,
    acted,
    booked,
    leg,
    moved,
    movements_in,
)

LATER = datetime(2026, 3, 9, tzinfo=UTC)

STRIKES = {PUT: 50.0, OTHER: 45.0, CALL: 60.0}
TRADED = (PUT, OTHER, CALL, SHARES)
UNITS = {SHARES: 100}


def history(random: Random) -> list[Movement]:
    """Return trades of three options and their shares, assignments, and a merger at the end."""
    movements: list[Movement] = []
    held: defaultdict[int, float] = defaultdict(float)
    for day in range(2, 20):
        conid = random.choice(TRADED)
        size = random.choice([-2.0, -1.0, 1.0, 2.0]) * UNITS.get(conid, 1)
        movements.append(moved(conid, size, random.randint(1, 9) * 1.0, day))

        held[conid] += size
        if random.random() < 0.3 and held[PUT] < 0:
            shares = -held[PUT] * 100
            movements.append(booked(PUT, -held[PUT], 0.0, day, MovementKind.ASSIGNMENT))
            movements.append(booked(SHARES, shares, 50.0, day, MovementKind.ASSIGNMENT))
            held[SHARES] += shares
            held[PUT] = 0.0

    for old, new in ((SHARES, NEW_SHARES), (CALL, NEW_CALL)):
        if held[old]:
            movements.append(acted(old, -held[old], 20, type="TC"))
            movements.append(acted(new, held[old], 20, type="TC"))
    return movements


def claims(random: Random) -> list[ActiveContract]:
    legs = []
    for conid in TRADED:
        for strategy in ("a", "b")[: random.randint(0, 2)]:
            quantity = random.choice([-1.0, 1.0]) * UNITS.get(conid, 1)
            legs.append(leg(conid, strategy, quantity=quantity))
    return legs


@pytest.mark.parametrize("seed", range(30))
def test_each_movement_is_divided_among_its_owners_without_a_rest(seed):
    random = Random(seed)
    movements = history(random)
    legs = claims(random)
    parts = attributed(movements, legs, {})

    quantities: defaultdict[str, float] = defaultdict(float)
    fractions: defaultdict[str, float] = defaultdict(float)
    for part in parts:
        quantities[part.movement.movement_id] += part.quantity
        fractions[part.movement.movement_id] += part.fraction
    wanted: defaultdict[str, float] = defaultdict(float)
    for movement in movements:
        wanted[movement.movement_id] += movement.quantity or 0.0
    assert quantities == pytest.approx(wanted)
    assert all(fraction == pytest.approx(round(fraction)) for fraction in fractions.values())


@pytest.mark.parametrize("seed", range(30))
def test_what_strategies_earned_is_their_cash_and_the_cost_of_what_is_left(seed):
    random = Random(seed)
    parts = attributed(history(random), claims(random), {})
    for (strategy, _currency), earned in live_money(parts).items():
        of_strategy = [part for part in parts if part.owner == strategy]
        if any(part.unknown for part in of_strategy):
            continue

        left = sum(-lot.cash for lot in earned.lots.values() if lot.cash is not None)
        cash = sum((part.cash or 0.0) - (part.fee or 0.0) for part in of_strategy)
        assert strategy != UNATTRIBUTED
        assert earned.realised == pytest.approx(cash + left)


def test_what_was_held_long_before_its_leg_was_added_belongs_to_it_when_it_is_closed():
    """It was seen at a close before the leg, and its first movement is after it."""
    added = replace(leg(PUT, "a"), added_at=datetime(2026, 3, 5, tzinfo=UTC), since=None)
    seen = Opening(quantity=-1.0, cost=90.0, seen_at=datetime(2026, 3, 1, tzinfo=UTC))
    parts = attributed([moved(PUT, 1.0, 2.0, 10)], [added], {(A, PUT): seen})
    assert [part.owner for part in parts] == ["a", "a"]
    assert [part.effect for part in parts] == [Effect.OPENS, Effect.CLOSES]


def test_a_leg_has_no_opposite_holding_that_ended_when_its_own_was_opened():
    """Three are seen before the first movement; five are sold; the leg is added later."""
    added = replace(leg(PUT, "a"), added_at=datetime(2026, 3, 12, tzinfo=UTC), since=None)
    seen = Opening(quantity=3.0, cost=-300.0, seen_at=datetime(2026, 3, 7, tzinfo=UTC))
    parts = attributed([moved(PUT, -5.0, 2.0, 10)], [added], {(A, PUT): seen})
    assert [part.owner for part in parts] == [UNATTRIBUTED, UNATTRIBUTED, "a"]
    assert [part.quantity for part in parts] == [3.0, -3.0, -2.0]
    assert [part.effect for part in parts] == [Effect.OPENS, Effect.CLOSES, Effect.OPENS]


def test_a_leg_that_moves_to_another_strategy_while_it_is_held_takes_its_holding_along():
    movements = [moved(PUT, -2.0, 2.0, 2)]
    removed = replace(leg(PUT, "a", quantity=-2.0), removed_at=LATER)
    added = replace(leg(PUT, "b", quantity=-2.0), added_at=LATER)
    assert [part.owner for part in attributed(movements, [removed], {})] == ["a"]
    assert [part.owner for part in attributed(movements, [removed, added], {})] == ["b"]


@pytest.mark.parametrize("is_moved", [True, False])
def test_a_quantity_in_any_account_is_claimed_of_what_all_accounts_hold(is_moved):
    """Another account holds as much, with a movement or without: half of the claim is of each."""
    movements = [moved(PUT, -2.0, 2.0, 2)]
    contract = moved(PUT, -2.0, None, 2, account="U2")
    held = {("U2", PUT): Opening(quantity=-2.0, contract=contract)}
    if is_moved:
        movements.append(moved(PUT, -2.0, 2.0, 2, account="U2"))
        held = {}

    def owned(claim: ActiveContract) -> dict[str, float]:
        parts = attributed(movements, [claim], held)
        return {part.owner: part.quantity for part in parts if part.key[0] == A}

    claim = leg(PUT, quantity=-2.0)
    assert owned(claim) == {"s": -1.0, UNATTRIBUTED: -1.0}
    assert owned(replace(claim, account=A)) == {"s": -2.0}


def test_what_is_left_after_a_close_of_unknown_owner_belongs_to_those_that_claim_it():
    movements = movements_in("2 trade -5 PUT at 2; 3 trade 1 PUT at 1")
    parts = attributed(movements, [leg(PUT, "a", quantity=-2.0)], {})
    held = sum(part.quantity for part in parts if part.owner == "a")
    assert held == -2.0
    assert all(part.unclear for part in parts if not part.opens)


@pytest.mark.parametrize(("shared", "other"), [(PUT, OTHER), (OTHER, PUT)])
def test_an_order_of_nobody_closes_what_nobody_has_of_a_contract_of_a_strategy(shared, other):
    """One is sold for the strategy, one beside another option; both of these are bought back."""
    movements = movements_in(f"""
        2 trade -1 {shared} at 2   order_id="of a"
        2 trade -1 {shared} at 2.1 order_id=sold
        2 trade -1 {other}  at 1   order_id=sold
        4 trade  1 {shared} at 0.5 order_id=bought
        4 trade  1 {other}  at 0.4 order_id=bought
    """)
    parts = attributed(movements, [leg(shared, "a", quantity=-1.0)])
    assert [part.owner for part in parts if not part.opens] == [UNATTRIBUTED] * 2
    assert [part.quantity for part in parts if part.owner == "a"] == [-1.0]
    assert not any(part.unclear for part in parts)


@pytest.mark.parametrize("by_hand", [1, 9, None])
@pytest.mark.parametrize(("alone", "beside"), [(PUT, OTHER), (OTHER, PUT)])
def test_what_was_traded_by_hand_on_other_days_does_not_say_whose_a_close_was(
    alone, beside, by_hand
):
    """A spread is opened and closed; a put more of one leg is sold by hand meanwhile.

    Three of the other are traded by hand before or after: 200 + 100 - 50 - 40 - 4 in any case.
    """
    ended = datetime(2026, 3, 5, 12, tzinfo=UTC)
    terms = {"quantity": -1.0, "since": date(2026, 3, 2), "removed_at": ended}
    legs = [leg(conid, "a", **terms) for conid in (alone, beside)]
    movements = movements_in(f"""
        2 trade -1 {alone}  at 2   order_id=opened
        2 trade -1 {beside} at 1   order_id=opened
        3 trade -1 {beside} at 1.5 order_id="by hand"
        4 trade  1 {alone}  at 0.5 order_id=closed
        4 trade  1 {beside} at 0.4 order_id=closed
    """)
    if by_hand is not None:
        closed_at = datetime(2026, 3, by_hand, 18, tzinfo=UTC)
        movements += [
            moved(alone, -3.0, 1.0, by_hand),
            moved(alone, 3.0, 0.9, by_hand, at=closed_at),
        ]
    campaigns = closed_campaigns(attributed(movements, legs))
    [of_strategy] = [campaign for campaign in campaigns if campaign.strategy_id == "a"]
    assert money_of(of_strategy.parts, "USD").profit == 200 + 100 - 50 - 40 - 4


@pytest.mark.parametrize(("first", "last"), [(PUT, OTHER), (OTHER, PUT)])
def test_two_legs_of_a_strategy_claim_a_contract_together(first, last):
    """One names the account. What the order closed of the other contract is so the strategy's."""
    legs = [leg(first, "a", quantity=-1.0), leg(first, "a", quantity=-1.0, account=A)]
    movements = movements_in(f"""
        2 trade -2 {first} at 2
        2 trade -1 {last}  at 1
        3 trade -1 {last}  at 1.5
        4 trade  2 {first} at 0.5 order_id=closed
        4 trade  1 {last}  at 0.4 order_id=closed
    """)
    parts = attributed(movements, [*legs, leg(last, "a", quantity=-1.0)])
    closes = [part for part in parts if not part.opens]
    assert [part.owner for part in closes] == ["a", "a"]
    assert [part.unclear for part in closes] == [None, None]


def test_that_it_is_not_known_whose_one_contract_was_closed_says_nothing_of_another_one():
    movements = movements_in("""
        2 trade -2 PUT   at 1 order_id=2
        2 trade -2 OTHER at 1 order_id=2
        4 trade  1 PUT   at 1 order_id=4
        4 trade  1 OTHER at 1 order_id=4
    """)
    legs = [leg(conid, "a", quantity=-1.0) for conid in (PUT, OTHER)]
    parts = attributed(movements, legs)
    assert {part.conid for part in parts if part.is_owner_unclear} == {PUT, OTHER}


def test_a_close_of_unknown_owner_says_nothing_of_another_contract_that_is_claimed_as_a_whole():
    """One of each is sold by hand, later one by the strategy; one of each is closed."""
    movements = movements_in("""
        2 trade -1 PUT   at 1 order_id=of-put
        2 trade -1 OTHER at 1 order_id=of-other
        4 trade -1 PUT   at 1 order_id=opened
        4 trade -1 OTHER at 1 order_id=opened
        6 trade  1 PUT   at 1 order_id=closed
        6 trade  1 OTHER at 1 order_id=closed
    """)
    begun = {"since": date(2026, 3, 4), "added_at": datetime(2026, 3, 4, 12, tzinfo=UTC)}
    parts = attributed(movements, [leg(conid, "a", **begun) for conid in (PUT, OTHER)])
    assert {part.owner for part in parts} == {"a", UNATTRIBUTED}
    assert {part.conid for part in parts if part.is_owner_unclear} == {PUT, OTHER}


def test_what_is_opened_anew_after_a_close_of_unknown_owner_says_whose_its_order_is():
    movements = movements_in("""
        2 trade -2 PUT   at 1
        3 trade  1 PUT   at 1
        4 trade  1 PUT   at 1
        5 trade -1 PUT   at 1
        5 trade -2 OTHER at 1
        6 trade  1 PUT   at 1 order_id="of a"
        6 trade  1 OTHER at 1 order_id="of a"
    """)
    legs = [leg(conid, "a", quantity=-1.0) for conid in (PUT, OTHER)]
    parts = attributed(movements, [*legs, leg(OTHER, "b", quantity=-1.0)])
    of_order = [part for part in parts if part.movement.order_id == "of a"]
    assert [part.owner for part in of_order] == ["a", "a"]
    assert [part.quantity for part in of_order] == [1.0, 1.0]
    assert not any(part.unclear for part in of_order)


def legs_of_two(of_a: float | None = -2.0, of_b: float | None = -1.0) -> list[ActiveContract]:
    """Return the legs of two strategies: a put of each, and a call of both."""
    shared = [leg(CALL, "a", quantity=of_a), leg(CALL, "b", quantity=of_b)]
    return [*shared, leg(PUT, "a"), leg(OTHER, "b")]


def owned(movements: list[Movement], legs: list[ActiveContract], conid: int = CALL) -> list[str]:
    """Return how much of a contract each movement gave or took, of each owner."""
    moved_parts = [part for part in attributed(movements, legs) if part.key[1] == conid]
    assert not any(part.unclear for part in moved_parts)
    return [f"{part.owner} {part.quantity:g}" for part in moved_parts]


# Three calls are sold for two strategies: two at 3 with puts of a, one at 4 with a put of b.
TWO_ORDERS = """\
    2 trade -2 CALL  at 3 order_id=1
    2 trade -2 PUT   at 1 order_id=1
    {day} trade -1 CALL  at 4 order_id=2
    {day} trade -1 OTHER at 1 order_id=2"""


@pytest.mark.parametrize("day", [2, 3])
def test_what_an_order_opened_of_a_shared_leg_is_of_the_strategy_of_its_other_legs(day):
    """Later each closes by an order of its own: a 600 + 200 - 200 - 100, b 400 + 100 - 150 - 50."""
    movements = movements_in(f"""
        {TWO_ORDERS.format(day=day)}
        5 trade  1 CALL  at 1.5 order_id=3
        5 trade  1 OTHER at 0.5 order_id=3
        6 trade  2 CALL  at 1   order_id=4
        6 trade  2 PUT   at 0.5 order_id=4
    """)
    legs = legs_of_two()
    assert sorted(owned(movements, legs)) == ["a -2", "a 2", "b -1", "b 1"]
    campaigns = closed_campaigns(attributed(movements, legs))
    money = {each.strategy_id: money_of(each.parts, "USD") for each in campaigns}
    assert {name: each.profit for name, each in money.items()} == {
        "a": 600 + 200 - 200 - 100 - 4,
        "b": 400 + 100 - 150 - 50 - 4,
    }
    assert [each.opened.day for each in campaigns if each.strategy_id == "b"] == [day]


def test_an_order_that_is_filled_in_part_gives_its_strategy_what_it_traded():
    movements = movements_in("""
        2 trade -1 CALL  at 3 order_id=1
        2 trade -1 OTHER at 1 order_id=1
        3 trade -1 CALL  at 3 order_id=2
        3 trade -1 PUT   at 1 order_id=2
        4 trade -1 CALL  at 3 order_id=3
        4 trade -1 PUT   at 1 order_id=3
    """)
    assert owned(movements, legs_of_two()) == ["b -1", "a -1", "a -1"]


def test_of_more_than_the_strategy_of_an_order_claims_the_rest_is_of_the_other_and_of_nobody():
    movements = movements_in("2 trade -4 CALL at 3 order_id=1; 2 trade -1 OTHER at 1 order_id=1")
    assert owned(movements, legs_of_two()) == ["b -1", "a -2", "UNATTRIBUTED -1"]
    assert owned(movements, legs_of_two(None, None)) == ["b -4"]
    assert owned(movements, legs_of_two(None, -1.0)) == ["b -1", "a -3"]
    assert owned(movements, legs_of_two(-2.0, None)) == ["b -4"]


@pytest.mark.parametrize(
    "others",
    ["", "2 trade -2 NEW_CALL at 1 order_id=1", "2 trade -2 PUT at 1",
     "2 trade -2 PUT at 1 order_id=7",
     "2 trade -2 PUT at 1 order_id=1; 2 trade -1 OTHER at 1 order_id=1"],
    ids=["alone", "nobody", "without an order", "another order", "two"],
)  # fmt: skip
def test_an_order_of_no_strategy_or_of_two_is_divided_by_what_they_claim(others):
    order = "" if others.endswith("at 1") else "order_id=1"
    movements = movements_in(f"2 trade -3 CALL at 3 {order}; {others}".strip("; "))
    assert owned(movements, legs_of_two()) == ["a -2", "b -1"]
    [half, *_puts] = movements
    halved = owned([replace(half, quantity=-1.5), *_puts], legs_of_two())
    assert halved == ["a -1", "b -0.5"]


def test_a_strategy_that_has_all_that_it_claims_gets_no_more_by_its_order():
    movements = movements_in(f"""
        {TWO_ORDERS.format(day=3)}
        4 trade -1 CALL at 4 order_id=5
        4 trade -2 PUT  at 1 order_id=5
    """)
    assert owned(movements, legs_of_two()) == ["a -2", "b -1", "UNATTRIBUTED -1"]


def test_what_an_ended_strategy_opened_by_its_order_stays_its_own_and_a_moved_leg_is_moved():
    """The first was added before the other ended; of a moved leg the other was added then."""
    movements = movements_in(TWO_ORDERS.format(day=3))
    first, second, puts, other = legs_of_two(-2.0, -2.0)
    ended = [replace(first, removed_at=LATER), second, replace(puts, removed_at=LATER), other]
    added = datetime(2026, 3, 1, tzinfo=UTC)
    together = [replace(claim, added_at=added) for claim in ended]
    assert owned(movements, together) == ["a -2", "b -1"]
    moved_on = [replace(first, removed_at=LATER), replace(second, added_at=LATER), puts]
    assert owned(movements, moved_on) == ["b -2", "a -1"]


@pytest.mark.parametrize(
    "later", ["", "9 transfer 1 PUT fee=0; 9 transfer -1 PUT fee=0 account=U2"]
)
def test_whose_an_order_opened_does_not_depend_on_what_is_transferred_later(later):
    """The put, or the shares, of the order are a's alone; both claim the call."""
    puts = "2 trade -1 PUT at 3; 6 trade -2 PUT at 3 order_id=1 account=U2"
    calls = "6 trade -2 CALL at 1 order_id=1 account=U2"
    movements = movements_in(";".join(filter(None, (puts, calls, later))))
    legs = [leg(CALL, "a"), leg(CALL, "b"), leg(PUT, "a")]
    assert [part.owner for part in attributed(movements, legs) if part.conid == CALL] == ["a"]


def test_a_covered_call_is_of_the_strategy_whose_shares_its_order_bought():
    bought = movements_in("6 trade 200 SHARES at 3 order_id=1; 6 trade -2 CALL at 1 order_id=1")
    legs = [leg(SHARES, "a"), leg(CALL, "a"), leg(CALL, "b")]
    assert [part.owner for part in attributed(bought, legs) if part.conid == CALL] == ["a"]


OPTIONS = [PUT, OTHER, CALL, NEW_CALL]


@pytest.mark.parametrize("seed", range(100))
def test_whose_an_opening_is_follows_neither_from_the_order_of_rows_nor_from_ids(seed):
    """Orders open up to four options, two of them shared, and each is closed at the end."""
    random = Random(seed)
    movements: list[Movement] = []
    for day in range(2, 9):
        for conid in random.sample(OPTIONS, random.randint(1, 4)):
            order = random.choice([None, *[f"of {day}"] * 3])
            terms = {"order_id": order, "description": f"{len(movements)}"}
            movements.append(moved(conid, -random.randint(1, 2) * 1.0, 2.0, day, **terms))

    sizes = [None, -1.0, -2.0, -5.0]
    owners = {PUT: "a", OTHER: "b", CALL: "ab", NEW_CALL: "ab"}
    legs = [
        leg(
            conid,
            strategy,
            quantity=random.choice(sizes),
            since=date(2026, 3, random.randint(1, 4)),
        )
        for conid, strategies in owners.items()
        for strategy in strategies
    ]

    def told(rows: list[Movement], claiming: list[ActiveContract]) -> set[tuple[object, ...]]:
        parts = attributed(rows, claiming)
        return {(part.movement.description, part.owner, round(part.quantity, 6)) for part in parts}

    number_of = dict(zip(OPTIONS, random.sample(OPTIONS, len(OPTIONS)), strict=True))
    ids = random.sample(range(100, 1000), len(movements))
    renamed = [
        replace(
            movement,
            conid=number_of[movement.key[1]],
            movement_id=f"{ids.pop()}",
            order_id=movement.order_id and movement.order_id[::-1],
        )
        for movement in movements
    ]
    renumbered = [replace(claim, conid=number_of[claim.conid]) for claim in legs]
    random.shuffle(renamed)
    random.shuffle(renumbered)
    assert told(renamed, renumbered) == told(movements, legs)


def test_what_an_action_brought_that_took_more_than_is_known_to_have_been_held_is_not_known():
    bought = moved(SHARES, 50.0, 10.0, 2)
    taken = acted(SHARES, -100.0, 20, type="TC", cash=5000.0)
    *_bought, part = attributed([bought, taken], [leg(SHARES, "a")], {})
    assert part.owner == "a"
    assert part.quantity == -100.0
    assert "became by a corporate action is not known" in (part.unknown or "")


def test_an_action_without_proceeds_says_that_what_it_paid_is_not_known():
    bought = moved(SHARES, 100.0, 10.0, 2)
    taken = acted(SHARES, -50.0, 20, type="TC", cash=None)
    *_bought, part = attributed([bought, taken], [leg(SHARES, "a")], {})
    assert (part.unknown or "").startswith("what the corporate action on XYZ")


def test_what_an_action_brings_beside_what_it_exchanges_is_kept_by_who_holds_it():
    """One action exchanges shares of XYZ; what it brings of another symbol has its id too."""
    movements = movements_in("""
         2 trade   100 SHARES     at 10
         2 trade     5 CALL       at 1  symbol=ABC
        20 action -100 SHARES           type=TC action_id=77
        20 action   50 NEW_SHARES       symbol=XYZ type=TC action_id=77
        20 action   10 CALL             symbol=ABC type=TC action_id=77
    """)
    parts = attributed(movements, [leg(CALL, "a")], {})
    of_call = [part for part in parts if part.key[1] == CALL]
    assert [part.effect for part in of_call] == [Effect.OPENS, Effect.KEEPS]
    assert [part.owner for part in of_call] == ["a", "a"]


def test_what_an_option_delivered_is_unknown_for_each_owner_that_may_have_closed_none():
    first = datetime(2026, 3, 6, 17, tzinfo=UTC)
    two, later = movements_in("6 assignment 2 PUT at 0; 10 assignment 1 PUT at 0")
    ends = [replace(two, at=first), replace(later, at=first.replace(day=10))]
    claim = leg(PUT, "a", quantity=-1.0, since=None, added_at=first, removed_at=LATER)
    parts = attributed(ends, [claim], {})
    pays = [part for part in parts if part.effect is Effect.PAYS and part.movement is ends[0]]
    assert {part.owner for part in pays} == {"a", UNATTRIBUTED}
    assert all("delivered is not known" in (part.unclear or "") for part in pays)


@pytest.mark.parametrize("rest", [1.0, 0.0])
def test_what_is_traded_after_it_was_gone_is_something_else(rest):
    """A short put is gone on the 6th, another one is bought on the 9th and perhaps sold again."""
    again = movements_in("9 trade 1 PUT at 3; 12 trade -1 PUT at 4")
    traded = again if rest == 0 else again[:1]
    parts = attributed(traded, [leg(PUT)], {(A, PUT): HELD_PUT}, GONE)
    assert [part.quantity for part in parts[:3]] == [-1.0, 1.0, 1.0]
    assert [part.effect for part in parts[:3]] == [Effect.OPENS, Effect.CLOSES, Effect.OPENS]
    assert sum(part.quantity for part in parts) == rest
    profits = [money_of(each.parts, "USD").profit for each in closed_campaigns(parts)]
    assert profits == [None, 400 - 300 - 2][: len(traded)]


@pytest.mark.parametrize(
    ("bought_at", "is_explained"),
    [
        (datetime(2026, 3, 6, 21, 59, tzinfo=UTC), True),
        (datetime(2026, 3, 6, 22, 1, tzinfo=UTC), True),  # there are two clocks
        (datetime(2026, 3, 6, 22, 3, tzinfo=UTC), False),
        (None, True),  # of its day it is not known when
    ],
)
def test_what_was_traded_until_it_was_gone_explains_it(bought_at, is_explained):
    """It is gone at 22:00."""
    bought = moved(PUT, 1.0, 3.0, 6, at=bought_at)
    parts = attributed([bought], [leg(PUT)], {(A, PUT): HELD_PUT}, GONE)
    kinds = {part.movement.kind for part in parts}
    assert (MovementKind.UNEXPLAINED not in kinds) is is_explained


def test_of_what_is_gone_a_part_is_explained_by_what_was_traded_before():
    """Of three short puts one is bought back on the 5th; three are gone on the 6th."""
    held = replace(HELD_PUT, quantity=-3.0)
    bought = movements_in("5 trade 1 PUT at 3")
    parts = attributed(bought, [leg(PUT)], {(A, PUT): held}, GONE)
    assert [part.quantity for part in parts] == [-3.0, 1.0, 2.0]
