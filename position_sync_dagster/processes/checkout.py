"""The files of the checkout that Dagster needs."""

from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
"""The folder of the checkout. It holds `workspace.yaml` and `dagster_home`."""

WORKSPACE_FILE = PROJECT / "workspace.yaml"
INSTANCE_FILE = PROJECT / "dagster_home" / "dagster.yaml"
