"""Rows of the ledger with every number, at one time."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

from position_sync_dagster.domain.instrument import Right
from position_sync_dagster.domain.position_update import PositionUpdate

NOW = datetime(2026, 3, 9, 15, 0, tzinfo=UTC)


def row(conid: int, **values: object) -> PositionUpdate:
    at = NOW - timedelta(seconds=7)
    plain = PositionUpdate(
        conid, "SPY", Right.PUT, position=-2.0, market_price=1234.5, market_value=-246_900.0,
        average_cost=100.0, unrealized_pnl=-12_345.0, daily_pnl=-1234.0, timestamp=at,
        account="DUSIM0001", strike=575.0, expiry=date(2028, 12, 15), delta=-0.5, gamma=0.01,
        vega=0.2, theta=-0.1, underlying_price=600.0, greeks_time=at,
    )  # fmt: skip
    return replace(plain, **values)  # type: ignore[arg-type]
