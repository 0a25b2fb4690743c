"""The legs of active strategies: which of them are active, and their order."""

from datetime import UTC, date, datetime

from position_sync_dagster.domain.instrument import Right
from position_sync_dagster.domain.leg import ActiveContract
from position_sync_dagster.lake.registry.legs import LegIndex


def leg(conid, account=None, strategy_id="a"):
    return ActiveContract(
        conid, "SPY", Right.CALL, 450.0, date(2026, 2, 20), strategy_id,
        datetime(2026, 1, 2, tzinfo=UTC), account=account,
    )  # fmt: skip


def test_nothing_is_active_in_an_empty_registry():
    assert not LegIndex().is_active(1)


def test_a_leg_is_active_in_its_account_and_without_one_everywhere():
    index = LegIndex([leg(1, "DU1"), leg(1, "DU2", "b"), leg(2)])
    assert index.is_active(1)
    assert index.is_active(1, "DU2")
    assert not index.is_active(1, "DU3")
    assert index.is_active(2, "DU3")


def test_legs_come_in_a_fixed_order():
    legs = [leg(2), leg(1, "DU2"), leg(1, "DU1", "b"), leg(1, "DU1", "a")]
    assert LegIndex(legs).legs == LegIndex(reversed(legs)).legs
