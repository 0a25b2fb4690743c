"""Everything that a person is shown, computed from the tables once.

The page, the board, the commands, Dagster's metadata, HTTP and MCP are views of `Figures`. The
shape of its JSON has a version: names are added, and none is removed or changed within a version.
Unknown is null, never zero; a sum that leaves something out says of how many holdings.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property, lru_cache
from itertools import starmap
from operator import attrgetter
from typing import Any

import polars as pl
import polars.selectors as cs
from polars import DataFrame, Float64, Series, String, coalesce, col, when

from position_sync_dagster.domain.account_values import AccountSummary
from position_sync_dagster.domain.clock import NEVER, seconds_since
from position_sync_dagster.domain.holding import KEY
from position_sync_dagster.domain.leg import UNATTRIBUTED
from position_sync_dagster.domain.position_update import ValueOrigin
from position_sync_dagster.errors import StrategiesFileError
from position_sync_dagster.lake.ledger_rows import newest_version
from position_sync_dagster.lake.schema import moment
from position_sync_dagster.money.as_of import Past
from position_sync_dagster.money.cents import MONEY, cents, in_cents
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past.movements import known_sum
from position_sync_dagster.money.profit.bridge import Earned, Earnings, bridge
from position_sync_dagster.money.reports.book import (
    BOOK_COLUMNS,
    Book,
    book_at,
    not_kept_lines,
    open_positions,
    position_rows,
    read_book,
    versions_of,
)
from position_sync_dagster.money.reports.changes import (
    Day,
    DayChange,
    changes_of,
    closed_profits,
    read_day,
    read_sessions,
    realized_of,
)
from position_sync_dagster.money.reports.columns import duration
from position_sync_dagster.money.reports.status import Status, plain, read_status, status_not_kept
from position_sync_dagster.money.strategies.limit_readings import Evaluated, evaluate
from position_sync_dagster.money.strategies.limits import Limit
from position_sync_dagster.money.strategies.strategies_file import saved_limits
from position_sync_dagster.money.trading_days import day_began
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.confirmations import PRICED

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
        versions: The versions of the tables that were read: figures differ where they differ.
        not_kept: Names in the JSON that tables of a past moment do not say.
    """

    status: Status
    book: Book
    day: Day = field(default_factory=lambda: Day(since=NEVER))
    limits: Sequence[Evaluated] = ()
    versions: tuple[object, ...] = ()
    not_kept: tuple[str, ...] = ()

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
    def positions(self) -> DataFrame:
        """The open holdings: the columns of the JSON, and the times that ages count from."""
        return open_positions(self.book)

    @cached_property
    def closed_today(self) -> DataFrame:
        """The holdings that closed today, with what each earned today."""
        is_flat = col.position == 0
        is_of_today = col.timestamp >= moment(self.day.since)
        is_closed_today = is_flat & is_of_today
        priced = self.book.priced
        moved = self._moved

        # What was opened and closed between two rows was never in the ledger.
        in_ledger = priced.filter(~is_flat | is_of_today)
        brief = self.book.reported.with_columns(timestamp="position_time")
        brief = brief.filter(is_closed_today)
        brief = brief.join(in_ledger, on=KEY, how="anti")
        brief = brief.join(moved, on=KEY, how="semi")

        rows = pl.concat([priced.filter(is_closed_today), brief], how="diagonal_relaxed")
        rows = rows.drop("daily_pnl", "realized_pnl")
        rows = rows.join(moved, on=KEY, how="left")
        rows = rows.join(self._stated_at_close, on=KEY, how="left")
        rows = rows.with_columns(realized_pnl=coalesce("stated", "realized"))

        # What the broker stated of a close is in no row of the ledger.
        is_in_ledger = col.stated.is_null() & col.realized.is_not_null()
        is_kept = rows.select(is_in_ledger).to_series()
        rows = position_rows(rows.select(priced.columns), self.book)
        rows = rows.with_columns(kept=is_kept)
        return self._with_owners(rows).sort("timestamp", descending=True)

    def _with_owners(self, closed: DataFrame) -> DataFrame:
        """Return holdings that closed with the one strategy that had them.

        The movements say it; before these are there, the legs of the contract. What is closed is no
        part of the book any more.
        """
        if closed.is_empty():
            return closed

        owners = self.book.closes.owners_since(self.day.since)
        rows = closed.join(owners, on=KEY, how="left", maintain_order="left")

        of_contracts = self.day.strategies
        names = [*map(list, of_contracts.values())]
        of_legs = DataFrame({"conid": [*of_contracts], "of_legs": names}, _STRATEGIES_OF_LEGS)
        rows = rows.join(of_legs, on="conid", how="left", maintain_order="left")

        owner = coalesce("owners", "of_legs")
        is_strategy = owner.list.first() != UNATTRIBUTED
        has_one = (owner.list.len() == 1) & is_strategy
        rows = rows.with_columns(strategies=when(has_one).then(owner))
        rows = rows.with_columns(shares=when(has_one).then([1.0]))
        rows = rows.with_columns(col("strategies", "shares").fill_null([]))
        return rows.drop("owners", "of_legs")

    @property
    def _moved(self) -> DataFrame:
        """The profit of the day, and the realised one, of each holding that moved and is gone."""
        profits = closed_profits(self.day)
        of_day = Series("daily_pnl", [*profits.values()], Float64)
        realized = [*map(realized_of(self.day).get, profits)]
        moved = DataFrame([*profits], _HOLDING, orient="row")
        return moved.with_columns(of_day, Series("realized", realized, Float64))

    @property
    def _stated_at_close(self) -> DataFrame:
        """The realised profit of the broker's portfolio rows that came after a close."""
        is_stated = col.value_source == ValueOrigin.PORTFOLIO
        closed = self.book.reported.filter(col.position == 0)
        return closed.filter(is_stated).select(*KEY, stated="realized_pnl")

    @cached_property
    def accounts(self) -> list[dict[str, Any]]:
        """The accounts, with the profit of the day in its parts, in their base currencies."""
        return [self._account(account) for account in self.book.accounts]

    def _account(self, account: AccountSummary) -> dict[str, Any]:
        reported = {name: getattr(account, name) for name in _REPORTED}
        opened = _opened(self.positions, account)

        # The parts are those of the book at this moment: no two sums of one look differ. The row
        # of the account has what they were beside the broker's number.
        of_book = replace(account, open_pnl=None)
        today = bridge(of_book, opened, _earned(self.closed_today, account), self.at)
        beside = bridge(account, opened, _earned(self._gone, account), self.at)
        moved = None
        if today.unexplained is not None and beside.unexplained is not None:
            moved = cents(today.unexplained - beside.unexplained)
        return reported | {
            "not_kept": self.positions.filter(~col.kept, account=account.account).height,
            "age_s": seconds_since(account.values_received_at, self.at),
            "today": today,
            "moved": moved,
            "moved_since": beside.at,
            "realised_today": account.realized_pnl,
            "unrealised": account.unrealized_pnl,
            "total": known_sum([account.unrealized_pnl, account.realized_pnl]),
        }

    @property
    def _gone(self) -> DataFrame:
        """What closed today, with the time from which the account's number has it (`gone_at`)."""
        closed = self.closed_today
        last = {change.key: change.seen_at for change in self.day.changes}
        seen = [*map(last.get, closed.select(KEY).rows())]
        seen_at = Series(seen, dtype=closed.schema["timestamp"])
        return closed.with_columns(gone_at=coalesce(seen_at, "timestamp"))

    def to_dict(self, names: Iterable[str] | None = None) -> dict[str, Any]:
        """Return figures as plain values for JSON, without the positions; see `VERSION`.

        Args:
            names: Of which figures; None: all. No other one is computed.
        """
        return dict(plain({name: _FIGURES[name](self) for name in names or _FIGURES}))

    def to_json(self) -> str:
        """Return the figures as JSON, with the positions."""
        text = json.dumps(self.to_dict(), allow_nan=False, ensure_ascii=False)
        rows = self.positions.select(BOOK_COLUMNS)
        rows = rows.with_columns(col(Float64).fill_nan(None))
        return f'{text[:-1]}, "positions": {amounts_in_cents(rows).write_json()}}}'

    @property
    def held(self) -> int:
        """The number of holdings that the broker reports; at a past moment those with a row."""
        return self._held.height

    @cached_property
    def _held(self) -> DataFrame:
        if self.not_kept:
            return self.book.priced.filter(col.position != 0)
        return self.book.held

    @property
    def current(self) -> int:
        """The number of holdings whose value is current."""
        return int(self.book.held["is_current"].sum())

    @property
    def oldest_age_s(self) -> float | None:
        """The age of the oldest price of a holding, in seconds; None if one is unknown."""
        priced_at = self._held[PRICED]
        if priced_at.null_count():
            return None
        return seconds_since(priced_at.min(), self.at)  # type: ignore[arg-type]

    @property
    def current_text(self) -> str:
        """How many legs have a current value now, and how old the oldest price is."""
        text = f"{self.current} of {self.held} legs"
        away = [login.gateway_id for login in self.status.logins if not login.is_live]
        if away:
            return f"{text}; not connected: {', '.join(away)}"
        if not self.status.is_live:
            return f"0 of {self.held} legs: the gateway is not connected"

        if self.oldest_age_s is None:
            return text
        return f"{text}, oldest {duration(self.oldest_age_s)}"

    @property
    def not_current(self) -> list[str]:
        """Why values are not of now, as `status` says it; of a past moment: not what was shown."""
        if self.not_kept:
            return not_kept_lines(self.book.priced)

        away = [login for login in self.status.each_login if not login.is_live]
        if not away and self.current == self.held:
            return []
        current = f"Current are {self.current_text}"
        return [current, *map(self.status.gateway_line, away)]


# What a holding is known by, and whose legs a contract has or had.
_HOLDING = {"account": String, "conid": pl.Int64}
_STRATEGIES_OF_LEGS = {"conid": pl.Int64(), "of_legs": pl.List(String)}

# The figures of the JSON, by name.
_FIGURES: dict[str, Callable[[Figures], Any]] = {
    "version": lambda _figures: VERSION,
    "at": attrgetter("at"),
    "ledger_version": attrgetter("ledger_version"),
    "gateway": attrgetter("status.gateway"),
    "gateways": lambda figures: [login.gateway for login in figures.status.each_login],
    "attention": lambda figures: [*figures.status.attention, *figures.status.unresolved_legs],
    "hints": attrgetter("status.hints"),
    "lines": attrgetter("status.lines_text"),
    "without_line": attrgetter("status.legs_without_line"),
    "mode": attrgetter("status.trading_mode"),
    "oldest_age_s": attrgetter("oldest_age_s"),
    "current": attrgetter("current"),
    "held": attrgetter("held"),
    "accounts": attrgetter("accounts"),
    "strategies": lambda figures: [*figures.book.strategies, *figures.book.rest],
    "underlyings": attrgetter("book.underlyings"),
    "expiries": attrgetter("book.expiries"),
    "totals": attrgetter("book.totals"),
    "in_base": attrgetter("book.in_base"),
    "closed_today": lambda figures: figures.closed_today.select(BOOK_COLUMNS).to_dicts(),
    "changes": attrgetter("changes"),
    "limits": lambda figures: [limit_of(evaluated) for evaluated in figures.limits],
    "not_kept": attrgetter("not_kept"),
}


def _opened(rows: DataFrame, account: AccountSummary) -> Earnings:
    """Return what the open holdings of an account earned today, in its base currency."""
    rows = _in_base(rows, account)
    unknown = rows.filter(col.profit.is_null())["name"]
    return Earnings(float(rows["profit"].sum()), unknown.to_list())


def _earned(rows: DataFrame, account: AccountSummary) -> list[Earned]:
    """Return what each holding of an account earned today, in its base currency."""
    # Only what is gone has the time of that.
    columns = ("name", "profit", cs.by_name("gone_at", require_all=False))
    rows = _in_base(rows, account).select(columns)
    return [*starmap(Earned, rows.iter_rows())]


def _in_base(rows: DataFrame, account: AccountSummary) -> DataFrame:
    """Return the holdings of an account with their `profit` of the day in its base currency."""
    rate = col.currency.replace_strict(account.rates, default=None, return_dtype=Float64)
    return rows.filter(account=account.account).with_columns(profit=col.today * rate)


def amounts_in_cents(rows: DataFrame) -> DataFrame:
    """Return rows whose sums of money are in whole cents."""
    amounts = col(sorted(MONEY.intersection(rows.columns)))
    return rows.with_columns(amounts.round(2) + 0.0)  # a loss of nothing is 0


def limit_of(evaluated: Evaluated) -> dict[str, Any]:
    """Return a limit for the JSON."""
    limit = evaluated.limit
    number = evaluated.reading.number
    if limit.measure in MONEY:
        number = in_cents(number)
    return {
        "subject": limit.subject,
        "account": limit.account,
        "measure": limit.measure,
        "bound": limit.bound,
        "currency": limit.currency,
        "strategy": limit.strategy_id,
        "limit": limit.value,
        "number": number,
        "state": evaluated.outcome,
        "text": evaluated.text,
    }


def read_figures(lake: MoneyLake, settings: Settings, now: datetime) -> Figures:
    """Read everything that a person is shown, and each time only the new data; blocks.

    Raises:
        LakeError: A table cannot be used.
    """
    book = read_book(lake, settings, now)
    now = book.now
    others = (lake.registry, lake.contracts, lake.updates, lake.broker_positions)
    of_day = versions_of(lake.position_changes, lake.movements, lake.closures)
    of_others = versions_of(*others, lake.account_values)
    of_logins = tuple(map(str, book.live_since.items()))

    # These tables change seldom, but the sessions every few seconds.
    began = day_began(settings.calendar, now)
    day = _day(lake, settings.calendar, began, of_day)
    sessions = read_sessions(lake, day.since)

    return Figures(
        status=read_status(lake, settings, now, book=book),
        book=book,
        day=replace(day, sessions=sessions),
        limits=evaluate(known_limits(settings), book),
        versions=of_day + of_others + of_logins,
    )


# What figures have of tables that are replaced: of a past moment nobody knows it. Messages that
# confirmed a price without a row are not kept either: ages of then count from the rows.
NOT_KEPT = (
    "gateway", "gateways", "attention", "hints", "lines", "without_line", "mode", "current",
    "limits", "age_s", "oldest_age_s", "held",
)  # fmt: skip


def read_figures_at(lake: MoneyLake, settings: Settings, past: Past, now: datetime) -> Figures:
    """Read what a person was shown at a past moment, with the ages of then; blocks.

    Raises:
        LakeError: A table cannot be used.
        MomentError: The moment is in the future, or before the first row.
    """
    book = book_at(lake, settings, past, now)
    began = day_began(settings.calendar, past.at)
    day = read_day(lake, settings.calendar, began, past.at)
    return Figures(
        status=status_not_kept(settings, past.at),
        book=book,
        day=replace(day, sessions=read_sessions(lake, day.since)),
        versions=(past.at,),
        not_kept=NOT_KEPT,
    )


@lru_cache(maxsize=2)
def _day(lake: MoneyLake, calendar: str, since: datetime, _versions: tuple[int, ...]) -> Day:
    return read_day(lake, calendar, since)


def known_limits(settings: Settings) -> list[Limit]:
    """Return the limits of the strategies file; none while it has a mistake (see `attention`)."""
    try:
        return saved_limits(settings.strategies_file)
    except StrategiesFileError:
        return []
