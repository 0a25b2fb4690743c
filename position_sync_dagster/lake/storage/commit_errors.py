"""Failures of storage: what is tried again, and the errors of this package that callers get.

Errors of an object store are shown without secrets: a store repeats parts of a request.
"""

import errno
import re
from enum import Enum, auto
from typing import NoReturn

from deltalake.exceptions import CommitFailedError, DeltaError
from polars.exceptions import ComputeError

from position_sync_dagster import errors

# The length to which an error's text is cut.
_LONGEST = 600

_BACKTRACE = re.compile(r"\n\s*(stack backtrace|0: )")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_NOT_LOADED = "error occurred while loading credentials"
# Each error of a request to a store contains one of these texts, with either client.
_MARKS = ("Error performing", "Generic S3 error", _NOT_LOADED)

_CODE = re.compile(r"<Code>\s*(\w+)\s*</Code>")
_SAYS = re.compile(r"<Message>\s*([^<]*?)\s*</Message>")
_STATUS = re.compile(r"\b([345]\d\d) [A-Z]")
_ADDRESS = re.compile(r"Error performing \w+ (\w+://)(?:[^/@\s]*@)?([^/\s]+)")
_USER = re.compile(r"(?<=://)[^/@\s]*@")
_BODY = re.compile(r"<(\?xml|Error)\b.*", re.DOTALL)


# Codes of a store's answer, and words of the clients, that say that a person has to mend something.
_REFUSALS = frozenset(
    {
        "RequestTimeTooSkewed",
        "NoSuchBucket",
        "ExpiredToken",
        "ExpiredTokenException",
        "TokenRefreshRequired",
        "RequestExpired",
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
        "PermanentRedirect",
        "TemporaryRedirect",
        "CredentialsNotLoaded",
    }
)
_CLIENT_REFUSALS = (
    "incorrectly configured region",
    "169.254.169.254",
    "no providers in chain",
    _NOT_LOADED,
    "URL scheme is not allowed",
)


class StoreFault(Enum):
    """What a store's answer means; the tables are whole."""

    # The store cannot be reached now, or asks for patience: it passes.
    UNAVAILABLE = auto()

    # A person has to mend something: bucket, region, rights, credentials or clock.
    REFUSED = auto()


def store_fault(text: str) -> StoreFault | None:
    """Return the fault that an error's text reports.

    Returns:
        None for an error of something else, and for what a store says of a single object: that it
        is not there, or that it is there already.
    """
    text = _COLOUR.sub("", text)
    if not any(mark in text for mark in _MARKS):
        return None

    code, status = _CODE.search(text), _STATUS.search(text)
    if code is not None and code[1] in _REFUSALS:
        return StoreFault.REFUSED
    if any(words in text for words in _CLIENT_REFUSALS):
        return StoreFault.REFUSED

    if status is not None and status[1] in ("401", "403"):
        return StoreFault.REFUSED
    if status is not None and status[1] in ("404", "409", "412", "416", "304"):
        return None
    return StoreFault.UNAVAILABLE


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
    """Return the code and message of a store's answer; the same text throughout an outage."""
    text = _COLOUR.sub("", text)
    code, says, status = (pattern.search(text) for pattern in (_CODE, _SAYS, _STATUS))
    if code:
        return f"{code[1]}: {says[1].rstrip('.')}" if says else code[1]
    address = _ADDRESS.search(text)
    where = f" from {address[1]}{address[2]}" if address else ""
    return f"status {status[1]}{where}" if status else f"no answer{where}"


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
    if (fault := store_fault(text)) is not None:
        return _store_error(fault, text, path.rpartition("/")[0])
    found = _ERRNO.search(text)
    number = error.errno if isinstance(error, OSError) else None
    number = number or (int(found[1] or found[2]) if found else None)
    if number in _REFUSED:
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
    return errors.BrokenTableError(
        f"The table {path} cannot be read whole: {plain(text)}.",
        remedy="A file was deleted or damaged. `position-sync doctor --repair` sets a torn "
        "last commit aside; everything else comes back from a backup.",
    )


def _store_error(fault: StoreFault, text: str, lake: str) -> errors.LakeError:
    if fault is StoreFault.UNAVAILABLE:
        return errors.StoreUnavailableError(
            f"The object store of {lake} cannot be reached now: {summary(text)}.",
            remedy="The program tries again by itself; check AWS_ENDPOINT_URL and the network.",
        )
    says = summary(text) if _CODE.search(text) else plain(text)
    return errors.StoreRefusedError(
        f"The object store of {lake} refuses: {says}.",
        remedy="Check the bucket, AWS_REGION, AWS_ALLOW_HTTP for an http:// address, rights and "
        "age of the credentials (those of the environment are read only at the start, the file of "
        "AWS_SHARED_CREDENTIALS_FILE again and again) and this machine's clock; see "
        "docs/object-store.md.",
    )
