"""The legs of active strategies: which of them are active, and their order."""

import pytest

from position_sync_dagster.errors import InvalidLegError
from position_sync_dagster.lake.registry.legs import LegIndex, distinct_legs
from tests.support.legs import leg


def test_nothing_is_active_in_an_empty_registry():
    assert not LegIndex().is_active(1)


def test_a_leg_is_active_in_its_account_and_without_one_everywhere():
    index = LegIndex([leg(1, account="DU1"), leg(1, "b", account="DU2"), leg(2)])
    assert index.is_active(1)
    assert index.is_active(1, "DU2")
    assert not index.is_active(1, "DU3")
    assert index.is_active(2, "DU3")


def test_legs_come_in_a_fixed_order():
    legs = [leg(2), leg(1, account="DU2"), leg(1, "b", account="DU1"), leg(1, "a", account="DU1")]
    assert LegIndex(legs).legs == LegIndex(reversed(legs)).legs


@pytest.mark.parametrize("name", ["UNATTRIBUTED", " unattributed"])
def test_a_leg_that_a_program_made_has_no_reserved_strategy_either(name):
    with pytest.raises(InvalidLegError, match="what no strategy has"):
        distinct_legs([leg(1), leg(2, name)])
