"""The check `lines_suffice`: whether the login is about to run out of market data lines."""

from collections.abc import Collection
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg

from position_sync_dagster.defs.checks.check_results import (
    WHAT_TO_DO,
    of_each_login,
    rows_result,
    table_check,
    unknown_result,
)
from position_sync_dagster.domain.gateway_session import GatewaySession, Owner, SessionState
from position_sync_dagster.domain.update import Source

if TYPE_CHECKING:
    import polars as pl

    from position_sync_dagster.lake.lake import Lake
    from position_sync_dagster.settings import Settings

CHECK_NAME = "lines_suffice"

NEAR = 0.9
"""Part of the line limit from which the lines are short."""


def evaluate(lake: "Lake", settings: "Settings") -> dg.AssetCheckResult:
    """Return the check's result now."""
    from position_sync_dagster.lake import inspection

    lake.registry.sync.refresh()
    active = {leg.conid for leg in lake.registry.legs}
    return of_each_login(
        settings,
        lambda login: judge_lines(
            lake.sessions.sync.current(login.gateway_id),
            inspection.held_at_the_broker(lake, login),
            inspection.newest_values(lake, login),
            active=active,
            now=datetime.now(UTC),
        ),
    )


def judge_lines(
    session: GatewaySession | None,
    broker: "pl.DataFrame",
    newest: "pl.DataFrame",
    *,
    active: Collection[int],
    now: datetime,
) -> dg.AssetCheckResult:
    """Return the check's result; pure.

    Args:
        session: Of the login's owner.
        broker: What the broker last said of each holding.
        newest: The newest row of each open holding.
        active: The conids of active strategies.
        now: The time.
    """
    import polars as pl

    if (
        session is None
        or session.owner is not Owner.STREAM
        or not session.is_alive(now)
        or session.state is not SessionState.LIVE
        or session.line_limit <= 0
    ):
        return unknown_result("no stream uses lines now.")
    used, limit = session.lines_in_use, session.line_limit
    numbers: dict[str, int] = {
        "lines_in_use": used,
        "line_limit": limit,
        "active_legs": len(active),
    }
    if used < NEAR * limit:
        return dg.AssetCheckResult(
            passed=True, description=f"{used} of {limit} lines are in use.", metadata=numbers
        )
    held = broker.filter(pl.col("conid").is_in(list(active))).join(
        newest.select("account", "conid", "source"), on=["account", "conid"], how="left"
    )
    without = held.filter(pl.col("source").ne_missing(Source.STREAM.value))
    if without.is_empty():
        return dg.AssetCheckResult(
            passed=False,
            severity=dg.AssetCheckSeverity.WARN,
            description=f"{used} of {limit} lines are in use. {TO_DO}",
            metadata={**numbers, WHAT_TO_DO: TO_DO},
        )
    return rows_result(
        without.select("account", "conid", "symbol", "position"),
        passed="",
        failed=f"active holdings are without a line; {used} of {limit} are in use",
        what_to_do=TO_DO,
        lines_in_use=used,
        line_limit=limit,
        active_legs=len(active),
    )


TO_DO = (
    "Remove legs from strategies, or buy lines (quote boosters) and raise POSITION_SYNC_MAX_LINES. "
    "Legs without a line are valued by the queue."
)

lines_suffice = table_check(
    "gateway_sessions",
    CHECK_NAME,
    evaluate,
    description="Whether the stream uses nine tenths of its market data lines or more, and which "
    "active holdings have none.",
)
