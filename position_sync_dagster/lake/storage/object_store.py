"""The lake in an object store: where a table lies, the clients, and the probe of a store.

Address, region and credentials come from the environment, as for every AWS program; no setting of
this package ever holds a secret, and errors are shown without one. Keys of a file are read whenever
a table is opened, so that a process need not start again when they expire.
"""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from configparser import ConfigParser
from configparser import Error as UnreadableFileError
from contextlib import suppress
from datetime import date
from pathlib import Path
from threading import Barrier
from uuid import uuid4

from deltalake import CommitProperties, DeltaTable, Field, Schema, _internal
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.schema import PrimitiveType

from position_sync_dagster import errors
from position_sync_dagster.errors import InvalidRequestError, shown
from position_sync_dagster.lake.storage import commit_errors
from position_sync_dagster.settings import lake_path_error

_RETRIES = 4
# The client's default is three minutes of retries. An answer may have 30 s, since it may be a file
# of 16 MB.
_DELTA = {
    "connect_timeout": "5s",
    "timeout": "30s",
    "max_retries": str(_RETRIES),
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


def delta_options(given: Mapping[str, str] | None) -> dict[str, str]:
    """Return the options of Delta's client; those of the caller (`given`) take precedence."""
    return _DELTA | file_credentials() | dict(given or {})


def polars_options(given: Mapping[str, str] | None) -> dict[str, object]:
    """Return the options of Polars' client; `given` are those of the caller for Delta's client."""
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


# The folder, in the lake, of the tables that test the store; each is deleted at once.
PROBES = "_probes"

# The writers of a race: only creates that collide prove something, and a writer that lists the log
# late sees the table. At a store on the same machine one race in ten has no collision.
WRITERS = 16

ROUNDS = 8

_SCHEMA = Schema([Field("probe", PrimitiveType("long"))])


class _Probe(DeltaTable):
    """A table that is created and not read."""

    def __init__(self, **_: object) -> None:
        pass


def require_conditional_put(lake: str, given: Mapping[str, str] | None = None) -> None:
    """Check that the store of a lake refuses the second of two commits of the same version.

    Args:
        lake: The URI of the lake, where the probes are written and deleted.
        given: Options of the client.

    Raises:
        UnsafeStoreError: It takes several, or refuses none of many.
        StoreUnavailableError, StoreRefusedError.
    """
    for _ in range(ROUNDS):
        table = f"{lake}/{PROBES}/{uuid4()}"
        try:
            ends = _race(table, delta_options(given))
        except commit_errors.STORAGE_ERRORS as error:
            commit_errors.fail(error, table)

        won = ends.count(None)
        if won > 1:
            raise _unsafe(lake, f"{won} writers of the same version of a table won")
        if any(isinstance(end, CommitFailedError) for end in ends):
            return
    raise _unsafe(lake, f"in {ROUNDS} races of {WRITERS} writers for one version none lost")


def _unsafe(lake: str, found: str) -> errors.UnsafeStoreError:
    return errors.UnsafeStoreError(
        f"The object store of {lake} has no conditional put (If-None-Match), or the environment "
        f"switches it off: {found}.",
        remedy="Use a store that has it (AWS S3, MinIO, Cloudflare R2, Ceph from Squid on), unset "
        "AWS_S3_ALLOW_UNSAFE_RENAME and AWS_CONDITIONAL_PUT, or set POSITION_SYNC_LAKE to a "
        "folder.",
    )


def _race(table: str, options: dict[str, str] | None) -> list[Exception | None]:
    """Create one table many times at once, delete it, and return how the creates ended.

    Returns:
        None: it won. CommitFailedError: the store refused it, since the put of the other came
        first. Another error: it saw the table of the other, or cannot do a conditional put.
    """
    start = Barrier(WRITERS)

    def create(_number: int) -> Exception | None:
        start.wait()
        try:
            _Probe.create(
                table,
                schema=_SCHEMA,
                storage_options=options,
                commit_properties=CommitProperties(max_commit_retries=0),
            )
        except (DeltaError, OSError) as error:
            if commit_errors.store_fault(str(error)) is not None:
                raise
            return error
        return None

    with ThreadPoolExecutor(WRITERS) as pool:
        ends = list(pool.map(create, range(WRITERS)))
    delete_log(table, options)
    return ends


def delete_log(table: str, options: dict[str, str] | None) -> None:
    """Delete the log of a table that nobody uses any more.

    `deltalake._internal.DeltaFileSystemHandler` deletes a folder of an object store. Its public
    wrapper imports PyArrow, which this package does without.

    Args:
        table: The path or URI of the table.
        options: Those of the object store.
    """
    _internal.DeltaFileSystemHandler(table, options).delete_dir("_delta_log")
