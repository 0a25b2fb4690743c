"""Examine all tables of a lake, and repair torn ones that no other process writes to."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from position_sync_dagster.errors import HeartbeatsUnavailableError, LakeError
from position_sync_dagster.lake.object_store import is_remote
from position_sync_dagster.lake.recovery.diagnosis import PAUSE_S, Diagnosis, diagnose
from position_sync_dagster.lake.recovery.repair import Repair, repair
from position_sync_dagster.lake.schema.tables import DERIVED
from position_sync_dagster.lake.sessions import GatewaySessions
from position_sync_dagster.lake.storage.maintenance import remove_doubled
from position_sync_dagster.lake.storage.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkup:
    """The findings at one table, and its repair.

    Attributes:
        derived: Whether the table is computed from the others.
        writer: Who writes to the table, in words; None if no writer was found.
        repair: The repair that was made.
        removed: Number of duplicate rows that were removed; one of each is kept.
        failure: Why a repair was not made, or did not end.
        healthy: Whether nothing is wrong now.
    """

    found: Diagnosis
    derived: bool
    writer: str | None = None
    repair: Repair | None = None
    removed: int = 0
    failure: str | None = None
    healthy: bool = True


def check_up(
    tables: Sequence[Table],
    sessions: GatewaySessions,
    now: datetime,
    *,
    mend: bool,
    pause_s: float = PAUSE_S,
) -> list[Checkup]:
    """Examine tables; a table that does not exist is not created.

    Args:
        tables: All tables of a lake, the derived ones included.
        sessions: The table of sessions; its leases show who writes to the tables.
        now: The current time, for leases and for the names of set-aside folders.
        mend: Whether to repair what is torn. A table that is being written is left alone.
        pause_s: As for `diagnose`.
    """
    found = [diagnose(table, pause_s=pause_s) for table in tables]
    owner = None
    if not all(one.healthy for one in found):
        readable = any(
            one.table == sessions.table.spec.name and one.healthy and one.version is not None
            for one in found
        )
        owner = _owner(sessions, now) if readable else None
    return [
        _checked(one, table, owner, now, mend=mend)
        for one, table in zip(found, tables, strict=True)
    ]


def _checked(
    found: Diagnosis, table: Table, owner: str | None, now: datetime, *, mend: bool
) -> Checkup:
    checkup = Checkup(found=found, derived=table.spec in DERIVED, healthy=found.healthy)
    if found.healthy:
        return checkup
    writer = owner or ("another process" if found.being_written else None)
    checkup = replace(checkup, writer=writer)
    if not (mend and found.repairable):
        return checkup
    if writer is not None:
        return replace(checkup, failure=f"is not repaired while {writer} writes to it")
    try:
        done = None if is_remote(table.path) else repair(table, now)
        removed = remove_doubled(table)
        after = diagnose(table, pause_s=0.0)
    except LakeError as error:
        return replace(checkup, failure=str(error))
    failure = after.problem
    if after.doubled.surplus:
        failure = f"{after.doubled}, and differ: compare them, and correct what wrote them"
    return replace(checkup, repair=done, removed=removed, healthy=after.healthy, failure=failure)


def _owner(sessions: GatewaySessions, now: datetime) -> str | None:
    """Return who holds the lease on a login, if that can be read."""
    try:
        alive = [one for one in sessions.history() if one.is_alive(now)]
    except HeartbeatsUnavailableError:
        return "a stream or a refresh that only Postgres would name"
    except LakeError:
        return None
    if not alive:
        return None
    return f"the {alive[0].owner.value.lower()} (process {alive[0].pid} on {alive[0].host})"
