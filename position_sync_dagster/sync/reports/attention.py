"""What a person should look at although everything runs."""

import os
from functools import lru_cache
from pathlib import Path

from position_sync_dagster.errors import StrategiesFileError
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.registry.strategies_file import load_strategies
from position_sync_dagster.lake.storage.delta_log import SET_ASIDE
from position_sync_dagster.settings import Settings


def attention(lake: Lake, settings: Settings, *, failed: int) -> tuple[str, ...]:
    """Return what a person should look at: the strategies file, failed requests, torn commits.

    Holdings that are set aside are in the detail of the session, which its owner writes.

    Args:
        failed: The number of requests that are FAILED.
    """
    found = []
    if settings.strategies_file is not None:
        problem = strategies_problem(settings.strategies_file)
        if problem is not None:
            found.append(f"{problem} The active legs stay as they were read last.")
    if failed:
        requests = "1 request is" if failed == 1 else f"{failed:,} requests are"
        found.append(
            f"{requests} FAILED: `position-sync queue list --status FAILED` shows why, and "
            "`queue retry` tries again."
        )
    aside = torn_folders(lake)
    if aside:
        found.append(
            f"A repair set torn commits aside in {', '.join(aside)}: delete them once nothing in "
            "them is needed."
        )
    return tuple(found)


def strategies_problem(path: Path) -> str | None:
    """Return why a strategies file cannot be read; None for a good one."""
    try:
        found = os.stat(path)
    except OSError:
        return _read(path)
    return _cached(path, (found.st_ino, found.st_size, found.st_mtime_ns))


@lru_cache(maxsize=4)
def _cached(path: Path, _state: tuple[int, int, int]) -> str | None:
    """Return why a file in this state cannot be read: a status that is shown live asks often."""
    return _read(path)


def _read(path: Path) -> str | None:
    try:
        load_strategies(path)
    except StrategiesFileError as error:
        return f"{error.what} {error.remedy}"
    return None


def torn_folders(lake: Lake) -> list[str]:
    """List the folders to which a repair moved torn commits."""
    return [
        str(folder)
        for table in lake.all_tables
        if "://" not in table.path
        for folder in sorted(Path(table.path).glob(f"{SET_ASIDE}-*"))
    ]
