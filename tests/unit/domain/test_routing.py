from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from position_sync_dagster.domain.broker import BrokerPosition
from position_sync_dagster.domain.instrument import Instrument
from position_sync_dagster.domain.leg import LegState, make_leg
from position_sync_dagster.domain.routing import Demand, allocate_lines, demands, route

NOW = datetime(2026, 3, 4, 15, 30, tzinfo=UTC)
OPT = ("OPT",)


def leg(conid, strategy="s", account=None, priority=1, at=NOW):
    return make_leg(
        conid=conid,
        symbol="SPY",
        right="PUT",
        strike=500,
        expiry="20261218",
        strategy_id=strategy,
        added_at=at,
        account=account,
        priority=priority,
    )


def held(conid, account="A", position=1.0, sec_type="OPT"):
    return BrokerPosition(
        gateway_id="g",
        account=account,
        position=position,
        received_at=NOW,
        position_time=NOW,
        snapshot_id="s",
        instrument=Instrument(conid=conid, symbol="SPY", sec_type=sec_type, currency="USD"),
    )


def allocate(wanted, holding=(), limit=10, reserve=0, hold_s=0.0):
    return allocate_lines(
        wanted,
        dict(holding),
        limit=limit,
        reserve=reserve,
        now=NOW,
        min_hold=timedelta(seconds=hold_s),
    )


def want(conid, priority=1, age_s=0):
    return Demand(conid=conid, priority=priority, since=NOW - timedelta(seconds=age_s))


def test_a_leg_that_is_not_held_wants_no_line():
    assert demands([held(1)], [leg(1), leg(2)], sec_types=OPT) == [want(1)]


def test_a_closed_holding_wants_no_line():
    assert demands([held(1, position=0.0)], [leg(1)], sec_types=OPT) == []


def test_a_leg_shared_by_strategies_and_accounts_wants_one_line():
    wanted = demands(
        [held(1, "A"), held(1, "B")], [leg(1, "s1", priority=3), leg(1, "s2")], sec_types=OPT
    )
    assert wanted == [want(1, priority=1)]


def test_a_leg_of_another_account_wants_no_line():
    assert demands([held(1, "A")], [leg(1, account="B")], sec_types=OPT) == []


def test_a_conid_without_market_data_permission_wants_no_line():
    assert demands([held(1)], [leg(1)], sec_types=OPT, barred=[1]) == []


def test_lines_go_by_priority_then_to_who_has_one_then_by_age():
    wanted = [want(1, 2, 99), want(2, 1, 1), want(3, 1, 5), want(4, 1, 0)]
    assert allocate(wanted, limit=2) == {2, 3}
    assert allocate(wanted, {4: NOW - timedelta(60)}, limit=2) == {4, 3}


def test_the_reserve_stays_free():
    assert len(allocate([want(c) for c in range(1, 200)], limit=100, reserve=5)) == 95


def test_a_young_line_is_kept_and_counts_even_if_nobody_wants_it():
    young = {9: NOW - timedelta(seconds=1)}
    assert allocate([want(1), want(2)], young, limit=2, hold_s=5) == {9, 1}
    assert allocate([want(1), want(2)], young, limit=2, hold_s=1) == {1, 2}


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 3), st.integers(0, 50)), max_size=60),
    st.dictionaries(st.integers(1, 60), st.integers(0, 20), max_size=40),
    st.integers(0, 30),
    st.integers(0, 10),
)
def test_never_more_lines_than_limit_less_reserve_and_always_the_same(wants, holds, limit, reserve):
    wanted = list({c: want(c, p, age) for c, p, age in wants}.values())
    holding = {c: NOW - timedelta(seconds=s) for c, s in holds.items()}
    first = allocate(wanted, holding, limit, reserve, hold_s=5)
    assert len(first) <= max(0, limit - reserve)
    assert first == allocate(list(reversed(wanted)), holding, limit, reserve, hold_s=5)
    if len(first) < max(0, limit - reserve):
        assert first >= {w.conid for w in wanted}


def test_each_holding_goes_its_way():
    holdings = [
        held(1, "A"),
        held(1, "B"),
        held(2, "A"),
        held(2, "B"),
        held(3, "A"),
        held(4, "A", position=0.0),
        held(5, "A", sec_type="BOND"),
    ]
    routes = route(holdings, [leg(1), leg(2, account="A")], frozenset({1}), sec_types=OPT)
    assert routes == {
        ("A", 1): LegState.STREAMED,
        ("B", 1): LegState.STREAMED,
        ("A", 2): LegState.OVERFLOW,
        ("B", 2): LegState.MONITORED,
        ("A", 3): LegState.MONITORED,
        ("A", 4): LegState.CLOSED,
    }
