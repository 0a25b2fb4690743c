"""Breaks: discrepancies between the broker and the tables, from the first sight to the end."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Unpack

import polars as pl

from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.reconciliation import BreakState, Discrepancy, DiscrepancyType
from position_sync_dagster.errors import UnknownRequestError
from position_sync_dagster.lake.schema.codec import frame_of
from position_sync_dagster.lake.schema.ids import NewIds, new_ids
from position_sync_dagster.lake.schema.partitions import (
    LIVE_PARTITION,
    bucket_column,
    in_bucket,
    without_partition,
)
from position_sync_dagster.lake.schema.tables import RECONCILIATION_BREAKS
from position_sync_dagster.lake.storage.lifecycle_table import Change, LifecycleTable, Snapshot
from position_sync_dagster.lake.storage.table import Table, TableOptions
from position_sync_dagster.lake.storage.threads import offloaded

CLOSED = "closed"
"""The bucket of breaks that are gone."""

_Key = tuple[str, str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """One discrepancy, from the reconciliation that first saw it until it is gone.

    Attributes:
        state: OPENED when first seen, CONFIRMED when seen again, RESOLVED when gone. ACCEPTED if a
            person accepted it; it keeps this state when it is gone.
    """

    break_id: str
    gateway_id: str
    account: str
    conid: int
    symbol: str
    type: DiscrepancyType
    expected: float | None
    actual: float | None
    detail: str
    state: BreakState
    opened_at: datetime
    confirmed_at: datetime | None = None
    resolved_at: datetime | None = None
    accepted_at: datetime | None = None
    accepted_by: str | None = None
    note: str | None = None
    snapshot_id: str | None = None
    run_id: str | None = None
    last_seen_at: datetime

    @property
    def key(self) -> _Key:
        """(type, account, conid): a gateway has at most one open break with this key."""
        return (self.type.value, self.account, self.conid)


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakCounts:
    """How many breaks a reconciliation changed."""

    opened: int = 0
    confirmed: int = 0
    resolved: int = 0


def next_breaks(
    known: Iterable[Break],
    seen: Mapping[_Key, Discrepancy],
    *,
    at: datetime,
    snapshot_id: str | None,
    run_id: str | None,
) -> tuple[list[Break], list[Break]]:
    """Decide what becomes of known breaks.

    Args:
        seen: The discrepancies of this reconciliation, by key.

    Returns:
        The breaks that are still there, and those that are gone.
    """
    open_now: list[Break] = []
    gone: list[Break] = []
    for one in known:
        found = seen.get(one.key)
        if found is None:
            accepted = one.state is BreakState.ACCEPTED
            gone.append(
                replace(one, state=one.state if accepted else BreakState.RESOLVED, resolved_at=at)
            )
            continue
        differs = (one.expected, one.actual) != (found.expected, found.actual)
        if one.state is BreakState.OPENED or differs:
            confirmed = one.state is not BreakState.ACCEPTED
            one = replace(
                one,
                expected=found.expected,
                actual=found.actual,
                detail=found.detail,
                state=BreakState.CONFIRMED if confirmed else one.state,
                confirmed_at=one.confirmed_at or (at if confirmed else None),
                snapshot_id=snapshot_id,
                run_id=run_id,
                last_seen_at=at,
            )
        open_now.append(one)
    return open_now, gone


class SyncBreaks:
    """The breaks as plain calls, for callers that may block; see `ReconciliationBreaks`."""

    def __init__(self, table: Table, clock: Clock, new_ids: NewIds) -> None:
        self.table = table
        self._lifecycle = LifecycleTable(table, clock)
        self._clock = clock
        self._new_ids = new_ids

    def initialize(self) -> None:
        """Create the table, or check and migrate the one that is there."""
        self._lifecycle.initialize()

    def record(
        self,
        gateway_id: str,
        discrepancies: Iterable[Discrepancy],
        at: datetime,
        snapshot_id: str | None = None,
        run_id: str | None = None,
    ) -> BreakCounts:
        """Record the discrepancies that a reconciliation of one gateway found, in one commit.

        A new discrepancy is OPENED, one seen again CONFIRMED, and one that is gone RESOLVED.
        Nothing is written when nothing changed.
        """
        seen = {(d.type.value, d.account, d.conid): d for d in discrepancies}

        def step(snapshot: Snapshot) -> Change[BreakCounts]:
            stored = breaks_of(snapshot.live)
            known = [one for one in stored if one.gateway_id == gateway_id]
            still_open, gone = next_breaks(
                known, seen, at=at, snapshot_id=snapshot_id, run_id=run_id
            )
            new = [d for key, d in seen.items() if key not in {one.key for one in known}]
            opened = [
                Break(
                    break_id=break_id,
                    gateway_id=gateway_id,
                    account=d.account,
                    conid=d.conid,
                    symbol=d.symbol,
                    type=d.type,
                    expected=d.expected,
                    actual=d.actual,
                    detail=d.detail,
                    state=BreakState.OPENED,
                    opened_at=at,
                    snapshot_id=snapshot_id,
                    run_id=run_id,
                    last_seen_at=at,
                )
                for break_id, d in zip(self._new_ids(at, len(new)), new, strict=True)
            ]
            was_open = {one.break_id for one in known if one.state is BreakState.OPENED}
            counts = BreakCounts(
                opened=len(opened),
                confirmed=sum(one.break_id in was_open for one in still_open),
                resolved=len(gone),
            )
            if not (opened or gone) and still_open == known:
                return Change(counts)
            others = [one for one in stored if one.gateway_id != gateway_id]
            return Change(
                counts,
                _rows([*others, *still_open, *opened]),
                _rows(gone).with_columns(bucket_column(CLOSED)),
            )

        return self._lifecycle.change(step, {"action": "reconcile", "run_id": run_id or ""})

    def accept(self, break_id: str, by: str, note: str = "") -> Break:
        """Record that a person accepts a break as it is.

        It remains among the open breaks until a reconciliation no longer finds it.

        Raises:
            UnknownRequestError: No open break has the id.
        """

        def step(snapshot: Snapshot) -> Change[Break]:
            stored = breaks_of(snapshot.live)
            found = next((one for one in stored if one.break_id == break_id), None)
            if found is None:
                raise UnknownRequestError(
                    f"No open break has the id {break_id[:80]!r}.",
                    remedy="List the open breaks and take the id from there.",
                )
            accepted = replace(
                found,
                state=BreakState.ACCEPTED,
                accepted_at=self._clock(),
                accepted_by=by,
                note=note or None,
            )
            after = [accepted if one is found else one for one in stored]
            return Change(accepted, _rows(after))

        return self._lifecycle.change(step, {"action": "accept"})

    def open_breaks(self, gateway_id: str | None = None) -> list[Break]:
        """Return the breaks that are there now, oldest first."""
        found = breaks_of(self._lifecycle.snapshot().live)
        mine = [one for one in found if gateway_id in (None, one.gateway_id)]
        return sorted(mine, key=lambda one: (one.opened_at, one.break_id))

    def closed_breaks(self, limit: int = 50) -> list[Break]:
        """Return the breaks that are gone, newest first."""
        rows = self._lifecycle.finished(in_bucket(CLOSED))
        return breaks_of(rows.sort("resolved_at", descending=True).head(limit))


class ReconciliationBreaks:
    """The table `reconciliation_breaks`: one row per discrepancy, from its opening to its end.

    Args:
        delta_lake_path: Folder or `s3://` URI of the table.

    Attributes:
        sync: The same table as plain, blocking calls.
    """

    def __init__(
        self,
        delta_lake_path: str | Path = "data/lake/reconciliation_breaks",
        *,
        clock: Clock = utc_now,
        new_ids: NewIds = new_ids,
        **options: Unpack[TableOptions],
    ) -> None:
        self.table = Table(delta_lake_path, RECONCILIATION_BREAKS, **options)
        self.sync = SyncBreaks(self.table, clock, new_ids)

    initialize = offloaded(SyncBreaks.initialize)
    record = offloaded(SyncBreaks.record)
    accept = offloaded(SyncBreaks.accept)
    open_breaks = offloaded(SyncBreaks.open_breaks)
    closed_breaks = offloaded(SyncBreaks.closed_breaks)


def breaks_of(frame: pl.DataFrame) -> list[Break]:
    """Return the breaks in a frame of this table."""
    return [
        Break(**row | {"type": DiscrepancyType(row["type"]), "state": BreakState(row["state"])})
        for row in without_partition(frame).iter_rows(named=True)
    ]


def _rows(breaks: Iterable[Break]) -> pl.DataFrame:
    return frame_of(
        RECONCILIATION_BREAKS,
        (
            {name: getattr(one, name) for name in Break.__dataclass_fields__} | LIVE_PARTITION
            for one in breaks
        ),
    )
