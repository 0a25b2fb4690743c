"""The idempotent append: a row whose id the ledger holds is not written again."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import polars as pl
from deltalake import DeltaTable, Transaction

from position_sync_dagster.domain.clock import Clock
from position_sync_dagster.domain.update import PositionUpdate, TradingMode
from position_sync_dagster.errors import NewerRowError
from position_sync_dagster.lake.schema.codec import moment
from position_sync_dagster.lake.storage.fencing import fence, newest_token, refuse_stale_owner
from position_sync_dagster.lake.storage.frames import append, data_files
from position_sync_dagster.lake.storage.maintenance import compact_if_needed
from position_sync_dagster.lake.storage.table import Table
from position_sync_dagster.lake.storage.trading_mode import check_mode
from position_sync_dagster.lake.updates.identity import identified
from position_sync_dagster.lake.updates.latest import HOLDING
from position_sync_dagster.lake.updates.ledger_files import LedgerFiles, last_added

WRITER = "position_updates"
"""The application transaction of every append. Two appends that name it conflict, so that each
one checks its ids against all rows before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendResult:
    """The outcome of an append.

    Attributes:
        version: The table's version that holds the rows.
        rows: Rows written; 0 when the table held all of them already.
        batch_id: The batch of the rows; empty without any.
    """

    version: int
    rows: int
    batch_id: str = ""


class _RefusedError(Exception):
    """Carries the error of a guard past the retries, which would read an OSError as the table's."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def append_updates(
    table: Table,
    files: LedgerFiles,
    updates: Iterable[PositionUpdate],
    *,
    batch_id: str,
    run_id: str | None,
    guard: Callable[[], None] | None,
    through: int | None,
    clock: Clock,
) -> AppendResult:
    """Write the updates that the table does not hold, in one commit; see `SyncUpdates.append`."""
    frame = identified(updates, batch_id, run_id)
    if frame.is_empty():
        return AppendResult(version=table.version(), rows=0)
    first = frame.row(0, named=True)
    commit_info = {"batch_id": first["batch_id"]}
    if first["run_id"]:
        commit_info["run_id"] = first["run_id"]
    checked = through
    written_by = set(frame.select("gateway_id", "fencing_token").iter_rows())
    owners = {(gateway_id, token) for gateway_id, token in written_by if token is not None}
    modes = [TradingMode(mode) for mode in set(frame.get_column("trading_mode")) if mode]

    def step(handle: DeltaTable) -> AppendResult:
        nonlocal checked
        for gateway_id, token in owners:
            refuse_stale_owner(token, newest_token(handle, gateway_id), gateway_id)
        check_mode(handle, modes, table.path)
        present = data_files(handle)
        new = _without_stored(files, present, frame)
        if new.is_empty():
            return AppendResult(version=handle.version(), rows=0)
        if checked is not None:
            _refuse_newer(files, present, checked, new)
            # After a conflict, only what the winner added is looked at: a try that took longer the
            # more others commit would never end where several streams commit each second.
            checked = max(checked, last_added(present))
        if guard is not None:
            _call(guard)
        version = handle.version() + 1
        # Of a ledger that was copied into a new table, the rows may have greater versions.
        added = max(version, last_added(present) + 1)
        new = new.with_columns(ledger_version=pl.lit(added, pl.Int64), committed_at=moment(clock()))
        append(handle, new, commit_info, [Transaction(WRITER, version)])
        return AppendResult(version=handle.version(), rows=new.height, batch_id=first["batch_id"])

    refused: Exception
    try:
        result = table.transact(step)
    except _RefusedError as refusal:
        refused = refusal.error
    else:
        compact_if_needed(table)
        return result
    raise refused  # after the except block, so that it gets no context that the guard did not set


def fence_out_older_owners(table: Table, gateway_id: str, token: int) -> None:
    """Refuse rows of the gateway's owners with a smaller token from now on; see `SyncUpdates`."""
    table.transact(lambda handle: fence(handle, gateway_id, token))


def _without_stored(files: LedgerFiles, present: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows whose batch and id the table does not hold, whatever the clocks say."""
    for column in ("batch_id", "update_id"):
        stored = files.stored_ids(present, column, rows.get_column(column))
        if stored:
            rows = rows.filter(~pl.col(column).is_in(stored))
    return rows


def _refuse_newer(
    files: LedgerFiles, present: pl.DataFrame, through: int, rows: pl.DataFrame
) -> None:
    """Raise an error if a row of one of the holdings was added after that version."""
    added = files.added_after(present, through).select(HOLDING)
    newer = added.join(rows.lazy().select(HOLDING), on=HOLDING, how="semi").collect()
    if not newer.is_empty():
        account, conid = newer.row(0)
        raise NewerRowError(
            f"Another row of the conid {conid} in {account} was written meanwhile.",
            remedy="Read the newest rows again and decide anew.",
        )


def _call(guard: Callable[[], None]) -> None:
    try:
        guard()
    except Exception as error:
        raise _RefusedError(error) from error
