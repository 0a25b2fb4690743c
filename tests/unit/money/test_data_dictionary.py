"""The data dictionary: made from the code, complete, and the same that the tables say."""

import subprocess
import sys
from pathlib import Path

import pytest

from position_sync_dagster.lake import schema
from position_sync_dagster.lake.schema import TableSpec
from position_sync_dagster.money import tables
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.processes.heard import heard_lake
from tests.support.data_dictionary import SPECS, data_dictionary

ROOT = Path(__file__).parents[3]


def test_the_page_is_that_of_the_code():
    assert (ROOT / "docs/tables.md").read_text() == data_dictionary(), "run `make tables`"


def described_tables():
    values = [*vars(schema).values(), *vars(heard_lake).values(), *vars(tables).values()]
    return {value.name for value in values if isinstance(value, TableSpec)}


def test_every_table_is_listed():
    assert sorted(described_tables()) == sorted(spec.name for spec in SPECS)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_each_table_and_column_has_a_text(spec):
    assert spec.description
    assert [name for name, column in spec.described.items() if not column.description] == []


def test_the_package_is_imported_without_docstrings():
    code = "from position_sync_dagster.cli import app; [*map(app.command, app.MODULE_OF)]"
    subprocess.run([sys.executable, "-OO", "-W", "ignore", "-c", code], check=True, timeout=300)


def test_every_table_that_the_code_describes_is_in_the_one_list(tmp_path):
    names = {table.spec.name for table in MoneyLake(tmp_path).all_tables}
    assert names == described_tables()
