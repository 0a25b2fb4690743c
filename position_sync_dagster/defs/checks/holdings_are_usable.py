"""The check `holdings_are_usable`: whether holdings were set aside, or are unknown as a whole."""

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg

from position_sync_dagster.defs.checks.check_results import (
    of_each_login,
    rows_result,
    table_check,
    unknown_result,
)
from position_sync_dagster.domain.gateway_session import (
    GatewaySession,
    SessionState,
    set_aside,
    unknown_accounts,
)

if TYPE_CHECKING:
    from position_sync_dagster.lake.lake import Lake
    from position_sync_dagster.settings import Settings

CHECK_NAME = "holdings_are_usable"

_NAMED = re.compile(r"conid (-?\d+) of (.+?) \((.*?)\)(?=, conid | and \d+ more|$)")
_MORE = re.compile(r" and (\d+) more$")


def evaluate(lake: "Lake", settings: "Settings") -> dg.AssetCheckResult:
    """Return the check's result now."""
    sessions, now = lake.sessions.sync, datetime.now(UTC)
    return of_each_login(
        settings, lambda login: judge_detail(sessions.current(login.gateway_id), now)
    )


def judge_detail(session: GatewaySession | None, now: datetime) -> dg.AssetCheckResult:
    """Return the check's result for the session of the login's owner; pure."""
    import polars as pl

    if session is None or not session.is_alive(now) or session.state is not SessionState.LIVE:
        return unknown_result("no owner of the login sees the gateway now.")
    text = set_aside(session.detail)
    named = _NAMED.findall(text or "")
    unknown = unknown_accounts(session.detail)
    rows = pl.DataFrame(
        [
            *((None, account, why) for account, why in unknown.items()),
            *((int(conid), account, reason) for conid, account, reason in named),
        ],
        schema={"conid": pl.Int64, "account": pl.String, "reason": pl.String},
        orient="row",
    )
    if text is not None and (not named or (more := _MORE.search(text))):
        # What the session does not name by itself is counted there.
        rest = f"{more[1]} more" if named and more else text
        rows = rows.vstack(pl.DataFrame([(None, "", rest)], schema=rows.schema, orient="row"))
    return rows_result(
        rows,
        passed="The gateway sent no holding that cannot be used, and no account is unknown.",
        failed="shown: " + "; ".join([*unknown.values(), *([text] if text else [])]),
        what_to_do="Their newest usable values stay, with their age. Compare these holdings with "
        "TWS; restart the gateway if it shows them otherwise. Log in as the user of an account "
        "that is not managed; one that is gone is left out by a gateways file.",
    )


holdings_are_usable = table_check(
    "broker_positions",
    CHECK_NAME,
    evaluate,
    description="Whether the gateway sent rows of holdings that cannot be used (no number for a "
    "quantity, an impossible conid or account), and whether the holdings of an account are "
    "unknown: the login does not manage it, or a list of positions emptied it.",
)
