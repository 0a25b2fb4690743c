"""Each gate of `.ci/run` fails for what it must catch: planted in a copy of the tree, and named."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]


class Gate(NamedTuple):
    """A target of make, and something wrong that it finds.

    Attributes:
        target: The words behind `make`.
        part: How the command of the target begins; None: the whole target.
        file: Where the wrong thing is planted.
        before: A text of the file, which is replaced; empty: at its end.
        after: What stands there then.
        named: What the gate says of it.
    """

    target: tuple[str, ...]
    part: str | None
    file: str
    before: str
    after: str
    named: str


def check(command: str, file: str, before: str, after: str, named: str) -> Gate:
    return Gate(("check",), command, file, before, after, named)


def documents(file: str, before: str, after: str, named: str) -> Gate:
    return Gate(("docs-check",), None, file, before, after, named)


ERRORS = "position_sync_dagster/errors.py"
TOOLS = ("ENDS=highest", "ARGS=-n 0 -q tests/integration/cli/test_mcp.py")

GATES = {
    "lint": check("ruff check", ERRORS, "", "import os\n", "F401"),
    "format": check("ruff format", ERRORS, "", "A = {  1: 2 }\n", f"{ERRORS}:"),
    "lock": check(
        "uv lock", "pyproject.toml", "uvicorn>=0.34", "uvicorn>=0.35", "needs to be updated"
    ),
    "types": check("mypy", ERRORS, "", 'A: int = "1"\n', f"{ERRORS}:"),
    "types of tests": check(
        "mypy", "tests/support/waiting.py", "", "def begin():\n    return eventualy\n",
        "tests/support/waiting.py:",
    ),
    "types of examples": check(
        "mypy examples", "examples/library/registry.py", "Right.PUT, 600.0", '"PUT", 600.0',
        'incompatible type "str"',
    ),
    "imports": check(
        "lint-imports", ERRORS, "", "from position_sync_dagster import lake\n",
        "Imports run one way BROKEN",
    ),
    "a page": documents("README.md", "", "[gone](docs/gone.md)\n", "'docs/gone.md'"),
    "an anchor": documents("docs/queue.md", "", "[gone](tables.md#gone)\n", "'tables.md#gone'"),
    "a docstring": documents(
        "position_sync_dagster/lake/lake.py", "        path: A folder,", "        paht: A folder,",
        "Parameter 'paht' does not appear",
    ),
    "wheel": Gate(
        ("wheel-check",), None, "pyproject.toml",
        '"!/position_sync_dagster/web/pages/*.html", ', "",
        "the wheel lacks position_sync_dagster/web/pages/frame.html",
    ),
    "secrets": Gate(
        ("wheel-check",), None, "ib_gateway_simulator/pyproject.toml", 'exclude = ["*", "!*/", ',
        'exclude = [', "ships .env",
    ),
    "bounds": Gate(
        ("bounds-check", *TOOLS), None, "position_sync_dagster/cli/mcp.py",
        ", *context: Any)", ", **context: Any)", "takes 3 positional arguments but 4 were given",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the checkout, with the installed tools of this one."""
    copy = tmp_path_factory.mktemp("gates") / "tree"
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, text=True, capture_output=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name)

    (copy / ".venv").symlink_to(ROOT / ".venv")
    (copy / ".tools").mkdir()
    for tool in (ROOT / ".tools").glob("*"):
        if tool.name in ("bin", "lib", "pyvenv.cfg") or tool.name.startswith(".uv-"):
            (copy / ".tools" / tool.name).symlink_to(tool)
    subprocess.run(["git", "init", "--quiet"], cwd=copy, check=True)
    subprocess.run(["git", "add", "--all"], cwd=copy, check=True)
    return copy


@pytest.fixture
def tree(copied: Path) -> Iterator[Path]:
    """Return the copy, without what another test has planted or built in it."""
    yield copied
    tools = ("--exclude=.venv", "--exclude=.tools")
    for words in (("checkout", "--quiet", "."), ("clean", "-dffxq", *tools)):
        subprocess.run(["git", *words], cwd=copied, check=True)


@pytest.fixture
def run(tree: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return what runs a command in the copy, as a person does who did not begin with make."""
    strange = ("ARGS", "PART", "MAKE", "MFLAGS", "PYTEST_", "UV_PROJECT", "VIRTUAL_ENV")
    env = {name: text for name, text in os.environ.items() if not name.startswith(strange)}
    # What is installed is that of this checkout, also where the plant is in pyproject.toml.
    installed = ("-o", ".venv/.synced")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = words if words[0] != "make" else ("make", *installed, *words[1:])
        return subprocess.run(command, cwd=tree, env=env, text=True, capture_output=True)

    return run


@pytest.mark.parametrize("name", GATES)
def test_a_gate_fails_and_names_the_cause(name, tree, run):
    gate = GATES[name]
    command = ["make", *gate.target]
    if gate.part is not None:
        lines = run("make", "--dry-run", *gate.target).stdout.splitlines()
        line = min((line for line in lines if f"/{gate.part}" in line), key=len)
        command = ["sh", "-c", line]

    file = tree / gate.file
    text = file.read_text()
    assert gate.before in text
    planted = text.replace(gate.before, gate.after, 1) if gate.before else text + gate.after
    file.write_text(planted)

    if gate.target == ("docs-check",):
        # Installed from the copy, a program would name the copy as its interpreter, and outlive it.
        run("make", "-C", str(ROOT), ".venv/.docs-synced")

    done = run(*command)
    assert done.returncode != 0
    assert gate.named in done.stdout + done.stderr


def test_each_gate_that_is_seen_to_fail_is_run_for_each_change():
    run_by = (ROOT / ".ci/run").read_text()
    workflow = (ROOT / ".github/workflows/ci.yml").read_text()
    for target in {gate.target[0] for gate in GATES.values()}:
        assert f"make {target}" in run_by, target
        assert f"run: make {target}" in workflow, target
