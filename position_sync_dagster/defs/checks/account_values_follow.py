"""The check `account_values_follow`: whether what an account is worth is as new as its holdings."""

from datetime import UTC, datetime, timedelta
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

CHECK_NAME = "account_values_follow"


def evaluate(lake: "Lake", settings: "Settings") -> dg.AssetCheckResult:
    """Return the check's result now."""
    from position_sync_dagster.lake import inspection

    values = lake.account_values.sync.latest()

    def of_login(login: "Settings") -> dg.AssetCheckResult:
        session = lake.sessions.sync.current(login.gateway_id)
        return judge_accounts(
            inspection.held_at_the_broker(lake, login),
            values,
            since=session.started_at if session else datetime.now(UTC),
            patience=timedelta(seconds=settings.stale_after_s),
        )

    return of_each_login(settings, of_login)


def judge_accounts(
    broker: "pl.DataFrame", values: "pl.DataFrame", *, since: datetime, patience: timedelta
) -> dg.AssetCheckResult:
    """Return the check's result; pure.

    A row is written when the worth changed. While no value of a holding changes, as in the night,
    an old row is right: it is compared with the newest change of a holding, not with the clock.

    Args:
        broker: What the broker last said of each holding; `received_at` is its last change.
        values: The newest row of each account.
        since: When the owner of the login began: an account without a row is due after that.
        patience: How far the row may be behind.
    """
    import polars as pl

    if broker.is_empty():
        return unknown_result("the broker has not reported a holding yet.")
    accounts = (
        broker.group_by("account")
        .agg(holdings_changed_at=pl.col("received_at").max())
        .join(values.select("account", "timestamp"), on="account", how="left")
    )
    written = pl.col("timestamp").fill_null(pl.lit(since))
    late = accounts.filter(pl.col("holdings_changed_at") - written > patience)
    waiting = accounts.filter(pl.col("timestamp").is_null())
    if late.is_empty() and waiting.height:
        return unknown_result(f"{waiting.height} accounts have no row yet.")
    return rows_result(
        late.sort("timestamp", nulls_last=False),
        passed=f"{accounts.height} accounts, all as new as their holdings.",
        failed=f"of {accounts.height} accounts have values that are more than "
        f"{patience.total_seconds() / 60:.0f} min older than those of their holdings",
        what_to_do="Net liquidation, cash and margin of these accounts are not current. See "
        "whether TWS shows them; restart the stream if it does.",
        accounts=accounts.height,
    )


account_values_follow = table_check(
    "account_values",
    CHECK_NAME,
    evaluate,
    description="Whether each account with holdings has values that are no more than "
    "POSITION_SYNC_STALE_AFTER_S older than the newest change of its holdings.",
)
