"""The asset `risk_scenarios`, appended each quarter of an hour, and its checks."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import polars as pl

from position_sync_dagster.defs.assets import table_asset
from position_sync_dagster.defs.assets.table_asset import Derived, derived_asset, external_table
from position_sync_dagster.defs.checks.evaluation import failed, passed, table_check
from position_sync_dagster.defs.resources import GATEWAY
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.reports.book import OF_BOOK
from position_sync_dagster.money.risk import recorded_risk as risk
from position_sync_dagster.money.risk.deliveries import early_assignments
from position_sync_dagster.money.tables import DIVIDENDS, RISK_SCENARIOS
from position_sync_dagster.settings import Settings

# Maximum number of options that a check names.
MOST_NAMED = 5


@derived_asset(
    RISK_SCENARIOS,
    deps=[*OF_BOOK, DIVIDENDS.name],
    freshness_policy=table_asset.QUARTER_HOURLY,
)
def risk_scenarios(lake: MoneyLake, settings: Settings, run_id: str | None) -> Derived:
    """What each strategy would gain and lose under other prices and volatilities.

    Written by the sensor drain_queue each quarter of an hour, and when the active strategies
    changed.

    How to read it: one row per time, strategy, account and scenario; rows are only appended, so
    that the risk of yesterday can be read tomorrow. A leg that cannot be priced is counted in
    left_out and is in no number. `position-sync what-if` computes other scenarios.
    """
    _book, chosen, legs = risk.read_risk(lake, settings, datetime.now(UTC))
    rows = risk.risk_rows(legs, chosen, run_id)
    lake.risk_scenarios.record(rows)

    profits = [row["profit"] for row in rows if row["profit"] is not None]
    left_out = legs.left_out()
    metadata: dict[str, dg.RawMetadataValue] = {"dagster/row_count": len(rows)}
    if profits:
        metadata["worst_profit"] = min(profits)
    metadata["left_out"] = sum(left_out.values())
    metadata["scenarios"] = str(len(chosen.recorded))

    results = {
        check.check_key: check.evaluate(lake, settings)
        for check in (losses_are_within_their_limits, early_assignment)
    }
    return Derived(metadata=metadata, checks=results)


@table_check(RISK_SCENARIOS.name)
def losses_are_within_their_limits(lake: MoneyLake, settings: Settings) -> dg.AssetCheckResult:
    """Whether no strategy would lose more than scenarios.yaml allows, by its newest rows.

    A strategy with a leg that cannot be priced has no certain loss: the check is yellow then.

    What to do: Look at `position-sync what-if`, and close or hedge what loses; or correct the
    limit in scenarios.yaml.
    """
    rows = lake.risk_scenarios.latest().drop_nulls("largest_loss")
    broken = rows.filter(-pl.col.profit > pl.col.largest_loss)
    text = "; ".join(map(_described_loss, broken.iter_rows(named=True)))

    unknown = rows.filter(pl.col.left_out > 0)
    if not text and unknown.height:
        name, count = unknown.select("strategy_id", "left_out").row(0)
        text = f"{name} has {count} legs that are not priced"

    if not text:
        return passed(f"{rows.height} losses are within their limits.", limits=rows.height)
    return failed(f"{text}.", beyond=broken.height, not_certain=unknown.height)


def _described_loss(row: Mapping[str, Any]) -> str:
    text = f"{row['strategy_id']} loses {-row['profit']:,.0f}"
    text += f" {row['currency']} in {row['scenario']}"
    return f"{text}, allowed are {row['largest_loss']:,.0f}"


@table_check(RISK_SCENARIOS.name)
def early_assignment(lake: MoneyLake, settings: Settings) -> dg.AssetCheckResult:
    """Whether no short option may be assigned early, where scenarios.yaml makes that a limit.

    A holder exercises where selling gains nothing more: an option below its intrinsic value, a
    put whose time value is at most 0.05, and a call in the week before an ex-date whose dividend
    exceeds its time value. A short option that cannot be judged, and is
    in the money or may be, fails the check too.

    What to do: Close or roll them before the ex-date, or accept the shares. `position-sync
    expiry` lists them.
    """
    _book, chosen, legs = risk.read_risk(lake, settings, datetime.now(UTC))
    judged = early_assignments(legs)
    likely = judged.likely
    doubtful = judged.doubtful
    summary = f"{len(likely)} short options may be assigned early"
    summary += f"; {len(judged.left_out)} could not be judged"
    summary += f", {len(doubtful)} of them in the money or perhaps so"
    # Without the limit what is likely is allowed; what nobody can judge is still not passed.
    named_rows = [row for row in doubtful if row["in_the_money"]]
    if chosen.early_assignment:
        named_rows = [*likely, *doubtful]
    if not named_rows:
        return passed(f"{summary}.")

    named = "; ".join(map(_assignment_text, named_rows[:MOST_NAMED]))
    return failed(f"{summary}: {named}.", options=len(likely), not_judged=len(doubtful))


def _assignment_text(row: Mapping[str, Any]) -> str:
    """Return a short option that may be assigned early, or why that is not known."""
    name = f"{row['strategy_id']}: {row['leg']}"
    if "reason" in row:
        return f"{name} is not judged: {row['reason']}"
    return f"{name} is worth {row['extrinsic']:,.2f} above its exercise"


@external_table(DIVIDENDS, GATEWAY)
def dividends() -> None:
    """Dividends that the gateway expects of the underlyings of streamed options (generic tick 456).

    Written by the stream, when what is expected changed.

    How to read it: of the rows of a conid those with the greatest seen_at count.
    """
