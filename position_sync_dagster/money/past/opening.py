"""What was held before the first movement of each holding, and what it had cost: decided once."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from polars import DataFrame, Expr, coalesce, col, concat, min_horizontal, struct, when

from position_sync_dagster.domain.clock import A_DAY
from position_sync_dagster.domain.exchange_time import exchange_date
from position_sync_dagster.domain.holding import KEY, QUANTITY_ROUNDING, Key
from position_sync_dagster.lake.broker_positions import newest
from position_sync_dagster.lake.schema import DAILY_POSITIONS, moment, one_of
from position_sync_dagster.money.lake import MoneyLake, derived_rows
from position_sync_dagster.money.past.closes import SLACK
from position_sync_dagster.money.past.movements import (
    BOOKED,
    CLOSED,
    CONTRACT,
    ENDS,
    Movement,
    MovementKind,
    MovementSource,
    Section,
    known_sum,
    moment_in,
    rounded,
    times,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What was held of a holding before its first movement.

    Attributes:
        quantity: With its sign; 0: nothing.
        cost: What one unit had cost, by the broker; None: it never said it. Where nothing was held,
            that of what a transfer brought first.
        contract: Of a holding without movements: what was held, as one.
        seen_at: When it was seen first; None: the movements say it.
    """

    quantity: float
    cost: float | None = None
    contract: Movement | None = None
    seen_at: datetime | None = field(default=None, compare=False)


def opening_of(movements: Sequence[Movement], held: Opening | None) -> Opening:
    """Return what was held before the first of all movements of a holding; pure.

    Args:
        movements: In order.
        held: What tables have of it; None: the movements say it.
    """
    opening = held or Opening(quantity=_closed_without_opening(movements))
    if opening.cost is None and opening.quantity:
        return replace(opening, cost=_cost_by_its_close(movements, opening.quantity))

    cost = None if opening.quantity else _cost_of_transfer(movements)
    return opening if cost is None else replace(opening, cost=cost)


def _closed_without_opening(movements: Iterable[Movement]) -> float:
    """Return what movements closed that none of them opened.

    A trade that the broker calls a close, and the end of an option, closed what was held.
    """
    total = 0.0
    missing_long = 0.0
    missing_short = 0.0
    for movement in movements:
        # The cash of a settlement has a row without quantity, before or after that of its end.
        by = movement.change
        total = rounded(total + by)
        if by > 0 and _is_close(movement):
            missing_short = max(missing_short, total)
        elif by < 0 and _is_close(movement):
            missing_long = max(missing_long, -total)
    if missing_long and missing_short:
        return 0.0
    return missing_long - missing_short


def _is_close(movement: Movement) -> bool:
    if movement.kind is MovementKind.TRADE:
        return movement.open_close == CLOSED
    return movement.is_option and movement.kind in ENDS


# What ends a holding with a profit of its own; that of a delivered option is in what came.
_REALISING = frozenset({
    MovementKind.TRADE, MovementKind.EXPIRATION, MovementKind.CASH_SETTLEMENT,
})  # fmt: skip


def _cost_by_its_close(movements: Iterable[Movement], quantity: float) -> float | None:
    """Return what one unit had cost, by the profits that the broker states of its closes.

    Statements write 0 where they state none.
    """
    unclosed = quantity
    costs = []
    for movement in movements:
        by = movement.change
        if by * quantity >= 0:
            continue

        unclosed = rounded(unclosed + by)
        is_stated = movement.kind in _REALISING and movement.realized_pnl
        if not is_stated or unclosed * quantity < 0:
            return None

        costs += [movement.cash, movement.fee, times(movement.realized_pnl, -1.0)]
        if not unclosed:
            return times(known_sum(costs), 1 / quantity)
    return None


def _cost_of_transfer(movements: Iterable[Movement]) -> float | None:
    """Return what one unit of the only transfer had cost, by the profits of what closed it."""
    held = 0.0
    came: float | None = None
    amounts: list[float | None] = []
    for movement in movements:
        by = movement.change
        is_close = held * by < 0
        held = rounded(held + by)
        if movement.kind is MovementKind.TRANSFER:
            if is_close or came is not None or not by:
                return None
            came = by
            continue

        amounts += [movement.cash, movement.fee]
        if is_close:
            if movement.kind not in _REALISING or not movement.realized_pnl:
                return None
            amounts.append(-movement.realized_pnl)
        if not held:
            if came is not None:
                return times(known_sum(amounts), 1 / came)
            amounts.clear()
    return None


# ---- what tables have of it

_HELD = (*KEY, "position", "average_cost", *CONTRACT)


class Seen(NamedTuple):
    """What tables have of holdings.

    Attributes:
        changes: Rows of `position_changes`.
        daily: Rows of `daily_positions`, with `is_held`: whether it still is.
        reported: Rows of `broker_positions`.
    """

    changes: DataFrame
    daily: DataFrame
    reported: DataFrame


def read_seen(lake: MoneyLake, conids: Collection[int], until: datetime | None = None) -> Seen:
    """Return what tables have of the holdings of some contracts; blocks.

    Args:
        until: What is later is not known yet; None: all is.
    """
    are_concerned = one_of("conid", conids)
    names = ["change_id", *KEY, "before", "after", "average_cost", *CONTRACT, "seen_at", "since"]
    changes = lake.position_changes.rows(None, are_concerned, names)
    table = lake.derived_table(DAILY_POSITIONS)
    daily = _steps_at_closes(lake, table.version() if table.exists() else -1)
    daily = daily.filter(are_concerned)
    reported = newest(lake.broker_positions.table.rows(are_concerned))
    if until is not None:
        changes = changes.filter(col.seen_at <= moment(until))
        daily = daily.filter(col.closed_at <= moment(until))
        reported = reported.clear()  # how it was then is not kept
    return Seen(changes, daily, reported)


@lru_cache(maxsize=2)
def _steps_at_closes(lake: MoneyLake, _version: int) -> DataFrame:
    """Return the closes before and after which a holding had another quantity, or cost.

    They are remembered until another day is recorded: a large book has millions of rows in a year.
    """
    columns = ["session_date", "closed_at", "timestamp", *_HELD]
    rows = derived_rows(lake.derived_table(DAILY_POSITIONS), columns=columns).sort("session_date")
    held = struct("position", "average_cost")
    last = col.session_date.max()
    rows = rows.with_columns(is_held=last.over(KEY) == last.over("account"))
    is_new = held.ne_missing(held.shift().over(KEY))
    next_position = col.position.shift(-1).over(KEY)
    return rows.filter(is_new | next_position.ne(col.position).fill_null(~col.is_held))


def openings_of(movements: DataFrame, seen: Seen) -> DataFrame:
    """Return what was held before the first movements, by what was seen before them; pure.

    The last close before it counts, then what the first change shows. Of what no movement moved it
    is what the first change shows, or what is held now, by the broker or at the last close.

    Args:
        movements: Rows of `movements`: all of each holding.
        seen: What tables have of the holdings, also of what no movement moved.
    """
    first = _first_movements(movements)
    changes, daily, reported = seen
    daily = daily.sort("session_date").with_columns(at="closed_at")
    first_close = daily.unique(KEY, keep="first", maintain_order=True)
    closes = daily.join(first, on=KEY, maintain_order="left").filter(
        col.session_date < col.first_day
    )
    closes = closes.unique(KEY, keep="last", maintain_order=True)

    first_changes = changes.sort("seen_at").unique(KEY, keep="first", maintain_order=True)
    first_changes = first_changes.with_columns(position="before", at=coalesce("since", "seen_at"))
    first_changes = first_changes.join(first, on=KEY, how="left")
    first_changes = first_changes.filter(col.about.is_null() | _is_before(col.at))

    at_close = daily.filter("is_held").unique(KEY, keep="last", maintain_order=True)
    unmoved = [
        held.join(first, on=KEY, how="anti")
        for held in (reported.with_columns(at="position_time"), at_close)
    ]
    held_then = [held.select(*_HELD, "at") for held in (closes, first_changes, *unmoved)]
    rows = concat([*held_then, _all_moved(movements, first_close)], how="diagonal_relaxed")

    # Whatever says how much it was, it may have been held at a close long before.
    since = first_close.select(*KEY, first_close="closed_at")
    rows = rows.join(since, on=KEY, how="left", maintain_order="left")

    # Of the same quantity another source may say what it had cost.
    cost = col.average_cost.filter(col.position == col.position.first()).drop_nulls().first()
    openings = rows.group_by(KEY, maintain_order=True).agg(
        col("position", *CONTRACT).first(),
        at=min_horizontal("at", "first_close").first(),
        average_cost=cost,
    )
    openings = openings.join(first.select(*KEY, "about"), on=KEY, how="left")
    openings = openings.filter((col.position != 0) | col.about.is_not_null())
    openings = openings.join(_transferred_costs(daily, first), on=KEY, how="left")
    of_unit = when(col.position == 0).then(col.transferred_cost).otherwise(col.average_cost)
    return openings.with_columns(average_cost=of_unit)


def openings_in(rows: DataFrame) -> dict[Key, Opening]:
    """Return the openings that rows of `openings_of` are."""
    return {
        (row["account"], row["conid"]): Opening(
            quantity=row["position"],
            cost=row["average_cost"],
            contract=_contract_of(row) if row["about"] is None else None,
            seen_at=row["at"],
        )
        for row in rows.iter_rows(named=True)
    }


def _all_moved(movements: DataFrame, first_close: DataFrame) -> DataFrame:
    """Return the holdings of which nothing was held before: their first close was all moved."""
    until = first_close.select(*KEY, "position", "closed_at", until="session_date")
    moved = movements.join(until, on=KEY)
    moved = moved.filter(col.session_date <= col.until)
    left = moved.group_by(KEY).agg(
        position=col.position.first() - col.quantity.sum(), at=col.closed_at.first()
    )
    return left.filter(col.position.abs() < QUANTITY_ROUNDING).with_columns(position=0.0)


def _transferred_costs(daily: DataFrame, first: DataFrame) -> DataFrame:
    """Return what a unit of each holding had cost that came by a transfer before anything else.

    The broker may learn only later what it had cost elsewhere.
    """
    arrived = daily.join(first.filter("is_transfer"), on=KEY)
    arrived = arrived.filter(col.session_date >= col.first_day, position=col.by)
    arrived = arrived.drop_nulls("average_cost").sort("session_date")
    return arrived.unique(KEY, keep="last").select(*KEY, transferred_cost="average_cost")


def _first_movements(movements: DataFrame) -> DataFrame:
    """Return when about the first movement of each holding was, and by how much it moved it."""
    moved = movements.drop_nulls("conid").filter(col.quantity != 0)
    moved = moved.select(
        *KEY,
        about=moment_in(),
        by="quantity",
        is_timed=col.at.is_not_null(),
        is_trade=col.kind == MovementKind.TRADE.value,
        is_transfer=col.kind == MovementKind.TRANSFER.value,
        first_day=col.session_date.min().over(KEY),
    )
    return moved.sort("about").unique(KEY, keep="first", maintain_order=True)


def _is_before(held_at: Expr) -> Expr:
    """Return whether a quantity was seen before the first movement, as far as times say it.

    What the broker books by itself is seen later than it is booked: it is the change, if that goes
    the same way.
    """
    is_this_change = col.by * (col.after - col.before) > 0
    is_booked = is_this_change & ~col.is_trade
    tolerance = when(is_booked).then(BOOKED).when("is_timed").then(SLACK).otherwise(A_DAY)
    return col.about >= held_at - tolerance


def _contract_of(row: Mapping[str, Any]) -> Movement:
    """Return what was held, as a movement of which nothing but its contract and time are known."""
    day = exchange_date(row["at"])
    return Movement(
        movement_id=f"HELD:{row['account']}:{row['conid']}",
        kind=MovementKind.TRADE,
        section=Section.TRADES,
        source=MovementSource.INFERRED,
        account=row["account"],
        conid=row["conid"],
        day=day,
        session_date=day,
        **{name: row[name] for name in (*CONTRACT, "at")},
    )
