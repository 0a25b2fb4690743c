"""A release: its version stands in one place, and so do its extras."""

import re
import sys
import tomllib
from pathlib import Path

import pytest
from pydantic import SecretStr

from position_sync_dagster.errors import MissingExtraError
from position_sync_dagster.processes import preflight
from position_sync_dagster.settings import load_settings
from position_sync_dagster.sync.alerts import deliver

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_version_of_the_project_heads_the_changelog_and_tags_the_image():
    released = re.findall(r"^## \[(\d.*)\] – \d{4}-\d\d-\d\d$", changelog(), re.MULTILINE)
    assert released[0] == PROJECT["version"]
    values = (ROOT / "deploy/helm/values.yaml").read_text()
    assert re.findall(r"^ +tag: \"(.+)\"$", values, re.MULTILINE) == [PROJECT["version"]]


def test_the_simulator_alone_has_the_version_and_the_bounds_of_the_project():
    alone = tomllib.loads((ROOT / "ib_gateway_simulator/pyproject.toml").read_text())["project"]
    for name in ("version", "requires-python", "license"):
        assert alone[name] == PROJECT[name]
    assert set(alone["dependencies"]) <= set(PROJECT["dependencies"])


def test_what_is_not_released_yet_stands_above_the_releases():
    assert re.findall(r"^## \[(.*?)\]", changelog(), re.MULTILINE)[0] == "Unreleased"


def test_an_extra_that_is_not_installed_is_named_where_it_is_needed(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "apprise", None)
    url = SecretStr("json://127.0.0.1:1")
    alerts = "pip install 'position-sync-dagster[alerts]'"
    assert not deliver(url, 0, title="t", body="b")
    assert alerts in caplog.text
    with pytest.raises(MissingExtraError, match=re.escape(f"Run: {alerts}")):
        preflight.check_alerts(load_settings(alert_urls=(url,)))
    assert {"alerts", "mcp"} <= set(PROJECT["optional-dependencies"])


def test_everything_of_the_extras_is_installed_for_the_tests():
    development = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["dev"]
    extras = ",".join(sorted(PROJECT["optional-dependencies"]))
    assert f"position-sync-dagster[{extras}]" in development


def changelog() -> str:
    return (ROOT / "CHANGELOG.md").read_text()
