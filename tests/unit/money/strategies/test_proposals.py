from collections import Counter, defaultdict
from dataclasses import replace
from datetime import date
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from position_sync_dagster.money.strategies.proposals import ProposedStrategy, propose
from tests.support.legs import leg
from tests.support.option_books import book, contract, holding, order

# The kind of each strategy, and its legs.
KINDS = """\
single: 100C -3
covered-call: stock 200, 110C -2
covered-call: future 2, F110C -2
covered-put: stock -100, 90P -1
protective-put: stock 100, 90P 1
protective-call: stock -100, 110C 1
collar: stock 300, 110C -3, 90P 3
vertical: 90P 2, 95P -2
ratio-spread: 100C 1, 110C -2
back-spread: 100C -1, 110C 2
straddle: 100C -1, 100P -1
strangle: 110C -1, 90P -1
risk-reversal: 110C 1, 90P -1
synthetic: 100C 1, 100P -1
calendar: 100C -1, 100C+ 1
diagonal: 105C -1, 100C+ 1
double-calendar: 105C -1, 105C+ 1, 95P -1, 95P+ 1
double-diagonal: 105C -1, 110C+ 1, 95P -1, 90P+ 1
butterfly: 95C 1, 100C -2, 105C 1
broken-wing-butterfly: 95P 1, 100P -2, 110P 1
condor: 95C 1, 100C -1, 105C -1, 110C 1
iron-butterfly: 90P 1, 100P -1, 100C -1, 110C 1
iron-condor: 90P 2, 95P -2, 105C -2, 110C 2
iron-condor: 90P 3, 95P -8, 105C -6, 110C 2
reverse-iron-butterfly: 90P -1, 100P 1, 100C 1, 110C -1
reverse-iron-condor: 90P -1, 95P 1, 105C 1, 110C -1
jade-lizard: 95P -1, 105C -1, 110C 1
reverse-jade-lizard: 105C -1, 95P -1, 90P 1
box: 95C 1, 105C -1, 95P -1, 105P 1
"""


def legs_of(text: str) -> dict[str, float]:
    """Return the quantity of each leg that a row of `KINDS` has."""
    words = [leg.split() for leg in text.split(",")]
    return {name: float(quantity) for name, quantity in words}


ROWS = [row.split(": ") for row in KINDS.splitlines()]
BOOKS = [(kind, legs_of(text)) for kind, text in ROWS]


def kinds(proposal: list[ProposedStrategy]) -> list[str]:
    return [strategy.kind for strategy in proposal]


def contracts(proposed_strategy: ProposedStrategy) -> dict[int, float]:
    return {part.conid: part.quantity for part in proposed_strategy.legs}


def total(proposal: list[ProposedStrategy]) -> dict[int, float]:
    sums: defaultdict[int, float] = defaultdict(float)
    for strategy in proposal:
        for conid, quantity in contracts(strategy).items():
            sums[conid] += quantity
    return sums


@pytest.mark.parametrize(("kind", "quantities"), BOOKS, ids=lambda one: str(one))
def test_a_structure_is_proposed_as_it_also_beside_others(kind: str, quantities: Any) -> None:
    proposal = propose(book(quantities))
    assert kinds(proposal) == [kind]
    assert contracts(proposal[0]) == {contract(n).conid: q for n, q in quantities.items()}
    # Beside a strangle of a later day, and with twenty shares that cover nothing.
    if any(name.endswith("+") or name == "future" for name in quantities) or len(quantities) < 3:
        return  # these legs may go with the others
    covered = quantities.get("stock", 0.0)
    proposal = propose(book({**quantities, "70P+": 1.0, "stock": covered + 20}))
    assert kind in kinds(proposal)
    shares = contract("stock").conid
    assert total(proposal)[shares] == covered


def test_legs_of_one_order_belong_together_whatever_else_is_held() -> None:
    condor = {"90P": 2.0, "95P": -2.0, "105C": -2.0, "110C": 2.0}
    odd = {"80P": 1.0, "85P": -3.0, "120C": 1.0}
    later = {"85P+": 2.0, "95P+": 2.0, "110C+": -2.0}
    held = later | odd | condor | {"110C": 5.0}
    proposal = propose(book(held), [*order(7, condor), *order(9, odd, minute=5)])
    by_order = [strategy for strategy in proposal if strategy.why == "opened by one order"]
    assert [campaign.kind for campaign in by_order] == ["combination", "iron-condor"]
    assert contracts(by_order[1]) == {contract(n).conid: q for n, q in condor.items()}
    assert total(proposal)[contract("110C").conid] == 5


def test_equal_orders_are_one_strategy_and_closed_lots_count_no_more() -> None:
    spread = {"90P": 1.0, "95P": -1.0}
    old = order(1, spread)
    out = order(2, {"90P": -1.0, "95P": 1.0}, minute=5)
    twice = [*order(3, spread, minute=10), *order(4, {"90P": 2.0, "95P": -2.0}, minute=20)]
    proposal = propose(book({"90P": 3, "95P": -3}), [*old, *out, *twice])
    [strategy] = proposal
    assert strategy.kind == "vertical"
    assert strategy.why == "opened by orders of the same legs"


def test_shares_that_cover_nothing_are_in_no_strategy() -> None:
    proposal = propose(book({"stock": 150, "110C": -1}), order(1, {"stock": 100}))
    assert kinds(proposal) == ["covered-call"]
    assert total(proposal)[contract("stock").conid] == 100


@pytest.mark.parametrize(
    ("name", "quantity", "kind"), [("110C", -1, "covered-call"), ("90P", 1, "protective-put")]
)
def test_an_option_with_an_order_goes_with_shares_without_one(name, quantity, kind) -> None:
    proposal = propose(book({"stock": 100, name: quantity}), order(1, {name: quantity}))
    assert kinds(proposal) == [kind]


def test_what_is_claimed_stays_as_it_is() -> None:
    condor = {"90P": 2.0, "95P": -2.0, "105C": -2.0, "110C": 2.0}
    claims = [leg(contract(name).conid, quantity=q / 2, account="A") for name, q in condor.items()]
    proposal = propose(book(condor), claimed=claims)
    half = {contract(name).conid: quantity / 2 for name, quantity in condor.items()}
    [strategy] = proposal
    assert contracts(strategy) == half
    whole = [leg(contract(name).conid) for name in condor]
    assert propose(book(condor), claimed=whole) == []


def test_equal_partners_are_alternatives_and_not_guessed() -> None:
    proposal = propose(book({"105C": -1, "115C": -1, "stock": 100}))
    assert kinds(proposal) == ["single", "single"]
    assert [len(strategy.alternatives) for strategy in proposal] == [1, 1]
    assert "covered-call" in proposal[0].alternatives[0]


def test_two_debit_spreads_among_others_are_no_reverse_iron_condor() -> None:
    spreads = {"90P": -1, "95P": 1, "105C": 1, "110C": -1, "60P+": 1}
    proposal = propose(book(spreads))
    assert "reverse-iron-condor" in kinds(proposal)  # all options of the expiry
    proposal = propose(book(spreads | {"200C": 1}))
    assert Counter(kinds(proposal)) == {"vertical": 2, "single": 2}


@pytest.mark.parametrize(
    ("kind", "quantities"),
    [
        ("double-diagonal", {"105C": -1, "110C+": 1, "95P": -1, "90P+": 1}),
        ("jade-lizard", {"95P": -1, "105C": -1, "110C": 1, "120C+": 1}),
        ("box", {"95C": 1, "105C": -1, "95P": -1, "105P": 1, "60P": 1, "120P": 1}),
        ("ratio-spread", {"100C": 1, "105C": -3, "60P": 1}),
    ],
)
def test_pairs_make_a_structure_beside_other_options(kind: str, quantities: Any) -> None:
    assert kind in kinds(propose(book(quantities | {"70P+": 2})))


def test_a_put_among_calls_makes_no_condor() -> None:
    proposal = propose(book({"85C": 3, "95P": -3, "105C": -3, "110C": 3}))
    assert "condor" not in kinds(proposal)


@pytest.mark.parametrize(
    ("quantities", "credit", "loss", "unlimited"),
    [
        ({"90P": 1, "95P": -1}, 0, 500, False),
        ({"90P": 1, "95P": -1, "105C": -1, "115C": 1}, 0, 1000, False),
        ({"110C": -1}, 100, None, True),
        ({"90P": -1}, 100, 8900, False),
        ({"110C": 2}, -200, 200, False),
        ({"stock": 100, "110C": -1}, -9900, 9900, False),
        ({"105C": -1, "100C+": 1}, 0, 0, False),
        ({"105C": 1, "100C+": -1}, 0, None, False),
    ],
)
def test_credit_and_greatest_loss(quantities, credit, loss, unlimited) -> None:
    proposal = propose([holding(name, q, cost=100.0) for name, q in quantities.items()])
    [strategy] = proposal
    assert strategy.credit == credit
    assert strategy.greatest_loss == loss
    assert strategy.unlimited == unlimited


def test_an_unknown_cost_is_unknown() -> None:
    spread = {"90P": 1.0, "95P": -1.0}
    [strategy] = propose([holding(n, q, cost=None) for n, q in spread.items()])
    assert strategy.credit is None
    assert strategy.greatest_loss is None
    assert strategy.unlimited is False


def test_names_are_not_taken_twice() -> None:
    held = book({"90P": 1, "95P": -1, "80P+": 1, "85P+": -1})
    first = propose(held)
    assert [strategy.name for strategy in first] == ["SPY vertical 15Dec", "SPY vertical 19Jan"]
    names = {strategy.name for strategy in first}
    assert "SPY vertical 15Dec 2" in {strategy.name for strategy in propose(held, names=names)}
    [calendar] = propose(book({"100C": -1, "100C+": 1}))
    assert calendar.name == "SPY calendar 15Dec", "the first expiry names it"


def test_names_are_short_and_tell_apart_what_differs_by_its_year() -> None:
    condor = {"90P": 2.0, "95P": -2.0, "105C": -2.0, "110C": 2.0}
    held = [holding(name, quantity) for name, quantity in condor.items()]
    [strategy] = propose(held)
    assert strategy.name == "SPY IC 15Dec"
    next_year = []
    for row in held:
        conid = row.instrument.conid + 1
        instrument = replace(row.instrument, conid=conid, expiry=date(2029, 12, 15))
        next_year.append(replace(row, instrument=instrument))
    orders = [*order(1, condor), *order(2, {"120P": -1.0})]
    proposal = propose([*held, *next_year, holding("120P", -1)], orders)
    assert [strategy.name for strategy in proposal] == [
        "SPY IC 15Dec28", "SPY 120P 15Dec", "SPY IC 15Dec29",
    ]  # fmt: skip


def test_a_day_that_is_not_the_coming_one_has_its_year() -> None:
    condor = {"90P": 2.0, "95P": -2.0, "105C": -2.0, "110C": 2.0}
    in_days = {  # of 15 December 2028
        date(2026, 12, 1): "SPY IC 15Dec28",
        date(2027, 12, 15): "SPY IC 15Dec28",
        date(2027, 12, 16): "SPY IC 15Dec",
        date(2028, 12, 15): "SPY IC 15Dec",
    }
    for today, name in in_days.items():
        [strategy] = propose(book(condor), today=today)
        assert strategy.name == name, today
    [call] = propose(book({"105C": 1.0}), today=date(2026, 12, 1))
    assert call.name == "SPY 105C 15Dec28"


NAMES = ["stock", *(f"{strike}{right}{day}" for strike in (90, 95, 100, 105, 110)
                    for right in "CP" for day in ("", "+"))]  # fmt: skip
QUANTITIES = st.integers(-6, 6).filter(bool)


@st.composite
def mixed_books(draw: st.DrawFn) -> tuple[dict[str, float], list[Any], list[Any]]:
    """Structures with shared legs and further legs; some came by orders, some are claimed."""
    held: defaultdict[str, float] = defaultdict(float)
    trades: list[Any] = []
    for number in range(draw(st.integers(0, 4))):
        _kind, quantities = draw(st.sampled_from(BOOKS))
        units = draw(st.integers(1, 3))
        opened = {n: q * units for n, q in quantities.items() if "F" not in n and n != "future"}
        for name, quantity in opened.items():
            held[name] += quantity
        if draw(st.booleans()):
            trades += order(number, opened, minute=draw(st.integers(0, 3)))

    for name, quantity in draw(st.dictionaries(st.sampled_from(NAMES), QUANTITIES)).items():
        held[name] += quantity * (30 if name == "stock" else 1)
    left = {name: quantity for name, quantity in held.items() if quantity}
    claims = []
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=2))
    for number, name in enumerate(names):
        quantity = draw(st.none() | QUANTITIES)
        conid = contract(name).conid
        claims.append(leg(conid, f"s{number}", account="A", quantity=quantity))
    return left, trades, claims


@given(mixed_books(), st.randoms(use_true_random=False))
def test_a_proposal_takes_what_is_held_once_in_whatever_order_it_is_named(given_book, random):
    quantities, trades, claims = given_book
    held = book(quantities)
    proposal = propose(held, trades, claims)
    claimed = {one.conid: one.quantity for one in claims}
    taken = total(proposal)

    for row in held:
        conid = row.instrument.conid
        position = row.position
        claim = claimed.get(conid, 0.0)
        claim = position if claim is None else claim if claim * position > 0 else 0.0
        free = position - (position if abs(claim) > abs(position) else claim)
        assert taken[conid] * position >= 0
        if row.instrument.right is None:
            assert abs(taken[conid]) <= abs(free)
        else:
            assert taken[conid] == pytest.approx(free)

    random.shuffle(held)
    random.shuffle(trades)
    random.shuffle(claims)
    assert propose(held, trades, claims) == proposal


def test_two_thousand_legs_are_proposed_as_many_strategies() -> None:
    random = Random(57)
    names = [f"{strike}{right}{day}" for strike in range(100, 1100, 2) for right in "CP"
             for day in ("", "+")]  # fmt: skip
    held = [holding(name, random.choice([-3, -2, -1, 1, 2, 3])) for name in names]
    assert len({one.instrument.conid for one in held}) == 2000
    assert len(propose(held)) > 100
