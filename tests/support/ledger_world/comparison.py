"""The world and what the program says of it, side by side: each difference is a line of text."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from typing import Any

from position_sync_dagster.money.past.booking import Booking
from tests.support.ledger_world.product import Played, name_in_graph
from tests.support.ledger_world.values import (
    ACCOUNTS,
    DAYS,
    EdgeName,
    EdgeSize,
    Money,
    PostingName,
    PostingSize,
    total,
)
from tests.support.ledger_world.world import World, campaigns_of

# Amounts in cents that differ by less are the same.
CLOSE = 0.01

# Numbers that belong to a name; None: not known.
Amounts = tuple[float | None, ...]
Sums = Mapping[Any, Amounts]


def differences(what: str, expected: Sums, actual: Sums) -> list[str]:
    """Return a line for each name of which the numbers differ, or that one side does not have."""
    lines = []
    for name in sorted({*expected, *actual}, key=str):
        if not _is_same(expected.get(name), actual.get(name)):
            is_numbers = f"{_shown(expected.get(name))}, and it says {_shown(actual.get(name))}"
            lines.append(f"{what} {name}: {is_numbers}")
    return lines


def _is_same(expected: Amounts | None, actual: Amounts | None) -> bool:
    if expected is None or actual is None:
        return expected is actual
    return len(expected) == len(actual) and all(
        (one is None and other is None)
        or (one is not None and other is not None and abs(one - other) < CLOSE)
        for one, other in zip(expected, actual, strict=True)
    )


def _shown(amounts: Amounts | None) -> str:
    if amounts is None:
        return "nothing"
    return "/".join("?" if amount is None else f"{amount:g}" for amount in amounts)


def _cents(amount: float | None) -> float | None:
    return None if amount is None else amount * 100


def _exact(amount: Money) -> float | None:
    return None if amount is None else float(amount)


# ---- the graph


def postings_of_world(world: World) -> Sums:
    """Return quantity, cash and fee of each posting."""
    return {name: tuple(map(_exact, size)) for name, size in world.books.postings.items()}


def postings_of(played: Played) -> Sums:
    """Return the same of the program."""
    sizes: defaultdict[PostingName, list[PostingSize]] = defaultdict(list)
    for posting in played.postings:
        name = PostingName(name_in_graph(posting), posting.owner, str(posting.effect))
        cash = None if posting.unknown else _cents(posting.cash)
        sizes[name].append((posting.quantity, cash, _cents(posting.fee)))  # type: ignore[arg-type]
    return {name: _summed(of_name) for name, of_name in sizes.items()}


def _summed(amounts: Iterable[Iterable[float | None]]) -> Amounts:
    """Return the sums of numbers, each unknown where one of them is."""
    return tuple(
        None if None in column else sum(column)  # type: ignore[arg-type]
        for column in zip(*amounts, strict=True)
    )


def edges_of_world(world: World, *, by_owner: bool) -> Sums:
    """Return by edge how much of what was opened, at what money, and how much of what took it."""
    sizes: defaultdict[Any, list[EdgeSize]] = defaultdict(list)
    for owner, edge in world.books.edges:
        if bool(owner) is by_owner:
            sizes[owner, *edge.name].append(edge.size)
    return {name: _summed([tuple(map(_exact, size)) for size in of]) for name, of in sizes.items()}


def edges_of(booking: Booking, *, by_owner: bool) -> Sums:
    """Return the same of the program."""
    sizes: defaultdict[Any, list[Any]] = defaultdict(list)
    for edge in booking.edges:
        opened, by = edge.opened, edge.by
        names = ("", "")
        amounts: tuple[float | None, float | None] = (0.0, 0.0)
        if opened is not None:
            names = (name_in_graph(opened.posting), _through(opened))
            amounts = (opened.quantity, _cents(opened.cash))
        is_brought = edge.kind == "CAME_FROM"
        name = EdgeName(
            str(edge.kind), *names, _through(by) if is_brought else name_in_graph(by.posting)
        )
        owner = by.posting.owner if by_owner else ""
        sizes[owner, *name].append((*amounts, by.quantity, _cents(by.cash)))
    return {name: _summed(of_name) for name, of_name in sizes.items()}


def _through(share: Any) -> str:
    return "" if share.brought_by is None else name_in_graph(share.brought_by)


def held_in_world(world: World, *, by_owner: bool) -> Sums:
    """Return what is left: quantity and money of each parcel."""
    sizes: defaultdict[Any, list[Any]] = defaultdict(list)
    for (owner, *place), parcels in world.books.queues.items():
        if bool(owner) is by_owner:
            for parcel in parcels:
                name = (owner, *place, parcel.name, parcel.through)
                sizes[name].append((float(parcel.quantity), _exact(parcel.money)))
    return {name: _summed(of_name) for name, of_name in sizes.items()}


def held_of(booking: Booking, *, by_owner: bool) -> Sums:
    """Return the same of the program."""
    sizes: defaultdict[Any, list[Any]] = defaultdict(list)
    for shares in booking.held.values():
        for share in shares:
            owner = share.posting.owner if by_owner else ""
            name = (owner, *share.key, name_in_graph(share.posting), _through(share))
            sizes[name].append((share.quantity, _cents(share.cash)))
    return {name: _summed(of_name) for name, of_name in sizes.items()}


def not_conserved(world: World, booking: Booking, *, by_owner: bool) -> list[str]:
    """Return what edges took and what is left of it do not make, of quantity and of cost.

    What was brought is counted by the world.
    """
    expected: defaultdict[Any, list[Any]] = defaultdict(list)
    actual: defaultdict[Any, list[Any]] = defaultdict(list)
    for name, amounts in [
        *edges_of_world(world, by_owner=by_owner).items(),
        *held_in_world(world, by_owner=by_owner).items(),
    ]:
        expected[_opening_in(name)].append(amounts[:2])
    for name, amounts in [
        *edges_of(booking, by_owner=by_owner).items(),
        *held_of(booking, by_owner=by_owner).items(),
    ]:
        actual[_opening_in(name)].append(amounts[:2])
    return differences(
        "opened",
        {name: _summed(of_name) for name, of_name in expected.items()},
        {name: _summed(of_name) for name, of_name in actual.items()},
    )


def _opening_in(name: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return owner, opening and what brought it, of an edge or of what is left."""
    if len(name) == 5 and isinstance(name[2], int):
        return name[0], name[3], name[4]
    return name[0], name[2], name[3]


def graph_differences(played: Played) -> list[str]:
    """Return where postings and edges are not those of the world."""
    world = played.world
    lines = differences("posting", postings_of_world(world), postings_of(played))
    for by_owner, booking in ((True, played.by_owner), (False, played.by_account)):
        expected = edges_of_world(world, by_owner=by_owner)
        lines += differences("edge", expected, edges_of(booking, by_owner=by_owner))
        held = held_in_world(world, by_owner=by_owner)
        lines += differences("held", held, held_of(booking, by_owner=by_owner))
    return lines


# ---- what follows from it


def live_differences(played: Played) -> list[str]:
    """Return where what is realised at average cost, and what is left, are not the world's."""
    world = played.world
    strategies = {owner for owner in world.owners if owner != "UNATTRIBUTED"}
    realised = {owner: (_exact(world.books.realised[owner]),) for owner in strategies}
    lots = {
        (owner, account, conid): (float(pool.quantity), _exact(pool.money))
        for (owner, account, conid), pool in world.books.pools.items()
        if owner in strategies
    }
    says = {owner: (_cents(money.realised),) for (owner, _currency), money in played.live.items()}
    has = {
        (owner, *key): (share.quantity, _cents(share.cash))
        for (owner, _currency), money in played.live.items()
        for key, share in money.lots.items()
    }
    return differences("realised", realised, says) + differences("live", lots, has)


def campaigns_in_world(world: World) -> Sums:
    """Return how many campaigns are over, by what names them, and their profit."""
    over, _others = campaigns_of(world)
    counts: defaultdict[Any, list[Any]] = defaultdict(list)
    for campaign in over:
        name = (campaign.owner, campaign.account, campaign.opened, campaign.closed)
        counts[*name, tuple(sorted(campaign.conids))].append((1, _exact(campaign.profit)))
    return {name: _summed(of_name) for name, of_name in counts.items()}


def campaigns_in(played: Played) -> Sums:
    """Return the same of the program."""
    counts: defaultdict[Any, list[Any]] = defaultdict(list)
    for row in played.campaigns:
        conids = tuple(sorted(map(int, row.conids.split(","))))
        name = (row.strategy_id, row.account, row.opened, row.closed, conids)
        counts[name].append((1, _cents(row.profit)))
    return {name: _summed(of_name) for name, of_name in counts.items()}


def lots_in_world(world: World) -> Sums:
    """Return quantity, profit and cost or proceeds of the opening, of closed lots and held ones."""
    numbers = {str(booking.number): booking for booking in world.bookings}
    sizes: defaultdict[Any, list[Any]] = defaultdict(list)
    for owner, edge in world.books.edges:
        if owner or edge.kind not in ("CLOSES", "PAYS"):
            continue
        opened = None if edge.opened is None else numbers.get(edge.opened.name)
        closed = numbers.get(edge.by.name)
        conid, account, day = _closing_of(world, edge.by.name)
        since = None if opened is None else opened.day
        name = (account, conid, since, day if closed is None else closed.day)
        sizes[name].append((float(edge.size.quantity), _exact(edge.gain)))
    for (owner, account, conid), parcels in world.books.queues.items():
        for parcel in () if owner else parcels:
            opened = numbers.get(parcel.name)
            since = None if opened is None else opened.day
            sizes[account, conid, since, None].append((float(parcel.quantity), None))
    return {name: _summed(of_name) for name, of_name in sizes.items()}


def _closing_of(world: World, name: str) -> tuple[int, str, Any]:
    for booking in (*world.bookings, *(gone.booking for gone in world.gone)):
        gone = f"gone:{booking.account}:{booking.contract.conid}" if booking.contract else ""
        if name in (booking.name, gone) and booking.contract is not None:
            if name == gone and booking.section != "Gone":
                continue
            return booking.contract.conid, booking.account, booking.day
    raise AssertionError(name)


def lots_in(played: Played) -> Sums:
    """Return the same of the program."""
    sizes: defaultdict[Any, list[Any]] = defaultdict(list)
    for lot in played.lots:
        name = (lot.account, lot.conid, lot.opened, lot.closed)
        sizes[name].append((lot.quantity, _cents(lot.profit)))
    return {name: _summed(of_name) for name, of_name in sizes.items()}


def days_in_world(world: World) -> Sums:
    """Return the profit of each owner, account and day but the first."""
    return {
        (owner, account, day): (_exact(world.profit_of_day(owner, account, day)),)
        for owner in world.owners
        for account in ACCOUNTS
        for day in DAYS[1:]
        if world.has_rows(owner, account, day)
    }


def days_in(played: Played) -> Sums:
    """Return the same of the program."""
    return {
        (row["strategy_id"], row["account"], day): (_cents(row["profit"]),)
        for day, rows in played.days.items()
        for row in rows.iter_rows(named=True)
    }


def unknown_rows(rows: Mapping[str, Sums]) -> set[tuple[Any, ...]]:
    """Return the names of all rows of which an amount is not known, of several kinds of rows."""
    return {
        (kind, name)
        for kind, sums in rows.items()
        for name, amounts in sums.items()
        if None in amounts
    }


def rows_of_world(world: World) -> dict[str, Sums]:
    """Return all rows of the world, by their kind."""
    return {
        "posting": postings_of_world(world),
        "edge of an owner": edges_of_world(world, by_owner=True),
        "edge of an account": edges_of_world(world, by_owner=False),
        "held of an owner": held_in_world(world, by_owner=True),
        "held of an account": held_in_world(world, by_owner=False),
        "campaign": campaigns_in_world(world),
        "lot": lots_in_world(world),
        "day": days_in_world(world),
    }


def rows_of(played: Played) -> dict[str, Sums]:
    """Return all rows of the program, by their kind."""
    return {
        "posting": postings_of(played),
        "edge of an owner": edges_of(played.by_owner, by_owner=True),
        "edge of an account": edges_of(played.by_account, by_owner=False),
        "held of an owner": held_of(played.by_owner, by_owner=True),
        "held of an account": held_of(played.by_account, by_owner=False),
        "campaign": campaigns_in(played),
        "lot": lots_in(played),
        "day": days_in(played),
    }


def all_differences(played: Played) -> list[str]:
    """Return all differences between the world and the program."""
    expected, actual = rows_of_world(played.world), rows_of(played)
    lines = [line for kind in expected for line in differences(kind, expected[kind], actual[kind])]
    return lines + live_differences(played)


__all__ = ["Callable", "Counter", "Fraction", "all_differences", "total"]
