"""The fields of a message, and how numbers are written in them."""

from __future__ import annotations

import math

# One message as fields, its message id first.
Fields = tuple[str, ...]

# How the gateway writes "no value": the largest double, as Java writes it.
UNSET = "1.7976931348623157E308"


def message(*fields: str | int) -> Fields:
    """Return a message of its fields, the message id first."""
    return tuple(map(str, fields))


def number(value: float) -> str:
    """Return a price or an amount as Java's Double.toString writes it.

    A number has always a point; others are `NaN`, `Infinity` and `-Infinity`.
    """
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        if value > 0:
            return "Infinity"

        return "-Infinity"
    return repr(float(value))


def quantity(value: float | str) -> str:
    """Return a size or a position as the gateway's decimals: a point only with a fraction.

    A text is returned as it is.
    """
    if isinstance(value, str):
        return value
    if not math.isfinite(value):
        return number(value)
    if value == int(value):
        return str(int(value))

    return repr(float(value))


def optional(value: float | None) -> str:
    """Return a number that the gateway may not have; None is written as UNSET."""
    return UNSET if value is None else number(value)
