"""The probe of an object store: whether it keeps two writers apart.

A commit of a table is the creation of one object, which a store with conditional put grants once.
"""

import os
from datetime import timedelta
from typing import Any
from uuid import uuid4

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotSupportedError
from obstore.store import S3Store

from position_sync_dagster.errors import UnsafeStoreError
from position_sync_dagster.lake.storage import commit_errors
from position_sync_dagster.lake.storage.object_store import RETRIES, file_credentials

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
    credentials: Any = file_credentials()
    try:
        store = S3Store.from_url(
            lake,
            config=credentials,
            retry_config={"max_retries": RETRIES, "retry_timeout": timedelta(seconds=10)},
        )
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
