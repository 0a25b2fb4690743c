"""The columns of a table, derived from the fields of the dataclass that is stored in it."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date, datetime
from enum import StrEnum
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

from position_sync_dagster.domain.column import Column


class Kind(StrEnum):
    """A column's type, as Delta names it."""

    TEXT = "string"
    COUNT = "long"
    NUMBER = "double"
    MOMENT = "timestamp"
    DAY = "date"


_KINDS: Mapping[type, Kind] = {
    str: Kind.TEXT,
    int: Kind.COUNT,
    float: Kind.NUMBER,
    datetime: Kind.MOMENT,
    date: Kind.DAY,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredColumn:
    """One column of a table.

    Attributes:
        description: For people who read the table; with the unit, where there is one.
        nullable: Whether a row may leave it out. Delta itself allows null in every column.
        choices: The members of this enum are the only values; None for any value.
    """

    kind: Kind
    description: str = ""
    nullable: bool = True
    choices: type[StrEnum] | None = None


def text_column(description: str) -> StoredColumn:
    """Return a column of text."""
    return StoredColumn(kind=Kind.TEXT, description=description)


def count_column(description: str) -> StoredColumn:
    """Return a column of whole numbers."""
    return StoredColumn(kind=Kind.COUNT, description=description)


def number_column(description: str) -> StoredColumn:
    """Return a column of numbers."""
    return StoredColumn(kind=Kind.NUMBER, description=description)


def moment_column(description: str) -> StoredColumn:
    """Return a column of times in UTC."""
    return StoredColumn(kind=Kind.MOMENT, description=description)


def day_column(description: str) -> StoredColumn:
    """Return a column of calendar days."""
    return StoredColumn(kind=Kind.DAY, description=description)


def columns_of(record: type) -> dict[str, StoredColumn]:
    """Return the columns in which a dataclass is stored: one per field, in the order of fields.

    Raises:
        TypeError: A field has a type for which there is no column type.
    """
    return {field.name: _column(field.name, field.type) for field in fields(record)}


def in_order(columns: Mapping[str, StoredColumn], names: str) -> dict[str, StoredColumn]:
    """Return the columns in the physical order of a table.

    Args:
        names: Every column's name once, separated by white space.

    Raises:
        TypeError: A name is missing, unknown or there twice.
    """
    order = names.split()
    if sorted(order) != sorted(columns):
        odd = sorted(set(order) ^ set(columns)) or "a name that is there twice"
        raise TypeError(f"the order of columns does not match the columns: {odd}")
    return {name: columns[name] for name in order}


def _column(name: str, hint: Any) -> StoredColumn:
    documented = get_origin(hint) is Annotated
    value_type, *notes = get_args(hint) if documented else (hint,)
    alternatives = set(get_args(value_type) or (value_type,))
    nullable = NoneType in alternatives
    [stored_type] = alternatives - {NoneType}
    choices = stored_type if issubclass(stored_type, StrEnum) else None
    kind = Kind.TEXT if choices else _KINDS.get(stored_type)
    if kind is None:
        raise TypeError(f"the field {name} has no column type: {stored_type!r}")
    description = next((str(note) for note in notes if isinstance(note, Column)), "")
    return StoredColumn(kind=kind, description=description, nullable=nullable, choices=choices)
