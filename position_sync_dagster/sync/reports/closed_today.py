"""What a holding that closed today earned since the close of yesterday.

The broker's own formula of the day, in which commissions are no part, is (TWS Users' Guide, "Profit
and Loss"):

    position now × price now − position at the close × price at the close + net amount traded

Of what is gone the first term is 0, and the amount is in the movements. The second one follows from
one message of the broker, which names the value of a holding with its profit of the day: both are
of one moment. Where one of these is not known, the profit is not.
"""

from collections.abc import Sequence
from operator import attrgetter

from position_sync_dagster.domain.closes import PositionChange
from position_sync_dagster.domain.holding import Key, grouped
from position_sync_dagster.domain.leg import NEGLIGIBLE
from position_sync_dagster.domain.movements import Movement, known_sum
from position_sync_dagster.sync.reports.changes import Day


def closed_profits(day: Day) -> dict[Key, float | None]:
    """Return the profit of the day of each holding that moved today and is gone; pure.

    The profit is in the currency of the holding, and None if it is not known.
    """
    changes_of = grouped(attrgetter("key"), day.changes)
    movements_of = grouped(attrgetter("key"), day.movements)

    profits: dict[Key, float | None] = {}
    for key in changes_of.keys() | movements_of.keys():
        changes = sorted(changes_of[key], key=lambda change: change.seen_at)
        is_gone = not changes or changes[-1].after == 0
        if is_gone:
            profits[key] = _profit_of(changes, movements_of[key])
    return profits


def _profit_of(changes: Sequence[PositionChange], movements: Sequence[Movement]) -> float | None:
    """Return the profit of a holding that is gone; without changes it was never seen open."""
    held = changes[0].before if changes else 0.0
    moved = known_sum(movement.quantity for movement in movements)
    if moved is None or abs(held + moved) >= NEGLIGIBLE:
        return None

    at_close = _value_at_close(changes[0]) if held else 0.0
    received = known_sum(movement.cash for movement in movements)
    return None if at_close is None or received is None else received - at_close


def _value_at_close(change: PositionChange) -> float | None:
    """Return the value at the close of yesterday, by the last message before the first change."""
    if change.market_price is None or change.daily_pnl is None:
        return None
    value = change.market_price * change.before * change.multiplier
    return value - change.daily_pnl
