"""A moment of the past, and what was true at it: rows and legs."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime

import polars as pl

from position_sync_dagster.domain.leg import ActiveContract
from position_sync_dagster.errors import LakeError, UserError
from position_sync_dagster.lake import schema
from position_sync_dagster.lake.lake import rows_of_logins
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.settings import Settings

# No rows of `broker_positions`: the table keeps no reports of a past moment.
NO_HOLDINGS = schema.BROKER_POSITIONS.empty

MOMENT = "%Y-%m-%d %H:%M:%S UTC"


class MomentError(LakeError, UserError):
    """The tables cannot say what was known at a moment: it is in the future, or before them."""

    page = "docs/follow.md#the-past-as-it-was-known"


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """A moment: what had been committed by it counts.

    Attributes:
        at: The moment, with a time zone.
    """

    at: datetime

    def __str__(self) -> str:
        """Return the line that stands above a report."""
        return f"As of {self.at.astimezone(UTC):{MOMENT}}: what had been committed by then."


def require_past(at: datetime, now: datetime) -> None:
    """Raise if a moment is in the future.

    Raises:
        MomentError: The moment is in the future.
    """
    if at > now:
        moment = at.astimezone(UTC)
        raise MomentError(
            f"{moment:{MOMENT}} is in the future; it is {now:{MOMENT}}.",
            remedy="Name a time that has passed, with its zone, such as 2026-03-09T15:30:00Z.",
        )


def rows_at(lake: MoneyLake, settings: Settings, past: Past, now: datetime) -> pl.DataFrame:
    """Return the newest row of each holding of the logins at a moment; blocks.

    Raises:
        LakeError: A table cannot be used.
        MomentError: The moment is in the future, or before the first row.
    """
    require_past(past.at, now)
    rows = lake.updates.sync.as_of(past.at)
    if rows.is_empty():
        moment = past.at.astimezone(UTC)
        raise MomentError(
            f"The ledger has no row of {moment:{MOMENT}}.",
            remedy="Name a later time, or start `position-sync dev`: it writes rows.",
        )
    return rows_of_logins(rows, settings)


def legs_at(lake: MoneyLake, at: datetime) -> list[ActiveContract]:
    """Return the legs that were active at a moment, and whose contract is known; blocks."""
    active = []
    for leg in schema.legs_of(lake.registry.table.rows()):
        was_removed = leg.removed_at is not None and leg.removed_at <= at
        if not isinstance(leg, ActiveContract) or leg.added_at > at or was_removed:
            continue

        active.append(replace(leg, removed_at=None))
    return active
