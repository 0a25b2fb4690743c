"""Old results of checks, events and ticks in Dagster's storage, which go with no run.

Dagster deletes a run with its events, and has no call for results of checks, for events without a
run, and for the tags of runs that were deleted from SQLite. So this module deletes them from the
tables of its storages, which are the same in SQLite and Postgres. Without it they grow by tens of
megabytes a day. SQLite uses freed pages again: its files stop growing, and need no VACUUM.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from sqlalchemy import Column, ColumnElement, Connection, Table

CHUNK = 200
"""Rows of one transaction: SQLite has one writer at a time, and the others wait for it."""

Connect = Callable[[], AbstractContextManager["Connection"]]


def forget_old_events(instance: dg.DagsterInstance, *, before: datetime, keep: int) -> int:
    """Delete old results of checks, and old events without a run; return how many.

    The newest result of each check stays, for each status, and so does the newest event of each
    type and asset.

    Args:
        before: What is earlier is old.
        keep: What is followed by as many of its kind is old, too.
    """
    # Not with the definitions, which must load fast.
    from dagster._core.instance import RUNLESS_RUN_ID
    from dagster._core.storage.event_log import SqlEventLogStorage
    from dagster._core.storage.event_log import schema as events
    from dagster._core.storage.runs import SqlRunStorage
    from dagster._core.storage.runs import schema as runs
    from sqlalchemy import select

    found = 0
    storage, run_storage = instance.event_log_storage, instance.run_storage
    if isinstance(storage, SqlEventLogStorage):
        index = storage.index_connection
        checks, logged = events.AssetCheckExecutionsTable, events.SqlEventLogStorageTable
        c = checks.c
        kinds = [c.asset_key, c.check_name, c.partition, c.execution_status]
        old = _old_ids(index, checks, kinds, c.evaluation_event_timestamp, before, keep)
        found += _delete(index, c.id, old)
        c, tagged = logged.c, events.AssetEventTagsTable.c.event_id
        # In SQLite they are twice, in the index and in a file of their own.
        for connect in (index, lambda: storage.run_connection(RUNLESS_RUN_ID)):
            kinds = [c.dagster_event_type, c.asset_key]
            where = [c.run_id == RUNLESS_RUN_ID]
            old = _old_ids(connect, logged, kinds, c.timestamp, before, keep, where)
            _delete(connect, tagged, old)
            found += _delete(connect, c.id, old)
    if isinstance(run_storage, SqlRunStorage):
        # Postgres deletes them with the run.
        c, known = runs.RunTagsTable.c, select(runs.RunsTable.c.run_id)
        with run_storage.connect() as connection:
            query = select(c.id).where(c.run_id.not_in(known))
            left = connection.execute(query).scalars().all()
        _delete(run_storage.connect, c.id, left)
    return found


def _old_ids(
    connect: Connect,
    table: "Table",
    kinds: "Sequence[Column[str]]",
    at: "Column[datetime]",
    before: datetime,
    keep: int,
    where: "Iterable[ColumnElement[bool]]" = (),
) -> list[int]:
    """Return the ids of rows that are old, without the newest of each kind."""
    from sqlalchemy import func, or_, select

    newer = func.row_number().over(partition_by=kinds, order_by=table.c.id.desc()) - 1
    rows = select(table.c.id, at.label("at"), newer.label("newer")).where(*where).subquery()
    early = rows.c.at < before.astimezone(UTC).replace(tzinfo=None)
    old = select(rows.c.id).where(rows.c.newer > 0, or_(early, rows.c.newer >= keep))
    with connect() as connection:
        return list(connection.execute(old).scalars())


def _delete(connect: Connect, column: "Column[int]", values: Sequence[int]) -> int:
    """Delete the rows with these values, some at a time; return the number of values."""
    for first in range(0, len(values), CHUNK):
        some = values[first : first + CHUNK]
        with connect() as connection:
            connection.execute(column.table.delete().where(column.in_(some)))
    return len(values)


def forget_skipped_ticks(instance: dg.DagsterInstance, *, before: datetime) -> None:
    """Delete the ticks of sensors that found nothing to do.

    Dagster's own retention counts whole days: a hundred megabytes of them.
    """
    from dagster._core.scheduler.instigation import TickStatus

    if instance.schedule_storage is None:
        return
    for state in instance.all_instigator_state():
        instance.purge_ticks(
            state.instigator_origin_id,
            state.selector_id,
            before.timestamp(),
            [TickStatus.SKIPPED],
        )
