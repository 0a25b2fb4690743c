"""What a table of the lake is: its columns, version, partitions and properties."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

from position_sync_dagster.lake.schema.columns import Kind, StoredColumn

if TYPE_CHECKING:
    import polars as pl
    from deltalake import Schema

NAME_PROPERTY = "positionSync.table"
VERSION_PROPERTY = "positionSync.schemaVersion"
STATISTICS_PROPERTY = "delta.dataSkippingStatsColumns"
MODE_PROPERTY = "positionSync.tradingMode"

RETENTION: Mapping[str, str] = MappingProxyType(
    {
        "delta.checkpointInterval": "10",
        "delta.logRetentionDuration": "interval 10 minutes",
        "delta.deletedFileRetentionDuration": "interval 30 minutes",
    }
)
"""Ten versions a checkpoint keeps an open at a few milliseconds; half an hour outlives every
reader of a snapshot. Ten minutes of log bound it at one commit a second to 600 entries: each
commit lists that folder."""


@dataclass(frozen=True)
class TableSpec:
    """What a table is: its name, columns, partitions and the columns with file statistics.

    Attributes:
        version: Grows by one with each added column; older tables are migrated forward.
        columns: The type of each column, in the physical order.
        indexed: Columns with minimum and maximum per file in the log. Few, since each costs
            bytes in every commit and checkpoint.
        order: The indexed column that grows as rows come, if only roughly. Files are merged along
            it, and rows that are there twice are searched for where files overlap in it. None in
            tables that are only ever replaced.
        key: Columns that no two rows share; all columns but the partitions by default.
        descriptions: The meaning of each column, with its unit, for people.
    """

    name: str
    version: int
    columns: Mapping[str, Kind]
    partition_by: tuple[str, ...] = ()
    indexed: tuple[str, ...] = ()
    order: str | None = None
    key: tuple[str, ...] = ()
    properties: Mapping[str, str] = field(default_factory=dict)
    descriptions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        name: str,
        columns: Mapping[str, StoredColumn],
        *,
        partition_by: tuple[str, ...] = (),
        indexed: tuple[str, ...],
        order: str | None = None,
        key: tuple[str, ...] = (),
        version: int = 1,
    ) -> "TableSpec":
        """Return the specification of a table with described columns."""
        return cls(
            name=name,
            version=version,
            columns={column: found.kind for column, found in columns.items()},
            partition_by=partition_by,
            indexed=indexed,
            order=order,
            key=key,
            descriptions={column: found.description for column, found in columns.items()},
        )

    @cached_property
    def polars(self) -> "pl.Schema":
        """Return the schema of a frame of this table."""
        import polars as pl

        types: Mapping[Kind, pl.DataType] = {
            Kind.TEXT: pl.String(),
            Kind.COUNT: pl.Int64(),
            Kind.NUMBER: pl.Float64(),
            Kind.MOMENT: pl.Datetime("us", "UTC"),
            Kind.DAY: pl.Date(),
        }
        return pl.Schema({name: types[kind] for name, kind in self.columns.items()})

    @cached_property
    def delta(self) -> "Schema":
        """Return the schema in the form that Delta Lake takes."""
        from deltalake import Field, Schema
        from deltalake.schema import PrimitiveType

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
            **self.properties,
        }
