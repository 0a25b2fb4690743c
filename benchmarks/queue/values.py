"""Values of positions for the ledger: a commit's worth, and years' worth in bulk."""

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta

import polars as pl

from position_sync_dagster.domain.instrument import Right
from position_sync_dagster.domain.position_update import (
    PositionUpdate,
    PriceKind,
    Source,
    TradingMode,
    ValueOrigin,
)
from position_sync_dagster.lake.schema import POSITION_UPDATES, new_ids

ACCOUNTS = 4
FIRST_CONID = 700_000_000


def updates(count: int, at: datetime, *, request_ids: Iterable[str] = ()) -> list[PositionUpdate]:
    """Give the values of `count` positions at a moment.

    Args:
        request_ids: Of the requests that were drained; without them the rows are streamed.
    """
    ids: list[str | None] = [*request_ids] or [None] * count
    return [
        PositionUpdate(
            conid=FIRST_CONID + n,
            symbol=f"SYM{n % 40}",
            right=Right.CALL,
            position=float(n % 9 - 4 or 1),
            market_price=1.25 + at.microsecond % 97 / 100,
            market_value=125.0 + at.microsecond % 97,
            average_cost=110.0,
            unrealized_pnl=15.0,
            timestamp=at,
            account=f"DUSIM{n % ACCOUNTS:04}",
            strike=100.0 + n % 50,
            expiry=date(2026, 12, 18),
            price_kind=PriceKind.MARK,
            bid=1.2,
            ask=1.3,
            implied_vol=0.31,
            delta=0.42,
            gamma=0.02,
            vega=0.11,
            theta=-0.04,
            underlying_price=101.5,
            value_time=at,
            source=Source.QUEUE if request_id else Source.STREAM,
            value_source=ValueOrigin.PORTFOLIO if request_id else ValueOrigin.TICK,
            market_data_type=1,
            gateway_id="127.0.0.1:4002",
            trading_mode=TradingMode.SIMULATED,
            request_id=request_id,
            session_id="0198c000-0000-7000-8000-000000000001",
            fencing_token=1,
        )
        for n, request_id in zip(range(count), ids, strict=True)
    ]


def bulk_rows(first_at: datetime, rows: int, positions: int, *, step: timedelta) -> pl.DataFrame:
    """Give rows of many positions in turn, `step` apart, as the ledger stores them."""
    index = pl.int_range(rows, eager=True)
    one = updates(1, first_at)[0]
    at = pl.lit(first_at) + pl.col("index") * pl.lit(step)
    holding = pl.col("index") * 7919 % positions
    price = 1 + (pl.col("index") * 31 % 977) / 100
    values: dict[str, pl.Expr | pl.Series] = {
        name: pl.lit(getattr(value, "value", value))
        for name in POSITION_UPDATES.columns
        if name != "date"
        for value in [getattr(one, name, None)]  # the ledger fills some columns itself
    }
    values |= {
        "conid": holding + FIRST_CONID,
        "symbol": pl.format("SYM{}", holding % 40),
        "account": pl.format("DUSIM000{}", holding % ACCOUNTS),
        "position": (holding % 9 - 4).cast(pl.Float64),
        "strike": 100.0 + holding % 50,
        "market_price": price,
        "market_value": price * 100,
        "unrealized_pnl": price * 100 - 110,
        "bid": price - 0.05,
        "ask": price + 0.05,
        "underlying_price": 100 + price,
        "timestamp": at,
        "value_time": at,
        "date": at.dt.date(),
        "update_id": pl.col("update_id"),
        "batch_id": pl.Series(new_ids(first_at, -(-rows // 20))).gather(index // 20),
    }
    frame = pl.DataFrame({"index": index, "update_id": new_ids(first_at, rows)})
    ordered = frame.select(**{name: values[name] for name in POSITION_UPDATES.columns})
    return ordered.cast(dict(POSITION_UPDATES.polars))  # type: ignore[arg-type]


def now() -> datetime:
    """Give the time in UTC."""
    return datetime.now(UTC)
