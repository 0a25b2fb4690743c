"""Tables as another reader sees them: keys, texts of columns, descriptions, time travel."""

from collections.abc import Mapping
from datetime import UTC, datetime

import duckdb
import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError

from position_sync_dagster.lake import schema
from position_sync_dagster.lake.storage.table import Table, maintain
from tests.support.whole_lake import WholeLake


def comments(table: DeltaTable) -> dict[str, str | None]:
    return {field.name: field.metadata.get("comment") for field in table.schema().fields}


def texts(spec: schema.TableSpec) -> Mapping[str, str]:
    return {name: column.description for name, column in spec.described.items()}


@pytest.mark.parametrize(
    "spec", [*WholeLake.specs, *WholeLake.derived_specs], ids=lambda spec: spec.name
)
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
