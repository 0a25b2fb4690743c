"""A clock that the test sets, and the values that the tests of the lake are made of."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from position_sync_dagster.domain.update import PositionUpdate, Source, TradingMode
from position_sync_dagster.lake.lake import Lake
from tests.support.clock import HandClock


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def make_update(clock: HandClock) -> Callable[..., PositionUpdate]:
    def make(
        conid: int = 1,
        *,
        position: float = 1.0,
        account: str = "DUSIM1",
        timestamp: datetime | None = None,
        request_id: str | None = None,
        trading_mode: TradingMode = TradingMode.SIMULATED,
        update_id: str = "",
        symbol: str = "SPY",
    ) -> PositionUpdate:
        return PositionUpdate(
            conid=conid,
            symbol=symbol,
            right=None,
            position=position,
            market_price=1.5,
            market_value=150.0 * position,
            average_cost=120.0,
            unrealized_pnl=30.0 * position,
            timestamp=timestamp or clock.now,
            account=account,
            source=Source.QUEUE if request_id else Source.STREAM,
            request_id=request_id,
            trading_mode=trading_mode,
            update_id=update_id,
        )

    return make


@pytest.fixture
async def lake(tmp_path: Path, clock: HandClock) -> Lake:
    made = Lake(tmp_path, clock=clock)
    await made.initialize()
    return made
