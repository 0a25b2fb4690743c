"""What a table promises to programs that read it: its key, what changed, and who reads it."""

import json
from pathlib import Path

import duckdb
import polars as pl
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError

from position_sync_dagster.errors import LakeError
from position_sync_dagster.lake.derived import replace
from position_sync_dagster.lake.schema import DERIVED, LATEST_POSITIONS, TABLES
from position_sync_dagster.lake.storage.table import Table
from position_sync_dagster.money import tables as money

EVERY = [*TABLES, *DERIVED, *money.TABLES, *money.DERIVED]


@pytest.mark.parametrize("spec", EVERY, ids=lambda spec: spec.name)
def test_a_table_says_its_key_and_when_it_changes_and_refuses_a_row_without_a_key(tmp_path, spec):
    Table(tmp_path / "t", spec).initialize()
    table = DeltaTable(tmp_path / "t")
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


def latest(**values: object) -> dict[str, object]:
    return dict.fromkeys(LATEST_POSITIONS.columns) | {"account": "U1", "symbol": "SPY"} | values


def put(table: Table, *rows: dict[str, object]) -> None:
    replace(table, pl.DataFrame(rows, schema=LATEST_POSITIONS.polars))


def test_a_program_reads_what_changed_in_a_table_beside_the_ledger(lake):
    table = lake.derived_table(LATEST_POSITIONS)
    put(table, latest(conid=1, position=-1.0), latest(conid=2, position=2.0))
    first = lake.changed_rows("latest_positions")
    assert sorted(first.rows["conid"]) == [1, 2]
    assert first.gone.height == 0
    assert lake.changed_rows("latest_positions", first.token).rows.is_empty()

    put(table, latest(conid=1, position=-3.0))
    second = lake.changed_rows("latest_positions", first.token)
    assert second.rows.select("conid", "position").rows() == [(1, -3.0)]
    assert sorted(second.gone.select("conid", "position").rows()) == [(1, -1.0), (2, 2.0)]
    assert second.token > first.token

    for name, since in (("latest_positions", second.token + 7), ("latest_position", None)):
        with pytest.raises(LakeError, match="There is no"):
            lake.changed_rows(name, since)


def test_the_readers_that_are_named_read_the_same(lake):
    """Polars, deltalake, pyarrow and DuckDB, each as docs/tables.md says."""
    table = lake.derived_table(LATEST_POSITIONS)
    put(table, latest(conid=1, market_value=0.1), latest(conid=2, market_value=0.2))
    delta = DeltaTable(table.path)
    arrow = delta.to_pyarrow_dataset()
    sums = [
        pl.read_delta(table.path)["market_value"].sum(),
        pc.sum(arrow.to_table().column("market_value")).as_py(),
        duckdb.from_arrow(arrow).aggregate("sum(market_value)").fetchall()[0][0],
        duckdb.read_parquet(delta.file_uris()).aggregate("sum(market_value)").fetchall()[0][0],
    ]
    assert sums == [pytest.approx(0.3, abs=1e-12)] * 4


def test_the_notebook_of_the_day_runs_over_the_tables(lake, make_update, monkeypatch):
    lake.updates.sync.append([make_update(1), make_update(2)])
    put(lake.derived_table(LATEST_POSITIONS), latest(conid=1, position=-1.0, currency="USD"))
    monkeypatch.setenv("POSITION_SYNC_LAKE", lake.path)
    notebook = Path(__file__).parents[3] / "examples/day.ipynb"
    names: dict[str, object] = {}
    for cell in json.loads(notebook.read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)  # noqa: S102 - as a notebook does
    assert names["by_underlying"].rows() == [("SPY", "USD", 1, None, None)]
    assert names["curve"].height >= 1
