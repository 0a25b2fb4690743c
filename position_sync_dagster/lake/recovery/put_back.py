"""Put the rows of undone commits back into their table, each once, however often it is tried."""

from collections.abc import Callable, Mapping
from datetime import datetime
from types import MappingProxyType

import polars as pl
from deltalake import DeltaTable, Transaction

from position_sync_dagster.lake.account_values import SyncAccountValues
from position_sync_dagster.lake.queue.transitions.request_rows import as_pending
from position_sync_dagster.lake.schema.codec import account_summaries_of, updates_of
from position_sync_dagster.lake.schema.ids import id_literals
from position_sync_dagster.lake.schema.partitions import LIVE_COLUMNS
from position_sync_dagster.lake.schema.table_spec import TableSpec
from position_sync_dagster.lake.storage.frames import append, scan
from position_sync_dagster.lake.storage.lifecycle_table import Change, LifecycleTable, Snapshot
from position_sync_dagster.lake.storage.table import Table
from position_sync_dagster.lake.updates.ledger import SyncUpdates

_IDS_AT_ONCE = 1000
"""A predicate with many thousand ids overflows the stack of the library that parses it."""


def is_put_back(spec: TableSpec) -> bool:
    """Return whether the undone rows of a table can be put back.

    The rows of the other tables are written again by the next connection, reconciliation or run,
    or are for a person to compare: they replace each other, and an undone row may be an older one.
    """
    return spec.name in _METHODS


def put_back(table: Table, rows: pl.DataFrame, now: datetime) -> int:
    """Write the rows that the table does not hold; return how many.

    Raises:
        LakeError: The table cannot be written; try again later.
    """
    if rows.is_empty():
        return 0
    # A file of an older release lacks columns; `diagonal_relaxed` fills them with null.
    empty = pl.DataFrame(schema=table.spec.polars)
    completed = pl.concat([empty, rows], how="diagonal_relaxed").select(empty.columns)
    return _METHODS[table.spec.name](table, completed, now)


def _put_back_requests(table: Table, rows: pl.DataFrame, now: datetime) -> int:
    queue = LifecycleTable(table, lambda: now)
    return queue.change(lambda found: plan_restore(found, rows, now), {"action": "repair"})


def _put_back_values(table: Table, rows: pl.DataFrame, _: datetime) -> int:
    ledger = SyncUpdates(table)
    batches = rows.partition_by("batch_id", maintain_order=True)
    return sum(ledger.append(updates_of(batch)).rows for batch in batches)


def _put_back_account_values(table: Table, rows: pl.DataFrame, _: datetime) -> int:
    return SyncAccountValues(table).append(account_summaries_of(rows)).rows


def _put_back_records(table: Table, rows: pl.DataFrame, _: datetime) -> int:
    def step(handle: DeltaTable) -> int:
        known = scan(handle, table.spec)
        new = rows.unique(maintain_order=True).join(
            known, on=rows.columns, how="anti", nulls_equal=True
        )
        if not new.is_empty():
            transaction = Transaction(table.spec.name, handle.version() + 1)
            append(handle, new, {"action": "repair"}, [transaction])
        return new.height

    return table.transact(step)


_METHODS: Mapping[str, Callable[[Table, pl.DataFrame, datetime], int]] = MappingProxyType(
    {
        "position_queue": _put_back_requests,
        "position_updates": _put_back_values,
        "account_values": _put_back_account_values,
        "executions": _put_back_records,
        "runs": _put_back_records,
    }
)


def plan_restore(snapshot: Snapshot, undone: pl.DataFrame, now: datetime) -> Change[int]:
    """Add the requests that the table does not know; each is PENDING, and claimed again.

    A row that was written for one is known by its id. A position may have several live requests
    afterwards, until they are drained: which of them was acknowledged cannot be known, and one
    that came after another must not take the value of that one.
    """
    newest = undone.sort("updated_at").unique("request_id", keep="last", maintain_order=True)
    unknown = newest.join(_known(snapshot, newest), on="request_id", how="anti")
    if unknown.is_empty():
        return Change(0)
    pending = as_pending(unknown, now).with_columns(*LIVE_COLUMNS)
    return Change(unknown.height, pl.concat([snapshot.live, pending.select(snapshot.live.columns)]))


def _known(snapshot: Snapshot, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the ids of these requests that the table holds, live or finished."""
    ids = rows.get_column("request_id").sort().to_list()
    found = [snapshot.live.select("request_id")]
    for first in range(0, len(ids), _IDS_AT_ONCE):
        chunk = id_literals(ids[first : first + _IDS_AT_ONCE])
        found.append(snapshot.finished(f"request_id IN ({chunk})").select("request_id"))
    return pl.concat(found)
