"""Tables that are derived from others; a replacement by equal rows commits nothing.

The rows of such a table are written by a function that reads what they are made of, its sources,
and by nothing else. `derive` looks, as it commits the rows, whether the sources are still as they
were read. `derive_from_ledger`, for tables that each tick makes anew, does not.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from typing import Any, TypeVar

import polars as pl
from deltalake import DeltaTable
from polars import DataFrame, Expr, col

from position_sync_dagster.errors import CommitContentionError, NewerRowError
from position_sync_dagster.lake.ledger_rows import newest_version
from position_sync_dagster.lake.storage.commit_errors import STORAGE_ERRORS
from position_sync_dagster.lake.storage.commits import write
from position_sync_dagster.lake.storage.data_files import EVERY, data_files
from position_sync_dagster.lake.storage.table import Read, Table, noted


@dataclass(frozen=True, slots=True, kw_only=True)
class Replaced:
    """The outcome of a replacement.

    Attributes:
        version: The version of the table afterwards.
        rows: How many rows the replacement has.
        changed: False if the table held exactly these rows; then nothing was committed.
        ledger_version: The greatest `ledger_version` of these rows; 0 where none has one.
    """

    version: int
    rows: int
    changed: bool
    ledger_version: int = 0


# All rows of a table, or those of each day that is replaced.
Rows = DataFrame | Mapping[date, DataFrame]
Made = TypeVar("Made")


# How often rows are made, each time because what they are made of changed meanwhile.
ATTEMPTS = 10


def _themselves(rows: Any) -> Any:
    return rows


def derive(
    table: Table,
    make: Callable[[], Made],
    rows_of: Callable[[Made], Rows] = _themselves,
    *,
    run_id: str | None = None,
) -> tuple[Made, Replaced]:
    """Make rows of a table equal to what `make` reads, and read again what changed meanwhile.

    What `make` reads of other tables is noted: their rows, not their versions. So a commit that
    adds rows elsewhere holds nothing up. An older look never replaces what another process
    committed.

    Args:
        make: Reads the sources; what it returns is returned.
        rows_of: Returns the rows; what `make` returns by default.

    Raises:
        CommitContentionError: What was read, or the table, changed during each look.
    """
    for _attempt in range(ATTEMPTS):
        looked_at = table.version() if table.exists() else 0
        made, reads = noted(make)
        sources = [read for read in reads if read.table.path != table.path]
        if any(map(_is_outdated, sources)):
            continue
        with suppress(NewerRowError):  # another process has replaced the rows: make them anew
            replaced = _replace(table, rows_of(made), looked_at, run_id)
            # A source may have changed right before the commit.
            if not any(map(_is_outdated, sources)):
                return made, replaced

    raise CommitContentionError(
        f"{table.spec.name}, or what it is made of, was changed by another process each of "
        f"{ATTEMPTS} times.",
        remedy="Do it again.",
    )


def derive_from_ledger(
    table: Table,
    make: Callable[[], Made],
    rows_of: Callable[[Made], DataFrame] = _themselves,
    *,
    run_id: str | None = None,
) -> tuple[Made, Replaced]:
    """Derive a table that moves with each price; of two looks at once the last one stays.

    The last look is the one with the greatest `ledger_version`, a column that the table must have.
    Where the rows of another process stay, the outcome describes them. Nothing is read again if it
    has changed, as `derive` does: the next tick follows in seconds.

    Args:
        make: Reads the sources; what it returns is returned.
        rows_of: Returns the rows; what `make` returns by default.
    """
    for _attempt in range(2):  # of two in vain, the rows of the other process stay
        looked_at = table.version() if table.exists() else 0
        made = make()
        try:
            return made, _replace(table, rows_of(made), looked_at, run_id, last_look_stays=True)
        except NewerRowError:
            continue  # another process replaced the rows meanwhile, by as late a look
        except CommitContentionError:
            break  # others replace the rows all the time

    return made, table.snapshot(
        lambda handle: _outcome(handle, table.read_rows(data_files(handle)), changed=False)
    )


def _is_outdated(read: Read) -> bool:
    """Return whether the same reading finds something else now; `derive` asks after each making.

    Only the files that came or went since are read: rows that were merged into other files are the
    same ones.
    """
    present = read.table.read(lambda files: files, read.chosen)
    if present["path"].equals(read.files["path"]):
        return False
    added = present.join(read.files, on="path", how="anti")
    removed = read.files.join(present, on="path", how="anti")
    if added.is_empty() and removed.is_empty():
        return False

    try:
        before, now = map(read.step, (removed, added))
    except STORAGE_ERRORS:
        return True  # the files that were removed are deleted by now
    # What was read of the removed files is compared with what is read of the added ones.
    if isinstance(now, DataFrame):
        return not same_rows(before, now)
    return bool(before != now)


def _replace(
    table: Table,
    rows: Rows,
    looked_at: int,
    run_id: str | None,
    *,
    last_look_stays: bool = False,
) -> Replaced:
    """Make a table, or its partitions of some days, equal to these rows, in one commit.

    Args:
        rows: All rows of the table; or those of some days, by the day.
        looked_at: The version of the table before the sources of the rows were read.
        run_id: The Dagster run, for the log.
        last_look_stays: Rows with a smaller `ledger_version` are replaced, whoever wrote them.

    Raises:
        CommitContentionError: Other writers committed first each time; nothing was changed.
        NewerRowError: The table has another version; nothing was changed.
    """
    spec = table.spec
    predicate = "true"  # every row
    chosen = EVERY
    if not isinstance(rows, DataFrame):
        if not rows:
            return Replaced(version=looked_at, rows=0, changed=False)
        predicate, chosen = _of_days(table, rows)
        rows = pl.concat(_typed(table, of_day) for of_day in rows.values())
    wanted = _typed(table, rows)

    def step(handle: DeltaTable) -> Replaced:
        # It runs again on the newest version if another writer was first.
        files = data_files(handle).filter(chosen)
        is_last = False  # whether these rows are of a later look than those that are stored
        if last_look_stays:
            stored = table.read_rows(files, ["ledger_version"])
            is_last = newest_version(stored) < newest_version(wanted)
        if handle.version() != looked_at and not is_last:
            raise NewerRowError(
                f"{spec.name} was derived by another run meanwhile.", remedy="Derive it again."
            )

        # Rows of a later look differ: their `ledger_version` does.
        changed = is_last or not same_rows(table.read_rows(files), wanted)
        if changed:
            commit_info = {"step": f"replace {spec.name}", "run_id": run_id or ""}
            write(handle, wanted, commit_info, predicate=predicate)
        return _outcome(handle, wanted, changed=changed)

    return table.transact(step)


def _outcome(handle: DeltaTable, rows: DataFrame, *, changed: bool) -> Replaced:
    """Return what became of a table whose rows are these now, `changed` or as they were before."""
    ledger_version = newest_version(rows) if "ledger_version" in rows.columns else 0
    return Replaced(
        version=handle.version(), rows=rows.height, changed=changed, ledger_version=ledger_version
    )


def _typed(table: Table, rows: DataFrame) -> DataFrame:
    """Return rows in the schema of a table: a day without rows may have other types."""
    return rows.select(*table.spec.columns).cast(table.spec.polars)


def _of_days(table: Table, days: Iterable[date]) -> tuple[str, Expr]:
    """Return the predicate of the rows of these days, and which data files have them."""
    [name] = table.spec.partition_by
    wanted = sorted(days)
    listed = ", ".join(f"'{day.isoformat()}'" for day in wanted)
    has_rows = col(f"partition.{name}").is_in(wanted)
    return f"{name} IN ({listed})", has_rows


def same_rows(stored: DataFrame, wanted: DataFrame) -> bool:
    """Return whether two frames have the same rows, in whatever order; pure."""
    if stored.height != wanted.height:
        return False

    order = wanted.columns
    return stored.select(order).sort(order).equals(wanted.sort(order))
