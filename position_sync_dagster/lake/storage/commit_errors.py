"""Failures of storage: their kinds, and the errors of this package that callers get."""

import re
from enum import Enum, auto

from deltalake.exceptions import CommitFailedError, DeltaError
from polars.exceptions import PolarsError

from position_sync_dagster.errors import (
    BrokenTableError,
    CommitContentionError,
    LakeError,
    LakeNotWritableError,
)

STORAGE_ERRORS = (DeltaError, PolarsError, OSError)
"""The errors that delta-rs and Polars raise for a failure of storage."""


class RetryCommit(Exception):
    """The step must run again on a fresh handle; a signal, not a failure."""


class ErrorKind(Enum):
    """The kinds of failures that are treated differently."""

    CONFLICT = auto()  # another writer committed first: plan again
    STALE = auto()  # a file of the snapshot is missing, or not whole yet: open again
    UNWRITABLE = auto()
    EXHAUSTED = auto()  # no memory or open files left: the table is whole
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
    "AccessDenied",
    "Access Denied",
)
_EXHAUSTED = ("Too many open files", "Cannot allocate memory", "out of memory")
_CONFLICT = ("Invalid table version", "already exists")
_STALE = (
    "No such file or directory",
    "not found",
    "NotFound",
    # A checkpoint that another process is writing; a damaged one stays so on every try.
    "Requested range was invalid",
    "Corrupt footer",
    "EOF",
)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def classify(error: Exception) -> ErrorKind:
    """Return the kind of a failure of storage."""
    text = str(error)
    if any(mark in text for mark in _UNWRITABLE):
        return ErrorKind.UNWRITABLE
    if any(mark in text for mark in _EXHAUSTED):
        return ErrorKind.EXHAUSTED
    if isinstance(error, CommitFailedError) or any(mark in text for mark in _CONFLICT):
        return ErrorKind.CONFLICT
    if any(mark in text for mark in _STALE):
        return ErrorKind.STALE
    return ErrorKind.OTHER


def to_lake_error(error: Exception, path: str) -> LakeError:
    """Return the error for a failure that stays; it names the table and a remedy."""
    match classify(error):
        case ErrorKind.UNWRITABLE:
            return LakeNotWritableError(
                f"The table {path} cannot be written: {_line(error)}.",
                remedy="Check the folder, its permissions and free space, or set "
                "POSITION_SYNC_LAKE to another place.",
            )
        case ErrorKind.EXHAUSTED:
            return LakeError(
                f"The table {path} cannot be used now: {_line(error)}.",
                remedy="Raise the limit of this process (`ulimit -n` for files), or free memory; "
                "the table itself is whole.",
            )
        case ErrorKind.CONFLICT:
            return CommitContentionError(
                f"Other writers of {path} committed first each time; nothing was changed.",
                remedy="Try again; if it repeats, look for a process that writes in a tight loop.",
            )
        case ErrorKind.STALE | ErrorKind.OTHER:
            return BrokenTableError(
                f"The table {path} cannot be read whole: {_line(error)}.",
                remedy="Files of it were deleted or damaged: `position-sync doctor` says which; "
                "with --repair it goes back to the last whole version.",
            )


def _line(error: Exception) -> str:
    text = _BACKTRACE.split(_COLOUR.sub("", str(error)), maxsplit=1)[0]
    return " ".join(text.split())[:300].rstrip(".")
