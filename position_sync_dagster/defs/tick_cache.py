"""What a code server keeps open from one tick to the next.

A tick every 5 s has to be cheap. Opening Dagster's instance costs 65 ms (its storages check their
Alembic revision each time), which a resource parameter or `context.instance` would do at every
tick; opening the tables costs another 30 ms. Both are made for being held and shared by threads.
"""

from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING

import dagster as dg

from position_sync_dagster.defs.resources import GATEWAY, LAKE

if TYPE_CHECKING:
    from dagster._core.instance.ref import InstanceRef

    from position_sync_dagster.lake.lake import Lake
    from position_sync_dagster.settings import Settings

_lock = Lock()
_instances: "list[tuple[InstanceRef, dg.DagsterInstance]]" = []


def cached_instance(context: dg.SensorEvaluationContext) -> dg.DagsterInstance:
    """Give the instance that a tick belongs to, opened at the first tick."""
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


def cached_lake() -> "tuple[Lake, Settings]":
    """Give the tables, opened at the first tick, and the settings as they are now.

    Raises:
        SettingsError: A value is malformed.
    """
    settings = GATEWAY.settings(LAKE)
    return _open_lake(settings), settings


@lru_cache(maxsize=2)
def _open_lake(settings: "Settings") -> "Lake":
    from position_sync_dagster.lake.lake import Lake

    return Lake.of(settings)
