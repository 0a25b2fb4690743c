"""The shape of the repository: folders, modules and docstrings that a stranger finds the way in."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "position_sync_dagster"
SIMULATOR = ROOT / "ib_gateway_simulator"
TESTS = ROOT / "tests"

# Tiers whose folders are those of the package; the other folders of tests are named below.
MIRRORING = ("contract", "integration", "unit")

APART = {"acceptance", "chaos", "support"}

# Verbs that a docstring does not begin with: it uses Return, Raise, Read, Commit and the like.
NOT_FIRST = {"Give", "Tell", "Say", "Note", "Let", "Have", "Be", "Hear"}


def folders_of(root: Path) -> list[Path]:
    """List a folder and all folders in it that hold modules."""
    found = {path.parent for path in root.rglob("*.py") if "__pycache__" not in path.parts}
    return sorted(found)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def nodes_of(path: Path) -> list[ast.AST]:
    """Return all nodes of a module."""
    return list(ast.walk(ast.parse(path.read_text())))


def docstrings_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each docstring of a module."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in nodes_of(path):
        if isinstance(node, documented) and (text := ast.get_docstring(node)):
            yield getattr(node, "lineno", 1), text


@pytest.mark.parametrize("folder", [*folders_of(PACKAGE), *folders_of(SIMULATOR)], ids=name_of)
def test_a_folder_says_what_it_holds(folder):
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
    assert text, "it has no docstring"
    assert len(re.findall(r"\.(?=\s|$)", text)) >= 2, "what lives here, and what may import what"


def test_a_search_for_a_class_finds_one_place():
    named = Counter(
        node.name
        for path in PACKAGE.rglob("*.py")
        for node in nodes_of(path)
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, times in named.items() if times > 1] == []


def folder_under_test(tests: Path) -> Path:
    """Return the folder that a folder of tests mirrors."""
    first, *rest = (*tests.parts, ".")
    return SIMULATOR.joinpath(*rest) if first == "simulator" else PACKAGE / tests


def test_each_folder_of_tests_mirrors_a_folder_of_the_package():
    tiers = {path.relative_to(TESTS).parts[0] for path in folders_of(TESTS) if path != TESTS}
    assert tiers == {*MIRRORING, *APART}
    strange = [
        name_of(folder)
        for tier in MIRRORING
        for folder in folders_of(TESTS / tier)
        if not folder_under_test(folder.relative_to(TESTS / tier)).is_dir()
    ]
    assert strange == []


def test_tests_find_what_they_import_without_a_changed_search_path():
    changed = "sys." + "path."  # its methods; what is only read changes nothing
    assert [name_of(path) for path in TESTS.rglob("*.py") if changed in path.read_text()] == []


def test_docstrings_begin_with_the_usual_verbs():
    found = [
        f"{name_of(path)}:{line}: {text.splitlines()[0]}"
        for root in (PACKAGE, SIMULATOR)
        for path in sorted(root.rglob("*.py"))
        for line, text in docstrings_of(path)
        if text.split()[0].rstrip(".,:") in NOT_FIRST
    ]
    assert found == []


INTERNALS = PACKAGE / "defs" / "maintenance.py"
PRIVATE = re.compile(r"dagster(_[a-z]+)?\.([a-z_]+\.)*_[a-z]")


def names_of(path: Path) -> Iterator[str]:
    """Yield each module and name that a module imports, and each of its texts without spaces."""
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from [node.value] if " " not in node.value else []


def test_private_symbols_of_dagster_are_named_in_one_module():
    found = {
        name_of(path)
        for path in PACKAGE.rglob("*.py")
        if any(PRIVATE.match(name) for name in names_of(path))
    }
    assert found == {name_of(INTERNALS)}
