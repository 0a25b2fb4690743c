"""The asset `latest_positions`: the newest row of every holding, as a table."""

from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg

from position_sync_dagster.defs.assets import strategy_exposure, table_asset
from position_sync_dagster.defs.checks.limits import evaluated_sums, judge_latest, rows_to_judge
from position_sync_dagster.defs.libraries import confirmations, derived, pl, tables
from position_sync_dagster.defs.resources import PositionSyncResource
from position_sync_dagster.defs.runs import DERIVE_JOB
from position_sync_dagster.lake.schema.tables import LATEST_POSITIONS

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


@table_asset.table_asset(
    LATEST_POSITIONS,
    deps=["position_updates", "broker_positions"],
    lineage=LINEAGE,
    job=DERIVE_JOB,
    money_first=True,
    freshness_policy=table_asset.QUARTER_HOURLY,
)
def latest_positions(
    context: dg.AssetExecutionContext, position_sync: PositionSyncResource
) -> Iterator[dg.MaterializeResult[None]]:
    """The newest row of every holding that is open or closed lately, for readers without code.

    Written by each run of drain_positions that writes values, and by derive_positions when
    the stream has materialized the ledger; the table is replaced whole.

    How to read it: one row per account and contract, with the columns of position_updates, and
    when its price arrived or the broker last confirmed it. A closed holding stays for 14 days, that
    of an active leg as long as the leg. PositionUpdatesTable.latest() returns the rows as they are
    now.

    Live: [the money page](/money) shows these figures as they move, second by second.
    """
    table = position_sync.lake.derived_table(LATEST_POSITIONS)
    lake, now = position_sync.lake, datetime.now(UTC)
    band = position_sync.settings.value_band

    def make(forward: bool) -> "tuple[pl.DataFrame, pl.DataFrame, derived.Replaced]":
        with lake.looked_at_once(position_sync.looked_at):
            legs = {leg.conid for leg in lake.registry.sync.get_all_active()}
            found = listed(lake.updates.sync.latest(), legs, now)
            holdings = tables.all_broker_rows(lake, position_sync.settings)
            rows = confirmations.with_priced(found, holdings, now, band=band).select(
                *found.columns, pl.col(confirmations.PRICED).alias("confirmed_at")
            )
            run_id = context.run.run_id
            return found, rows, derived.replace(table, rows, run_id=run_id, forward=forward)

    found, rows, result = table_asset.derived_forward(make, position_sync.looked_at)
    versions: dict[str, dg.RawMetadataValue] = {
        "dagster/row_count": result.rows,
        "ledger_version": strategy_exposure.version_text(found),
    }
    yield dg.MaterializeResult(
        metadata=strategy_exposure.positions_metadata(rows, now)
        | strategy_exposure.counted(
            held=rows.filter(rows["position"] != 0).height,
            **strategy_exposure.seldom(without_value=rows["market_value"].null_count()),
        )
        | versions
        | table_asset.replacement_metadata(table.path, result),
        data_version=dg.DataVersion(str(result.version)),
    )
    with lake.looked_at_once(position_sync.looked_at):
        sums = judge_latest(rows_to_judge(table, result, rows), found)
    context.log_event(evaluated_sums(LATEST_POSITIONS.name, sums, context.instance))


def listed(rows: "pl.DataFrame", legs: Collection[int], now: datetime) -> "pl.DataFrame":
    """Return the rows that the table has of the newest rows of the ledger; pure.

    Reports take account and currency of a leg that is not held from its closed holding.

    Args:
        rows: The newest row of each holding.
        legs: The conids of the active legs.
        now: The current time.
    """
    closed_long_ago = (pl.col("position") == 0) & (pl.col("timestamp") < now - CLOSED_KEPT)
    return rows.filter(~closed_long_ago.fill_null(value=False) | pl.col("conid").is_in(legs))
