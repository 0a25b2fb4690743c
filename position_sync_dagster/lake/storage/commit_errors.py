"""Failures of storage: their kinds, and the errors of this package that callers get."""

import re
from enum import Enum, auto
from typing import NoReturn

from deltalake.exceptions import CommitFailedError, DeltaError
from polars.exceptions import PolarsError

from position_sync_dagster import errors
from position_sync_dagster.lake.object_store import (
    StoreFault,
    plain,
    store_fault,
    summary,
    without_secrets,
)

STORAGE_ERRORS = (DeltaError, PolarsError, OSError)
"""The errors that delta-rs and Polars raise for a failure of storage."""


class RetryCommit(Exception):
    """The step must run again on a fresh handle; a signal, not a failure."""


class ErrorKind(Enum):
    """The kinds of failures that are treated differently."""

    CONFLICT = auto()  # another writer committed first: plan again
    STALE = auto()  # a file of the snapshot or the log is missing, or not whole yet: open again
    UNWRITABLE = auto()
    EXHAUSTED = auto()  # no memory or open files left: the table is whole
    STORE = auto()  # the object store is out of reach, or refuses: the table is whole
    OTHER = auto()


_BACKTRACE = re.compile(r"\n\s*(stack backtrace|0: )")

_UNWRITABLE = (
    "No space left on device",
    "Read-only file system",
    "Permission denied",
    "Operation not permitted",
    "Not a directory",
    "NotADirectory",
    "Disk quota exceeded",
    "File too large",
    "Input/output error",
    "Could not create local directory",
)
_EXHAUSTED = ("Too many open files", "Cannot allocate memory", "out of memory")
_CONFLICT = ("Invalid table version", "already exists")
_STALE = (
    "No such file or directory",
    "not found",
    "NotFound",
    # Another process is writing a checkpoint; a damaged checkpoint fails on every try.
    "Requested range was invalid",
    "Corrupt footer",
    "EOF",
    # Another process has just deleted log entries that a newer checkpoint replaces.
    "No files in log segment",
    "No table metadata or protocol found in delta log",
    "found gap",
    "not the same as the specified end version",
    "didn't find any checkpoints",
)


def classify(error: Exception) -> ErrorKind:
    """Return the kind of a failure of storage."""
    text = str(error)
    if store_fault(text) is not None:
        return ErrorKind.STORE
    if any(mark in text for mark in _UNWRITABLE):
        return ErrorKind.UNWRITABLE
    if any(mark in text for mark in _EXHAUSTED):
        return ErrorKind.EXHAUSTED
    if isinstance(error, CommitFailedError) or any(mark in text for mark in _CONFLICT):
        return ErrorKind.CONFLICT
    if any(mark in text for mark in _STALE):
        return ErrorKind.STALE
    return ErrorKind.OTHER


def fail(error: Exception, path: str) -> NoReturn:
    """Raise the `LakeError` for a failure that retries did not end.

    Its cause has no secrets: a store repeats parts of a request in its answers.
    """
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
        case ErrorKind.STALE | ErrorKind.OTHER:
            return errors.BrokenTableError(
                f"The table {path} cannot be read whole: {line(error)}.",
                remedy="A file was deleted or damaged. `position-sync doctor --repair` sets a torn "
                "last commit aside; everything else comes back from a backup.",
            )


_REMEDIES = {
    StoreFault.DENIED: "Give the credentials the right to list the bucket and to read, write and "
    "delete under the lake's path, or name other credentials.",
    StoreFault.EXPIRED: "Renew them. If they are environment variables, start the program again: "
    "it reads them only at its start. The file of AWS_SHARED_CREDENTIALS_FILE is read again.",
    StoreFault.NO_CREDENTIALS: "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run where the "
    "platform gives credentials (docs/object-store.md).",
    StoreFault.NO_BUCKET: "Create it, or correct POSITION_SYNC_LAKE and AWS_ENDPOINT_URL.",
    StoreFault.REGION: "Set AWS_REGION to the region of the bucket.",
    StoreFault.CLOCK: "Set this machine's clock right (NTP).",
    StoreFault.HTTP: "Use an https:// address, or set AWS_ALLOW_HTTP=true for a store on a network "
    "that you trust.",
}
_CAUSES = {
    StoreFault.DENIED: "the object store denies access",
    StoreFault.EXPIRED: "the credentials for the object store have expired",
    StoreFault.NO_CREDENTIALS: "there are no credentials for the object store",
    StoreFault.NO_BUCKET: "the object store has no such bucket",
    StoreFault.REGION: "the bucket is in another region",
    StoreFault.CLOCK: "the object store's clock and this machine's are too far apart",
    StoreFault.HTTP: "AWS_ENDPOINT_URL is an http:// address, which is not allowed",
}


def _store_error(error: Exception, path: str) -> errors.LakeError:
    text, lake = str(error), path.rpartition("/")[0]
    fault = store_fault(text) or StoreFault.UNAVAILABLE
    if fault is StoreFault.UNAVAILABLE:
        return errors.StoreUnavailableError(
            f"The object store of {lake} cannot be reached now: {summary(text)}.",
            remedy="The program tries again by itself; check AWS_ENDPOINT_URL and the network.",
        )
    return errors.StoreRefusedError(
        f"The lake {lake} cannot be used: {_CAUSES[fault]} ({summary(text)}).",
        remedy=_REMEDIES[fault],
    )


def line(error: Exception) -> str:
    """Return the text of a failure of storage in one line, without secrets."""
    text = plain(_BACKTRACE.split(str(error), maxsplit=1)[0])
    return text[:600].rstrip(".")
