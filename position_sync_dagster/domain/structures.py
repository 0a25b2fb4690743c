"""Structures of options: which kind some legs are together, and what they lose at most; pure."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from position_sync_dagster.domain.instrument import Instrument, Right

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
    by_right: defaultdict[object, list[Piece]] = defaultdict(list)
    for one in sorted(options, key=lambda one: str(one.instrument.expiry)):
        by_right[one.instrument.right].append(one)
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
    credit: float | None = 0.0
    for one in parts:
        paid = None if one.cost is None else one.quantity * one.cost
        credit = None if credit is None or paid is None else credit - paid
    expiries = [one.instrument.expiry for one in parts if one.instrument.expiry is not None]
    first = min(expiries, default=None)
    # A short option that expires later may be worth any amount more than its intrinsic value.
    later = any(one.is_option and one.instrument.expiry != first and one.quantity < 0
                for one in parts)  # fmt: skip
    least = least_payoff(parts)
    if least is None:
        return credit, None, True
    loss = None if credit is None or later else max(0.0, -(least + credit)) + 0.0
    return credit, loss, False
