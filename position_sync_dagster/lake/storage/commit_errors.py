"""Failures of storage: what is tried again, and the errors of this package that callers get."""

import errno
import re
from enum import Enum, auto
from typing import NoReturn

from deltalake.exceptions import CommitFailedError, DeltaError
from polars.exceptions import ComputeError

from position_sync_dagster import errors
from position_sync_dagster.lake.storage.object_store import (
    UNAVAILABLE,
    plain,
    store_fault,
    summary,
    without_secrets,
)

STORAGE_ERRORS = (DeltaError, ComputeError, OSError)
"""The errors that delta-rs and Polars raise for a failure of storage, among others."""


class RetryCommit(Exception):
    """The step must run again on a fresh handle; a signal, not a failure."""


class ErrorKind(Enum):
    """The kinds of failures that are treated differently."""

    CONFLICT = auto()  # another writer committed first: plan again
    STALE = auto()  # a file of the snapshot or the log is missing, or not whole yet: open again
    UNWRITABLE = auto()
    EXHAUSTED = auto()  # no memory or open files left: the table is whole
    STORE = auto()  # the object store is out of reach, or refuses: the table is whole
    QUERY = auto()  # an expression of ours: the table is whole, and a retry is of no use


_BACKTRACE = re.compile(r"\n\s*(stack backtrace|0: )")
_ERRNO = re.compile(r"\(os error (\d+)\)|Os \{ code: (\d+)")
"""The number of an error of the operating system in the text of delta-rs or Polars."""

_UNWRITABLE = {
    *(errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR),
    *(errno.EDQUOT, errno.EFBIG, errno.EIO),
}
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
_CONFLICT = ("Invalid table version", "already exists")
_OF_FILES = ("parquet:", "Parquet error", "Object Store error", "Object at location", " S3 error")
"""What Polars says of a file that is damaged or out of reach, and not of an expression."""


def classify(error: Exception) -> ErrorKind:
    """Return the kind of a failure of storage."""
    text = str(error)
    if store_fault(text) is not None:
        return ErrorKind.STORE
    found = _ERRNO.search(text)
    number = error.errno if isinstance(error, OSError) else None
    number = number or (int(found[1] or found[2]) if found else None)
    if number in _UNWRITABLE:
        return ErrorKind.UNWRITABLE
    if number in _EXHAUSTED:
        return ErrorKind.EXHAUSTED
    if isinstance(error, CommitFailedError) or any(mark in text for mark in _CONFLICT):
        return ErrorKind.CONFLICT
    if isinstance(error, ComputeError) and not any(mark in text for mark in _OF_FILES):
        return ErrorKind.QUERY
    return ErrorKind.STALE


def fail(error: Exception, path: str) -> NoReturn:
    """Raise the `LakeError` for a failure that retries did not end.

    Its cause has no secrets: a store repeats parts of a request in its answers.
    """
    if classify(error) is ErrorKind.QUERY:
        raise error
    raise to_lake_error(error, path) from without_secrets(error)


def to_lake_error(error: Exception, path: str) -> errors.LakeError:
    """Return the `LakeError` for a failure; it names the table."""
    match classify(error):
        case ErrorKind.UNWRITABLE:
            return errors.LakeNotWritableError(
                f"The table {path} cannot be written: {line(error)}.",
                remedy="Check the folder, its permissions and free space, or set "
                "POSITION_SYNC_LAKE to another place.",
            )
        case ErrorKind.STORE:
            return _store_error(error, path)
        case ErrorKind.EXHAUSTED:
            return errors.LakeError(
                f"The table {path} cannot be used now: {line(error)}.",
                remedy="Raise the limit of this process (`ulimit -n` for files), or free memory; "
                "the table itself is whole.",
            )
        case ErrorKind.CONFLICT:
            return errors.CommitContentionError(
                f"Other writers of {path} committed first each time; nothing was changed.",
                remedy="Try again; if it repeats, look for a process that writes in a tight loop.",
            )
        case _:
            return errors.BrokenTableError(
                f"The table {path} cannot be read whole: {line(error)}.",
                remedy="A file was deleted or damaged. `position-sync doctor --repair` sets a torn "
                "last commit aside; everything else comes back from a backup.",
            )


def _store_error(error: Exception, path: str) -> errors.LakeError:
    text, lake = str(error), path.rpartition("/")[0]
    fault = store_fault(text) or UNAVAILABLE
    if fault is UNAVAILABLE:
        return errors.StoreUnavailableError(
            f"The object store of {lake} cannot be reached now: {summary(text)}.",
            remedy="The program tries again by itself; check AWS_ENDPOINT_URL and the network.",
        )
    return errors.StoreRefusedError(
        f"The lake {lake} cannot be used: {fault.cause} ({summary(text)}).", remedy=fault.remedy
    )


def line(error: Exception) -> str:
    """Return the text of a failure of storage in one line, without secrets."""
    text = plain(_BACKTRACE.split(str(error), maxsplit=1)[0])
    return text[:600].rstrip(".")
