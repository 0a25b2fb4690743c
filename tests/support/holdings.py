"""Holdings for tests, by the arguments that a test is about."""

from datetime import datetime
from typing import Any

from position_sync_dagster.domain.clock import Clock
from position_sync_dagster.domain.holding import BrokerPosition
from position_sync_dagster.domain.instrument import Instrument
from position_sync_dagster.gateway.codes import Connectivity
from position_sync_dagster.gateway.holdings import HoldingsBook


def make_holding(
    conid: int, at: datetime, *, position: float = 1.0, sec_type: str = "OPT", **more: Any
) -> BrokerPosition:
    """Return what account A of gateway g holds of an option of SPY, received at a moment."""
    usual: dict[str, Any] = {
        "gateway_id": "g",
        "account": "A",
        "instrument": Instrument(conid=conid, symbol="SPY", sec_type=sec_type, currency="USD"),
        "received_at": at,
        "position_time": at,
        "snapshot_id": "s",
    }
    return BrokerPosition(position=position, **usual | more)


def make_book(
    clock: Clock, *, account: str = "A", connectivity: Connectivity | None = None
) -> HoldingsBook:
    """Return an empty book of one account, without a connection."""
    return HoldingsBook("g", [account], connectivity or Connectivity(), band=0.03, clock=clock)
