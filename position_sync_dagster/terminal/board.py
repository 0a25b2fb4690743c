"""The live status on a terminal: the board, its lines and the last changes."""

from collections.abc import Sequence
from datetime import datetime

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from position_sync_dagster.domain.broker_position import AccountSummary
from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.sync.reports.changes import DayChange
from position_sync_dagster.sync.reports.figures import Figures
from position_sync_dagster.sync.reports.status import LoginStatus, Status
from position_sync_dagster.sync.supervision import PAUSED
from position_sync_dagster.terminal import money_tables
from position_sync_dagster.terminal.text import age, duration, number, printable


def paused(login: LoginStatus) -> bool:
    """Return whether a person terminated the stream: nothing is wrong with the gateway."""
    return login.session_state == SessionState.ENDED and (login.session_detail or "").startswith(
        PAUSED
    )


# The mark of a program that should work and does not.
LATE = "(late)"


def describe(status: Status) -> list[tuple[str, str]]:
    """Return the label and the value of each figure."""
    queue = status.queue
    return [
        *(("gateway", _gateway(login, status)) for login in status.each_login),
        *(("login", one.login) for one in status.each_login if one.login and not one.login_asks),
        ("programs", _programs(status)),
        *(("attention", printable(text)) for text in status.attention),
        (
            "lines",
            "–" if status.lines_in_use is None else _lines_used(status),
        ),
        (
            "legs",
            f"{status.legs_streamed} streamed, {status.legs_queued} monitored "
            f"({status.legs_held} of {status.active_legs} active legs held, "
            f"{f'{status.legs_closed}, ' if status.legs_closed else ''}"
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
        *_accounts(status),
        *(("greeks", one.greeks) for one in status.each_login if one.greeks),
    ]


def _lines_used(status: Status) -> str:
    """Return the lines in use, and why there are fewer than active legs that are held."""
    used = f"{status.lines_text} in use"
    of_legs = (status.lines_in_use or 0) - (status.underlying_lines or 0)
    without = status.legs_held - of_legs
    if without <= 0 or status.session_state != SessionState.LIVE:
        return used
    reason = status.session_detail or "none is free, or it is being requested"
    return f"{used}; {without} active held {_legs(without)} without one: {printable(reason)}"


def _legs(count: int) -> str:
    return "leg" if count == 1 else "legs"


def _programs(status: Status) -> str:
    """Return when the sensors last ticked."""
    programs = status.programs
    late = f" {LATE}" if programs.late or programs.ended else ""
    if programs.ticked_at is None:
        return f"none {LATE}" if late else "none runs"
    return f"last sensor tick {age(programs.ticked_at, status.at)} ago{late}"


def _accounts(status: Status) -> list[tuple[str, str]]:
    return [(printable(one.account), _account(one, status.at)) for one in status.accounts]


def _account(summary: AccountSummary, at: datetime) -> str:
    """Return an account's net liquidation and daily P&L, each with its age."""
    figures = (
        ("net liquidation", summary.net_liquidation, summary.values_received_at),
        ("daily P&L", summary.daily_pnl, summary.pnl_received_at),
    )
    currency = f" {printable(summary.currency)}" if summary.currency else ""
    known = ", ".join(
        f"{label} –"
        if amount is None
        else f"{label} {number(amount)}{currency} ({age(received, at)} ago)"
        for label, amount, received in figures
    )
    others = {unit: rate for unit, rate in summary.rates.items() if unit != summary.currency}
    rates = "".join(
        f", 1 {printable(unit)} = {rate:.6g}{currency}" for unit, rate in others.items()
    )
    return known + (f"{rates} ({age(summary.rates_received_at, at)} ago)" if rates else "")


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
SHOWN = {"programs", "queue", "updates"}
# In a terminal of this many rows or more, empty lines separate the parts.
ROOMY = 30

LEAST_CHANGES = 2
LEAST_STRATEGIES = 3
MOST_NOTES = 3
MOST_BAR = 40


def board(
    overview: Figures | None,
    changes: Sequence[DayChange],
    notes: Lines,
    addresses: Lines,
    console: Console,
) -> RenderableType:
    """Return the whole screen.

    Args:
        overview: The last read of the tables; None before the first one.
        notes: Messages above the status, such as errors.
    """
    width, height = console.width, console.height
    gap: list[RenderableType] = [Text("")] if height >= ROOMY else []
    head: list[RenderableType] = [_shown_lines(notes)] if notes else []
    foot = [*gap, _shown_lines(addresses), Text("Ctrl-C ends it.", style="dim")]
    room = height - len(notes) - len(gap) - len(addresses) - 1
    if overview is None:
        return Group(*head, *foot)
    status = describe(overview.status)
    gateways = [(name, text) for name, text in status if name == "gateway"]
    figures = [(name, text) for name, text in status if name in SHOWN]
    if len(gateways) > max(room // 4, 1):
        gateways = _worst(overview.status, gateways, max(room // 4, 1))
    # The end of a detail says what to do: it is shown whole, unless there are many gateways.
    whole = len(gateways) == 1
    head += [
        _shown_lines(gateways, None if whole else width),
        _gauges(overview, width),
        _shown_lines(figures, width),
    ]
    folded = sum(len(text) // max(width - LABEL - 1, 1) for _name, text in gateways) if whole else 0
    room -= 2 + len(gateways) + folded + len(figures)
    accounts = _accounts(overview.status)
    if accounts and len(accounts) <= max(room // 6, 1):
        head.append(_shown_lines(accounts, width))
        room -= len(accounts)
    money = overview.book.money()
    if money.strategies or money.rest:
        ends = [*money.rest, *money.totals, *money.in_base]
        texts = money_tables.money_notes(money, width)[:MOST_NOTES]
        room -= len(gap) + 1 + len(ends)
        kept = min(len(changes), LEAST_CHANGES) + len(gap)
        under = len(money.underlyings) + 1 + len(gap)
        # The worst first: what is cut hurts least. Underlyings come before the notes.
        shown = sorted(money.strategies, key=lambda one: one.daily_pnl or 0.0)
        has_underlyings = under <= room - kept - min(len(shown), LEAST_STRATEGIES)
        room -= under if has_underlyings else 0
        if len(shown) > room - kept:
            shown = shown[: max(room - kept - 1, 1)]
        head += [*gap, money_tables.strategy_table(shown, ends, width)]
        room -= len(shown)
        if len(shown) < len(money.strategies):
            head.append(Text(f"… and {len(money.strategies) - len(shown)} more"))
            room -= 1
        texts = texts[: max(room - kept, 0)]
        head += texts
        room -= len(texts)
        if has_underlyings:
            head += [*gap, money_tables.underlying_table(money.underlyings, width)]
    listed = [_change(change, width) for change in changes[: max(room - len(gap), 0)]]
    return Group(*head, *(gap if listed else []), *listed, *foot)


def _worst(status: Status, lines: Lines, room: int) -> list[tuple[str, str]]:
    """Return as many lines of gateways as fit, first those that are not LIVE."""
    logins = zip(status.each_login, lines, strict=True)
    ordered = [
        line for _login, line in sorted(logins, key=lambda one: one[0].session_state == "LIVE")
    ]
    rest = len(ordered) - room
    return [*ordered[:room], ("", f"… and {rest} more")] if rest > 0 else ordered


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
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(style="bold cyan", no_wrap=True, min_width=LABEL)
    labels = max((len(label) for label, _value in lines), default=0)
    table.add_column(
        no_wrap=width is not None,
        overflow="ellipsis" if width else "fold",
        max_width=None if width is None else max(width - max(labels, LABEL) - 1, 1),
    )
    for label, value in lines:
        style = "cyan" if "://" in value else "bold red" if LATE in value else ""
        table.add_row(label, Text(printable(value), style=style))
    return table


def _gauges(overview: Figures, width: int) -> RenderableType:
    status = overview.status
    bar = max(min(width - LABEL - 48, MOST_BAR), 10)
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(style="bold cyan", no_wrap=True, min_width=LABEL)
    table.add_column(width=bar)
    table.add_column(no_wrap=True, overflow="ellipsis")
    whole = overview.held > 0 and overview.current == overview.held
    used, limit = status.lines_in_use, status.line_limit
    of_legs = None if used is None else used - (status.underlying_lines or 0)
    near = of_legs is not None and limit is not None and of_legs >= 0.9 * limit

    current = Text(current_text(overview), style="green" if whole else "yellow")
    lines = Text("–" if used is None else _lines_used(status))
    for label, done, of, part, full, text in (
        ("current", overview.current, overview.held, "yellow", "green", current),
        ("lines", used or 0, limit or 1, "red" if near else "cyan", "red", lines),
    ):
        progress = ProgressBar(
            total=max(of, 1), completed=done, width=bar, complete_style=part, finished_style=full
        )
        table.add_row(label, progress, text)
    return table


def _change(change: DayChange, width: int) -> RenderableType:
    text = f"{change.at.astimezone():%H:%M:%S}"
    line = Text(f"{text:<{LABEL}} ", style="dim").append(printable(change.text), style="not dim")
    line.truncate(width, overflow="ellipsis")
    return line
