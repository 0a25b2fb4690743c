"""The lake in an object store: where a table lies, options of the clients, and a probe.

The probe finds out whether the store keeps two writers apart: a commit of a table is the creation
of one object, which a store with conditional put grants once.

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
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotSupportedError
from obstore.store import S3Store

from position_sync_dagster.errors import InvalidRequestError, UnsafeStoreError, shown
from position_sync_dagster.lake.storage import commit_errors

RETRIES = 4
# The client's default is three minutes of retries. An answer may have 30 s, since it may be a file
# of 16 MB.
_DELTA = {
    "connect_timeout": "5s",
    "timeout": "30s",
    "max_retries": str(RETRIES),
    "retry_timeout": "10s",
}

# For the table of leases, whose files are small. A store that hangs must be reported between a
# heartbeat (4 s after the last) and the end of the lease (15 s): then the owner suspends its work,
# and does not lose its lease.
LEASE_OPTIONS = {"connect_timeout": "3s", "timeout": "4s", "retry_timeout": "5s"}


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


def delta_options(options: Mapping[str, str] | None) -> dict[str, str]:
    """Return the options of Delta's client; those of the caller (`given`) take precedence."""
    return _DELTA | file_credentials() | dict(options or {})


def polars_options(options: Mapping[str, str] | None) -> dict[str, object]:
    """Return the options of Polars' client; `given` are those of the caller for Delta's client."""
    return {"max_retries": RETRIES, **file_credentials(), **(options or {})}


# delta-rs makes a URL of the path: some characters cause a panic there, and others lead to another
# folder. Found by trying each (1.6.6).
_NOT_IN_PATHS = re.compile(r"[\[\]^|\\\x00-\x1f\x7f\ud800-\udfff]|%[0-9A-Fa-f]{2}")


def absolute_path(path: str | Path) -> str:
    """Return the absolute path of a local table, or the URI of a remote one.

    >>> absolute_path("/data/my lake #2")
    '/data/my lake #2'

    Raises:
        InvalidRequestError: Delta Lake cannot keep a table there.
    """
    text = str(path)
    place = text.rstrip("/") if is_remote(text) else os.path.abspath(text.removeprefix("file://"))
    refused = _NOT_IN_PATHS.search(place)
    if refused is not None:
        raise InvalidRequestError(
            f"No table can be kept at {shown(place)}: it contains {refused[0]!r}.",
            remedy="Choose a path without [ ] ^ | \\ , control characters and % before two digits.",
        )
    return place


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


def _client(uri: str) -> S3Store:
    credentials: Any = file_credentials()
    return S3Store.from_url(
        uri,
        config=credentials,
        retry_config={"max_retries": RETRIES, "retry_timeout": timedelta(seconds=10)},
    )


def sizes_under(uri: str) -> dict[str, int]:
    """Return the size of each object below a URI, by its path from there; one listing.

    Raises:
        LakeError: The store refuses, or does not answer.
    """
    try:
        pages = obstore.list(_client(uri), chunk_size=1000)
        return {found["path"]: found["size"] for page in pages for found in page}
    except BaseError as error:
        commit_errors.fail(error, uri)


# The folder, in the lake, of the objects that test the store; each is deleted at once.
PROBES = "_probes"

# The environment variable by which delta-rs writes without conditional put, and what switches it
# on.
UNSAFE = "AWS_S3_ALLOW_UNSAFE_RENAME"
_ON = ("1", "true", "on", "yes", "y")


def require_conditional_put(lake: str) -> None:
    """Check that the store of a lake refuses to create an object a second time.

    Args:
        lake: The URI of the lake, where the probe is written and deleted.

    Raises:
        UnsafeStoreError: The store creates it twice, or the environment forbids conditional put.
        StoreError: The store refuses, or does not answer.
    """
    if os.environ.get(UNSAFE, "").lower() in _ON:
        raise _unsafe(lake, f"{UNSAFE} is set")

    name = f"{PROBES}/{uuid4()}"
    try:
        store = _client(lake)
        try:
            obstore.put(store, name, b"", mode="create")
            obstore.put(store, name, b"", mode="create")
        except AlreadyExistsError:
            return
        finally:
            obstore.delete(store, name)
    except (NotImplementedError, NotSupportedError) as error:
        raise _unsafe(lake, "its client may not use it") from error
    except BaseError as error:
        commit_errors.fail(error, f"{lake}/{name}")

    raise _unsafe(lake, "it created one object twice")


def _unsafe(lake: str, why: str) -> UnsafeStoreError:
    return UnsafeStoreError(
        f"The object store of {lake} has no conditional put (If-None-Match), or the environment "
        f"switches it off: {why}.",
        remedy="Use a store that has it (AWS S3, MinIO, Cloudflare R2, Ceph from Squid on), unset "
        f"{UNSAFE} and AWS_CONDITIONAL_PUT, or set POSITION_SYNC_LAKE to a folder.",
    )
