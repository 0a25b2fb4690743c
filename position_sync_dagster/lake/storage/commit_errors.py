"""Failures of storage: what is tried again, and the errors of this package that callers get.

Errors of an object store are shown without secrets: a store repeats parts of a request.
"""

import errno
import re
from typing import NoReturn

from deltalake.exceptions import CommitFailedError, DeltaError
from polars.exceptions import ComputeError

from position_sync_dagster import errors

# The length to which an error's text is cut.
_LONGEST = 600

_BACKTRACE = re.compile(r"\n\s*(stack backtrace|0: |Debug source)")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_NOT_LOADED = "error occurred while loading credentials"
# Each error of a request to a store contains one of these texts, with either client.
_MARKS = ("Error performing", "Generic S3 error", _NOT_LOADED)

_CODE = re.compile(r"<Code>\s*(\w+)\s*</Code>")
_SAYS = re.compile(r"<Message>\s*([^<]*?)\s*</Message>")
_STATUS = re.compile(r"\b([345]\d\d) [A-Z]")
_USER = re.compile(r"(?<=://)[^/@\s]*@")
_BODY = re.compile(r"<(\?xml|Error)\b.*", re.DOTALL)


# What a store says of a single object: that it is not there, or that it is there already.
_OF_AN_OBJECT = frozenset({"304", "404", "409", "412", "416"})


def is_of_store(text: str) -> bool:
    """Return whether an error's text is of a store that refuses or does not answer.

    False for an error of something else, and for what a store says of a single object.
    """
    text = _COLOUR.sub("", text)
    if not any(mark in text for mark in _MARKS):
        return False

    code = _CODE.search(text)
    if code is not None and code[1] == "NoSuchBucket":
        return True
    status = _STATUS.search(text)
    return status is None or status[1] not in _OF_AN_OBJECT


def plain(text: str) -> str:
    """Return an error's text in one line, without what a store repeats of the request.

    S3 answers an expired session token with the token itself, and a wrong signature with what was
    signed. Of an answer only its code and its message are kept.

    >>> plain("403: <Error><Code>AccessDenied</Code><Message>No.</Message><Token>t</Token></Error>")
    '403: AccessDenied: No'
    """
    line = _BACKTRACE.split(_COLOUR.sub("", text), maxsplit=1)[0]
    body = _BODY.search(line)
    if body:
        parts = (pattern.search(body[0]) for pattern in (_CODE, _SAYS))
        line = line[: body.start()] + ": ".join(part[1] for part in parts if part)
    return " ".join(_USER.sub("", line).replace("↳", "").split())[:_LONGEST].rstrip(".")


def summary(text: str) -> str:
    """Return what a store or its client says, without times: the same text throughout an outage.

    >>> summary("Error performing GET http://s3/b in 1ms - HTTP error: error sending request")
    'HTTP error: error sending request'
    """
    return plain(text).rpartition(" - ")[2]


def without_secrets(error: Exception) -> Exception:
    """Return the error; if it quotes a store's answer, an error with its `plain` text instead."""
    text = str(error)
    if _BODY.search(text) or any(mark in text for mark in _MARKS):
        return OSError(plain(text))
    return error


# The errors that delta-rs and Polars raise for a failure of storage, among others.
STORAGE_ERRORS = (DeltaError, ComputeError, OSError)


class RetryCommit(Exception):
    """The step must run again on a fresh handle; a signal, not a failure."""


# The number of an error of the operating system in the text of delta-rs or Polars.
_ERRNO = re.compile(r"\(os error (\d+)\)|Os \{ code: (\d+)")

# What a person has to mend at the disk, or at the limits of the process.
_REFUSED = {
    *(errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR),
    *(errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
}
_CONFLICT = ("Invalid table version", "already exists")

# A file whose name delta-rs refuses when it lists a folder, and all others with it.
_STRAY = re.compile(r'Path "(.+?)"[^"]*?(?:Encountered illegal|contained non-uni)', re.DOTALL)


def fail(error: Exception, path: str) -> NoReturn:
    """Raise the `LakeError` for a failure that retries did not end.

    Its cause has no secrets: a store repeats parts of a request in its answers.
    """
    raise to_lake_error(error, path) from without_secrets(error)


def to_lake_error(error: Exception, path: str) -> errors.LakeError:
    """Return the `LakeError` for a failure; it names the table.

    Returns:
        CommitContentionError: Another writer committed first: plan again.
        BrokenTableError: A file of the snapshot or the log is missing or not whole yet: open again.
        Another error: The table is whole, and another attempt does not help now.
    """
    text = str(error)
    if is_of_store(text):
        return errors.StoreError(
            f"The object store of {path.rpartition('/')[0]} cannot be used: {summary(text)}.",
            remedy="The program tries again by itself. Check the network, the bucket, "
            "AWS_ENDPOINT_URL, AWS_REGION, AWS_ALLOW_HTTP for an http:// address, rights and age "
            "of the credentials (those of AWS_SHARED_CREDENTIALS_FILE are read again and again) "
            "and this machine's clock; see docs/object-store.md.",
        )
    if _error_number(error) in _REFUSED:
        return errors.LakeNotWritableError(
            f"The table {path} cannot be used now: {plain(text)}.",
            remedy="Check the folder, its permissions and free space, and the limits of this "
            "process (`ulimit -a`), or set POSITION_SYNC_LAKE to another place.",
        )
    if isinstance(error, CommitFailedError) or any(mark in text for mark in _CONFLICT):
        return errors.CommitContentionError(
            f"Other writers of {path} committed first each time; nothing was changed.",
            remedy="Try again; if it repeats, look for a process that writes in a tight loop.",
        )
    stray = _STRAY.search(text)
    if stray is not None:
        folder, _, name = stray[1].rpartition("/")
        return errors.BrokenTableError(
            f"The table {path} cannot be read: Delta Lake refuses the name of the file "
            f"{errors.shown(name)} in the folder {folder.rpartition('/')[2]}.",
            remedy="Remove this file (`ls -b` shows its name), which is no part of the table: "
            "Finder, for one, leaves such files. Nothing else is wrong, and no backup is needed.",
        )
    return errors.BrokenTableError(
        f"The table {path} cannot be read whole: {plain(text)}.",
        remedy="A file was deleted or damaged. `position-sync doctor --repair` sets torn last "
        "commits and unreadable checkpoints aside; everything else comes back from a backup.",
    )


def _error_number(error: Exception) -> int | None:
    """Return the number of an error of the operating system; None for another error."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    match = _ERRNO.search(str(error))
    return int(match[1] or match[2]) if match else None
