"""The table of breaks: how they are stored, and what people say of them.

What becomes of a break after a comparison is decided in `domain/reconciliation.py`
(`after_comparison`).

A break that is there is a live row of a `LifecycleTable`; one that is gone is a finished row, in
the partition of CLOSED_BUCKET.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from datetime import datetime

from polars import DataFrame, col

from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.reconciliation import (
    Break,
    BreakState,
    Discrepancy,
    after_comparison,
    break_key,
)
from position_sync_dagster.errors import UnknownRequestError
from position_sync_dagster.lake.schema import fields_of, new_ids, records_of, storable
from position_sync_dagster.lake.storage.lifecycle_table import Change, LifecycleTable, Snapshot
from position_sync_dagster.lake.storage.table import Table

# The bucket of breaks that are gone.
CLOSED_BUCKET = "closed"


def _in_order(rows: DataFrame) -> list[Break]:
    return records_of(Break, rows.sort("opened_at", "break_id"))


class ReconciliationBreaks:
    """The table `reconciliation_breaks`: one row per discrepancy, from its opening to its end."""

    def __init__(self, table: Table, clock: Clock = utc_now) -> None:
        self.table = table
        self._lifecycle = LifecycleTable(table, clock)
        self._clock = clock

    def record(
        self,
        found: Mapping[str, Iterable[Discrepancy]],
        at: datetime,
        *,
        compared: Callable[[Break], bool] | None = None,
        snapshots: Mapping[str, str] | None = None,
        run_id: str | None = None,
    ) -> None:
        """Record the discrepancies that a comparison found, in one commit.

        A new discrepancy is OPENED, one seen again CONFIRMED, and one that is gone RESOLVED: see
        `after_comparison`. Nothing is written when nothing changed.

        Args:
            found: The discrepancies by gateway; a break that another gateway found before moves to
                the one that finds it now.
            at: The time of the comparison.
            compared: Which breaks were looked for: the others stay as they are. None: those of the
                gateways in `found`.
            snapshots: The ids of the lists of positions that were compared, by gateway; each new
                break names that of its own.
            run_id: The Dagster run.
        """
        downloads = snapshots or {}
        of_gateways = [
            (gateway_id, difference)
            for gateway_id, listed in found.items()
            for difference in listed
        ]
        ids = new_ids(at, len(of_gateways))
        differences = {
            break_key(difference): Break(
                **fields_of(difference),
                break_id=break_id,
                gateway_id=gateway_id,
                state=BreakState.OPENED,
                opened_at=at,
                snapshot_id=downloads.get(gateway_id),
                run_id=run_id,
                last_seen_at=at,
            )
            for break_id, (gateway_id, difference) in zip(ids, of_gateways, strict=True)
        }
        was_compared = compared or (lambda opened: opened.gateway_id in found)

        def step(snapshot: Snapshot) -> Change[None]:
            # `live` are the breaks that are new or changed, `over` those that are gone.
            live, over = after_comparison(
                filter(was_compared, _in_order(snapshot.live)), differences, at
            )
            return Change(None, live, {CLOSED_BUCKET: over})

        self._lifecycle.change(step, {"action": "reconcile", "run_id": run_id or ""})

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
        now = self._clock()
        return self._decide(
            break_id,
            "accept",
            tuple(BreakState),  # in whatever state it is
            lambda opened: replace(
                opened,
                state=BreakState.ACCEPTED,
                accepted_at=now,
                accepted_by=storable(by),
                note=storable(note) or None,
            ),
        )

    def reopen(self, break_id: str, by: str) -> Break:
        """Record that a person no longer accepts a break.

        Raises:
            UnknownRequestError: No accepted open break has the id, or several begin with it.
        """
        now = self._clock()
        return self._decide(
            break_id,
            "reopen",
            (BreakState.ACCEPTED,),
            lambda accepted: replace(
                accepted,
                state=BreakState.CONFIRMED,
                confirmed_at=accepted.confirmed_at or now,  # it may have been OPENED before
                accepted_at=None,
                accepted_by=None,
                note=f"{storable(by)} reopened it",
            ),
        )

    def _decide(
        self,
        break_id: str,
        action: str,
        states: Collection[BreakState],
        decided: Callable[[Break], Break],
    ) -> Break:
        """Change the one open break in one of the states whose id begins so, in one commit.

        Args:
            break_id: The beginning of the id, as a person typed it; an empty one names none.
            action: What the person does with the break, for the error and the log.
            states: In which states that may be done.
            decided: Returns the break as it is afterwards.

        Raises:
            UnknownRequestError: None or several begin so.
        """

        def step(snapshot: Snapshot) -> Change[Break]:
            # The state may have changed since the person looked: it is chosen from the newest rows.
            is_named = col.break_id.str.starts_with(break_id)
            chosen = snapshot.live.filter(is_named, col.state.is_in(states))
            if chosen.height != 1 or not break_id:
                count = chosen.height or "No"
                raise UnknownRequestError(
                    f"{count} open breaks that one can {action} have the id {break_id[:80]!r}.",
                    remedy="List them with `position-sync breaks`, and take the id from there.",
                )

            [opened] = records_of(Break, chosen)
            after = decided(opened)
            return Change(after, [after])

        return self._lifecycle.change(step, {"action": action})

    def open_breaks(self) -> list[Break]:
        """Return the breaks that are there now, oldest first."""
        return _in_order(self._lifecycle.snapshot().live)

    def closed_breaks(self, limit: int = 50) -> list[Break]:
        """Return the breaks that are gone, newest first, at most so many."""
        closed = self._lifecycle.finished().sort("resolved_at", descending=True)
        return records_of(Break, closed[:limit])
