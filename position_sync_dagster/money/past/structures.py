"""What belongs together, from when something is held until nothing is; pure.

Of a strategy that is all that it has. What is in no strategy is divided into structures: contracts
that one order traded, what they delivered, the options that were sold while that was held, and
those that took their place.

A roll is one order that closes contracts and opens others, or several orders of one trading day: as
much of a series and a side is opened as is closed of what was opened on an earlier day.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import date, datetime
from itertools import chain, groupby
from operator import attrgetter

from position_sync_dagster.domain.holding import Key, grouped
from position_sync_dagster.domain.leg import UNATTRIBUTED
from position_sync_dagster.money.past.connected import Groups
from position_sync_dagster.money.past.movements import rounded
from position_sync_dagster.money.past.postings import Effect, Posting

_Stay = Sequence[Posting]

# What may be a roll, by what its postings have in common.
_Moves = defaultdict[tuple[object, ...], list[Posting]]

# What both sides of a roll have in common. Of one symbol may be a share and a future: the type
# says which of them an option is on.
SERIES = attrgetter("account", "symbol", "sec_type", "right")


def is_held(postings: Iterable[Posting]) -> bool:
    """Return whether postings leave something."""
    quantities: defaultdict[Key, float] = defaultdict(float)
    for part in postings:
        quantities[part.key] += part.quantity
    return any(map(rounded, quantities.values()))


def stays_of(postings: Iterable[Posting]) -> list[list[Posting]]:
    """Return the postings from when something is held until nothing is at a close, each time.

    Cash that comes later belongs to the last one. The last one may go on.

    Args:
        postings: Those of one owner, or of one holding of an owner.
    """
    by_session = sorted(postings, key=attrgetter("session", "at"))
    # What an action took may come as something else days later.
    came_on = {
        source: part.session
        for part in by_session
        if part.effect is Effect.COMES
        for source in part.came_from
    }
    stays: list[list[Posting]] = [[]]
    is_over = False
    for session, of_session in groupby(by_session, key=attrgetter("session")):
        new = list(of_session)
        if is_over and any(part.quantity for part in new):
            stays.append([])

        stay = stays[-1]
        stay += new
        is_over = not is_held(stay) and not any(
            came_on.get(part.posting_id, session) > session for part in stay
        )
    return [stay for stay in stays if any(part.quantity or part.unknown for part in stay)]


def structures_of(postings: Iterable[Posting]) -> Iterator[list[Posting]]:
    """Yield the structures of an account, each in order of time.

    Joined are the stays of contracts that one order traded, what came with what it came from (an
    option, or what a corporate action took), and what took the place of something.

    Args:
        postings: Those of no strategy.
    """
    stays = [
        stay
        for of_holding in grouped(attrgetter("key"), postings).values()
        for stay in stays_of(of_holding)
    ]
    parts = list(chain.from_iterable(stays))
    orders = grouped(attrgetter("movement.order_id"), [part for part in parts if part.is_trade])
    orders.pop(None, None)
    joined = [*orders.values(), *rolls_of(parts), *_covered(stays)]
    together = [[part.posting_id for part in group] for group in joined]
    together += [[part.posting_id, *part.came_from] for part in parts]

    for structure in _joined(stays, together):
        yield sorted(structure, key=attrgetter("at", "key"))


def joined_by_transfers(stays: Sequence[_Stay]) -> Sequence[_Stay]:
    """Return stays, those between whose accounts a transfer carried something as one."""
    carried = [part for stay in stays for part in stay if part.is_carried]
    if not carried:
        return stays
    together = [[part.posting_id, *part.came_from] for part in carried]
    joined: Sequence[_Stay] = [*_joined(stays, together)]
    while meeting := [*_meeting(joined)]:
        joined = [*_joined(joined, meeting)]
    return [sorted(stay, key=_after_it_left) for stay in joined]


def _meeting(stays: Sequence[_Stay]) -> Iterator[list[str]]:
    """Yield an id of each of two stays of a strategy, of which one went to an account of the other.

    Its campaign lasts until nothing is left there.
    """
    for stay in stays:
        owner, accounts = stay[0].owner, _accounts(stay)
        if len(accounts) == 1 or owner == UNATTRIBUTED:
            continue

        begins, ends = _span(stay)
        for other in stays:
            if other is stay or other[0].owner != owner or accounts.isdisjoint(_accounts(other)):
                continue
            other_begins, other_ends = _span(other)
            if max(begins, other_begins) <= min(ends, other_ends):
                yield [stay[0].posting_id, other[0].posting_id]


def _accounts(stay: _Stay) -> set[str]:
    return {part.movement.account for part in stay}


def _span(stay: _Stay) -> tuple[date, date]:
    """Return the first day on which something is held, and the last one."""
    days = [part.session for part in stay if part.quantity or part.unknown]
    return min(days), date.max if is_held(stay) else max(days)


def is_between_accounts(postings: Sequence[Posting], day: date) -> bool:
    """Return whether something has left one account at the close of a day, or come, and not both.

    Args:
        postings: All of a campaign.
    """
    return any(
        (left.session <= day) is not (came.session <= day)
        for left, came in between_accounts(postings)
    )


def between_accounts(postings: Sequence[Posting]) -> Iterator[tuple[Posting, Posting]]:
    """Yield what left an account with what came for it to another one."""
    carried = {part.posting_id: part for part in postings if part.is_carried}
    for came in carried.values():
        for source in came.came_from:
            if source in carried:
                yield carried[source], came


def _after_it_left(part: Posting) -> tuple[date, datetime, bool]:
    """Return the sort key; what is carried leaves one account before it comes to the other."""
    return part.session, part.at, part.is_carried and part.opens


def _joined(stays: Sequence[_Stay], together: Iterable[Iterable[str]]) -> Iterator[list[Posting]]:
    """Yield the postings of stays, of those as one that have postings which belong together.

    Args:
        together: The ids of such postings.
    """
    numbers = {part.posting_id: number for number, stay in enumerate(stays) for part in stay}
    groups = Groups(range(len(stays)))
    for names in together:
        first, *others = [numbers[name] for name in names if name in numbers]
        for number in others:
            groups.join(first, number)

    for members in groups.members():
        yield [part for number in members for part in stays[number]]


def _covered(stays: Sequence[_Stay]) -> Iterator[_Stay]:
    """Yield what an option had delivered, with each option that was sold while that was held."""
    delivered = defaultdict(list)
    for stay in stays:
        first = stay[0]
        if first.came_from and first.effect is Effect.OPENS:
            delivered[first.movement.symbol].append(stay)

    for sold, *_later in stays:
        if not sold.is_option or sold.quantity >= 0:
            continue
        for stay in delivered[sold.movement.symbol]:
            is_begun = stay[0].at <= sold.at
            if is_begun and (sold.at <= stay[-1].at or is_held(stay)):
                yield stay[0], sold


# ---- rolls


def replaces(closed: Collection[Key], opened: Iterable[Key]) -> bool:
    """Return whether something took the place of what was closed: another contract was opened."""
    return bool(closed) and not set(closed).issuperset(opened)


def rolls_of(postings: Iterable[Posting]) -> list[list[Posting]]:
    """Return what closed some options and opened others in their place, each roll in order.

    It tells what one owner did, also by several orders of a day. Which leg a strategy has now is
    the question of `rolled_legs`.

    Args:
        postings: Those of one owner and account, in order of time.
    """
    traded = [part for part in postings if part.is_trade and part.is_option]
    rolled: _Moves = defaultdict(list)
    opened_on = {part.key: part.session for part in reversed(traded)}
    by_side: _Moves = defaultdict(list)
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
    by_way = defaultdict(set)
    for part in postings:
        by_way[part.opens].add(part.key)
    return replaces(by_way[False], by_way[True])
