"""Everything that a person is shown, computed from the tables once.

The page, the board, the commands, Dagster's metadata, HTTP and MCP are views of `Figures`. The
shape of its JSON has a version: names are added, and none is removed or changed within a version.
Unknown is null, never zero; a sum that leaves something out says of how many holdings.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any

import polars as pl

from position_sync_dagster.domain.account_values import AccountSummary
from position_sync_dagster.domain.clock import NEVER, seconds_since
from position_sync_dagster.domain.limits import Limit
from position_sync_dagster.domain.position_update import ValueOrigin
from position_sync_dagster.errors import StrategiesFileError
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.position_updates import newest_version
from position_sync_dagster.lake.schema import moment
from position_sync_dagster.lake.strategies_file import saved_limits
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.confirmations import PRICED
from position_sync_dagster.sync.reports.book import (
    COLUMNS,
    KEY,
    Book,
    open_positions,
    position_rows,
    read_book,
    versions_of,
)
from position_sync_dagster.sync.reports.changes import (
    Day,
    DayChange,
    changes_of,
    day_began,
    read_day,
    realized_of,
)
from position_sync_dagster.sync.reports.limit_readings import Evaluated, evaluate
from position_sync_dagster.sync.reports.status import Status, plain, read_status

# The version of the shape of the JSON.
VERSION = 1


# What an account has as the broker reports it, in its base currency. The cushion is the excess
# liquidity as a part of the net liquidation.
_REPORTED = (
    "account", "currency", "net_liquidation", "available_funds", "excess_liquidity",
    "initial_margin", "maintenance_margin", "cushion",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The figures of one moment; each part is computed when it is first used.

    Attributes:
        status: The state of logins, queue and programs.
        book: The holdings, and how strategies share them.
        day: What the tables have of the present day.
        limits: The limits of the strategies file, evaluated.
        before: The rows of today, from before their close, of the holdings that closed today.
        versions: The versions of the tables that were read: figures differ where they differ.
    """

    status: Status
    book: Book
    day: Day = field(default_factory=lambda: Day(since=NEVER))
    limits: Sequence[Evaluated] = ()
    before: pl.DataFrame = field(default_factory=pl.DataFrame)
    versions: tuple[object, ...] = ()

    @property
    def at(self) -> datetime:
        """The moment."""
        return self.book.now

    @cached_property
    def ledger_version(self) -> int | None:
        """The newest version of the ledger among the rows."""
        return newest_version(self.book.priced) or None

    @cached_property
    def changes(self) -> list[DayChange]:
        """What happened today, the newest first."""
        return changes_of(self.day)

    @cached_property
    def positions(self) -> pl.DataFrame:
        """The open holdings: the columns of the JSON, and the times that ages count from."""
        return open_positions(self.book)

    @cached_property
    def closed_today(self) -> pl.DataFrame:
        """The holdings that closed today, with what each earned today."""
        priced, since, is_flat = self.book.priced, moment(self.day.since), pl.col("position") == 0
        gone = priced.filter(is_flat, pl.col("timestamp") >= since)
        known = pl.concat([gone, priced.filter(~is_flat)])
        # What was opened and closed between two rows was never in the ledger.
        brief = self.book.reported.filter(is_flat, pl.col("position_time") >= since)
        brief = brief.join(known, on=KEY, how="anti").with_columns(timestamp="position_time")
        both = (gone.with_columns(_brief=False), brief.with_columns(_brief=True))
        base = pl.coalesce("_base", pl.when("_brief").then(0.0))
        rows = (
            pl.concat(both, how="diagonal_relaxed")
            .join(self._realized, on=KEY, how="left")
            .join(base_of(self.before, self.day), on=KEY, how="left")
            .with_columns(realized_pnl=pl.coalesce("_stated", "_realized"))
            .with_columns(daily_pnl=pl.col("realized_pnl") - base)
            .filter(~pl.col("_brief") | pl.col("realized_pnl").is_not_null())
            .select(gone.columns)
        )
        return position_rows(rows, self.book).sort("timestamp", descending=True)

    @property
    def _realized(self) -> pl.DataFrame:
        """The realised profit of today of what changed: the broker's, and that of its executions.

        Of the broker only a portfolio row counts that came after the close.
        """
        kinds = {"account": pl.String, "conid": pl.Int64, "_realized": pl.Float64}
        found = [(*key, profit) for key, profit in realized_of(self.day).items()]
        stated = self.book.reported.filter(
            pl.col("position") == 0, pl.col("value_source") == ValueOrigin.PORTFOLIO.value
        ).select(*KEY, _stated="realized_pnl")
        return pl.DataFrame(found, schema=kinds, orient="row").join(
            stated, on=KEY, how="full", coalesce=True
        )

    @cached_property
    def accounts(self) -> list[dict[str, Any]]:
        """The accounts, with the profit of the day in its parts, in their base currencies.

        `today.account` is the broker's own number. It equals `open`, the sum over the holdings that
        are open, and `closed`, that over those that closed today, up to `difference`: they are not
        of the same second. `open_unknown` and `closed_unknown` count the holdings that these sums
        leave out; the difference is unknown while a part is.
        """
        return [self._account(one) for one in self.book.accounts]

    def _account(self, one: AccountSummary) -> dict[str, Any]:
        opened, open_unknown = in_base(self.positions, "today", one)
        closed, closed_unknown = in_base(self.closed_today, "today", one)
        rest = None if open_unknown or closed_unknown or opened is None else -opened
        mine = self.positions.filter(pl.col("account") == one.account).get_column("age_s")
        today = {
            "account": one.daily_pnl,
            "open": opened,
            "closed": closed,
            "open_unknown": open_unknown,
            "closed_unknown": closed_unknown,
            "difference": add_known(one.daily_pnl, rest, None if closed is None else -closed),
            "account_age_s": seconds_since(one.pnl_received_at, self.at),
            "holdings_age_s": None if mine.null_count() else mine.max(),
        }
        return {
            **{name: getattr(one, name) for name in _REPORTED},
            "age_s": seconds_since(one.values_received_at, self.at),
            "today": today,
            "realised_today": one.realized_pnl,
            "unrealised": one.unrealized_pnl,
            "total": add_known(one.unrealized_pnl, one.realized_pnl),
        }

    def to_dict(self, *, positions: bool = True) -> dict[str, Any]:
        """Return the figures as plain values for JSON; see `VERSION`."""
        book = self.book
        found = {
            "version": VERSION,
            "at": self.at,
            "ledger_version": self.ledger_version,
            "gateway": self.status.gateway,
            "gateways": [one.gateway for one in self.status.each_login],
            "attention": [*self.status.attention, *self.status.unresolved_legs],
            "current": self.current,
            "held": self.held,
            "accounts": self.accounts,
            "strategies": [*book.strategies, *book.rest],
            "underlyings": book.underlyings,
            "expiries": book.expiries,
            "totals": [*book.totals, *book.in_base],
            "closed_today": self.closed_today.select(COLUMNS).to_dicts(),
            "changes": self.changes,
            "limits": [limit_of(one) for one in self.limits],
        }
        if positions:
            found["positions"] = self.positions.select(COLUMNS).to_dicts()
        return dict(plain(found))

    def to_json(self) -> str:
        """Return the figures as JSON; the rows of positions are written in columns."""
        found = json.dumps(self.to_dict(positions=False), allow_nan=False, ensure_ascii=False)
        rows = self.positions.select(COLUMNS).with_columns(pl.col(pl.Float64).fill_nan(None))
        return f'{found[:-1]}, "positions": {rows.write_json()}}}'

    @property
    def held(self) -> int:
        """The number of holdings that the broker reports."""
        return self.book.held.height

    @property
    def current(self) -> int:
        """The number of holdings whose value is current."""
        return int(self.book.held.get_column("is_current").sum())

    @property
    def oldest_age_s(self) -> float | None:
        """The age of the oldest price of a holding, in seconds; None if one is unknown."""
        at = self.book.held.get_column(PRICED)
        return None if at.null_count() else seconds_since(at.min(), self.at)  # type: ignore[arg-type]


def base_of(rows: pl.DataFrame, day: Day) -> pl.DataFrame:
    """Return what the profit of a holding, since it was opened, was at the close of the day before.

    Profit of the day = unrealised + realised today − this: trades of the day do not change it. A
    price and the broker's profit may be a second apart, so the middle one of all rows is taken. Of
    what was opened today it is 0.
    """
    kinds = {"account": pl.String, "conid": pl.Int64, "_base": pl.Float64}
    first = {change.key: change for change in reversed(day.changes)}
    opened = [(*key, 0.0) for key, change in first.items() if change.before == 0]
    known = pl.DataFrame(opened, schema=kinds, orient="row")
    if rows.is_empty():
        return known
    base = pl.col("unrealized_pnl") + pl.col("realized_pnl").fill_null(0.0) - pl.col("daily_pnl")
    found = rows.group_by(KEY).agg(_base=base.median())
    return pl.concat([known, found]).unique(KEY, keep="first")


def add_known(*parts: float | None) -> float | None:
    """Return the sum; None if a part is not known."""
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


def in_base(rows: pl.DataFrame, name: str, of: AccountSummary) -> tuple[float | None, int]:
    """Return the sum of a column in the base currency of an account, and how many are unknown."""
    mine = rows.filter(pl.col("account") == of.account)
    rate = pl.col("currency").replace_strict(of.rates, default=None, return_dtype=pl.Float64)
    found = mine.select((pl.col(name) * rate).alias(name)).get_column(name)
    unknown = found.null_count()
    return (None if unknown == found.len() and unknown else float(found.sum())), unknown


def limit_of(one: Evaluated) -> dict[str, Any]:
    """Return a limit for the JSON."""
    limit = one.limit
    names = ("subject", "account", "measure", "bound", "currency")
    return {name: getattr(limit, name) for name in names} | {
        "strategy": limit.strategy_id,
        "limit": limit.value,
        "number": one.reading.number,
        "state": one.outcome,
        "text": one.text,
    }


def read_figures(lake: Lake, settings: Settings, now: datetime) -> Figures:
    """Read everything that a person is shown, and each time only the new data; blocks.

    Raises:
        LakeError: A table cannot be used.
    """
    since = day_began(now)
    book = read_book(lake, settings, now)
    of_day = (lake.position_changes, lake.executions, lake.closures, lake.breaks)
    others = (lake.registry, lake.contracts, lake.updates, lake.broker_positions)
    versions = versions_of(*of_day, *others, lake.account_values)
    changed = (*versions[: len(of_day)], lake.sessions.table.version())
    gone = book.priced.filter(pl.col("position") == 0, pl.col("timestamp") >= moment(since))
    return Figures(
        status=read_status(lake, settings, now, book=book),
        book=book,
        day=_day(lake, since, changed),
        limits=evaluate(known_limits(settings), book),
        before=_rows_before(lake, since, tuple(gone.select("conid", "timestamp").rows())),
        versions=(*versions, *map(str, book.live_since.items())),
    )


@lru_cache(maxsize=2)
def _day(lake: Lake, since: datetime, _versions: tuple[int, ...]) -> Day:
    return read_day(lake, since)


@lru_cache(maxsize=2)
def _rows_before(
    lake: Lake, since: datetime, gone: tuple[tuple[int, datetime], ...]
) -> pl.DataFrame:
    """Return today's rows, with a profit, of the holdings that closed today."""
    last = max((at for _conid, at in gone), default=since)
    rows = lake.updates.sync.between(since, last, {conid for conid, _at in gone})
    known = pl.col("daily_pnl").is_not_null() & pl.col("unrealized_pnl").is_not_null()
    return rows.filter(pl.col("position") != 0, known)


def known_limits(settings: Settings) -> list[Limit]:
    """Return the limits of the strategies file; none while it has a mistake (see `attention`)."""
    try:
        return saved_limits(settings.strategies_file)
    except StrategiesFileError:
        return []
