"""Tables derived from the ledger: replaced whole or by the day, and only when they change."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
from deltalake import DeltaTable

from position_sync_dagster.lake.storage.frames import overwrite, scan
from position_sync_dagster.lake.storage.schemas import POSITION_UPDATES, Kind, TableSpec
from position_sync_dagster.lake.storage.table import Table
from position_sync_dagster.lake.updates.table import SyncUpdates

_VALUES = {name: kind for name, kind in POSITION_UPDATES.columns.items() if name != "date"}

LATE_BY = timedelta(hours=1)
"""How late a row may be committed and still be seen by an incremental read."""

LOOK_BACK_DAYS = 4
"""An older value than one from before a long weekend is no value at a close."""

LATEST_POSITIONS = TableSpec(
    name="latest_positions",
    version=1,
    columns=_VALUES,
    indexed=("account", "conid"),
)

STRATEGY_EXPOSURE = TableSpec(
    name="strategy_exposure",
    version=1,
    columns={
        "strategy_id": Kind.TEXT,
        "currency": Kind.TEXT,
        "asset_class": Kind.TEXT,
        "legs": Kind.COUNT,
        "legs_held": Kind.COUNT,
        "market_value": Kind.NUMBER,
        "notional": Kind.NUMBER,
        "unrealized_pnl": Kind.NUMBER,
        "delta": Kind.NUMBER,
        "gamma": Kind.NUMBER,
        "vega": Kind.NUMBER,
        "theta": Kind.NUMBER,
        "legs_without_value": Kind.COUNT,
        "legs_without_greeks": Kind.COUNT,
        "oldest_value_at": Kind.MOMENT,
    },
    indexed=("strategy_id",),
)

DAILY_POSITIONS = TableSpec(
    name="daily_positions",
    version=1,
    columns={
        "session_date": Kind.DAY,
        "closed_at": Kind.MOMENT,
        "age_s": Kind.NUMBER,
        **_VALUES,
    },
    partition_by=("session_date",),
    indexed=("account", "conid"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replaced:
    """What a replacement did.

    Attributes:
        version: Of the table, afterwards.
        changed: False when the table held exactly these rows: then nothing was committed.
    """

    version: int
    rows: int
    changed: bool


class DerivedTable:
    """A table whose rows follow from others; the same input leaves it untouched."""

    def __init__(
        self, path: str | Path, spec: TableSpec, *, storage_options: Mapping[str, str] | None = None
    ) -> None:
        self.spec = spec
        self._table = Table(path, spec, storage_options=storage_options)

    @property
    def path(self) -> str:
        """Give the table's absolute path or URI."""
        return self._table.path

    def version(self) -> int:
        """Give the newest version."""
        return self._table.version()

    def read(self, predicate: str | None = None) -> pl.DataFrame:
        """Read rows, in no particular order."""
        return self._table.rows(predicate)

    def replace(self, frame: pl.DataFrame, *, run_id: str | None = None) -> Replaced:
        """Make the whole table equal to the frame, in one commit.

        Raises:
            CommitContentionError: Others kept winning; nothing was changed.
        """
        return self._replace(frame, "true", run_id)

    def replace_days(
        self, frames: Mapping[date, pl.DataFrame], *, run_id: str | None = None
    ) -> Replaced:
        """Make the partitions of these days equal to their frames, in one commit.

        Raises:
            CommitContentionError: Others kept winning; nothing was changed.
        """
        listed = ", ".join(f"'{day.isoformat()}'" for day in sorted(frames))
        return self._replace(
            pl.concat(list(frames.values())),
            f"{self.spec.partition_by[0]} IN ({listed})",
            run_id,
        )

    def _replace(self, frame: pl.DataFrame, predicate: str, run_id: str | None) -> Replaced:
        wanted = frame.select(list(self.spec.columns)).cast(self.spec.polars)

        def step(handle: DeltaTable) -> Replaced:
            changed = not _same(scan(handle, self.spec, predicate), wanted)
            if changed:
                note = {"step": f"replace {self.spec.name}", "run_id": run_id or ""}
                overwrite(handle, wanted, predicate, note)
            return Replaced(version=handle.version(), rows=wanted.height, changed=changed)

        return self._table.transact(step)


def current_values(updates: SyncUpdates, latest: DerivedTable) -> pl.DataFrame:
    """Give the newest row per (account, conid), reading only what `latest` does not hold yet.

    Rows of the ledger are never changed, so what was the newest stays so against older rows.
    """
    known = latest.read()
    newest = known.get_column("timestamp").max()
    if not isinstance(newest, datetime):
        return updates.latest().select(list(_VALUES))
    fresh = updates.latest_since(newest - LATE_BY).select(list(_VALUES))
    return (
        pl.concat([known, fresh])
        .sort("timestamp", "update_id")
        .unique(["account", "conid"], keep="last")
        .sort("account", "conid")
    )


def values_at_close(
    updates: SyncUpdates, day: date, *, opened: datetime, closed: datetime
) -> pl.DataFrame:
    """Give the last row at or before a close of what was held then or closed on that day.

    Args:
        opened: The day's local midnight.
        closed: The close of its session.
    """
    held = (pl.col("position") != 0) | (pl.col("timestamp") >= opened.astimezone(UTC))
    return (
        updates.asof(closed, LOOK_BACK_DAYS)
        .filter(held)
        .with_columns(
            session_date=pl.lit(day),
            closed_at=pl.lit(closed).dt.cast_time_unit("us"),
            age_s=(pl.lit(closed) - pl.col("timestamp")).dt.total_milliseconds() / 1000,
        )
        .select(list(DAILY_POSITIONS.columns))
    )


def _same(found: pl.DataFrame, wanted: pl.DataFrame) -> bool:
    if found.height != wanted.height:
        return False
    order = wanted.columns
    return found.select(order).sort(order).equals(wanted.sort(order), null_equal=True)
