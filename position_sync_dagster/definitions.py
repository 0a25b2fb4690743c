"""The Dagster code location: all definitions of the package `defs`."""

from functools import cache
from pathlib import Path

import dagster as dg


@dg.definitions
def defs() -> dg.Definitions:
    """Return the definitions of the project."""
    return _loaded()


@cache
def _loaded() -> dg.Definitions:
    # A run over a selection of assets loads its definitions twice in one process.
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
