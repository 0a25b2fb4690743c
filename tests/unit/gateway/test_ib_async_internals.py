"""The inside of ib_async is touched in one module."""

import ast
from pathlib import Path

import ib_async
import pytest

from position_sync_dagster import gateway
from position_sync_dagster.gateway import ib_async_internals, survey
from position_sync_dagster.gateway.login import _warn_of_version

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


def test_the_installed_version_is_the_tested_one():
    assert ib_async_internals.version_problem() is None
    assert survey.library_problem() is None


@pytest.mark.parametrize("version", ["2.2.0", "2.10.1", "3.0"])
def test_another_version_is_named_in_the_log_once_and_in_the_survey(monkeypatch, caplog, version):
    monkeypatch.setattr(ib_async, "__version__", version)
    problem = ib_async_internals.version_problem()
    for _ in range(2):
        _warn_of_version(problem)
    [record] = caplog.records
    assert f"ib_async {version}" in record.message
    text, remedy = survey.library_problem()
    assert version in text
    assert "ib-async==2.1.*" in remedy
