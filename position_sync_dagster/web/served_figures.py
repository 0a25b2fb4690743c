"""The figures as the server gives them away: to the money page, and to other programs.

The page gets those of the API, and the parts of holdings as rows. Other programs get `/api/v1`,
read only: the guard of the page stands before it, and no header allows pages of other origins.
"""

import csv
import hashlib
import io
import re
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta
from threading import Lock
from typing import Any

import polars as pl
from starlette.datastructures import QueryParams
from starlette.responses import JSONResponse, Response

from position_sync_dagster.domain.clock import NEVER, elapsed
from position_sync_dagster.domain.instrument import finite_number
from position_sync_dagster.errors import PositionSyncError, UserError
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.risk.scenario_file import STANDARD, Point
from position_sync_dagster.risk.scenarios import Breakdown, profits
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.reports.book import COLUMNS as POSITION_COLUMNS
from position_sync_dagster.sync.reports.book import read_curves
from position_sync_dagster.sync.reports.figures import Figures, read_figures
from position_sync_dagster.sync.reports.risk import read_risk
from position_sync_dagster.sync.reports.status import plain
from position_sync_dagster.sync.reports.what_if import USUAL_MOVES, read_changes, read_what_if
from position_sync_dagster.terminal.money_tables import not_in_sums
from position_sync_dagster.terminal.text import cell_text, foreign

# How often the curves of the day are read again, which read half a day of the ledger, and scenarios
# are computed.
SLOW_EVERY = timedelta(minutes=1)

# How often curves are read while they have no line yet.
BEGINNING = timedelta(seconds=5)

FRESH = timedelta(seconds=0.9)

MOST_CHANGES = 200

# How many scenarios have room beside a strategy, and the largest move of the usual ones.
MOST_SCENARIOS, MOST_SHOWN_PERCENT = 6, 10

Row = list[Any]

OF_LEG = ("name", "strike", "average_cost", "bid", "ask", "moneyness", "extrinsic", "days")
OF_PART = (
    "account", "conid", "symbol", "right", "expiry", "currency", "sec_type", "market_price",
    "market_value", "notional", "unrealized_pnl", "daily_pnl", "delta", "gamma_1pct", "theta",
    "vega", "dollar_delta", "implied_vol", "underlying_price", "run_id",
)  # fmt: skip
# The columns of a part of a holding: times in milliseconds, null for what is unknown.
COLUMNS = (
    "key", "strategy", "quantity", "source", "current", "unvalued", "greekless", "priced_at",
    "greeks_at", "written_at", *OF_LEG, *OF_PART,
)  # fmt: skip


class PageFigures:
    """Reads the figures repeatedly, and each time only the new data."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lake = Lake.of(settings)
        self._lock = Lock()
        self._last: Figures | None = None
        self._curves: list[dict[str, Any]] = []
        self._curves_at = self._scenarios_at = NEVER
        self._thread = ThreadPoolExecutor(1, "scenarios")
        self._computing: Future[dict[str, Any]] | None = None
        self._scenarios: dict[str, Any] = {"at": None, "names": [], "rows": []}

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


def scenarios_of(settings: Settings, now: datetime) -> dict[str, Any]:
    """Return what strategies and underlyings would gain, as the page shows it; blocks."""
    try:
        _book, own, legs = read_risk(Lake.of(settings), settings, now)
    except PositionSyncError as error:
        return {"at": plain(now), "names": [], "rows": [], "trouble": _printable(str(error))}
    points = [one for one in STANDARD if not one.vol and abs(one.spot) <= MOST_SHOWN_PERCENT]
    points = [*points, *own.points.values()][:MOST_SCENARIOS]
    levels = (Breakdown.STRATEGY, Breakdown.UNDERLYING)
    rows = [{"level": one, **row} for one in levels for row in profits(legs, points, one)]
    found = {"at": now, "names": [one.name for one in points], "rows": rows}
    return dict(_printable(plain(found)))


def shown(figures: Figures) -> dict[str, Any]:
    """Return what the page shows besides the parts: the JSON of the API without its positions."""
    status = figures.status
    found = figures.to_dict(positions=False) | {
        "columns": COLUMNS,
        "mode": plain(status.trading_mode),
        "lines": status.lines_text,
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
    rows = (
        figures.book.split.parts.select(
            *of,
            pl.format("{}|{}|{}|{}", *of, pl.int_range(pl.len()).over(of)).alias("key"),
            pl.col("strategy_id").alias("strategy"),
            (pl.col("position") * pl.col("share")).alias("quantity"),
            (source + feed).alias("source"),
            pl.col("valueless").cast(pl.Int64).alias("unvalued"),
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


def positions_csv(figures: Figures) -> str:
    """Return the open positions as CSV; unknown cells are empty, texts begin no formula."""
    rows = figures.positions.select(POSITION_COLUMNS).unnest("greeks")
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(rows.columns)
    table.writerows(map(cell_text, row) for row in rows.iter_rows())
    return text.getvalue()


def etag_of(figures: Figures) -> str:
    """Return the entity tag: the version of the ledger, and what else changes without a row.

    That is the other tables that were read, the day, the state of each login and of each limit.
    """
    status = figures.status
    parts = (
        figures.versions,
        (figures.at.date(), figures.day.since),
        [(one.gateway_id, one.session_state, one.session_detail) for one in status.each_login],
        (len(status.attention), figures.current),
        [(one.limit, one.outcome) for one in figures.limits],
    )
    others = hashlib.sha256(repr(parts).encode()).hexdigest()[:12]
    return f'"{figures.ledger_version or 0}-{others}"'


# The type and the content of each answer.
BODIES: dict[str, tuple[str, Callable[[Figures], str]]] = {
    "figures": ("application/json", Figures.to_json),
    "positions.csv": ("text/csv", positions_csv),
}


def answer(name: str, known: str, read: Callable[[], Figures]) -> Response:
    """Return the answer to a request; blocks.

    Args:
        name: What is asked for: a name of BODIES.
        known: The entity tags that the client has (If-None-Match).
        read: Reads the figures.
    """
    if name not in BODIES:
        return JSONResponse({"error": "Not found", "remedy": "/api/v1/openapi.json"}, 404)
    kind, body = BODIES[name]
    try:
        figures = read()
        headers = {"ETag": etag_of(figures)}
        if headers["ETag"] in re.findall(r'"[^"]*"', known):
            return Response(status_code=304, headers=headers)
        if name.endswith(".csv"):
            headers["Content-Disposition"] = f'attachment; filename="{figures.at:%Y-%m-%d}-{name}"'
        return Response(body(figures), headers=headers, media_type=kind)
    except PositionSyncError as error:
        return JSONResponse({"error": error.what, "remedy": error.remedy}, 503)


# How many trades and moves a request may name: each is computed while it waits.
MOST_NAMED_TRADES = 50


def what_if_answer(query: QueryParams, settings: Settings, now: datetime) -> Response:
    """Return the rows of `what-if` before and after trades; blocks, nothing is stored.

    Args:
        query: `trade`, `close` and `roll` (STRATEGY:EXPIRY), each as often as wanted; `spot`, a
            list of moves in percent; `account` and `strategy` of the trades.
        settings: The settings.
        now: The present moment.
    """
    try:
        rolled = []
        for text in query.getlist("roll"):
            name, _colon, expiry = text.rpartition(":")
            rolled.append((name, expiry))
        texts = query.getlist("trade")[:MOST_NAMED_TRADES]
        changes = read_changes(
            texts, query.getlist("close"), rolled, query.get("account"), query.get("strategy")
        )
        moves = _moves(query.get("spot"))
        compared = read_what_if(Lake.of(settings), settings, now, changes)
        rows = compared.rows([Point(spot=move) for move in moves], Breakdown.STRATEGY)
        return JSONResponse(_printable(plain({"rows": rows, "notes": compared.notes})))
    except UserError as error:
        return JSONResponse({"error": error.what, "remedy": error.remedy}, 400)
    except PositionSyncError as error:
        return JSONResponse({"error": error.what, "remedy": error.remedy}, 503)


def _moves(text: str | None) -> Sequence[float]:
    """Return the moves of a query, in percent.

    Raises:
        InvalidLegError: One is no number from -100 to 10,000.
    """
    if not text:
        return USUAL_MOVES
    moves = []
    for part in text.split(",")[:MOST_NAMED_TRADES]:
        move = finite_number(part, "move", "-5,0,5", lambda number: -100 <= number <= 10_000)
        moves.append(move)
    return moves
