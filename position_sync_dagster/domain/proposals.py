"""Strategies proposed from what is held: by the orders that opened it, then by its structure; pure.

The legs of one order come first, then what was opened within a minute, then all that is held of an
underlying or an expiry, then pairs, and pairs of pairs. A pair that has several equal partners is
left as it is, with these as alternatives. Every option ends in one structure, alone at least.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import chain, combinations, groupby, pairwise, product
from operator import attrgetter, itemgetter

from position_sync_dagster.domain.clock import NEVER
from position_sync_dagster.domain.closes import Execution
from position_sync_dagster.domain.holding import BrokerPosition, grouped
from position_sync_dagster.domain.instrument import Instrument, Right, contract_name
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
        one = self.instrument
        return None not in (one.right, one.strike, one.expiry) and one.sec_type in ("OPT", "FOP")

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
    stock, whole = legs[0], abs(legs[0].quantity)
    return all(abs(one.quantity) * _units_of(one, stock) == whole for one in legs[1:])


def _units_of(option: Piece, stock: Piece) -> float:
    """Return how much of its underlying a contract of an option stands for."""
    return option.instrument.multiplier / stock.instrument.multiplier


def _net(legs: Sequence[Piece]) -> float:
    return sum(one.quantity for one in legs)


def _is_even(legs: Sequence[Piece]) -> bool:
    return legs[0].quantity == legs[-1].quantity and not _net(legs)


def _has_even_wings(legs: Sequence[Piece]) -> bool:
    low, middle, high = (one.strike for one in legs)
    return _is_even(legs) and middle - low == high - middle


def _has_equal_strikes(legs: Sequence[Piece]) -> bool:
    strikes, half = [one.strike for one in legs], len(legs) // 2
    return strikes[:half] == strikes[half:]


_Rule = Callable[[Sequence[Piece]], bool]
# The parts of a shape. A stock or future that is held itself comes first. Options of one expiry
# follow by strike, the put first where two have the same; those of two by expiry, then by right.
LONG_STOCK, SHORT_STOCK = "long stock", "short stock"
LONG_PUT, SHORT_PUT = "long put", "short put"
LONG_CALL, SHORT_CALL = "long call", "short call"

# How an option lies to the one before it: its strike, or its expiry.
ABOVE, SAME_STRIKE, LATER = "above", "same strike", "later"

# The parts of a structure in their order, with the steps between options.
Shape = tuple[str, ...]

_SPREADS: tuple[Shape, ...] = (
    (LONG_PUT, ABOVE, SHORT_PUT),
    (SHORT_PUT, ABOVE, LONG_PUT),
    (LONG_CALL, ABOVE, SHORT_CALL),
    (SHORT_CALL, ABOVE, LONG_CALL),
)

_OF_TIME: tuple[Shape, ...] = (
    (SHORT_PUT, LATER, LONG_PUT),
    (LONG_PUT, LATER, SHORT_PUT),
    (SHORT_CALL, LATER, LONG_CALL),
    (LONG_CALL, LATER, SHORT_CALL),
)

_DOUBLES: tuple[Shape, ...] = (
    (SHORT_CALL, SHORT_PUT, LATER, LONG_CALL, LONG_PUT),
    (LONG_CALL, LONG_PUT, LATER, SHORT_CALL, SHORT_PUT),
)

_BUTTERFLIES: tuple[Shape, ...] = (
    (LONG_PUT, ABOVE, SHORT_PUT, ABOVE, LONG_PUT),
    (SHORT_PUT, ABOVE, LONG_PUT, ABOVE, SHORT_PUT),
    (LONG_CALL, ABOVE, SHORT_CALL, ABOVE, LONG_CALL),
    (SHORT_CALL, ABOVE, LONG_CALL, ABOVE, SHORT_CALL),
)

# What contracts are together. Of the structures of one shape, the first counts whose quantities and
# strikes fit.
_STRUCTURES: tuple[tuple[str, tuple[Shape, ...], _Rule | None], ...] = (
    ("single", ((LONG_PUT,), (SHORT_PUT,), (LONG_CALL,), (SHORT_CALL,)), None),
    ("covered-call", ((LONG_STOCK, SHORT_CALL),), _fits_stock),
    ("covered-put", ((SHORT_STOCK, SHORT_PUT),), _fits_stock),
    ("protective-put", ((LONG_STOCK, LONG_PUT),), _fits_stock),
    ("protective-call", ((SHORT_STOCK, LONG_CALL),), _fits_stock),
    (
        "collar",
        (
            (LONG_STOCK, LONG_PUT, SHORT_CALL),
            (LONG_STOCK, SHORT_CALL, LONG_PUT),
            (SHORT_STOCK, LONG_CALL, SHORT_PUT),
            (SHORT_STOCK, SHORT_PUT, LONG_CALL),
        ),
        _fits_stock,
    ),
    ("vertical", _SPREADS, lambda legs: _net(legs) == 0),
    ("ratio-spread", _SPREADS, lambda legs: _net(legs) < 0),
    ("back-spread", _SPREADS, lambda legs: _net(legs) > 0),
    ("straddle", ((LONG_PUT, SAME_STRIKE, LONG_CALL), (SHORT_PUT, SAME_STRIKE, SHORT_CALL)), None),
    (
        "strangle",
        (
            (LONG_PUT, ABOVE, LONG_CALL),
            (LONG_CALL, ABOVE, LONG_PUT),
            (SHORT_PUT, ABOVE, SHORT_CALL),
            (SHORT_CALL, ABOVE, SHORT_PUT),
        ),
        None,
    ),
    (
        "risk-reversal",
        (
            (LONG_PUT, ABOVE, SHORT_CALL),
            (SHORT_CALL, ABOVE, LONG_PUT),
            (SHORT_PUT, ABOVE, LONG_CALL),
            (LONG_CALL, ABOVE, SHORT_PUT),
        ),
        None,
    ),
    ("synthetic", ((LONG_PUT, SAME_STRIKE, SHORT_CALL), (SHORT_PUT, SAME_STRIKE, LONG_CALL)), None),
    ("calendar", _OF_TIME, _has_equal_strikes),
    ("diagonal", _OF_TIME, None),
    ("double-calendar", _DOUBLES, _has_equal_strikes),
    ("double-diagonal", _DOUBLES, None),
    ("butterfly", _BUTTERFLIES, _has_even_wings),
    ("broken-wing-butterfly", _BUTTERFLIES, lambda legs: _net(legs) == 0),
    (
        "condor",
        (
            (LONG_PUT, ABOVE, SHORT_PUT, ABOVE, SHORT_PUT, ABOVE, LONG_PUT),
            (SHORT_PUT, ABOVE, LONG_PUT, ABOVE, LONG_PUT, ABOVE, SHORT_PUT),
            (LONG_CALL, ABOVE, SHORT_CALL, ABOVE, SHORT_CALL, ABOVE, LONG_CALL),
            (SHORT_CALL, ABOVE, LONG_CALL, ABOVE, LONG_CALL, ABOVE, SHORT_CALL),
        ),
        _is_even,
    ),
    (
        "iron-butterfly",
        ((LONG_PUT, ABOVE, SHORT_PUT, SAME_STRIKE, SHORT_CALL, ABOVE, LONG_CALL),),
        None,
    ),
    ("iron-condor", ((LONG_PUT, ABOVE, SHORT_PUT, ABOVE, SHORT_CALL, ABOVE, LONG_CALL),), None),
    (
        "reverse-iron-butterfly",
        ((SHORT_PUT, ABOVE, LONG_PUT, SAME_STRIKE, LONG_CALL, ABOVE, SHORT_CALL),),
        None,
    ),
    (
        "reverse-iron-condor",
        ((SHORT_PUT, ABOVE, LONG_PUT, ABOVE, LONG_CALL, ABOVE, SHORT_CALL),),
        None,
    ),
    (
        "jade-lizard",
        (
            (SHORT_PUT, ABOVE, SHORT_CALL, ABOVE, LONG_CALL),
            (SHORT_PUT, SAME_STRIKE, SHORT_CALL, ABOVE, LONG_CALL),
        ),
        lambda legs: _net(legs[1:]) == 0,
    ),
    (
        "reverse-jade-lizard",
        (
            (LONG_PUT, ABOVE, SHORT_PUT, ABOVE, SHORT_CALL),
            (LONG_PUT, ABOVE, SHORT_PUT, SAME_STRIKE, SHORT_CALL),
        ),
        lambda legs: _net(legs[:2]) == 0,
    ),
    (
        "box",
        (
            (SHORT_PUT, SAME_STRIKE, LONG_CALL, ABOVE, LONG_PUT, SAME_STRIKE, SHORT_CALL),
            (LONG_PUT, SAME_STRIKE, SHORT_CALL, ABOVE, SHORT_PUT, SAME_STRIKE, LONG_CALL),
        ),
        lambda legs: len({abs(p.quantity) for p in legs}) == 1,
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

    shape = _shape_of(legs) if has_stock else _shape_of_options(legs)
    for kind, rule in _BY_SHAPE.get(shape, ()):
        if rule is None or rule(legs):
            return kind
    return None


def _shape_of(legs: Iterable[Piece]) -> Shape:
    """Return the parts of a structure with a stock: no strike is compared."""
    return tuple(_part_of(leg) for leg in legs)


def _shape_of_options(legs: list[Piece]) -> Shape:
    """Return the parts of options with the steps between them; puts the legs in their order."""
    is_of_time = len({leg.day for leg in legs}) > 1
    if is_of_time:
        legs.sort(key=lambda leg: (leg.day, str(leg.instrument.right)))

    parts = [_part_of(legs[0])]
    for before, leg in pairwise(legs):
        if not is_of_time:
            parts.append(ABOVE if before.strike < leg.strike else SAME_STRIKE)
        elif before.day != leg.day:
            parts.append(LATER)
        parts.append(_part_of(leg))
    return tuple(parts)


def _part_of(leg: Piece) -> str:
    side = "long" if leg.quantity > 0 else "short"
    if _is_stock(leg):
        return f"{side} stock"
    right = leg.instrument.right if leg.is_option else None
    return f"{side} {'other' if right is None else right.lower()}"


def _is_stock(one: Piece) -> bool:
    """Return whether it is what an option can be an option on, and is held itself."""
    return one.instrument.sec_type in ("STK", "FUT")


def risk_of(parts: Sequence[Piece]) -> tuple[float | None, float | None, bool]:
    """Return credit and greatest loss of a structure, in the currency of its contracts.

    Options that expire later count with their intrinsic value, which is the least that a long one
    is worth.

    Returns:
        What was received for it, negative if it was paid, None: unknown; what it loses at most
        until its first expiry, None: unknown or without bound; and whether it has no bound.
    """
    paid = [one.quantity * one.cost for one in parts if one.cost is not None]
    credit = 0.0 - sum(paid) if len(paid) == len(parts) else None
    prices = {0.0, *(one.strike for one in parts)}
    top = max(prices)
    if _payoff(parts, top + 1.0) - _payoff(parts, top) < -1e-9:
        return credit, None, True
    first = min((one.day for one in parts if one.is_option), default="")
    # A short option that expires later may be worth any amount more than its intrinsic value.
    is_short_later = any(one.day > first and one.quantity < 0 for one in parts)
    if credit is None or is_short_later:
        return credit, None, False
    return credit, max(0.0, -credit - min(_payoff(parts, at) for at in prices)) + 0.0, False


def _payoff(parts: Sequence[Piece], price: float) -> float:
    total = 0.0
    for one in parts:
        worth = price
        if one.is_option:
            above = price - one.strike
            worth = max(0.0, above if one.instrument.right is Right.CALL else -above)
        total += one.quantity * one.instrument.multiplier * worth
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
        self.kind, first = kind_of(self.unit), self.unit[0]
        self.labels = {self.kind or "stock"}
        if self.kind == "single":
            self.labels = {"long" if first.quantity > 0 else "short", str(first.instrument.right)}

    @property
    def whole(self) -> list[Piece]:
        """All of its contracts."""
        return [replace(one, quantity=one.quantity * self.units) for one in self.unit]

    def kind_with(self, other: "_Group") -> str | None:
        """Return the kind that a unit is together with one of another group."""
        return kind_of(_together([*self.unit, *other.unit]))

    def add_alternative(self, other: "_Group") -> None:
        """Name what it may be together with another group."""
        if len(self.alternatives) < MOST_ALTERNATIVES:
            names = " / ".join(contract_name(part.instrument) for part in other.unit)
            self.alternatives.append(f"{self.kind_with(other)} with {names}")


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
    in_order = sorted(executions, key=lambda one: (one.time, one.execution_id))
    deals = grouped(lambda one: (one.account, one.conid), in_order)
    of_underlying = grouped(
        lambda one: (one.account, one.instrument.symbol, one.instrument.currency),
        sorted(holdings, key=lambda one: one.key),
    )
    found: list[tuple[int, ProposedStrategy]] = []
    left: list[Piece] = []
    for (account, symbol, _currency), own in sorted(of_underlying.items()):
        lots = [_lots(one, deals[one.key], claims[one.instrument.conid]) for one in own]
        opened = [*chain(*lots)]
        groups = _structures(opened)
        found += [(group.rank, _proposed(group, account, symbol)) for group in groups]
        left += _without(opened, groups)
    found.sort(
        key=lambda one: (one[0], one[1].account, one[1].underlying, [p.order for p in one[1].legs])
    )
    taken_names, strategies = set(names), []
    for _rank, strategy in found:
        name, number = strategy.name, 1
        while name in taken_names:
            number += 1
            name = f"{strategy.name}-{number}"
        taken_names.add(name)
        strategies.append(replace(strategy, name=name))
    return Proposal(strategies=tuple(strategies), left_over=tuple(left))


def _lots(
    holding: BrokerPosition, deals: Iterable[Execution], legs: Iterable[ActiveContract]
) -> list[Piece]:
    """Return what is held and claimed by no strategy, by the orders that opened it.

    The oldest lots are closed first, and claimed first. What was held before the first known
    execution is a lot without an order.

    Args:
        holding: What is held.
        deals: The executions of it, the oldest first.
        legs: The active legs of its contract.
    """
    terms, before = holding.instrument, holding.position - sum(one.change for one in deals)
    lots = [Piece(terms, before, holding.average_cost)]
    for one in deals:
        cost = None if one.price is None else one.price * terms.multiplier
        lots, opened = _changed(lots, one.change)
        lots.append(Piece(terms, opened, cost, one.order_id, one.time))
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
            quantity, change = quantity - closed, change + closed
        if abs(quantity) > NEGLIGIBLE:
            after.append(replace(lot, quantity=quantity))
    return after, change


def _together(parts: Iterable[Piece]) -> list[Piece]:
    """Return some contracts, each once, with the average of their costs."""
    found: dict[int, Piece] = {}
    for one in parts:
        before = found.get(one.conid)
        if before is not None:
            quantity, cost = before.quantity + one.quantity, one.cost
            if before.cost is None or cost is None or not quantity:
                cost = None
            elif cost != before.cost:
                cost = (before.quantity * before.cost + one.quantity * cost) / quantity
            one = Piece(one.instrument, quantity, cost)
        found[one.conid] = one
    return [one for one in found.values() if abs(one.quantity) > NEGLIGIBLE]


def _without(parts: Iterable[Piece], groups: Iterable[_Group]) -> list[Piece]:
    """Return contracts without those of some groups."""
    taken = (replace(one, quantity=-one.quantity) for group in groups for one in group.whole)
    return _together([*parts, *taken])


def _structures(lots: Sequence[Piece]) -> list[_Group]:
    """Return the structures of one underlying: each option is in one."""
    by_order = grouped(lambda lot: lot.order_id, lots)
    rest, alone = by_order.pop(None, []), list[Piece]()
    by_unit: defaultdict[tuple[tuple[int, float], ...], list[Piece]] = defaultdict(list)
    for order in sorted(by_order, key=str):
        parts = _together(by_order[order])
        if len(parts) > 1 and any(part.is_option for part in parts):
            unit = tuple((part.conid, part.quantity) for part in _as_group(parts).unit)
            by_unit[unit] += parts
        else:
            alone += by_order[order]
    groups: list[_Group] = []
    for unit, parts in by_unit.items():
        count = len(parts) // len(unit)
        many = f"{count} orders of the same legs" if count > 1 else "one order"
        groups.append(_as_group(parts, f"opened by {many}", 0))
    alone.sort(key=lambda lot: (lot.at, lot.conid))
    separate: list[Piece] = []
    while alone:
        near = [lot for lot in alone if lot.at - alone[0].at <= TOGETHER]
        group = _as_group(near, "opened within a minute", 1)
        if len(group.unit) > 1 and group.kind is not None:
            groups.append(group)
        else:
            near = near[:1]
            separate += near
        alone = alone[len(near) :]
    known, has_stock = [], not all(lot.is_option for lot in lots)
    for group in _matched(separate):
        # A long option needs no other one; a short one may go with what was opened before, and
        # either with the underlying.
        if len(group.unit) > 1:
            known.append(group)
        elif group.unit[0].quantity > 0 and not has_stock:
            group.why, group.rank = "opened by an order of its own", 1
            known.append(group)
    return groups + known + _matched([*rest, *_without(separate, known)])


def _as_group(parts: Iterable[Piece], why: str = ALONE, rank: int = 3) -> _Group:
    """Return all of some contracts as one group, by their greatest common divisor."""
    whole = _together(parts)
    amounts, units = [abs(one.quantity) for one in whole], 1
    if all(one == int(one) for one in amounts):
        units = math.gcd(*map(int, amounts))
    return _Group([replace(one, quantity=one.quantity / units) for one in whole], units, why, rank)


def _proposed(group: _Group, account: str, underlying: str) -> ProposedStrategy:
    legs, kind = tuple(group.whole), group.kind or "combination"
    credit, greatest_loss, unlimited = risk_of(legs)
    first = min((one.day for one in legs if one.is_option), default="")
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
        first, second: The labels of the ones and of the others of the pairs.
        key: Only groups whose last contract has an equal one are compared.
    """

    why: str
    first: Collection[str]
    second: Collection[str]
    key: Callable[[Instrument], object]
    score: Callable[[_Group, _Group], Score]


def _by_strikes(short: _Group, long: _Group) -> Score:
    """Prefer strikes that are near, which count twice if the long option is behind."""
    one, other = short.unit[0], long.unit[0]
    behind = (other.strike - one.strike) * (-1 if one.instrument.right is Right.PUT else 1)
    return (abs(behind) + max(0.0, behind), other.day, other.strike)


def _by_time(short: _Group, long: _Group) -> Score:
    return _by_strikes(short, long) if short.unit[0].day < long.unit[0].day else None


def _by_width(one: _Group, other: _Group) -> Score:
    """Prefer boxes, then what needs the least margin: condors and butterflies."""
    strikes = [[part.strike for part in group.unit] for group in (one, other)]
    width = min(high - low for low, high in strikes)
    return (strikes[0] != strikes[1], one.units != other.units, -width)


def _by_sides(call: _Group, put: _Group) -> Score:
    """Prefer two short ones, then two long ones."""
    sides = [group.unit[0].quantity > 0 for group in (call, put)]
    apart = abs(call.unit[0].strike - put.unit[0].strike)
    return (any(sides) + (len({*sides}) > 1), call.units != put.units, apart)


def _by_units(one: _Group, other: _Group) -> Score:
    return (one.units != other.units,)


def _beside(spread: _Group, single: _Group) -> Score:
    rights = {group.unit[0].instrument.right for group in (spread, single)}
    return _by_units(spread, single) if len(rights) == 2 else None


def _by_day(_: _Group, option: _Group) -> Score:
    return (option.unit[0].day,)


SHORT, LONG, STOCK = {"short"}, {"long"}, {"stock"}
PAIR = {"vertical", "ratio-spread", "back-spread"}
SPREAD, COVERED = {"vertical"}, {"covered-call", "covered-put"}
OF_TIME = {"calendar", "diagonal"}
EXPIRY, ANY = attrgetter("expiry"), attrgetter("symbol")
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


def _matched(given: Iterable[Piece]) -> list[_Group]:
    """Divide contracts of one underlying into structures; a stock or a future alone is none.

    Each option begins as a group of its own; each step joins pairs of groups.
    """
    parts = sorted(_together(given), key=lambda part: part.conid)
    if len(parts) > 1 and kind_of(parts) is not None:
        return [_as_group(parts, "all that is held of the underlying", 2)]
    groups: list[_Group] = []
    options = [part for part in parts if part.is_option]
    for _day, own in sorted(grouped(attrgetter("day"), options).items()):
        if len(own) > 1 and kind_of(own) not in APART:
            groups.append(_as_group(own, "all options of the expiry", 2))
        else:
            groups += [_as_group([part]) for part in own]
    for stock in parts:
        if options and _is_stock(stock):
            per = min(_units_of(one, stock) for one in options)
            share = replace(stock, quantity=math.copysign(per, stock.quantity))
            groups.append(_Group([share], math.floor(abs(stock.quantity) / per + 1e-9)))
    _join_balanced(groups, STEPS[0])
    for step in STEPS:
        _join(groups, step)
    return [one for one in groups if one.units > 0 and one.kind is not None]


def _sides(groups: Iterable[_Group], step: _Step) -> list[tuple[list[_Group], list[_Group]]]:
    """Return the groups that a step compares with each other."""
    ones, others = (
        grouped(
            lambda group: step.key(group.unit[-1].instrument),
            (one for one in groups if one.units > 0 and not one.labels.isdisjoint(labels)),
        )
        for labels in (step.first, step.second)
    )
    return [(own, others[key]) for key, own in ones.items()]


def _joined(one: _Group, other: _Group, step: _Step) -> _Group:
    """Return two groups as one, as often as both are there."""
    count = min(one.units, other.units)
    one.units, other.units = one.units - count, other.units - count
    return _Group(_together([*one.unit, *other.unit]), count, step.why, 2)


def _join_balanced(groups: list[_Group], step: _Step) -> None:
    """Join pairs by strikes where all have one: this has the least sum of margins."""
    for sides in _sides(groups, step):
        totals = {sum(one.units for one in own) for own in sides}
        ones, others = (sorted(own, key=lambda group: group.unit[0].order) for own in sides)
        while len(totals) == 1 and ones and others:
            groups.append(_joined(ones[0], others[0], step))
            ones, others = ([one for one in own if one.units] for own in (ones, others))


def _join(groups: list[_Group], step: _Step) -> None:
    """Join pairs of groups, those with the smallest score first.

    Pairs with equal scores that exclude each other are not joined: each is an alternative.
    """
    pairs = []
    for own, others in _sides(groups, step):
        is_same = step.first == step.second
        for one, other in combinations(own, 2) if is_same else product(own, others):
            if (score := step.score(one, other)) is not None:
                pairs.append((score, one, other))
    closed = set[_Group]()
    for _score, same in groupby(sorted(pairs, key=itemgetter(0)), key=itemgetter(0)):
        fitting = []
        partners: defaultdict[_Group, list[float]] = defaultdict(list)
        for _, one, other in same:
            is_free = one.units and other.units and closed.isdisjoint((one, other))
            kind = one.kind_with(other) if is_free else None
            if kind in ONLY_NAMED:
                one.add_alternative(other)
                other.add_alternative(one)
            elif kind is not None:
                fitting.append((one, other))
                partners[one].append(other.units)
                partners[other].append(one.units)
        contested = {
            one for one, units in partners.items() if len(units) > 1 and sum(units) > one.units
        }
        for one, other in fitting:
            if contested & {one, other}:
                closed |= {one, other}
                one.add_alternative(other)
                other.add_alternative(one)
            else:
                groups.append(_joined(one, other, step))
