"""Strategies proposed from what is held: by the orders that opened it, then by its structure; pure.

First which kind some contracts are together, and what they lose at most; then the proposals. The
legs of one order come first, then what was opened within a minute, then all that is held of an
underlying or an expiry, then pairs, and pairs of pairs. A pair that has several equal partners is
left as it is, with these as alternatives. Every option ends in one structure, alone at least.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import chain, groupby
from operator import attrgetter
from typing import TypeVar

from position_sync_dagster.domain.broker_position import BrokerPosition
from position_sync_dagster.domain.clock import NEVER
from position_sync_dagster.domain.instrument import Instrument, Right, contract_name
from position_sync_dagster.domain.leg import NEGLIGIBLE, ActiveContract
from position_sync_dagster.domain.statement import Execution

_Row = TypeVar("_Row")
_Key = TypeVar("_Key")

# Security types that an option can be an option on, and that are held themselves.
STOCKS = frozenset({"STK", "FUT"})


class Shape(StrEnum):
    """The kind of a structure. COMBINATION: the legs of one order that have no name."""

    SINGLE = "single"
    COVERED_CALL = "covered-call"
    COVERED_PUT = "covered-put"
    PROTECTIVE_PUT = "protective-put"
    PROTECTIVE_CALL = "protective-call"
    COLLAR = "collar"
    VERTICAL = "vertical"
    RATIO_SPREAD = "ratio-spread"
    BACK_SPREAD = "back-spread"
    STRADDLE = "straddle"
    STRANGLE = "strangle"
    RISK_REVERSAL = "risk-reversal"
    SYNTHETIC = "synthetic"
    CALENDAR = "calendar"
    DIAGONAL = "diagonal"
    DOUBLE_CALENDAR = "double-calendar"
    DOUBLE_DIAGONAL = "double-diagonal"
    BUTTERFLY = "butterfly"
    BROKEN_WING = "broken-wing-butterfly"
    CONDOR = "condor"
    IRON_BUTTERFLY = "iron-butterfly"
    IRON_CONDOR = "iron-condor"
    REVERSE_IRON_BUTTERFLY = "reverse-iron-butterfly"
    REVERSE_IRON_CONDOR = "reverse-iron-condor"
    JADE_LIZARD = "jade-lizard"
    REVERSE_JADE_LIZARD = "reverse-jade-lizard"
    BOX = "box"
    COMBINATION = "combination"


@dataclass(frozen=True, slots=True)
class Piece:
    """A contract, and how much of it belongs to a structure.

    Attributes:
        instrument: The contract; its multiplier leads from its prices to `currency`.
        quantity: Signed contracts or shares.
        cost: What one contract or share cost, with its multiplier; None: unknown.
    """

    instrument: Instrument
    quantity: float
    cost: float | None = None

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


# What contracts are together, by the side and the kind of each: a stock or future (S) first, then
# options of one expiry by strike, the put first where two have the same one.
_PATTERNS = {
    Shape.SINGLE: "+P -P +C -C",
    Shape.COVERED_CALL: "+S-C",
    Shape.COVERED_PUT: "-S-P",
    Shape.PROTECTIVE_PUT: "+S+P",
    Shape.PROTECTIVE_CALL: "-S+C",
    Shape.COLLAR: "+S+P-C +S-C+P -S+C-P -S-P+C",
    Shape.VERTICAL: "+P-P -P+P +C-C -C+C",
    Shape.STRANGLE: "+P+C +C+P -P-C -C-P",
    Shape.RISK_REVERSAL: "+P-C -C+P -P+C +C-P",
    Shape.BUTTERFLY: "+P-P+P -P+P-P +C-C+C -C+C-C",
    Shape.CONDOR: "+P-P-P+P -P+P+P-P +C-C-C+C -C+C+C-C",
    Shape.IRON_CONDOR: "+P-P-C+C",
    Shape.REVERSE_IRON_CONDOR: "-P+P+C-C",
    Shape.JADE_LIZARD: "-P-C+C -C-P+C -C+C-P",
    Shape.REVERSE_JADE_LIZARD: "+P-P-C +P-C-P -C+P-P",
    Shape.BOX: "-P+C+P-C +P-C-P+C",
}
_KINDS = {pattern: kind for kind, patterns in _PATTERNS.items() for pattern in patterns.split()}

# What these are called where the inner strikes are the same.
_AT_ONE_STRIKE = {
    Shape.STRANGLE: Shape.STRADDLE,
    Shape.RISK_REVERSAL: Shape.SYNTHETIC,
    Shape.IRON_CONDOR: Shape.IRON_BUTTERFLY,
    Shape.REVERSE_IRON_CONDOR: Shape.REVERSE_IRON_BUTTERFLY,
}

# The kinds of one and of two pairs of two expiries: at several strikes, and at one.
_OF_TWO_EXPIRIES = {
    1: (Shape.DIAGONAL, Shape.CALENDAR),
    2: (Shape.DOUBLE_DIAGONAL, Shape.DOUBLE_CALENDAR),
}


def _by(key: Callable[[_Row], _Key], rows: Iterable[_Row]) -> defaultdict[_Key, list[_Row]]:
    """Return rows by a key, in their order."""
    found: defaultdict[_Key, list[_Row]] = defaultdict(list)
    for row in rows:
        found[key(row)].append(row)
    return found


def kind_of(parts: Iterable[Piece]) -> Shape | None:
    """Return the kind of structure that some contracts are together; None if they are none.

    Args:
        parts: Contracts of one underlying, each once.
    """
    legs = sorted(parts, key=lambda one: (one.strike, one.instrument.right is Right.CALL))
    legs.sort(key=lambda one: one.is_option)
    if legs and legs[0].is_option:
        if len({one.instrument.multiplier for one in legs}) != 1:
            return None
        if len({one.instrument.expiry for one in legs}) > 1:
            return _of_two_expiries(legs)
    kind = _KINDS.get("".join(("+" if one.quantity > 0 else "-") + _letter(one) for one in legs))
    return None if kind is None else _by_amounts(kind, legs)


def _letter(one: Piece) -> str:
    if one.is_option:
        return str(one.instrument.right)[0]
    return "S" if one.instrument.sec_type in STOCKS else "?"


def _by_amounts(kind: Shape, legs: list[Piece]) -> Shape | None:
    """Return a kind as quantities and strikes of its legs make it; None if they do not fit."""
    amounts, strikes = [one.quantity for one in legs], [one.strike for one in legs]
    net, is_even, half = sum(amounts), amounts[0] == amounts[-1], len(legs) // 2
    at_one_strike = strikes[half - 1] == strikes[half]
    fits = True
    match kind:
        case Shape.VERTICAL:
            fits = not at_one_strike
            if net:
                kind = Shape.RATIO_SPREAD if net < 0 else Shape.BACK_SPREAD
        case Shape.BUTTERFLY:
            fits = net == 0
            if not is_even or strikes[1] - strikes[0] != strikes[2] - strikes[1]:
                kind = Shape.BROKEN_WING
        case Shape.CONDOR:
            fits = is_even and net == 0
        case Shape.JADE_LIZARD | Shape.REVERSE_JADE_LIZARD:
            right = Right.CALL if kind is Shape.JADE_LIZARD else Right.PUT
            fits = sum(one.quantity for one in legs if one.instrument.right is right) == 0
        case Shape.BOX:
            fits = strikes[::2] == strikes[1::2] and len(set(map(abs, amounts))) == 1
        case _ if not legs[0].is_option:
            whole = abs(amounts[0])
            fits = all(abs(one.quantity) * units_of(one, legs[0]) == whole for one in legs[1:])
        case _ if at_one_strike and len(legs) > 1:
            kind = _AT_ONE_STRIKE[kind]
    return kind if fits else None


def _of_two_expiries(options: Iterable[Piece]) -> Shape | None:
    """Return the kind of a pair of one right, or of a pair of each right, of two expiries."""
    in_order = sorted(options, key=lambda one: str(one.instrument.expiry))
    by_right = _by(lambda one: one.instrument.right, in_order)
    days, at_one_strike = set(), True
    for pair in by_right.values():
        near, far = pair[0], pair[-1]
        if len(pair) != 2 or near.quantity * far.quantity > 0:
            return None
        days.add((near.instrument.expiry, far.instrument.expiry, near.quantity > 0))
        at_one_strike = at_one_strike and near.strike == far.strike
    return _OF_TWO_EXPIRIES[len(by_right)][at_one_strike] if len(days) == 1 else None


def units_of(option: Piece, stock: Piece) -> float:
    """Return how much of its underlying a contract of an option stands for."""
    return option.instrument.multiplier / stock.instrument.multiplier


def least_payoff(parts: Sequence[Piece]) -> float | None:
    """Return the least worth of some contracts at the first expiry; None: it has no bound.

    Options that expire later count with their intrinsic value, which is the least that a long one
    is worth.
    """
    top = max((one.strike for one in parts if one.is_option), default=0.0)
    slope = _payoff(parts, top + 1.0) - _payoff(parts, top)
    if slope < -1e-9:
        return None
    return min(_payoff(parts, at) for at in {0.0, *(one.strike for one in parts)})


def _payoff(parts: Sequence[Piece], price: float) -> float:
    total = 0.0
    for one in parts:
        worth = price
        if one.is_option:
            above = price - one.strike
            worth = max(0.0, above if one.instrument.right is Right.CALL else -above)
        total += one.quantity * one.instrument.multiplier * worth
    return total


def risk_of(parts: Sequence[Piece]) -> tuple[float | None, float | None, bool]:
    """Return credit and greatest loss of a structure, in the currency of its contracts.

    Returns:
        What was received for it, negative if it was paid, None: unknown; what it loses at most
        until its first expiry, None: unknown or without bound; and whether it has no bound.
    """
    paid = [None if one.cost is None else one.quantity * one.cost for one in parts]
    known = [one for one in paid if one is not None]
    credit = 0.0 - sum(known) if len(known) == len(paid) else None
    expiries = [one.instrument.expiry for one in parts if one.instrument.expiry is not None]
    first = min(expiries, default=None)
    # A short option that expires later may be worth any amount more than its intrinsic value.
    later = [one for one in parts if one.is_option and one.instrument.expiry != first]
    is_short_later = any(one.quantity < 0 for one in later)
    least = least_payoff(parts)
    if least is None:
        return credit, None, True
    loss = None if credit is None or is_short_later else max(0.0, -(least + credit)) + 0.0
    return credit, loss, False


# Orders of one underlying within this time may have opened one structure.
TOGETHER = timedelta(minutes=1)

# Maximum number of alternatives that a proposal names.
MOST_ALTERNATIVES = 3

# Why an option is proposed that is in no structure.
ALONE = "nothing else goes with it"

# The most contracts against one of the other side in a ratio spread that no order shows.
HIGHEST_RATIO = 3


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
    """Contracts that belong together: `units` times those of `unit`, by expiry and strike."""

    unit: list[Piece]
    units: float
    why: str = ALONE
    rank: int = 3
    alternatives: list[str] = field(default_factory=list)
    kind: Shape | None = field(init=False)

    def __post_init__(self) -> None:
        self.unit.sort(key=_order)
        self.kind = kind_of(self.unit)

    @property
    def whole(self) -> list[Piece]:
        """All of its contracts."""
        return [replace(one, quantity=one.quantity * self.units) for one in self.unit]


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
    of_underlying = _by(
        lambda lot: (lot.account, lot.part.instrument.symbol, lot.part.instrument.currency),
        open_lots(holdings, executions, claimed),
    )
    found: list[tuple[int, ProposedStrategy]] = []
    left: list[Lot] = []
    for (account, symbol, _currency), own in sorted(of_underlying.items()):
        groups, rest = _structures(own)
        found += [(group.rank, _proposed(group, account, symbol)) for group in groups]
        left += rest
    found.sort(
        key=lambda one: (one[0], one[1].account, one[1].underlying, tuple(map(_order, one[1].legs)))
    )
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
    claims = _by(lambda leg: leg.conid, claimed)
    in_order = sorted(executions, key=lambda one: (one.time, one.execution_id))
    traded = _by(lambda one: (one.account, one.conid), in_order)
    found: list[Lot] = []
    for holding in sorted(holdings, key=lambda one: one.key):
        terms, deals = holding.instrument, traded[holding.key]
        before = holding.position - sum(one.change for one in deals)
        lots = [Lot(Piece(terms, before, holding.average_cost), holding.account)]
        for one in deals:
            cost = None if one.price is None else one.price * terms.multiplier
            lots, opened = _changed(lots, one.change)
            lots.append(Lot(Piece(terms, opened, cost), holding.account, one.order_id, one.time))
        for leg in claims[terms.conid]:
            claim = holding.position if leg.quantity is None else leg.quantity
            if leg.account in (None, holding.account) and claim * holding.position > 0:
                lots, _more_than_is_held = _changed(lots, -claim)
        found += [lot for lot in lots if abs(lot.part.quantity) > NEGLIGIBLE]
    return found


def _changed(lots: Iterable[Lot], change: float) -> tuple[list[Lot], float]:
    """Return the lots after a change, which closes the oldest ones first, and what it opens."""
    after: list[Lot] = []
    for lot in lots:
        quantity = lot.part.quantity
        if quantity * change < 0:
            closed = math.copysign(min(abs(quantity), abs(change)), quantity)
            quantity, change = quantity - closed, change + closed
        if abs(quantity) > NEGLIGIBLE:
            after.append(replace(lot, part=replace(lot.part, quantity=quantity)))
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
    return [one for one in found.values() if one.quantity]


def _structures(lots: list[Lot]) -> tuple[list[_Group], list[Lot]]:
    """Return the structures of one underlying, and what is in none."""
    by_order = _by(lambda lot: lot.order, lots)
    rest, alone = by_order.pop(None, []), list[Lot]()
    by_unit: defaultdict[object, list[list[Piece]]] = defaultdict(list)
    for order in sorted(by_order, key=str):
        parts = _together(lot.part for lot in by_order[order])
        if len(parts) > 1 and any(part.is_option for part in parts):
            unit = ((part.conid, part.quantity) for part in _grouped(parts).unit)
            by_unit[tuple(unit)].append(parts)
        else:
            alone += by_order[order]
    groups: list[_Group] = []
    for orders in by_unit.values():
        many = f"{len(orders)} orders of the same legs" if len(orders) > 1 else "one order"
        groups.append(_grouped(chain(*orders), f"opened by {many}", 0))
    alone.sort(key=lambda lot: (lot.at, lot.part.conid))
    separate: list[Lot] = []
    while alone:
        near = [lot for lot in alone if lot.at - alone[0].at <= TOGETHER]
        group = _grouped((lot.part for lot in near), "opened within a minute", 1)
        if len(group.unit) > 1 and group.kind is not None:
            groups.append(group)
        else:
            near = near[:1]
            separate += near
        alone = alone[len(near) :]
    known, has_underlying = [], not all(lot.part.is_option for lot in lots)
    for group in _Matching(separate).result:
        # A long option needs no other one; a short one may go with what was opened before, and
        # either with the underlying.
        is_own = len(group.unit) == 1 and group.unit[0].quantity > 0 and not has_underlying
        if is_own:
            group.why, group.rank = "opened by an order of its own", 1
        if is_own or len(group.unit) > 1:
            known.append(group)
    rest += _without(separate, known)
    others = _Matching(rest).result
    return groups + known + others, _without(rest, others)


def _without(lots: Iterable[Lot], groups: Iterable[_Group]) -> list[Lot]:
    """Return lots without the contracts of some groups, the oldest of which go first."""
    of_conid = _by(lambda lot: lot.part.conid, lots)
    for part in (one for group in groups for one in group.whole):
        of_conid[part.conid], _ = _changed(of_conid[part.conid], -part.quantity)
    return [lot for own in of_conid.values() for lot in own]


def _grouped(parts: Iterable[Piece], why: str = ALONE, rank: int = 3) -> _Group:
    """Return all of some contracts as one group, by their greatest common divisor."""
    whole = _together(parts)
    units = _divisor(one.quantity for one in whole)
    return _Group([replace(one, quantity=one.quantity / units) for one in whole], units, why, rank)


def _divisor(quantities: Iterable[float]) -> float:
    listed = [abs(one) for one in quantities]
    return float(math.gcd(*map(int, listed))) if all(one == int(one) for one in listed) else 1.0


def _proposed(group: _Group, account: str, underlying: str) -> ProposedStrategy:
    legs, kind = tuple(group.whole), group.kind or Shape.COMBINATION
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


def _order(one: Piece) -> tuple[str, float, str, int]:
    """Return the sort key of a leg: stocks, then options by expiry, strike and right."""
    day = str(one.instrument.expiry) if one.is_option else ""
    return day, one.strike, str(one.instrument.right), one.conid


# What all options of one expiry are not at once: each may go with something of the underlying.
APART = frozenset({Shape.STRADDLE, Shape.STRANGLE, Shape.RISK_REVERSAL, Shape.SYNTHETIC, None})

# What two spreads are that need no less margin together: it is named, and they stay apart.
ONLY_NAMED = frozenset({Shape.REVERSE_IRON_BUTTERFLY, Shape.REVERSE_IRON_CONDOR})

# Sorts the pairs of a step, those with the smallest one first; None: they do not go together.
Score = tuple[float | str | bool, ...] | None


@dataclass(frozen=True, slots=True)
class _Step:
    """One way to join pairs of groups, if the two are a structure.

    Attributes:
        first, second: Which groups are the ones and the others of the pairs.
        key: Only groups whose last contract has an equal one are compared.
    """

    why: str
    first: Callable[[_Group], bool]
    second: Callable[[_Group], bool]
    key: Callable[[Instrument], object]
    score: Callable[[_Group, _Group], Score]


def _of(*kinds: Shape | None) -> Callable[[_Group], bool]:
    return lambda group: group.kind in kinds


def _single(fits: Callable[[Piece], bool]) -> Callable[[_Group], bool]:
    return lambda group: group.kind is Shape.SINGLE and fits(group.unit[0])


def _is_uneven(one: _Group, other: _Group) -> Score:
    return (one.units != other.units,)


def _of_spread(one: _Group, other: _Group) -> Score:
    return (_distance(one.unit[0], other.unit[0]), other.unit[0].strike)


def _of_four(one: _Group, other: _Group) -> Score:
    """Prefer boxes, then what needs the least margin: condors and butterflies."""
    if one.unit[0].strike > other.unit[0].strike:
        one, other = other, one
    (first, inner), (outer, last) = one.unit, other.unit
    is_box = (first.strike, inner.strike) == (outer.strike, last.strike)
    of_one_right = first.instrument.right is outer.instrument.right
    if not is_box and (inner.strike > outer.strike or (first.quantity < 0 and of_one_right)):
        return None
    width = min(inner.strike - first.strike, last.strike - outer.strike)
    return (not is_box, one.units != other.units, -width)


def _of_time(short: _Group, long: _Group) -> Score:
    near, far = short.unit[0].instrument.expiry, long.unit[0].instrument.expiry
    days = 0 if near is None or far is None else (far - near).days
    part = long.unit[0]
    return (_distance(short.unit[0], part), days, part.strike) if days > 0 else None


def _of_call_and_put(one: _Group, other: _Group) -> Score:
    """Prefer two short ones, then two long ones."""
    call, put = one.unit[0], other.unit[0]
    order = {0: 0, 2: 1, 1: 2}[(call.quantity > 0) + (put.quantity > 0)]
    return (order, one.units != other.units, abs(call.strike - put.strike))


def _beside_spread(spread: _Group, short: _Group) -> Score:
    rights = {group.unit[0].instrument.right for group in (spread, short)}
    return _is_uneven(spread, short) if len(rights) == 2 else None


def _by_day(_: _Group, option: _Group) -> Score:
    return (str(option.unit[0].instrument.expiry),)


def _distance(short: Piece, long: Piece) -> float:
    """Return how far two strikes are apart, twice if the long option is behind: margin counts."""
    behind = long.strike - short.strike
    if short.instrument.right is Right.PUT:
        behind = -behind
    return abs(behind) + max(0.0, behind)


SHORT, LONG = _single(lambda one: one.quantity < 0), _single(lambda one: one.quantity > 0)
CALL = _single(lambda one: one.instrument.right is Right.CALL)
PUT = _single(lambda one: one.instrument.right is Right.PUT)
SPREAD, STOCK = _of(Shape.VERTICAL), _of(None)
COVERED = _of(Shape.COVERED_CALL, Shape.COVERED_PUT)
OF_TWO_EXPIRIES = _of(Shape.CALENDAR, Shape.DIAGONAL)
EXPIRY, ANY = attrgetter("expiry"), attrgetter("symbol")
SERIES = attrgetter("expiry", "right", "trading_class", "multiplier")

VERTICALS = _Step("same expiry and opposite sides", SHORT, LONG, SERIES, _of_spread)
BEFORE_STOCKS = (
    VERTICALS,
    _Step("two spreads of one expiry", SPREAD, SPREAD, EXPIRY, _of_four),
    _Step("opposite sides of two expiries", SHORT, LONG, attrgetter("right"), _of_time),
    _Step("two spreads of the same expiries", OF_TWO_EXPIRIES, OF_TWO_EXPIRIES, EXPIRY, _is_uneven),
)
WITH_STOCKS = (
    _Step("the underlying covers it", STOCK, SHORT, ANY, _by_day),
    _Step("the underlying between a short and a long option", COVERED, LONG, EXPIRY, _by_day),
    _Step("it protects the underlying", STOCK, LONG, ANY, _by_day),
)
AFTER_STOCKS = (
    _Step("a short option beside a spread of its expiry", SPREAD, SHORT, EXPIRY, _beside_spread),
    _Step("a call and a put of one expiry", CALL, PUT, EXPIRY, _of_call_and_put),
)


class _Matching:
    """Divides lots of one underlying into structures.

    Each option begins as a group of its own; each step joins pairs of groups.
    """

    def __init__(self, lots: Sequence[Lot]) -> None:
        parts = sorted(_together(lot.part for lot in lots), key=lambda part: part.conid)
        self._groups: list[_Group] = []
        if len(parts) > 1 and kind_of(parts) is not None:
            self._groups.append(_grouped(parts, "all that is held of the underlying", 2))
            return
        options = (part for part in parts if part.is_option)
        by_expiry = _by(lambda part: str(part.instrument.expiry), options)
        for _expiry, own in sorted(by_expiry.items()):
            if len(own) > 1 and kind_of(own) not in APART:
                self._groups.append(_grouped(own, "all options of the expiry", 2))
            else:
                self._groups += [_grouped([part]) for part in own]
        self._pair_balanced(VERTICALS)
        for step in BEFORE_STOCKS:
            self._join(step)
        self._cover([one for one in parts if one.instrument.sec_type in STOCKS])
        for step in AFTER_STOCKS:
            self._join(step)
        self._join_ratios()

    @property
    def result(self) -> list[_Group]:
        """The structures; a stock or a future alone is none."""
        return [group for group in self._groups if group.units > 0]

    def _candidates(self, step: _Step) -> list[tuple[list[int], list[int]]]:
        """Return the places of the groups that a step compares with each other."""
        found: defaultdict[object, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
        for place, group in enumerate(self._groups):
            if group.units > 0:
                for number, fits in enumerate((step.first, step.second)):
                    if fits(group):
                        found[step.key(group.unit[-1].instrument)][number].append(place)
        return list(found.values())

    def _pair_balanced(self, step: _Step) -> None:
        """Pair, by strikes, what is balanced: this has the least sum of distances and margins."""
        for sides in self._candidates(step):
            totals = {sum(self._groups[place].units for place in own) for own in sides}
            for own in sides:
                own.sort(key=lambda place: _order(self._groups[place].unit[0]))
            while len(totals) == 1 and all(sides):
                self._take(sides[0][0], sides[1][0], step.why)
                for own in sides:
                    if not self._groups[own[0]].units:
                        del own[0]

    def _join(self, step: _Step) -> None:
        """Join pairs, those with the smallest score first.

        Pairs with equal scores that exclude each other are not joined: each is an alternative.
        """
        pairs = [
            (score, one, other)
            for firsts, seconds in self._candidates(step)
            for one in firsts
            for other in seconds
            if (one < other or step.first is not step.second)
            and (score := step.score(self._groups[one], self._groups[other])) is not None
        ]
        closed = set[int]()
        for _score, same in groupby(sorted(pairs), key=lambda pair: pair[0]):
            partners: defaultdict[int, list[int]] = defaultdict(list)
            for _, *places in same:
                if closed.isdisjoint(places) and all(self._groups[n].units for n in places):
                    kind, [one, other] = self._kind(*places), places
                    if kind in ONLY_NAMED:
                        self._add_alternative(one, other)
                        self._add_alternative(other, one)
                    elif kind is not None:
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
                        self._take(one, other, step.why)

    def _kind(self, one: int, other: int) -> Shape | None:
        return kind_of(_together([*self._groups[one].unit, *self._groups[other].unit]))

    def _take(self, one: int, other: int, why: str) -> None:
        """Join two groups, as often as both are there."""
        first, second = self._groups[one], self._groups[other]
        count = min(first.units, second.units)
        first.units, second.units = first.units - count, second.units - count
        self._groups.append(_Group(_together([*first.unit, *second.unit]), count, why, 2))

    def _add_alternative(self, one: int, other: int) -> None:
        if len(self._groups[one].alternatives) < MOST_ALTERNATIVES:
            names = " / ".join(contract_name(part.instrument) for part in self._groups[other].unit)
            self._groups[one].alternatives.append(f"{self._kind(one, other)} with {names}")

    def _cover(self, stocks: Iterable[Piece]) -> None:
        for stock in stocks:
            singles = [
                one.unit[0] for one in self._groups if one.units and one.kind is Shape.SINGLE
            ]
            free = abs(stock.quantity)
            for per in sorted({units_of(one, stock) for one in singles}):
                share = replace(stock, quantity=math.copysign(per, stock.quantity))
                shares = _Group([share], math.floor(free / per + 1e-9))
                free -= shares.units * per
                self._groups.append(shares)
                for step in WITH_STOCKS:
                    self._join(step)
                free += shares.units * per
                shares.units = 0.0

    def _join_ratios(self) -> None:
        """Add to each spread what is left of one of its contracts, in small numbers."""
        spreads: defaultdict[int, list[_Group]] = defaultdict(list)
        for group in self.result:
            for part in group.unit if group.kind is Shape.VERTICAL else ():
                spreads[part.conid].append(group)
        for single in [one for one in self.result if one.kind is Shape.SINGLE]:
            own = [one for one in spreads[single.unit[0].conid] if one.units > 0]
            if len(own) != 1:
                continue
            [spread] = own
            count = _divisor((single.units, spread.units))
            if (single.units + spread.units) / count <= HIGHEST_RATIO:
                self._groups.append(_grouped([*spread.whole, *single.whole], spread.why, 2))
                spread.units = single.units = 0.0
