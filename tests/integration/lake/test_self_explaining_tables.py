"""Tables as another reader sees them: keys, texts of columns, descriptions, time travel."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from functools import reduce
from operator import and_

import duckdb
import polars as pl
import pyarrow.dataset as ds
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError
from polars.testing import assert_frame_equal
from pyarrow.lib import ArrowNotImplementedError

from position_sync_dagster.lake import schema
from position_sync_dagster.lake.storage.commits import write
from position_sync_dagster.lake.storage.merges import maintain
from position_sync_dagster.lake.storage.table import Table
from tests.support.whole_lake import WholeLake


def comments(table: DeltaTable) -> dict[str, str | None]:
    return {field.name: field.metadata.get("comment") for field in table.schema().fields}


def texts(spec: schema.TableSpec) -> Mapping[str, str]:
    return {name: column.description for name, column in spec.described.items()}


EACH_TABLE = pytest.mark.parametrize(
    "spec", [*WholeLake.specs, *WholeLake.derived_specs], ids=lambda spec: spec.name
)


@EACH_TABLE
def test_a_new_table_explains_itself_and_refuses_a_row_without_a_key(tmp_path, spec):
    Table(tmp_path / "t", spec).initialize()
    table = DeltaTable(tmp_path / "t")
    assert table.metadata().description == spec.description
    assert comments(table) == texts(spec)
    assert all(texts(spec).values())
    properties = table.metadata().configuration
    assert properties["positionSync.key"] == ",".join(spec.key)
    assert properties["positionSync.changes"].endswith(".")
    assert not set(spec.key) - set(spec.columns)

    strict = [field.name for field in table.schema().fields if not field.nullable]
    assert set(strict) <= set(spec.key)
    nothing = pl.DataFrame({name: [None] for name in spec.columns}, schema=spec.polars)
    if strict:
        with pytest.raises(DeltaError, match="failed validation check"):
            write_deltalake(table, nothing, mode="append")


def test_the_texts_stay_through_commits_and_other_libraries_read_each_version(
    lake, make_update, clock
):
    lake.updates.sync.append([make_update(1)])
    first = lake.updates.table.version()
    between = datetime.now(UTC)
    clock.advance(1)
    lake.updates.sync.append([make_update(2)])
    maintain(lake.updates.table)

    table = DeltaTable(lake.updates.table.path)
    assert comments(table) == texts(schema.POSITION_UPDATES)
    assert sorted(table.to_pyarrow_table().column("conid").to_pylist()) == [1, 2]
    assert sorted(table.to_pandas()["conid"]) == [1, 2]
    for by_duckdb in (
        duckdb.from_arrow(table.to_pyarrow_dataset()),
        duckdb.read_parquet(table.file_uris()),
    ):
        assert by_duckdb.aggregate("sum(position), count(*)").fetchall() == [(2.0, 2)]
    assert pl.read_delta(table).select("conid").sum().item() == 3

    for moment in (first, between):
        table.load_as_version(moment)
        assert table.version() == first
        assert table.to_pyarrow_table().column("conid").to_pylist() == [1]


# Two values of each type; a filter that a data file's statistics answer reads no column.
TWO: Mapping[str, list[object]] = {
    "string": ["CL", "ES"],
    "long": [1, 2],
    "double": [1.0, 2.0],
    "timestamp": [datetime(2026, 3, day, tzinfo=UTC) for day in (2, 3)],
    "date": [date(2026, 3, 2)] * 2,
    "boolean": [False, True],
    "array": [["1.1", "1.2"], []],
}


def two_rows(spec: schema.TableSpec) -> pl.DataFrame:
    """Return two rows that differ in each text but those of partitions: they lie in one file."""
    values = {name: TWO[kind] for name, kind in spec.columns.items()}
    values |= {name: TWO[spec.columns[name]][:1] * 2 for name in spec.partition_by}
    return pl.DataFrame(values, schema=spec.polars)


def by_pandas(table: DeltaTable, texts: list[str]) -> int:
    return len(table.to_pandas(filters=[(text, "=", "CL") for text in texts]))


def by_pyarrow(table: DeltaTable, texts: list[str]) -> int:
    are_equal = [ds.field(text) == "CL" for text in texts]
    return table.to_pyarrow_dataset().count_rows(filter=reduce(and_, are_equal))


def by_duckdb(rows: duckdb.DuckDBPyRelation, texts: list[str]) -> int:
    are_equal = " AND ".join(f"\"{text}\" = 'CL'" for text in texts)
    return len(rows.filter(are_equal).fetchall())


def by_duckdb_over_a_dataset(table: DeltaTable, texts: list[str]) -> int:
    return by_duckdb(duckdb.from_arrow(table.to_pyarrow_dataset()), texts)


def by_duckdb_over_files(table: DeltaTable, texts: list[str]) -> int:
    return by_duckdb(duckdb.read_parquet(table.file_uris(), union_by_name=True), texts)


def by_polars(table: DeltaTable, texts: list[str]) -> int:
    is_chosen = pl.all_horizontal(pl.col(*texts) == "CL")
    read = pl.read_delta(table).filter(is_chosen)
    assert_frame_equal(pl.scan_delta(table).filter(is_chosen).collect(), read)
    return read.height


# The readers that docs/tables.md names.
READERS = (by_pandas, by_pyarrow, by_duckdb_over_a_dataset, by_duckdb_over_files, by_polars)


@EACH_TABLE
def test_each_reader_filters_the_columns_of_texts(tmp_path, spec):
    table = Table(tmp_path / "t", spec, fsync=False)
    table.transact(lambda handle: write(handle, two_rows(spec), {}))
    texts_of_files = [name for name, kind in spec.stored.items() if kind == pl.String]
    stored = DeltaTable(table.path)
    assert {reader: reader(stored, texts_of_files) for reader in READERS} == dict.fromkeys(
        READERS, 1
    )


def test_a_merge_makes_texts_plain_that_an_older_release_wrote_as_views(tmp_path):
    table = Table(tmp_path / "t", schema.ACCOUNT_VALUES, fsync=False)
    earlier = two_rows(table.spec)
    for _file in range(2):
        table.transact(lambda handle: write_deltalake(handle, earlier, mode="append"))
    later = earlier.with_columns(date=date(2026, 3, 4))
    table.transact(lambda handle: write(handle, later, {}))
    with pytest.raises(ArrowNotImplementedError, match="string_view"):
        by_pyarrow(DeltaTable(table.path), ["account"])

    maintain(table)
    assert by_pyarrow(DeltaTable(table.path), ["account"]) == 3
