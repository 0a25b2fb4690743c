"""The asset `closed_campaigns`: what each campaign that is over brought."""

from position_sync_dagster.defs.assets import table_asset
from position_sync_dagster.defs.assets.table_asset import Derived, derived_asset
from position_sync_dagster.defs.resources import CLOSE_JOB
from position_sync_dagster.lake import derived, schema
from position_sync_dagster.lake import lake as tables
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.reports.closed_campaigns import CampaignBook


@derived_asset(
    schema.CLOSED_CAMPAIGNS,
    # Not the strategies and daily_positions, which it reads too: they change all day, and it would
    # be shown as stale until the next close.
    deps=["executions", "statement_events", "closures"],
    writer=CLOSE_JOB,
)
def closed_campaigns(lake: tables.Lake, settings: Settings, run_id: str | None) -> Derived:
    """What each campaign of a strategy brought from its first trade until nothing was left of it.

    Written by the job close_day, after daily_positions, with the strategies as they are then.

    How to read it: one row for each campaign that is over, and for each structure of options that
    was in no strategy. Rolls, and what assignments left, belong to it. Profit is after fees. What
    is null, and why, is in profit_unknown and why_unknown. position-sync results has the sums.
    """
    rows = CampaignBook(lake, settings).rows()
    table = lake.derived_table(schema.CLOSED_CAMPAIGNS)
    result = derived.replace(table, schema.frame_of(table.spec, rows), run_id=run_id)
    unknown = sum(row.profit is None for row in rows)
    metadata = {**table_asset.replacement_metadata(result), "profits_unknown": str(unknown)}
    return Derived(metadata=metadata, version=str(result.version))
