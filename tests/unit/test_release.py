"""A release: its version, and the versions that it supports, stand in one place."""

import re
import tomllib
from pathlib import Path

from ib_async.client import Client

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_version_of_the_project_heads_the_changelog_and_tags_the_image():
    released = re.findall(r"^## \[(\d.*)\] – \d{4}-\d\d-\d\d$", changelog(), re.MULTILINE)
    assert released[0] == PROJECT["version"]
    values = (ROOT / "deploy/helm/values.yaml").read_text()
    assert re.findall(r"^ +tag: \"(.+)\"$", values, re.MULTILINE) == [PROJECT["version"]]


def test_what_is_not_released_yet_stands_above_the_releases():
    assert re.findall(r"^## \[(.*?)\]", changelog(), re.MULTILINE)[0] == "Unreleased"


def test_the_supported_versions_are_those_of_the_project():
    text = (ROOT / "docs/operations.md").read_text()
    rows = dict(re.findall(r"^\| (Python|Dagster|ib_async|deltalake) \| `(.+?)` \|", text, re.M))
    required = {
        name.replace("-", "_"): bounds
        for name, bounds in (
            re.match(r"([\w-]+)(.*)", line).groups() for line in PROJECT["dependencies"]
        )
    }
    assert rows == {
        "Python": PROJECT["requires-python"],
        "Dagster": required["dagster"],
        "ib_async": required["ib_async"],
        "deltalake": required["deltalake"],
    }
    gateway = f"server version {Client.MinClientVersion} to {Client.MaxClientVersion}"
    assert f"| TWS, IB Gateway | {gateway} |" in text


def changelog() -> str:
    return (ROOT / "CHANGELOG.md").read_text()
