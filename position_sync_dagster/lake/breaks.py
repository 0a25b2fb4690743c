"""Breaks: discrepancies between the broker and the tables, from detection to resolution."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.reconciliation import BreakState, Discrepancy, DiscrepancyType
from position_sync_dagster.errors import UnknownRequestError
from position_sync_dagster.lake.schema import lifecycle_partitions
from position_sync_dagster.lake.schema.codec import frame_of, moment
from position_sync_dagster.lake.schema.ids import new_ids
from position_sync_dagster.lake.schema.tables import RECONCILIATION_BREAKS
from position_sync_dagster.lake.storage.lifecycle_table import Change, LifecycleTable, Snapshot
from position_sync_dagster.lake.storage.table import Table

CLOSED = "closed"
"""The bucket of breaks that are gone."""

_KEY = ("type", "account", "conid")
"""The key of an open break; a gateway has at most one for each combination of values."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakCounts:
    """The numbers of breaks that a reconciliation changed."""

    opened: int = 0
    confirmed: int = 0
    resolved: int = 0


def next_breaks(
    known: pl.DataFrame,
    seen: pl.DataFrame,
    *,
    at: datetime,
    snapshot_id: str | None,
    run_id: str | None,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the known breaks of one gateway as they are after a reconciliation.

    Args:
        known: The gateway's live rows.
        seen: The discrepancies of this reconciliation: the key, `seen_expected`, `seen_actual` and
            `seen_detail`.

    Returns:
        The breaks that are still there, and those that are gone.
    """
    state = pl.col("state")
    is_accepted = state == BreakState.ACCEPTED.value
    gone = known.join(seen, on=_KEY, how="anti").with_columns(
        state=pl.when(is_accepted).then(state).otherwise(pl.lit(BreakState.RESOLVED.value)),
        resolved_at=moment(at),
    )
    differs = pl.any_horizontal(
        pl.col(name).ne_missing(pl.col(f"seen_{name}")) for name in ("expected", "actual")
    )
    change = pl.when((state == BreakState.OPENED.value) | differs)
    first_confirmed = pl.coalesce("confirmed_at", pl.when(~is_accepted).then(moment(at)))
    still_open = (
        known.join(seen, on=_KEY, how="inner", maintain_order="left")
        .with_columns(
            *(
                change.then(f"seen_{name}").otherwise(name).alias(name)
                for name in ("expected", "actual", "detail")
            ),
            state=change.then(
                pl.when(is_accepted).then(state).otherwise(pl.lit(BreakState.CONFIRMED.value))
            ).otherwise(state),
            confirmed_at=change.then(first_confirmed).otherwise("confirmed_at"),
            snapshot_id=change.then(pl.lit(snapshot_id, pl.String)).otherwise("snapshot_id"),
            run_id=change.then(pl.lit(run_id, pl.String)).otherwise("run_id"),
            last_seen_at=change.then(moment(at)).otherwise("last_seen_at"),
        )
        .select(known.columns)
    )
    return still_open, gone


class ReconciliationBreaks:
    """The table `reconciliation_breaks`: one row per discrepancy, from its opening to its end."""

    def __init__(self, table: Table, clock: Clock = utc_now) -> None:
        self.table = table
        self._lifecycle = LifecycleTable(table, clock)
        self._clock = clock

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
        found = _rows_of(discrepancies)
        seen = found.select(
            *_KEY,
            *(pl.col(name).alias(f"seen_{name}") for name in ("expected", "actual", "detail")),
        )

        def step(snapshot: Snapshot) -> Change[BreakCounts]:
            is_mine = pl.col("gateway_id") == gateway_id
            known, others = snapshot.live.filter(is_mine), snapshot.live.filter(~is_mine)
            still_open, gone = next_breaks(
                known, seen, at=at, snapshot_id=snapshot_id, run_id=run_id
            )
            new = found.join(known, on=_KEY, how="anti", maintain_order="left")
            opened = new.with_columns(
                *lifecycle_partitions.LIVE_COLUMNS,
                break_id=pl.Series(new_ids(at, new.height), dtype=pl.String),
                gateway_id=pl.lit(gateway_id),
                state=pl.lit(BreakState.OPENED.value),
                opened_at=moment(at),
                snapshot_id=pl.lit(snapshot_id, pl.String),
                run_id=pl.lit(run_id, pl.String),
                last_seen_at=moment(at),
            )
            was_open = known.filter(pl.col("state") == BreakState.OPENED.value)
            counts = BreakCounts(
                opened=opened.height,
                confirmed=was_open.join(seen, on=_KEY, how="semi").height,
                resolved=gone.height,
            )
            if opened.is_empty() and gone.is_empty() and still_open.equals(known):
                return Change(counts)
            return Change(
                counts,
                pl.concat([others, still_open, opened]),
                gone.with_columns(lifecycle_partitions.bucket_column(CLOSED)),
            )

        return self._lifecycle.change(step, {"action": "reconcile", "run_id": run_id or ""})

    def accept(self, break_id: str, by: str, note: str = "") -> Break:
        """Record that a person accepts a break as it is.

        It remains among the open breaks until a reconciliation no longer finds it.

        Raises:
            UnknownRequestError: No open break has the id.
        """

        def step(snapshot: Snapshot) -> Change[Break]:
            is_it = pl.col("break_id") == break_id
            if snapshot.live.filter(is_it).is_empty():
                raise UnknownRequestError(
                    f"No open break has the id {break_id[:80]!r}.",
                    remedy="List the open breaks and take the id from there.",
                )
            changes = {
                "state": pl.lit(BreakState.ACCEPTED.value),
                "accepted_at": moment(self._clock()),
                "accepted_by": pl.lit(by),
                "note": pl.lit(note or None, pl.String),
            }
            after = snapshot.live.with_columns(
                pl.when(is_it).then(value).otherwise(name).alias(name)
                for name, value in changes.items()
            )
            return Change(breaks_of(after.filter(is_it))[0], after)

        return self._lifecycle.change(step, {"action": "accept"})

    def open_breaks(self, gateway_id: str | None = None) -> list[Break]:
        """Return the breaks that are there now, oldest first."""
        found = breaks_of(self._lifecycle.snapshot().live)
        mine = [one for one in found if gateway_id in (None, one.gateway_id)]
        return sorted(mine, key=lambda one: (one.opened_at, one.break_id))

    def closed_breaks(self, limit: int = 50) -> list[Break]:
        """Return the breaks that are gone, newest first."""
        rows = self._lifecycle.finished(lifecycle_partitions.in_bucket(CLOSED))
        return breaks_of(rows.sort("resolved_at", descending=True).head(limit))


def breaks_of(frame: pl.DataFrame) -> list[Break]:
    """Return the breaks in a frame of this table."""
    return [
        Break(**row | {"type": DiscrepancyType(row["type"]), "state": BreakState(row["state"])})
        for row in lifecycle_partitions.without_partition(frame).iter_rows(named=True)
    ]


def _rows_of(discrepancies: Iterable[Discrepancy]) -> pl.DataFrame:
    rows = (
        {name: getattr(one, name) for name in Discrepancy.__dataclass_fields__}
        for one in discrepancies
    )
    return frame_of(RECONCILIATION_BREAKS, rows).unique(_KEY, keep="last", maintain_order=True)
