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
    DERIVED,
    data_version,
    replacement_metadata,
    table_asset,
)
from position_sync_dagster.defs.dagster_failures import dagster_failures
from position_sync_dagster.defs.resources import PositionSyncResource
from position_sync_dagster.errors import LakeError
from position_sync_dagster.lake.derived import LATEST_POSITIONS, STRATEGY_EXPOSURE, current_values
from position_sync_dagster.lake.schema.codec import frame_of, updates_of
from position_sync_dagster.sync.reports.money import total_by_currency
from position_sync_dagster.sync.reports.overview import read_book

if TYPE_CHECKING:
    from position_sync_dagster.lake.lake import Lake
    from position_sync_dagster.sync.reports.overview import Book


@table_asset(
    STRATEGY_EXPOSURE,
    group=DERIVED,
    deps=["position_updates", "active_strategies"],
    description="Per strategy, currency and class of asset: value, profit and greeks over what "
    "is known, with the number of legs that are not. Futures count as notional, never as value.",
)
@dagster_failures
def strategy_exposure(
    context: dg.AssetExecutionContext, position_sync: PositionSyncResource
) -> dg.MaterializeResult[None]:
    """Sum the newest rows over the legs of each strategy."""
    lake, now = position_sync.lake, datetime.now(UTC)
    latest = current_values(lake.updates.sync, position_sync.derived_table(LATEST_POSITIONS))
    book = read_book(lake, position_sync.settings, now, latest=updates_of(latest))
    found = book.exposures
    table = position_sync.derived_table(STRATEGY_EXPOSURE)
    frame = frame_of(STRATEGY_EXPOSURE, (asdict(exposure) for exposure in found))
    result = table.replace(frame, run_id=context.run.run_id)
    times = [e.oldest_value_at for e in found if e.oldest_value_at is not None]
    strategies = book.strategies
    metadata = (
        replacement_metadata(table, result)
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
        | strategies_metadata(strategies, total_by_currency(strategies))
        | picture(context, lake, book, now)
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
    if found or not book.legs:
        return found
    from position_sync_dagster.sync.reports.day import profit_lines
    from position_sync_dagster.sync.reports.picture import draw_day

    try:
        png = draw_day(profit_lines(lake.updates.sync, book.legs, now), book.leg_ages, now)
    except (ImportError, LakeError, OSError, ValueError) as error:
        context.log.warning(f"No picture could be drawn: {error}")
        return {}
    return picture_metadata(png, now) if png else {}
