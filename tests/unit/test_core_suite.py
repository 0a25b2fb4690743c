"""The suite that `make test PART=core` runs: it needs nothing of money, and runs without it."""

import ast
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
MONEY = "position_sync_dagster.money"


def test_no_module_of_the_suite_of_the_core_imports_money():
    """Neither itself, nor by what it has of `tests`."""
    pending = list(_suite_of_the_core())
    assert len(pending) > 50

    seen = set(pending)
    importing = {}
    while pending:
        module = pending.pop()
        imported = set(_imported(module))
        of_money = [name for name in imported if f"{name}.".startswith(f"{MONEY}.")]
        if of_money:
            importing[str(module.relative_to(ROOT))] = of_money

        of_tests = {path for name in imported if (path := _module_of_tests(name))}
        pending += of_tests - seen
        seen |= of_tests
    assert importing == {}


def _suite_of_the_core() -> set[Path]:
    """Return the test modules that the Makefile names."""
    show = ["make", "-s", "--eval=shown: ; @echo $(PART_core)", "shown"]
    words = subprocess.check_output(show, cwd=ROOT, text=True).split()
    places = [ROOT / word for word in words if word.startswith("tests/")]
    ignored = {ROOT / word.removeprefix("--ignore=") for word in words if "=" in word}

    folders = [place for place in places if place.is_dir()]
    modules = {place for place in places if place.suffix == ".py"}
    return modules.union(*(folder.rglob("test_*.py") for folder in folders)) - ignored


def _imported(module: Path) -> list[str]:
    """Return the names of all modules, and of what they have, that a module always imports."""
    names = []
    for node in ast.parse(module.read_text()).body:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names] + [str(node.module)]
    return names


def _module_of_tests(name: str) -> Path | None:
    """Return the file of a module of `tests`; None: it is none, or not of `tests`."""
    path = ROOT / f"{name.replace('.', '/')}.py"
    return path if name.startswith("tests.") and path.exists() else None
