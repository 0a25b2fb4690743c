"""The job that brings derived tables and checks up to date, and its schedule."""

import dagster as dg

DERIVE_JOB = "derive_positions"

DERIVE_CRON = "*/15 * * * *"
"""The ledger changes every second. Who needs live values reads it; these tables are for others."""

derive_positions = dg.define_asset_job(
    DERIVE_JOB,
    selection=dg.AssetSelection.assets("latest_positions", "strategy_exposure")
    | dg.AssetSelection.checks_for_assets("position_updates"),
    description="Derive the newest rows and the exposure, and compare the ledger with the broker.",
)

every_quarter_hour = dg.ScheduleDefinition(
    name="every_quarter_hour",
    job=derive_positions,
    cron_schedule=DERIVE_CRON,
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
