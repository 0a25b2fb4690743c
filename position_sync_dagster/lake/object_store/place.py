"""Where a table lies: a folder of this machine, or a place in an object store."""

import os
from pathlib import Path

from position_sync_dagster.errors import InvalidRequestError, shown
from position_sync_dagster.lake.object_store.client import is_remote
from position_sync_dagster.setting_types import lake_path_error


def absolute_path(path: str | Path) -> str:
    """Return the absolute path of a local table, or the URI of a remote one.

    Raises:
        InvalidRequestError: Delta Lake cannot keep a table there.
    """
    text = str(path)
    found = text.rstrip("/") if is_remote(text) else os.path.abspath(text.removeprefix("file://"))
    wrong = lake_path_error(found)
    if wrong is not None:
        raise InvalidRequestError(
            f"No table can be kept at {shown(found)}: {wrong}.",
            remedy="Choose a path without [ ] ^ | \\ , control characters and % before two digits.",
        )
    return found
