"""The check `values_match_the_broker`: whether our values are near those of the broker."""

from datetime import timedelta
from typing import TYPE_CHECKING

import dagster as dg

from position_sync_dagster.defs.checks.check_results import (
    of_each_login,
    rows_result,
    table_check,
    unknown_result,
)

if TYPE_CHECKING:
    import polars as pl

    from position_sync_dagster.lake.lake import Lake
    from position_sync_dagster.settings import Settings

CHECK_NAME = "values_match_the_broker"

SAME_TIME = timedelta(seconds=5)
"""Values further apart in time may differ because the market moved: that proves nothing."""


def evaluate(lake: "Lake", settings: "Settings") -> dg.AssetCheckResult:
    """Return the check's result now."""
    from position_sync_dagster.lake import inspection

    return of_each_login(
        settings,
        lambda login: judge_difference(
            inspection.newest_values(lake, login),
            inspection.held_at_the_broker(lake, login),
            band=settings.value_band,
        ),
    )


def judge_difference(
    newest: "pl.DataFrame", broker: "pl.DataFrame", *, band: float
) -> dg.AssetCheckResult:
    """Return the check's result; pure.

    Args:
        newest: The newest row of each open holding.
        broker: What the broker last said of each.
        band: Part of its value by which a value may differ. A difference below five cents of the
            price is never one: the smallest steps of a cheap option are large parts of it.
    """
    import polars as pl

    from position_sync_dagster.lake.derived import LEAST_DIFFERENCE

    ours = newest.select("account", "conid", "position", "market_value", "timestamp", "price_kind")
    pairs = (
        ours.join(broker, on=["account", "conid"], suffix="_broker")
        .drop_nulls(["market_value", "market_value_broker"])
        .filter(pl.col("position") == pl.col("position_broker"))
    )
    if pairs.is_empty():
        return unknown_result("no holding has both a value of ours and one of the broker.")
    difference = (pl.col("market_value") - pl.col("market_value_broker")).abs()
    units = pl.col("position").abs() * pl.col("multiplier").fill_null(1.0)
    allowed = pl.max_horizontal(
        band * pl.col("market_value_broker").abs(), LEAST_DIFFERENCE * units
    )
    apart = pairs.with_columns(difference=difference).filter(difference > allowed)
    same_time = (pl.col("timestamp") - pl.col("received_at")).abs() <= SAME_TIME
    wrong = apart.filter(same_time.fill_null(value=False))
    return rows_result(
        wrong.sort("difference", descending=True).select(
            "account",
            "conid",
            "symbol",
            "price_kind",
            "market_value",
            broker_value="market_value_broker",
            at="timestamp",
            broker_at="received_at",
        ),
        passed=f"{pairs.height} values compared, none differs by more than {band:.0%} from the "
        "broker's of the same time.",
        failed=f"of {pairs.height} values differ by more than {band:.0%} from the broker's of the "
        "same time",
        what_to_do="Compare the price in TWS. A wide quote explains it, and so does a multiplier "
        "or a price magnifier; POSITION_SYNC_VALUE_BAND is the band.",
        compared=pairs.height,
        apart_at_another_time=apart.height - wrong.height,
    )


values_match_the_broker = table_check(
    "position_updates",
    CHECK_NAME,
    evaluate,
    description="Whether the newest values differ from the broker's own of the same time by more "
    "than POSITION_SYNC_VALUE_BAND.",
)
