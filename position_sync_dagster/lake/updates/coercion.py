"""Updates from callers: other spellings are read, and values that cannot be stored are refused.

The checks follow the columns of `position_updates` (see `PositionUpdate`). They are plain
functions and not a pydantic model: a model of the same rules needs a Python function for nearly
every field (IB's spellings, local times, DBL_MAX) and a second list of the fields, and it copies
each of the usual updates, in which nothing has to change.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, date, datetime
from enum import StrEnum
from functools import partial
from operator import attrgetter
from typing import Any, NamedTuple, SupportsIndex, TypeVar

from position_sync_dagster.domain.instrument import Right, parse_expiry, parse_right
from position_sync_dagster.domain.update import PositionUpdate
from position_sync_dagster.errors import InvalidLegError, InvalidRequestError
from position_sync_dagster.lake.schema.columns import Kind, StoredColumn
from position_sync_dagster.lake.schema.tables import UPDATE_COLUMNS

T = TypeVar("T")

UNSET = 1e300
"""Greater numbers count as unknown: IB writes DBL_MAX for a number that it does not know."""


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
    for check, value in zip(_CHECKS, _VALUES(update), strict=True):
        if value is None:
            found = None
        elif check.is_storable(value):
            continue
        else:
            found = check.coerce(check.name, value)
        if found is None and not check.nullable:
            raise _refused(check.name, value, "each row needs it", _example(check.name))
        if found is not value:
            changes[check.name] = found
    return replace(update, **changes) if changes else update


def coerce_updates(updates: Iterable[PositionUpdate]) -> list[PositionUpdate]:
    """Return updates in the form in which they are stored; see `coerce_update`."""
    return [coerce_update(update) for update in updates]


def _number(name: str, value: object) -> float | None:
    if isinstance(value, bool | str | bytes):
        raise _refused(name, value, "it is not a number", _example(name))
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise _refused(name, value, "it is not a number", _example(name)) from None
    return number if -UNSET < number < UNSET else None


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise _refused(name, value, "it is not a text", "Pass it as a str")
    return value


def _count(name: str, value: object) -> int:
    if isinstance(value, SupportsIndex) and not isinstance(value, bool):
        count = value.__index__()
        if -(2**63) <= count < 2**63:
            return count
    raise _refused(name, value, "it is not a whole number", f"Pass {name} as a whole number")


def _moment(name: str, value: object) -> datetime:
    if not isinstance(value, datetime):
        raise _refused(
            name, value, "it is not a time", "Pass a datetime, such as datetime.now(UTC)"
        )
    try:
        return value.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        raise _refused(name, value, "it has no time in UTC", "Pass a datetime with UTC") from None


def _day(name: str, value: object) -> date | None:
    if isinstance(value, str) and not value.strip():
        return None
    return _parsed(parse_expiry, name, value)


def _choice(choices: type[StrEnum], name: str, value: object) -> StrEnum | None:
    if isinstance(value, str) and not value.strip():
        return None
    if choices is Right:
        return _parsed(parse_right, name, value)
    try:
        return choices(str(value))
    except ValueError:
        raise _refused(name, value, "it is not known", f"Use {', '.join(choices)}") from None


def _parsed(parse: Callable[[Any], T], name: str, value: object) -> T:
    try:
        return parse(value)
    except InvalidLegError as error:
        raise _refused(name, value, error.what, error.remedy) from None


def _example(name: str) -> str:
    if name == "position":
        return "Pass the signed quantity as a finite number, 0.0 for a closed position"
    if UPDATE_COLUMNS[name].kind is Kind.NUMBER:
        return f"Pass {name} as a finite number"
    return f"Pass a {name}"


def _refused(name: str, value: object, cause: str, remedy: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"The update's {name} {value!r:.80} cannot be stored: {cause.rstrip('.')}.",
        remedy=f"{remedy.rstrip('.')}.",
    )


class _Check(NamedTuple):
    """How one field is checked.

    Attributes:
        is_storable: Whether a value may be stored as it is; the fast path of nearly all values.
        coerce: Returns the value to store, or raises, for any other value.
    """

    name: str
    nullable: bool
    is_storable: Callable[[Any], bool]
    coerce: Callable[[str, Any], object]


_BY_KIND: dict[Kind, tuple[Callable[[Any], bool], Callable[[str, Any], object]]] = {
    Kind.NUMBER: (lambda value: type(value) is float and -UNSET < value < UNSET, _number),
    Kind.TEXT: (lambda value: isinstance(value, str), _text),
    Kind.COUNT: (lambda value: type(value) is int and -(2**63) <= value < 2**63, _count),
    Kind.MOMENT: (
        lambda value: isinstance(value, datetime) and value.tzinfo is not None,
        _moment,
    ),
    Kind.DAY: (lambda value: type(value) is date, _day),
}


def _check(name: str, column: StoredColumn) -> _Check:
    choices = column.choices
    if choices is None:
        return _Check(name, column.nullable, *_BY_KIND[column.kind])
    return _Check(
        name, column.nullable, lambda value: type(value) is choices, partial(_choice, choices)
    )


_CHECKS = tuple(_check(name, column) for name, column in UPDATE_COLUMNS.items())
_VALUES = attrgetter(*UPDATE_COLUMNS)
