"""The Dagster code location: everything that `defs` holds."""

from pathlib import Path

import dagster as dg


@dg.definitions
def defs() -> dg.Definitions:
    """Compose the definitions of the project."""
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
