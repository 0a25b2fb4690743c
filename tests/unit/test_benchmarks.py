"""The benchmarks are programs too: each part can be imported with what the package offers."""

from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "benchmarks").rglob("*.py")
    if path.name not in ("__init__.py", "__main__.py")
)
COMPARED = {"persistqueue"}
"""What the benchmarks compare with, installed by `make bench` only."""


@pytest.mark.parametrize("module", MODULES)
def test_a_part_of_the_benchmarks_imports(module):
    try:
        import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in COMPARED:
            raise
