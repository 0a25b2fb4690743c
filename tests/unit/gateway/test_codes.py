"""The codes of the gateway: one home, and groups that do not contradict each other."""

import ast
from itertools import combinations
from pathlib import Path

import pytest

from position_sync_dagster.gateway import codes

PACKAGE = Path(codes.__file__).parents[1]
# Numbers that mean other things as well.
AMBIGUOUS = {200, 300}


@pytest.mark.parametrize(
    ("one", "other"),
    list(combinations([codes.OFFLINE, codes.FARM_BROKEN, codes.FARM_OK, codes.ENDS_LINE], 2)),
)
def test_a_code_means_one_thing(one, other):
    assert not one & other


def test_no_other_module_writes_a_code_as_a_number():
    written = {
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for room in ("gateway", "sync")
        for path in (PACKAGE / room).rglob("*.py")
        if path.name != "codes.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value in set(codes.GatewayCode) - AMBIGUOUS
    }
    assert not written
