"""Reconciliation: what differs from the broker."""

import asyncio
import math
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from unittest.mock import AsyncMock, patch

import polars as pl
import pytest

from position_sync_dagster.domain.holding import BrokerPosition
from position_sync_dagster.domain.instrument import Instrument, Right
from position_sync_dagster.domain.position_update import Source
from position_sync_dagster.domain.reconciliation import DiscrepancyType
from position_sync_dagster.domain.valuation import Provenance, from_portfolio
from position_sync_dagster.errors import LakeError
from position_sync_dagster.lake.given_leg import make_leg
from position_sync_dagster.lake.schema import rows_of_positions, update_rows
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.broker_view import Coverage
from position_sync_dagster.sync.confirmations import STALE_AFTER
from position_sync_dagster.sync.reconciliation import (
    PositionReconciler,
    ReconciliationService,
    reconciled,
)
from tests.support.contracts import contract_details

NOW = datetime(2026, 3, 4, 15, 30, tzinfo=UTC)
RECONCILER = PositionReconciler(clock=lambda: NOW)

HELD = BrokerPosition(
    gateway_id="g", account="A", position=2.0, received_at=NOW, position_time=NOW,
    snapshot_id="s",
    instrument=Instrument(conid=1, symbol="SPY", sec_type="OPT", currency="USD"),
)  # fmt: skip
ROW = from_portfolio(HELD, source=Source.QUEUE, now=NOW, by=Provenance())


async def test_an_outage_that_names_another_file_in_each_attempt_is_logged_once(caplog):
    lake = SimpleNamespace(initialize=AsyncMock())
    service = ReconciliationService(lake, Settings(), interval=0.0)
    ended = asyncio.Event()
    texts = [f"A table cannot be read: {number}.parquet" for number in range(3)]
    texts += ["The disk is full: 4.parquet"]

    async def run():
        if not texts:
            ended.set()
            await asyncio.sleep(60.0)
        raise LakeError(texts.pop(0), remedy="Look at it.")

    with patch.object(service, "run", run):
        await service.start()
        await ended.wait()
        await service.stop()
    assert caplog.messages == [
        "A table cannot be read: 0.parquet Look at it.",
        "The disk is full: 4.parquet Look at it.",
    ]


@pytest.mark.parametrize("quantity", [None, math.nan])
def test_a_quantity_that_is_not_known_agrees_with_nothing_and_is_no_close(quantity):
    odd = rows_of_positions([HELD], None).with_columns(position=pl.lit(quantity, pl.Float64))
    row = update_rows([ROW])
    no_number = row.with_columns(position=pl.lit(quantity, pl.Float64))
    for holdings, latest in [
        (odd, row),
        (rows_of_positions([HELD], None), no_number),
        (odd, no_number),
    ]:
        assert types_of_rows(holdings, latest) == ["QUANTITY"]
    assert types_of_rows(odd, row.clear()) == ["MISSING"]


def types_of_rows(holdings, latest):
    result = reconciled(
        holdings, latest, [], Coverage(complete=True), {}, now=NOW, stale_after=STALE_AFTER
    )
    return [d.type for d in result.discrepancies]


def types(snapshot, latest, legs=(), complete=True, details=None):
    result = RECONCILER.reconcile(snapshot, latest, legs, complete=complete, details=details)
    return [d.type for d in result.discrepancies], result


def leg(quantity):
    return make_leg(
        conid=1, symbol="SPY", right="C", strike=1, expiry="20261218", strategy_id="s",
        added_at=NOW, account="A", quantity=quantity,
    )  # fmt: skip


CLOSED = replace(HELD, position=0.0)
AHEAD, A_LITTLE, OLD = (
    replace(ROW, timestamp=NOW + timedelta(minutes=minutes)) for minutes in (60, 1, -11)
)


@pytest.mark.parametrize(
    ("holding", "row", "of_whole", "of_part"),
    [
        (HELD, ROW, [], []),
        (HELD, None, ["MISSING"], ["MISSING"]),
        (None, ROW, ["SURPLUS"], []),
        (CLOSED, ROW, ["SURPLUS"], ["SURPLUS"]),
        (CLOSED, replace(ROW, position=0.0), [], []),
        (HELD, replace(ROW, position=3.0), ["QUANTITY"], ["QUANTITY"]),
        (HELD, OLD, ["STALE"], ["STALE"]),
        (HELD, A_LITTLE, [], []),
        (HELD, AHEAD, ["STALE"], ["STALE"]),  # nobody knows its age
    ],
)
def test_what_differs_is_found_and_an_absence_only_in_a_whole_snapshot(
    holding, row, of_whole, of_part
):
    snapshot, latest = ([one] if one is not None else [] for one in (holding, row))
    found, result = types(snapshot, latest)
    assert found == of_whole
    assert result.checked == 1
    assert result.ok == (not of_whole)
    found, result = types(snapshot, latest, complete=False)
    assert found == of_part
    assert result.ok is False


@pytest.mark.parametrize(("quantities", "found"), [([1.0, 1.0], 0), ([2.0, 1.0], 1), ([-1.0], 1)])
def test_strategies_may_not_claim_more_than_is_held(quantities, found):
    legs = [replace(leg(q), strategy_id=str(i)) for i, q in enumerate(quantities)]
    assert types([HELD], [ROW], legs)[0] == [DiscrepancyType.LEG_QUANTITY] * found


def test_strategies_may_share_a_fraction_of_a_coin():
    """As binary numbers 0.1 and 0.2 are more than 0.3."""
    legs = [replace(leg(q), strategy_id=str(q)) for q in (0.1, 0.2)]
    held = [replace(HELD, position=0.3)]
    assert types(held, [replace(ROW, position=0.3)], legs)[0] == []


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
    ("changes", "detail"), [({}, None), ({"right": Right.PUT}, "its right is CALL, not PUT")]
)
def test_a_leg_that_names_another_contract_than_its_conid_is_found(changes, detail):
    named = replace(leg(1.0), **{"symbol": "SPX"} | changes)
    kinds, result = types([HELD], [ROW], [named], details={1: CONTRACT})
    assert kinds == [DiscrepancyType.LEG_MISMATCH] * (detail is not None)
    discrepancies = [
        (discrepancy.account, discrepancy.conid, discrepancy.detail)
        for discrepancy in result.discrepancies
    ]
    assert discrepancies == ([("A", 1, f"strategy s: {detail}")] if detail else [])
    assert types([HELD], [ROW], [named.ended(NOW)], details={1: CONTRACT})[0] == []


def test_a_leg_whose_contract_is_not_known_yet_is_no_mismatch():
    assert types([HELD], [ROW], [leg(1.0)], details={7: CONTRACT})[0] == []
