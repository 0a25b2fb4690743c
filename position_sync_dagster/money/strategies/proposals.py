"""Strategies proposed from what is held: by the orders that opened it, then by its structure; pure.

The legs of one order come first, then all that is held of an underlying or an
expiry, then pairs, and pairs of pairs. A pair that has several equal partners is
left as it is, with these as alternatives. Every option ends in one structure, alone at least.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from functools import reduce
from itertools import combinations, count, groupby, pairwise, product
from operator import attrgetter, itemgetter

from position_sync_dagster.domain.clock import NEVER
from position_sync_dagster.domain.holding import BrokerPosition, grouped
from position_sync_dagster.domain.instrument import (
    OPTION_TYPES,
    Instrument,
    Right,
    contract_name,
    digits,
)
from position_sync_dagster.domain.leg import NEGLIGIBLE_QUANTITY, ActiveContract
from position_sync_dagster.money.past.movements import Movement, known_sum, times

# Maximum number of alternatives that a proposal names.
MOST_ALTERNATIVES = 3

# How the name of a strategy writes a kind that traders write shorter; one option has its strike.
_SHORT_KINDS = {
    "covered-call": "CC", "covered-put": "CP", "risk-reversal": "RR", "butterfly": "fly",
    "broken-wing-butterfly": "BWB", "iron-butterfly": "IB", "iron-condor": "IC",
    "reverse-iron-butterfly": "RIB", "reverse-iron-condor": "RIC", "jade-lizard": "JL",
    "reverse-jade-lizard": "RJL", "combination": "combo",
}  # fmt: skip

# The kind of an option that is in no structure, and why it is proposed.
SINGLE = "single"
ALONE = "nothing else goes with it"


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
        instrument = self.instrument
        terms = (instrument.right, instrument.strike, instrument.expiry)
        return instrument.sec_type in OPTION_TYPES and None not in terms

    @property
    def strike(self) -> float:
        """The strike of an option."""
        return self.instrument.strike or 0.0

    @property
    def day(self) -> str:
        """The expiry of an option; empty for anything else."""
        if self.is_option:
            return str(self.instrument.expiry)
        return ""

    @property
    def order(self) -> tuple[str, float, bool, int]:
        """The sort key of a leg: stocks, then options by expiry and strike, the put first."""
        return self.day, self.strike, self.instrument.right is Right.CALL, self.conid

    @property
    def letter(self) -> str:
        """P for a put, C for a call."""
        return str(self.instrument.right)[:1]


def _fits_stock(legs: Sequence[Piece]) -> bool:
    stock, *options = legs
    for option in options:
        covered = abs(option.quantity) * _units_of(option, stock)
        if covered != abs(stock.quantity):
            return False
    return True


def _units_of(option: Piece, stock: Piece) -> float:
    """Return how much of its underlying a contract of an option stands for."""
    return option.instrument.multiplier / stock.instrument.multiplier


def _net(legs: Sequence[Piece]) -> float:
    return sum(leg.quantity for leg in legs)


def _is_even(legs: Sequence[Piece]) -> bool:
    first, *_inner, last = legs
    return first.quantity == last.quantity and not _net(legs)


def _has_even_wings(legs: Sequence[Piece]) -> bool:
    low, middle, high = [leg.strike for leg in legs]
    return _is_even(legs) and middle - low == high - middle


def _has_equal_strikes(legs: Sequence[Piece]) -> bool:
    strikes = [leg.strike for leg in legs]
    half = len(legs) // 2
    return strikes[:half] == strikes[half:]


# What contracts are together: the first structure of a shape counts whose quantities and strikes
# fit. A shape has its parts in order: S is a stock or future that is held itself, and comes first;
# options of one expiry follow by strike, the put first where two have the same (=); those of two
# (>) by expiry, then by right.
_TABLE = """
single                  any           +P, -P, +C, -C
covered-call            covers        +S -C
covered-put             covers        -S -P
protective-put          covers        +S +P
protective-call         covers        -S +C
collar                  covers        +S +P -C, +S -C +P, -S -P +C, -S +C -P
vertical                balanced      +P -P, -P +P, +C -C, -C +C
ratio-spread            more-short    +P -P, -P +P, +C -C, -C +C
back-spread             more-long     +P -P, -P +P, +C -C, -C +C
straddle                any           +P = +C, -P = -C
strangle                any           +P +C, -P -C, +C +P, -C -P
risk-reversal           any           +P -C, -P +C, +C -P, -C +P
synthetic               any           +P = -C, -P = +C
calendar                equal-strikes -P > +P, +P > -P, -C > +C, +C > -C
diagonal                any           -P > +P, +P > -P, -C > +C, +C > -C
double-calendar         equal-strikes -C -P > +C +P, +C +P > -C -P
double-diagonal         any           -C -P > +C +P, +C +P > -C -P
butterfly               even-wings    +P -P +P, -P +P -P, +C -C +C, -C +C -C
broken-wing-butterfly   balanced      +P -P +P, -P +P -P, +C -C +C, -C +C -C
condor                  even          +P -P -P +P, -P +P +P -P, +C -C -C +C, -C +C +C -C
iron-butterfly          any           +P -P = -C +C
iron-condor             any           +P -P -C +C
reverse-iron-butterfly  any           -P +P = +C -C
reverse-iron-condor     any           -P +P +C -C
jade-lizard             even-calls    -P -C +C, -P = -C +C
reverse-jade-lizard     even-puts     +P -P -C, +P -P = -C
box                     one-quantity  -P = +C +P = -C, +P = -C -P = +C
"""


def _shapes() -> Iterator[tuple[str, str, str]]:
    """Yield each shape of the table, with its kind and its rule."""
    for line in _TABLE.strip().splitlines():
        kind, rule, shapes = line.split(maxsplit=2)
        for shape in shapes.split(", "):
            yield shape, kind, rule


_STRUCTURES = grouped(itemgetter(0), _shapes())

# What one option alone may be, and all kinds by name.
SINGLES = frozenset({"long-put", "short-put", "long-call", "short-call"})
KINDS = SINGLES.union(kind for _shape, kind, _rule in _shapes())


def _meets(rule: str, legs: Sequence[Piece]) -> bool:
    """Return whether the quantities and strikes of legs meet a rule of the table."""
    match rule:
        case "any":
            return True
        case "covers":
            return _fits_stock(legs)
        case "balanced":
            return _net(legs) == 0
        case "more-short":
            return _net(legs) < 0
        case "more-long":
            return _net(legs) > 0
        case "equal-strikes":
            return _has_equal_strikes(legs)
        case "even":
            return _is_even(legs)
        case "even-wings":
            return _has_even_wings(legs)
        case "even-calls":
            return _net(legs[1:]) == 0
        case "even-puts":
            return _net(legs[:2]) == 0
        case "one-quantity":
            return len({abs(leg.quantity) for leg in legs}) == 1

    raise KeyError(rule)


def kind_of(parts: Iterable[Piece]) -> str | None:
    """Return the kind of structure that some contracts are together; None if they are none.

    Args:
        parts: Contracts of one underlying, each once.
    """
    legs = sorted(parts, key=attrgetter("order"))
    multipliers = {leg.instrument.multiplier for leg in legs}
    days = {leg.day for leg in legs}
    has_stock = any(not leg.is_option for leg in legs)
    if not has_stock and len(multipliers) > 1:
        return None

    is_of_time = not has_stock and len(days) > 1
    if is_of_time:
        legs.sort(key=lambda leg: (leg.day, leg.letter))

    is_of_one_day = not is_of_time and not has_stock
    shape = [_part_of(legs[0])]
    for before, leg in pairwise(legs):
        if is_of_time and before.day != leg.day:
            shape.append(">")
        if is_of_one_day and before.strike == leg.strike:
            shape.append("=")
        shape.append(_part_of(leg))

    for _shape, kind, rule in _STRUCTURES.get(" ".join(shape), ()):
        if _meets(rule, legs):
            return kind
    return None


def _part_of(leg: Piece) -> str:
    """Return the side of a leg with P, C or S; anything else is in no shape."""
    kind = "other"
    if _is_stock(leg):
        kind = "S"
    elif leg.is_option:
        kind = leg.letter
    return f"{'+' if leg.quantity > 0 else '-'}{kind}"


def _is_stock(piece: Piece) -> bool:
    """Return whether it is what an option can be an option on, and is held itself."""
    return piece.instrument.sec_type in ("STK", "FUT")


def single_kind(option: Piece) -> str:
    """Return what one option alone is: one of `SINGLES`."""
    side = "short" if option.quantity < 0 else "long"
    return f"{side}-{str(option.instrument.right).lower()}"


def least_value(parts: Sequence[Piece]) -> float | None:
    """Return what a structure is worth at least until its first expiry; minus infinity: no bound.

    Options that expire later count with their intrinsic value, which is the least that a long one
    is worth. A short one may be worth any amount more: then the value is not known, and None.
    """
    if _slope_beyond(parts) < -1e-9:
        return -math.inf
    if any(part.quantity < 0 for part in _living_on(parts)):
        return None
    return min(_payoffs_at_corners(parts))


def greatest_value(parts: Sequence[Piece]) -> float | None:
    """Return what a structure is worth at most at its only expiry; infinity: no bound.

    It is not known, and None, if an option lives on after the first expiry.
    """
    if _slope_beyond(parts) > 1e-9:
        return math.inf
    if _living_on(parts):
        return None
    return max(_payoffs_at_corners(parts))


def _living_on(parts: Sequence[Piece]) -> list[Piece]:
    """Return the options that expire after the first expiry."""
    first_day = _first_expiry(parts)
    return [part for part in parts if part.day > first_day]


def _corners(parts: Iterable[Piece]) -> set[float]:
    """Return the prices between which, and beyond which, the payoff is a line."""
    return {0.0, *(part.strike for part in parts)}


def _payoffs_at_corners(parts: Sequence[Piece]) -> list[float]:
    return [_payoff(parts, price) for price in _corners(parts)]


def _slope_beyond(parts: Sequence[Piece]) -> float:
    """Return by how much the payoff rises with each unit of a price above all strikes."""
    highest = max(_corners(parts))
    return _payoff(parts, highest + 1.0) - _payoff(parts, highest)


def _first_expiry(parts: Iterable[Piece]) -> str:
    """Return the first expiry of the options; empty without any."""
    return min((part.day for part in parts if part.day), default="")


def _payoff(parts: Sequence[Piece], price: float) -> float:
    total = 0.0
    for part in parts:
        unit_value = price
        if part.is_option:
            gain = price - part.strike
            if part.instrument.right is Right.PUT:
                gain = -gain
            unit_value = max(0.0, gain)
        total += part.quantity * part.instrument.multiplier * unit_value
    return total


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposedStrategy:
    """A strategy that some holdings look like.

    Attributes:
        kind: A structure of the table; "combination": the legs of one order that have no name.
        why: What shows it.
        credit: What was received for it, negative if it was paid; None: unknown.
        greatest_loss: What it loses at most until its first expiry; None if that is unknown, or has
            no bound (`unlimited`).
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


@dataclass(eq=False, slots=True)
class _Group:
    """Contracts that belong together: `units` times those of `unit`, by expiry and strike.

    Attributes:
        label: By what the steps of the matching know it: its kind; the part of a shape that a
            single option or a stock is.
    """

    unit: list[Piece]
    units: float
    why: str = ALONE
    alternatives: list[str] = field(default_factory=list)
    kind: str | None = field(init=False)
    label: str | None = field(init=False)

    def __post_init__(self) -> None:
        self.unit.sort(key=attrgetter("order"))
        self.kind = kind_of(self.unit)
        self.label = self.kind
        if len(self.unit) == 1:
            self.label = _part_of(self.unit[0])

    @property
    def whole(self) -> list[Piece]:
        """All of its contracts."""
        return [replace(part, quantity=part.quantity * self.units) for part in self.unit]

    def unit_with(self, partner: "_Group") -> list[Piece]:
        """Return a unit together with one of another group."""
        return _together([*self.unit, *partner.unit])

    def kind_with(self, partner: "_Group") -> str | None:
        """Return the kind that a unit is together with one of another group."""
        return kind_of(self.unit_with(partner))

    def add_alternative(self, partner: "_Group") -> None:
        """Name what it may be together with another group."""
        if len(self.alternatives) < MOST_ALTERNATIVES:
            kind = self.kind_with(partner)
            names = " / ".join(contract_name(part.instrument) for part in partner.unit)
            self.alternatives.append(f"{kind} with {names}")


def propose(
    holdings: Iterable[BrokerPosition],
    movements: Iterable[Movement] = (),
    claimed: Iterable[ActiveContract] = (),
    *,
    names: Collection[str] = (),
    today: date | None = None,
) -> list[ProposedStrategy]:
    """Propose strategies for what no strategy has; the order of the arguments does not matter.

    Args:
        holdings: What is held; multipliers lead from prices to the currency.
        movements: What opened it, as far as it is known; each once.
        claimed: The active legs: what they have stays as it is.
        names: The names that are taken.
        today: A day that is not the coming one from today on has its year in names; None: none has.
    """
    claims = grouped(attrgetter("conid"), claimed)
    movements_of = grouped(attrgetter("key"), movements)
    # A structure has one account, one underlying and one currency.
    underlying_of = attrgetter("account", "instrument.symbol", "instrument.currency")
    by_underlying = grouped(underlying_of, sorted(holdings, key=attrgetter("key")))

    strategies: list[ProposedStrategy] = []
    for (account, symbol, _currency), of_underlying in sorted(by_underlying.items()):
        pieces = []
        opening = []
        for holding in of_underlying:
            opening.extend(movements_of[holding.key])
            free = _free(holding, claims[holding.instrument.conid])
            if free:
                pieces.append(Piece(holding.instrument, free, holding.average_cost))

        opening.sort(key=_order_of_movement, reverse=True)
        groups = _structures(pieces, opening)
        of_groups = [_proposed(group, account, symbol, today) for group in groups]
        strategies += sorted(of_groups, key=lambda strategy: [leg.order for leg in strategy.legs])
    return _named_apart(strategies, names)


def _order_of_movement(movement: Movement) -> tuple[date, datetime, str]:
    return movement.day, movement.at or NEVER, movement.movement_id


def _named_apart(
    strategies: Sequence[ProposedStrategy], names: Iterable[str]
) -> list[ProposedStrategy]:
    """Return strategies with different names, none of which is taken: "…", "… 2", "… 3".

    Where two would differ by nothing but the year of their expiry, it is in their names.
    """
    days_of = grouped(attrgetter("name"), strategies)
    taken = set(names)
    named = []
    for strategy in strategies:
        name = strategy.name
        days = {_first_expiry(other.legs) for other in days_of[name]}
        if len(days) > 1:
            name += _first_expiry(strategy.legs)[2:4]

        first_name = name
        numbers = count(2)
        while name in taken:
            name = f"{first_name} {next(numbers)}"
        taken.add(name)
        named.append(replace(strategy, name=name))
    return named


def _name_of(underlying: str, kind: str, legs: Sequence[Piece], today: date | None) -> str:
    """Return a name in few characters: "SPY IC 04Dec", of one option "SPY 575P 04Dec"."""
    expiry = date.fromisoformat(_first_expiry(legs))
    short = _SHORT_KINDS.get(kind, kind)
    if kind == SINGLE:
        option = legs[0]
        short = f"{digits(option.strike)}{option.letter}"
    name = f"{underlying} {short} {expiry:%d%b}"
    if today is not None and not _is_coming(expiry, today):
        name += f"{expiry:%y}"
    return name


def _is_coming(day: date, today: date) -> bool:
    """Return whether a day is the first one of its month and number from today on."""
    is_next_year = day.year == today.year + 1 and (day.month, day.day) < (today.month, today.day)
    return day >= today and (day.year == today.year or is_next_year)


def _free(holding: BrokerPosition, legs: Iterable[ActiveContract]) -> float:
    """Return how much of a holding no active leg of its contract has."""
    free = holding.position
    for leg in legs:
        claim = holding.position if leg.quantity is None else leg.quantity
        if leg.account in (None, holding.account) and claim * free > 0:
            free -= min(claim, free, key=abs)
    return free


def _together(parts: Iterable[Piece]) -> list[Piece]:
    """Return some contracts, each once, with the average of their costs."""
    by_conid = grouped(attrgetter("conid"), parts)
    summed = (reduce(_sum_of, of_contract) for of_contract in by_conid.values())
    return [part for part in summed if abs(part.quantity) > NEGLIGIBLE_QUANTITY]


def _sum_of(first: Piece, second: Piece) -> Piece:
    """Return two lots of a contract as one: the orders are not known any more."""
    quantity = first.quantity + second.quantity
    if first.cost is None or second.cost is None or not quantity:
        return Piece(first.instrument, quantity)
    if first.cost == second.cost:
        return Piece(first.instrument, quantity, first.cost)

    paid = first.quantity * first.cost + second.quantity * second.cost
    return Piece(first.instrument, quantity, paid / quantity)


def _structures(pieces: Iterable[Piece], movements: Iterable[Movement]) -> list[_Group]:
    """Return the structures of one underlying: each option is in one.

    Args:
        pieces: What is held, each contract once.
        movements: Those of it, the newest first.
    """
    free = {piece.conid: piece for piece in pieces}
    lots_of: defaultdict[str, list[Piece]] = defaultdict(list)
    for movement in movements:
        piece = free.get(movement.conid or 0)
        if piece is not None and movement.order_id is not None:
            lots_of[movement.order_id].append(replace(piece, quantity=movement.change))

    groups: dict[tuple[object, ...], _Group] = {}
    for lots in lots_of.values():
        parts = _together(lots)
        if len(parts) < 2 or not any(part.is_option for part in parts):
            continue

        # An order that closed something has a part of the other side, of which nothing is held.
        group = _as_group(parts, "opened by one order")
        for part in group.unit:
            held_units = free[part.conid].quantity / part.quantity
            group.units = min(group.units, math.floor(held_units + NEGLIGIBLE_QUANTITY))
        if group.units < 1:
            continue

        for part in group.whole:
            piece = free[part.conid]
            free[part.conid] = replace(piece, quantity=piece.quantity - part.quantity)
        contracts = tuple((part.conid, part.quantity) for part in group.unit)
        if contracts in groups:
            groups[contracts].units += group.units
            groups[contracts].why = "opened by orders of the same legs"
        else:
            groups[contracts] = group
    return [*groups.values(), *_matched(free.values())]


def _as_group(parts: Iterable[Piece], why: str = ALONE) -> _Group:
    """Return all of some contracts as one group, by their greatest common divisor."""
    unit = _together(parts)
    units = 1
    sizes = [abs(part.quantity) for part in unit]
    whole_sizes = [*map(int, sizes)]
    if sizes == whole_sizes:
        units = math.gcd(*whole_sizes)
        unit = [replace(part, quantity=part.quantity / units) for part in unit]
    return _Group(unit, units, why)


def _proposed(group: _Group, account: str, underlying: str, today: date | None) -> ProposedStrategy:
    legs = tuple(group.whole)
    kind = group.kind or "combination"
    credit = known_sum(times(part.cost, -part.quantity) for part in legs)
    least = least_value(legs)
    greatest_loss = None
    if credit is not None and least is not None and least > -math.inf:
        greatest_loss = max(0.0, -credit - least)
    return ProposedStrategy(
        name=_name_of(underlying, kind, legs, today),
        kind=kind,
        account=account,
        underlying=underlying,
        legs=legs,
        why=group.why,
        credit=credit,
        greatest_loss=greatest_loss,
        unlimited=least == -math.inf,
        alternatives=tuple(group.alternatives),
    )


# What all options of one expiry are not at once: each may go with something of the underlying.
APART = frozenset({"straddle", "strangle", "risk-reversal", "synthetic", None})

# What is proposed as a whole alone: two spreads that need no less margin together stay apart.
NOT_OF_PAIRS = frozenset({"reverse-iron-butterfly", "reverse-iron-condor", None})

# Sorts the pairs of a step, those with the smallest one first; None: they do not go together.
Score = tuple[object, ...] | None


@dataclass(frozen=True, slots=True)
class _Step:
    """One way to join pairs of groups, if the two are a structure.

    Attributes:
        first, second: The labels of the two groups of a pair.
        key: Only groups whose last contract has an equal one are compared.
    """

    why: str
    first: Collection[str]
    second: Collection[str]
    key: Callable[[Instrument], object]

    def key_of(self, group: _Group) -> object:
        """Return what a group must have in common with its partner."""
        return self.key(group.unit[-1].instrument)


def _score(group: _Group, partner: _Group) -> Score:
    """Prefer the next expiry, one side and one number, and strikes that are near."""
    leg = group.unit[0]
    leg_of_partner = partner.unit[0]
    if leg_of_partner.day < leg.day:
        return None

    strikes: tuple[float, ...] = ()
    if leg.is_option:
        strike = leg_of_partner.strike
        strikes = (abs(strike - leg.strike), strike)
    has_two_sides = leg.quantity * leg_of_partner.quantity < 0
    return leg_of_partner.day, has_two_sides, group.units != partner.units, strikes


SHORT = {"-P", "-C"}
LONG = {"+P", "+C"}
STOCK = {"+S", "-S"}
SPREAD = {"vertical"}
PAIR = {"vertical", "ratio-spread", "back-spread"}
COVERED = {"covered-call", "covered-put"}
OF_TIME = {"calendar", "diagonal"}

EXPIRY = attrgetter("expiry")
ANY_LEG = attrgetter("symbol")
SERIES = attrgetter("expiry", "right", "trading_class", "multiplier")

_MORE_OF_ONE_SIDE = _Step("more of one side of a spread", PAIR, SHORT | LONG, SERIES)

STRUCTURE_STEPS = (
    _Step("same expiry and opposite sides", SHORT, LONG, SERIES),
    _Step("two spreads of one expiry", SPREAD, SPREAD, EXPIRY),
    _Step("opposite sides of two expiries", SHORT, LONG, attrgetter("right")),
    _Step("two spreads of the same expiries", OF_TIME, OF_TIME, EXPIRY),
    _Step("the underlying covers it", STOCK, SHORT, ANY_LEG),
    _Step("the underlying between a short and a long option", COVERED, LONG, EXPIRY),
    _Step("it protects the underlying", STOCK, LONG, ANY_LEG),
    _Step("a short option beside a spread of its expiry", SPREAD, SHORT, EXPIRY),
    _Step("a call and a put of one expiry", {"+C", "-C"}, {"+P", "-P"}, EXPIRY),
    _MORE_OF_ONE_SIDE,
    _MORE_OF_ONE_SIDE,
)


def _matched(pieces: Iterable[Piece]) -> list[_Group]:
    """Divide contracts of one underlying into structures; a stock or a future alone is none.

    Each option begins as a group of its own; each step joins pairs of groups.
    """
    parts = sorted(_together(pieces), key=lambda part: part.conid)
    if len(parts) > 1 and kind_of(parts) is not None:
        return [_as_group(parts, "all that is held of the underlying")]

    options = [part for part in parts if part.is_option]
    groups = _groups_of_options(options)
    if options:
        groups += [_group_of_stock(stock, options) for stock in parts if _is_stock(stock)]

    for step in STRUCTURE_STEPS:
        _join(groups, step)
        groups = [group for group in groups if group.units > 0]
    return [group for group in groups if group.kind is not None]


def _groups_of_options(options: Iterable[Piece]) -> list[_Group]:
    """Return the options of each expiry as one structure, if they are one, or each by itself."""
    groups: list[_Group] = []
    by_day = grouped(attrgetter("day"), options)
    for day in sorted(by_day):
        of_day = by_day[day]
        if len(of_day) > 1 and kind_of(of_day) not in APART:
            groups.append(_as_group(of_day, "all options of the expiry"))
        else:
            groups += [_as_group([option]) for option in of_day]
    return groups


def _group_of_stock(stock: Piece, options: Iterable[Piece]) -> _Group:
    """Return a stock in units of what one option stands for; what is over is in no unit."""
    size = min(_units_of(option, stock) for option in options)
    units = abs(stock.quantity) / size
    unit = replace(stock, quantity=math.copysign(size, stock.quantity))
    return _Group([unit], math.floor(units + 1e-9))


def _pairs(groups: Iterable[_Group], step: _Step) -> Iterator[tuple[_Group, _Group]]:
    """Yield the pairs that a step compares."""

    def by_key(labels: Collection[str]) -> dict[object, list[_Group]]:
        return grouped(step.key_of, [group for group in groups if group.label in labels])

    second = by_key(step.second)
    for key, of_key in by_key(step.first).items():
        if step.first == step.second:
            yield from combinations(of_key, 2)
        else:
            yield from product(of_key, second.get(key, ()))


def _join(groups: list[_Group], step: _Step) -> None:
    """Join pairs of groups, those with the smallest score first.

    Pairs with equal scores that exclude each other are not joined: each is an alternative.
    """
    scored = []
    for group, partner in _pairs(groups, step):
        score = _score(group, partner)
        if score is not None:
            scored.append((score, group, partner))
    scored.sort(key=itemgetter(0))

    closed = set[_Group]()
    for _, equal in groupby(scored, key=itemgetter(0)):
        fitting = []
        for _, group, partner in equal:
            is_free = group.units and partner.units and closed.isdisjoint((group, partner))
            if is_free and group.kind_with(partner) not in NOT_OF_PAIRS:
                fitting.append((group, partner))

        contested = set(_contested(fitting))
        for group, partner in fitting:
            if contested & {group, partner}:
                closed |= {group, partner}
                group.add_alternative(partner)
                partner.add_alternative(group)
                continue

            units = min(group.units, partner.units)
            group.units -= units
            partner.units -= units
            groups.append(_Group(group.unit_with(partner), units, step.why))


def _contested(pairs: Iterable[tuple[_Group, _Group]]) -> Iterator[_Group]:
    """Yield the groups with several partners, of which they have not enough units for all."""
    units_of_partners: defaultdict[_Group, list[float]] = defaultdict(list)
    for group, partner in pairs:
        units_of_partners[group].append(partner.units)
        units_of_partners[partner].append(group.units)

    for group, units in units_of_partners.items():
        if len(units) > 1 and sum(units) > group.units:
            yield group
