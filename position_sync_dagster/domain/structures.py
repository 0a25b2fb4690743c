"""Structures of options: which kind some legs are together, and what they lose at most; pure."""

from collections.abc import Sequence
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


def kind_of(parts: Sequence[Piece]) -> Shape | None:
    """Return the kind of structure that some contracts are together; None if they are none.

    Args:
        parts: Contracts of one underlying, each once.
    """
    options = sorted((one for one in parts if one.is_option), key=lambda one: one.strike)
    others = [one for one in parts if not one.is_option]
    calls = [one for one in options if one.instrument.right is Right.CALL]
    puts = [one for one in options if one.instrument.right is Right.PUT]
    if others:
        return _on_stock(others[0], calls, puts) if len(others) == 1 else None
    if len({one.instrument.multiplier for one in options}) != 1:
        return None
    is_one_expiry = len({one.instrument.expiry for one in options}) == 1
    match len(options), len(calls), is_one_expiry:
        case 1, _, _:
            return Shape.SINGLE
        case 2, 1, True:
            return _call_and_put(calls[0], puts[0])
        case 2, 0 | 2, _:
            return _same_right(*options)
        case 3 | 4, 0 | 3 | 4, True:
            return _wings(options)
        case 3, 1 | 2, True:
            return _lizard(calls, puts)
        case 4, 2, True:
            return _iron(calls, puts)
        case 4, 2, False:
            return _double(calls, puts)
    return None


def _on_stock(stock: Piece, calls: list[Piece], puts: list[Piece]) -> Shape | None:
    if stock.instrument.sec_type not in STOCKS or not 1 <= len(calls + puts) <= 2:
        return None
    if len(calls) > 1 or len(puts) > 1:
        return None
    for one in (*calls, *puts):
        if abs(one.quantity) * units_of(one, stock) != abs(stock.quantity):
            return None
    above, below = (calls, puts) if stock.quantity > 0 else (puts, calls)
    sold = bool(above) and above[0].quantity < 0
    bought = bool(below) and below[0].quantity > 0
    if (above and not sold) or (below and not bought):
        return None
    if sold and bought:
        return Shape.COLLAR
    if sold:
        return Shape.COVERED_CALL if stock.quantity > 0 else Shape.COVERED_PUT
    return Shape.PROTECTIVE_PUT if stock.quantity > 0 else Shape.PROTECTIVE_CALL


def units_of(option: Piece, stock: Piece) -> float:
    """Return how much of its underlying a contract of an option stands for."""
    return option.instrument.multiplier / stock.instrument.multiplier


def _call_and_put(call: Piece, put: Piece) -> Shape:
    if call.quantity * put.quantity > 0:
        return Shape.STRADDLE if call.strike == put.strike else Shape.STRANGLE
    return Shape.SYNTHETIC if call.strike == put.strike else Shape.RISK_REVERSAL


def _same_right(one: Piece, other: Piece) -> Shape | None:
    if one.quantity * other.quantity > 0:
        return None
    if one.instrument.expiry != other.instrument.expiry:
        return Shape.CALENDAR if one.strike == other.strike else Shape.DIAGONAL
    if one.strike == other.strike:
        return None
    net = one.quantity + other.quantity
    return Shape.VERTICAL if net == 0 else Shape.RATIO_SPREAD if net < 0 else Shape.BACK_SPREAD


def _wings(legs: list[Piece]) -> Shape | None:
    """Return the kind of three or four options of one right and expiry, by strike."""
    inner = legs[1:-1]
    is_outside = legs[0].quantity * legs[-1].quantity > 0
    if not is_outside or any(one.quantity * legs[0].quantity > 0 for one in inner):
        return None
    if sum(one.quantity for one in legs) != 0:
        return None
    if len(legs) == 4:
        return Shape.CONDOR if legs[0].quantity == legs[-1].quantity else None
    low, middle, high = (one.strike for one in legs)
    is_even = legs[0].quantity == legs[-1].quantity and middle - low == high - middle
    return Shape.BUTTERFLY if is_even else Shape.BROKEN_WING


def _lizard(calls: list[Piece], puts: list[Piece]) -> Shape | None:
    """Return the kind of a short option and a credit spread of the other right."""
    [alone], spread = (puts, calls) if len(calls) == 2 else (calls, puts)
    short, long = spread if len(calls) == 2 else reversed(spread)
    if alone.quantity > 0 or short.quantity > 0 or short.quantity != -long.quantity:
        return None
    return Shape.JADE_LIZARD if len(calls) == 2 else Shape.REVERSE_JADE_LIZARD


def _iron(calls: list[Piece], puts: list[Piece]) -> Shape | None:
    """Return the kind of two calls and two puts of one expiry."""
    low, put = puts
    call, high = calls
    if low.quantity * put.quantity > 0 or call.quantity * high.quantity > 0:
        return None
    if (low.strike, put.strike) == (call.strike, high.strike):
        amounts = {abs(one.quantity) for one in (*calls, *puts)}
        return Shape.BOX if call.quantity * put.quantity > 0 and len(amounts) == 1 else None
    if put.strike > call.strike or put.quantity * call.quantity < 0:
        return None
    if put.quantity < 0:
        return Shape.IRON_BUTTERFLY if put.strike == call.strike else Shape.IRON_CONDOR
    is_fly = put.strike == call.strike
    return Shape.REVERSE_IRON_BUTTERFLY if is_fly else Shape.REVERSE_IRON_CONDOR


def _double(calls: list[Piece], puts: list[Piece]) -> Shape | None:
    """Return the kind of two calls and two puts of two expiries."""
    kinds, expiries = set(), set()
    for pair in (calls, puts):
        near, far = sorted(pair, key=lambda one: str(one.instrument.expiry))
        expiries.add((near.instrument.expiry, far.instrument.expiry, near.quantity > 0))
        kinds.add(_same_right(near, far))
    if len(expiries) != 1 or not kinds <= {Shape.CALENDAR, Shape.DIAGONAL}:
        return None
    return Shape.DOUBLE_CALENDAR if kinds == {Shape.CALENDAR} else Shape.DOUBLE_DIAGONAL


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
