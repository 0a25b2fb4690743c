"""The legs of active strategies: which are active, their order, and who holds the whole of one."""

from dataclasses import replace

import pytest

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
        strategy_registry.memberships_of([leg(1), leg(2, name)], {})


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
