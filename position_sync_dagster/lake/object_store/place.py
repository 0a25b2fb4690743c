"""Where a table lies: a folder of this machine, or a place in an object store."""

import os
from pathlib import Path

from position_sync_dagster.lake.object_store.client import is_remote


def absolute_path(path: str | Path) -> str:
    """Return the absolute path of a local table, or the URI of a remote one."""
    text = str(path)
    if is_remote(text):
        return text.rstrip("/")
    return os.path.abspath(text.removeprefix("file://"))
