"""The figures as the money page gets them: those of the API, and the parts of holdings as rows."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from threading import Lock
from typing import Any, Generic, TypeVar

import polars as pl
from polars import DataFrame, Int64, col, lit

from position_sync_dagster.domain.clock import A_DAY, NEVER, elapsed
from position_sync_dagster.domain.holding import KEY
from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.money.as_of import Past, require_past
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.profit.todays_profit import TodaysProfit, explain_today
from position_sync_dagster.money.reports.book import Book, curves_of_accounts
from position_sync_dagster.money.reports.changes import DayChange
from position_sync_dagster.money.reports.decisions import MOVES, decisions, legs_at_issue
from position_sync_dagster.money.reports.figures import Figures, read_figures, read_figures_at
from position_sync_dagster.money.reports.money_tables import not_in_sums
from position_sync_dagster.money.reports.status import plain
from position_sync_dagster.money.risk.deliveries import expiry_report
from position_sync_dagster.money.risk.priced_legs import EVERY_PART, Choice, PricedLegs
from position_sync_dagster.money.risk.recorded_risk import price_legs
from position_sync_dagster.money.risk.scenario_file import (
    STANDARD,
    Point,
    folder_of,
    read_scenarios,
)
from position_sync_dagster.money.risk.scenarios import Breakdown, profits
from position_sync_dagster.money.risk.what_if import Changes, WhatIf, what_if_of
from position_sync_dagster.settings import Settings

# How often the curves of the day and scenarios are computed, besides at each change; less often if
# that takes their thread over `SLOW_SHARE` of a core.
SLOW_EVERY = timedelta(minutes=1)
SLOW_SHARE = 0.05

# How often they are computed while no curve has a line yet.
BEGINNING = timedelta(seconds=5)

FRESH = timedelta(seconds=0.9)
RISK_FRESH = timedelta(seconds=5)

# How long a question may have waited for its turn: it gets what was read for others meanwhile.
MOST_WAITED = timedelta(seconds=10)

MOST_CHANGES = 200

# The most past moments that are remembered.
MOST_MOMENTS = 4

# How many scenarios have room beside a strategy, and the largest move of the usual ones.
MOST_SCENARIOS, MOST_SHOWN_PERCENT = 6, 10

# How many days ahead an expiry may need a decision.
SOON_DAYS = 7

# How many decisions are sent.
MOST_DECISIONS = 100

# A book of so many parts is computed whole at each look that somebody asks for: its profit of the
# day takes 25 ms to explain at 200 parts.
SMALL_BOOK = 1_000

NO_SCENARIOS: dict[str, Any] = {"at": None, "names": [], "rows": []}
NO_SLOW_FIGURES: dict[str, Any] = {
    "curves": {}, "margins": {}, "scenarios": NO_SCENARIOS, "decisions": None,
    "why": {"at": None, "rows": [], "totals": []},
}  # fmt: skip

# Characters that change how others are shown, and the length of a text of others.
NOT_SHOWN = r"\p{C}"
LONGEST_CELL = 200

Value = TypeVar("Value")

OF_LEG = (
    "name", "average_cost", "bid", "ask", "moneyness", "extrinsic", "days", "current", "kept",
)  # fmt: skip
OF_PART = (
    "account", "conid", "symbol", "expiry", "currency", "market_price", "market_value",
    "unrealized_pnl", "daily_pnl", "delta", "gamma_1pct", "theta", "vega", "dollar_delta",
    "implied_vol",
)  # fmt: skip
# The columns of a part of a holding: times in milliseconds, null for what is unknown.
PAGE_COLUMNS = (
    "key", "strategy", "quantity", "source", "unvalued", "greekless", "priced_at",
    *OF_LEG, *OF_PART,
)  # fmt: skip


class Shared(Generic[Value]):
    """A value that all who ask for it within some time share; whoever asks first waits for it.

    Args:
        read: Reads it, as of a moment.
        lasts: How long it is shared.
    """

    def __init__(self, read: Callable[[datetime], Value], lasts: timedelta) -> None:
        self._read = read
        self._lasts = lasts
        self._lock = Lock()
        self._newest: tuple[datetime, Value] | None = None

    def at(self, now: datetime) -> Value:
        """Return the value of a moment, or the one that is shared; blocks."""
        with self._lock:
            value = self.newest(now)
            if value is None:
                self._newest = None  # an error is not shared
                value = self._read(now)
                self._newest = (now, value)
            return value

    def newest(self, now: datetime) -> Value | None:
        """Return the value that is shared at a moment; None: none is."""
        newest = self._newest
        if newest is None or not -MOST_WAITED < now - newest[0] < self._lasts:
            return None
        return newest[1]


class PageFigures:
    """Reads the figures repeatedly, and each time only the new data.

    Args:
        lake: The tables; None: those of the settings.
        past: The only moment whose figures are read; None: that at which they are asked for.
        fresh: How old the figures of an answer may be.
        risk_fresh: How long the legs of a book, priced once, serve what is asked of risk.
    """

    def __init__(
        self,
        settings: Settings,
        lake: MoneyLake | None = None,
        past: Past | None = None,
        *,
        fresh: timedelta = FRESH,
        risk_fresh: timedelta = RISK_FRESH,
    ) -> None:
        self.settings = settings
        self.lake = lake or MoneyLake.of(settings)
        self.past = past
        self._moments: dict[datetime, PageFigures] = {}
        self._figures = Shared(self._read_figures, fresh)
        self._risk = Shared(self._price, risk_fresh)
        self._explaining = Lock()
        self._explained: Explained | None = None
        self._thread = ThreadPoolExecutor(1, "slow figures")
        self._computing: Future[dict[str, Any]] | None = None
        self._slow = NO_SLOW_FIGURES
        self._slow_since = NEVER
        self._slow_every = BEGINNING
        self._slow_least = BEGINNING
        self._slow_change: list[DayChange] = []

    def read(self, now: datetime) -> tuple[DataFrame, dict[str, Any]]:
        """Return the parts of the holdings, and all other figures; blocks.

        Raises:
            LakeError: A table cannot be used.
        """
        figures = self.figures(now)
        values = shown(figures)
        if self.past is None:
            values |= self._slow_of(figures)
            values["days"] = plain(sorted(self.lake.updates.sync.days()))
        else:
            values |= plain(self._moved(figures))
        return parts_of(figures), values

    def _slow_of(self, figures: Figures) -> dict[str, Any]:
        """Return the newest curves and scenarios; they are computed beside the reads."""
        if self._computing is not None and self._computing.done():
            computed = self._computing
            self._computing = None  # after an error they are computed anew
            self._slow = computed.result()

        # What needs a decision has the newest trade, as the rest of the page.
        waited = elapsed(self._slow_since, figures.at)
        has_changed = figures.changes[:1] != self._slow_change
        is_due = waited >= self._slow_every or (has_changed and waited >= self._slow_least)
        if self._computing is None and is_due:
            self._computing = self._thread.submit(self._compute_slow, figures)
            self._slow_since = figures.at
            self._slow_change = figures.changes[:1]
        return self._slow

    def _compute_slow(self, figures: Figures) -> dict[str, Any]:
        """Return the curves of the day, what would be gained if prices moved, and what to decide.

        It blocks, and decides when they are computed again.
        """
        began = time.thread_time()
        curves = curves_of_accounts(self.lake, "daily_pnl", figures.at)
        slow: dict[str, Any] = {"curves": curves}
        slow["margins"] = curves_of_accounts(self.lake, "initial_margin", figures.at)
        slow |= self._moved(figures)

        usual = BEGINNING
        if any(len(points) > 1 for points in curves.values()):
            usual = SLOW_EVERY
        worked = timedelta(seconds=time.thread_time() - began)
        self._slow_least = worked / SLOW_SHARE
        self._slow_every = max(usual, self._slow_least)
        return dict(plain(slow))

    def curves(self, now: datetime) -> dict[str, Any]:
        """Return the curves of the day that ends with the moment of the figures; blocks."""
        curves = curves_of_accounts(self.lake, "daily_pnl", self._time_of(now), A_DAY)
        return {"curves": plain(curves)}

    def _moved(self, figures: Figures) -> dict[str, Any]:
        """Return what would be gained if prices moved, what to decide, and why the profit is so.

        All are of these very figures; what cannot be computed says what is wrong.
        """
        at = {"at": figures.at}
        why: dict[str, Any] = {**at, "rows": [], "totals": figures.book.totals}
        try:
            why["rows"] = [replace(row, largest={}) for row in self._explain(figures)]
        except PositionSyncError as error:
            why["trouble"] = str(error)

        try:
            _book, legs = self._priced(figures.book)
            return {"why": why} | _scenarios_of(self.settings, figures, legs)
        except PositionSyncError as error:
            scenarios = NO_SCENARIOS | at | {"trouble": str(error)}
            return {"why": why, "scenarios": scenarios, "decisions": []}

    def figures(self, now: datetime) -> Figures:
        """Return figures that are at most `fresh` old; blocks.

        Raises:
            LakeError: A table cannot be used.
        """
        return self._figures.at(self._time_of(now))

    def _read_figures(self, now: datetime) -> Figures:
        if self.past is not None:
            return read_figures_at(self.lake, self.settings, self.past, now)
        return read_figures(self.lake, self.settings, now)

    def played_back(self, at: datetime | None, now: datetime) -> "PageFigures":
        """Return what reads the figures of a past moment; None: these.

        Raises:
            MomentError: The moment is in the future.
        """
        if at is None:
            return self

        require_past(at, now)
        figures = self._moments.get(at)
        if figures is None:
            figures = PageFigures(self.settings, self.lake, Past(at=at))
            newest = [*self._moments.items()][1 - MOST_MOMENTS :]
            self._moments = {**dict(newest), at: figures}
        return figures

    def _time_of(self, now: datetime) -> datetime:
        """Return the moment that is read: what is past does not change."""
        return now if self.past is None else self.past.at

    def risk(self, now: datetime) -> tuple[Book, PricedLegs]:
        """Return a book at most `risk_fresh` old with its legs as the model has them; blocks.

        Raises:
            LakeError: A table cannot be used.
            ScenariosFileError: The file of scenarios has a mistake.
        """
        return self._risk.at(self._time_of(now))

    def risk_of(self, choice: Choice, now: datetime) -> tuple[Book, PricedLegs]:
        """Return the book of `risk` with the chosen legs alone; blocks.

        Of a large book that is not priced at present, only these are priced: it may be newer.

        Raises:
            LakeError: A table cannot be used.
            ScenariosFileError: The file of scenarios has a mistake.
        """
        if choice != EVERY_PART and self._risk.newest(self._time_of(now)) is None:
            figures = self.figures(now)
            if not is_small(figures):
                return self._priced(figures.book, choice)

        book, legs = self.risk(now)
        return book, legs.chosen(choice)

    def risk_of_look(self, now: datetime) -> tuple[Book, PricedLegs]:
        """Return the book of `figures`, unless it is large, with its legs as in `risk`; blocks.

        Raises:
            LakeError: A table cannot be used.
            ScenariosFileError: The file of scenarios has a mistake.
        """
        figures = self.figures(now)
        if is_small(figures):
            return self._priced(figures.book)
        return self.risk(now)

    def _price(self, now: datetime) -> tuple[Book, PricedLegs]:
        return self._priced(self.figures(now).book)

    def _priced(self, book: Book, choice: Choice = EVERY_PART) -> tuple[Book, PricedLegs]:
        scenarios = read_scenarios(folder_of(self.settings.strategies_file))
        return book, price_legs(self.lake, self.settings, book, scenarios, choice)

    def compared(self, changes: Changes, now: datetime) -> WhatIf:
        """Return the book of `risk` before and after trades; blocks.

        Raises:
            LakeError: A table cannot be used.
            ProposedTradeError: A trade names nothing that can be priced.
        """
        return what_if_of(*self.risk(now), self.settings, changes)

    def explained(self, now: datetime) -> "Explained":
        """Return `figures`, and why the profit of the day in them is so; blocks.

        Those of a large book are at most a minute old.

        Raises:
            LakeError: A table cannot be used.
        """
        figures = self.figures(now)
        lasts = timedelta() if is_small(figures) else SLOW_EVERY
        with self._explaining:
            before = self._explained
            is_of_look = before is not None and before[0] is figures
            if before is None or not (is_of_look or elapsed(before[0].at, figures.at) < lasts):
                before = (figures, self._explain(figures))
                self._explained = before
            return before

    def _explain(self, figures: Figures) -> list[TodaysProfit]:
        return explain_today(self.lake, self.settings, figures)


# Figures, and why the profit of the day in them is so.
Explained = tuple[Figures, list[TodaysProfit]]


def is_small(figures: Figures) -> bool:
    """Return whether all that is asked of a book is computed at each look."""
    return figures.book.split.parts.height <= SMALL_BOOK


def _scenarios_of(settings: Settings, figures: Figures, legs: PricedLegs) -> dict[str, Any]:
    """Return what would be gained if prices moved, and what needs a decision; blocks.

    Raises:
        PositionSyncError: The file of scenarios has a mistake.
    """
    from_file = read_scenarios(folder_of(settings.strategies_file))
    usual = [point for point in STANDARD if not point.vol and abs(point.spot) <= MOST_SHOWN_PERCENT]
    points = [*usual, *from_file.points.values()][:MOST_SCENARIOS]
    rows = profits(legs, points)
    names = [point.name for point in points]
    moves = [place for place, point in enumerate(usual) if point.spot in MOVES]
    expiry = expiry_report(legs, days=SOON_DAYS)
    at_issue = legs.where(col.conid.is_in(legs_at_issue(figures, expiry)))
    moved = profits(at_issue, [Point(spot=move) for move in MOVES], [Breakdown.LEG])
    return {
        "scenarios": {"at": figures.at, "names": names, "rows": rows},
        "decisions": decisions(figures, rows, moves, expiry, moved)[:MOST_DECISIONS],
    }


def shown(figures: Figures) -> dict[str, Any]:
    """Return what the page shows besides the parts: the JSON of the API without its positions."""
    values = figures.to_dict()
    values["columns"] = PAGE_COLUMNS
    values["missing"] = not_in_sums(figures.book)
    if figures.not_kept:
        values["missing"] += figures.not_current
    values["changes"] = values["changes"][:MOST_CHANGES]
    return values


def parts_of(figures: Figures) -> DataFrame:
    """Return a row for each part of a holding, with PAGE_COLUMNS."""
    of_leg = figures.positions.select(*KEY, *OF_LEG, "confirmed_at")
    feed = pl.when("delayed").then(lit(" delayed")).otherwise(lit(""))
    rows = figures.book.split.parts.drop(*OF_LEG, "confirmed_at", strict=False).with_columns(
        strategy="strategy_id",
        key=pl.format("{}|{}|{}", "strategy_id", *KEY),
        quantity=col.position * col.share,
        source=pl.coalesce("price_kind", "value_source", lit("NONE")) + feed,
    )
    rows = rows.with_columns(
        unvalued=col.valueless.cast(Int64),
        greekless=(col.is_option & col.greekless).cast(Int64),
    )

    rows = rows.join(of_leg, on=KEY, how="left", maintain_order="left")
    rows = rows.with_columns(
        col.expiry.dt.to_string("iso"),
        priced_at=col.confirmed_at.dt.timestamp("ms"),
        # As the price: of one share, in the unit of the quotes.
        average_cost=col.average_cost / col.multiplier * col.magnifier,
    )
    texts = col(pl.String).str.replace_all(NOT_SHOWN, "�").str.slice(0, LONGEST_CELL)
    return rows.select(PAGE_COLUMNS).with_columns(col(pl.Float64).fill_nan(None), texts)
