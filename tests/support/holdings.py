"""Holdings for tests, by the arguments that a test is about."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from position_sync_dagster.domain.account_state import AccountStates
from position_sync_dagster.domain.clock import Clock
from position_sync_dagster.domain.gateway_session import GatewaySession, Owner, SessionState
from position_sync_dagster.domain.holding import BrokerPosition
from position_sync_dagster.domain.instrument import Instrument
from position_sync_dagster.domain.position_update import PositionUpdate
from position_sync_dagster.domain.reconciliation import Discrepancy, DiscrepancyType
from position_sync_dagster.gateway.codes import Connectivity
from position_sync_dagster.gateway.holdings import HoldingsBook

# A row of the tables that the broker does not hold.
NOT_HELD = Discrepancy(
    type=DiscrepancyType.SURPLUS, account="DUSIM1", conid=7, symbol="SPY", expected=None,
    actual=2.0, detail="not held at the broker",
)  # fmt: skip


def make_row(conid: int, at: datetime, account: str = "DUSIM1", **more: Any) -> PositionUpdate:
    """Return a row of one contract of SPY, dated by a moment."""
    plain = PositionUpdate(conid, "SPY", None, 1.0, 1.5, 150.0, 100.0, 50.0, at, account)
    return replace(plain, **more)


def make_holding(
    conid: int, at: datetime, *, position: float = 1.0, sec_type: str = "OPT", **more: Any
) -> BrokerPosition:
    """Return what account A of gateway g holds of an option of SPY, received at a moment."""
    usual: dict[str, Any] = dict(
        gateway_id="g", account="A",
        instrument=Instrument(conid=conid, symbol="SPY", sec_type=sec_type, currency="USD"),
        received_at=at, position_time=at, snapshot_id="s",
    )  # fmt: skip
    return BrokerPosition(position=position, **usual | more)


def make_session(at: datetime, *, lease_s: float = 15.0, **more: Any) -> GatewaySession:
    """Return the live session of a stream that began at a moment, and renewed its lease then."""
    usual: dict[str, Any] = dict(
        gateway_id="g", owner=Owner.STREAM, session_id="s", run_id=None, host="here",
        pid=4711, fencing_token=1, started_at=at, heartbeat_at=at,
        expires_at=at + timedelta(seconds=lease_s), state=SessionState.LIVE,
        state_since=at,
    )  # fmt: skip
    return GatewaySession(**usual | more)


def make_book(
    clock: Clock, *, account: str = "A", connectivity: Connectivity | None = None
) -> HoldingsBook:
    """Return an empty book of one account, without a connection."""
    link = connectivity or Connectivity()
    return HoldingsBook("g", AccountStates([account]), link, clock=clock)
