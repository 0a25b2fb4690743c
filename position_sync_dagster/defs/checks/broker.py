"""Checks of the broker's data: stream, holdings, lines, accounts."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import polars as pl

from position_sync_dagster.defs.checks import check_results
from position_sync_dagster.domain.gateway_session import (
    CONFIRM,
    GatewaySession,
    set_aside,
    unknown_accounts,
)
from position_sync_dagster.domain.update import Source
from position_sync_dagster.lake import lake as tables
from position_sync_dagster.settings import Settings


@check_results.table_check("position_updates", each_login=True)
def a_stream_watches(lake: tables.Lake, login: Settings) -> dg.AssetCheckResult:
    """Whether a stream sees the gateway, and since when none does."""
    return judge_stream_session(lake.sessions.current(login.gateway_id), datetime.now(UTC))


def judge_stream_session(session: GatewaySession | None, now: datetime) -> dg.AssetCheckResult:
    """Return the check's result for the newest session of a stream; pure."""
    if session is None:
        return check_results.unknown_result("No stream has run yet.")
    metadata: dict[str, dg.RawMetadataValue] = {
        "state": session.state.value,
        "owner": session.owner.value,
        "lines_in_use": session.lines_in_use,
        "line_limit": session.line_limit,
        **({"note": session.detail} if session.detail else {}),
    }
    if session.is_live(now):
        return check_results.passed("A stream sees the gateway.", **metadata)
    since = session.seen_until(now)
    who = "The stream has not" if session.is_alive(now) else "No stream has"
    return check_results.failed(
        f"{who} seen the gateway since {since:%Y-%m-%d %H:%M:%S} UTC.",
        what_to_do="Check whether TWS or IB Gateway runs and is logged in; `position-sync status` "
        "says what the stream tried.",
        **metadata,
        blind_for_s=(now - since).total_seconds(),
    )


@check_results.table_check("gateway_sessions", each_login=True)
def login_is_made(lake: tables.Lake, login: Settings) -> dg.AssetCheckResult:
    """Whether the live login of the week was made, and does not end soon.

    IB asks for the second factor once a week. Soon is within POSITION_SYNC_LOGIN_NOTICE_H hours.
    """
    session, mode = lake.sessions.current(login.gateway_id), lake.sessions.mode()
    notice_h = login.login_notice_h
    week = None if session is None else session.login_week(datetime.now(UTC), mode, notice_h)
    if week is None:
        return check_results.passed("Nothing is due: no live login with a second factor is used.")
    text = f"{week.text[0].upper()}{week.text[1:]}."
    metadata: dict[str, dg.RawMetadataValue] = {
        "login": week.state.value,
        "week_ends_at": week.ends_at.isoformat(),
    }
    if not week.asks:
        return check_results.passed(text, **metadata)
    return check_results.failed(text, what_to_do=CONFIRM, **metadata)


@check_results.table_check("broker_positions", each_login=True)
def holdings_are_usable(lake: tables.Lake, login: Settings) -> dg.AssetCheckResult:
    """Whether the holdings that the gateway sent can be used, and are known.

    A row cannot be used if its quantity is no number, or its conid or account is impossible. The
    holdings of an account are unknown if the login does not manage the account, or if a list of
    positions emptied it.
    """
    return judge_detail(lake.sessions.current(login.gateway_id), datetime.now(UTC))


def judge_detail(session: GatewaySession | None, now: datetime) -> dg.AssetCheckResult:
    """Return the check's result for the session of the login's owner; pure."""
    if session is None or not session.is_live(now):
        return check_results.unknown_result("no owner of the login sees the gateway now.")
    unknown, text = unknown_accounts(session.detail), set_aside(session.detail)
    found = [*unknown.values(), *([text] if text else [])]
    return check_results.rows_result(
        pl.DataFrame({"problem": found}, schema={"problem": pl.String}),
        none="The gateway sent no holding that cannot be used, and no account is unknown.",
        found="shown: " + "; ".join(found),
        what_to_do="Their newest usable values stay, with their age. Compare these holdings with "
        "TWS; restart the gateway if TWS differs. For an account that is not managed, log in as "
        "its user; remove an account that no longer exists with a gateways file.",
    )


# The check fails when this share of the line limit is in use.
NEAR = 0.9


@check_results.table_check("gateway_sessions", each_login=True)
def lines_suffice(lake: tables.Lake, login: Settings) -> dg.AssetCheckResult:
    """Whether legs use nine tenths of the market data lines or more, and which have none."""
    lake.registry.sync.refresh()
    active = {leg.conid for leg in lake.registry.legs}
    session, now = lake.sessions.current(login.gateway_id), datetime.now(UTC)
    if session is None or not session.is_live(now) or session.line_limit <= 0:
        return check_results.unknown_result("no stream uses lines now.")
    underlyings, limit = session.underlying_lines or 0, session.line_limit
    used = session.lines_in_use - underlyings  # any leg may take the line of an underlying
    numbers: dict[str, dg.RawMetadataValue] = {
        "lines_in_use": used,
        "underlying_lines": underlyings,
        "line_limit": limit,
        "active_legs": len(active),
    }
    text = f"{used} of {limit} lines are in use by legs."
    if used < NEAR * limit:
        return check_results.passed(text, **numbers)
    without = (
        check_results.newest_values(lake, login)
        .filter(pl.col("conid").is_in(list(active)), pl.col("source") != Source.STREAM.value)
        .select("account", "conid", "symbol", "position")
    )
    return check_results.failed(
        f"{text} {without.height} active holdings are without one. {TO_DO}",
        what_to_do=TO_DO,
        **numbers,
        rows=check_results.table_of_rows(without),
    )


TO_DO = (
    "Remove legs from strategies, or buy lines (quote boosters) and raise POSITION_SYNC_MAX_LINES. "
    "Legs without a line are valued by the queue."
)


@check_results.table_check("account_values", each_login=True)
def account_values_follow(lake: tables.Lake, login: Settings) -> dg.AssetCheckResult:
    """Whether each account with holdings has values that are as new as these.

    They may be ten minutes older than the newest change of its holdings.
    """
    held, now = check_results.held_at_the_broker(lake, login), datetime.now(UTC)
    session = lake.sessions.current(login.gateway_id)
    return judge_accounts(
        held,
        lake.account_values.latest(),
        since=now if session is None else session.started_at,
        now=now,
        patience=timedelta(seconds=login.stale_after_s),
    )


def judge_accounts(
    broker: pl.DataFrame,
    values: pl.DataFrame,
    *,
    since: datetime,
    now: datetime,
    patience: timedelta,
) -> dg.AssetCheckResult:
    """Return the check's result; pure.

    A row is written when an amount of the account changed. While no holding changes, as at night,
    an old row is correct: the row is compared with the newest change of a holding, not with the
    clock.

    Args:
        broker: The broker's last report of each holding; `received_at` is its last change.
        values: The newest row of each account.
        since: When the owner of the login began; from then on an account without a row is due.
        now: The current time. Later changes are from before the clock was set back, and do not
            count.
        patience: Maximum delay of the row.
    """
    if broker.is_empty():
        return check_results.unknown_result("the broker has not reported a holding yet.")
    changed_at = pl.col("received_at")
    accounts = (
        broker.group_by("account")
        .agg(holdings_changed_at=changed_at.filter(changed_at <= now).max())
        .join(values.select("account", "timestamp"), on="account", how="left")
    )
    written = pl.col("timestamp").fill_null(pl.lit(since))
    late = accounts.filter(pl.col("holdings_changed_at") - written > patience)
    waiting = accounts.filter(pl.col("timestamp").is_null())
    if late.is_empty() and waiting.height:
        return check_results.unknown_result(f"{waiting.height} accounts have no row yet.")
    return check_results.rows_result(
        late.sort("timestamp", nulls_last=False),
        none=f"{accounts.height} accounts, all as new as their holdings.",
        found=f"of {accounts.height} accounts have values that are more than "
        f"{patience.total_seconds() / 60:.0f} min older than those of their holdings",
        what_to_do="Net liquidation, cash and margin of these accounts are not current. See "
        "whether TWS shows them; restart the stream if it does.",
        accounts=accounts.height,
    )
