"""What a program reads of a table: what changed since, and the lines of the notebook."""

import json
from pathlib import Path

import polars as pl
import pytest

from position_sync_dagster.errors import LakeError
from position_sync_dagster.lake.schema import LATEST_POSITIONS
from position_sync_dagster.lake.storage.table import Table
from tests.support.derived_rows import put_rows


def latest(**values: object) -> dict[str, object]:
    return dict.fromkeys(LATEST_POSITIONS.columns) | {"account": "U1", "symbol": "SPY"} | values


def put(table: Table, *rows: dict[str, object]) -> None:
    put_rows(table, pl.DataFrame(rows, schema=LATEST_POSITIONS.polars))


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
