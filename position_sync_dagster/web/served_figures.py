"""The figures as the money page gets them: those of the API, and the parts of holdings as rows."""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Lock
from typing import Any

import polars as pl

from position_sync_dagster.domain.clock import NEVER, elapsed
from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.risk.priced_legs import PricedLegs
from position_sync_dagster.risk.scenario_file import STANDARD, folder_of, read_scenarios
from position_sync_dagster.risk.scenarios import Breakdown, profits
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.reports.book import Book, read_curves
from position_sync_dagster.sync.reports.exposure import lacks
from position_sync_dagster.sync.reports.figures import Figures, read_figures
from position_sync_dagster.sync.reports.risk import price_legs, read_risk
from position_sync_dagster.sync.reports.status import plain
from position_sync_dagster.sync.reports.todays_profit import TodaysProfit, explain_today
from position_sync_dagster.sync.reports.what_if import Changes, WhatIf, what_if_of
from position_sync_dagster.terminal.money_tables import not_in_sums
from position_sync_dagster.terminal.text import foreign
from position_sync_dagster.web.expiry_answers import ExpiryQuery, expiry_of

# How often the curves of the day are read again, which read half a day of the ledger, and scenarios
# are computed.
SLOW_EVERY = timedelta(minutes=1)

# How often curves are read while they have no line yet.
BEGINNING = timedelta(seconds=5)

FRESH = timedelta(seconds=0.9)

# How long the legs of a book, priced once, serve what is asked of risk.
RISK_FRESH = timedelta(seconds=5)

MOST_CHANGES = 200

# How many scenarios have room beside a strategy, and the largest move of the usual ones.
MOST_SCENARIOS, MOST_SHOWN_PERCENT = 6, 10

NO_SCENARIOS: dict[str, Any] = {"at": None, "names": [], "rows": [], "expiry": None}

Row = list[Any]

OF_LEG = ("name", "strike", "average_cost", "bid", "ask", "moneyness", "extrinsic", "days")
OF_PART = (
    "account", "conid", "symbol", "right", "expiry", "currency", "sec_type", "market_price",
    "market_value", "notional", "unrealized_pnl", "daily_pnl", "delta", "gamma_1pct", "theta",
    "vega", "dollar_delta", "implied_vol", "underlying_price", "run_id",
)  # fmt: skip
# The sums of parts that get a star where they leave out a part.
STARRED = (
    "market_value", "notional", "unrealized_pnl", "daily_pnl", "delta", "gamma_1pct", "theta",
    "vega", "dollar_delta",
)  # fmt: skip
# The columns of a part of a holding: times in milliseconds, null for what is unknown.
COLUMNS = (
    "key", "strategy", "quantity", "source", "current", "unvalued", "greekless", "lacks",
    "priced_at", "greeks_at", "written_at", *OF_LEG, *OF_PART,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ExplainedFigures:
    """Figures, and why the profit of the day in them is what it is: of one moment."""

    figures: Figures
    rows: list[TodaysProfit]


class PageFigures:
    """Reads the figures repeatedly, and each time only the new data."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lake = Lake.of(settings)
        self._lock = Lock()
        self._last: Figures | None = None
        self._risk_lock = Lock()
        self._risk: tuple[Book, PricedLegs] | None = None
        self._explaining = Lock()
        self._explained: ExplainedFigures | None = None
        self._curves: list[dict[str, Any]] = []
        self._curves_at = self._scenarios_at = NEVER
        self._thread = ThreadPoolExecutor(1, "scenarios")
        self._computing: Future[dict[str, Any]] | None = None
        self._scenarios: dict[str, Any] = NO_SCENARIOS

    def read(self, now: datetime) -> tuple[dict[str, Row], dict[str, Any]]:
        """Return the parts of the holdings by their key, and all other figures; blocks.

        Raises:
            LakeError: A table cannot be used.
        """
        figures = self.figures(now)
        every = SLOW_EVERY if any(len(c["points"]) > 1 for c in self._curves) else BEGINNING
        if elapsed(self._curves_at, now) >= every:
            self._curves, self._curves_at = read_curves(self._lake, figures.book), now
        more = {"curves": plain(self._curves), "scenarios": self._computed(now)}
        return parts_of(figures), shown(figures) | more

    def _computed(self, now: datetime) -> dict[str, Any]:
        """Return the newest scenarios; they are computed beside the reads."""
        if self._computing is not None and self._computing.done():
            self._scenarios, self._computing = self._computing.result(), None
        if self._computing is None and elapsed(self._scenarios_at, now) >= SLOW_EVERY:
            self._computing = self._thread.submit(scenarios_of, self._settings, now)
            self._scenarios_at = now
        return self._scenarios

    def figures(self, now: datetime) -> Figures:
        """Return figures that are at most FRESH old, so that all requests share a read; blocks.

        Raises:
            LakeError: A table cannot be used.
        """
        with self._lock:
            if self._last is None or not timedelta() <= now - self._last.at < FRESH:
                self._last = None
                self._last = read_figures(self._lake, self._settings, now)
            return self._last

    def risk(self, now: datetime) -> tuple[Book, PricedLegs]:
        """Return a book at most RISK_FRESH old with its legs, priced once for all requests; blocks.

        Raises:
            LakeError: A table cannot be used.
            ScenariosFileError: The file of scenarios has a mistake.
        """
        with self._risk_lock:
            if self._risk is None or not timedelta() <= now - self._risk[0].now < RISK_FRESH:
                own = read_scenarios(folder_of(self._settings.strategies_file))
                book = self.figures(now).book
                self._risk = (book, price_legs(self._lake, self._settings, book, own))
            return self._risk

    def compared(self, changes: Changes, now: datetime) -> WhatIf:
        """Return the book of `risk` before and after trades; blocks.

        Raises:
            LakeError: A table cannot be used.
            ProposedTradeError: A trade names nothing that can be priced.
        """
        return what_if_of(*self.risk(now), self._settings, changes)

    def explained(self, now: datetime) -> ExplainedFigures:
        """Return why today's profit is what it is, at most a minute old; blocks.

        It is computed when somebody asks, and all who ask within the minute share it.

        Raises:
            LakeError: A table cannot be used.
        """
        with self._explaining:
            newest = self._explained
            is_due = newest is None or not timedelta() <= now - newest.figures.at < SLOW_EVERY
            if newest is None or is_due:
                figures = self.figures(now)
                rows = explain_today(self._lake, self._settings, figures)
                newest = self._explained = ExplainedFigures(figures, rows)
            return newest


def scenarios_of(settings: Settings, now: datetime) -> dict[str, Any]:
    """Return what would be gained if prices moved, and what expires soon; blocks."""
    try:
        _book, own, legs = read_risk(Lake.of(settings), settings, now)
    except PositionSyncError as error:
        return NO_SCENARIOS | {"at": plain(now), "trouble": _printable(str(error))}
    points = [
        point for point in STANDARD if not point.vol and abs(point.spot) <= MOST_SHOWN_PERCENT
    ]
    points = [*points, *own.points.values()][:MOST_SCENARIOS]
    levels = (Breakdown.ACCOUNT, Breakdown.STRATEGY, Breakdown.UNDERLYING)
    rows = [{"level": level, **row} for level in levels for row in profits(legs, points, level)]
    scenarios = {
        "at": now,
        "names": [point.name for point in points],
        "rows": rows,
        "expiry": expiry_of(legs, ExpiryQuery()),
    }
    return dict(_printable(plain(scenarios)))


def shown(figures: Figures) -> dict[str, Any]:
    """Return what the page shows besides the parts: the JSON of the API without its positions."""
    status = figures.status
    found = figures.to_dict(positions=False) | {
        "columns": COLUMNS,
        "mode": plain(status.trading_mode),
        "lines": status.lines_text,
        "without_line": status.legs_without_line,
        "oldest_age_s": figures.oldest_age_s,
        "missing": not_in_sums(figures.book),
    }
    found["changes"] = found["changes"][:MOST_CHANGES]
    return dict(_printable(found))


def parts_of(figures: Figures) -> dict[str, Row]:
    """Return each part of a holding by its key, in the order of COLUMNS."""
    key = ("account", "conid")
    of = ("strategy_id", *key)
    source = pl.coalesce("price_kind", "value_source", pl.lit("NONE"))
    feed = pl.when("delayed").then(pl.lit(" delayed")).otherwise(pl.lit(""))
    of_leg = figures.positions.select(*key, *OF_LEG, "current", "confirmed_at", "greeks_at")
    times = ("confirmed_at", "greeks_at", "timestamp")
    # Which sums leave out this part.
    unknown = [pl.when(lacks(name)).then(pl.lit(name)) for name in STARRED]
    lacking = pl.concat_list(unknown).list.drop_nulls()
    rows = (
        figures.book.split.parts.select(
            *of,
            pl.format("{}|{}|{}|{}", *of, pl.int_range(pl.len()).over(of)).alias("key"),
            pl.col("strategy_id").alias("strategy"),
            (pl.col("position") * pl.col("share")).alias("quantity"),
            (source + feed).alias("source"),
            pl.col("valueless").cast(pl.Int64).alias("unvalued"),
            lacking.alias("lacks"),
            (pl.col("is_option") & pl.col("greekless")).cast(pl.Int64).alias("greekless"),
            "timestamp",
            *(name for name in OF_PART if name not in key),
        )
        .join(of_leg, on=key, how="left", maintain_order="left")
        .with_columns(pl.col(times).dt.timestamp("ms"), pl.col("expiry").dt.to_string("iso"))
        .with_columns(written_at="timestamp", priced_at="confirmed_at")
        .select(COLUMNS)
    )
    rows = rows.with_columns(pl.col(pl.Float64).fill_nan(None))
    return {row[0]: [_printable(value) for value in row] for row in rows.iter_rows()}


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return value if value.isprintable() and len(value) < 200 else foreign(value, 1000)
    if isinstance(value, dict):
        return {_printable(name): _printable(one) for name, one in value.items()}
    return [_printable(one) for one in value] if isinstance(value, list) else value
