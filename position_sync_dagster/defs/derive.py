"""The job that brings derived tables and checks up to date, and when it runs."""

import dagster as dg

DERIVE_CRON = "*/15 * * * *"
"""The ledger moves every second; whoever needs it live reads it. This is for everyone else."""

derive_positions = dg.define_asset_job(
    "derive_positions",
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
