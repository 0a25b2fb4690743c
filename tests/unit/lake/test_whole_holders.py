"""At most one strategy holds the whole of a leg in an account."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from position_sync_dagster.domain.leg import make_leg
from position_sync_dagster.errors import InvalidLegError
from position_sync_dagster.lake.strategy_registry import (
    refuse_two_whole_holders,
    two_whole_holders,
)

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def test_two_whole_holders_are_found_among_accounts():
    legs = [
        make_leg(conid=1, symbol="SPY", strategy_id=name, account=account, added_at=NOW)
        for name, account in (("a", "DU1"), ("a", "DU2"), ("b", "DU3"), ("c", None))
    ]
    refuse_two_whole_holders(legs[:3])
    with pytest.raises(InvalidLegError, match="'a' and 'c' would both hold"):
        refuse_two_whole_holders(legs)
    with pytest.raises(InvalidLegError, match="'c' and 'a' would both hold"):
        refuse_two_whole_holders(reversed(legs[:1] + legs[3:]))
    with pytest.raises(InvalidLegError, match="'b' and 'a'"):
        refuse_two_whole_holders([replace(legs[0], account="DU3"), legs[2]][::-1])


def test_a_leg_with_a_quantity_is_in_nobodys_way():
    whole = make_leg(conid=1, symbol="SPY", strategy_id="a", added_at=NOW)
    part, other = replace(whole, strategy_id="b", quantity=1.0), replace(whole, strategy_id="b")
    assert two_whole_holders([whole, part]) is None
    assert two_whole_holders([whole, part, other]) == (whole, other)
