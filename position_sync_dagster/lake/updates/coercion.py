"""Updates as callers give them: spellings are read, what cannot be stored is refused by name."""

from collections.abc import Callable, Iterable
from dataclasses import MISSING, fields, replace
from datetime import UTC, date, datetime
from enum import StrEnum
from operator import attrgetter
from typing import Any, SupportsIndex, TypeVar

from position_sync_dagster.domain.instrument import Right, parse_expiry, parse_right
from position_sync_dagster.domain.update import (
    PositionUpdate,
    PriceKind,
    Source,
    TradingMode,
    ValueOrigin,
)
from position_sync_dagster.errors import InvalidLegError, InvalidRequestError
from position_sync_dagster.lake.storage.schemas import POSITION_UPDATES, Kind

T = TypeVar("T")

UNSET = 1e300
"""From here on a number is none: IB writes DBL_MAX for what it does not know."""

_CHOICES: dict[str, type[StrEnum]] = {
    "right": Right,
    "price_kind": PriceKind,
    "source": Source,
    "value_source": ValueOrigin,
    "trading_mode": TradingMode,
}
_DEFAULTS = {f.name: f.default for f in fields(PositionUpdate)}
_NEEDED = frozenset(
    name
    for name, default in _DEFAULTS.items()
    if name in {"conid", "symbol", "position", "timestamp"} or default not in (None, MISSING)
)


def _of(kind: Kind) -> tuple[str, ...]:
    return tuple(
        name
        for name, of in POSITION_UPDATES.columns.items()
        if of is kind and name in _DEFAULTS and name not in _CHOICES
    )


_NUMBERS, _TEXTS, _COUNTS, _MOMENTS = map(_of, (Kind.NUMBER, Kind.TEXT, Kind.COUNT, Kind.MOMENT))
_NAMES = (*_NUMBERS, *_TEXTS, *_COUNTS, *_MOMENTS, *_CHOICES, "expiry")
_VALUES = attrgetter(*_NAMES)


def readable(update: PositionUpdate) -> PositionUpdate:
    """Give the update as it can be stored: the same object when nothing is off.

    A time without a zone is local time, as `datetime.now()` gives it. A right or an expiry may
    be text as IB writes it, "" for none. A number that is not finite, or IB's DBL_MAX, is
    unknown.

    Raises:
        InvalidRequestError: A field holds what cannot be stored, or the position or another
            field that each row needs is unknown.
    """
    changes: dict[str, Any] = {}
    for name, value, fine, read in zip(_NAMES, _VALUES(update), _FINE, _READ, strict=True):
        if fine(value):
            continue
        found = None if value is None else read(name, value)
        if found is None and name in _NEEDED:
            raise _refused(name, value, "each row needs it", _example(name))
        if found is not value:
            changes[name] = found
    return replace(update, **changes) if changes else update


def all_readable(updates: Iterable[PositionUpdate]) -> list[PositionUpdate]:
    """Give updates as they can be stored; see `readable`."""
    return [readable(update) for update in updates]


def _number(name: str, value: object) -> float | None:
    if isinstance(value, bool | str | bytes):
        raise _refused(name, value, "it is no number", _example(name))
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise _refused(name, value, "it is no number", _example(name)) from None
    return number if -UNSET < number < UNSET else None


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise _refused(name, value, "it is no text", "Give it as text")
    return value


def _count(name: str, value: object) -> int:
    if isinstance(value, SupportsIndex) and not isinstance(value, bool):
        count = value.__index__()
        if -(2**63) <= count < 2**63:
            return count
    raise _refused(name, value, "it is no whole number", f"Give {name} as a whole number")


def _moment(name: str, value: object) -> datetime:
    if not isinstance(value, datetime):
        raise _refused(name, value, "it is no time", "Give a datetime, such as datetime.now(UTC)")
    try:
        return value.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        raise _refused(name, value, "it has no time in UTC", "Give a datetime with UTC") from None


def _choice(name: str, value: object) -> StrEnum | None:
    if isinstance(value, str) and not value.strip():
        return None
    if name == "right":
        return _parsed(parse_right, name, value)
    kind = _CHOICES[name]
    try:
        return kind(str(value))
    except ValueError:
        raise _refused(name, value, "it is not known", f"Write {', '.join(kind)}") from None


def _day(name: str, value: object) -> date | None:
    if isinstance(value, str) and not value.strip():
        return None
    return _parsed(parse_expiry, name, value)


def _parsed(parse: Callable[[Any], T], name: str, value: object) -> T:
    try:
        return parse(value)
    except InvalidLegError as error:
        raise _refused(name, value, error.what, error.remedy) from None


def _example(name: str) -> str:
    if name == "position":
        return "Give the signed units as a finite number, 0.0 for what is closed"
    return f"Give {name} as a finite number" if name in _NUMBERS else f"Give a {name}"


def _refused(name: str, value: object, cause: str, remedy: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"The update's {name} {value!r:.80} cannot be stored: {cause.rstrip('.')}.",
        remedy=f"{remedy.rstrip('.')}.",
    )


def _number_is_fine(name: str) -> Callable[[object], bool]:
    if name in _NEEDED:
        return lambda value: type(value) is float and -UNSET < value < UNSET
    return lambda value: value is None or (type(value) is float and -UNSET < value < UNSET)


def _text_is_fine(name: str) -> Callable[[object], bool]:
    needed = name in _NEEDED
    return lambda value: isinstance(value, str) or (value is None and not needed)


def _count_is_fine(name: str) -> Callable[[object], bool]:
    needed = name in _NEEDED
    return lambda value: (
        (type(value) is int and -(2**63) <= value < 2**63) or (value is None and not needed)
    )


def _moment_is_fine(name: str) -> Callable[[object], bool]:
    needed = name in _NEEDED
    return lambda value: (
        (isinstance(value, datetime) and value.tzinfo is not None) or (value is None and not needed)
    )


def _choice_is_fine(name: str) -> Callable[[object], bool]:
    kind, needed = _CHOICES[name], name in _NEEDED
    return lambda value: type(value) is kind or (value is None and not needed)


_FINE: tuple[Callable[[object], bool], ...] = (
    *map(_number_is_fine, _NUMBERS),
    *map(_text_is_fine, _TEXTS),
    *map(_count_is_fine, _COUNTS),
    *map(_moment_is_fine, _MOMENTS),
    *map(_choice_is_fine, _CHOICES),
    lambda value: value is None or type(value) is date,
)
_READ: tuple[Callable[[str, Any], Any], ...] = (
    *(_number,) * len(_NUMBERS),
    *(_text,) * len(_TEXTS),
    *(_count,) * len(_COUNTS),
    *(_moment,) * len(_MOMENTS),
    *(_choice,) * len(_CHOICES),
    _day,
)
