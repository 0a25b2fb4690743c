"""Updates that other code made, checked before they are written to the ledger.

Other spellings are converted, and values that cannot be stored are refused. The checks follow the
columns of `position_updates` (see `PositionUpdate`). They are plain functions and not a pydantic
model: such a model needs a Python function for nearly every field (IB's spellings, local times,
DBL_MAX) and a second list of the fields, and it copies updates in which nothing has to change.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from operator import index
from typing import Any

from position_sync_dagster import errors
from position_sync_dagster.domain.instrument import Right, parse_expiry, parse_right
from position_sync_dagster.domain.position_update import PositionUpdate
from position_sync_dagster.lake.schema import UNSET, UPDATE_COLUMNS, StoredColumn


def coerce_update(update: PositionUpdate) -> PositionUpdate:
    """Return the update in the form in which it is stored; the same object if nothing changes.

    A time without a zone is local time, as `datetime.now()` returns it. A right or an expiry may
    be text as IB writes it, "" for none. A number that is not finite, or IB's DBL_MAX, becomes
    None (unknown).

    Raises:
        InvalidRequestError: A field holds a value that cannot be stored, or a field that each row
            needs, such as the position, is unknown.
    """
    changes: dict[str, Any] = {}
    for name, column, coerce in _CHECKS:
        value = getattr(update, name)
        try:
            coerced = None if value is None or _is_blank(value, column) else coerce(value)
        except (ValueError, TypeError, OverflowError, OSError, errors.InvalidLegError):
            raise _refused(name, value, column) from None
        if coerced is None and not column.nullable:
            raise _refused(name, value, column)
        if coerced is not value:
            changes[name] = coerced
    return replace(update, **changes) if changes else update


def _is_blank(value: object, column: StoredColumn) -> bool:
    may_be_blank = column.choices is not None or column.kind is date
    return may_be_blank and isinstance(value, str) and not value.strip()


def _refused(name: str, value: object, column: StoredColumn) -> errors.InvalidRequestError:
    wanted = f"one of {', '.join(column.choices)}" if column.choices else _BY_KIND[column.kind][1]
    return errors.InvalidRequestError(
        f"The update's {name} {value!r:.80} cannot be stored: it is not {wanted}.",
        remedy=f"Pass {name} as {wanted}.",
    )


def _number(value: Any) -> float | None:
    if isinstance(value, bool | str | bytes):
        raise TypeError
    number = float(value)
    return number if -UNSET < number < UNSET else None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _count(value: Any) -> int:
    count = index(value)
    if isinstance(value, bool) or not -(2**63) <= count < 2**63:
        raise TypeError
    return count


def _moment(value: Any) -> datetime:
    if not isinstance(value, datetime):
        raise TypeError
    return value if value.tzinfo is not None else value.astimezone(UTC)


# How a value of each kind is read, and what it has to be.
_BY_KIND: dict[type, tuple[Callable[[Any], object], str]] = {
    float: (_number, "a finite number"),
    str: (_text, "a str"),
    int: (_count, "a whole number"),
    datetime: (_moment, "a datetime, such as datetime.now(UTC)"),
    date: (parse_expiry, "a date, or text such as 20260220"),
}


def _check_of(column: StoredColumn) -> Callable[[Any], object]:
    if column.choices is Right:
        return parse_right
    return column.choices or _BY_KIND[column.kind][0]


_CHECKS = [(name, column, _check_of(column)) for name, column in UPDATE_COLUMNS.items()]

NUMBERS = [name for name, column in UPDATE_COLUMNS.items() if column.kind is float]
