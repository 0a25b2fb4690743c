"""What all sensors share: their shortest interval, objects that are kept open, a quiet outage.

A tick every 5 s has to be cheap. Opening Dagster's instance costs 65 ms (its storages check their
Alembic revision each time), and a resource parameter or `context.instance` would do so at every
tick. Opening the tables costs another 30 ms. Both may be kept open and shared by threads.
"""

from collections.abc import Callable
from functools import lru_cache, wraps
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

import dagster as dg

from position_sync_dagster.errors import PositionSyncError

if TYPE_CHECKING:
    from dagster._core.instance.ref import InstanceRef

    from position_sync_dagster.lake.lake import Lake
    from position_sync_dagster.settings import Settings

R = TypeVar("R")

SHORTEST_INTERVAL_S = 2
"""Between two ticks of a sensor. The daemon checks the sensors every 5 s, one after the other: with
an interval as long, the check after a late one would come too early and be missed."""

_lock = Lock()
_instances: "list[tuple[InstanceRef, dg.DagsterInstance]]" = []


def cached_instance(context: dg.SensorEvaluationContext) -> dg.DagsterInstance:
    """Return the instance of a tick, opened at the first tick."""
    ref = context.instance_ref
    if ref is None:
        return context.instance
    with _lock:
        for known, instance in _instances:
            if known == ref:
                return instance
        instance = dg.DagsterInstance.from_ref(ref)
        _instances[:] = [(ref, instance)]
        return instance


@lru_cache(maxsize=2)
def cached_lake(settings: "Settings") -> "Lake":
    """Return the tables that the settings name, opened at the first tick."""
    from position_sync_dagster.lake.lake import Lake

    return Lake.of(settings)


def fails_once(
    tick: Callable[[dg.SensorEvaluationContext], R],
) -> Callable[[dg.SensorEvaluationContext], R | dg.SkipReason]:
    """Raise the first error of an outage, and skip the ticks that meet it again, with its text.

    The daemon logs two hundred lines for a tick that fails, and the next one comes after 5 s.

    Example:
        @dg.sensor(job_name=DRAIN_JOB)
        @fails_once
        def drain_queue(context: dg.SensorEvaluationContext) -> dg.SensorResult: ...
    """
    fault = ""

    @wraps(tick)
    def run(context: dg.SensorEvaluationContext) -> R | dg.SkipReason:
        nonlocal fault
        try:
            result = tick(context)
        except PositionSyncError as error:
            found = error.what.partition(": ")[0]  # behind it are the words of one attempt
            if found == fault:
                return dg.SkipReason(str(error))
            fault = found
            raise
        fault = ""
        return result

    return run
