"""The documents say what is, and the examples in docstrings do what they show."""

import doctest
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from position_sync_dagster.cli.app import COMMANDS, load
from position_sync_dagster.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "position_sync_dagster"
# It may name what is gone.
HISTORY = "CHANGELOG.md"

DOCUMENTS = sorted(
    [path for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")) if path.name != HISTORY],
    key=lambda path: path.as_posix(),
)
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(#[^)\s]*)?\)")
CODE = re.compile(r"`([^`\n]+)`")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(?:\.venv/bin/)?position-sync\b([^#|`]*)")


def commands(text: str) -> list[str]:
    """Return the `position-sync` commands of the shell blocks and of inline code."""
    blocks = [body.replace("\\\n", " ") for kind, body in FENCE.findall(text) if kind == "sh"]
    lines = [line for body in blocks for line in body.splitlines()] + CODE.findall(text)
    return [found[1].strip() for line in lines if (found := COMMAND.match(line.strip()))]


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
    roots = (
        ROOT,
        PACKAGE,
        document.parent,
        ROOT / "ib_gateway_simulator" / "control",
        ROOT / "examples/rules",
    )
    missing = [name for name in named if not any((root / name).exists() for root in roots)]
    assert [name for name in missing if not name.startswith((".demo", "backup/", "data/"))] == []


def each_command_and_its_options_exist(document: Path) -> None:
    for line in commands(document.read_text()):
        words = [word for word in shlex.split(line) if word not in ("…", "[--repair]", "[--json]")]
        if not words or words[0] not in COMMANDS:
            assert not words or words[0].startswith("-"), line
            continue
        command = load(words.pop(0))
        while words and hasattr(command, "commands") and words[0] in command.commands:
            command = command.commands[words.pop(0)]
        if not words:
            continue
        assert words[0].startswith("-") or not getattr(command, "commands", None), line
        options = {
            name for option in command.params for name in (*option.opts, *option.secondary_opts)
        } | {"--help"}
        unknown = {word for word in words if word.startswith("--")} - options
        assert unknown == set(), line


def each_make_target_exists(document: Path) -> None:
    text = document.read_text()
    shell = [body for kind, body in FENCE.findall(text) if kind == "sh"] + CODE.findall(text)
    named = {
        word
        for line in "\n".join(shell).splitlines()
        for word in re.findall(r"^\s*make ([a-z][a-z-]*)", line)
    }
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


def test_each_test_that_contributing_names_exists():
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "CONTRIBUTING.md").read_text()))
    text = "".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
    assert named - set(re.findall(r"def (test_\w+)\(", text)) == set()


MODULES = sorted(
    ".".join((PACKAGE.name, *path.relative_to(PACKAGE).with_suffix("").parts))
    for path in PACKAGE.rglob("*.py")
    if ">>> " in path.read_text()
)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_show_what_it_does(name):
    assert doctest.testmod(import_module(name)).failed == 0
