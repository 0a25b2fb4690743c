"""Strategies proposed from what is held: by the orders that opened it, then by its structure; pure.

The legs of one order come first, then what was opened within a minute, then all that is held of an
underlying or an expiry, then pairs, and pairs of pairs. A pair that has several equal partners is
left as it is, with these as alternatives. Every option ends in one structure, alone at least.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import combinations, groupby

from position_sync_dagster.domain.broker_position import BrokerPosition, Key
from position_sync_dagster.domain.clock import NEVER
from position_sync_dagster.domain.instrument import Right, contract_name
from position_sync_dagster.domain.leg import NEGLIGIBLE, ActiveContract
from position_sync_dagster.domain.statement import Execution
from position_sync_dagster.domain.structures import (
    STOCKS,
    Piece,
    Shape,
    kind_of,
    risk_of,
    units_of,
)

# Orders of one underlying within this time may have opened one structure.
TOGETHER = timedelta(minutes=1)

# Maximum number of alternatives that a proposal names.
MOST_ALTERNATIVES = 3

# The most contracts against one of the other side in a ratio spread that no order shows.
HIGHEST_RATIO = 3

# Signed quantities by conid.
Contracts = dict[int, float]


@dataclass(frozen=True, slots=True)
class Lot:
    """A part of a holding that was opened at once, or whose opening is not known."""

    part: Piece
    account: str
    order: str | None = None
    at: datetime = NEVER


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposedStrategy:
    """A strategy that some holdings look like.

    Attributes:
        why: What shows it.
        credit: What was received for it, negative if it was paid; None: unknown.
        greatest_loss: None if it is unknown, or if it has no bound (`unlimited`).
        alternatives: What else its legs may belong to, where nothing decides it.
    """

    name: str
    kind: Shape
    account: str
    underlying: str
    legs: tuple[Piece, ...]
    why: str
    credit: float | None
    greatest_loss: float | None
    unlimited: bool
    alternatives: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """The proposed strategies, and what is left over: holdings that are no options."""

    strategies: tuple[ProposedStrategy, ...]
    left_over: tuple[Lot, ...]


@dataclass(eq=False, slots=True)
class _Group:
    """Contracts that belong together: `units` times the quantities of `unit`.

    `parts` has the costs of these contracts, and perhaps others.
    """

    unit: Contracts
    units: float
    parts: Mapping[int, Piece]
    why: str = "nothing else goes with it"
    rank: int = 3
    alternatives: list[str] = field(default_factory=list)


def propose(
    holdings: Iterable[BrokerPosition],
    executions: Iterable[Execution] = (),
    claimed: Iterable[ActiveContract] = (),
    *,
    names: Collection[str] = (),
) -> Proposal:
    """Propose strategies for what no strategy has; the order of the arguments does not matter.

    Args:
        holdings: What is held; multipliers lead from prices to the currency.
        executions: What opened it, as far as it is known; each trade once.
        claimed: The active legs: what they have stays as it is.
        names: The names that are taken.
    """
    lots = open_lots(holdings, executions, claimed)
    of_underlying: defaultdict[tuple[str, str, str], list[Lot]] = defaultdict(list)
    for lot in lots:
        one = lot.part.instrument
        of_underlying[lot.account, one.symbol, one.currency].append(lot)
    found: list[tuple[int, ProposedStrategy]] = []
    left: list[Lot] = []
    for (account, symbol, _currency), own in sorted(of_underlying.items()):
        groups, rest = _structures(own)
        found += [(group.rank, _proposed(group, account, symbol)) for group in groups]
        left += rest
    found.sort(key=lambda one: (one[0], one[1].account, one[1].underlying, _order(one[1].legs)))
    taken, strategies = set(names), []
    for _rank, strategy in found:
        name, number = strategy.name, 1
        while name in taken:
            number += 1
            name = f"{strategy.name}-{number}"
        taken.add(name)
        strategies.append(replace(strategy, name=name))
    return Proposal(strategies=tuple(strategies), left_over=tuple(left))


def open_lots(
    holdings: Iterable[BrokerPosition],
    executions: Iterable[Execution],
    claimed: Iterable[ActiveContract],
) -> list[Lot]:
    """Return what is held and claimed by no strategy, by the orders that opened it.

    The oldest lots are closed first, and claimed first. What was held before the first known
    execution is a lot without an order.
    """
    claims: defaultdict[int, list[ActiveContract]] = defaultdict(list)
    for leg in claimed:
        claims[leg.conid].append(leg)
    traded: defaultdict[Key, list[Execution]] = defaultdict(list)
    for one in sorted(executions, key=lambda one: (one.time, one.execution_id)):
        traded[one.account, one.conid].append(one)
    found: list[Lot] = []
    for holding in sorted(holdings, key=lambda one: one.key):
        terms, deals = holding.instrument, traded[holding.key]
        before = holding.position - sum(one.change for one in deals)
        lots = [Lot(Piece(terms, before, holding.average_cost), holding.account)]
        for one in deals:
            cost = None if one.price is None else one.price * terms.multiplier
            lot = Lot(Piece(terms, 0.0, cost), holding.account, one.order_id, one.time)
            lots = _added(lots, lot, one.change)
        for leg in claims[terms.conid]:
            if leg.account not in (None, holding.account):
                continue
            claim = holding.position if leg.quantity is None else leg.quantity
            held = sum(lot.part.quantity for lot in lots)
            if claim * held > 0:
                lots = _added(lots, lots[0], -math.copysign(min(abs(claim), abs(held)), claim))
        found += [lot for lot in lots if abs(lot.part.quantity) > NEGLIGIBLE]
    return found


def _added(lots: list[Lot], new: Lot, change: float) -> list[Lot]:
    """Return the lots after a change, which closes the oldest ones first."""
    after: list[Lot] = []
    for lot in lots:
        quantity = lot.part.quantity
        if quantity * change < 0:
            closed = math.copysign(min(abs(quantity), abs(change)), quantity)
            quantity, change = quantity - closed, change + closed
        if quantity:
            after.append(_with(lot, quantity))
    return [*after, _with(new, change)] if change else after


def _with(lot: Lot, quantity: float) -> Lot:
    return replace(lot, part=replace(lot.part, quantity=quantity))


def _total(lots: Iterable[Lot]) -> dict[int, Piece]:
    """Return the contracts of some lots, each once, with the average of their costs."""
    found: dict[int, Piece] = {}
    for lot in lots:
        one, before = lot.part, found.get(lot.part.conid)
        if before is not None:
            quantity = before.quantity + one.quantity
            cost = None
            if before.cost is not None and one.cost is not None and quantity:
                cost = (before.quantity * before.cost + one.quantity * one.cost) / quantity
            one = Piece(one.instrument, quantity, cost)
        found[one.conid] = one
    return found


def _structures(lots: list[Lot]) -> tuple[list[_Group], list[Lot]]:
    """Return the structures of one underlying, and what is in none."""
    by_order: defaultdict[str | None, list[Lot]] = defaultdict(list)
    for lot in lots:
        by_order[lot.order].append(lot)
    rest, alone = by_order.pop(None, []), list[Lot]()
    by_unit: defaultdict[tuple[tuple[int, float], ...], list[list[Lot]]] = defaultdict(list)
    for order in sorted(by_order, key=str):
        parts = _total(by_order[order])
        if len(parts) > 1 and any(part.is_option for part in parts.values()):
            units = _divisor(part.quantity for part in parts.values())
            of_order = sorted((conid, part.quantity / units) for conid, part in parts.items())
            by_unit[tuple(of_order)].append(by_order[order])
        else:
            alone += by_order[order]
    groups: list[_Group] = []
    for orders in by_unit.values():
        many = f"{len(orders)} orders of the same legs" if len(orders) > 1 else "one order"
        groups.append(_group([lot for own in orders for lot in own], f"opened by {many}", 0))
    alone.sort(key=lambda lot: (lot.at, lot.part.conid))
    separate: list[Lot] = []
    while alone:
        near = [lot for lot in alone if lot.at - alone[0].at <= TOGETHER]
        parts = _total(near)
        if len(parts) > 1 and kind_of([*parts.values()]) is not None:
            groups.append(_group(near, "opened within a minute", 1))
        else:
            near = near[:1]
            separate += near
        alone = alone[len(near) :]
    known, has_underlying = [], not all(lot.part.is_option for lot in lots)
    for group in _Matching(separate).result:
        # A long option needs no other one; a short one may go with what was opened before, and
        # either with the underlying.
        is_own = len(group.unit) == 1 and min(group.unit.values()) > 0 and not has_underlying
        if is_own:
            group.why, group.rank = "opened by an order of its own", 1
        if is_own or len(group.unit) > 1:
            known.append(group)
    rest += _without(separate, known)
    others = _Matching(rest).result
    return groups + known + others, _without(rest, others)


def _without(lots: Iterable[Lot], groups: Iterable[_Group]) -> list[Lot]:
    """Return lots without the contracts of some groups, the oldest of which go first."""
    gone: defaultdict[int, float] = defaultdict(float)
    for group in groups:
        for conid, quantity in group.unit.items():
            gone[conid] += quantity * group.units
    left: list[Lot] = []
    for lot in lots:
        quantity, conid = lot.part.quantity, lot.part.conid
        taken = math.copysign(min(abs(quantity), abs(gone[conid])), quantity) if gone[conid] else 0
        gone[conid] -= taken
        if abs(quantity - taken) > NEGLIGIBLE:
            left.append(_with(lot, quantity - taken))
    return left


def _group(lots: Sequence[Lot], why: str, rank: int) -> _Group:
    """Return all contracts of some lots as one group, by their greatest common divisor."""
    parts = _total(lots)
    units = _divisor(part.quantity for part in parts.values())
    unit = {conid: part.quantity / units for conid, part in parts.items()}
    return _Group(unit, units, parts, why, rank)


def _divisor(quantities: Iterable[float]) -> float:
    listed = [abs(one) for one in quantities]
    return float(math.gcd(*map(int, listed))) if all(one == int(one) for one in listed) else 1.0


def _proposed(group: _Group, account: str, underlying: str) -> ProposedStrategy:
    legs = tuple(sorted(_parts_of(group, group.units), key=lambda part: _order([part])))
    kind = kind_of(_parts_of(group)) or Shape.COMBINATION
    credit, greatest_loss, unlimited = risk_of(legs)
    first = min((str(one.instrument.expiry) for one in legs if one.is_option), default="")
    return ProposedStrategy(
        name=f"{underlying}-{kind}-{first}",
        kind=kind,
        account=account,
        underlying=underlying,
        legs=legs,
        why=group.why,
        credit=credit,
        greatest_loss=greatest_loss,
        unlimited=unlimited,
        alternatives=tuple(group.alternatives),
    )


def _parts_of(group: _Group, units: float = 1.0) -> list[Piece]:
    """Return the contracts of a group, with their costs."""
    known = ((group.parts[conid], quantity * units) for conid, quantity in group.unit.items())
    return [Piece(part.instrument, quantity, part.cost) for part, quantity in known]


def _order(legs: Sequence[Piece]) -> tuple[tuple[str, float, str, int], ...]:
    """Return the sort key of legs: stocks, then options by expiry, strike and right."""
    named = ((one, str(one.instrument.expiry) if one.is_option else "") for one in legs)
    return tuple((day, one.strike, str(one.instrument.right), one.conid) for one, day in named)


# What all options of one expiry are not at once: each may go with something of the underlying.
APART = frozenset({Shape.STRADDLE, Shape.STRANGLE, Shape.RISK_REVERSAL, Shape.SYNTHETIC, None})

LIZARDS = frozenset({Shape.JADE_LIZARD, Shape.REVERSE_JADE_LIZARD})
DOUBLES = frozenset({Shape.DOUBLE_CALENDAR, Shape.DOUBLE_DIAGONAL})

VERTICAL = "same expiry and opposite sides"

Score = tuple[float | str | bool, ...]


class _Matching:
    """Divides lots of one underlying into structures.

    Each option begins as a group of its own; each step joins pairs of groups.
    """

    def __init__(self, lots: Sequence[Lot]) -> None:
        self._parts = dict(sorted(_total(lots).items()))
        options = [part for part in self._parts.values() if part.is_option]
        if len(self._parts) > 1 and kind_of([*self._parts.values()]) is not None:
            self._groups = [_group(lots, "all that is held of the underlying", 2)]
            return
        self._groups = []
        by_expiry: defaultdict[str, list[Piece]] = defaultdict(list)
        for part in options:
            by_expiry[str(part.instrument.expiry)].append(part)
        for _expiry, own in sorted(by_expiry.items()):
            if len(own) > 1 and kind_of(own) not in APART:
                conids = {part.conid for part in own}
                those = [lot for lot in lots if lot.part.conid in conids]
                self._groups.append(_group(those, "all options of the expiry", 2))
            else:
                for part in own:
                    self._add({part.conid: math.copysign(1.0, part.quantity)}, abs(part.quantity))
        self._join(self._verticals(), VERTICAL)
        self._join(self._fours(), "two spreads of one expiry")
        self._join(self._time_spreads(), "opposite sides of two expiries")
        self._join(self._doubles(), "two spreads of the same expiries")
        self._cover()
        self._join(self._lizards(), "a short option beside a spread of its expiry")
        self._join(self._calls_and_puts(), "a call and a put of one expiry")
        self._join_ratios()

    @property
    def result(self) -> list[_Group]:
        """The structures; a stock or a future alone is none."""
        return [
            group
            for group in self._groups
            if group.units > 0 and any(self._parts[conid].is_option for conid in group.unit)
        ]

    def _add(self, unit: Contracts, units: float, why: str | None = None) -> int:
        group = _Group({c: q for c, q in unit.items() if q}, units, self._parts)
        if why is not None:
            group.why, group.rank = why, 2
        self._groups.append(group)
        return len(self._groups) - 1

    def _unit(self, *places: int) -> list[Piece]:
        """Return one unit of some groups together."""
        total: dict[int, float] = {}
        for place in places:
            for conid, quantity in self._groups[place].unit.items():
                total[conid] = total.get(conid, 0.0) + quantity
        return [Piece(self._parts[conid].instrument, q) for conid, q in total.items() if q]

    def _singles(self) -> list[tuple[int, Piece, float]]:
        """Return the options that are alone: place, contract with its side, and quantity."""
        return [
            (place, part, group.units)
            for place, group in enumerate(self._groups)
            if group.units > 0 and len(group.unit) == 1
            for part in self._unit(place)
            if part.is_option
        ]

    def _of(self, *kinds: Shape) -> list[int]:
        """Return the places of the pairs of these kinds."""
        return [
            place
            for place, group in enumerate(self._groups)
            if group.units > 0 and len(group.unit) == 2 and kind_of(self._unit(place)) in kinds
        ]

    def _take(self, one: int, other: int, why: str) -> int:
        """Join two groups, as often as both are there."""
        first, second = self._groups[one], self._groups[other]
        count = min(first.units, second.units)
        unit = {part.conid: part.quantity for part in self._unit(one, other)}
        first.units, second.units = first.units - count, second.units - count
        return self._add(unit, count, why)

    def _join(self, pairs: Iterable[tuple[Score, int, int]], why: str) -> list[int]:
        """Join pairs, those with the smallest score first; return the new groups.

        Pairs with equal scores that exclude each other are not joined: each is an alternative.
        """
        closed, joined = set[int](), list[int]()
        for _score, same in groupby(sorted(pairs), key=lambda pair: pair[0]):
            partners: defaultdict[int, list[int]] = defaultdict(list)
            for _, one, other in same:
                free = self._groups[one].units and self._groups[other].units
                if free and not closed & {one, other}:
                    partners[one].append(other)
                    partners[other].append(one)
            contested = {
                place
                for place, others in partners.items()
                if len(others) > 1
                and sum(self._groups[n].units for n in others) > self._groups[place].units
            }
            for one, others in partners.items():
                for other in others:
                    if contested & {one, other}:
                        closed |= {one, other}
                        self._add_alternative(one, other)
                    elif one < other:
                        joined.append(self._take(one, other, why))
        return joined

    def _add_alternative(self, one: int, other: int) -> None:
        if len(self._groups[one].alternatives) == MOST_ALTERNATIVES:
            return
        kind = kind_of(self._unit(one, other))
        names = " / ".join(contract_name(part.instrument) for part in self._unit(other))
        self._groups[one].alternatives.append(f"{kind} with {names}")

    def _verticals(self) -> Iterator[tuple[Score, int, int]]:
        """Pair what is balanced in the order of strikes, and yield the pairs of the rest."""
        buckets: defaultdict[str, list[tuple[int, Piece, float]]] = defaultdict(list)
        for one in self._singles():
            terms = one[1].instrument
            same = (terms.expiry, terms.right, terms.trading_class, terms.multiplier)
            buckets[str(same)].append(one)
        for own in buckets.values():
            own.sort(key=lambda one: (one[1].strike, one[1].conid))
            shorts = [one for one in own if one[1].quantity < 0]
            longs = [one for one in own if one[1].quantity > 0]
            if sum(one[2] for one in shorts) == sum(one[2] for one in longs):
                # Then this order has the least sum of distances and margins.
                while shorts and longs:
                    self._take(shorts[0][0], longs[0][0], VERTICAL)
                    shorts, longs = self._left(shorts), self._left(longs)
            for place, short, _ in shorts:
                for other, long, _ in longs:
                    yield (_cost(short, long), long.strike), place, other

    def _left(self, singles: list[tuple[int, Piece, float]]) -> list[tuple[int, Piece, float]]:
        return singles if self._groups[singles[0][0]].units else singles[1:]

    def _fours(self) -> Iterator[tuple[Score, int, int]]:
        """Yield pairs of verticals that need less margin together: condors, butterflies, boxes."""
        by_expiry: defaultdict[str, list[tuple[float, float, bool, bool, int]]] = defaultdict(list)
        for place in self._of(Shape.VERTICAL):
            first, last = sorted(self._unit(place), key=lambda part: part.strike)
            terms, is_long = first.instrument, first.quantity > 0
            own = (first.strike, last.strike, terms.right is Right.CALL, is_long, place)
            by_expiry[f"{terms.expiry} {terms.multiplier}"].append(own)
        for spreads in by_expiry.values():
            for one, other in combinations(sorted(spreads), 2):
                low, inner, is_call, is_long, place = one
                outer, high, of_calls, long_outside, beside = other
                is_uneven = self._groups[place].units != self._groups[beside].units
                if (low, inner) == (outer, high):
                    if is_call != of_calls and is_long != long_outside:
                        yield (0, is_uneven, 0.0), place, beside
                elif inner > outer or is_long == long_outside or (is_call and not of_calls):
                    continue
                elif is_long:
                    yield (1, is_uneven, -min(inner - low, high - outer)), place, beside
                elif is_call != of_calls:
                    # A reverse iron condor needs no less margin than its spreads.
                    self._add_alternative(place, beside)
                    self._add_alternative(beside, place)

    def _time_spreads(self) -> Iterator[tuple[Score, int, int]]:
        singles = self._singles()
        longs = [one for one in singles if one[1].quantity > 0]
        for place, short, _ in (one for one in singles if one[1].quantity < 0):
            terms = short.instrument
            for other, long, _ in longs:
                far = long.instrument
                if far.right is not terms.right or far.multiplier != terms.multiplier:
                    continue
                if terms.expiry is None or far.expiry is None or far.expiry <= terms.expiry:
                    continue
                days = (far.expiry - terms.expiry).days
                yield (_cost(short, long), days, long.strike), place, other

    def _doubles(self) -> Iterator[tuple[Score, int, int]]:
        for one, other in combinations(self._of(Shape.CALENDAR, Shape.DIAGONAL), 2):
            if kind_of(self._unit(one, other)) in DOUBLES:
                yield (self._groups[one].units != self._groups[other].units,), one, other

    def _lizards(self) -> Iterator[tuple[Score, int, int]]:
        spreads: defaultdict[object, list[int]] = defaultdict(list)
        for place in self._of(Shape.VERTICAL):
            terms = self._unit(place)[0].instrument
            spreads[terms.expiry, terms.right].append(place)
        for place, single, units in self._singles():
            terms = single.instrument
            other_right = Right.PUT if terms.right is Right.CALL else Right.CALL
            for other in spreads[terms.expiry, other_right] if single.quantity < 0 else ():
                if kind_of(self._unit(place, other)) in LIZARDS:
                    yield (self._groups[other].units != units,), place, other

    def _calls_and_puts(self) -> Iterator[tuple[Score, int, int]]:
        singles = self._singles()
        puts: defaultdict[object, list[tuple[int, Piece, float]]] = defaultdict(list)
        for one in singles:
            if one[1].instrument.right is Right.PUT:
                puts[one[1].instrument.expiry, one[1].instrument.multiplier].append(one)
        for place, call, units in singles:
            terms = call.instrument
            if terms.right is Right.CALL:
                for other, put, others in puts[terms.expiry, terms.multiplier]:
                    sides = (call.quantity > 0) + (put.quantity > 0)
                    order = {0: 0, 2: 1, 1: 2}[sides]  # both short, both long, opposite
                    apart = abs(call.strike - put.strike)
                    yield (order, units != others, apart), place, other

    def _cover(self) -> None:
        for stock in [one for one in self._parts.values() if one.instrument.sec_type in STOCKS]:
            sold, bought = (Right.CALL, Right.PUT)[:: 1 if stock.quantity > 0 else -1]
            for per in sorted({units_of(one, stock) for _, one, _ in self._singles()}):
                used = sum(one.unit.get(stock.conid, 0.0) * one.units for one in self._groups)
                units = math.floor(abs(stock.quantity - used) / per + 1e-9)
                place = self._add({stock.conid: math.copysign(per, stock.quantity)}, units)
                covered = self._join(
                    self._beside([place], stock, per, sold, -1), "the underlying covers it"
                )
                collars = self._beside(covered, stock, per, bought, 1)
                self._join(collars, "the underlying between a short and a long option")
                protected = self._beside([place], stock, per, bought, 1)
                self._join(protected, "it protects the underlying")
                self._groups[place].units = 0.0

    def _beside(
        self, places: Iterable[int], stock: Piece, per: float, right: Right, side: int
    ) -> Iterator[tuple[Score, int, int]]:
        """Yield the options of a right and a side that may be added to the groups of a stock."""
        for place in places:
            days = [str(one.instrument.expiry) for one in self._unit(place) if one.is_option]
            for other, option, _ in self._singles():
                terms, day = option.instrument, str(option.instrument.expiry)
                fits = units_of(option, stock) == per and days in ([], [day])
                if fits and terms.right is right and option.quantity == side:
                    yield (day,), place, other

    def _join_ratios(self) -> None:
        """Add to each spread what is left of one of its contracts, in small numbers."""
        spreads: defaultdict[int, list[int]] = defaultdict(list)
        for place in self._of(Shape.VERTICAL):
            for conid in self._groups[place].unit:
                spreads[conid].append(place)
        for single, part, units in self._singles():
            of_conid = [n for n in spreads[part.conid] if self._groups[n].units > 0]
            if len(of_conid) != 1:
                continue
            spread = self._groups[of_conid[0]]
            count = _divisor((units, spread.units))
            if (units + spread.units) / count > HIGHEST_RATIO:
                continue
            total = {conid: q * spread.units for conid, q in spread.unit.items()}
            total[part.conid] += units * part.quantity
            self._add({c: q / count for c, q in total.items()}, count, spread.why)
            spread.units = self._groups[single].units = 0.0


def _cost(short: Piece, long: Piece) -> float:
    """Return how far two strikes are apart, twice if the long option is behind: margin counts."""
    behind = long.strike - short.strike
    if short.instrument.right is Right.PUT:
        behind = -behind
    return abs(behind) + max(0.0, behind)
