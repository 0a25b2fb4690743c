"""Tables as another reader sees them: texts of columns, descriptions, time travel."""

from collections.abc import Mapping
from datetime import UTC, datetime

import duckdb
import pytest
from deltalake import DeltaTable

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
def test_a_new_table_has_the_texts_of_its_columns(tmp_path, spec):
    Table(tmp_path / "t", spec).initialize()
    table = DeltaTable(tmp_path / "t")
    assert table.metadata().description == spec.description
    assert comments(table) == texts(spec)


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
    by_duckdb = duckdb.from_arrow(table.to_pyarrow_dataset())
    assert by_duckdb.aggregate("sum(position), count(*)").fetchall() == [(2.0, 2)]

    for moment in (first, between):
        table.load_as_version(moment)
        assert table.version() == first
        assert table.to_pyarrow_table().column("conid").to_pylist() == [1]
