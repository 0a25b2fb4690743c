"""The asset `latest_positions`: the newest row of every holding, as a table."""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta

import dagster as dg
import polars as pl

from position_sync_dagster.defs.assets import strategy_exposure, table_asset
from position_sync_dagster.defs.checks.check_results import Derived
from position_sync_dagster.defs.checks.limits import SUMS_CHECK, judge_latest, rows_to_judge
from position_sync_dagster.defs.resources import PositionSyncResource
from position_sync_dagster.lake import derived
from position_sync_dagster.lake import lake as tables
from position_sync_dagster.lake.schema.tables import LATEST_POSITIONS
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.reports import confirmations

CLOSED_KEPT = timedelta(days=14)
"""How long a closed holding stays in the table. Its cost must not grow with the history: the table
is replaced whole, and each process that asks for the newest rows begins with it."""

LINEAGE = {name: [("position_updates", name)] for name in LATEST_POSITIONS.columns} | {
    "confirmed_at": [
        ("broker_positions", "confirmed_at"),
        ("position_updates", "value_time"),
        ("position_updates", "timestamp"),
    ]
}


KEY = dg.AssetCheckKey(dg.AssetKey(LATEST_POSITIONS.name), SUMS_CHECK)


@table_asset.table_asset(
    LATEST_POSITIONS,
    deps=["position_updates", "broker_positions"],
    lineage=LINEAGE,
    money_first=True,
    freshness_policy=table_asset.QUARTER_HOURLY,
)
def latest_positions(
    context: dg.AssetExecutionContext, position_sync: PositionSyncResource
) -> dg.MaterializeResult[None]:
    """The newest row of every holding that is open or closed lately, for readers without code.

    Written by the sensor drain_queue after each report of the ledger; the table is replaced whole.

    How to read it: one row per account and contract, with the columns of position_updates, and
    when its price arrived or the broker last confirmed it. A closed holding stays for 14 days, that
    of an active leg as long as the leg. PositionUpdatesTable.latest() returns the rows as they are
    now.

    Live: `position-sync money` shows these figures as they move, second by second.
    """
    lake, settings, now = position_sync.lake, position_sync.settings, datetime.now(UTC)
    return derive(lake, settings, now, run_id=context.run.run_id).result(context)


def derive(
    lake: tables.Lake,
    settings: Settings,
    now: datetime,
    *,
    run_id: str | None = None,
) -> Derived:
    """Replace the table by the newest rows of the ledger, and compare its sums with theirs.

    Args:
        lake: The tables.
        settings: Which logins count.
        now: The current time.
        run_id: The run, for the commit.
    """
    table = lake.derived_table(LATEST_POSITIONS)

    def make(forward: bool) -> "tuple[pl.DataFrame, pl.DataFrame, derived.Replaced]":
        legs = {leg.conid for leg in lake.registry.sync.get_all_active()}
        found = listed(lake.updates.sync.latest(), legs, now)
        holdings = tables.all_broker_rows(lake, settings)
        rows = confirmations.with_priced(found, holdings, now, band=settings.value_band).select(
            *found.columns, pl.col(confirmations.PRICED).alias("confirmed_at")
        )
        return found, rows, derived.replace(table, rows, run_id=run_id, forward=forward)

    found, rows, result = table_asset.derived_forward(make)
    return Derived(
        metadata=strategy_exposure.positions_metadata(rows, now)
        | strategy_exposure.counted(
            held=rows.filter(rows["position"] != 0).height,
            **strategy_exposure.seldom(without_value=rows["market_value"].null_count()),
        )
        | {
            "dagster/row_count": result.rows,
            "ledger_version": strategy_exposure.version_text(found),
        }
        | table_asset.replacement_metadata(table.path, result),
        checks={KEY: judge_latest(rows_to_judge(table, result, rows), found)},
    )


def listed(rows: pl.DataFrame, legs: Collection[int], now: datetime) -> pl.DataFrame:
    """Return the rows that the table has of the newest rows of the ledger; pure.

    Reports take account and currency of a leg that is not held from its closed holding.

    Args:
        rows: The newest row of each holding.
        legs: The conids of the active legs.
        now: The current time.
    """
    closed_long_ago = (pl.col("position") == 0) & (pl.col("timestamp") < now - CLOSED_KEPT)
    return rows.filter(~closed_long_ago.fill_null(value=False) | pl.col("conid").is_in(legs))
