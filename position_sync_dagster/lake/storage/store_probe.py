"""The probe of an object store: does it refuse the second of two commits?

Two commits of the same version of a table are two puts of the same object. A store with conditional
put (`If-None-Match`) refuses the second. A store without it takes both, and the first is lost:
requests would be claimed twice. `position-sync doctor` asks.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from uuid import uuid4

from deltalake import CommitProperties, DeltaTable, Field, Schema
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.schema import PrimitiveType

from position_sync_dagster import errors
from position_sync_dagster.lake.storage import commit_errors
from position_sync_dagster.lake.storage.deltalake_internals import delete_log
from position_sync_dagster.lake.storage.object_store import delta_options, store_fault

PROBES = "_probes"
"""The folder, in the lake, of the tables that test the store; each is deleted at once."""

ROUNDS = 60
"""Maximum number of races. Only creates that collide prove something: at a store on the same
machine those of one race in four, so that none of 60 does is less likely than one in ten million.
"""

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
        UnsafeStoreError: It takes both, or refuses none of many.
        StoreUnavailableError, StoreRefusedError.
    """
    for _ in range(ROUNDS):
        table = f"{lake}/{PROBES}/{uuid4()}"
        try:
            ends = _race(table, delta_options(lake, given))
        except commit_errors.STORAGE_ERRORS as error:
            commit_errors.fail(error, table)
        won = ends.count(None)
        if won > 1:
            raise _unsafe(lake, f"{won} writers of the same version of a table won")
        if any(isinstance(end, CommitFailedError) for end in ends):
            return
    raise _unsafe(lake, f"in {ROUNDS} races for the same version of a table no writer lost")


def _unsafe(lake: str, found: str) -> errors.UnsafeStoreError:
    return errors.UnsafeStoreError(
        f"The object store of {lake} has no conditional put (If-None-Match), or the environment "
        f"switches it off: {found}.",
        remedy="Use a store that has it (AWS S3, MinIO, Cloudflare R2, Ceph from Squid on), unset "
        "AWS_S3_ALLOW_UNSAFE_RENAME and AWS_CONDITIONAL_PUT, or set POSITION_SYNC_LAKE to a "
        "folder.",
    )


def _race(table: str, options: dict[str, str] | None) -> list[Exception | None]:
    """Create one table twice at once, delete it, and return how the creates ended.

    Returns:
        None: it won. CommitFailedError: the store refused it, since the put of the other came
        first. Another error: it saw the table of the other, or cannot do a conditional put.
    """
    start = Barrier(2)

    def create() -> Exception | None:
        start.wait()
        try:
            _Probe.create(
                table,
                schema=_SCHEMA,
                storage_options=options,
                commit_properties=CommitProperties(max_commit_retries=0),
            )
        except (DeltaError, OSError) as error:
            if store_fault(str(error)) is not None:
                raise
            return error
        return None

    with ThreadPoolExecutor(2) as pool:
        racers = [pool.submit(create) for _ in range(2)]
        ends = [racer.result() for racer in racers]
    delete_log(table, options)
    return ends
