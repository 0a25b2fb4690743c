"""Processes that run the product under Dagster and are killed between a commit and its event."""

import os
from collections.abc import Callable

import dagster as dg

from position_sync_dagster.defs.assets import position_updates as drained
from position_sync_dagster.defs.resources import POSITION_SYNC
from position_sync_dagster.defs.stream import stream_positions
from position_sync_dagster.lake.queue.operations import SyncQueue
from position_sync_dagster.lake.updates.position_updates import SyncUpdates
from position_sync_dagster.sync.counts import RunRecorder
from tests.support.crash_worker import after, before

POINTS: dict[str, Callable[[str], None]] = {
    "after the commit": lambda point: after(SyncUpdates, "append", point),
    "after the mark": lambda point: after(SyncQueue, "mark_success", point),
    "before the event": lambda point: before(drained, "drain_metadata", point),
    "before the record": lambda point: before(RunRecorder, "write", point),
}


def main(work: str, home: str, environment: dict[str, str], point: str) -> None:
    """Run a drain that dies at the point, or a stream until it is killed."""
    os.environ.update(environment)
    with dg.DagsterInstance.from_config(home) as instance:
        resources = {"position_sync": POSITION_SYNC}
        if work == "drain":
            POINTS[point](point)
            dg.materialize([drained.position_updates], resources=resources, instance=instance)
        else:
            stream_positions.execute_in_process(resources=resources, instance=instance)
