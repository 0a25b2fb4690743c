"""Line priority: who gets a market data line, and how the number of lines is learned."""

from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from position_sync_dagster.domain.line_allocation import Demand, LineLimit, allocate_lines, demands
from position_sync_dagster.domain.retry import Backoff
from tests.support.holdings import make_holding
from tests.support.legs import ADDED_AT, leg

NOW = ADDED_AT
OPT = ("OPT",)


def held(conid, account="A", position=1.0, sec_type="OPT"):
    return make_holding(conid, NOW, account=account, position=position, sec_type=sec_type)


def wanted_of(holdings, legs):
    """Return the demands of these legs, for a login with these holdings."""
    return demands(
        lambda conid: [h for h in holdings if h.instrument.conid == conid], legs, sec_types=OPT
    )


def allocate(wanted, held_for=(), limit=10, reserve=0, hold_s=0.0):
    """Allocate at moment 0; `held_for` gives conid → seconds since its line was taken."""
    return allocate_lines(
        wanted, {conid: -age_s for conid, age_s in dict(held_for).items()},
        budget=limit - reserve, now=0.0, min_hold_s=hold_s,
    )  # fmt: skip


def want(conid, priority=1, age_s=0):
    since = NOW - timedelta(seconds=age_s)
    return Demand(conid=conid, priority=priority, since=since)


def underlying(conid, options=1):
    return Demand(conid=conid, options=options)


def test_a_leg_that_its_account_does_not_hold_wants_no_line():
    legs = [leg(1), leg(2), leg(3), leg(4, account="B")]
    assert wanted_of([held(1), held(2, position=0.0), held(4)], legs) == [want(1)]


def test_a_leg_shared_by_strategies_and_accounts_wants_one_line():
    wanted = wanted_of([held(1, "A"), held(1, "B")], [leg(1, "s1", priority=3), leg(1, "s2")])
    assert wanted == [want(1, priority=1)]


def test_a_demand_is_as_old_as_its_oldest_leg():
    older = replace(leg(1, "s1", priority=3), added_at=NOW - timedelta(seconds=9))
    assert wanted_of([held(1)], [leg(1, "s2"), older]) == [want(1, age_s=9)]


def test_lines_go_by_priority_then_to_the_conid_that_has_one_then_by_age():
    wanted = [want(1, 2, 99), want(2, 1, 1), want(3, 1, 5), want(4, 1, 0)]
    assert allocate(wanted, limit=2) == {2, 3}
    assert allocate(wanted, {4: 60}, limit=2) == {4, 3}


def test_the_reserve_stays_free():
    assert len(allocate([want(c) for c in range(1, 200)], limit=100, reserve=5)) == 95


def test_a_young_line_is_kept_and_counts_even_if_nobody_wants_it():
    assert allocate([want(1), want(2)], {9: 1}, limit=2, hold_s=5) == {9, 1}
    assert allocate([want(1), want(2)], {9: 1}, limit=2, hold_s=1) == {1, 2}


def test_a_line_goes_to_a_better_priority_when_its_hold_is_over():
    wanted = [want(1, priority=2), want(2, priority=1)]
    assert allocate(wanted, {1: 4.9}, limit=1, hold_s=5) == {1}
    assert allocate(wanted, {1: 5.0}, limit=1, hold_s=5) == {2}


def test_young_lines_above_a_limit_that_fell_are_kept_until_their_hold_is_over():
    wanted = [want(c) for c in range(1, 6)]
    granted = {1, 2, 3, 4}
    young = dict.fromkeys(granted, 2)
    grown = dict.fromkeys(granted, 5)
    assert allocate(wanted, young, limit=3, reserve=1, hold_s=5) == granted
    assert allocate(wanted, grown, limit=3, reserve=1, hold_s=5) == {1, 2}


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 3), st.integers(0, 50)), max_size=60),
    st.dictionaries(st.integers(1, 60), st.integers(0, 20), max_size=40),
    st.integers(0, 30),
    st.integers(0, 10),
)
def test_no_line_is_added_above_limit_less_reserve_and_the_choice_is_always_the_same(
    wants, held_for, limit, reserve
):
    wanted = list({c: want(c, p, age) for c, p, age in wants}.values())
    young = {c for c, age_s in held_for.items() if age_s < 5}
    budget = max(0, limit - reserve)
    first = allocate(wanted, held_for, limit, reserve, hold_s=5)
    assert first >= young
    assert len(first) <= budget or first == young
    assert first == allocate(list(reversed(wanted)), held_for, limit, reserve, hold_s=5)
    if len(first) < budget:
        assert first >= {w.conid for w in wanted}


LIMIT = LineLimit(configured=100, reserve=5, wait=Backoff(first_s=60.0, longest_s=900.0))


def burst(limit, given, at):
    """Refuse 35 lines one after the other, until so many are in use."""
    for in_use in range(given + 34, given - 1, -1):
        limit = limit.refused(in_use, at)
    return limit


def test_a_burst_of_refusals_lowers_the_limit_once():
    limit = burst(LIMIT, 60, at=0.0)
    assert limit.lines == 60
    assert limit.at(59.9) == limit
    assert limit.at(60.0).lines == 100


def test_each_refused_try_makes_the_next_one_wait_twice_as_long_up_to_the_longest():
    limit = burst(LIMIT, 60, at=0.0)
    now = 0.0
    waits = []
    for _ in range(7):
        waits.append(limit.until - now)
        now = limit.until
        limit = burst(limit.at(now), 60, at=now)
    assert waits == [60, 120, 240, 480, 900, 900, 900]


def test_a_refusal_long_after_a_try_that_was_granted_waits_a_minute_again():
    limit = burst(burst(LIMIT, 60, at=0.0).at(60.0), 60, at=60.0).at(180.0)
    assert limit.lines == 100
    assert burst(limit, 60, at=2000.0).until == 2060.0


def test_a_limit_that_falls_further_does_not_wait_longer():
    limit = burst(burst(LIMIT, 60, at=0.0), 40, at=30.0)
    assert limit.lines == 40
    assert limit.until == 90.0


def test_underlyings_come_before_legs_with_a_quarter_of_the_lines_at_most():
    legs = [want(conid) for conid in range(200)]
    five = [underlying(1000 + n) for n in range(5)]
    lines = allocate([*legs, *five], limit=100, reserve=5)
    assert len(lines) == 95
    assert lines & set(range(1000, 2000)) == {1000, 1001, 1002, 1003, 1004}

    many = [underlying(1000 + n) for n in range(400)]
    lines = allocate([*legs[:20], *many], limit=100, reserve=5)
    assert len(lines) == 20 + 23
    assert lines > set(range(20))


def test_the_underlying_that_most_legs_need_comes_first_and_keeps_its_line_beside_an_equal_one():
    wanted = [underlying(1, options=3), underlying(2, options=90), underlying(3, options=3)]
    assert allocate(wanted, limit=4) == {2}
    assert allocate(wanted, {3: 60}, limit=8) == {2, 3}


def test_a_young_line_of_an_underlying_is_kept_as_any_other():
    wanted = [want(1), want(2), underlying(8)]
    assert allocate(wanted, {9: 1, 1: 1}, limit=4, hold_s=5) == {9, 8, 1, 2}
    assert allocate(wanted, {2: 1, 1: 1}, limit=2, hold_s=5) == {1, 2}
