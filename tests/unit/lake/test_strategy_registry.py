"""The legs of active strategies: which are active, their order, and who holds the whole of one."""

from dataclasses import replace
from datetime import date, timedelta

import pytest

from position_sync_dagster.domain.leg import UnresolvedLeg
from position_sync_dagster.errors import InvalidLegError
from position_sync_dagster.lake import strategy_registry
from position_sync_dagster.lake.given_leg import make_leg
from tests.support.legs import ADDED_AT, leg


def test_legs_come_in_a_fixed_order():
    legs = [leg(2), leg(1, account="DU2"), leg(1, "b", account="DU1"), leg(1, "a", account="DU1")]
    assert strategy_registry.in_order(legs) == strategy_registry.in_order(legs[::-1])


@pytest.mark.parametrize("name", ["UNATTRIBUTED", " unattributed"])
def test_a_leg_that_a_program_made_has_no_reserved_strategy_either(name):
    with pytest.raises(InvalidLegError, match="what no strategy has"):
        strategy_registry.distinct_legs([leg(1), leg(2, name)])


NEW = leg(3, "condor", strike=590.0, rolled_from="1,2", quantity=-2.0)
LATER = ADDED_AT + timedelta(days=1)


def test_a_leg_that_was_rolled_stays_what_it_became_and_follows_the_quantity_of_the_file():
    since = date(2026, 1, 2)
    rolled = leg(1, "condor", added_at=LATER, quantity=-3.0, since=since)
    file = [rolled, leg(1, "other"), leg(4, "condor")]
    first, *others = strategy_registry.with_rolls(file, [NEW, leg(1, "other")], [], {"condor"})
    assert first == replace(NEW, added_at=LATER, quantity=-3.0, since=since)
    assert others == file[1:]


def test_the_file_counts_if_it_names_the_new_contract_too_or_follows_no_rolls():
    both = [leg(1, "condor"), leg(3, "condor", strike=590.0)]
    assert strategy_registry.with_rolls(both, [NEW], [], {"condor"}) == both
    assert strategy_registry.with_rolls(both[:1], [NEW], [], {"other"}) == both[:1]


def test_a_description_is_the_leg_whose_contract_was_found_for_it_and_rolled():
    described = make_leg(
        symbol="SPY", right="PUT", strike=575.0, expiry="20281215", strategy_id="condor",
        added_at=LATER,
    )  # fmt: skip
    assert isinstance(described, UnresolvedLeg)
    ended = described.resolved(2, ADDED_AT).ended(LATER)
    assert [
        with_roll.conid
        for with_roll in strategy_registry.with_rolls([described], [NEW], [ended], {"condor"})
    ] == [3]


def test_two_whole_holders_are_found_among_accounts():
    legs = [
        make_leg(conid=1, symbol="SPY", strategy_id=name, account=account, added_at=ADDED_AT)
        for name, account in (("a", "DU1"), ("a", "DU2"), ("b", "DU3"), ("c", None))
    ]
    strategy_registry.refuse_two_whole_holders(legs[:3])
    with pytest.raises(InvalidLegError, match="'a' and 'c' would both hold"):
        strategy_registry.refuse_two_whole_holders(legs)
    with pytest.raises(InvalidLegError, match="'c' and 'a' would both hold"):
        strategy_registry.refuse_two_whole_holders(reversed(legs[:1] + legs[3:]))
    with pytest.raises(InvalidLegError, match="'b' and 'a'"):
        strategy_registry.refuse_two_whole_holders([replace(legs[0], account="DU3"), legs[2]][::-1])
