"""The environment variables of the processes of a home."""

import os
from collections.abc import Mapping
from pathlib import Path

from position_sync_dagster.processes.process_tree import MARKER
from position_sync_dagster.settings import PREFIX

NOT_INHERITED = (PREFIX, "DAGSTER_")
"""The processes of a home never inherit variables with these prefixes."""


DAGSTER_HOME = "DAGSTER_HOME"


def home_environment(home: Path, values: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for the processes of a home.

    It is the user's environment without the user's own settings, which belong to other tables,
    with `values` and the marker of the home.
    """
    inherited = {
        name: text for name, text in os.environ.items() if not name.startswith(NOT_INHERITED)
    }
    return inherited | dict(values) | {MARKER: str(home)}


def adopt_environment(values: Mapping[str, str]) -> None:
    """Replace the settings, and Dagster's home, in this process's environment by `values`."""
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        del os.environ[name]
    os.environ.update(
        {k: v for k, v in values.items() if k.startswith(PREFIX) or k == DAGSTER_HOME}
    )
