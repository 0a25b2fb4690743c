"""The figures of a `Status` as text, the most important ones first."""

from typing import TYPE_CHECKING

from position_sync_dagster.terminal.text import age, duration, number, printable

if TYPE_CHECKING:
    from datetime import datetime

    from position_sync_dagster.domain.account_summary import AccountSummary
    from position_sync_dagster.sync.reports.status import LoginStatus, Status


LATE = "(late)"
"""What marks a program that should work and does not."""


def describe(status: "Status") -> list[tuple[str, str]]:
    """Return the label and the value of each figure."""
    queue = status.queue
    return [
        *(("gateway", _gateway(login, status)) for login in status.each_login),
        ("programs", _programs(status)),
        *(("attention", printable(text)) for text in status.attention),
        (
            "lines",
            "–"
            if status.lines_in_use is None
            else f"{status.lines_in_use} of {status.line_limit} in use",
        ),
        (
            "legs",
            f"{status.legs_streamed} streamed, {status.legs_queued} monitored "
            f"({status.legs_held} of {status.active_legs} active legs held, "
            f"{status.positions} positions)",
        ),
        *(("without contract", printable(text)) for text in status.unresolved_legs),
        (
            "queue",
            ", ".join(f"{count:,} {name.lower()}" for name, count in queue.items()) or "empty",
        ),
        ("oldest pending", duration(status.oldest_pending_age_s)),
        ("updates", f"{status.updates_rows:,} rows, version {status.updates_version}"),
        (
            "last drain",
            "none yet"
            if status.last_drained_at is None
            else f"{age(status.last_drained_at, status.at)} ago",
        ),
        *((printable(one.account), _account(one, status.at)) for one in status.accounts),
    ]


def _programs(status: "Status") -> str:
    """Return when the sensors last ticked, and which other programs are late."""
    from position_sync_dagster.last_work import SAYS

    late = status.programs.late
    shown = [
        *status.programs.works[:1],
        *(one for one in late if one is not status.programs.works[0]),
    ]
    if not shown:
        return f"none {LATE}" if status.programs.ended else "none runs"
    return ", ".join(
        f"last {SAYS[one.program]} {age(one.at, status.at)} ago{f' {LATE}' if one in late else ''}"
        for one in shown
    )


def _account(summary: "AccountSummary", at: "datetime") -> str:
    """Return what an account is worth and earned today, each with its age."""
    figures = (
        ("net liquidation", summary.net_liquidation, summary.values_received_at),
        ("daily P&L", summary.daily_pnl, summary.pnl_received_at),
    )
    currency = f" {printable(summary.currency)}" if summary.currency else ""
    return ", ".join(
        f"{label} –"
        if amount is None
        else f"{label} {number(amount)}{currency} ({age(received, at)} ago)"
        for label, amount, received in figures
    )


def _gateway(login: "LoginStatus | Status", status: "Status") -> str:
    mode = f", {status.trading_mode}" if status.trading_mode else ""
    if login.session_state is None:
        return f"{login.gateway_id}: nobody has connected yet{mode}"
    state = f"{login.session_state} for {age(login.session_since, status.at)}"
    owner = f" ({login.session_owner}{mode})" if login.session_owner else ""
    lines = ""
    if login is not status and login.lines_in_use is not None:
        lines = f", {login.lines_in_use} of {login.line_limit} lines"
    detail = f" – {printable(login.session_detail)}" if login.session_detail else ""
    return f"{login.gateway_id}: {state}{owner}{lines}{detail}"
