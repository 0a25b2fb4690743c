"""What a commit checks and writes: owner, trading mode and rows; and when it is tried again.

Who may write to a table stands in its properties: the newest owner of each gateway, by its fencing
token, which grows with each owner, and one trading mode. An open handle has them in memory, so that
each commit checks them without a request; and a commit that was planned before a property changed
conflicts with the change.
"""

import errno
import os
import random
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar
from urllib.parse import unquote

import polars as pl
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from polars.exceptions import PanicException

from position_sync_dagster.domain.position_update import TradingMode
from position_sync_dagster.domain.retry import Backoff
from position_sync_dagster.errors import (
    BrokenTableError,
    CommitContentionError,
    LeaseLostError,
    TradingModeError,
)
from position_sync_dagster.lake.schema import MODE_PROPERTY, storable
from position_sync_dagster.lake.storage import durability
from position_sync_dagster.lake.storage.commit_errors import (
    STORAGE_ERRORS,
    fail,
    to_lake_error,
)
from position_sync_dagster.lake.storage.object_store import is_remote
from position_sync_dagster.lake.storage.opening import NO_HOOKS, with_plain_texts

_PROPERTY = "positionSync.owner."


def refuse_stale_owner(handle: DeltaTable, gateway_id: str, token: int) -> int | None:
    """Refuse an owner if the gateway has a newer one.

    Returns:
        The fencing token of the gateway's newest owner; None before the first.

    Raises:
        LeaseLostError: The newest token is greater.
    """
    text = handle.metadata().configuration.get(_PROPERTY + storable(gateway_id))
    newest = None if text is None else int(text)
    if newest is not None and token < newest:
        raise LeaseLostError(
            f"The login {gateway_id} has a newer owner (token {newest}; this session has {token}).",
            remedy="End this session; the newer owner writes for the login.",
        )
    return newest


def mode_of(handle: DeltaTable) -> TradingMode | None:
    """Return the trading mode of the table; None before its first data."""
    text = handle.metadata().configuration.get(MODE_PROPERTY)
    return TradingMode(text) if text else None


def bind(
    handle: DeltaTable,
    path: str,
    modes: Iterable[str | None] = (),
    owner: tuple[str, int] | None = None,
) -> None:
    """Check that data of these trading modes and of this owner may go into the table.

    The mode of the first data is stored, and the owner as the newest of its gateway: owners with a
    smaller token are refused from now on. Call it in a step, before it reads: what is new is a
    commit of its own, after which the step goes on. While it is committed, no other Python thread
    runs: delta-rs does not release the interpreter's lock.

    Args:
        path: The table's path, for the error.
        modes: Those of the data, as stored; what has none is not checked.
        owner: A gateway and the fencing token of its owner.

    Raises:
        TradingModeError: The table holds another mode's data, or the data are of several.
        LeaseLostError: An owner with a greater token has fenced the table already.
    """
    new = {}

    offered = sorted({TradingMode(mode) for mode in modes if mode})
    remembered = mode_of(handle)
    if remembered is None and len(offered) == 1:
        new[MODE_PROPERTY] = offered[0].value
    elif offered and offered != [remembered]:
        wrong = ", ".join(mode for mode in offered if mode is not remembered)
        raise TradingModeError(
            f"{path} holds {remembered or 'no'} data and was given {wrong}.",
            remedy="Give each trading mode its own lake: set POSITION_SYNC_LAKE to another folder, "
            "or point POSITION_SYNC_GATEWAY_PORT at the account that this lake belongs to.",
        )

    if owner is not None:
        gateway_id, token = owner
        if refuse_stale_owner(handle, gateway_id, token) != token:
            new[_PROPERTY + storable(gateway_id)] = str(token)
    if new:
        handle.alter.set_table_properties(
            new,
            raise_if_not_exists=False,
            commit_properties=CommitProperties(custom_metadata={"action": "bind"}),
            post_commithook_properties=NO_HOOKS,
        )


# Room for what a commit writes besides its rows: footers of files, the log entry, folders.
SPARE_BYTES = 64 * 1024


def check_room(table: str, needed: float = 0) -> None:
    """Check that a local disk has room for a commit of `needed` bytes.

    On a full disk the writer of parquet files panics, which prints pages of native backtraces at
    each attempt.

    Args:
        table: The table's path or URI; an object store is not checked.
        needed: Bytes of the rows.

    Raises:
        OSError: Less is free than `needed` and `SPARE_BYTES` (ENOSPC).
    """
    if is_remote(table):
        return
    disk = os.statvfs(unquote(table.removeprefix("file://")))
    if disk.f_bavail * disk.f_frsize < needed + SPARE_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def write(
    handle: DeltaTable,
    frame: pl.DataFrame,
    commit_info: Mapping[str, str],
    predicate: str | None = None,
    writer: str | None = None,
) -> None:
    """Append rows, or replace the rows that match a predicate by them.

    An append conflicts only with an append of the same writer; a replacement with every commit that
    changes or adds rows that match. No checkpoint is written here (NO_HOOKS): `Table` writes them.

    Args:
        commit_info: What the log says of the commit.
        predicate: Of partitions, and of the column by which the files of the table are ordered;
            None: the rows are appended.
        writer: The name of an application for Delta. Of two commits at once that have it one runs
            again: each one sees what the other stored.
    """
    check_room(handle.table_uri, frame.estimated_size())
    transactions = [Transaction(writer, handle.version() + 1)] if writer else []
    # An entry of the log that was cut shows by it: see `durability`.
    metadata = {**commit_info, durability.TRANSACTIONS: str(len(transactions))}
    options: dict[str, Any] = {"mode": "append"}
    if predicate is not None:
        options = {"mode": "overwrite", "predicate": predicate}
    write_deltalake(
        handle,
        with_plain_texts(frame),
        commit_properties=CommitProperties(metadata, app_transactions=transactions),
        post_commithook_properties=NO_HOOKS,
        **options,
    )


def text_literal(text: str) -> str:
    """Return any text as an SQL literal; the quote is the only special character there.

    >>> text_literal("it's")
    "'it''s'"
    """
    return "'" + text.replace("'", "''") + "'"


def in_parts(bucket: str, parts: Iterable[str]) -> str:
    """Return the predicate of the rows of some parts of one bucket, in parentheses."""
    names = ",".join(map(text_literal, parts))
    return f"(bucket = '{bucket}' AND part IN ({names}))"


T = TypeVar("T")

# Attempts with a new handle. If a file is missing in each, the table is broken.
_STALE_ATTEMPTS = 4

# Pauses before another try; the longest is a few times as long as a commit takes.
PAUSE = Backoff(first_s=0.25 / 32, longest_s=0.25, jitter=(0.0, 1.0))
_CHANCE = random.Random()  # noqa: S311 - of a pause, not a secret


def retried(attempt: Callable[[], T], *, path: str, contention_s: float) -> T:
    """Run an attempt, again after errors that may pass, and return its result.

    Conflicts are retried for `contention_s` seconds with growing random pauses, missing or
    incomplete files a few times, and other errors not at all; nor a panic, which prints pages each
    time.

    Args:
        attempt: Must read anew each time that it runs.
        path: The table's path, for the error.

    Raises:
        LakeError: No attempt succeeded; see `commit_errors.to_lake_error`.
    """
    begun = time.monotonic()
    stale = 0
    failures = 0

    while True:
        try:
            return attempt()
        except STORAGE_ERRORS as error:
            match to_lake_error(error, path):
                case BrokenTableError() if not isinstance(error, PanicException):
                    stale += 1
                    is_last = stale == _STALE_ATTEMPTS
                case CommitContentionError():
                    is_last = time.monotonic() - begun >= contention_s
                case _:
                    is_last = True

            if is_last:
                fail(error, path)

        failures += 1
        time.sleep(PAUSE.delay_s(failures, _CHANCE))
