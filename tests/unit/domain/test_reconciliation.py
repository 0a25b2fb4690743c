"""Reconciliation: the differences between the broker and the tables."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from position_sync_dagster.domain.broker_position import BrokerPosition
from position_sync_dagster.domain.instrument import Instrument
from position_sync_dagster.domain.leg import make_leg
from position_sync_dagster.domain.reconciliation import DiscrepancyType, compare
from position_sync_dagster.domain.update import Source
from position_sync_dagster.domain.valuation import Provenance, from_portfolio

NOW = datetime(2026, 3, 4, 15, 30, tzinfo=UTC)
HELD = BrokerPosition(
    gateway_id="g",
    account="A",
    position=2.0,
    received_at=NOW,
    position_time=NOW,
    snapshot_id="s",
    instrument=Instrument(conid=1, symbol="SPY", sec_type="OPT", currency="USD"),
)
ROW = from_portfolio(HELD, source=Source.QUEUE, now=NOW, by=Provenance())


def types(snapshot, latest, legs=(), complete=True):
    result = compare(
        snapshot, latest, legs, complete=complete, now=NOW, stale_after=timedelta(minutes=10)
    )
    return [d.type for d in result.discrepancies], result


def leg(quantity):
    return make_leg(
        conid=1,
        symbol="SPY",
        right="C",
        strike=1,
        expiry="20261218",
        strategy_id="s",
        added_at=NOW,
        account="A",
        quantity=quantity,
    )


def test_equal_tables_have_no_discrepancy():
    found, result = types([HELD], [ROW])
    assert found == []
    assert result.ok
    assert result.checked == 1


def test_a_holding_without_a_row_is_missing():
    assert types([HELD], [])[0] == [DiscrepancyType.MISSING]


def test_a_row_without_a_holding_is_surplus_only_if_the_snapshot_is_whole():
    assert types([], [ROW])[0] == [DiscrepancyType.SURPLUS]
    found, result = types([], [ROW], complete=False)
    assert found == []
    assert not result.ok


def test_an_explicit_close_at_the_broker_is_surplus_here_even_in_a_partial_snapshot():
    closed = replace(HELD, position=0.0)
    assert types([closed], [ROW], complete=False)[0] == [DiscrepancyType.SURPLUS]
    assert types([closed], [replace(ROW, position=0.0)])[0] == []


def test_different_quantities_are_found():
    found, result = types([HELD], [replace(ROW, position=3.0)])
    assert found == [DiscrepancyType.QUANTITY]
    assert (result.discrepancies[0].expected, result.discrepancies[0].actual) == (2.0, 3.0)


def test_a_row_of_a_clock_that_runs_ahead_is_stale_since_nobody_knows_its_age():
    ahead = replace(ROW, timestamp=NOW + timedelta(hours=1))
    found, result = types([HELD], [ahead])
    assert found == [DiscrepancyType.STALE]
    assert "future" in result.discrepancies[0].detail
    assert types([HELD], [replace(ROW, timestamp=NOW + timedelta(minutes=1))])[0] == []


def test_an_old_row_is_stale():
    old = replace(ROW, timestamp=NOW - timedelta(minutes=11))
    assert types([HELD], [old])[0] == [DiscrepancyType.STALE]


@pytest.mark.parametrize(("quantities", "found"), [([1.0, 1.0], 0), ([2.0, 1.0], 1), ([-1.0], 1)])
def test_strategies_may_not_claim_more_than_is_held(quantities, found):
    legs = [replace(leg(q), strategy_id=str(i)) for i, q in enumerate(quantities)]
    assert types([HELD], [ROW], legs)[0] == [DiscrepancyType.LEG_QUANTITY] * found
