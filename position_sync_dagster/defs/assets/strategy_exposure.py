"""The asset `strategy_exposure`: what each strategy holds, and its value."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg

from position_sync_dagster.defs.assets.money_metadata import (
    picture_metadata,
    recent_picture,
    seldom,
    strategies_metadata,
)
from position_sync_dagster.defs.assets.table_asset import (
    QUARTER_HOURLY,
    column_lineage,
    data_version,
    replacement_metadata,
    table_asset,
)
from position_sync_dagster.defs.dagster_failures import dagster_failures
from position_sync_dagster.defs.resources import PositionSyncResource
from position_sync_dagster.defs.run_history import DERIVE_JOB
from position_sync_dagster.errors import LakeError
from position_sync_dagster.lake.schema.tables import STRATEGY_EXPOSURE
from position_sync_dagster.sync.reports.money import total_by_currency

if TYPE_CHECKING:
    from position_sync_dagster.lake.lake import Lake
    from position_sync_dagster.sync.reports.overview import Book

_LEGS = [("active_strategies", "conid"), ("active_strategies", "removed_at")]
_MEMBER = [("active_strategies", "strategy_id")]
_HELD = [("position_updates", "position"), *_LEGS]
_SHARE = [("active_strategies", "quantity"), *_HELD]
_SIZE = [("position_updates", "multiplier"), *_SHARE]
_AGE = [("position_updates", "value_time"), ("position_updates", "timestamp")]
_UNDERLYING = ("position_updates", "underlying_price")
_GREEKS = [("position_updates", name) for name in ("delta", "gamma", "vega", "theta")]

LINEAGE = {
    "strategy_id": _MEMBER,
    "currency": [("position_updates", "currency")],
    "asset_class": [("position_updates", "sec_type")],
    "legs": _LEGS,
    "legs_held": _HELD,
    "market_value": [("position_updates", "market_value"), *_SHARE],
    "notional": [("position_updates", "market_value"), *_SHARE],
    "unrealized_pnl": [("position_updates", "unrealized_pnl"), *_SHARE],
    "delta": [("position_updates", "delta"), *_SIZE],
    "gamma": [("position_updates", "gamma"), *_SIZE],
    "vega": [("position_updates", "vega"), *_SIZE],
    "theta": [("position_updates", "theta"), *_SIZE],
    "legs_without_value": [("position_updates", "market_value"), *_HELD],
    "legs_without_greeks": [*_GREEKS, *_HELD],
    "oldest_value_at": _AGE,
    "dollar_delta": [("position_updates", "delta"), _UNDERLYING, *_SIZE],
    "by_underlying": [("position_updates", "symbol"), *_GREEKS, _UNDERLYING, *_SIZE],
    "daily_pnl": [("position_updates", "daily_pnl"), *_SHARE],
    "worst_value_age_s": _AGE,
    "legs_without_value_time": [("position_updates", "value_time"), *_HELD],
    "legs_expiring": [("contracts", "expires_on"), *_HELD],
    "short_legs_in_money": [("active_strategies", "strike"), _UNDERLYING, *_HELD],
    "short_legs_unknown": [_UNDERLYING, *_HELD],
    "mismatches": [("contracts", "conid"), *_LEGS],
}


@table_asset(
    STRATEGY_EXPOSURE,
    deps=["position_updates", "active_strategies", "contracts"],
    lineage=LINEAGE,
    job=DERIVE_JOB,
    freshness=QUARTER_HOURLY,
    description="""
What each strategy holds, and what that is worth.

- **Written by** each run of `drain_positions` that writes values, and by `derive_positions` when
  the stream has materialized the ledger; the table is replaced whole.
- **How to read it:** one row per strategy, currency and class of asset. Sums are over what is
  known, beside the number of legs that are not. Futures count as notional, never as value.
""",
)
@dagster_failures
def strategy_exposure(
    context: dg.AssetExecutionContext, position_sync: PositionSyncResource
) -> dg.MaterializeResult[None]:
    """Sum the newest rows over the legs of each strategy."""
    from position_sync_dagster.lake.lake import rows_of_logins
    from position_sync_dagster.lake.schema.codec import frame_of
    from position_sync_dagster.sync.reports.overview import read_book

    lake, now = position_sync.lake, datetime.now(UTC)
    latest = rows_of_logins(lake.updates.sync.latest(), position_sync.settings)
    book = read_book(lake, position_sync.settings, now, latest=latest, of_strategies=True)
    found = book.exposures
    table = position_sync.derived_table(STRATEGY_EXPOSURE)
    frame = frame_of(STRATEGY_EXPOSURE, (asdict(exposure) for exposure in found))
    result = table.replace(frame, run_id=context.run.run_id)
    times = [e.oldest_value_at for e in found if e.oldest_value_at is not None]
    strategies = book.strategies
    metadata = (
        strategies_metadata(strategies, total_by_currency(strategies))
        | picture(context, lake, book, now)
        | replacement_metadata(table, result)
        | column_lineage(LINEAGE)
        | {
            "dagster/row_count": result.rows,
            "strategies": len({e.strategy_id for e in found}),
            "legs": sum(e.legs for e in found),
            "legs_held": sum(e.legs_held for e in found),
        }
        | seldom(
            legs_without_value=sum(e.legs_without_value for e in found),
            legs_without_greeks=sum(e.legs_without_greeks for e in found),
        )
        | {f"mismatches/{e.strategy_id}": e.mismatches for e in found if e.mismatches}
    )
    if times:
        metadata["oldest_value_age_s"] = (now - min(times)).total_seconds()
    return dg.MaterializeResult(metadata=metadata, data_version=data_version(result.version))


def picture(
    context: dg.AssetExecutionContext, lake: "Lake", book: "Book", now: datetime
) -> dict[str, dg.MetadataValue]:
    """Return a picture of the day: that of the event before while it is recent, else a new one.

    Without a picture the table and its numbers still stand: what goes wrong here is a warning.
    """
    found = recent_picture(context.instance, context.asset_key, now)
    if found or not book.matching:
        return found
    from position_sync_dagster.sync.reports.day import profit_lines
    from position_sync_dagster.sync.reports.picture import draw_day

    try:
        png = draw_day(profit_lines(lake.updates.sync, book.matching, now), book.leg_ages, now)
    except (ImportError, LakeError, OSError, ValueError) as error:
        context.log.warning(f"No picture could be drawn: {error}")
        return {}
    return picture_metadata(png, now) if png else {}
