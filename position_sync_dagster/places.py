"""Where the files of Dagster and the homes are: in a checkout, or for an installed package.

A checkout has `workspace.yaml` and `dagster_home/dagster.yaml`, and keeps its homes beside them. An
installed package has copies of both files, and keeps its homes where the platform keeps data of
programs.
"""

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
NAME = "position-sync-dagster"


def checkout() -> Path | None:
    """Return the folder of the checkout that the package is in; None for an installed one."""
    folder = PACKAGE.parent
    parts = (folder / "workspace.yaml", folder / "dagster_home" / "dagster.yaml")
    return folder if all(part.is_file() for part in parts) else None


def workspace_file() -> Path:
    """Return the file that names the code location."""
    return (checkout() or PACKAGE / "instance") / "workspace.yaml"


def instance_file() -> Path:
    """Return the `dagster.yaml` that a new home of Dagster gets."""
    folder = checkout()
    return (folder / "dagster_home" if folder else PACKAGE / "instance") / "dagster.yaml"


def dagster_home() -> Path:
    """Return the folder of Dagster's state: `DAGSTER_HOME`, or the one of this package."""
    named = os.environ.get("DAGSTER_HOME")
    return Path(named).absolute() if named else own_dagster_home()


def own_dagster_home() -> Path:
    """Return the folder of Dagster's state where `DAGSTER_HOME` names none."""
    return (checkout() or _data()) / "dagster_home"


def demo_home() -> Path:
    """Return the home of the demo: `.demo` of the working directory for a checkout."""
    return Path(".demo") if checkout() else _data() / "demo"


def _data() -> Path:
    from platformdirs import user_data_path

    return user_data_path(NAME, appauthor=False)
