"""What Dagster keeps: 90 days of runs, events and results of checks.

Dagster deletes a run with its events, but has no call for old events without a run, nor for old
results of checks. They are deleted here from the tables of its storage, which are the same in
SQLite and Postgres. An instance may serve other projects as well: theirs are kept.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta

import dagster as dg
import sqlalchemy as sql
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    AssetEventTagsTable,
    SqlEventLogStorageTable,
)

KEPT = timedelta(days=90)

CHUNK = 200
"""Rows per transaction: SQLite has one writer at a time, and the others wait for it."""

NO_RUN = ""
"""The run id of an event without a run."""

ENDED = [
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.CANCELED,
]

Connect = Callable[[], AbstractContextManager[sql.Connection]]


def delete_old_runs(instance: dg.DagsterInstance, jobs: Iterable[str], before: datetime) -> int:
    """Delete the ended runs of these jobs that were created before a time; return their number.

    The run with the newest materialization of an asset stays.
    """
    held = {
        record.asset_entry.last_materialization_record.run_id
        for record in instance.get_asset_records()
        if record.asset_entry.last_materialization_record is not None
    }
    deleted = 0
    for job in jobs:
        old = dg.RunsFilter(job_name=job, statuses=ENDED, created_before=before)
        for run_id in instance.get_run_ids(old):
            if run_id not in held:
                instance.delete_run(run_id)
                deleted += 1
    return deleted


def delete_old_events(instance: dg.DagsterInstance, assets: Iterable[str], before: datetime) -> int:
    """Delete old events without a run, and old results of checks; return their number.

    The newest event of each type and asset stays, and so does the newest result of each check.

    Args:
        instance: The Dagster instance.
        assets: The names of the assets; the events of others are kept.
        before: Events before this time are old.
    """
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        return 0
    own = [dg.AssetKey(name).to_string() for name in assets]
    checks, events = AssetCheckExecutionsTable.c, SqlEventLogStorageTable.c
    kinds = [checks.asset_key, checks.check_name, checks.partition]
    old = _old_ids(
        storage.index_connection,
        checks.evaluation_event_timestamp,
        kinds,
        before,
        [checks.asset_key.in_(own)],
    )
    deleted = _delete(storage.index_connection, checks.id, old)
    # SQLite stores them twice, in the index and in a file of their own.
    for connect in (storage.index_connection, lambda: storage.run_connection(NO_RUN)):
        where = [
            events.run_id == NO_RUN,
            sql.or_(events.asset_key.in_(own), events.asset_key.is_(None)),
        ]
        kinds = [events.dagster_event_type, events.asset_key]
        old = _old_ids(connect, events.timestamp, kinds, before, where)
        _delete(connect, AssetEventTagsTable.c.event_id, old)
        deleted += _delete(connect, events.id, old)
    return deleted


def _old_ids(
    connect: Connect,
    at: "sql.Column[datetime]",
    kinds: "Sequence[sql.Column[str]]",
    before: datetime,
    where: "Iterable[sql.ColumnElement[bool]]",
) -> list[int]:
    """Return the ids of old rows, without the newest of each kind."""
    ids = at.table.c.id
    newest = sql.select(sql.func.max(ids)).where(*where).group_by(*kinds)
    early = before.astimezone(UTC).replace(tzinfo=None)
    old = sql.select(ids).where(*where, at < early, ids.not_in(newest))
    with connect() as connection:
        return list(connection.execute(old).scalars())


def _delete(connect: Connect, column: "sql.Column[int]", values: Sequence[int]) -> int:
    """Delete the rows with these values, in chunks; return the number of values."""
    for first in range(0, len(values), CHUNK):
        with connect() as connection:
            some = column.in_(values[first : first + CHUNK])
            connection.execute(column.table.delete().where(some))
    return len(values)
