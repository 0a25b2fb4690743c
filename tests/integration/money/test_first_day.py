"""A lake before its first close: each table is there, empty and typed, and nothing is current."""

import re
from pathlib import Path

import duckdb
import polars as pl
import pytest
import yaml
from deltalake import DeltaTable

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.reports.status import read_status
from position_sync_dagster.processes.preflight import check_lake
from position_sync_dagster.web.api import ask
from position_sync_dagster.web.served_figures import PageFigures
from tests.support.settings import make_settings

ROOT = Path(__file__).parents[3]
MODELS = ROOT / "examples/dbt/models"


@pytest.fixture
def first_day(tmp_path):
    """The settings of a lake that was made a moment ago."""
    settings = make_settings(lake=str(tmp_path / "lake"))
    MoneyLake.of(settings).initialize_sync()
    return settings


def test_each_documented_table_is_there_empty_and_with_its_columns(first_day):
    text = (ROOT / "docs/tables.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^## (\w+)$", text, re.MULTILINE))
    specs = (*MoneyLake.specs, *MoneyLake.derived_specs)
    assert documented == {spec.name for spec in specs}
    for spec in specs:
        rows = pl.read_delta(first_day.table(spec.name))
        assert rows.columns == [field.name for field in spec.delta.fields]
        assert pl.Null not in rows.dtypes
        assert rows.is_empty()
        assert MoneyLake.of(first_day).changed_rows(spec.name).rows.is_empty()


@pytest.mark.parametrize("model", sorted(MODELS.glob("*.sql")), ids=lambda path: path.stem)
def test_a_model_of_sql_runs(first_day, model):
    (lake,) = yaml.safe_load((MODELS / "sources.yml").read_text())["sources"]
    tables = {table["name"]: table["meta"]["delta_table_path"] for table in lake["tables"]}
    connection = duckdb.connect()
    for name, path in tables.items():
        assert path.endswith(f"/{name}")
        connection.register(name, DeltaTable(first_day.table(name)).to_pyarrow_table())
    sql = re.sub(r"\{\{ source\('lake', '(\w+)'\) \}\}", r"\1", model.read_text())
    assert connection.sql(sql).fetchall() == []


def test_an_empty_lake_is_not_current_and_is_not_taken_for_one_that_was_imported(first_day):
    lake = MoneyLake.of(first_day)
    status = read_status(lake, first_day, utc_now())
    assert (status.positions, status.legs_streamed, status.legs_queued) == (0, 0, 0)
    assert status.last_drained_at is None
    assert status.session_state is None
    closed = ask(PageFigures(first_day), "closed-day", utc_now())
    assert (closed["explained_day"], closed["books_day"]) == (None, None)
    (finding,) = check_lake(lake)
    assert "the log of each can be read" in finding.text
