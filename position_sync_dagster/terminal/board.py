"""The live status on a terminal: the board, its lines and the last changes."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from operator import attrgetter
from textwrap import wrap

from rich.console import Console, Group, RenderableType
from rich.text import Text

from position_sync_dagster.domain.account_values import AccountSummary
from position_sync_dagster.money.reports.book import Book
from position_sync_dagster.money.reports.changes import DayChange
from position_sync_dagster.money.reports.columns import age, duration, number, printable
from position_sync_dagster.money.reports.figures import Figures
from position_sync_dagster.money.reports.money_tables import base_line, sums_table
from position_sync_dagster.money.reports.status import Status
from position_sync_dagster.terminal.output import fitted_table

# The mark of a program that should work and does not.
LATE_MARK = "(late)"


def describe(status: Status) -> Iterator[tuple[str, str]]:
    """Yield the label and the value of each figure."""
    logins = sorted(status.each_login, key=attrgetter("is_live"))
    for login in logins:
        yield "gateway", status.gateway_line(login)
    for login in logins:
        if login.login and not login.login_asks:
            yield "login", login.login
    yield "programs", _programs(status)
    for text in status.attention:
        yield "attention", printable(text)

    yield "lines", _lines_used(status)
    yield "legs", _legs(status)
    for text in status.unresolved_legs:
        yield "without contract", printable(text)

    requests = [f"{count:,} {state.lower()}" for state, count in status.queue.items()]
    yield "queue", ", ".join(requests) or "empty"
    yield "oldest pending", duration(status.oldest_pending_age_s)
    yield "updates", f"{status.updates_rows:,} rows, version {status.updates_version}"
    drained = "none yet"
    if status.last_drained_at is not None:
        drained = f"{age(status.last_drained_at, status.at)} ago"
    yield "last drain", drained

    for summary in status.accounts:
        yield printable(summary.account), _account(summary, status.at)
    for login in status.each_login:
        if login.greeks:
            yield "greeks", login.greeks


def _legs(status: Status) -> str:
    """Return how many legs are streamed and monitored, held and closed."""
    held = f"{status.legs_held} of {status.active_legs} active legs held"
    if status.legs_closed:
        held += f", {status.legs_closed}"
    valued = f"{status.legs_streamed} streamed, {status.legs_queued} monitored"
    return f"{valued} ({held}, {status.positions} positions)"


def _lines_used(status: Status) -> str:
    """Return the lines in use, and why there are fewer than active legs that are held."""
    if status.lines_in_use is None:
        return "–"

    in_use = f"{status.lines_text} in use"
    legs_without = status.legs_without_line
    if legs_without is None or legs_without in (status.session_detail or ""):
        return in_use  # the gateway's line says why
    return f"{in_use}; {printable(legs_without)}"


def _programs(status: Status) -> str:
    """Return when the sensors last ticked."""
    programs = status.programs
    text = "none runs"
    if programs.ticked_at is not None:
        text = f"last sensor tick {age(programs.ticked_at, status.at)} ago"
    if programs.late or programs.ended:
        text += f" {LATE_MARK}"
    return text


def _account(summary: AccountSummary, at: datetime) -> str:
    """Return an account's net liquidation and daily P&L, each with its age."""
    unit = ""
    if summary.currency:
        unit = f" {printable(summary.currency)}"

    def figure(amount: float | None, received_at: datetime | None) -> str:
        if amount is None:
            return number(None)
        return f"{number(amount)}{unit} ({age(received_at, at)} ago)"

    net_liquidation = figure(summary.net_liquidation, summary.values_received_at)
    daily_pnl = figure(summary.daily_pnl, summary.pnl_received_at)
    return f"net liquidation {net_liquidation}, daily P&L {daily_pnl}"


# Labels with their values.
Lines = Iterable[tuple[str, str]]


def labelled(lines: Lines) -> Iterator[str]:
    """Yield each label with its value, as a line."""
    for label, value in lines:
        yield f"{label:<18} {value}"


LABEL = 12
SHOWN_PARTS = {"current", "gateway", "programs", "lines", "queue", "updates", "total"}

SHOWN_CHANGES = 3


def board(
    overview: Figures | None,
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
    lines = _shown_lines(notes, width)
    if overview is not None:
        lines += _shown_lines(_head(overview), width)
    lines += _shown_lines(addresses, width)
    lines.append(Text("Ctrl-C ends it.", style="dim"))
    if overview is not None:
        lines += [_change(change, width) for change in overview.changes[:SHOWN_CHANGES]]
        lines += _strategies(overview.book, width)

    room = console.height - 1
    if len(lines) > room:
        hidden = len(lines) - room + 1
        del lines[room - 1 :]
        lines.append(Text(f"… and {hidden} more"))
    return Group(*lines)


def _head(overview: Figures) -> Lines:
    """Yield the state of the gateways, then that of the programs, lines, queue and accounts."""
    shown_labels = SHOWN_PARTS | {
        printable(account.account) for account in overview.status.accounts
    }
    for label, value in figures_of(overview):
        if label in shown_labels:
            yield label, value


def _strategies(book: Book, width: int) -> list[Text]:
    """Return the table of strategies: the totals, then the worst first: what is cut hurts least."""
    by_profit = sorted(book.strategies, key=lambda strategy: strategy.daily_pnl or 0.0)
    rows = [*book.totals, *book.rest, *by_profit]
    if not rows:
        return []
    return fitted_table(*sums_table("strategy", rows), width)


def figures_of(overview: Figures) -> Iterator[tuple[str, str]]:
    """Yield the figures of a read as lines, for a log."""
    yield "current", overview.current_text
    yield from describe(overview.status)
    for total in overview.book.in_base:
        yield "total", base_line(total)


def _shown_lines(lines: Lines, width: int) -> list[Text]:
    """Return labels with their values, in as many lines as these take."""
    room = max(width - LABEL - 1, LABEL)
    texts = []
    for label, value in lines:
        style = ""
        if "://" in value:
            style = "cyan"
        elif LATE_MARK in value:
            style = "bold red"
        for part in wrap(printable(value), room):
            texts.append(Text.assemble((f"{label:<{LABEL}} ", "bold cyan"), (part, style)))
            label = ""
    return texts


def _change(change: DayChange, width: int) -> Text:
    at = f"{change.at.astimezone():%H:%M:%S}"
    line = Text(f"{at:<{LABEL}} {printable(change.text)}")
    line.truncate(width, overflow="ellipsis")
    return line
