"""The world and what the program says of it, side by side: each difference is a line of text."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from itertools import product
from typing import Any

from position_sync_dagster.money.past.booking import Booking
from tests.support.ledger_world.product import Played, name_in_graph
from tests.support.ledger_world.values import (
    ACCOUNTS,
    NOBODY,
    EdgeName,
    Money,
    PostingName,
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
        of_world, of_program = expected.get(name), actual.get(name)
        if not _is_same(of_world, of_program):
            numbers = f"{_shown(of_world)}, and it says {_shown(of_program)}"
            lines.append(f"{what} {name}: {numbers}")
    return lines


def _is_same(expected: Amounts | None, actual: Amounts | None) -> bool:
    if expected is None or actual is None:
        return expected is actual
    return len(expected) == len(actual) and all(map(_is_near, expected, actual))


def _is_near(expected: float | None, actual: float | None) -> bool:
    if expected is None or actual is None:
        return expected is actual
    return abs(expected - actual) < CLOSE


def _shown(amounts: Amounts | None) -> str:
    if amounts is None:
        return "nothing"
    return "/".join("?" if amount is None else f"{amount:g}" for amount in amounts)


def _cents(amount: float | None) -> float | None:
    return None if amount is None else amount * 100


def _exact(amount: Money) -> float | None:
    return None if amount is None else float(amount)


# ---- the graph


def postings_of_world(world: World) -> dict[PostingName, Amounts]:
    """Return quantity, cash and fee of each posting."""
    return {name: tuple(map(_exact, size)) for name, size in world.books.postings.items()}


def postings_of(played: Played) -> Sums:
    """Return the same of the program."""
    sizes: defaultdict[PostingName, list[Amounts]] = defaultdict(list)
    for posting in played.postings:
        name = PostingName(name_in_graph(posting), posting.owner, str(posting.effect))
        cash = None if posting.unknown else _cents(posting.cash)
        sizes[name].append((posting.quantity, cash, _cents(posting.fee)))
    return {name: _summed(of_name) for name, of_name in sizes.items()}


def _summed(amounts: Iterable[Iterable[float | None]]) -> Amounts:
    """Return the sums of numbers, each unknown where one of them is."""
    return tuple(
        None if None in column else sum(column)  # type: ignore[arg-type]
        for column in zip(*amounts, strict=True)
    )


def edges_of_world(world: World, *, by_owner: bool) -> Sums:
    """Return by edge how much of what was opened, at what money, and how much of what took it."""
    sizes: defaultdict[Any, list[Amounts]] = defaultdict(list)
    for owner, edge in world.books.edges:
        if bool(owner) is by_owner:
            sizes[owner, *edge.name].append(tuple(map(_exact, edge.size)))
    return {name: _summed(of_name) for name, of_name in sizes.items()}


def edges_of(booking: Booking, *, by_owner: bool) -> Sums:
    """Return the same of the program."""
    sizes: defaultdict[Any, list[Amounts]] = defaultdict(list)
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
    sizes: defaultdict[Any, list[Amounts]] = defaultdict(list)
    for (owner, *place), parcels in world.books.queues.items():
        if bool(owner) is by_owner:
            for parcel in parcels:
                name = (owner, *place, parcel.name, parcel.through)
                sizes[name].append((float(parcel.quantity), _exact(parcel.money)))
    return {name: _summed(of_name) for name, of_name in sizes.items()}


def held_of(booking: Booking, *, by_owner: bool) -> Sums:
    """Return the same of the program."""
    sizes: defaultdict[Any, list[Amounts]] = defaultdict(list)
    for shares in booking.held.values():
        for share in shares:
            owner = share.posting.owner if by_owner else ""
            name = (owner, *share.key, name_in_graph(share.posting), _through(share))
            sizes[name].append((share.quantity, _cents(share.cash)))
    return {name: _summed(of_name) for name, of_name in sizes.items()}


def openings_of_world(world: World, *, by_owner: bool) -> Sums:
    """Return how much of each opening edges took and is left, of quantity and of cost."""
    edges = edges_of_world(world, by_owner=by_owner)
    return _of_openings(edges, held_in_world(world, by_owner=by_owner))


def openings_of(booking: Booking, *, by_owner: bool) -> Sums:
    """Return the same of the program."""
    edges = edges_of(booking, by_owner=by_owner)
    return _of_openings(edges, held_of(booking, by_owner=by_owner))


def _of_openings(edges: Sums, held: Sums) -> Sums:
    sizes: defaultdict[Any, list[Amounts]] = defaultdict(list)
    for (owner, _kind, opened, through, _by), (quantity, money, *_by_sizes) in edges.items():
        sizes[owner, opened, through].append((quantity, money))
    for (owner, _account, _conid, opened, through), amounts in held.items():
        sizes[owner, opened, through].append(amounts)
    return {name: _summed(of_name) for name, of_name in sizes.items()}


def not_conserved(played: Played) -> list[str]:
    """Return the postings whose quantity and cost are not what edges took and what is left."""
    opened: dict[Any, Amounts] = {}
    closed: dict[Any, Amounts] = {}
    for name, (quantity, cash, fee) in postings_of_world(played.world).items():
        if name.effect == "OPENS":
            cost = None if cash is None or fee is None else cash - fee
            opened[name.owner, name.booking] = (quantity, cost)
        elif name.effect == "CLOSES":
            closed[name.owner, name.booking] = (quantity,)

    for name, paid in played.world.books.adjusted.items():
        quantity, cost = opened[name]
        opened[name] = (quantity, None if cost is None else cost + float(paid))

    edges = edges_of(played.by_owner, by_owner=True)
    openings = openings_of(played.by_owner, by_owner=True)
    left: dict[Any, Amounts] = {}
    for (owner, name, through), (quantity, cost) in openings.items():
        if name and not through:
            left[owner, name] = (quantity, cost)
            if cost is None:  # a later close of unknown owner; which ones is compared elsewhere
                opened[owner, name] = (opened[owner, name][0], None)

    took: defaultdict[Any, list[Amounts]] = defaultdict(list)
    for (owner, kind, _opened, _through, by), (*_opened_size, quantity, _money) in edges.items():
        if kind == "CLOSES":
            took[owner, by].append((quantity,))
    closes = {name: _summed(of_name) for name, of_name in took.items()}
    return differences("opening", opened, left) + differences("close", closed, closes)


# ---- what follows from it


def realised_in_world(world: World) -> Sums:
    """Return what each strategy realised at average cost."""
    return {
        owner: (_exact(world.books.realised[owner]),) for owner in world.owners if owner != NOBODY
    }


def realised_in(played: Played) -> Sums:
    """Return the same of the program."""
    return {owner: (_cents(money.realised),) for (owner, _), money in played.live.items()}


def averages_in_world(world: World) -> Sums:
    """Return what strategies have of each contract, and what that had brought on average."""
    return {
        place: (float(pool.quantity), _exact(pool.money))
        for place, pool in world.books.pools.items()
        if place[0] != NOBODY
    }


def averages_in(played: Played) -> Sums:
    """Return the same of the program."""
    return {
        (owner, *key): (share.quantity, _cents(share.cash))
        for (owner, _currency), money in played.live.items()
        for key, share in money.lots.items()
    }


def campaigns_in_world(world: World) -> Sums:
    """Return how many campaigns are over, by what names them, and their profit."""
    over, _others = campaigns_of(world)
    counts: defaultdict[Any, list[Amounts]] = defaultdict(list)
    for campaign in over:
        name = (campaign.owner, campaign.account, campaign.opened, campaign.closed)
        counts[*name, tuple(sorted(campaign.conids))].append((1, _exact(campaign.profit)))
    return {name: _summed(of_name) for name, of_name in counts.items()}


def campaigns_in(played: Played) -> Sums:
    """Return the same of the program."""
    counts: defaultdict[Any, list[Amounts]] = defaultdict(list)
    for row in played.campaigns:
        conids = tuple(sorted(map(int, row.conids.split(","))))
        name = (row.strategy_id, row.account, row.opened, row.closed, conids)
        counts[name].append((1, _cents(row.profit)))
    return {name: _summed(of_name) for name, of_name in counts.items()}


def lots_in_world(world: World) -> Sums:
    """Return quantity and profit of closed lots and of held ones, by contract and days."""
    sizes: defaultdict[Any, list[Amounts]] = defaultdict(list)
    for owner, edge in world.books.edges:
        if owner or edge.kind not in ("CLOSES", "PAYS"):
            continue

        since = None if edge.opened is None else edge.opened.day
        name = (*edge.by.key, since, edge.by.opened.date())
        sizes[name].append((float(edge.size.quantity), _exact(edge.gain)))

    for (owner, *key), parcels in world.books.queues.items():
        if not owner:
            for parcel in parcels:
                sizes[*key, parcel.day, None].append((float(parcel.quantity), None))
    return {name: _summed(of_name) for name, of_name in sizes.items()}


def lots_in(played: Played) -> Sums:
    """Return the same of the program."""
    sizes: defaultdict[Any, list[Amounts]] = defaultdict(list)
    for lot in played.lots:
        name = (lot.account, lot.conid, lot.opened, lot.closed)
        sizes[name].append((lot.quantity, _cents(lot.profit)))
    return {name: _summed(of_name) for name, of_name in sizes.items()}


def days_in_world(world: World) -> Sums:
    """Return the profit of each owner, account and day but the first."""
    profits = {}
    for name in product(world.owners, ACCOUNTS, world.days[1:]):
        if world.has_rows(*name):
            profits[name] = (_exact(world.profit_of_day(*name)),)
    return profits


def days_in(played: Played) -> Sums:
    """Return the same of the program."""
    profits = {}
    for day, rows in played.days.items():
        for strategy, account, profit in rows.select("strategy_id", "account", "profit").rows():
            profits[strategy, account, day] = (_cents(profit),)
    return profits


def unknown_rows(rows: Mapping[str, Sums]) -> set[tuple[str, Any]]:
    """Return kind and name of all rows of which an amount is not known."""
    return {
        (kind, name)
        for kind, sums in rows.items()
        for name, amounts in sums.items()
        if None in amounts
    }


Rows = Mapping[str, Callable[[Any], Sums]]

# All rows of the world, by their kind.
OF_WORLD: Rows = {
    "posting": postings_of_world,
    "edge of an owner": partial(edges_of_world, by_owner=True),
    "edge of an account": partial(edges_of_world, by_owner=False),
    "held of an owner": partial(held_in_world, by_owner=True),
    "held of an account": partial(held_in_world, by_owner=False),
    "opened by owners": partial(openings_of_world, by_owner=True),
    "opened in accounts": partial(openings_of_world, by_owner=False),
    "campaign": campaigns_in_world,
    "lot": lots_in_world,
    "day": days_in_world,
    "realised": realised_in_world,
    "average": averages_in_world,
}

# The same of the program.
OF_PROGRAM: Rows = {
    "posting": postings_of,
    "edge of an owner": lambda played: edges_of(played.by_owner, by_owner=True),
    "edge of an account": lambda played: edges_of(played.by_account, by_owner=False),
    "held of an owner": lambda played: held_of(played.by_owner, by_owner=True),
    "held of an account": lambda played: held_of(played.by_account, by_owner=False),
    "opened by owners": lambda played: openings_of(played.by_owner, by_owner=True),
    "opened in accounts": lambda played: openings_of(played.by_account, by_owner=False),
    "campaign": campaigns_in,
    "lot": lots_in,
    "day": days_in,
    "realised": realised_in,
    "average": averages_in,
}

# The kinds of rows that are the graph of postings.
GRAPH = [*OF_WORLD][:7]


def rows_of_world(world: World) -> dict[str, Sums]:
    """Return all rows of the world, by their kind."""
    return {kind: rows(world) for kind, rows in OF_WORLD.items()}


def rows_of(played: Played) -> dict[str, Sums]:
    """Return all rows of the program, by their kind."""
    return {kind: rows(played) for kind, rows in OF_PROGRAM.items()}


def all_differences(played: Played, kinds: Collection[str] = tuple(OF_WORLD)) -> list[str]:
    """Return all differences between the world and the program.

    Args:
        kinds: The kinds of rows that are compared.
    """
    return [
        line
        for kind in kinds
        for line in differences(kind, OF_WORLD[kind](played.world), OF_PROGRAM[kind](played))
    ]
