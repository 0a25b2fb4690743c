"""Check that a store has conditional put: of several concurrent creates of a table one must win.

Two commits of the same version of a table are two puts of the same object. A store with conditional
put (`If-None-Match`) refuses the second. A store without it takes both, and the first is lost:
requests would be claimed twice. Only a race shows this, since a writer that begins later sees the
commit of the other and does not try. A race in which only one writer tried proves nothing.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import Enum, auto
from threading import Barrier, Lock
from uuid import uuid4

from deltalake import CommitProperties, DeltaTable, Field, Schema
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.schema import PrimitiveType

from position_sync_dagster.errors import UnsafeStoreError
from position_sync_dagster.lake.object_store import delta_options, store_fault
from position_sync_dagster.lake.storage.deltalake_internals import delete_log

PROBES = "_probes"
"""The folder of the tables that are made for this, in the lake; each is deleted at once."""

RACERS, ROUNDS = 2, 10
"""Concurrent creates in a round, and the maximum number of rounds. The creates collide in about
nine of ten rounds, since each asks the store before it writes; a round takes about 20 requests."""

_SCHEMA = Schema([Field("probe", PrimitiveType("long"))])

_proven: set[str] = set()
_mutex = Lock()


class _End(Enum):
    """How a create ended."""

    WON = auto()
    REFUSED = auto()  # by the store: the other writer's put came first
    NOT_TRIED = auto()  # the client saw the other writer's table, or cannot do a conditional put


def require_conditional_put(lake: str, options: Mapping[str, str] | None = None) -> None:
    """Check that the store of a lake refuses the second of two commits; once for a bucket.

    Args:
        lake: The URI of the lake, where the probes are written and deleted.
        options: As for the tables of the lake.

    Raises:
        UnsafeStoreError: It takes both, or none.
        OSError, DeltaError: The store cannot be used.
    """
    bucket = lake.split("://", 1)[1].split("/", 1)[0]
    with _mutex:
        if bucket in _proven:
            return
        for _ in range(ROUNDS):
            ends = _race(f"{lake}/{PROBES}/{uuid4()}", delta_options(lake, options))
            won = ends.count(_End.WON)
            if won > 1:
                raise _unsafe(lake, f"{won} of {RACERS} writers of the same version of a table won")
            if _End.REFUSED in ends:
                _proven.add(bucket)
                return
        raise _unsafe(lake, f"in {ROUNDS} races for the same version of a table no writer lost")


def _unsafe(lake: str, found: str) -> UnsafeStoreError:
    return UnsafeStoreError(
        f"The object store of {lake} has no conditional put (If-None-Match), or the environment "
        f"switches it off: {found}.",
        remedy="Use a store that has it (AWS S3, MinIO, Cloudflare R2, Ceph from Squid on), unset "
        "AWS_S3_ALLOW_UNSAFE_RENAME and AWS_CONDITIONAL_PUT, or set POSITION_SYNC_LAKE to a "
        "folder.",
    )


def _race(table: str, options: dict[str, str] | None) -> list[_End]:
    """Create one table several times at once."""
    start = Barrier(RACERS)

    def create(_: int) -> _End:
        start.wait()
        try:
            DeltaTable.create(
                table,
                schema=_SCHEMA,
                storage_options=options,
                commit_properties=CommitProperties(max_commit_retries=0),
            )
        except (DeltaError, OSError) as error:
            if store_fault(str(error)) is not None:
                raise
            return _End.REFUSED if isinstance(error, CommitFailedError) else _End.NOT_TRIED
        return _End.WON

    with ThreadPoolExecutor(RACERS) as pool:
        try:
            return list(pool.map(create, range(RACERS)))
        finally:
            delete_log(table, options)
