"""The figures of the money page as JSON: those of the terminal's board, and parts of holdings.

Every sum is one of `sync/reports`. The page itself adds up parts of holdings only, and those sums
are made of the same parts. Texts have no control characters.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl

from position_sync_dagster.domain.clock import elapsed
from position_sync_dagster.domain.closures import PositionChange
from position_sync_dagster.domain.instrument import contract_name, leg_name
from position_sync_dagster.domain.reconciliation import Break
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.schema.codec import updates_of
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.reports.confirmations import FEEDS, PRICED
from position_sync_dagster.sync.reports.exposure import summed
from position_sync_dagster.sync.reports.money import POINTS, SPAN, profit_lines
from position_sync_dagster.sync.reports.overview import Overview, OverviewReader
from position_sync_dagster.terminal.board import Changes
from position_sync_dagster.terminal.text import not_in_sums, printable, quantity

CURVES_EVERY = timedelta(minutes=1)
"""How often the curves of the day are read again: they read half a day of the ledger."""

PAUSE = timedelta(minutes=1)
"""After this time without a read, nothing is compared with the read before: what changed meanwhile
did not change now."""

MOST_EVENTS = 40

Row = list[Any]

_TEXTS = ("account", "symbol", "right", "currency", "sec_type", "asset_class")
_NUMBERS = (
    "conid",
    "strike",
    "market_price",
    "market_value",
    "notional",
    "unrealized_pnl",
    "daily_pnl",
    "delta",
    "gamma_1pct",
    "theta",
    "vega",
    "dollar_delta",
    "implied_vol",
    "underlying_price",
)
COLUMNS = (
    "key", "strategy", "leg", "expiry", "quantity", "source", "current", "unvalued", "greekless",
    "priced_at", "greeks_at", "written_at", "run_id", *_TEXTS, *_NUMBERS,
)  # fmt: skip
"""The columns of a part of a holding: times in milliseconds, null for what is unknown."""


class PageFigures:
    """Reads the figures repeatedly, and each time only the new data."""

    def __init__(self, settings: Settings) -> None:
        self._lake = Lake.of(settings)
        self._overviews = OverviewReader(self._lake, settings)
        self._changes = Changes()
        self._earlier: list[dict[str, Any]] | None = None
        self._curves: list[dict[str, Any]] = []
        self._curves_at: datetime | None = None
        self._read_at: datetime | None = None

    def read(self, now: datetime) -> tuple[dict[str, Row], dict[str, Any]]:
        """Return the parts of the holdings by their key, and all other figures; blocks.

        Raises:
            LakeError: A table cannot be used.
        """
        overview = self._overviews.read(now)
        if self._read_at is not None and now - self._read_at >= PAUSE:
            self._changes, self._earlier = Changes(), None
        self._read_at = now
        if self._curves_at is None or elapsed(self._curves_at, now) >= CURVES_EVERY:
            self._curves, self._curves_at = self._read_curves(overview, now), now
        if self._earlier is None:
            day = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
            self._earlier = list(_quantities(self._lake.position_changes.records(day)))
        changes = [
            {"at": one.at, "kind": "change", "text": one.text}
            for one in self._changes.add(overview)
        ]
        breaks = [*self._lake.breaks.open_breaks(), *self._lake.breaks.closed_breaks(MOST_EVENTS)]
        events = sorted(
            (*self._earlier, *changes, *_breaks(breaks, now), *_closes(overview)),
            key=lambda one: one["at"],
            reverse=True,
        )
        dated = [_dated(one, now) for one in events[:MOST_EVENTS]]
        figures = board_of(overview) | {"curves": self._curves, "events": dated}
        return parts_of(overview), plain(figures)

    def _read_curves(self, overview: Overview, now: datetime) -> list[dict[str, Any]]:
        """Return the daily profit of each strategy, and of each account as the broker sums it."""
        lines = profit_lines(self._lake.updates.sync, overview.book)
        curves: list[dict[str, Any]] = [
            {"name": one.strategy_id, "currency": one.currency, "points": one.points}
            for one in lines
        ]
        rows = self._lake.account_values.between(now - SPAN, now)
        known = rows.filter(pl.col("daily_pnl").is_not_null())
        for (account, currency), of in known.group_by("account", "currency", maintain_order=True):
            points = of.gather_every(max(1, of.height // POINTS)).select("timestamp", "daily_pnl")
            curve = {"name": account, "currency": currency, "points": points.rows()}
            curves.append(curve | {"is_account": True})
        return curves


def parts_of(overview: Overview) -> dict[str, Row]:
    """Return each part of a holding by its key, in the order of COLUMNS."""
    parts = overview.book.split.parts
    of = ("strategy_id", "account", "conid")
    again = pl.int_range(pl.len()).over(of)
    source = pl.coalesce("price_kind", "value_source", pl.lit("NONE"))
    feed = pl.col("market_data_type").replace_strict(FEEDS, default="", return_dtype=pl.String)
    rows = parts.select(
        pl.format("{}|{}|{}|{}", *of, again).alias("key"),
        pl.col("strategy_id").alias("strategy"),
        pl.struct("symbol", "right", "strike", "expiry").alias("leg"),
        pl.col("expiry").dt.to_string("iso"),
        (pl.col("position") * pl.col("share")).alias("quantity"),
        pl.when("delayed").then(pl.format("{} {}", source, feed)).otherwise(source).alias("source"),
        pl.struct("account", "conid").alias("current"),
        pl.col("valueless").cast(pl.Int64).alias("unvalued"),
        (pl.col("is_option") & pl.col("greekless")).cast(pl.Int64).alias("greekless"),
        *(
            pl.col(at).dt.timestamp("ms").alias(name)
            for at, name in (
                (PRICED, "priced_at"),
                ("greeks_time", "greeks_at"),
                ("timestamp", "written_at"),
            )
        ),
        "run_id",
        *_TEXTS,
        *_NUMBERS,
    ).select(COLUMNS)
    leg, current = COLUMNS.index("leg"), COLUMNS.index("current")
    found: dict[str, Row] = {}
    for values in rows.iter_rows():
        row = [plain(value) if isinstance(value, str | float) else value for value in values]
        row[leg] = printable(leg_name(**row[leg]))
        row[current] = (row[current]["account"], row[current]["conid"]) in overview.current_keys
        found[row[0]] = row
    return found


def board_of(overview: Overview) -> dict[str, Any]:
    """Return what the page shows besides the parts."""
    status, money = overview.status, overview.book.money()
    return {
        "columns": COLUMNS,
        "mode": status.trading_mode,
        **_picked(status, ("at", "lake", "lines_in_use", "line_limit", "queue")),
        **_picked(overview, ("held", "current", "oldest_age_s")),
        "attention": [*status.attention, *status.unresolved_legs],
        "gateways": [_picked(login, _GATEWAY) for login in status.each_login],
        "accounts": [_picked(one, _ACCOUNT) for one in status.accounts],
        "strategies": [asdict(one) for one in (*money.strategies, *money.rest)],
        "totals": [asdict(one) for one in (*money.totals, *money.in_base)],
        "missing": not_in_sums(money),
        "underlyings": [asdict(one) for one in money.underlyings],
        "expiries": _expiries(overview),
    }


def _picked(one: object, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(one, name) for name in names}


_GATEWAY = (
    "gateway_id", "session_state", "session_owner", "session_since", "session_detail", "run_id",
    "blind_since", "lines_in_use", "line_limit",
)  # fmt: skip
_ACCOUNT = (
    "account", "currency", "net_liquidation", "daily_pnl", "unrealized_pnl", "available_funds",
    "maintenance_margin", "values_received_at", "pnl_received_at",
)  # fmt: skip


def _expiries(overview: Overview) -> list[dict[str, Any]]:
    """Return the sums of each expiry, by currency, the nearest first."""
    now = overview.status.at
    rows = summed(overview.book.split, ("expiry", "currency"), now).filter(
        pl.col("expiry").is_not_null()
    )
    partial = [
        pl.when(pl.col(f"without_{name}") > 0).then(pl.lit(name))
        for name in ("market_value", "daily_pnl", "dollar_delta")
    ]
    return rows.select(
        "expiry",
        "currency",
        "holdings",
        "market_value",
        "daily_pnl",
        "dollar_delta",
        "short_legs_in_money",
        "short_legs_unknown",
        days=(pl.col("expiry") - now.date()).dt.total_days(),
        partial=pl.concat_list(partial).list.drop_nulls(),
    ).to_dicts()


def _dated(event: dict[str, Any], now: datetime) -> dict[str, Any]:
    """Return an event with its day, unless that is today: the page shows the time alone."""
    at = event["at"].astimezone(UTC)
    is_today = at.date() == now.astimezone(UTC).date()
    return event if is_today else event | {"text": f"{event['text']} ({at:%d %b %Y} UTC)"}


def _quantities(changes: Iterable[PositionChange]) -> Iterable[dict[str, Any]]:
    """Yield today's changes from before the first read; `Changes` finds the later ones."""
    for one in changes:
        if one.after:  # a close is an event of its own
            name = contract_name(one)
            text = f"quantity: {name}  {quantity(one.before)} → {quantity(one.after)}"
            yield {"at": one.seen_at, "kind": "change", "text": text}


def _closes(overview: Overview) -> Iterable[dict[str, Any]]:
    """Yield the holdings that were closed today."""
    today = pl.col("timestamp").dt.date() == overview.status.at.astimezone(UTC).date()
    for row in updates_of(overview.book.priced.filter(pl.col("position") == 0, today)):
        yield {
            "at": row.timestamp,
            "kind": "close",
            "text": f"closed: {contract_name(row)}",
            "amount": row.realized_pnl,
            "currency": row.currency,
            "run_id": row.run_id,
        }


def _breaks(breaks: Iterable[Break], now: datetime) -> Iterable[dict[str, Any]]:
    """Yield the breaks that are open, and those of today, one event for each time and state."""
    found: dict[tuple[datetime, str], list[Break]] = defaultdict(list)
    for one in breaks:
        at = one.resolved_at or one.confirmed_at or one.opened_at
        if one.resolved_at is None or at.astimezone(UTC).date() == now.astimezone(UTC).date():
            found[at, one.state].append(one)
    for (at, state), (first, *others) in found.items():
        more = f" and {len(others)} more" if others else ""
        yield {
            "at": at,
            "kind": "break" if first.resolved_at is None else "resolved",
            "text": f"break {state}: {first.symbol} {first.type}: {first.detail}{more}",
        }


def plain(value: Any) -> Any:
    """Return a value for JSON: times in milliseconds, days as text, only finite numbers."""
    if isinstance(value, str):
        return value if value.isprintable() else printable(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime):
        return round(value.timestamp() * 1000)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {plain(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value
