"""The private symbol of delta-rs that is used here, with its reason."""

import logging

from deltalake import _internal

logger = logging.getLogger(__name__)


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
        logger.warning(
            "This release of deltalake cannot delete a folder: delete %s, whose tables were made "
            "to test the store.",
            table.rpartition("/")[0],
        )
        return
    handler(table, options).delete_dir("_delta_log")
