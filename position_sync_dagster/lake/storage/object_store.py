"""The lake in an object store: where a table lies, and the options of the clients.

A commit of a table is the creation of one object, which a store with conditional put grants once:
that alone keeps two writers apart.

Address, region and credentials come from the environment, as for every AWS program; no setting of
this package ever holds a secret, and errors are shown without one. Keys of a file are read whenever
a table is opened, so that a process need not start again when they expire.
"""

import os
import re
from collections.abc import Mapping
from configparser import ConfigParser
from configparser import Error as UnreadableFileError
from pathlib import Path

import polars as pl
from deltalake._internal import DeltaFileSystemHandler

from position_sync_dagster.errors import InvalidRequestError, shown

# The files of a table, by their paths in it. Private, since deltalake's public file system needs
# pyarrow; without it `doctor --files` would compare no sizes in a store.
FileSystem = DeltaFileSystemHandler

STORE_RETRIES = 4
# The client's default is three minutes of retries. An answer may have 30 s, since it may be a file
# of 16 MB.
_DELTA = {
    "connect_timeout": "5s",
    "timeout": "30s",
    "max_retries": str(STORE_RETRIES),
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


# Options of the clients of a store, by the names that Delta's client has; None: none are given.
StorageOptions = Mapping[str, str] | None


def delta_options(options: StorageOptions) -> dict[str, str]:
    """Return the options of Delta's client; `options`, of the caller, take precedence."""
    return _DELTA | file_credentials() | dict(options or {})


def options_at(path: str, options: StorageOptions) -> dict[str, str] | None:
    """Return the options of Delta's client for a path, with the keys as they are now.

    None for a path on a disk.
    """
    return delta_options(options) if is_remote(path) else None


def polars_options(options: StorageOptions) -> dict[str, object]:
    """Return the options of Polars' client; the caller's are for Delta's client."""
    return {"max_retries": STORE_RETRIES, **file_credentials(), **(options or {})}


def data_file_below(path: str, options: StorageOptions) -> list[str]:
    """Return a Parquet file below the URI of a table, if there is any.

    If the table has no log, there are data without one: no table may be created over them.
    """
    files = pl.scan_parquet(
        f"{path}/**/*.parquet",
        schema={},  # with a schema it is no error that there is none
        extra_columns="ignore",
        include_file_paths="file",
        storage_options=polars_options(options),
        credential_provider=None,
    )
    return list(files.head(1).collect()["file"])


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
    place = str(path)
    if is_remote(place):
        place = place.rstrip("/")
    else:
        place = os.path.abspath(place.removeprefix("file://"))
    refused = _NOT_IN_PATHS.search(place)
    if refused is not None:
        raise InvalidRequestError(
            f"No table can be kept at {shown(place)}: it contains {refused[0]!r}.",
            remedy="Choose a path without [ ] ^ | \\ , control characters and % before two digits.",
        )
    return place
