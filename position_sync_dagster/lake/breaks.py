"""Breaks: discrepancies between the broker and the tables, from detection to resolution."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import polars as pl
from deltalake import DeltaTable

from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.reconciliation import Break, BreakState, Discrepancy
from position_sync_dagster.errors import UnknownRequestError
from position_sync_dagster.lake.schema import codec, predicates
from position_sync_dagster.lake.schema.codec import fields_of, frame_of, moment, records_of
from position_sync_dagster.lake.schema.ids import new_ids
from position_sync_dagster.lake.schema.tables import RECONCILIATION_BREAKS
from position_sync_dagster.lake.storage.lifecycle_table import Change, LifecycleTable, Snapshot
from position_sync_dagster.lake.storage.table import Table

CLOSED = "closed"
"""The bucket of breaks that are gone."""

_ACCEPTANCE = ("accepted_by", "expected", "actual", "note")
"""The columns that say what a person accepted."""

_KEY = ("type", "account", "conid")
"""The key of an open break; a gateway has at most one for each combination of values."""


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
        known: The gateway's live rows, of which the first with a key counts.
        seen: The discrepancies of this reconciliation: the key, `seen_expected`, `seen_actual` and
            `seen_detail`.

    Returns:
        The breaks that are still there, and those that are gone.
    """
    state = pl.col("state")
    is_accepted = state == BreakState.ACCEPTED.value
    found = known.join(seen, on=_KEY, how="semi", maintain_order="left")
    found = found.unique(_KEY, keep="first", maintain_order=True)
    gone = known.join(found, on="break_id", how="anti").with_columns(
        state=pl.when(is_accepted).then(state).otherwise(pl.lit(BreakState.RESOLVED.value)),
        resolved_at=moment(at),
    )
    differs = pl.any_horizontal(
        pl.col(name).ne_missing(pl.col(f"seen_{name}")) for name in ("expected", "actual")
    )
    accepted = is_accepted & ~differs
    change = pl.when((state == BreakState.OPENED.value) | differs)
    expired = pl.when(is_accepted & differs)
    expiry = pl.format(
        "{} accepted {} against {} ({}); that has changed",
        *(pl.col(c).cast(pl.String).fill_null("?") for c in _ACCEPTANCE),
    )
    still_open = (
        found.join(seen, on=_KEY, how="inner", maintain_order="left")
        .with_columns(
            *(
                change.then(f"seen_{name}").otherwise(name).alias(name)
                for name in ("expected", "actual", "detail")
            ),
            state=pl.when(accepted).then(state).otherwise(pl.lit(BreakState.CONFIRMED.value)),
            confirmed_at=pl.when(accepted)
            .then("confirmed_at")
            .otherwise(pl.coalesce("confirmed_at", moment(at))),
            accepted_at=expired.then(None).otherwise("accepted_at"),
            accepted_by=expired.then(None).otherwise("accepted_by"),
            note=expired.then(expiry).otherwise("note"),
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
        self._closed: tuple[tuple[int, int], pl.DataFrame] | None = None

    def record(
        self,
        gateway_id: str,
        discrepancies: Iterable[Discrepancy],
        at: datetime,
        snapshot_id: str | None = None,
        run_id: str | None = None,
        *,
        compared: pl.Expr | None = None,
    ) -> BreakCounts:
        """Record the discrepancies that a reconciliation of one gateway found, in one commit.

        A new discrepancy is OPENED, one seen again CONFIRMED, and one that is gone RESOLVED.
        Nothing is written when nothing changed.

        Args:
            compared: Which breaks are the gateway's, also by another name that it had before, and
                were looked for: the others stay as they are. Of two with one key the older one
                stays, with what a person said of it. None: all of the gateway's name.
        """
        found = _rows_of(discrepancies)
        seen = found.select(
            *_KEY,
            *(pl.col(name).alias(f"seen_{name}") for name in ("expected", "actual", "detail")),
        )

        def step(snapshot: Snapshot) -> Change[BreakCounts]:
            is_mine = pl.col("gateway_id") == gateway_id if compared is None else compared
            mine, others = snapshot.live.filter(is_mine), snapshot.live.filter(~is_mine)
            mine = mine.sort("opened_at", "break_id")
            known = mine.with_columns(gateway_id=pl.lit(gateway_id))
            still_open, gone = next_breaks(
                known, seen, at=at, snapshot_id=snapshot_id, run_id=run_id
            )
            new = found.join(known, on=_KEY, how="anti", maintain_order="left")
            opened = new.with_columns(
                *predicates.LIVE_COLUMNS,
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
            if opened.is_empty() and gone.is_empty() and still_open.equals(mine):
                return Change(counts)
            return Change(
                counts,
                pl.concat([others, still_open, opened]),
                gone.with_columns(bucket=pl.lit(CLOSED)),
            )

        return self._lifecycle.change(step, {"action": "reconcile", "run_id": run_id or ""})

    def accept(self, break_id: str, by: str, note: str = "") -> Break:
        """Record that a person accepts a break as it is.

        It counts as accepted until its quantities change or a reconciliation no longer finds it.

        Args:
            break_id: The id, or a beginning that only one open break has.
            by: The person.
            note: Why.

        Raises:
            UnknownRequestError: No open break has the id, or several begin with it.
        """
        return self._decide(
            break_id,
            "accept",
            state=pl.lit(BreakState.ACCEPTED.value),
            accepted_at=moment(self._clock()),
            accepted_by=pl.lit(codec.storable(by)),
            note=pl.lit(codec.storable(note) or None, pl.String),
        )

    def reopen(self, break_id: str, by: str) -> Break:
        """Record that a person no longer accepts a break.

        Raises:
            UnknownRequestError: No accepted open break has the id, or several begin with it.
        """
        return self._decide(
            break_id,
            "reopen",
            of=pl.col("state") == BreakState.ACCEPTED.value,
            state=pl.lit(BreakState.CONFIRMED.value),
            confirmed_at=pl.coalesce("confirmed_at", moment(self._clock())),
            accepted_at=pl.lit(None, pl.Datetime("us", "UTC")),
            accepted_by=pl.lit(None, pl.String),
            note=pl.format("{} reopened it", pl.lit(codec.storable(by))),
        )

    def _decide(
        self, break_id: str, action: str, of: pl.Expr | None = None, **changes: pl.Expr
    ) -> Break:
        """Change the one open break whose id begins so, in one commit."""

        def step(snapshot: Snapshot) -> Change[Break]:
            is_it = pl.col("break_id").str.starts_with(break_id) & (True if of is None else of)
            found = snapshot.live.filter(is_it).get_column("break_id").to_list()
            if len(found) != 1 or not break_id:
                raise UnknownRequestError(
                    f"{len(found) or 'No'} open breaks that one can {action} have the id "
                    f"{break_id[:80]!r}.",
                    remedy="List them with `position-sync breaks`, and take the id from there.",
                )
            after = snapshot.live.with_columns(
                pl.when(is_it).then(value).otherwise(name).alias(name)
                for name, value in changes.items()
            )
            return Change(records_of(Break, after.filter(pl.col("break_id") == found[0]))[0], after)

        return self._lifecycle.change(step, {"action": action})

    def open_breaks(self, gateway_id: str | None = None) -> list[Break]:
        """Return the breaks that are there now, oldest first."""
        found = records_of(Break, self._lifecycle.snapshot().live)
        mine = [one for one in found if gateway_id in (None, one.gateway_id)]
        return sorted(mine, key=lambda one: (one.opened_at, one.break_id))

    def closed_breaks(self, limit: int | None = 50) -> list[Break]:
        """Return the breaks that are gone, newest first.

        The table is read again only if it changed: the money page asks each second.

        Args:
            limit: Maximum number of breaks; None for all.
        """

        def step(handle: DeltaTable) -> pl.DataFrame:
            key = self.table.cache_key(handle)
            if self._closed is None or self._closed[0] != key:
                where = predicates.is_finished(predicates.in_bucket(CLOSED))
                rows = self.table.scan(handle, where).sort("resolved_at", descending=True)
                self._closed = (key, rows)
            return self._closed[1]

        return records_of(Break, self.table.snapshot(step)[:limit])


def _rows_of(discrepancies: Iterable[Discrepancy]) -> pl.DataFrame:
    rows = map(fields_of, discrepancies)
    return frame_of(RECONCILIATION_BREAKS, rows).unique(_KEY, keep="last", maintain_order=True)
