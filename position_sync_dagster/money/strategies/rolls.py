"""Rolls: positions that were traded away, and those that took their places; pure."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from operator import attrgetter

from position_sync_dagster.domain.holding import Key, grouped
from position_sync_dagster.domain.instrument import contract_name
from position_sync_dagster.domain.position_change import PositionChange
from position_sync_dagster.money.past.closes import SLACK, Cause, Closure
from position_sync_dagster.money.past.movements import Movement, MovementKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Roll:
    """A position that was traded away, and the one that took its place.

    Attributes:
        quantity: What was rolled, with its sign.
        complete: Whether nothing of the closed position is left.
        opened: The change that opened the other contract.
    """

    account: str
    at: datetime
    closed_conid: int
    closed_name: str
    quantity: float
    complete: bool
    opened: PositionChange

    @property
    def opened_name(self) -> str:
        """Return the new contract as a trader writes it."""
        return contract_name(self.opened)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnclearRoll:
    """Positions that were closed and opened; it is unclear which replaced which."""

    account: str
    closed: tuple[PositionChange, ...]
    opened: tuple[PositionChange, ...]

    def __str__(self) -> str:
        """Return which positions these are, for people."""
        closed = " and ".join(sorted(map(contract_name, self.closed)))
        opened = " and ".join(sorted(map(contract_name, self.opened)))
        return f"it is not clear which of {opened} took the place of {closed} of {self.account}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TradedChange:
    """A change of a quantity that one order made; its parts are one change.

    Attributes:
        order: The permanent id of the order.
        at: When its last trade was made.
    """

    change: PositionChange
    order: str
    at: datetime

    @property
    def terms(self) -> tuple[object, ...]:
        """What both sides of a roll have in common."""
        change = self.change
        quantity = change.closed or change.by
        return self.order, change.account, change.symbol, change.sec_type, change.right, quantity


def rolls_of(
    closures: Iterable[Closure], changes: Iterable[PositionChange], movements: Iterable[Movement]
) -> tuple[list[Roll], list[UnclearRoll]]:
    """Return the rolls, oldest first, and what may be one.

    Both sides have the same order, account, underlying, type and right, and equal quantities. Where
    an order closed or opened several of the same terms, the roll is unclear.

    Args:
        closures: The causes that count.
        movements: Those of the contracts; only trades with a time make a roll.
    """
    causes = grouped(attrgetter("change_id"), closures)
    trades = grouped(attrgetter("key"), movements)
    last_of: dict[tuple[Key, str], TradedChange] = {}
    for change in sorted(changes, key=attrgetter("seen_at", "change_id")):
        traded = _traded(change, trades[change.key])
        is_traded = all(closure.cause is Cause.TRADED for closure in causes[change.change_id])
        if traded is None or not is_traded:
            continue

        key = (change.key, traded.order)
        before = last_of.get(key)
        if before is not None and before.change.after == change.before:
            whole = replace(change, before=before.change.before, since=before.change.since)
            traded = replace(traded, change=whole)
        last_of[key] = traded

    rolls: list[Roll] = []
    unclear: list[UnclearRoll] = []
    for sides in grouped(attrgetter("terms"), last_of.values()).values():
        closed = [side for side in sides if side.change.closed and causes[side.change.change_id]]
        opened = [side for side in sides if not side.change.closed]
        if len(closed) == len(opened) == 1:
            rolls.append(_roll(closed[0], opened[0]))
        elif closed and opened:
            problem = UnclearRoll(
                account=closed[0].change.account,
                closed=tuple(side.change for side in closed),
                opened=tuple(side.change for side in opened),
            )
            unclear.append(problem)
    return sorted(rolls, key=attrgetter("at")), unclear


def _traded(change: PositionChange, trades: Iterable[Movement]) -> TradedChange | None:
    """Return a change with its order; None if no order, or several, may have made it."""
    begin = (change.since or change.seen_at) - SLACK
    end = change.seen_at + SLACK
    made_by = [
        (trade.at, trade.order_id)
        for trade in trades
        if trade.kind is MovementKind.TRADE
        and trade.at is not None
        and begin <= trade.at <= end
        and (trade.quantity or 0.0) * change.by > 0
    ]
    orders = {order for _at, order in made_by if order is not None}
    if len(orders) != 1:
        return None
    return TradedChange(change=change, order=orders.pop(), at=max(at for at, _order in made_by))


def _roll(close: TradedChange, opening: TradedChange) -> Roll:
    return Roll(
        account=close.change.account,
        at=opening.at,
        closed_conid=close.change.conid,
        closed_name=contract_name(close.change),
        quantity=close.change.closed,
        complete=close.change.after == 0,
        opened=opening.change,
    )
