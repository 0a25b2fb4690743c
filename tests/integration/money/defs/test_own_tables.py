"""The table of `docs/do/own-tables.md`, as printed: a tick writes it, judges it and reports it."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import dagster as dg
import polars as pl
import pytest

from position_sync_dagster.money.lake import MoneyLake
from tests.integration.web.test_figures import row

PAGE = Path(__file__).parents[4] / "docs/do/own-tables.md"


def printed(language: str) -> list[str]:
    """Return the blocks of the page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A folder with the program of the page, and tables with a holding that has no value."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POSITION_SYNC_LAKE", ".demo/lake")
    monkeypatch.setenv("POSITION_SYNC_FSYNC", "false")
    (tmp_path / "own_tables.py").write_text("\n\n".join(printed("python")))
    lake = MoneyLake(tmp_path / ".demo/lake", fsync=False)
    lake.initialize_sync()
    lake.updates.sync.append([row(1), row(2, market_value=None)])
    return tmp_path


@pytest.fixture
def program(project) -> Iterator[ModuleType]:
    spec = spec_from_file_location("own_tables", project / "own_tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["own_tables"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["own_tables"]


def test_a_tick_writes_the_table_of_the_page_judges_it_and_reports_it(program):
    drain_queue = program.definitions.get_repository_def().get_sensor_def("drain_queue")
    with (
        dg.DagsterInstance.ephemeral() as instance,
        dg.build_sensor_context(instance=instance) as context,
    ):
        events = [
            event
            for event in drain_queue.evaluate_tick(context).asset_events
            if event.asset_key == dg.AssetKey("underlying_values")
        ]
    written = pl.read_delta(".demo/lake/underlying_values")
    [values] = written.select("symbol", "holdings", "unknown", "market_value").rows()
    assert values == ("SPY", 2, 1, row(1).market_value)
    assert {type(event) for event in events} == {dg.AssetMaterialization, dg.AssetCheckEvaluation}
    (judged,) = [event for event in events if isinstance(event, dg.AssetCheckEvaluation)]
    assert not judged.passed
    assert judged.description == "1 holdings have no value."


def test_the_commands_of_the_page_materialize_the_table_and_print_it(project):
    (project / ".venv").symlink_to(sys.prefix)
    materializing, printing = printed("sh")

    def ended(script: str) -> str:
        environment = os.environ | {"DAGSTER_HOME": ""}
        done = subprocess.run(
            ["sh", "-ec", script], cwd=project, env=environment, text=True, capture_output=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    assert "RUN_SUCCESS" in ended(materializing)
    assert "SPY" in ended(printing)
