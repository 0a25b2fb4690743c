"""Why the profit of today is what it is: the parts of `profit_explained`, of the day so far.

The number that is explained is that of the figures: the broker's profit of the day of each open
holding, in which commissions are no part. It counts from the close before, so the parts begin with
that close in `daily_positions`. What our closes and movements do not explain of the broker's number
is `unexplained`; where a holding cannot be explained, the parts of its strategy are not known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import polars as pl
from polars import DataFrame, Float64, Series, coalesce, col, exclude, lit, sum_horizontal, when

from position_sync_dagster.domain.clock import A_DAY
from position_sync_dagster.domain.holding import KEY
from position_sync_dagster.domain.leg import UNATTRIBUTED
from position_sync_dagster.lake.lake import rows_of_logins
from position_sync_dagster.lake.schema import DAILY_POSITIONS, one_of
from position_sync_dagster.money.cents import cents, in_cents, split_in_cents
from position_sync_dagster.money.lake import MoneyLake, derived_rows
from position_sync_dagster.money.past.movement_book import movements_with_inferred
from position_sync_dagster.money.past.postings import names_of
from position_sync_dagster.money.profit.moved_between import TradingDay, movements_between
from position_sync_dagster.money.profit.profit import (
    BOOKED_BEFORE,
    BY_GREEKS,
    IS_MISSING,
    PROFIT_PARTS,
    explain_holdings,
    rows_to_explain,
    sum_of_greek,
    with_values_on_the_way,
)
from position_sync_dagster.money.reports.book import Book
from position_sync_dagster.money.reports.figures import Figures
from position_sync_dagster.money.sums import sum_if_carried, sum_if_known
from position_sync_dagster.money.tables import ProfitParts
from position_sync_dagster.money.trading_days import session_before
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.exchange_days import closing_times, day_of

# How many of the largest legs of a part are named.
LARGEST = 3

# Amounts of money below this are the rounding of sums.
AMOUNT_ROUNDING = 1e-6

# How long before a close a row of the ledger may be whose computed greeks count, in days.
ROWS_OF_CLOSE_DAYS = 1 / 24

# What splits a change of price by greeks.
_SPLIT_BY = (*BY_GREEKS, "underlying_price", "implied_vol")


@dataclass(frozen=True, slots=True, kw_only=True)
class LargestLeg:
    """What a leg adds to a part; `leg` is the contract as a trader writes it."""

    account: str
    conid: int
    leg: str
    amount: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TodaysProfit(ProfitParts):
    """The profit of today of a strategy in an account and a currency, and what it is made of.

    The profit is today's number of the figures, of what is open: `fees` and `cash` are 0, since the
    broker leaves them out, and `unexplained` is what the broker counts from another closing price,
    or from a price of another second.

    Attributes:
        strategy: The strategy, or UNATTRIBUTED.
        at: The moment of all numbers.
        largest: The three largest legs of each part that has any.
        left_out: The holdings whose profit of the day is not known, which `profit` leaves out.
        known: Those whose profit is; where they do not carry the sum, `profit` is null.
        of: All open holdings.
        closed: What closed today earned today, which is not in `profit`; null if one is not known.
    """

    strategy: str
    at: datetime
    largest: dict[str, list[LargestLeg]]
    left_out: int
    known: int
    of: int
    closed: float | None


def _rows_of_session(lake: MoneyLake, session: date, closed_at: datetime) -> DataFrame:
    """Return the rows of a close, with the greeks that the ledger has of them."""
    table = lake.derived_table(DAILY_POSITIONS)
    rows = derived_rows(table, chosen=col("partition.session_date") == session)

    # `daily_positions` leaves out the greeks that this package computed.
    options = rows.drop_nulls("right").filter(col.position != 0)
    if not options["delta"].has_nulls():
        return rows

    written = lake.updates.sync.last_before(closed_at, ROWS_OF_CLOSE_DAYS)
    written = written.select("update_id", *_SPLIT_BY)
    rows = rows.join(written, on="update_id", how="left", suffix="_computed", maintain_order="left")
    rows = rows.with_columns(coalesce(name, f"{name}_computed") for name in _SPLIT_BY)
    return rows.select(exclude("^.*_computed$"))


def day_and_close_before(calendar: str, now: datetime) -> tuple[date, date, datetime]:
    """Return the present day of an exchange, the last trading day before it, and its close."""
    today = day_of(calendar, now)
    session = session_before(calendar, today)
    return today, session, closing_times(calendar, [session])[session]


def explain_today(lake: MoneyLake, settings: Settings, figures: Figures) -> list[TodaysProfit]:
    """Return why the profit of today of each strategy is what it is; blocks.

    Raises:
        LakeError: A table cannot be used.
    """
    today, session, closed_at = day_and_close_before(settings.calendar, figures.book.now)
    rows = rows_to_explain(lake, settings, _rows_of_session(lake, session, closed_at))
    so_far = TradingDay(today, session, closed_at, figures.book.now)
    movements = movements_with_inferred(lake, session - BOOKED_BEFORE)
    movements = with_values_on_the_way(lake, settings, rows_of_logins(movements, settings))
    return explained(figures, so_far, rows, movements, settings)


def of_strategy(
    rows: Sequence[TodaysProfit], strategy: str | None, book: Book
) -> list[TodaysProfit]:
    """Return the rows of one strategy; None: all.

    Raises:
        UnknownStrategyError: It has no leg, and nothing of it closed today.
    """
    chosen = [row for row in rows if strategy in (None, row.strategy)]
    if not chosen:
        book.names.require(strategy=strategy)
    return chosen


def explained(
    figures: Figures,
    so_far: TradingDay,
    opening: DataFrame,
    movements: DataFrame,
    settings: Settings,
) -> list[TodaysProfit]:
    """Return why the profit of today of each strategy is what it is; pure.

    Args:
        figures: The figures of now.
        so_far: The present day until now, and the close before it.
        opening: The holdings at that close: rows of `daily_positions`, with their `magnifier`; none
            if it is not recorded.
        movements: Rows of `movements`, from some days before that close on.
        settings: Says which types of holdings are followed.
    """
    book = figures.book
    present = _present_rows(book)
    between = movements_between(movements, opening, present, so_far, settings)

    days = (book.now - so_far.since) / A_DAY
    holdings = explain_holdings(opening, present, between.moved, days=days)
    holdings = _with_lost_closes(holdings, opening["account"], so_far.before)
    return _rows_of_groups(figures, so_far.since, _parts_of(book, holdings))


def _present_rows(book: Book) -> DataFrame:
    """Return the open holdings with the columns that `explain_holdings` reads."""
    open_holdings = book.priced.filter(col.position != 0)
    magnifiers = book.split.parts.unique(KEY)
    magnifiers = magnifiers.select(*KEY, col.magnifier.cast(Float64))
    return open_holdings.join(magnifiers, on=KEY, how="left", maintain_order="left")


def _with_lost_closes(holdings: DataFrame, recorded: Series, session: date) -> DataFrame:
    """Return holdings; those of accounts without a close, which their movements show, say so."""
    reason = lit(f"the close of {session} is not recorded")
    lacks_movements = IS_MISSING.any().over("account")
    is_lost = ~one_of("account", recorded) & lacks_movements
    return holdings.with_columns(why_unknown=when(is_lost).then(reason).otherwise("why_unknown"))


def _parts_of(book: Book, holdings: DataFrame) -> DataFrame:
    """Return the parts of holdings, each with its share of the explained profit."""
    parts = book.split.parts.drop(*PROFIT_PARTS, strict=False)
    explained = holdings.select(*KEY, *PROFIT_PARTS, "why_unknown", "is_split", "value_0")
    parts = parts.join(explained, on=KEY, how="left", maintain_order="left")
    parts = parts.with_columns(col(*PROFIT_PARTS, "value_0") * col.share)

    # The broker's profit of the day has no commissions.
    others = sum_horizontal("repricing", "trades", "assignments", "cash", ignore_nulls=False)
    return parts.with_columns(
        fees=when(col.why_unknown.is_null()).then(0.0),
        unexplained=col.daily_pnl - others - sum_horizontal(BY_GREEKS),
    )


# Strategy, account and currency.
_GROUP = ("strategy_id", "account", "currency")

# Whether the profit of the day of a part is known.
_IS_COUNTED = col.daily_pnl.is_not_null()

# The parts that `unexplained` completes.
_EXPLAINING = PROFIT_PARTS[:-1]


def _rows_of_groups(figures: Figures, since: datetime, parts: DataFrame) -> list[TodaysProfit]:
    """Return the rows in order, by strategy, account and currency.

    Args:
        parts: The parts of open holdings.
    """
    # All of what closed belongs to one strategy, or to none.
    owner = col.strategies.list.first().fill_null(UNATTRIBUTED)
    closed = figures.closed_today.with_columns(strategy_id=owner)
    closed = closed.group_by(_GROUP).agg(sum_if_known(col.today))
    closed_of = {row[:3]: row[3] for row in closed.iter_rows()}

    named = parts.with_columns(leg=names_of(parts))
    sums_of = _sums_of_groups(named).rows_by_key(_GROUP, named=True, unique=True)
    legs_of = _largest_legs(named).rows_by_key((*_GROUP, "part"), named=True)
    rows = []
    for group in sorted({*sums_of, *closed_of}):
        strategy, account, currency = group
        explained = _explained_parts(sums_of[group]) if group in sums_of else _NOTHING_OPEN
        largest = {
            name: [_largest_leg(account, leg) for leg in legs_of[*group, name]]
            for name in PROFIT_PARTS
            if explained[name] is not None and (*group, name) in legs_of
        }
        row = TodaysProfit(
            strategy=strategy,
            account=account,
            currency=currency,
            at=figures.at,
            since=since,
            closed=closed_of.get(group, 0.0),
            largest=largest,
            **explained,
        )
        rows.append(row)
    return rows


def _sums_of_groups(parts: DataFrame) -> DataFrame:
    """Return for each group its sums, which greeks do not carry theirs, and what is not known.

    Args:
        parts: The parts of open holdings, with the names of their contracts (`leg`).
    """
    unknown = pl.format("{}: {}", "leg", "why_unknown")
    left_out = pl.format("{}: its profit of the day, which is left out", "leg")
    sums = parts.group_by(_GROUP).agg(
        profit=sum_if_carried(col.daily_pnl),
        known=_IS_COUNTED.sum(),
        of=pl.len(),
        unknown=unknown.filter(_IS_COUNTED).drop_nulls(),
        left_out=left_out.filter(~_IS_COUNTED),
    )
    lacking = {f"{name}_lacks": sum_of_greek(name).is_null() for name in BY_GREEKS}
    counted = parts.filter(_IS_COUNTED).group_by(_GROUP).agg(col(PROFIT_PARTS).sum(), **lacking)
    return sums.join(counted, on=_GROUP, how="left")


def _explained_parts(sums: Mapping[str, Any]) -> dict[str, Any]:
    """Return the profit of a group, its parts, and what is not known.

    Args:
        sums: A row of `_sums_of_groups`.
    """
    profit = in_cents(sums["profit"])
    explained: dict[str, Any] = dict.fromkeys(PROFIT_PARTS)
    reasons = [*sums["unknown"], *sums["left_out"]]
    if profit is not None and not sums["unknown"]:
        split = split_in_cents(sums, "profit", _EXPLAINING, "unexplained")
        explained = {name: split[name] for name in PROFIT_PARTS}
        lacking = [name for name in BY_GREEKS if sums[f"{name}_lacks"]]
        if lacking:  # the legs whose greeks are known do not carry them
            explained |= dict.fromkeys([*lacking, "repricing"])
            reasons.insert(0, "too few legs have greeks: the change of the prices is in no part")

    return explained | {
        "profit": profit,
        "left_out": sums["of"] - sums["known"],
        "known": sums["known"],
        "of": sums["of"],
        "why_unknown": "; ".join(dict.fromkeys(reasons)) or None,
    }


# What is known of a group of which all has closed.
_NOTHING_OPEN: Mapping[str, Any] = dict.fromkeys((*PROFIT_PARTS, "profit")) | {
    "left_out": 0, "known": 0, "of": 0, "why_unknown": "nothing is open",
}  # fmt: skip


def _largest_legs(parts: DataFrame) -> DataFrame:
    """Return the largest legs of each part of the profit of each group, the largest first."""
    legs = parts.filter(_IS_COUNTED).unpivot(
        PROFIT_PARTS, index=(*_GROUP, "conid", "leg"), variable_name="part", value_name="amount"
    )
    size = col.amount.abs()
    legs = legs.filter(size > AMOUNT_ROUNDING).sort(size, descending=True, maintain_order=True)
    return legs.group_by(*_GROUP, "part", maintain_order=True).head(LARGEST)


def _largest_leg(account: str, leg: Mapping[str, Any]) -> LargestLeg:
    return LargestLeg(
        account=account, conid=leg["conid"], leg=leg["leg"], amount=cents(leg["amount"])
    )
