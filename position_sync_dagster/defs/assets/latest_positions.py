"""The asset `latest_positions`: the newest rows of the ledger, replaced whole by the tick."""

from collections.abc import Collection
from datetime import datetime, timedelta

import polars as pl
from polars import DataFrame

from position_sync_dagster.defs.assets import table_asset
from position_sync_dagster.defs.assets.table_asset import Derived, derived_asset, replaced_whole
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.holding import KEY
from position_sync_dagster.domain.position_update import Source
from position_sync_dagster.lake import derived
from position_sync_dagster.lake.lake import Lake, all_broker_rows
from position_sync_dagster.lake.schema import LATEST_POSITIONS
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync import confirmations

# How long a closed holding stays in the table. Its cost must not grow with the history: the table
# is replaced whole, and each process that asks for the newest rows begins with it.
CLOSED_KEPT = timedelta(days=14)


@derived_asset(
    LATEST_POSITIONS,
    deps=["position_updates", "broker_positions"],
    metadata=table_asset.column_lineage(
        LATEST_POSITIONS,
        {"confirmed_at": "broker_positions.confirmed_at value_time timestamp"},
    ),
    numbers_first=True,
    freshness_policy=table_asset.QUARTER_HOURLY,
)
def latest_positions(lake: Lake, settings: Settings, run_id: str | None) -> Derived:
    """The newest row of every holding that is open or closed lately, for readers without code.

    Written by the sensor drain_queue after each report of the ledger; the table is replaced whole.

    How to read it: one row per account and contract, with the columns of position_updates, and
    when its price arrived or the broker last confirmed it. A closed holding stays for 14 days, that
    of an active leg as long as the leg. PositionUpdatesTable.latest() returns the rows as they are
    now.

    Live: `position-sync money` shows these figures as they move, second by second.
    """
    now = utc_now()
    table = lake.derived_table(LATEST_POSITIONS)

    def make() -> DataFrame:
        """Return the rows; `derive_from_ledger` replaces those of the table by them."""
        # The closed row of an active leg stays, however old. Of the strategies no column is made:
        # they are no source of their own, but stand behind `position_updates`.
        legs = {leg.conid for leg in lake.registry.sync.get_all_active()}
        listing = listed(lake.updates.sync.latest(), legs, now)
        priced = confirmations.with_priced(listing, all_broker_rows(lake, settings), now)
        # PRICED, when the price of a row arrived or was last confirmed, has an older name in the
        # table: `confirmed_at`.
        return priced.select(*listing.columns, confirmed_at=confirmations.PRICED)

    rows, result = derived.derive_from_ledger(table, make, run_id=run_id)
    held = rows.filter(pl.col.position != 0)
    counts = table_asset.counted(held=held.height, without_value=rows["market_value"].null_count())
    ages_s = (now - pl.col.confirmed_at).dt.total_milliseconds() / 1000
    plots = held.select(
        held_streamed=(pl.col.source == Source.STREAM).sum(),
        held_queued=(pl.col.source == Source.QUEUE).sum(),
        price_age_s_oldest=ages_s.max(),
        price_age_s_median=ages_s.median(),
    )
    plotted = table_asset.plotted(plots.row(0, named=True))
    # A number that changes with any quantity: readers are told at once (`Derived.mark`).
    quantities = held.select(*KEY, "position").hash_rows().sum()
    return Derived(metadata=counts | replaced_whole(result) | plotted, mark=f"{quantities}")


def listed(rows: DataFrame, legs: Collection[int], now: datetime) -> DataFrame:
    """Return the rows that the table has of the newest rows of the ledger; pure.

    Left out is what was closed long ago, unless it is a leg: reports take account and currency of a
    leg that is not held from its closed holding.

    Args:
        rows: The newest row of each holding.
        legs: The conids of the active legs.
        now: The current time.
    """
    is_old = pl.col.timestamp < now - CLOSED_KEPT
    closed_long_ago = (pl.col.position == 0) & is_old
    return rows.filter(pl.col.conid.is_in(legs) | ~closed_long_ago.fill_null(value=False))
