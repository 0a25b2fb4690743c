"""Who may write a table: the lock file of local writers, and the refusal of older owners.

The lock makes writers fair to each other; it does not make them safe. Safety is Delta's own check
of each commit. Without the lock, four writers in a tight loop keep each other waiting for seconds.

The token of the newest owner of a gateway, and the trading mode, are properties of the table. An
open handle has the properties in memory, so that each commit checks them without a request; and a
commit that was planned before a property changed conflicts with the change.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deltalake import CommitProperties, DeltaTable
from filelock import FileLock, Timeout

from position_sync_dagster.domain.update import TradingMode
from position_sync_dagster.errors import CommitContentionError, LeaseLostError, TradingModeError
from position_sync_dagster.lake.object_store import is_remote
from position_sync_dagster.lake.schema.table_spec import MODE_PROPERTY
from position_sync_dagster.lake.storage.commit_errors import RetryCommit, to_lake_error
from position_sync_dagster.lake.storage.delta_log import sync_paths

WRITER_LOCK = ".turn.lock"
"""The name of the lock file; it may be in the folder before the table is."""

FAIR_WAIT_S = ((0.02, 0.002), (0.08, 0.0005), (1.9, 0.0001))
"""Phases of waiting for the lock: the length of each, and the pause between two attempts in it, in
seconds. The pauses get shorter, since a writer that tries seldom is overtaken by the one that just
released the lock. After the last phase the writer continues without the lock."""

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

    Args:
        path: The table's folder or URI.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._remote = is_remote(path)

    @contextmanager
    def fair(self) -> Iterator[None]:
        """Wait for the lock for a bounded time, and continue with or without it."""
        if self._remote:
            yield
            return
        make_private_folder(self._path)
        lock = FileLock(f"{self._path}/{WRITER_LOCK}")
        try:
            for wait_s, poll_s in FAIR_WAIT_S:
                with suppress(Timeout):
                    lock.acquire(timeout=wait_s, poll_interval=poll_s)
                    break
        except OSError as error:
            raise to_lake_error(error, self._path) from error
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def exclusive(self, timeout_s: float) -> Iterator[None]:
        """Hold the lock of a local table.

        Raises:
            CommitContentionError: Another process held it for `timeout_s` seconds.
        """
        lock = FileLock(f"{self._path}/{WRITER_LOCK}")
        try:
            lock.acquire(timeout=timeout_s)
        except Timeout as error:
            raise CommitContentionError(
                f"Another process holds the writers' lock of {self._path}; nothing was changed.",
                remedy="End what writes to the lake, then repair it.",
            ) from error
        except OSError as error:
            raise to_lake_error(error, self._path) from error
        try:
            yield
        finally:
            lock.release()


_PROPERTY = "positionSync.owner."


def newest_token(handle: DeltaTable, gateway_id: str) -> int | None:
    """Return the fencing token of the newest owner of a gateway; None before the first."""
    text = handle.metadata().configuration.get(_PROPERTY + gateway_id)
    return None if text is None else int(text)


def refuse_stale_owner(token: int, newest: int | None, gateway_id: str) -> None:
    """Refuse an owner if the gateway has a newer one.

    Raises:
        LeaseLostError: `newest` is greater than `token`.
    """
    if newest is not None and token < newest:
        raise LeaseLostError(
            f"The login {gateway_id} has a newer owner (token {newest}; this session has {token}).",
            remedy="End this session; the newer owner writes for the login.",
        )


def fence(handle: DeltaTable, gateway_id: str, token: int) -> None:
    """Refuse owners of the gateway with a smaller token from now on; call it in a step only.

    Afterwards the handle is at the version of the fence, so that the step may continue.

    Raises:
        LeaseLostError: An owner with a greater token has fenced the table already.
    """
    newest = newest_token(handle, gateway_id)
    refuse_stale_owner(token, newest, gateway_id)
    if newest == token:
        return
    handle.alter.set_table_properties(
        {_PROPERTY + gateway_id: str(token)},
        raise_if_not_exists=False,
        commit_properties=CommitProperties(custom_metadata={"action": "fence"}),
    )


def mode_of(handle: DeltaTable) -> TradingMode | None:
    """Return the trading mode of the table; None before its first data."""
    text = handle.metadata().configuration.get(MODE_PROPERTY)
    return TradingMode(text) if text else None


def check_mode(handle: DeltaTable, modes: Iterable[TradingMode], path: str) -> None:
    """Check that data of these trading modes may go into the table; call it in a step only.

    The mode of the first data is stored in a commit of its own, after which the step runs again.

    Raises:
        TradingModeError: The table holds another mode's data, or the data are of several.
    """
    offered = sorted(set(modes))
    remembered = mode_of(handle)
    if not offered or (remembered is not None and offered == [remembered]):
        return
    if remembered is None and len(offered) == 1:
        handle.alter.set_table_properties(
            {MODE_PROPERTY: offered[0].value}, raise_if_not_exists=False
        )
        raise RetryCommit
    wrong = ", ".join(mode.value for mode in offered if mode is not remembered)
    raise TradingModeError(
        f"{path} holds {remembered.value if remembered else 'no'} data and was given {wrong}.",
        remedy="Give each trading mode its own lake: set POSITION_SYNC_LAKE to another folder, or "
        "point POSITION_SYNC_GATEWAY_PORT at the account that this lake belongs to.",
    )
