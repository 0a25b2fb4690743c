"""Tables that are derived from the ledger; a replacement by equal rows commits nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
from deltalake import DeltaTable

from position_sync_dagster.domain.update import ValueOrigin
from position_sync_dagster.lake.schema.derived_tables import DAILY_POSITIONS
from position_sync_dagster.lake.schema.table_spec import TableSpec
from position_sync_dagster.lake.storage.frames import overwrite, scan
from position_sync_dagster.lake.storage.table import Table
from position_sync_dagster.lake.updates.ledger import SyncUpdates

LOOK_BACK_DAYS = 4
"""How far back the value at a close may lie, in days: as long as a long weekend."""


_MOMENT = pl.Datetime("us", "UTC")


@dataclass(frozen=True, slots=True, kw_only=True)
class Replaced:
    """The outcome of a replacement.

    Attributes:
        version: The version of the table afterwards.
        rows: How many rows the replacement has.
        changed: False if the table held exactly these rows; then nothing was committed.
    """

    version: int
    rows: int
    changed: bool


class DerivedTable:
    """A table whose rows are computed from other tables; the same rows again change nothing."""

    def __init__(
        self, path: str | Path, spec: TableSpec, *, storage_options: Mapping[str, str] | None = None
    ) -> None:
        self.spec = spec
        self._table = Table(path, spec, storage_options=storage_options)

    @property
    def path(self) -> str:
        """The table's absolute path or URI."""
        return self._table.path

    def version(self) -> int:
        """Return the newest version."""
        return self._table.version()

    def read(self, columns: list[str] | None = None) -> pl.DataFrame:
        """Read all rows, in no particular order."""
        return self._table.rows(columns=columns)

    def replace(self, frame: pl.DataFrame, *, run_id: str | None = None) -> Replaced:
        """Make the whole table equal to the frame, in one commit.

        Raises:
            CommitContentionError: Other writers kept winning; nothing was changed.
        """
        return self._replace(frame, "true", run_id)

    def replace_days(
        self, frames: Mapping[date, pl.DataFrame], *, run_id: str | None = None
    ) -> Replaced:
        """Make the partitions of these days equal to their frames, in one commit.

        Raises:
            CommitContentionError: Other writers kept winning; nothing was changed.
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
                commit_info = {"step": f"replace {self.spec.name}", "run_id": run_id or ""}
                overwrite(handle, wanted, predicate, commit_info)
            return Replaced(version=handle.version(), rows=wanted.height, changed=changed)

        return self._table.transact(step)


def values_at_close(
    updates: SyncUpdates,
    day: date,
    *,
    opened: datetime,
    closed: datetime,
    confirmed: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Return the last row at or before a close, of holdings held then or closed on that day.

    Args:
        opened: Local midnight at the start of the trading day.
        closed: The close of the exchange on that day.
        confirmed: When rows (`update_id`) were confirmed (`confirmed_at`), from before the close.
    """
    if confirmed is None:
        confirmed = pl.DataFrame(schema={"update_id": pl.String, "confirmed_at": _MOMENT})
    newest = confirmed.filter(pl.col("confirmed_at") <= closed.astimezone(UTC)).group_by(
        "update_id"
    )
    held = (pl.col("position") != 0) | (pl.col("timestamp") >= opened.astimezone(UTC))
    return (
        updates.asof(closed, LOOK_BACK_DAYS)
        .filter(held)
        .join(newest.agg(pl.col("confirmed_at").max()), on="update_id", how="left")
        .with_columns(
            session_date=pl.lit(day),
            closed_at=pl.lit(closed).dt.cast_time_unit("us"),
            age_s=(
                pl.lit(closed) - pl.max_horizontal(_valued_at(), "confirmed_at")
            ).dt.total_milliseconds()
            / 1000,
        )
        .select(list(DAILY_POSITIONS.columns))
    )


def _valued_at() -> pl.Expr:
    """Return when the value of a row was true, as far as the row itself says.

    A row of the account feed may have been written long after the broker sent its value.
    """
    from_feed = pl.col("value_source").is_in(
        [ValueOrigin.PORTFOLIO.value, ValueOrigin.PNL_SINGLE.value]
    )
    earlier = (pl.col("position") != 0) & (pl.col("value_time") < pl.col("timestamp"))
    return pl.when(from_feed & earlier).then("value_time").otherwise("timestamp")


def _same(found: pl.DataFrame, wanted: pl.DataFrame) -> bool:
    if found.height != wanted.height:
        return False
    order = wanted.columns
    return found.select(order).sort(order).equals(wanted.sort(order), null_equal=True)
