"""The profit and loss of each strategy over the last hours, from the ledger, and its diagram.

matplotlib is imported only when a diagram is drawn.
"""

import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl

from position_sync_dagster.domain.broker_position import Key
from position_sync_dagster.domain.leg import ActiveContract
from position_sync_dagster.errors import MissingExtraError
from position_sync_dagster.lake.updates.position_updates import SyncUpdates
from position_sync_dagster.sync.reports.exposure import add, claims_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


SPAN = timedelta(hours=12)
"""The time span of the diagram: a trading day with the hours around it."""

POINTS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfitLine:
    """The daily profit and loss of a strategy in one currency; None where it is not known."""

    strategy_id: str
    currency: str
    points: tuple[tuple[datetime, float | None], ...]


def profit_lines(
    updates: SyncUpdates, legs: Iterable[ActiveContract], now: datetime
) -> list[ProfitLine]:
    """Read the daily profit and loss of the strategies over the last SPAN; blocks.

    The present legs count for the whole span: a leg that became active at noon is in the points of
    the morning as well.
    """
    legs = [leg for leg in legs if leg.removed_at is None]
    rows = updates.sampled({leg.conid for leg in legs}, now - SPAN, now, POINTS)
    return lines_of(rows, legs)


def lines_of(rows: pl.DataFrame, legs: list[ActiveContract]) -> list[ProfitLine]:
    """Sum the newest rows at each point, with the shares of strategies as in `claims_of`."""
    found: dict[tuple[str, str], list[tuple[datetime, float | None]]] = defaultdict(list)
    newest: dict[Key, dict[str, Any]] = {}
    for part in rows.partition_by("slot", maintain_order=True):
        slot: datetime = part.item(0, "slot")
        newest |= {(row["account"], row["conid"]): row for row in part.iter_rows(named=True)}
        held = {key: row["position"] for key, row in newest.items()}
        sums: dict[tuple[str, str], list[float | None]] = defaultdict(list)
        for n, holding, share in claims_of(legs, held):
            row = newest[holding]
            profit = None if row["daily_pnl"] is None else row["daily_pnl"] * share
            sums[legs[n].strategy_id, row["currency"]].append(profit)
        for key, values in sums.items():
            found[key].append((slot, add(values)))
    return [
        ProfitLine(strategy_id=strategy, currency=currency, points=tuple(points))
        for (strategy, currency), points in sorted(found.items())
    ]


MOST_BYTES = 40_000
"""Maximum size of the stored picture; Dagster keeps it in an event."""

SIZE_INCHES = (8.4, 5.0)
DOTS_PER_INCH = 80
COLOURS = 64
"""Number of colours in the file: with so few, it has a third of the size."""

MOST_LINES = 10
TOTAL = "total"
MOST_BARS = 40


def draw_day(
    lines: Sequence[ProfitLine],
    ages: Sequence[tuple[str, float | None]],
    now: datetime,
) -> bytes | None:
    """Draw the two diagrams as a PNG; None if it would be larger than MOST_BYTES.

    Args:
        lines: The profit and loss of each strategy. Only the MOST_LINES with the largest amounts
            are drawn.
        ages: The name of each leg with the age of its price in seconds; None if unknown. The
            MOST_BARS oldest are drawn.

    Raises:
        MissingExtraError: The extra `pictures` is not installed.
    """
    try:
        from matplotlib.figure import Figure
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("matplotlib", "pictures") from error

    figure = Figure(figsize=SIZE_INCHES, dpi=DOTS_PER_INCH)
    above, below = figure.subplots(2, 1)
    figure.subplots_adjust(left=0.08, right=0.8, top=0.94, bottom=0.24, hspace=0.45)
    _draw_profits(above, lines, now)
    _draw_ages(below, ages)
    drawn, output = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png")
    with Image.open(drawn) as image:
        image.convert("RGB").quantize(COLOURS).save(output, format="PNG", optimize=True)
    picture = output.getvalue()
    return picture if len(picture) <= MOST_BYTES else None


def _draw_profits(axes: "Axes", lines: Sequence[ProfitLine], now: datetime) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num

    known = [line for line in lines if any(value is not None for _, value in line.points)]
    known.sort(key=_reach, reverse=True)
    totals = [total for total in totals_of(known) if len(known) > 1]
    for line in [*known[:MOST_LINES], *totals]:
        is_total = line.strategy_id == TOTAL
        axes.plot(
            date2num([at for at, _ in line.points]),  # type: ignore[no-untyped-call]
            [float("nan") if value is None else value for _, value in line.points],
            label=f"{line.strategy_id} {line.currency}",
            linewidth=2.0 if is_total else 1.2,
            color="black" if is_total else None,
            marker="." if len(line.points) < 3 else "",
        )
    left_out = len(known) - MOST_LINES
    rest = f"; {left_out} smaller ones left out" if left_out > 0 else ""
    axes.set_title(f"Daily P&L by strategy, {now:%Y-%m-%d %H:%M} UTC{rest}", fontsize=9)
    axes.axhline(0, color="grey", linewidth=0.6)
    axes.tick_params(labelsize=7)
    if known:
        locator = AutoDateLocator()  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    else:
        axes.set_xticks([])
        axes.text(0.5, 0.5, "no daily P&L is known", ha="center", transform=axes.transAxes)


def totals_of(lines: Sequence[ProfitLine]) -> list[ProfitLine]:
    """Return the sum of the lines of each currency; a point without a known value is unknown."""
    sums: dict[str, dict[datetime, list[float | None]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        for at, value in line.points:
            sums[line.currency][at].append(value)
    return [
        ProfitLine(
            strategy_id=TOTAL,
            currency=currency,
            points=tuple((at, add(values)) for at, values in sorted(found.items())),
        )
        for currency, found in sorted(sums.items())
    ]


def _reach(line: ProfitLine) -> float:
    return max(abs(value) for _, value in line.points if value is not None)


def _draw_ages(axes: "Axes", ages: Sequence[tuple[str, float | None]]) -> None:
    known = [(name, age) for name, age in ages if age is not None]
    known.sort(key=lambda one: one[1], reverse=True)
    known = known[:MOST_BARS]
    positions = range(len(known))
    axes.bar(positions, [age for _, age in known], color="tab:blue", width=0.7)
    axes.set_xticks(positions, [name for name, _ in known], rotation=90, fontsize=6)
    axes.tick_params(axis="y", labelsize=7)
    unknown = sum(age is None for _, age in ages)
    more = f"; {unknown} unknown" if unknown else ""
    axes.set_title(f"Age of the price of each leg, seconds{more}", fontsize=9)
    axes.set_ylim(bottom=0)
