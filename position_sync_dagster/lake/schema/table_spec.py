"""The definition of a table: its columns, version, partitions and properties.

Columns can be derived from the fields of the dataclass that is stored in the table.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from functools import cached_property
from inspect import cleandoc
from types import MappingProxyType, NoneType
from typing import Any, get_args, get_type_hints

import polars as pl
from deltalake import Field, Schema
from deltalake.schema import PrimitiveType


class Kind(StrEnum):
    """A column's type, as Delta names it."""

    TEXT = "string"
    COUNT = "long"
    NUMBER = "double"
    MOMENT = "timestamp"
    DAY = "date"
    FLAG = "boolean"


# How a field of each type is stored, and its type in a frame.
_TYPES: Mapping[type, tuple[Kind, pl.DataType]] = {
    str: (Kind.TEXT, pl.String()),
    int: (Kind.COUNT, pl.Int64()),
    float: (Kind.NUMBER, pl.Float64()),
    datetime: (Kind.MOMENT, pl.Datetime("us", "UTC")),
    date: (Kind.DAY, pl.Date()),
    bool: (Kind.FLAG, pl.Boolean()),
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


def columns_of(record: type, besides: Collection[str] = ()) -> dict[str, StoredColumn]:
    """Return the columns that a class names: one per annotated field, in the order of fields.

    Fields in `besides` have none.

    The description of a column is what the docstring of the class says under "Attributes".

    Raises:
        TypeError: A field has a type for which there is no column type.
    """
    texts = descriptions_of(record)
    return {
        name: _column(name, hint, texts.get(name, ""))
        for name, hint in get_type_hints(record).items()
        if name not in besides
    }


def in_order(columns: Mapping[str, StoredColumn], names: str) -> dict[str, StoredColumn]:
    """Return the columns in the physical order of a table.

    Args:
        names: Every column's name once, separated by white space.

    Raises:
        TypeError: A name is missing, is unknown or occurs twice.
    """
    order = names.split()
    if sorted(order) != sorted(columns):
        odd = sorted(set(order) ^ set(columns)) or "a name occurs twice"
        raise TypeError(f"the order of columns does not match the columns: {odd}")
    return {name: columns[name] for name in order}


def descriptions_of(record: type) -> dict[str, str]:
    """Return what the docstrings of a class and of its bases say of each attribute."""
    found: dict[str, str] = {}
    for base in reversed(record.__mro__):
        _summary, _heading, attributes = cleandoc(base.__doc__ or "").partition("\nAttributes:\n")
        for entry in re.split(r"\n {4}(?! )", f"\n{attributes}")[1:]:
            name, _colon, text = entry.partition(":")
            found[name] = " ".join(text.split())
    return found


def _column(name: str, hint: Any, description: str) -> StoredColumn:
    alternatives = set(get_args(hint) or (hint,))
    nullable = NoneType in alternatives
    [stored_type] = alternatives - {NoneType}
    choices = stored_type if issubclass(stored_type, StrEnum) else None
    if not choices and stored_type not in _TYPES:
        raise TypeError(f"the field {name} has no column type: {stored_type!r}")
    kind, _in_frames = _TYPES[str if choices else stored_type]
    return StoredColumn(kind=kind, description=description, nullable=nullable, choices=choices)


NAME_PROPERTY = "positionSync.table"
VERSION_PROPERTY = "positionSync.schemaVersion"
STATISTICS_PROPERTY = "delta.dataSkippingStatsColumns"
MODE_PROPERTY = "positionSync.tradingMode"

# A checkpoint every ten versions lets a table open in a few milliseconds. Deleted files are kept
# for half an hour, longer than any reader uses a snapshot. Log entries are kept for ten minutes
# only (600 entries at one commit a second), since each commit lists their folder.
RETENTION: Mapping[str, str] = MappingProxyType(
    {
        "delta.checkpointInterval": "10",
        "delta.logRetentionDuration": "interval 10 minutes",
        "delta.deletedFileRetentionDuration": "interval 30 minutes",
    }
)


@dataclass(frozen=True)
class TableSpec:
    """The name, columns and partitions of a table, and the columns with file statistics.

    Attributes:
        described: The columns, in the physical order.
        version: Grows by one with each added column; older tables are migrated forward.
        indexed: Columns with minimum and maximum per file in the log. There are few,
            since each costs bytes in every commit and checkpoint.
        order: The indexed column that grows, at least roughly, as rows are added. Files are merged
            in its order. Empty for tables that are only replaced.
        key: Columns that no two rows share; all columns but the partitions by default.
    """

    name: str
    described: Mapping[str, StoredColumn]
    version: int = 1
    partition_by: tuple[str, ...] = ()
    indexed: tuple[str, ...] = ()
    order: str = ""
    key: tuple[str, ...] = ()

    @cached_property
    def columns(self) -> Mapping[str, Kind]:
        """Return the type of each column, in the physical order."""
        return {name: column.kind for name, column in self.described.items()}

    @cached_property
    def polars(self) -> pl.Schema:
        """Return the schema of a frame of this table."""
        types = dict(_TYPES.values())
        return pl.Schema({name: types[kind] for name, kind in self.columns.items()})

    @cached_property
    def empty(self) -> pl.DataFrame:
        """Return a frame of this table without rows."""
        return pl.DataFrame(schema=self.polars)

    @cached_property
    def stored(self) -> pl.Schema:
        """Return the schema of a data file: without the partition columns."""
        kinds = self.polars.items()
        return pl.Schema({name: kind for name, kind in kinds if name not in self.partition_by})

    @cached_property
    def delta(self) -> Schema:
        """Return the schema in the form that Delta Lake takes."""
        return Schema(
            [Field(name, PrimitiveType(kind.value)) for name, kind in self.columns.items()]
        )

    @property
    def configuration(self) -> dict[str, str]:
        """Return the table properties of a new table."""
        return {
            **RETENTION,
            NAME_PROPERTY: self.name,
            VERSION_PROPERTY: str(self.version),
            STATISTICS_PROPERTY: ",".join(self.indexed),
        }
