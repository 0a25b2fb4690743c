"""Find out whether a store keeps two writers apart: racing creates of a table, of which one wins.

Two commits of the same version of a table are two puts of the same object. A store with conditional
put (`If-None-Match`) refuses the second. One without it takes both, and the first is lost: claims
would be granted twice. Nothing but a race shows it, since a writer that begins later sees the
other's commit and does not try.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier, Lock
from uuid import uuid4

from deltalake import CommitProperties, DeltaTable, Field, Schema
from deltalake._internal import DeltaFileSystemHandler
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.schema import PrimitiveType

from position_sync_dagster.errors import UnsafeStoreError
from position_sync_dagster.lake.object_store.answers import StoreFault, store_fault
from position_sync_dagster.lake.object_store.client import delta_options

PROBES = "_probes"
"""The folder of the tables that are made for this, in the lake; each is deleted at once."""

RACERS, ROUNDS = 3, 2
"""Creates at once, and how often. Racers of a round begin together and ask the store twice before
they write, so that they meet in nearly every round."""

_SCHEMA = Schema([Field("probe", PrimitiveType("long"))])

_proven: set[str] = set()
_mutex = Lock()


def require_conditional_put(lake: str, options: Mapping[str, str] | None = None) -> None:
    """Check that the store of a lake refuses the second of two commits; once for a bucket.

    Args:
        lake: The URI of the lake, where the probes are written and deleted.
        options: As for the tables of the lake.

    Raises:
        UnsafeStoreError: It takes both.
        OSError, DeltaError: The store cannot be used.
    """
    bucket = lake.split("://", 1)[1].split("/", 1)[0]
    with _mutex:
        if bucket in _proven:
            return
        for _ in range(ROUNDS):
            won = _race(f"{lake}/{PROBES}/{uuid4()}", delta_options(lake, options))
            if won != 1:
                raise UnsafeStoreError(
                    f"The object store of {lake} has no conditional put (If-None-Match), or the "
                    f"environment switches it off: of {RACERS} writers of the same version of a "
                    f"table, {won} believe that theirs counts, and not 1.",
                    remedy="Use a store that has it (AWS S3, MinIO, Cloudflare R2, Ceph from "
                    "Squid on), unset AWS_S3_ALLOW_UNSAFE_RENAME and AWS_CONDITIONAL_PUT, or set "
                    "POSITION_SYNC_LAKE to a folder.",
                )
        _proven.add(bucket)


def _race(table: str, options: dict[str, str] | None) -> int:
    """Create one table several times at once; return how many believe that they did."""
    start = Barrier(RACERS)

    def create(_: int) -> bool:
        start.wait()
        try:
            DeltaTable.create(
                table,
                schema=_SCHEMA,
                storage_options=options,
                commit_properties=CommitProperties(max_commit_retries=0),
            )
        except (DeltaError, OSError) as error:
            fault = store_fault(str(error))
            if fault in (None, StoreFault.UNAVAILABLE):
                return False  # it lost, or it may have
            raise
        return True

    with ThreadPoolExecutor(RACERS) as pool:
        try:
            won = sum(pool.map(create, range(RACERS)))
        finally:
            DeltaFileSystemHandler(table, options).delete_dir("_delta_log")
    if not won:
        # Either no put is possible at all, or the store is out of reach and says so once more.
        with suppress(TableNotFoundError):
            DeltaTable(table, storage_options=options)
    return won
