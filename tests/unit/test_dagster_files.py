"""Dagster's files: where they are, and what those of the programs say."""

import ast
import os
import re
import time
import tomllib
from pathlib import Path

import pytest

from position_sync_dagster import dagster_files
from position_sync_dagster.cli.dev import put_instance
from position_sync_dagster.dagster_files import SUPERVISOR, WORKED_TICK, file_of
from position_sync_dagster.money.reports import signs_of_life
from position_sync_dagster.processes import supervisor
from position_sync_dagster.processes.home import demo_home, instance_file

ROOT = Path(__file__).parents[2]


def test_a_checkout_keeps_its_homes_beside_its_files(monkeypatch):
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    assert dagster_files.checkout() == ROOT
    assert instance_file() == ROOT / "dagster_home" / "dagster.yaml"
    assert dagster_files.dagster_home() == ROOT / "dagster_home"
    assert demo_home() == Path(".demo")


def test_an_installed_package_has_its_own_files_and_the_platforms_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    package = tmp_path / "site-packages" / "position_sync_dagster"
    monkeypatch.setattr(dagster_files, "PACKAGE_FOLDER", package)
    assert dagster_files.checkout() is None
    assert instance_file() == package / "instance" / "dagster.yaml"
    for home in (dagster_files.dagster_home(), demo_home()):
        assert dagster_files.PROJECT_NAME in home.parts
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "own"))
    assert dagster_files.dagster_home() == tmp_path / "own"


def test_the_wheel_contains_each_file_that_an_error_names():
    """A file that is named without `document` would be one of the checkout alone."""
    named: set[str] = set()
    file = re.compile(r"(?:docs/[\w/-]+\.md|\.env\.example)")
    for path in dagster_files.PACKAGE_FOLDER.rglob("*.py"):
        texts = texts_of(path) if file.search(path.read_text(encoding="utf-8")) else []
        for text in texts:
            named.update(file.findall(text))

    shipped = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    wheel = shipped["targets"]["wheel"]["force-include"]
    sdist = shipped["targets"]["sdist"]["force-include"]
    assert {"docs/operations.md", "docs/do/statements.md", ".env.example"} <= named
    for name in named:
        included = "docs/do" if name.startswith("docs/do/") else name
        assert wheel[included] == f"position_sync_dagster/instance/{included}"
        assert sdist[included] == included
        assert (ROOT / name).is_file()


def texts_of(path: Path) -> list[str]:
    """Return the texts of a module that are no docstrings."""
    nodes = [*ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    constants = [node for node in nodes if isinstance(node, ast.Constant)]
    return [
        node.value
        for node in constants
        if isinstance(node.value, str) and id(node) not in docstrings
    ]


def test_a_new_home_of_dagster_gets_our_instance_and_no_other_home_does(tmp_path, monkeypatch):
    ours = tmp_path / "ours"
    own = tmp_path / "own"
    for home in (ours, own):
        home.mkdir()
    monkeypatch.setattr(dagster_files, "own_dagster_home", lambda: ours)
    put_instance(own)
    put_instance(ours)
    assert not (own / "dagster.yaml").exists()
    assert (ours / "dagster.yaml").read_bytes() == instance_file().read_bytes()
    (ours / "dagster.yaml").write_text("changed: by a person")
    put_instance(ours)
    assert (ours / "dagster.yaml").read_text() == "changed: by a person"


def test_the_wheel_takes_the_files_along():
    text = (ROOT / "pyproject.toml").read_text()
    for source in ("workspace.yaml", "dagster_home/dagster.yaml"):
        assert f'"{source}" = "position_sync_dagster/instance/{Path(source).name}"' in text


@pytest.fixture
def _home(monkeypatch, tmp_path):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))


def wrote(name: str, age_s: float) -> None:
    dagster_files.note(name)
    at = time.time() - age_s
    os.utime(file_of(name), (at, at))


@pytest.mark.usefixtures("_home")
@pytest.mark.parametrize(
    ("supervisor_s", "tick_s", "late"),
    [
        (None, None, False),
        (1, 29, False),
        (1, 40, True),
        (1, -3600, True),  # the clock was set back since
        (110, None, False),  # Dagster still starts
        (130, None, True),
        (None, 3600, False),  # `dagster dev` was ended, and nobody removed the file
    ],
)
def test_ticks_are_late_where_a_supervisor_has_not_ended(supervisor_s, tick_s, late):
    for name, age_s in ((SUPERVISOR, supervisor_s), (WORKED_TICK, tick_s)):
        if age_s is not None:
            wrote(name, age_s)
    read_rows = signs_of_life.read()
    assert read_rows.late is late
    assert bool(read_rows.problems) is late
    assert (read_rows.ticked_at is None) is (tick_s is None)
    supervisor.clear()
    assert signs_of_life.read() == signs_of_life.NONE


@pytest.mark.usefixtures("_home")
def test_a_tick_ahead_of_the_clock_says_how_to_mend_it_also_without_a_supervisor():
    wrote(WORKED_TICK, -3600)
    read_rows = signs_of_life.read()
    assert read_rows.set_back
    assert "The clock was set back" in read_rows.problems[0]
    assert "-m position_sync_dagster.processes.sensor_states" in read_rows.problems[0]


def test_a_home_that_cannot_be_written_stops_no_program(monkeypatch, tmp_path):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "missing"))
    dagster_files.note(WORKED_TICK)
    assert signs_of_life.read() == signs_of_life.NONE
