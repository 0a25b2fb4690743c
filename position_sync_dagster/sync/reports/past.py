"""The rows and legs of a moment in the past: from rows alone, which no clean-up deletes."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import polars as pl

from position_sync_dagster.domain.leg import ActiveContract
from position_sync_dagster.errors import MomentError
from position_sync_dagster.lake.breaks import Break
from position_sync_dagster.lake.lake import Lake, rows_of_logins
from position_sync_dagster.lake.schema.codec import legs_of
from position_sync_dagster.lake.schema.tables import BROKER_POSITIONS
from position_sync_dagster.settings import Settings

NO_HOLDINGS = pl.DataFrame(schema=BROKER_POSITIONS.polars)
"""What the tables keep of the broker's earlier reports: nothing, apart from the rows."""

MOMENT = "%Y-%m-%d %H:%M:%S UTC"


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """A moment, and which rows count.

    Attributes:
        at: The moment, with a time zone.
        as_known_now: Instead of the rows that were committed by the moment: those with a timestamp
            at or before it, also if they were committed later.
    """

    at: datetime
    as_known_now: bool = False

    def __str__(self) -> str:
        """Return the line that stands above a report."""
        at = f"{self.at.astimezone(UTC):{MOMENT}}"
        if self.as_known_now:
            return f"What was true at {at}, as far as it is known now."
        return f"As of {at}: what had been committed by then."


def require_past(at: datetime, now: datetime) -> None:
    """Raise if a moment is in the future.

    Raises:
        MomentError: It is.
    """
    if at > now:
        raise MomentError(
            f"{at.astimezone(UTC):{MOMENT}} is in the future; it is {now:{MOMENT}}.",
            remedy="Name a time that has passed, with its zone, such as 2026-03-09T15:30:00Z.",
        )


def rows_at(lake: Lake, settings: Settings, past: Past, now: datetime) -> pl.DataFrame:
    """Return the newest row of each holding of the logins at a moment; blocks.

    Raises:
        LakeError: A table cannot be used.
        MomentError: The moment is in the future, or before the first row.
    """
    require_past(past.at, now)
    ledger = lake.updates.sync
    rows = ledger.as_of(past.at, as_known_now=past.as_known_now)
    if rows.is_empty():
        begun = ledger.begun_at()
        first = f"the first was committed at {begun:{MOMENT}}" if begun else "it has none yet"
        raise MomentError(
            f"The ledger has no row of {past.at.astimezone(UTC):{MOMENT}}: {first}.",
            remedy="Name a later time." if begun else "Start `make dev`, which writes rows.",
        )
    return rows_of_logins(rows, settings)


def legs_at(lake: Lake, at: datetime) -> list[ActiveContract]:
    """Return the legs that were active at a moment, and whose contract is known; blocks."""
    return [
        replace(leg, removed_at=None)
        for leg in legs_of(lake.registry.table.rows())
        if isinstance(leg, ActiveContract)
        and (leg.added_at is None or leg.added_at <= at)
        and (leg.removed_at is None or at < leg.removed_at)
    ]


def breaks_at(breaks: Iterable[Break], at: datetime) -> list[Break]:
    """Return the breaks that were open at a moment, oldest first; pure."""
    found = (
        one
        for one in breaks
        if one.opened_at <= at and (one.resolved_at is None or at < one.resolved_at)
    )
    return sorted(found, key=lambda one: (one.opened_at, one.break_id))
