"""A run finds the package imported, and imports it anew if a file has changed."""

import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

PACKAGE = "edited_package"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / PACKAGE
    (folder / "inner").mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "inner" / "__init__.py").touch()
    (folder / "inner" / "price.py").write_text("VALUE = 1\n")
    (folder / "report.py").write_text(
        f"from {PACKAGE}.inner import price\nTEXT = str(price.VALUE)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


@pytest.fixture
def preloaded() -> Iterator[Any]:
    """Return the module, of which the import changes the garbage collection of this process."""
    usual = gc.get_threshold()
    try:
        yield import_module("position_sync_dagster.dagster_host.preloaded")
    finally:
        gc.set_threshold(*usual)
        gc.unfreeze()


def test_rare_collections_stay_after_a_run_has_loaded_its_definitions():
    program = (
        "import gc\n"
        "from position_sync_dagster.dagster_host import preloaded\n"
        "from position_sync_dagster.sync.owner import memory_and_threads\n"
        "with memory_and_threads.exempt_from_collection(): pass\n"
        "print(gc.get_threshold() == preloaded.GARBAGE)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ran.stdout, ran.stderr) == ("True\n", "")


def test_forked_runs_on_postgres_keep_a_connection():
    program = (
        "import position_sync_dagster.dagster_host.preloaded\n"
        "from dagster_postgres.event_log import event_log\n"
        "print(event_log.create_pg_engine.__module__)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PGHOST": "127.0.0.1"},
        capture_output=True,
        text=True,
    )
    assert ran.stdout == "position_sync_dagster.dagster_host.dagster_internals\n", ran.stderr


def report() -> str:
    return str(import_module(f"{PACKAGE}.report").TEXT)


def test_each_module_that_runs_are_to_find_imported_exists(preloaded):
    """With one that does not, each run imports all of them itself: slower, and only a warning."""
    names = [f"{preloaded.PACKAGE}.{name}" for name in preloaded.IN_PACKAGE]
    assert [name for name in names if find_spec(name) is None] == []


def test_a_run_finds_the_package_imported(package, preloaded):
    imported = preloaded.import_package(PACKAGE, ["report"])
    module = sys.modules[f"{PACKAGE}.report"]
    preloaded.forget_changed(imported)
    assert import_module(f"{PACKAGE}.report") is module


def test_a_folder_is_imported_with_all_that_is_in_it(package, preloaded):
    imported = preloaded.import_package(PACKAGE, ["inner"])
    assert set(imported) == {PACKAGE, f"{PACKAGE}.inner", f"{PACKAGE}.inner.price"}


def test_a_changed_file_is_imported_anew_with_all_that_use_it(package, preloaded):
    imported = preloaded.import_package(PACKAGE, ["report"])
    assert report() == "1"
    (package / "inner" / "price.py").write_text("VALUE = 22\n")
    preloaded.forget_changed(imported)
    assert report() == "22"


def test_a_name_that_is_new_in_a_package_is_found(package, preloaded):
    imported = preloaded.import_package(PACKAGE, ["report"])
    (package / "__init__.py").write_text("NEW = 5\n")
    (package / "report.py").write_text(f"from {PACKAGE} import NEW\nTEXT = str(NEW)\n")
    preloaded.forget_changed(imported)
    assert report() == "5"


def test_a_removed_file_is_not_found_by_the_run(package, preloaded):
    imported = preloaded.import_package(PACKAGE, ["report"])
    (package / "inner" / "price.py").unlink()
    preloaded.forget_changed(imported)
    with pytest.raises(ImportError):
        report()


def test_an_error_in_an_edited_file_is_left_to_the_run(package, preloaded, caplog):
    (package / "inner" / "price.py").write_text("VALUE = \n")
    assert preloaded.import_package(PACKAGE, ["report"]) == {}
    assert "SyntaxError" in caplog.text
    (package / "inner" / "price.py").write_text("VALUE = 3\n")
    assert report() == "3"
