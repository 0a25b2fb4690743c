"""The table `movements`: what the broker did to holdings and cash, each once; all of it counts."""

from collections.abc import Callable, Iterable
from datetime import date

import polars as pl

from position_sync_dagster.domain.movements import Movement
from position_sync_dagster.lake import derived, schema
from position_sync_dagster.lake.storage import table as storage
from position_sync_dagster.lake.storage.table import Table


class MovementsTable:
    """The table `movements`, which is replaced as a whole.

    Example:
        lake.movements.rows(since=date(2026, 3, 2), only=pl.col("account") == "U1234567")
    """

    def __init__(self, table: Table) -> None:
        self.table = table

    def rows(self, since: date | None = None, only: pl.Expr | None = None) -> pl.DataFrame:
        """Return movements in order of day; only files are read that may have one of them.

        Args:
            since: The earliest `day`; None: any.
            only: Chooses rows.
        """
        chosen = storage.EVERY
        wanted = storage.EVERY if only is None else only
        if since is not None:
            chosen = storage.may_have("day", since)
            wanted = wanted & (pl.col("day") >= since)

        return self.table.rows(wanted, chosen).sort("day", "movement_id")

    def records(self, since: date | None = None, only: pl.Expr | None = None) -> list[Movement]:
        """Return movements as records; see `rows`."""
        return schema.records_of(Movement, self.rows(since, only))

    def derive(
        self,
        make: Callable[[], Iterable[Movement]],
        *,
        since: date | None = None,
        run_id: str | None = None,
    ) -> derived.Replaced:
        """Make the table equal to what `make` reads; equal movements commit nothing.

        Args:
            make: Reads the sources of the movements since that day.
            since: Movements of earlier days stay; None: there are none.

        Raises:
            CommitContentionError: Other writers committed first each time; nothing was changed.
        """

        def rows() -> tuple[None, pl.DataFrame]:
            movements = schema.frame_of(self.table.spec, make())
            if since is None:
                return None, movements
            return None, pl.concat([self.table.rows(pl.col("day") < since), movements])

        _made, replaced = derived.derive(self.table, rows, run_id=run_id)
        return replaced


def sum_if_known(amounts: pl.Expr) -> pl.Expr:
    """Return the sum of amounts; null if one of them is not known."""
    return pl.when(amounts.is_not_null().all()).then(amounts.sum())
