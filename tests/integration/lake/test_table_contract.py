"""What a program reads of a table: what changed since, and the lines of the notebook."""

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from position_sync_dagster.errors import LakeError, TokenError
from position_sync_dagster.lake.lake import Lake
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
    assert lake.changed_rows("latest_positions", second.token).rows.is_empty()

    with pytest.raises(LakeError, match="There is no the table"):
        lake.changed_rows("latest_position")


def test_a_token_of_another_table_or_of_rows_that_were_taken_back_is_refused(lake, tmp_path):
    table = lake.derived_table(LATEST_POSITIONS)
    folder = Path(table.path)
    put(table, latest(conid=1))
    of_backup = lake.changed_rows("latest_positions").token
    backup = shutil.copytree(folder, tmp_path / "backup")
    put(table, latest(conid=1), latest(conid=2))
    token = lake.changed_rows("latest_positions").token

    shutil.rmtree(folder)
    shutil.copytree(backup, folder)
    with pytest.raises(LakeError, match="There is no version 2 of the table"):
        lake.changed_rows("latest_positions", token)
    put(table, latest(conid=1), latest(conid=3))
    with pytest.raises(TokenError, match="or a restored backup took its rows back"):
        lake.changed_rows("latest_positions", token)
    with pytest.raises(TokenError, match="names no rows"):
        lake.changed_rows("latest_positions", "")
    assert lake.changed_rows("latest_positions", of_backup).rows["conid"].to_list() == [3]

    shutil.rmtree(folder)
    again = Lake(lake.path, fsync=False).derived_table(LATEST_POSITIONS)
    put(again, latest(conid=1))
    with pytest.raises(TokenError, match="it is of another table"):
        lake.changed_rows("latest_positions", of_backup)


@pytest.mark.parametrize("since", [12, "12", "ps2:1:0193a1c2-7f3e:12:0193a1c3", "pv1:a:1"])
def test_what_is_no_token_of_this_release_is_refused(lake, since):
    put(lake.derived_table(LATEST_POSITIONS), latest(conid=1))
    with pytest.raises(TokenError, match="names no rows of"):
        lake.changed_rows("latest_positions", since)


def test_the_notebook_of_the_day_runs_over_the_tables(lake, make_update, monkeypatch):
    lake.updates.sync.append([make_update(1), make_update(2)])
    put(lake.derived_table(LATEST_POSITIONS), latest(conid=1, position=-1.0, currency="USD"))
    monkeypatch.setenv("POSITION_SYNC_LAKE", lake.path)
    notebook = Path(__file__).parents[3] / "examples/day.ipynb"
    names: dict[str, Any] = {}
    for cell in json.loads(notebook.read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)  # noqa: S102 - as a notebook does
    assert names["by_underlying"].rows() == [("SPY", "USD", 1, None, None)]
    assert names["curve"].height >= 1
