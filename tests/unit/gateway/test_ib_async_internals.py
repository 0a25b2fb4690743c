"""The inside of ib_async is touched in one module."""

import ast
from pathlib import Path

from position_sync_dagster import gateway

PRIVATE = {"wrapper", "decoder", "conn", "_data", "_logger", "MaxRequests", "RequestsInterval"}
"""Attributes of `IB` and of its client that are no part of its documented interface."""


def test_no_other_module_touches_the_inside_of_ib_async():
    touched = {
        f"{path.name}:{node.lineno} {node.attr}"
        for path in Path(gateway.__file__).parent.rglob("*.py")
        if path.stem != "ib_async_internals"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in PRIVATE
    }
    assert not touched
