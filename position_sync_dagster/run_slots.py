"""How many runs Dagster may have in progress at once, and how many the logins need.

A stream is a run that never ends. Dagster's limit `max_concurrent_runs` counts every run in
progress, whatever its pool, its tags or its priority: pools and limits of tags only hold back more
runs, and none of them reserves a place. If streams fill the limit, a drain is queued for ever.
"""

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from position_sync_dagster.errors import SettingsError

FOR_A_LOGIN = 2
"""Runs of a login: its stream, and for a moment the stream that follows it."""

FOR_OTHERS = 8
"""Runs beside the streams."""

FOR_DRAINS = 2
"""Runs beside the streams that are kept for a drain and a refresh; other jobs and backfills share
the others."""

STREAM_JOB = "stream_positions"
DRAIN_JOB = "drain_positions"
LOGINS = "logins"
"""The name of the partitions of the streams: one for each login of a gateways file."""

DAGSTERS_DEFAULT = 10
"""Dagster's own limit where an instance names none."""

OWN_QUEUE = "PromptRunQueue"
"""The class of `dagster_host.launcher`, whose limit follows the logins."""


class RunSlotsError(SettingsError):
    """Dagster may not have as many runs in progress at once as the logins need."""


def needed(logins: int) -> int:
    """Return the number of runs that may have to be in progress at once.

    >>> needed(1), needed(5), needed(40)
    (10, 18, 88)
    """
    return FOR_A_LOGIN * logins + FOR_OTHERS


def logins_served(slots: int | None) -> int | None:
    """Return the number of logins for which a limit is enough; None if there is no limit.

    >>> logins_served(4), logins_served(18), logins_served(19), logins_served(None)
    (0, 5, 5, None)
    """
    return None if slots is None else max(0, (slots - FOR_OTHERS) // FOR_A_LOGIN)


def too_few(slots: int | None, logins: int) -> RunSlotsError | None:
    """Return the error if a limit is too low for the logins; None if it is enough.

    Args:
        slots: The limit; None if there is none, or if it follows the logins.
        logins: The number of logins.
    """
    if slots is None or slots >= needed(logins):
        return None
    several = "1 login needs" if logins == 1 else f"{logins} logins need"
    return RunSlotsError(
        f"Dagster may have {slots} runs in progress at once (max_concurrent_runs), and {several} "
        f"{needed(logins)}: {FOR_A_LOGIN} for each stream and the one that follows it, and "
        f"{FOR_OTHERS} for drains and all else.",
        remedy="Remove `max_concurrent_runs` from the dagster.yaml of Dagster's home and name the "
        f"`run_coordinator` of dagster_home/dagster.yaml ({OWN_QUEUE}), whose limit follows the "
        f"logins; or set the limit to {needed(logins)} or more.",
    )


def configured(home: Path) -> int | None:
    """Read the limit from the `dagster.yaml` of a home of Dagster, without importing Dagster.

    Returns:
        None if there is no limit, if it follows the logins, or if the file cannot be read; Dagster
        itself reports such a file.
    """
    try:
        instance = _instance((home / "dagster.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    runs = _part(_part(instance, "concurrency"), "runs")
    coordinator = _part(instance, "run_coordinator")
    queue = _part(instance, "run_queue") or _part(coordinator, "config")
    own = coordinator.get("class") == OWN_QUEUE
    queued = own or coordinator.get("class", "QueuedRunCoordinator") == "QueuedRunCoordinator"
    default = None if own else DAGSTERS_DEFAULT
    found = runs.get("max_concurrent_runs", queue.get("max_concurrent_runs", default))
    if isinstance(found, dict):
        found = os.environ.get(str(found.get("env")))
    try:
        limit = int(found) if queued and found is not None else -1
    except (TypeError, ValueError):
        return None
    return None if limit < 0 else limit


@lru_cache(maxsize=1)
def _instance(text: str) -> Any:
    """Parse a `dagster.yaml`, which takes 10 ms; the live status asks every 2 s."""
    return yaml.safe_load(text)


def _part(of: Any, name: str) -> dict[str, Any]:
    """Return a part of the configuration; empty if there is none."""
    found = of.get(name) if isinstance(of, dict) else None
    return found if isinstance(found, dict) else {}
