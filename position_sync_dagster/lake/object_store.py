"""The lake in an object store: where a table lies, the clients, and what their errors mean.

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
from enum import Enum, auto
from pathlib import Path

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

_NO_CREDENTIALS = (
    "169.254.169.254",
    "CredentialsNotLoaded",
    "no providers in chain",
    _NOT_LOADED,
)


class StoreFault(Enum):
    """The faults of a store that do not damage a table; an operator must correct most of them."""

    UNAVAILABLE = auto()
    DENIED = auto()
    EXPIRED = auto()
    NO_CREDENTIALS = auto()
    NO_BUCKET = auto()
    REGION = auto()
    CLOCK = auto()
    HTTP = auto()


_BY_CODE = {
    "RequestTimeTooSkewed": StoreFault.CLOCK,
    "NoSuchBucket": StoreFault.NO_BUCKET,
    "ExpiredToken": StoreFault.EXPIRED,
    "ExpiredTokenException": StoreFault.EXPIRED,
    "TokenRefreshRequired": StoreFault.EXPIRED,
    "RequestExpired": StoreFault.EXPIRED,
    "AuthorizationHeaderMalformed": StoreFault.REGION,
    "IllegalLocationConstraintException": StoreFault.REGION,
    "PermanentRedirect": StoreFault.REGION,
    "TemporaryRedirect": StoreFault.REGION,
}
"""The faults that the code of a store's answer names."""


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
    if found and found[1] in _BY_CODE:
        return _BY_CODE[found[1]]
    if "incorrectly configured region" in text:
        return StoreFault.REGION
    if any(mark in text for mark in _NO_CREDENTIALS):
        return StoreFault.NO_CREDENTIALS
    if "URL scheme is not allowed" in text:
        return StoreFault.HTTP
    if status and status[1] in ("401", "403"):
        return StoreFault.DENIED
    if status and status[1] in ("404", "409", "412", "416", "304"):
        return None
    return StoreFault.UNAVAILABLE


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


CONNECT_S, ANSWER_S, RETRIES, RETRY_S = 5, 30, 4, 10
"""Timeouts of a connection and of an answer in seconds, the number of retries, and their total
time in seconds. The client's default is three minutes of retries; a lease of 15 s would expire."""

_DELTA = {
    "connect_timeout": f"{CONNECT_S}s",
    "timeout": f"{ANSWER_S}s",
    "max_retries": str(RETRIES),
    "retry_timeout": f"{RETRY_S}s",
}
_POLARS: dict[str, object] = {"max_retries": RETRIES}


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
    """Return the options of Delta's client for a path; None for a local one without any.

    Args:
        given: Options of the caller, which take precedence.
    """
    if not is_remote(path):
        return dict(given) if given else None
    return _DELTA | file_credentials() | dict(given or {})


def polars_options(path: str, given: Mapping[str, str] | None) -> dict[str, object] | None:
    """Return the options of Polars' client for a path.

    Args:
        given: Options that a caller gave to Delta's client.
    """
    kept: dict[str, object] = {
        name: text for name, text in (given or {}).items() if name not in _DELTA
    }
    return _POLARS | file_credentials() | kept if is_remote(path) else kept or None


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
    if is_remote(path):
        return None
    days: list[date] = []
    with suppress(OSError):
        for folder in Path(absolute_path(path)).glob("date=*"):
            with suppress(ValueError):
                days.append(date.fromisoformat(folder.name.removeprefix("date=")))
    return min(days, default=None)
