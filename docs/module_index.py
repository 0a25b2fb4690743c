"""List every module with the first line of its docstring: `python -m docs.module_index`.

The output is docs/modules.md, and a test compares the two.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

DOCS = Path(__file__).parent
PACKAGES = ("position_sync_dagster", "ib_gateway_simulator")
HEAD = """# Modules

Every module with the first line of its docstring, by folder. Which one to open for a given change
is in [architecture.md](architecture.md).
"""


def module_index() -> str:
    """Return the text of docs/modules.md."""
    return HEAD + "".join(line + "\n" for package in PACKAGES for line in _lines(package))


def _lines(package: str) -> Iterator[str]:
    root = DOCS.parent / package
    for folder in sorted({path.parent for path in root.rglob("*.py")}):
        paths = sorted(path for path in folder.glob("*.py") if path.stem != "__init__")
        if paths:
            name = folder.relative_to(root.parent).as_posix()
            yield from ("", f"## {name}", "", "| module | |", "|---|---|")
        for path in paths:
            text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            first = " ".join(text.split("\n\n")[0].split()).replace("|", "\\|")
            yield f"| `{path.relative_to(root.parent).as_posix()}` | {first} |"


if __name__ == "__main__":
    sys.stdout.write(module_index())
