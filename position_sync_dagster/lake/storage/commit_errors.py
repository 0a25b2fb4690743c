"""Failures of storage: what is tried again, and the errors of this package that callers get.

Errors of an object store are shown without secrets: a store repeats parts of a request.
"""

import errno
import re
from typing import NoReturn

from deltalake.exceptions import CommitFailedError, DeltaError
from polars.exceptions import ComputeError, PanicException, SchemaError

from position_sync_dagster.dagster_files import document
from position_sync_dagster.errors import (
    BrokenTableError,
    CommitContentionError,
    InvalidRequestError,
    LakeError,
    LakeNotWritableError,
    StoreError,
)

# The length to which an error's text is cut.
_LONGEST = 600

_COLOUR = re.compile(r"\x1b\[[0-9;]*m|↳")
# Each error of a request to a store contains one of these texts, with either client.
_MARKS = ("Error performing", "Generic S3 error", "error occurred while loading credentials")

_CODE = re.compile(r"<Code>\s*(\w+)\s*</Code>")
_STATUS = re.compile(r"\b([345]\d\d) [A-Z]")

# What a store says of a single object: that it is not there, or that it is there already.
_OF_AN_OBJECT = frozenset({"304", "404", "409", "412", "416"})


def _is_of_store(text: str) -> bool:
    """Return whether an error's text is of a store that refuses or does not answer.

    False for an error of something else, and for what a store says of a single object: that one is
    a conflict or a missing file, as on a disk.
    """
    if not any(mark in text for mark in _MARKS):
        return False
    status = _STATUS.search(text)
    of_an_object = status is not None and status[1] in _OF_AN_OBJECT
    return "NoSuchBucket" in text or not of_an_object


def _summary(text: str) -> str:
    """Return the last part of an error's text, without times: the same throughout an outage.

    An outage is reported once, while its text stays the same (`outage_log`).

    S3 answers an expired session token with the token itself, and a wrong signature with what was
    signed. Of an answer only its code is kept.
    """
    said, _, body = text.rpartition(" - ")[2].partition("<")
    code = _CODE.search(body)
    line = said if code is None else said + code[1]
    return " ".join(line.split())[:_LONGEST].rstrip(".")


# The errors that delta-rs and Polars raise for a failure of storage, among others. A panic, at a
# damaged file, is no `Exception`.
STORAGE_ERRORS = (DeltaError, ComputeError, SchemaError, OSError, PanicException)


# The number of an error of the operating system in the text of delta-rs or Polars.
_ERRNO = re.compile(r"(?:\(os error |Os \{ code: )(\d+)")

# What a person has to mend at the disk, or at the limits of the process.
_REFUSED = {
    *(errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR),
    *(errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
}
_CONFLICT = ("Invalid table version", "already exists")

# What delta-rs says of a row without a value in a column that needs one.
_INVALID_ROW = "failed validation check"


def fail(error: Exception, path: str) -> NoReturn:
    """Raise the `LakeError` for a failure that retries did not end.

    A store repeats parts of a request in its answers: its error is not the cause.
    """
    lake_error = to_lake_error(error, path)
    raise lake_error from (None if isinstance(lake_error, StoreError) else error)


def to_lake_error(error: Exception, path: str) -> LakeError:
    """Return the `LakeError` for a failure; it names the table. One that is one stays as it is.

    Returns:
        CommitContentionError: Another writer committed first: plan again.
        BrokenTableError: A file of the snapshot or the log is missing or not whole yet: open again.
        Another error: The table is whole, and another attempt does not help now.
    """
    if isinstance(error, LakeError):
        return error

    text = _COLOUR.sub("", str(error))  # without the colours of a terminal
    if _is_of_store(text):
        return StoreError(
            f"The object store of {path.rpartition('/')[0]} cannot be used: {_summary(text)}.",
            remedy="The program tries again by itself. Check the network, the bucket, the "
            "variables AWS_… of address, region and credentials, and this machine's clock; see "
            f"{document('docs/object-store.md')}.",
        )
    if _error_number(error) in _REFUSED:
        return LakeNotWritableError(
            f"The table {path} cannot be used now: {_summary(text)}.",
            remedy="Check the folder, its permissions and free space, and the limits of this "
            "process (`ulimit -a`), or set POSITION_SYNC_LAKE to another place.",
        )
    if isinstance(error, CommitFailedError) or any(mark in text for mark in _CONFLICT):
        return CommitContentionError(
            f"Other writers of {path} committed first each time; nothing was changed.",
            remedy="Try again; if it repeats, look for a process that writes in a tight loop.",
        )
    if _INVALID_ROW in text:
        return InvalidRequestError(
            f"A row for {path} lacks a value that every row needs; nothing was written.",
            remedy="Give each row a value in all columns of the table's key.",
        )
    return BrokenTableError(
        f"{path} cannot be read whole: {_summary(text)}.",
        remedy="A file was deleted, damaged or added: `position-sync doctor --files` names each. "
        "`doctor --repair` sets torn last commits aside; everything else comes back from a backup.",
    )


def _error_number(error: Exception) -> int | None:
    """Return the number of an error of the operating system; None for another error.

    Where delta-rs or Polars raised it, the number is in its text alone.
    """
    if isinstance(error, OSError) and error.errno:
        return error.errno
    match = _ERRNO.search(str(error))
    return int(match[1]) if match else None
