"""Every private symbol of delta-rs that is used here, each with its reason.

Where another release of delta-rs lacks one, the lake works without it, and a warning says once what
that costs.
"""

import logging
from functools import cache

from deltalake import DeltaTable, _internal

logger = logging.getLogger(__name__)


@cache
def _warn_once(text: str) -> None:
    logger.warning("%s", text)


def is_behind(handle: DeltaTable) -> bool:
    """Return whether the table of a handle may have a newer version than the handle.

    `DeltaTable._table.get_latest_version` takes one request to an object store. An update of the
    handle, the public way to find out, takes two, also where there is nothing new.
    """
    newest = getattr(handle._table, "get_latest_version", None)
    if newest is None:
        _warn_once(
            "This release of deltalake has no get_latest_version: each use of a table in an object "
            "store takes one more request."
        )
        return True
    return bool(newest() > handle.version())


def delete_log(table: str, options: dict[str, str] | None) -> None:
    """Delete the log of a table that nobody uses any more.

    `deltalake._internal.DeltaFileSystemHandler` deletes a folder of an object store. Its public
    wrapper imports PyArrow, which this package does without.

    Args:
        table: The path or URI of the table.
        options: Those of the object store.
    """
    handler = getattr(_internal, "DeltaFileSystemHandler", None)
    if handler is None:
        folder = table.rpartition("/")[0]
        _warn_once(
            f"This release of deltalake cannot delete a folder: delete {folder}, whose tables were "
            "made to test the store."
        )
        return
    handler(table, options).delete_dir("_delta_log")
