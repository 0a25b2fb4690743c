"""Open the table at a path: create, check, migrate or refuse it; and who may write it.

Only its owner may enter the folder of a new table, whatever the umask of the process. An object
store must have conditional put before a table is created there.

A lock file makes local writers fair to each other; it does not make them safe. Delta's check of
each commit makes them safe. Without the lock, four writers in a tight loop keep each other waiting
for seconds. The token of the newest owner of a gateway, and the trading mode, are properties of the
table. An open handle has the properties in memory, so that each commit checks them without a
request; and a commit that was planned before a property changed conflicts with the change.
"""

import fcntl
import logging
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Barrier, Condition, Lock, Thread
from typing import Literal
from uuid import uuid4

from deltalake import CommitProperties, DeltaTable, Field, PostCommitHookProperties, Schema
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.schema import PrimitiveType

from position_sync_dagster import errors
from position_sync_dagster.domain.update import TradingMode
from position_sync_dagster.lake import object_store
from position_sync_dagster.lake.schema import codec, table_spec
from position_sync_dagster.lake.storage import commit_errors
from position_sync_dagster.lake.storage.deltalake_internals import delete_log
from position_sync_dagster.lake.storage.durability import LOG, SET_ASIDE, refuse_torn, sync_paths
from position_sync_dagster.lake.storage.threads import begin_each

PROBES = "_probes"
"""The folder, in the lake, of the tables that test the store; each is deleted at once."""

RACERS, ROUNDS = 2, 60
"""Concurrent creates in a round, and the maximum number of rounds.

Each create asks the store before it writes; a round takes about 20 requests. Where requests take
some milliseconds, the creates collide in nearly each round; at a store on the same machine in one
of four, in a process with one thread for requests (`sync.owner.memory_and_threads`). That none of
60 does is less likely than one in ten million.
"""

WITHOUT_WINNER = 5
"""Rounds in a row which no create won, after which none can: the client cannot do a conditional
put. In a single one the answer to the winner may be lost, and the others find its table."""

_SCHEMA = Schema([Field("probe", PrimitiveType("long"))])

NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)

_proven: set[str] = set()
_mutex = Lock()


def require_conditional_put(lake: str, options: Mapping[str, str] | None = None) -> None:
    """Check that the store of a lake refuses the second of two commits; once for a bucket.

    Two commits of the same version of a table are two puts of the same object. A store with
    conditional put (`If-None-Match`) refuses the second. A store without it takes both, and the
    first is lost: requests would be claimed twice. Only a race shows this, since a writer that
    begins later sees the commit of the other and does not try. A race in which only one writer
    tried proves nothing.

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
        lost = 0
        for _ in range(ROUNDS):
            ends = _race(f"{lake}/{PROBES}/{uuid4()}", object_store.delta_options(lake, options))
            won = ends.count(None)
            if won > 1:
                raise _unsafe(lake, f"{won} of {RACERS} writers of the same version of a table won")
            if any(isinstance(end, CommitFailedError) for end in ends):
                _proven.add(bucket)
                return
            lost = 0 if won else lost + 1
            if lost == WITHOUT_WINNER:
                raise _unsafe(lake, f"in {lost} races for the first version of a table nobody won")
        raise _unsafe(lake, f"in {ROUNDS} races for the same version of a table no writer lost")


def _unsafe(lake: str, found: str) -> errors.UnsafeStoreError:
    return errors.UnsafeStoreError(
        f"The object store of {lake} has no conditional put (If-None-Match), or the environment "
        f"switches it off: {found}.",
        remedy="Use a store that has it (AWS S3, MinIO, Cloudflare R2, Ceph from Squid on), unset "
        "AWS_S3_ALLOW_UNSAFE_RENAME and AWS_CONDITIONAL_PUT, or set POSITION_SYNC_LAKE to a "
        "folder.",
    )


class _Probe(DeltaTable):
    """A table that is created and not read: to open it would take four requests."""

    def __init__(self, **_: object) -> None:
        pass


def _race(table: str, options: dict[str, str] | None) -> list[Exception | None]:
    """Create one table several times at once.

    Returns:
        How the creates ended, in the order of their ends and up to the first that the store
        refused. None: it won. CommitFailedError: the store refused it, since the put of another
        create came first. Another error: the client saw the table of another create, or cannot do
        a conditional put.
    """
    start = Barrier(RACERS)

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
            if object_store.store_fault(str(error)) is not None:
                raise
            return error
        return None

    pool = ThreadPoolExecutor(RACERS)
    racers = [pool.submit(create) for _ in range(RACERS)]
    pool.shutdown(wait=False)
    begin_each(partial(_delete_probe, table, options), [racers])
    ends: list[Exception | None] = []
    for racer in as_completed(racers):
        ends.append(racer.result())
        if isinstance(ends[-1], CommitFailedError):
            break
    return ends


def _delete_probe(
    table: str, options: dict[str, str] | None, racers: Collection[Future[Exception | None]]
) -> None:
    wait(racers)
    try:
        delete_log(table, options)
    except (DeltaError, OSError) as error:
        logger.warning("cannot delete %s: %s", table, object_store.plain(str(error)))


logger = logging.getLogger(__name__)

_TRIES = 3

Use = Literal["work", "look"]
"""For what a table is opened: to work, for which it is created or migrated if it has to be; or to
look at it, and leave it as it is."""


@dataclass(frozen=True, slots=True)
class TableLocation:
    """The place of a table, and the schema that it must have.

    Attributes:
        path: An absolute path or a URI.
        use: For what it is opened.
    """

    path: str
    spec: table_spec.TableSpec
    options: Mapping[str, str] | None
    use: Use = "work"

    @property
    def remote(self) -> bool:
        """Return whether the table lies in an object store."""
        return object_store.is_remote(self.path)

    def exists(self) -> bool:
        """Return whether there is a log at the path."""
        return DeltaTable.is_deltatable(self.path, self._options())

    def prove_store(self) -> None:
        """Check that the object store has conditional put; once in a process.

        Raises:
            UnsafeStoreError: It has none.
            OSError, DeltaError: The store cannot be used.
        """
        if self.remote:
            require_conditional_put(self.path.rpartition("/")[0], self.options)

    def open(self, *, create: bool = True) -> DeltaTable:
        """Open the newest version; create the table where there is none.

        Args:
            create: Whether to create a missing table; False if this process had it open before.

        Raises:
            ForeignTableError, NewerTableError, BrokenTableError, LakeNotWritableError.
            RetryCommit: The table was migrated; open it again.
        """
        attempt = 0
        while True:
            attempt += 1
            try:
                handle = DeltaTable(self.path, storage_options=self._options())
            except TableNotFoundError as missing:
                # Another process may be creating it: unexpected content must be found twice.
                unexpected = self.unexpected_content()
                if unexpected and attempt > 1:
                    raise unexpected from missing
                if unexpected:
                    continue
                if self.use == "look" or not create:
                    raise self._vanished() from missing
            except commit_errors.STORAGE_ERRORS as unreadable:
                if not self.remote and os.path.isfile(self.path):
                    raise self._foreign("it is a file") from unreadable
                kind = commit_errors.classify(unreadable)
                if kind is commit_errors.ErrorKind.STALE and attempt < _TRIES:
                    continue  # another process may be cleaning the log
                if not self.remote:
                    refuse_torn(Path(self.path))
                commit_errors.fail(unreadable, self.path)
            else:
                self.check(handle)
                return handle
            try:
                return self._create()
            except commit_errors.STORAGE_ERRORS as lost:
                lasts = (commit_errors.ErrorKind.UNWRITABLE, commit_errors.ErrorKind.STORE)
                if attempt == _TRIES or commit_errors.classify(lost) in lasts:
                    commit_errors.fail(lost, self.path)

    def _create(self) -> DeltaTable:
        self.prove_store()
        make_private_folder(self.path)
        return DeltaTable.create(
            self.path,
            schema=self.spec.delta,
            partition_by=list(self.spec.partition_by),
            name=self.spec.name,
            configuration=self.spec.configuration,
            storage_options=self._options(),
            raise_if_key_not_exists=False,
            # With retries the loser of a race would create the table again, as version 1, and
            # overwrite the winner's properties.
            commit_properties=CommitProperties(max_commit_retries=0),
        )

    def _vanished(self) -> errors.BrokenTableError:
        return errors.BrokenTableError(
            f"The table {self.path} was deleted or moved away while this process had it open.",
            remedy="Put it back from a copy. To begin with an empty one, end the program and "
            "start it again.",
        )

    def _options(self) -> dict[str, str] | None:
        return object_store.delta_options(self.path, self.options)

    def unexpected_content(self) -> errors.BrokenTableError | errors.ForeignTableError | None:
        """Return the error for a folder without a log; None where a table may be created."""
        if self.remote or not os.path.exists(self.path):
            return None
        try:
            found = sorted(
                name
                for name in os.listdir(self.path)
                if name != WRITER_LOCK and not name.startswith(SET_ASIDE)
            )
        except OSError as error:
            commit_errors.fail(error, self.path)
        if found in ([], [LOG]):
            return None
        if LOG in found:
            return errors.BrokenTableError(
                f"The table {self.path} has data but no log.",
                remedy="Restore its _delta_log from a copy, or move the folder away to start with "
                "an empty table.",
            )
        return self._foreign(f"it holds {found[0]!r} and no Delta table")

    def check(self, handle: DeltaTable) -> None:
        """Refuse a table of another schema; migrate one of an older release.

        Raises:
            ForeignTableError, NewerTableError.
            RetryCommit: The table was migrated; open it again.
        """
        properties = handle.metadata().configuration
        name = properties.get(table_spec.NAME_PROPERTY)
        text = properties.get(table_spec.VERSION_PROPERTY, "")
        if name != self.spec.name or not text.isdigit():
            raise self._foreign(f"it holds {f'the table {name!r}' if name else 'a foreign table'}")
        self.refuse_newer(handle)
        found = {f.name: str(getattr(f.type, "type", f.type)) for f in handle.schema().fields}
        wanted = {column: kind.value for column, kind in self.spec.columns.items()}
        different = [column for column, kind in found.items() if wanted.get(column) != kind]
        if different or list(handle.metadata().partition_columns) != list(self.spec.partition_by):
            detail = ", ".join(different) or "partitions"
            raise self._foreign(f"its schema is another one ({detail})")
        missing = [column for column in wanted if column not in found]
        if int(text) < self.spec.version:
            if self.use != "look":
                self._migrate(handle, missing)
        elif missing:
            raise self._foreign(f"its schema lacks {', '.join(missing)}")

    def refuse_newer(self, handle: DeltaTable) -> None:
        """Refuse a table that a later release has migrated, even while this process had it open.

        Raises:
            NewerTableError: Its schema has a greater version than this release knows.
        """
        text = handle.metadata().configuration.get(table_spec.VERSION_PROPERTY, "")
        if text.isdigit() and int(text) > self.spec.version:
            raise errors.NewerTableError(
                f"The table {self.path} has schema version {text}; this release knows "
                f"{self.spec.version}.",
                remedy="Install the release that wrote it, or a later one.",
            )

    def _migrate(self, handle: DeltaTable, missing: list[str]) -> None:
        logger.info("migrating %s to schema version %d", self.path, self.spec.version)
        # Columns first: if this process dies in between, the next one does the rest.
        if missing:
            kinds = [(column, self.spec.columns[column].value) for column in missing]
            handle.alter.add_columns([Field(c, PrimitiveType(kind)) for c, kind in kinds])
        handle.alter.set_table_properties(
            {
                table_spec.VERSION_PROPERTY: str(self.spec.version),
                table_spec.STATISTICS_PROPERTY: self.spec.configuration[
                    table_spec.STATISTICS_PROPERTY
                ],
            },
            raise_if_not_exists=False,
        )
        raise commit_errors.RetryCommit

    def _foreign(self, detail: str) -> errors.ForeignTableError:
        return errors.ForeignTableError(
            f"{self.path} is not the table {self.spec.name!r} of this package: {detail}.",
            remedy="Point POSITION_SYNC_LAKE at another folder, or move this one away.",
        )


WRITER_LOCK = ".turn.lock"
"""The name of the lock file; it may be in the folder before the table is."""

FAIR_WAIT_S = 2.0
"""How long a writer waits for the lock, in seconds; then it continues without the lock."""

OWNER_ONLY = 0o700


def make_private_folder(path: str) -> None:
    """Create the folder of a table, and the lake's folder around it, for the owner alone.

    Other users cannot reach the files inside then, whatever the permissions of the files. A folder
    that exists stays as it is: its owner may have opened it to a group. Errors are ignored, since
    the next write to the folder fails with the same error. The parents of new folders are synced,
    because later commits sync no folder outside the table.

    Args:
        path: A folder or a URI; nothing is done for a URI.
    """
    if "://" in path or os.path.isdir(path):
        return
    lake = Path(path).parent
    new = [folder for folder in (lake, *lake.parents) if not folder.exists()]
    with suppress(OSError):
        lake.parent.mkdir(parents=True, exist_ok=True)
        lake.mkdir(mode=OWNER_ONLY, exist_ok=True)
        Path(path).mkdir(mode=OWNER_ONLY, exist_ok=True)
        sync_paths(folder.parent for folder in new)


class WriterLock:
    """The lock of the table at a path; a table in an object store has none.

    It is an advisory lock (`flock`) on a file, which ends with the process that holds it. The
    kernel wakes a thread that waits for it. That thread cannot be interrupted: if a wait ends
    without the lock, the next wait uses the same thread. If the thread gets the lock between two
    waits, it releases it.

    Args:
        path: The table's folder or URI.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._remote = object_store.is_remote(path)
        self._changed = Condition()
        self._is_wanted = self._is_waiting = False
        self._held: int | None = None

    @contextmanager
    def fair(self) -> Iterator[None]:
        """Wait for the lock for a bounded time, and continue with or without it."""
        if self._remote:
            yield
            return
        make_private_folder(self._path)
        try:
            self._take(FAIR_WAIT_S)
            yield
        finally:
            self._release()

    def _take(self, timeout_s: float) -> bool:
        """Wait for the lock, and return whether it is held."""
        with self._changed:
            if not self._is_waiting:
                try:
                    opened = os.open(f"{self._path}/{WRITER_LOCK}", os.O_RDWR | os.O_CREAT)
                except OSError as error:
                    commit_errors.fail(error, self._path)
                Thread(target=self._wait, args=(opened,), daemon=True).start()
                self._is_waiting = True
            self._is_wanted = True
            try:
                self._changed.wait_for(lambda: not self._is_waiting, timeout_s)
            finally:
                self._is_wanted = False
            return self._held is not None

    def _wait(self, opened: int) -> None:
        is_locked = False
        try:
            fcntl.flock(opened, fcntl.LOCK_EX)
            is_locked = True
        finally:
            with self._changed:
                self._is_waiting = False
                if is_locked and self._is_wanted:
                    self._held = opened
                else:
                    _unlock(opened)
                self._changed.notify()

    def _release(self) -> None:
        if self._held is not None:
            _unlock(self._held)
            self._held = None


def _unlock(opened: int) -> None:
    fcntl.flock(opened, fcntl.LOCK_UN)  # also for a process that was forked meanwhile
    os.close(opened)


_PROPERTY = "positionSync.owner."


def newest_token(handle: DeltaTable, gateway_id: str) -> int | None:
    """Return the fencing token of the newest owner of a gateway; None before the first."""
    text = handle.metadata().configuration.get(_PROPERTY + codec.storable(gateway_id))
    return None if text is None else int(text)


def refuse_stale_owner(token: int, newest: int | None, gateway_id: str) -> None:
    """Refuse an owner if the gateway has a newer one.

    Raises:
        LeaseLostError: `newest` is greater than `token`.
    """
    if newest is not None and token < newest:
        raise errors.LeaseLostError(
            f"The login {gateway_id} has a newer owner (token {newest}; this session has {token}).",
            remedy="End this session; the newer owner writes for the login.",
        )


def fence(handle: DeltaTable, gateway_id: str, token: int) -> None:
    """Refuse owners of the gateway with a smaller token from now on; call it in a step only.

    Afterwards the handle is at the version of the fence, so that the step may continue.

    Raises:
        LeaseLostError: An owner with a greater token has fenced the table already.
    """
    set_properties(handle, fencing(handle, gateway_id, token), action="fence")


def fencing(handle: DeltaTable, gateway_id: str, token: int) -> dict[str, str]:
    """Return what a table must store to refuse owners with a smaller token; {} if it has that.

    Raises:
        LeaseLostError: An owner with a greater token has fenced the table already.
    """
    newest = newest_token(handle, gateway_id)
    refuse_stale_owner(token, newest, gateway_id)
    return {} if newest == token else {_PROPERTY + codec.storable(gateway_id): str(token)}


def set_properties(handle: DeltaTable, properties: Mapping[str, str], *, action: str) -> None:
    """Store properties of the table, in one commit; call it in a step, before it reads.

    Nothing else of the process runs meanwhile: delta-rs keeps the interpreter for itself.
    """
    if properties:
        handle.alter.set_table_properties(
            dict(properties),
            raise_if_not_exists=False,
            commit_properties=CommitProperties(custom_metadata={"action": action}),
            post_commithook_properties=NO_HOOKS,
        )


def mode_of(handle: DeltaTable) -> TradingMode | None:
    """Return the trading mode of the table; None before its first data."""
    text = handle.metadata().configuration.get(table_spec.MODE_PROPERTY)
    return TradingMode(text) if text else None


def check_mode(handle: DeltaTable, modes: Iterable[TradingMode], path: str) -> None:
    """Check that data of these trading modes may go into the table; call it in a step only.

    The mode of the first data is stored in a commit of its own, after which the step goes on.

    Raises:
        TradingModeError: The table holds another mode's data, or the data are of several.
    """
    set_properties(handle, first_mode(handle, modes, path), action="mode")


def first_mode(handle: DeltaTable, modes: Iterable[TradingMode], path: str) -> dict[str, str]:
    """Return the trading mode that a table must store; {} if it has that, or without data.

    Raises:
        TradingModeError: The table holds another mode's data, or the data are of several.
    """
    offered = sorted(set(modes))
    remembered = mode_of(handle)
    if not offered or (remembered is not None and offered == [remembered]):
        return {}
    if remembered is None and len(offered) == 1:
        return {table_spec.MODE_PROPERTY: offered[0].value}
    wrong = ", ".join(mode.value for mode in offered if mode is not remembered)
    raise errors.TradingModeError(
        f"{path} holds {remembered.value if remembered else 'no'} data and was given {wrong}.",
        remedy="Give each trading mode its own lake: set POSITION_SYNC_LAKE to another folder, or "
        "point POSITION_SYNC_GATEWAY_PORT at the account that this lake belongs to.",
    )
