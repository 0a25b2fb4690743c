"""Rolls: what was closed, and what took its place; pure.

A roll is one order that closes contracts and opens others, or several orders of one trading day: as
much of a series and a side is opened as is closed of what was opened on an earlier day.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable
from operator import attrgetter

from position_sync_dagster.domain.holding import Key, grouped
from position_sync_dagster.money.past.movements import rounded
from position_sync_dagster.money.past.postings import Posting

# What both sides of a roll have in common. Of one symbol may be a share and a future: the type
# says which of them an option is on.
SERIES = attrgetter("account", "symbol", "sec_type", "right")


def replaces(closed: Collection[Key], opened: Iterable[Key]) -> bool:
    """Return whether something took the place of what was closed: another contract was opened."""
    return bool(closed) and not set(closed).issuperset(opened)


def rolls_of(postings: Iterable[Posting]) -> list[list[Posting]]:
    """Return what closed some options and opened others in their place, each roll in order.

    Args:
        postings: Those of one owner and account, in order of time.
    """
    traded = [part for part in postings if part.is_trade and part.is_option]
    rolled: defaultdict[tuple[object, ...], list[Posting]] = defaultdict(list)
    opened_on = {part.key: part.session for part in reversed(traded)}
    by_side: defaultdict[tuple[object, ...], list[Posting]] = defaultdict(list)
    for order, of_order in grouped(attrgetter("movement.order_id"), traded).items():
        if order is not None and _is_roll(of_order):
            rolled[order,] = of_order
            continue

        for part in of_order:
            is_short = (part.quantity < 0) is part.opens
            if part.opens or opened_on[part.key] < part.session:
                by_side[part.session, *SERIES(part.movement), is_short].append(part)

    for (*day_and_underlying, _right, _is_short), moved in by_side.items():
        if _is_roll(moved) and not rounded(sum(part.quantity for part in moved)):
            rolled[tuple(day_and_underlying)] += moved
    return [sorted(moved, key=attrgetter("at")) for moved in rolled.values()]


def _is_roll(postings: Iterable[Posting]) -> bool:
    by_way = grouped(attrgetter("opens"), postings)
    return replaces({part.key for part in by_way[False]}, {part.key for part in by_way[True]})
