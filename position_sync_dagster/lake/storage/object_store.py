"""The lake in an object store: where a table lies, its clients, and what their errors mean.

Address, region and credentials come from the environment, as for every AWS program; no setting of
this package ever holds a secret, and errors are shown without one. Keys of a file are read whenever
a table is opened, so that a process need not start again when they expire.
"""

import os
import re
from collections.abc import Mapping
from configparser import ConfigParser
from configparser import Error as UnreadableFileError
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import NamedTuple

from position_sync_dagster.errors import InvalidRequestError, shown
from position_sync_dagster.gateway_settings import lake_path_error

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_NOT_LOADED = "error occurred while loading credentials"
_MARKS = ("Error performing", "Generic S3 error", _NOT_LOADED)
"""Each error of a request to a store contains one of these texts, with either client."""

_CODE = re.compile(r"<Code>\s*(\w+)\s*</Code>")
_SAYS = re.compile(r"<Message>\s*([^<]*?)\s*</Message>")
_STATUS = re.compile(r"\b([345]\d\d) [A-Z]")
_ADDRESS = re.compile(r"Error performing \w+ (\w+://)(?:[^/@\s]*@)?([^/\s]+)")
_USER = re.compile(r"(?<=://)[^/@\s]*@")
_BODY = re.compile(r"<(\?xml|Error)\b.*", re.DOTALL)


class StoreFault(NamedTuple):
    """A fault of a store that does not damage a table; an operator must correct it.

    Attributes:
        marks: The codes of the store's answer, or the words of the client, that mean it.
    """

    marks: tuple[str, ...]
    cause: str
    remedy: str


UNAVAILABLE = StoreFault((), "", "")
"""The store cannot be reached now, or asks for patience: it passes."""

DENIED = StoreFault(
    (),
    "the object store denies access",
    "Give the credentials the right to list the bucket and to read, write and delete under the "
    "lake's path, or name other credentials.",
)
_FAULTS = (
    StoreFault(
        ("RequestTimeTooSkewed",),
        "the object store's clock and this machine's are too far apart",
        "Set this machine's clock right (NTP).",
    ),
    StoreFault(
        ("NoSuchBucket",),
        "the object store has no such bucket",
        "Create it, or correct POSITION_SYNC_LAKE and AWS_ENDPOINT_URL.",
    ),
    StoreFault(
        ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"),
        "the credentials for the object store have expired",
        "Renew them. If they are environment variables, start the program again: it reads them "
        "only at its start. The file of AWS_SHARED_CREDENTIALS_FILE is read again.",
    ),
    StoreFault(
        (
            *("AuthorizationHeaderMalformed", "IllegalLocationConstraintException"),
            *("PermanentRedirect", "TemporaryRedirect", "incorrectly configured region"),
        ),
        "the bucket is in another region",
        "Set AWS_REGION to the region of the bucket.",
    ),
    StoreFault(
        ("169.254.169.254", "CredentialsNotLoaded", "no providers in chain", _NOT_LOADED),
        "there are no credentials for the object store",
        "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run where the platform gives "
        "credentials (docs/object-store.md).",
    ),
    StoreFault(
        ("URL scheme is not allowed",),
        "AWS_ENDPOINT_URL is an http:// address, which is not allowed",
        "Use an https:// address, or set AWS_ALLOW_HTTP=true for a store on a network that you "
        "trust.",
    ),
)


def store_fault(text: str) -> StoreFault | None:
    """Return the fault that an error's text reports.

    Returns:
        None for an error of something else, and for what a store says of a single object: that it
        is not there, or that it is there already.
    """
    text = _COLOUR.sub("", text)
    if not any(mark in text for mark in _MARKS):
        return None
    found, status = _CODE.search(text), _STATUS.search(text)
    for fault in _FAULTS:
        if (found and found[1] in fault.marks) or any(
            mark in text for mark in fault.marks if not mark.isalpha()
        ):
            return fault
    if status and status[1] in ("401", "403"):
        return DENIED
    if status and status[1] in ("404", "409", "412", "416", "304"):
        return None
    return UNAVAILABLE


def plain(text: str) -> str:
    """Return an error's text in one line, without what a store repeats of the request.

    S3 answers an expired session token with the token itself, and a wrong signature with what was
    signed. Of an answer only its code and its message are kept.

    >>> plain("403: <Error><Code>AccessDenied</Code><Message>No.</Message><Token>t</Token></Error>")
    '403: AccessDenied: No.'
    """
    line = _COLOUR.sub("", text)
    body = _BODY.search(line)
    if body:
        parts = (pattern.search(body[0]) for pattern in (_CODE, _SAYS))
        line = line[: body.start()] + ": ".join(part[1] for part in parts if part)
    return " ".join(_USER.sub("", line).replace("↳", "").split())


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


_RETRIES = 4
_DELTA = {
    "connect_timeout": "5s",
    "timeout": "30s",
    "max_retries": str(_RETRIES),
    "retry_timeout": "10s",
}
"""The client's default is three minutes of retries. An answer may have 30 s, since it may be a file
of 16 MB."""

LEASE_OPTIONS = {"connect_timeout": "3s", "timeout": "4s", "retry_timeout": "5s"}
"""For the table of leases, whose files are small. A store that hangs must be reported between a
heartbeat (4 s after the last) and the end of the lease (15 s): then the owner suspends its work,
and does not lose its lease."""


def is_remote(path: str) -> bool:
    """Return whether a path names a place in an object store.

    >>> is_remote("s3://bucket/lake"), is_remote("data/lake"), is_remote("file:///data/lake")
    (True, False, False)
    """
    return "://" in path and not path.startswith("file://")


CREDENTIALS_FILE = "AWS_SHARED_CREDENTIALS_FILE"
_KEYS = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")


def file_credentials() -> dict[str, str]:
    """Return the keys of the profile in the credentials file that the environment names.

    Neither client reads such a file by itself. Keys in the environment come first, as for every AWS
    program: with them, or without a file, nothing is returned. A file that cannot be read is left
    to the clients, which say that there are no keys.
    """
    path = os.environ.get(CREDENTIALS_FILE)
    if not path or os.environ.get("AWS_ACCESS_KEY_ID"):
        return {}
    file = ConfigParser(interpolation=None)
    try:
        file.read(path, encoding="utf-8")
        profile = file[os.environ.get("AWS_PROFILE") or "default"]
    except (KeyError, ValueError, UnreadableFileError, OSError):
        return {}
    return {key: profile[key] for key in _KEYS if key in profile}


def delta_options(path: str, given: Mapping[str, str] | None) -> dict[str, str] | None:
    """Return the options of Delta's client for a path; None for a local one.

    Args:
        given: Options of the caller, which take precedence.
    """
    if not is_remote(path):
        return None
    return _DELTA | file_credentials() | dict(given or {})


def polars_options(path: str, given: Mapping[str, str] | None) -> dict[str, object] | None:
    """Return the options of Polars' client for a path.

    Args:
        given: Options that a caller gave to Delta's client.
    """
    if not is_remote(path):
        return None
    return {"max_retries": _RETRIES, **file_credentials(), **(given or {})}


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


def first_ledger_day(path: str) -> date | None:
    """Return the first UTC date with rows, from the names of the partitions alone.

    Args:
        path: The path of the ledger, which need not exist; None is returned for a remote one.
    """
    days: list[date] = []
    with suppress(OSError):
        for folder in Path(absolute_path(path)).glob("date=*"):
            with suppress(ValueError):
                days.append(date.fromisoformat(folder.name.removeprefix("date=")))
    return min(days, default=None)
