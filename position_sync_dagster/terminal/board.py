"""The live status on a terminal: the board, its lines and the last changes."""

from collections.abc import Sequence
from datetime import datetime

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from position_sync_dagster.domain.account_values import AccountSummary
from position_sync_dagster.domain.gateway_session import PAUSED, SessionState
from position_sync_dagster.sync.reports.changes import DayChange
from position_sync_dagster.sync.reports.figures import Figures
from position_sync_dagster.sync.reports.status import LoginStatus, Status
from position_sync_dagster.terminal.money_tables import sums_table
from position_sync_dagster.terminal.output import fitted_table
from position_sync_dagster.terminal.text import age, duration, number, printable


def paused(login: LoginStatus) -> bool:
    """Return whether a person terminated the stream: nothing is wrong with the gateway."""
    detail = login.session_detail or ""
    return login.session_state == SessionState.ENDED and detail.startswith(PAUSED)


# The mark of a program that should work and does not.
LATE = "(late)"


def describe(status: Status) -> list[tuple[str, str]]:
    """Return the label and the value of each figure."""
    away_first = sorted(status.each_login, key=lambda one: one.session_state == SessionState.LIVE)
    closed = f"{status.legs_closed}, " if status.legs_closed else ""
    held = f"{status.legs_held} of {status.active_legs} active legs held"
    paths = f"{status.legs_streamed} streamed, {status.legs_queued} monitored"
    requests = ", ".join(f"{count:,} {name.lower()}" for name, count in status.queue.items())
    drained = f"{age(status.last_drained_at, status.at)} ago" if status.last_drained_at else None
    return [
        *(("gateway", _gateway(login, status)) for login in away_first),
        *(("login", one.login) for one in status.each_login if one.login and not one.login_asks),
        ("programs", _programs(status)),
        *(("attention", printable(text)) for text in status.attention),
        ("lines", _lines_used(status)),
        ("legs", f"{paths} ({held}, {closed}{status.positions} positions)"),
        *(("without contract", printable(text)) for text in status.unresolved_legs),
        ("queue", requests or "empty"),
        ("oldest pending", duration(status.oldest_pending_age_s)),
        ("updates", f"{status.updates_rows:,} rows, version {status.updates_version}"),
        ("last drain", drained or "none yet"),
        *((printable(one.account), _account(one, status.at)) for one in status.accounts),
        *(("greeks", one.greeks) for one in status.each_login if one.greeks),
    ]


def _lines_used(status: Status) -> str:
    """Return the lines in use, and why there are fewer than active legs that are held."""
    if status.lines_in_use is None:
        return "–"
    without = status.legs_without_line
    return f"{status.lines_text} in use" + (f"; {printable(without)}" if without else "")


def _programs(status: Status) -> str:
    """Return when the sensors last ticked."""
    programs = status.programs
    late = f" {LATE}" if programs.late or programs.ended else ""
    if programs.ticked_at is None:
        return f"none {LATE}" if late else "none runs"
    return f"last sensor tick {age(programs.ticked_at, status.at)} ago{late}"


def _account(summary: AccountSummary, at: datetime) -> str:
    """Return an account's net liquidation and daily P&L, each with its age."""
    figures = (
        ("net liquidation", summary.net_liquidation, summary.values_received_at),
        ("daily P&L", summary.daily_pnl, summary.pnl_received_at),
    )
    unit = f" {printable(summary.currency)}" if summary.currency else ""
    return ", ".join(
        f"{label} {number(amount)}{'' if amount is None else f'{unit} ({age(received, at)} ago)'}"
        for label, amount, received in figures
    )


def _gateway(login: LoginStatus, status: Status) -> str:
    mode = f", {status.trading_mode}" if status.trading_mode else ""
    if login.session_state is None:
        return f"{login.gateway_id}: nobody has connected yet{mode}"
    if paused(login):
        return f"{login.gateway_id}: {printable(login.session_detail or '')}"
    state = f"{login.session_state} for {age(login.session_since, status.at)}"
    owner = f" ({login.session_owner}{mode})" if login.session_owner else ""
    lines = ""
    if login is not status and login.lines_in_use is not None:
        lines = f", {login.lines_text} lines"
    detail = f" – {printable(login.session_detail)}" if login.session_detail else ""
    return f"{login.gateway_id}: {state}{owner}{lines}{detail}"


# Labels with their values.
Lines = Sequence[tuple[str, str]]

LABEL = 12
SHOWN = {"current", "programs", "lines", "queue", "updates"}

LEAST_CHANGES = 2


def board(
    overview: Figures | None,
    changes: Sequence[DayChange],
    notes: Lines,
    addresses: Lines,
    console: Console,
) -> RenderableType:
    """Return the whole screen; `exposure` has all strategies, and more of each.

    Args:
        overview: The last read of the tables; None before the first one.
        notes: Messages above the status, such as errors.
    """
    width = console.width
    head: list[RenderableType] = [_shown_lines(notes)] if notes else []
    foot = [_shown_lines(addresses), Text("Ctrl-C ends it.", style="dim")]
    if overview is None:
        return Group(*head, *foot)
    status, book = overview.status, overview.book
    accounts = {printable(one.account) for one in status.accounts}
    lines = figures_of(overview)
    gateways, most = [line for line in lines if line[0] == "gateway"], console.height // 4
    others = [line for line in lines if line[0] in SHOWN | accounts]
    # The end of a detail says what to do: it is shown whole, unless there are many gateways.
    head.append(_shown_lines(gateways[:most], width if status.logins else None))
    head += [*_more(len(gateways) - most), _shown_lines(others, width)]
    room = console.height - len(console.render_lines(Group(*head, *foot))) - 1
    if book.strategies or book.rest:
        ends = [*book.rest, *book.totals, *book.in_base]
        # The worst first: what is cut hurts least.
        worst = sorted(book.strategies, key=lambda strategy: strategy.daily_pnl or 0.0)
        worst = worst[: max(room - len(ends) - LEAST_CHANGES - 2, 1)]
        table = sums_table("strategy", [*worst, *ends])
        more = _more(len(book.strategies) - len(worst))
        head += [*fitted_table(*table, width, totals=len(ends)), *more]
        room -= 1 + len(worst) + len(ends) + len(more)
    return Group(*head, *(_change(one, width) for one in changes[: max(room, 0)]), *foot)


def _more(count: int) -> list[Text]:
    return [Text(f"… and {count} more")] if count > 0 else []


def current_text(overview: Figures) -> str:
    """Return as text how many legs have a current value now."""
    status, text = overview.status, f"{overview.current} of {overview.held} legs"
    blind = [login.gateway_id for login in status.logins if login.session_state != "LIVE"]
    if blind:
        return f"{text}; not connected: {', '.join(blind)}"
    if status.blind_since is not None:
        return f"0 of {overview.held} legs: the gateway is not connected"
    oldest = overview.oldest_age_s
    return text if oldest is None else f"{text}, oldest {duration(oldest)}"


def figures_of(overview: Figures) -> list[tuple[str, str]]:
    """Return the figures of a read as lines, for a log."""
    return [("current", current_text(overview)), *describe(overview.status)]


def _shown_lines(lines: Lines, width: int | None = None) -> RenderableType:
    """Return labels with their values; with a width, each on one line."""
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(style="bold cyan", no_wrap=True, min_width=LABEL)
    table.add_column(
        no_wrap=width is not None,
        overflow="ellipsis" if width else "fold",
        max_width=max(width - LABEL - 1, 1) if width else None,
    )
    for label, value in lines:
        style = "cyan" if "://" in value else "bold red" if LATE in value else ""
        table.add_row(label, Text(printable(value), style=style))
    return table


def _change(change: DayChange, width: int) -> RenderableType:
    text = f"{change.at.astimezone():%H:%M:%S}"
    line = Text(f"{text:<{LABEL}} ", style="dim").append(printable(change.text), style="not dim")
    line.truncate(width, overflow="ellipsis")
    return line
