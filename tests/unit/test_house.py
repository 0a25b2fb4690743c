"""The shape of the repository: folders, modules and docstrings, and documents that say what is."""

import ast
import doctest
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from itertools import product
from pathlib import Path

import pytest

import position_sync_dagster
from docs import drawn_diagrams
from docs.command_pages import commands_page
from position_sync_dagster.cli.app import MODULE_OF, command
from position_sync_dagster.defs.checks import evaluation
from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "position_sync_dagster"
SIMULATOR = ROOT / "ib_gateway_simulator"
TESTS = ROOT / "tests"

# Tiers whose folders are those of the package; the other folders of tests are named below.
MIRRORING = ("contract", "integration", "unit")

APART = {"acceptance", "chaos", "support", "year"}

# Verbs that a docstring does not begin with: it uses Return, Raise, Read, Commit and the like.
NOT_FIRST = {"Give", "Tell", "Say", "Note", "Let", "Have", "Be", "Hear"}


def folders_of(root: Path) -> list[Path]:
    """List a folder and all folders in it that hold modules."""
    parents = {path.parent for path in root.rglob("*.py") if "__pycache__" not in path.parts}
    return sorted(parents)


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


FOLDERS = [
    folder
    for folder in (*folders_of(PACKAGE), *folders_of(SIMULATOR))
    if not folder.is_relative_to(SIMULATOR / "tests")
]


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_a_folder_says_what_it_holds(folder):
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
    assert text, "it has no docstring"
    assert len(re.findall(r"\.(?=\s|$)", text)) >= 2, "what lives here, and what may import what"


def test_a_search_for_a_class_finds_one_place():
    named: Counter[str] = Counter()
    for path in PACKAGE.rglob("*.py"):
        named.update(re.findall(r"^ *class ([a-zA-Z]\w*)[(:]", path.read_text(), re.MULTILINE))
    assert named["MoneyLake"] == 1
    assert [name for name, times in named.items() if times > 1] == []


def test_each_folder_of_tests_mirrors_a_folder_of_the_package():
    tiers = {path.relative_to(TESTS).parts[0] for path in folders_of(TESTS) if path != TESTS}
    assert tiers == {*MIRRORING, *APART}
    packages = ((TESTS, PACKAGE), (SIMULATOR / "tests", SIMULATOR))
    for (tests, package), tier in product(packages, MIRRORING):
        for folder in folders_of(tests / tier):
            mirrored = package / folder.relative_to(tests / tier)
            assert mirrored.is_dir(), name_of(folder)


def test_tests_find_what_they_import_without_a_changed_search_path():
    changed = "sys." + "path."  # its methods; what is only read changes nothing
    assert [name_of(path) for path in TESTS.rglob("*.py") if changed in path.read_text()] == []


# To parse all modules takes two seconds: few have texts that may be what is looked for.
BEGINS_UNUSUALLY = re.compile(rf'"""\s*({"|".join(NOT_FIRST)})\b')


def test_docstrings_begin_with_the_usual_verbs():
    unusual = []
    for path in sorted([*PACKAGE.rglob("*.py"), *SIMULATOR.rglob("*.py")]):
        if not BEGINS_UNUSUALLY.search(path.read_text()):
            continue
        for line, text in docstrings_of(path):
            if text.split()[0].rstrip(".,:") in NOT_FIRST:
                unusual.append(f"{name_of(path)}:{line}: {text.splitlines()[0]}")
    assert unusual == []


INTERNALS = PACKAGE / "defs" / "dagster_internals.py"
PRIVATE = re.compile(r"dagster(_[a-z]+)?\.([a-z_]+\.)*_[a-z]")
NAMES_DAGSTER = re.compile(r"""(import |from |["'])dagster""")


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
    with_private = set()
    for path in PACKAGE.rglob("*.py"):
        names_dagster = NAMES_DAGSTER.search(path.read_text())
        if names_dagster and any(map(PRIVATE.match, names_of(path))):
            with_private.add(path)
    assert with_private == {INTERNALS}


def test_the_types_of_options_are_listed_in_one_module():
    """Which types are options, and which of these have a class; a setting lists all types."""
    listing = set()
    for path in PACKAGE.rglob("*.py"):
        if not {"OPT", "FOP"} <= {*re.findall("OPT|FOP", path.read_text())}:
            continue
        for node in nodes_of(path):
            if isinstance(node, ast.Set | ast.Tuple | ast.List):
                values = {getattr(part, "value", None) for part in node.elts}
                if {"OPT", "FOP"} <= values:
                    listing.add(path)
    assert listing == {PACKAGE / "domain/instrument.py", PACKAGE / "settings.py"}


# It may name what is gone.
HISTORY = "CHANGELOG.md"

PAGES = {*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "llms.txt"}
DOCUMENTS = sorted(PAGES - {ROOT / HISTORY}, key=lambda path: path.as_posix())
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(#[^)\s]*)?\)")
CODE = re.compile(r"`([^`\n]+)`")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(?:\.venv/bin/)?position-sync\b(?!/)([^#|`]*)")


def commands(text: str) -> list[str]:
    """Return the `position-sync` commands of the shell blocks and of inline code."""
    blocks = [body.replace("\\\n", " ") for kind, body in FENCE.findall(text) if kind == "sh"]
    lines = [line for body in blocks for line in body.splitlines()] + CODE.findall(text)
    return [match[1].strip() for line in lines if (match := COMMAND.match(line.strip()))]


def test_each_document_is_a_page_of_the_site():
    pages = re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text().partition("nav:")[2])
    documents = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert documents - set(pages) == set()


def each_link_leads_to_a_file(document: Path) -> None:
    links = [target for target, _ in LINK.findall(document.read_text())]
    local = [link for link in links if "://" not in link and not link.startswith("mailto:")]
    assert [link for link in local if not (document.parent / link).exists()] == []


def each_named_file_exists(document: Path) -> None:
    named = [
        name
        for name in CODE.findall(FENCE.sub("", document.read_text()))
        if re.fullmatch(r"[\w./-]+\.(py|md|toml|yaml)|[\w-]+(/[\w-]+)+/", name)
    ]
    roots = (ROOT, PACKAGE, document.parent, SIMULATOR / "control", ROOT / "examples/rules")
    missing = [name for name in named if not any((root / name).exists() for root in roots)]
    assert [name for name in missing if not name.startswith((".demo", "backup/", "data/"))] == []


def each_command_and_its_options_exist(document: Path) -> None:
    program = {name: command(name) for name in MODULE_OF}
    for line in commands(document.read_text()):
        words = [word for word in shlex.split(line) if word not in ("…", "[--repair]", "[--json]")]
        if not words or words[0] not in program:
            assert not words or words[0].startswith("-"), line
            continue
        called = program[words.pop(0)]
        while words and hasattr(called, "commands") and words[0] in called.commands:
            called = called.commands[words.pop(0)]
        if not words:
            continue
        assert words[0].startswith("-") or not getattr(called, "commands", None), line

        options = {"--help"}
        for option in called.params:
            options.update(option.opts, option.secondary_opts)
        unknown = {word for word in words if word.startswith("--")} - options
        assert unknown == set(), line


def each_make_target_exists(document: Path) -> None:
    text = document.read_text()
    shell = [body for kind, body in FENCE.findall(text) if kind == "sh"] + CODE.findall(text)
    lines = "\n".join(shell).splitlines()
    named = {word for line in lines for word in re.findall(r"^\s*make ([a-z][a-z-]*)", line)}
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert named - targets == set()


def each_setting_exists(document: Path) -> None:
    named = set(re.findall(rf"\b{PREFIX}([A-Z][A-Z_]*[A-Z])\b", document.read_text()))
    known = {name.upper() for name in Settings.model_fields}
    assert named - known == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_each_link_file_command_target_and_setting_of_a_document_exists(document):
    each_link_leads_to_a_file(document)
    each_named_file_exists(document)
    each_command_and_its_options_exist(document)
    each_make_target_exists(document)
    each_setting_exists(document)


def test_the_diagrams_are_those_of_the_code():
    drawn = {path.stem: path.read_text() for path in (ROOT / "docs/diagrams").glob("*.svg")}
    assert drawn == {name: drawn_diagrams.svg(*of) for name, of in drawn_diagrams.DIAGRAMS.items()}


def test_the_page_of_commands_has_those_inside_others_their_options_and_what_these_may_be():
    page = commands_page()
    assert "## position-sync strategies propose\n" in page
    assert "## position-sync queue retry\n" in page
    assert "`--by <kind|underlying|strategy|month>`" in page
    assert "[default: -10,-5,-2,0,2,5,10]" in page


def each_error() -> Iterator[type[PositionSyncError]]:
    import_module(f"{PACKAGE.name}.definitions")
    for name in vars(position_sync_dagster)["__all__"]:
        getattr(position_sync_dagster, name)  # imports the module of each public error
    return errors_below(PositionSyncError)


def errors_below(root: type[PositionSyncError]) -> Iterator[type[PositionSyncError]]:
    for error in root.__subclasses__():
        yield error
        yield from errors_below(error)


def anchors_of(document: Path) -> set[str]:
    """Return the anchors of the headings of a document, as a repository and the site make them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", text).strip().lower().replace(" ", "-") for text in headings}


def test_errors_and_checks_name_a_page_that_is_there():
    pages = {error.page for error in each_error() if error.page}
    pages |= {evaluation.PAGE}
    assert len(pages) > 10
    for page in pages:
        name, _, anchor = page.partition("#")
        assert (ROOT / name).is_file(), page
        assert not anchor or anchor in anchors_of(ROOT / name), page


def test_an_error_without_a_page_says_what_to_do():
    bare = [error for error in each_error() if not error.page]
    silent = {error.__name__ for error in bare if "\n\n" not in (error.__doc__ or "")}
    assert {name for name in silent if name[0] != "_"} == {"LakeError", "UserError"}  # the bases


def test_each_test_that_contributing_names_exists():
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "CONTRIBUTING.md").read_text()))
    text = "".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
    assert named - set(re.findall(r"def (test_\w+)\(", text)) == set()


WITH_EXAMPLES = [path for path in PACKAGE.rglob("*.py") if ">>> " in path.read_text()]
MODULES = sorted(".".join(path.relative_to(ROOT).with_suffix("").parts) for path in WITH_EXAMPLES)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_show_what_it_does(name):
    assert doctest.testmod(import_module(name)).failed == 0
