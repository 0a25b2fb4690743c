"""The live status of a running program: one screen, in the width and height that there is."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from position_sync_dagster.terminal.changes import Change
from position_sync_dagster.terminal.money_tables import strategy_table
from position_sync_dagster.terminal.status_lines import LATE, describe
from position_sync_dagster.terminal.text import printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from position_sync_dagster.sync.reports.overview import Overview
    from position_sync_dagster.sync.reports.status import Status

Lines = Sequence[tuple[str, str]]
"""Labels with their values."""

LABEL = 12
SHOWN = {"programs", "queue", "updates"}
ROOMY = 30
"""From so many rows on, the parts stand apart."""

LEAST_CHANGES = 2
MOST_BAR = 40


def board(
    overview: "Overview | None",
    changes: Sequence[Change],
    notes: Lines,
    addresses: Lines,
    console: "Console",
) -> "RenderableType":
    """Return the whole screen.

    Args:
        overview: What the last look at the tables found; None before the first one.
        notes: What a person must know first, such as trouble.
    """
    from rich.console import Group
    from rich.text import Text

    width, height = console.width, console.height
    gap: list[RenderableType] = [Text("")] if height >= ROOMY else []
    head: list[RenderableType] = [_lines(notes)] if notes else []
    foot = [*gap, _lines(addresses), Text("Ctrl-C ends it.", style="dim")]
    room = height - len(notes) - len(gap) - len(addresses) - 1
    if overview is None:
        return Group(*head, *foot)
    status = describe(overview.status)
    gateways = [(name, text) for name, text in status if name == "gateway"]
    figures = [(name, text) for name, text in status if name in SHOWN]
    if len(gateways) > max(room // 4, 1):
        gateways = _worst(overview.status, gateways, max(room // 4, 1))
    head += [_lines(gateways, width), _gauges(overview, width), _lines(figures, width)]
    room -= 2 + len(gateways) + len(figures)
    if overview.strategies:
        room -= len(gap) + 1 + len(overview.totals)
        kept = min(len(changes), LEAST_CHANGES) + len(gap)
        shown = overview.strategies
        if len(shown) > room - kept:
            shown = shown[: max(room - kept - 1, 1)]
        head += [*gap, strategy_table(shown, overview.totals, width)]
        room -= len(shown)
        if len(shown) < len(overview.strategies):
            head.append(Text(f"… and {len(overview.strategies) - len(shown)} more"))
            room -= 1
    listed = [_change(change, width) for change in changes[: max(room - len(gap), 0)]]
    return Group(*head, *(gap if listed else []), *listed, *foot)


def _worst(status: "Status", lines: Lines, room: int) -> list[tuple[str, str]]:
    """Return the lines of gateways that there is room for, those that need a look first."""
    logins = zip(status.each_login, lines, strict=True)
    ordered = [
        line for _login, line in sorted(logins, key=lambda one: one[0].session_state == "LIVE")
    ]
    rest = len(ordered) - room
    return [*ordered[:room], ("", f"… and {rest} more")] if rest > 0 else ordered


def current_text(overview: "Overview") -> str:
    """Return how many legs have a current value at this moment."""
    status, text = overview.status, f"{overview.current} of {overview.held} legs"
    blind = [login.gateway_id for login in status.logins if login.session_state != "LIVE"]
    if blind:
        return f"{text}; not connected: {', '.join(blind)}"
    if status.blind_since is not None:
        return f"0 of {overview.held} legs: the gateway is not connected"
    return text


def figures_of(overview: "Overview") -> list[tuple[str, str]]:
    """Return the figures of a look as lines, for a log."""
    return [("current", current_text(overview)), *describe(overview.status)]


def _lines(lines: Lines, width: int | None = None) -> "RenderableType":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(style="bold cyan", no_wrap=True, min_width=LABEL)
    table.add_column(no_wrap=width is not None, overflow="ellipsis" if width else "fold")
    for label, value in lines:
        style = "cyan" if "://" in value else "bold red" if LATE in value else ""
        table.add_row(label, Text(printable(value), style=style))
    return table


def _gauges(overview: "Overview", width: int) -> "RenderableType":
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    status = overview.status
    bar = max(min(width - LABEL - 48, MOST_BAR), 10)
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(style="bold cyan", no_wrap=True, min_width=LABEL)
    table.add_column(width=bar)
    table.add_column(no_wrap=True, overflow="ellipsis")
    whole = overview.held > 0 and overview.current == overview.held
    table.add_row(
        "current",
        ProgressBar(
            total=max(overview.held, 1),
            completed=overview.current,
            width=bar,
            complete_style="yellow",
            finished_style="green",
        ),
        Text(current_text(overview), style="green" if whole else "yellow"),
    )
    used, limit = status.lines_in_use, status.line_limit
    near = used is not None and limit is not None and used >= 0.9 * limit
    table.add_row(
        "lines",
        ProgressBar(
            total=max(limit or 1, 1),
            completed=used or 0,
            width=bar,
            complete_style="red" if near else "cyan",
            finished_style="red",
        ),
        Text("–" if used is None else f"{used} of {limit} in use"),
    )
    return table


def _change(change: Change, width: int) -> "RenderableType":
    from rich.text import Text

    text = f"{change.at.astimezone():%H:%M:%S}"
    line = Text(f"{text:<{LABEL}} ", style="dim").append(printable(change.text), style="not dim")
    line.truncate(width, overflow="ellipsis")
    return line
