"""Legs of strategies for tests, by the arguments that a test is about."""

from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Any

from polars import DataFrame, lit

from position_sync_dagster.domain.instrument import Right
from position_sync_dagster.domain.leg import ActiveContract, Leg
from position_sync_dagster.lake.schema import ACTIVE_STRATEGIES, LIVE, LIVE_PART, frame_of

ADDED_AT = datetime(2026, 1, 2, 15, 0, tzinfo=UTC)


def leg(conid: int = 1, strategy_id: str = "s", **more: Any) -> ActiveContract:
    """Return a leg of a strategy: a put on SPY."""
    usual: dict[str, Any] = dict(
        symbol="SPY", right=Right.PUT, strike=575.0, expiry=date(2028, 12, 15),
        added_at=ADDED_AT,
    )  # fmt: skip
    return ActiveContract(conid=conid, strategy_id=strategy_id, **usual | more)


def leg_rows(legs: Iterable[Leg]) -> DataFrame:
    """Return the live rows of legs."""
    rows = frame_of(ACTIVE_STRATEGIES, legs)
    return rows.with_columns(bucket=lit(LIVE), part=lit(LIVE_PART))
