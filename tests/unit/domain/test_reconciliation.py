"""Reconciliation: the differences between the broker and the tables."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from position_sync_dagster.domain.broker_position import BrokerPosition
from position_sync_dagster.domain.instrument import Instrument, Right
from position_sync_dagster.domain.leg import make_leg
from position_sync_dagster.domain.reconciliation import DiscrepancyType, Scope, compare
from position_sync_dagster.domain.update import Source
from position_sync_dagster.domain.valuation import Provenance, from_portfolio
from tests.support.contracts import contract_details

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


def types(snapshot, latest, legs=(), complete=True, details=None):
    scope = Scope(
        complete=complete, now=NOW, stale_after=timedelta(minutes=10), details=details or {}
    )
    result = compare(snapshot, latest, legs, scope)
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


OTHER = replace(HELD, account="B", position=1.0)
ROWS = [ROW, replace(ROW, account="B", position=1.0)]


@pytest.mark.parametrize(
    ("claims", "found"),
    [
        ([(None, 3.0)], None),
        ([(None, 4.0)], (3.0, 4.0)),
        ([(None, -1.0)], (3.0, -1.0)),
        ([(None, 2.0), ("A", 2.0)], (3.0, 4.0)),
        ([(None, 1.0), ("A", 2.0)], None),
    ],
)
def test_legs_without_an_account_may_not_claim_more_than_all_accounts_hold(claims, found):
    legs = [
        replace(leg(quantity), account=account, strategy_id=str(n))
        for n, (account, quantity) in enumerate(claims)
    ]
    kinds, result = types([HELD, OTHER], ROWS, legs)
    assert kinds == [DiscrepancyType.LEG_QUANTITY] * (found is not None)
    assert [(d.account, d.expected, d.actual) for d in result.discrepancies] == (
        [("", *found)] if found else []
    )
    assert types([HELD, OTHER], ROWS, legs, complete=False)[0] == []


CONTRACT = contract_details(
    trading_class="SPXW",
    strike=1.0,
    last_trade_date=date(2026, 12, 17),
    expires_on=date(2026, 12, 18),
)


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({}, None),
        ({"symbol": "spxw"}, None),
        ({"expiry": date(2026, 12, 17)}, None),
        ({"symbol": "SPY"}, "its symbol is SPX, not SPY"),
        ({"right": Right.PUT}, "its right is CALL, not PUT"),
        ({"strike": 2.5}, "its strike is 1, not 2.5"),
        ({"expiry": date(2026, 12, 16)}, "its expiry is 2026-12-18, not 2026-12-16"),
        (
            {"right": None, "strike": None, "expiry": None},
            "its right is CALL, not none, its strike is 1, not none",
        ),
    ],
)
def test_a_leg_that_names_another_contract_than_its_conid_is_found(changes, detail):
    named = replace(leg(1.0), **{"symbol": "SPX"} | changes)
    kinds, result = types([HELD], [ROW], [named], details={1: CONTRACT})
    assert kinds == [DiscrepancyType.LEG_MISMATCH] * (detail is not None)
    if detail:
        (one,) = result.discrepancies
        assert (one.account, one.conid, one.detail) == ("A", 1, f"strategy s: {detail}")
    assert types([HELD], [ROW], [named.ended(NOW)], details={1: CONTRACT})[0] == []


def test_a_leg_whose_contract_is_not_known_yet_is_no_mismatch():
    assert types([HELD], [ROW], [leg(1.0)], details={7: CONTRACT})[0] == []


def test_a_stock_has_no_expiry_to_agree_with():
    stock = replace(
        CONTRACT, sec_type="STK", right=None, strike=None, last_trade_date=None, expires_on=None
    )
    hedge = replace(leg(1.0), symbol="SPX", right=None, strike=None, expiry=None)
    assert types([HELD], [ROW], [hedge], details={1: stock})[0] == []
    future = replace(hedge, expiry=date(2026, 12, 18))
    assert types([HELD], [ROW], [future], details={1: stock})[0] == [DiscrepancyType.LEG_MISMATCH]
