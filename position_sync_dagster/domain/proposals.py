"""Strategies proposed from what is held: by the orders that opened it, then by its structure; pure.

The legs of one order come first, then what was opened within a minute, then all that is held of an
underlying or an expiry, then pairs, and pairs of pairs. A pair that has several equal partners is
left as it is, with these as alternatives. Every option ends in one structure, alone at least.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import combinations, groupby, pairwise, product
from operator import attrgetter, itemgetter

from position_sync_dagster.domain.clock import NEVER
from position_sync_dagster.domain.closes import Execution
from position_sync_dagster.domain.holding import BrokerPosition, grouped
from position_sync_dagster.domain.instrument import OPTION_TYPES, Instrument, Right, contract_name
from position_sync_dagster.domain.leg import NEGLIGIBLE, ActiveContract

# Orders of one underlying within this time may have opened one structure.
TOGETHER = timedelta(minutes=1)

# Maximum number of alternatives that a proposal names.
MOST_ALTERNATIVES = 3

# Why an option is proposed that is in no structure.
ALONE = "nothing else goes with it"


@dataclass(frozen=True, slots=True)
class Piece:
    """A contract, and how much of it belongs to a structure.

    Attributes:
        instrument: The contract; its multiplier leads from its prices to `currency`.
        quantity: Signed contracts or shares.
        cost: What one contract or share cost, with its multiplier; None: unknown.
        order_id: The order that opened it; None: unknown, or several.
        at: When it was opened; NEVER: unknown, or several times.
    """

    instrument: Instrument
    quantity: float
    cost: float | None = None
    order_id: str | None = None
    at: datetime = NEVER

    @property
    def conid(self) -> int:
        """The contract id."""
        return self.instrument.conid

    @property
    def is_option(self) -> bool:
        """Return whether it is an option with all of its terms."""
        terms = (self.instrument.right, self.instrument.strike, self.instrument.expiry)
        return None not in terms and self.instrument.sec_type in OPTION_TYPES

    @property
    def strike(self) -> float:
        """The strike of an option."""
        return self.instrument.strike or 0.0

    @property
    def day(self) -> str:
        """The expiry of an option; empty for anything else."""
        return str(self.instrument.expiry) if self.is_option else ""

    @property
    def order(self) -> tuple[str, float, bool, int]:
        """The sort key of a leg: stocks, then options by expiry and strike, the put first."""
        return self.day, self.strike, self.instrument.right is Right.CALL, self.conid


def _fits_stock(legs: Sequence[Piece]) -> bool:
    stock = legs[0]
    return all(
        abs(option.quantity) * _units_of(option, stock) == abs(stock.quantity)
        for option in legs[1:]
    )


def _units_of(option: Piece, stock: Piece) -> float:
    """Return how much of its underlying a contract of an option stands for."""
    return option.instrument.multiplier / stock.instrument.multiplier


def _net(legs: Sequence[Piece]) -> float:
    return sum(leg.quantity for leg in legs)


def _is_even(legs: Sequence[Piece]) -> bool:
    return legs[0].quantity == legs[-1].quantity and not _net(legs)


def _has_even_wings(legs: Sequence[Piece]) -> bool:
    low, middle, high = (leg.strike for leg in legs)
    return _is_even(legs) and middle - low == high - middle


def _has_equal_strikes(legs: Sequence[Piece]) -> bool:
    strikes = [leg.strike for leg in legs]
    half = len(legs) // 2
    return strikes[:half] == strikes[half:]


_Rule = Callable[[Sequence[Piece]], bool]
# The parts of a shape. A stock or future that is held itself comes first. Options of one expiry
# follow by strike, the put first where two have the same; those of two by expiry, then by right.
LONG_STOCK, SHORT_STOCK = "long stock", "short stock"
LONG_PUT, SHORT_PUT = "long put", "short put"
LONG_CALL, SHORT_CALL = "long call", "short call"

# How an option lies to the one before it, if not at a higher strike of the same expiry.
SAME_STRIKE, LATER = "same strike", "later"

# The parts of a structure in their order, with the steps between options.
Shape = tuple[str, ...]

OPPOSITE = {
    LONG_STOCK: SHORT_STOCK, LONG_PUT: SHORT_PUT, LONG_CALL: SHORT_CALL,
    SHORT_STOCK: LONG_STOCK, SHORT_PUT: LONG_PUT, SHORT_CALL: LONG_CALL,
}  # fmt: skip


def _of_both_sides(*shapes: Shape) -> tuple[Shape, ...]:
    """Return shapes, and those of whoever has the opposite side of each part."""
    opposite = [tuple(OPPOSITE.get(part, part) for part in shape) for shape in shapes]
    return (*shapes, *opposite)


_SPREADS = _of_both_sides((LONG_PUT, SHORT_PUT), (LONG_CALL, SHORT_CALL))
_OF_TIME = _of_both_sides((SHORT_PUT, LATER, LONG_PUT), (SHORT_CALL, LATER, LONG_CALL))
_DOUBLES = _of_both_sides((SHORT_CALL, SHORT_PUT, LATER, LONG_CALL, LONG_PUT))
_BUTTERFLIES = _of_both_sides(
    (LONG_PUT, SHORT_PUT, LONG_PUT),
    (LONG_CALL, SHORT_CALL, LONG_CALL),
)

# What contracts are together. Of the structures of one shape, the first counts whose quantities and
# strikes fit.
_STRUCTURES: tuple[tuple[str, tuple[Shape, ...], _Rule | None], ...] = (
    ("single", _of_both_sides((LONG_PUT,), (LONG_CALL,)), None),
    ("covered-call", ((LONG_STOCK, SHORT_CALL),), _fits_stock),
    ("covered-put", ((SHORT_STOCK, SHORT_PUT),), _fits_stock),
    ("protective-put", ((LONG_STOCK, LONG_PUT),), _fits_stock),
    ("protective-call", ((SHORT_STOCK, LONG_CALL),), _fits_stock),
    (
        "collar",
        _of_both_sides((LONG_STOCK, LONG_PUT, SHORT_CALL), (LONG_STOCK, SHORT_CALL, LONG_PUT)),
        _fits_stock,
    ),
    ("vertical", _SPREADS, lambda legs: _net(legs) == 0),
    ("ratio-spread", _SPREADS, lambda legs: _net(legs) < 0),
    ("back-spread", _SPREADS, lambda legs: _net(legs) > 0),
    ("straddle", _of_both_sides((LONG_PUT, SAME_STRIKE, LONG_CALL)), None),
    (
        "strangle",
        _of_both_sides((LONG_PUT, LONG_CALL), (LONG_CALL, LONG_PUT)),
        None,
    ),
    (
        "risk-reversal",
        _of_both_sides((LONG_PUT, SHORT_CALL), (SHORT_CALL, LONG_PUT)),
        None,
    ),
    ("synthetic", _of_both_sides((LONG_PUT, SAME_STRIKE, SHORT_CALL)), None),
    ("calendar", _OF_TIME, _has_equal_strikes),
    ("diagonal", _OF_TIME, None),
    ("double-calendar", _DOUBLES, _has_equal_strikes),
    ("double-diagonal", _DOUBLES, None),
    ("butterfly", _BUTTERFLIES, _has_even_wings),
    ("broken-wing-butterfly", _BUTTERFLIES, lambda legs: _net(legs) == 0),
    (
        "condor",
        _of_both_sides(
            (LONG_PUT, SHORT_PUT, SHORT_PUT, LONG_PUT),
            (LONG_CALL, SHORT_CALL, SHORT_CALL, LONG_CALL),
        ),
        _is_even,
    ),
    (
        "iron-butterfly",
        ((LONG_PUT, SHORT_PUT, SAME_STRIKE, SHORT_CALL, LONG_CALL),),
        None,
    ),
    ("iron-condor", ((LONG_PUT, SHORT_PUT, SHORT_CALL, LONG_CALL),), None),
    (
        "reverse-iron-butterfly",
        ((SHORT_PUT, LONG_PUT, SAME_STRIKE, LONG_CALL, SHORT_CALL),),
        None,
    ),
    (
        "reverse-iron-condor",
        ((SHORT_PUT, LONG_PUT, LONG_CALL, SHORT_CALL),),
        None,
    ),
    (
        "jade-lizard",
        (
            (SHORT_PUT, SHORT_CALL, LONG_CALL),
            (SHORT_PUT, SAME_STRIKE, SHORT_CALL, LONG_CALL),
        ),
        lambda legs: _net(legs[1:]) == 0,
    ),
    (
        "reverse-jade-lizard",
        (
            (LONG_PUT, SHORT_PUT, SHORT_CALL),
            (LONG_PUT, SHORT_PUT, SAME_STRIKE, SHORT_CALL),
        ),
        lambda legs: _net(legs[:2]) == 0,
    ),
    (
        "box",
        _of_both_sides((SHORT_PUT, SAME_STRIKE, LONG_CALL, LONG_PUT, SAME_STRIKE, SHORT_CALL)),
        lambda legs: len({abs(leg.quantity) for leg in legs}) == 1,
    ),
)


def _structures_by_shape() -> dict[Shape, list[tuple[str, _Rule | None]]]:
    by_shape: dict[Shape, list[tuple[str, _Rule | None]]] = {}
    for kind, shapes, rule in _STRUCTURES:
        for shape in shapes:
            by_shape.setdefault(shape, []).append((kind, rule))
    return by_shape


_BY_SHAPE = _structures_by_shape()


def kind_of(parts: Iterable[Piece]) -> str | None:
    """Return the kind of structure that some contracts are together; None if they are none.

    Args:
        parts: Contracts of one underlying, each once.
    """
    legs = sorted(parts, key=attrgetter("order"))
    has_stock = any(not leg.is_option for leg in legs)
    if not has_stock and len({leg.instrument.multiplier for leg in legs}) > 1:
        return None

    is_of_time = not has_stock and len({leg.day for leg in legs}) > 1
    if is_of_time:
        legs.sort(key=lambda leg: (leg.day, str(leg.instrument.right)))

    shape = [_part_of(legs[0])]
    for before, leg in pairwise(legs):
        if is_of_time and before.day != leg.day:
            shape.append(LATER)
        if not is_of_time and not has_stock and before.strike == leg.strike:
            shape.append(SAME_STRIKE)
        shape.append(_part_of(leg))

    for kind, rule in _BY_SHAPE.get(tuple(shape), ()):
        if rule is None or rule(legs):
            return kind
    return None


def _part_of(leg: Piece) -> str:
    side = "long" if leg.quantity > 0 else "short"
    if _is_stock(leg):
        return f"{side} stock"
    right = leg.instrument.right if leg.is_option else None
    return f"{side} {'other' if right is None else right.lower()}"


def _is_stock(piece: Piece) -> bool:
    """Return whether it is what an option can be an option on, and is held itself."""
    return piece.instrument.sec_type in ("STK", "FUT")


def risk_of(parts: Sequence[Piece]) -> tuple[float | None, float | None, bool]:
    """Return credit and greatest loss of a structure, in the currency of its contracts.

    Options that expire later count with their intrinsic value, which is the least that a long one
    is worth.

    Returns:
        What was received for it, negative if it was paid, None: unknown; what it loses at most
        until its first expiry, None: unknown or without bound; and whether it has no bound.
    """
    credit = _credit_of(parts)

    # The payoff is a line between the strikes, and beyond the highest one.
    corners = {0.0, *(part.strike for part in parts)}
    highest = max(corners)
    slope_beyond = _payoff(parts, highest + 1.0) - _payoff(parts, highest)
    if slope_beyond < -1e-9:
        return credit, None, True

    # A short option that expires later may be worth any amount more than its intrinsic value.
    first_day = _first_expiry(parts)
    is_short_later = any(part.day > first_day and part.quantity < 0 for part in parts)
    if credit is None or is_short_later:
        return credit, None, False

    least = min(_payoff(parts, price) for price in corners)
    return credit, max(0.0, -credit - least), False


def _credit_of(parts: Sequence[Piece]) -> float | None:
    """Return what was received for a structure; None: the cost of a part is unknown."""
    paid = 0.0
    for part in parts:
        if part.cost is None:
            return None
        paid += part.quantity * part.cost
    return 0.0 - paid


def _first_expiry(parts: Iterable[Piece]) -> str:
    """Return the first expiry of the options; empty without any."""
    return min((part.day for part in parts if part.is_option), default="")


def _payoff(parts: Sequence[Piece], price: float) -> float:
    total = 0.0
    for part in parts:
        worth = price
        if part.is_option:
            above = price - part.strike
            worth = max(0.0, above if part.instrument.right is Right.CALL else -above)
        total += part.quantity * part.instrument.multiplier * worth
    return total


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposedStrategy:
    """A strategy that some holdings look like.

    Attributes:
        kind: A structure of the table; "combination": the legs of one order that have no name.
        why: What shows it.
        credit: What was received for it, negative if it was paid; None: unknown.
        greatest_loss: None if it is unknown, or if it has no bound (`unlimited`).
        alternatives: What else its legs may belong to, where nothing decides it.
    """

    name: str
    kind: str
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
    left_over: tuple[Piece, ...]


@dataclass(eq=False, slots=True)
class _Group:
    """Contracts that belong together: `units` times those of `unit`, by expiry and strike.

    Attributes:
        labels: By what the steps of the matching know it: its kind; the side and the right of a
            single option; "stock" of the underlying.
    """

    unit: list[Piece]
    units: float
    why: str = ALONE
    rank: int = 3
    alternatives: list[str] = field(default_factory=list)
    kind: str | None = field(init=False)
    labels: set[str] = field(init=False)

    def __post_init__(self) -> None:
        self.unit.sort(key=attrgetter("order"))
        self.kind = kind_of(self.unit)
        self.labels = {self.kind or "stock"}
        if self.kind == "single":
            option = self.unit[0]
            side = "long" if option.quantity > 0 else "short"
            self.labels = {side, str(option.instrument.right)}

    @property
    def whole(self) -> list[Piece]:
        """All of its contracts."""
        return [replace(part, quantity=part.quantity * self.units) for part in self.unit]

    def kind_with(self, partner: "_Group") -> str | None:
        """Return the kind that a unit is together with one of another group."""
        return kind_of(_together([*self.unit, *partner.unit]))

    def add_alternative(self, partner: "_Group") -> None:
        """Name what it may be together with another group."""
        if len(self.alternatives) < MOST_ALTERNATIVES:
            names = " / ".join(contract_name(part.instrument) for part in partner.unit)
            self.alternatives.append(f"{self.kind_with(partner)} with {names}")


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
    claims = grouped(lambda leg: leg.conid, claimed)
    in_order = sorted(executions, key=lambda execution: (execution.time, execution.execution_id))
    executions_of = grouped(lambda execution: (execution.account, execution.conid), in_order)
    by_underlying = grouped(_underlying_of, sorted(holdings, key=lambda holding: holding.key))

    ranked: list[tuple[int, ProposedStrategy]] = []
    left_over: list[Piece] = []
    for (account, symbol, _currency), of_underlying in sorted(by_underlying.items()):
        lots: list[Piece] = []
        for holding in of_underlying:
            legs = claims[holding.instrument.conid]
            lots += _lots(holding, executions_of[holding.key], legs)

        groups = _structures(lots)
        for group in groups:
            ranked.append((group.rank, _proposed(group, account, symbol)))
        left_over += _without(lots, groups)

    strategies = _named_apart([strategy for _, strategy in sorted(ranked, key=_place_of)], names)
    return Proposal(strategies=tuple(strategies), left_over=tuple(left_over))


def _underlying_of(holding: BrokerPosition) -> tuple[str, str, str]:
    """Return account, symbol and currency of a holding: a structure has one of each."""
    return holding.account, holding.instrument.symbol, holding.instrument.currency


def _place_of(ranked: tuple[int, ProposedStrategy]) -> tuple[object, ...]:
    """Return the place of a proposal in the list: what shows it best comes first."""
    rank, strategy = ranked
    legs = [leg.order for leg in strategy.legs]
    return rank, strategy.account, strategy.underlying, legs


def _named_apart(
    strategies: Iterable[ProposedStrategy], names: Iterable[str]
) -> list[ProposedStrategy]:
    """Return strategies with different names, none of which is taken: "…", "…-2", "…-3"."""
    taken = set(names)
    named = []
    for strategy in strategies:
        name = strategy.name
        number = 1
        while name in taken:
            number += 1
            name = f"{strategy.name}-{number}"
        taken.add(name)
        named.append(replace(strategy, name=name))
    return named


def _lots(
    holding: BrokerPosition, executions: Sequence[Execution], legs: Iterable[ActiveContract]
) -> list[Piece]:
    """Return what is held and claimed by no strategy, by the orders that opened it.

    The oldest lots are closed first, and claimed first. What was held before the first known
    execution is a lot without an order.

    Args:
        holding: What is held.
        executions: The executions of it, the oldest first.
        legs: The active legs of its contract.
    """
    instrument = holding.instrument
    held_before = holding.position - sum(execution.change for execution in executions)
    lots = [Piece(instrument, held_before, holding.average_cost)]
    for execution in executions:
        cost = None if execution.price is None else execution.price * instrument.multiplier
        lots, opened = _changed(lots, execution.change)
        lots.append(Piece(instrument, opened, cost, execution.order_id, execution.time))

    for leg in legs:
        claim = holding.position if leg.quantity is None else leg.quantity
        if leg.account in (None, holding.account) and claim * holding.position > 0:
            lots, _more_than_is_held = _changed(lots, -claim)
    return [lot for lot in lots if abs(lot.quantity) > NEGLIGIBLE]


def _changed(lots: Iterable[Piece], change: float) -> tuple[list[Piece], float]:
    """Return the lots after a change, which closes the oldest ones first, and what it opens."""
    after = []
    for lot in lots:
        quantity = lot.quantity
        if quantity * change < 0:
            closed = math.copysign(min(abs(quantity), abs(change)), quantity)
            quantity -= closed
            change += closed
        if abs(quantity) > NEGLIGIBLE:
            after.append(replace(lot, quantity=quantity))
    return after, change


def _together(parts: Iterable[Piece]) -> list[Piece]:
    """Return some contracts, each once, with the average of their costs."""
    by_conid: dict[int, Piece] = {}
    for part in parts:
        earlier = by_conid.get(part.conid)
        by_conid[part.conid] = part if earlier is None else _sum_of(earlier, part)
    return [part for part in by_conid.values() if abs(part.quantity) > NEGLIGIBLE]


def _sum_of(first: Piece, second: Piece) -> Piece:
    """Return two lots of a contract as one: the orders are not known any more."""
    quantity = first.quantity + second.quantity
    if first.cost is None or second.cost is None or not quantity:
        return Piece(first.instrument, quantity)
    if first.cost == second.cost:
        return Piece(first.instrument, quantity, first.cost)

    paid = first.quantity * first.cost + second.quantity * second.cost
    return Piece(first.instrument, quantity, paid / quantity)


def _without(parts: Iterable[Piece], groups: Iterable[_Group]) -> list[Piece]:
    """Return contracts without those of some groups."""
    remaining = list(parts)
    for group in groups:
        remaining += (replace(part, quantity=-part.quantity) for part in group.whole)
    return _together(remaining)


def _structures(lots: Sequence[Piece]) -> list[_Group]:
    """Return the structures of one underlying: each option is in one."""
    by_order = grouped(lambda lot: lot.order_id, lots)
    without_order = by_order.pop(None, [])
    combos, single_orders = _combos(by_order)
    near, separate = _opened_together(single_orders)

    has_stock = not all(lot.is_option for lot in lots)
    opened_alone: list[_Group] = []
    for group in _matched(separate):
        # A long option needs no other one; a short one may go with what was opened before, and
        # either with the underlying.
        if len(group.unit) > 1:
            opened_alone.append(group)
        elif group.unit[0].quantity > 0 and not has_stock:
            group.why = "opened by an order of its own"
            group.rank = 1
            opened_alone.append(group)

    not_in_structures = [*without_order, *_without(separate, opened_alone)]
    return [*combos, *near, *opened_alone, *_matched(not_in_structures)]


def _combos(by_order: Mapping[str | None, list[Piece]]) -> tuple[list[_Group], list[Piece]]:
    """Return what orders of several legs opened, and the lots of all other orders.

    Orders of the same legs are one group.
    """
    parts_of_unit: defaultdict[tuple[tuple[int, float], ...], list[Piece]] = defaultdict(list)
    single_orders: list[Piece] = []
    for order in sorted(by_order, key=str):
        parts = _together(by_order[order])
        if len(parts) > 1 and any(part.is_option for part in parts):
            unit = tuple((part.conid, part.quantity) for part in _as_group(parts).unit)
            parts_of_unit[unit] += parts
        else:
            single_orders += by_order[order]

    groups = []
    for unit, parts in parts_of_unit.items():
        count = len(parts) // len(unit)
        orders = f"{count} orders of the same legs" if count > 1 else "one order"
        groups.append(_as_group(parts, f"opened by {orders}", 0))
    return groups, single_orders


def _opened_together(lots: Iterable[Piece]) -> tuple[list[_Group], list[Piece]]:
    """Return the structures that were opened within a minute, and the lots of all other times."""
    waiting = sorted(lots, key=lambda lot: (lot.at, lot.conid))
    groups: list[_Group] = []
    separate: list[Piece] = []
    while waiting:
        near = [lot for lot in waiting if lot.at - waiting[0].at <= TOGETHER]
        group = _as_group(near, "opened within a minute", 1)
        if len(group.unit) > 1 and group.kind is not None:
            groups.append(group)
            waiting = waiting[len(near) :]
        else:
            separate.append(waiting.pop(0))
    return groups, separate


def _as_group(parts: Iterable[Piece], why: str = ALONE, rank: int = 3) -> _Group:
    """Return all of some contracts as one group, by their greatest common divisor."""
    whole = _together(parts)
    quantities = [abs(part.quantity) for part in whole]
    units = 1
    if all(quantity == int(quantity) for quantity in quantities):
        units = math.gcd(*map(int, quantities))

    unit = [replace(part, quantity=part.quantity / units) for part in whole]
    return _Group(unit, units, why, rank)


def _proposed(group: _Group, account: str, underlying: str) -> ProposedStrategy:
    legs = tuple(group.whole)
    kind = group.kind or "combination"
    credit, greatest_loss, unlimited = risk_of(legs)
    return ProposedStrategy(
        name=f"{underlying}-{kind}-{_first_expiry(legs)}",
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


# What all options of one expiry are not at once: each may go with something of the underlying.
APART = frozenset({"straddle", "strangle", "risk-reversal", "synthetic", None})

# What two spreads are that need no less margin together: it is named, and they stay apart.
ONLY_NAMED = frozenset({"reverse-iron-butterfly", "reverse-iron-condor"})

# Sorts the pairs of a step, those with the smallest one first; None: they do not go together.
Score = tuple[float | str | bool, ...] | None


@dataclass(frozen=True, slots=True)
class _Step:
    """One way to join pairs of groups, if the two are a structure.

    Attributes:
        first_labels, second_labels: The labels of the two groups of a pair.
        key: Only groups whose last contract has an equal one are compared.
    """

    why: str
    first_labels: Collection[str]
    second_labels: Collection[str]
    key: Callable[[Instrument], object]
    score: Callable[[_Group, _Group], Score]


def _by_strikes(short: _Group, long: _Group) -> Score:
    """Prefer strikes that are near, which count twice if the long option is behind."""
    short_option = short.unit[0]
    long_option = long.unit[0]
    behind = long_option.strike - short_option.strike
    if short_option.instrument.right is Right.PUT:
        behind = -behind
    return (abs(behind) + max(0.0, behind), long_option.day, long_option.strike)


def _by_time(short: _Group, long: _Group) -> Score:
    return _by_strikes(short, long) if short.unit[0].day < long.unit[0].day else None


def _by_width(spread: _Group, partner: _Group) -> Score:
    """Prefer boxes, then what needs the least margin: condors and butterflies."""
    strikes = [part.strike for part in spread.unit]
    strikes_of_partner = [part.strike for part in partner.unit]
    width = min(_width_of(strikes), _width_of(strikes_of_partner))
    return (strikes != strikes_of_partner, spread.units != partner.units, -width)


def _width_of(strikes: Sequence[float]) -> float:
    low, high = strikes
    return high - low


def _by_sides(call: _Group, put: _Group) -> Score:
    """Prefer two short ones, then two long ones."""
    is_call_long = call.unit[0].quantity > 0
    is_put_long = put.unit[0].quantity > 0
    long_sides = int(is_call_long or is_put_long) + int(is_call_long != is_put_long)
    distance = abs(call.unit[0].strike - put.unit[0].strike)
    return (long_sides, call.units != put.units, distance)


def _units_in(groups: Iterable[_Group]) -> float:
    return sum(group.units for group in groups)


def _by_units(group: _Group, partner: _Group) -> Score:
    return (group.units != partner.units,)


def _beside(spread: _Group, single: _Group) -> Score:
    is_same_right = spread.unit[0].instrument.right == single.unit[0].instrument.right
    return None if is_same_right else _by_units(spread, single)


def _by_day(_: _Group, option: _Group) -> Score:
    return (option.unit[0].day,)


SHORT = {"short"}
LONG = {"long"}
STOCK = {"stock"}
SPREAD = {"vertical"}
PAIR = {"vertical", "ratio-spread", "back-spread"}
COVERED = {"covered-call", "covered-put"}
OF_TIME = {"calendar", "diagonal"}

EXPIRY = attrgetter("expiry")
ANY = attrgetter("symbol")
SERIES = attrgetter("expiry", "right", "trading_class", "multiplier")

STEPS = (
    _Step("same expiry and opposite sides", SHORT, LONG, SERIES, _by_strikes),
    _Step("two spreads of one expiry", SPREAD, SPREAD, EXPIRY, _by_width),
    _Step("opposite sides of two expiries", SHORT, LONG, attrgetter("right"), _by_time),
    _Step("two spreads of the same expiries", OF_TIME, OF_TIME, EXPIRY, _by_units),
    _Step("the underlying covers it", STOCK, SHORT, ANY, _by_day),
    _Step("the underlying between a short and a long option", COVERED, LONG, EXPIRY, _by_day),
    _Step("it protects the underlying", STOCK, LONG, ANY, _by_day),
    _Step("a short option beside a spread of its expiry", SPREAD, SHORT, EXPIRY, _beside),
    _Step("a call and a put of one expiry", {Right.CALL}, {Right.PUT}, EXPIRY, _by_sides),
    *[_Step("more of one side of a spread", PAIR, SHORT | LONG, SERIES, _by_units)] * 2,
)


def _matched(lots: Iterable[Piece]) -> list[_Group]:
    """Divide contracts of one underlying into structures; a stock or a future alone is none.

    Each option begins as a group of its own; each step joins pairs of groups.
    """
    parts = sorted(_together(lots), key=lambda part: part.conid)
    if len(parts) > 1 and kind_of(parts) is not None:
        return [_as_group(parts, "all that is held of the underlying", 2)]

    options = [part for part in parts if part.is_option]
    groups = _groups_of_options(options)
    for stock in parts:
        if options and _is_stock(stock):
            groups.append(_group_of_stock(stock, options))

    _join_balanced(groups, STEPS[0])
    for step in STEPS:
        _join(groups, step)
    return [group for group in groups if group.units > 0 and group.kind is not None]


def _groups_of_options(options: Iterable[Piece]) -> list[_Group]:
    """Return the options of each expiry as one structure, if they are one, or each by itself."""
    groups: list[_Group] = []
    for _day, of_day in sorted(grouped(attrgetter("day"), options).items()):
        if len(of_day) > 1 and kind_of(of_day) not in APART:
            groups.append(_as_group(of_day, "all options of the expiry", 2))
        else:
            groups += (_as_group([option]) for option in of_day)
    return groups


def _group_of_stock(stock: Piece, options: Iterable[Piece]) -> _Group:
    """Return a stock in units of what one option stands for; what is over is in no unit."""
    unit = min(_units_of(option, stock) for option in options)
    share = replace(stock, quantity=math.copysign(unit, stock.quantity))
    return _Group([share], math.floor(abs(stock.quantity) / unit + 1e-9))


def _with_labels(
    groups: Iterable[_Group], labels: Collection[str], step: _Step
) -> defaultdict[object, list[_Group]]:
    """Return the groups with some label, by what a step compares them by."""
    fitting = []
    for group in groups:
        if group.units > 0 and not group.labels.isdisjoint(labels):
            fitting.append(group)
    return grouped(lambda group: step.key(group.unit[-1].instrument), fitting)


def _sides(groups: Sequence[_Group], step: _Step) -> list[tuple[list[_Group], list[_Group]]]:
    """Return the groups that a step compares with each other."""
    first = _with_labels(groups, step.first_labels, step)
    second = _with_labels(groups, step.second_labels, step)
    return [(of_key, second[key]) for key, of_key in first.items()]


def _joined(group: _Group, partner: _Group, step: _Step) -> _Group:
    """Return two groups as one, as often as both are there."""
    count = min(group.units, partner.units)
    group.units -= count
    partner.units -= count
    return _Group(_together([*group.unit, *partner.unit]), count, step.why, 2)


def _join_balanced(groups: list[_Group], step: _Step) -> None:
    """Join pairs by strikes where all have one: this has the least sum of margins."""
    for first, second in _sides(groups, step):
        if _units_in(first) != _units_in(second):
            continue

        waiting = sorted(first, key=_order_of)
        partners = sorted(second, key=_order_of)
        while waiting and partners:
            groups.append(_joined(waiting[0], partners[0], step))
            waiting = [group for group in waiting if group.units]
            partners = [group for group in partners if group.units]


def _order_of(group: _Group) -> tuple[str, float, bool, int]:
    return group.unit[0].order


def _join(groups: list[_Group], step: _Step) -> None:
    """Join pairs of groups, those with the smallest score first.

    Pairs with equal scores that exclude each other are not joined: each is an alternative.
    """
    closed = set[_Group]()
    for _score, equal in groupby(_scored_pairs(groups, step), key=itemgetter(0)):
        fitting: list[tuple[_Group, _Group]] = []
        for _, group, partner in equal:
            is_free = group.units and partner.units and closed.isdisjoint((group, partner))
            kind = group.kind_with(partner) if is_free else None
            if kind in ONLY_NAMED:
                group.add_alternative(partner)
                partner.add_alternative(group)
            elif kind is not None:
                fitting.append((group, partner))

        contested = _contested(fitting)
        for group, partner in fitting:
            if contested & {group, partner}:
                closed |= {group, partner}
                group.add_alternative(partner)
                partner.add_alternative(group)
            else:
                groups.append(_joined(group, partner, step))


def _contested(pairs: Iterable[tuple[_Group, _Group]]) -> set[_Group]:
    """Return the groups with several partners, of which they have not enough units for all."""
    units_of_partners: defaultdict[_Group, list[float]] = defaultdict(list)
    for group, partner in pairs:
        units_of_partners[group].append(partner.units)
        units_of_partners[partner].append(group.units)

    contested = set()
    for group, units in units_of_partners.items():
        if len(units) > 1 and sum(units) > group.units:
            contested.add(group)
    return contested


def _scored_pairs(
    groups: Sequence[_Group], step: _Step
) -> list[tuple[tuple[float | str | bool, ...], _Group, _Group]]:
    """Return the pairs that a step may join, those with the smallest score first."""
    has_equal_sides = step.first_labels == step.second_labels
    scored = []
    for first, second in _sides(groups, step):
        pairs = combinations(first, 2) if has_equal_sides else product(first, second)
        for group, partner in pairs:
            score = step.score(group, partner)
            if score is not None:
                scored.append((score, group, partner))
    return sorted(scored, key=itemgetter(0))
