"""Rows of `daily_positions` that the broker's statements state, joined with our own."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from itertools import accumulate

import polars as pl

from position_sync_dagster.domain.execution import FLEX
from position_sync_dagster.domain.holding import Key
from position_sync_dagster.domain.position_update import PriceKind, trading_mode_of
from position_sync_dagster.domain.reconciliation import (
    LEAST_DIFFERENCE,
    Discrepancy,
    DiscrepancyType,
)
from position_sync_dagster.lake.ledger_rows import HOLDING
from position_sync_dagster.lake.schema import DAILY_POSITIONS, fields_of, frame_of
from position_sync_dagster.money.past.causes import rounded
from position_sync_dagster.money.past.closes import StatementPosition


def stated_rows(
    positions: Iterable[tuple[StatementPosition, str]], day: date, closed: datetime
) -> pl.DataFrame:
    """Return the positions of statements as rows of a day, in the schema of `daily_positions`.

    Args:
        positions: Positions, each with the name of its file.
        closed: The close of the day, in UTC: the time of the broker's values.
    """
    of_day = {
        "session_date": day,
        "closed_at": closed,
        "timestamp": closed,
        "value_time": closed,
        "age_s": 0.0,
        "source": FLEX,
        "value_source": FLEX,
        "gateway_id": "",
    }

    rows = []
    for position, file in positions:
        row = fields_of(position) | of_day
        row["update_id"] = f"{FLEX}:{position.account}:{position.conid}:{day}"
        row["price_kind"] = None if position.market_price is None else PriceKind.MARK
        row["trading_mode"] = trading_mode_of(position.account)
        row["batch_id"] = file
        row["note"] = f"from the broker's statement {file}"
        rows.append(row)
    return frame_of(DAILY_POSITIONS, rows)


def join_rows(
    valued: pl.DataFrame,
    stated: pl.DataFrame,
    covered: Collection[str],
    *,
    opened: datetime,
    band: float,
    traded: Mapping[Key, Sequence[float]],
) -> tuple[pl.DataFrame, list[Discrepancy]]:
    """Return our own rows of a day, completed by the broker's statement, and where they differ.

    A row that was written on the day is kept. A row from before the day is replaced by that of the
    statement. Accounts that no statement covers are left alone. A statement has the quantities of
    the end of its day: where trades after the close lead to them, ours are those of the close.

    Args:
        valued: As `values_at_close` returns them.
        stated: As `stated_rows` returns them.
        covered: The accounts that the statements cover; a position they do not list is not held.
        opened: Local midnight at the start of the day.
        band: Tolerated difference, as a fraction of the value.
        traded: By how much each trade after the close changed a holding, in order of time.
    """
    is_covered = pl.col("account").is_in(list(covered))
    written = pl.col("timestamp") >= opened.astimezone(UTC)
    fresh = valued.filter(written | ~is_covered)
    compared = fresh.filter(is_covered).select(_COMPARED)
    of_seen = stated.join(compared, on="account", how="semi").select(_COMPARED)
    pairs = compared.join(of_seen, on=HOLDING, how="full", suffix="_stated", coalesce=True)

    later = _traded_later(pairs, traded)
    present = pl.concat([fresh.select(HOLDING), later])
    rows = pl.concat([fresh, stated.join(present, on=HOLDING, how="anti")]).sort(HOLDING)

    unexplained = pairs.join(later, on=HOLDING, how="anti")
    differing = _differing(unexplained, band).sort(HOLDING)
    differences = [
        Discrepancy(type=DiscrepancyType.STATEMENT, **row)
        for row in differing.iter_rows(named=True)
    ]
    return rows, differences


def _traded_later(pairs: pl.DataFrame, traded: Mapping[Key, Sequence[float]]) -> pl.DataFrame:
    """Return the holdings whose trades after the close lead from our quantity to the stated one.

    Both quantities are right then.
    """
    # What only one side lists, the other does not hold.
    quantities = pl.col("position", "position_stated").fill_null(0.0)
    holdings = []
    for account, conid, mine, theirs in pairs.select(*HOLDING, quantities).iter_rows():
        changes = accumulate(traded.get((account, conid), ()))
        reached = {rounded(mine + change) for change in changes}
        if rounded(theirs) in reached:
            holdings.append((account, conid))
    kinds = {name: pairs.schema[name] for name in HOLDING}
    return pl.DataFrame(holdings, kinds, orient="row")


_COMPARED = [*HOLDING, "symbol", "position", "market_value", "multiplier"]


def _differing(pairs: pl.DataFrame, band: float) -> pl.DataFrame:
    """Return the holdings of which quantity or value differs, with the fields of a Discrepancy."""
    mine = pl.col("position")
    theirs = pl.col("position_stated")
    is_missing = mine.is_null() & (theirs != 0)
    missing = pl.lit("the broker's statement lists it, and we have no row of the day")

    # What only one side lists, the other does not hold.
    quantity_differs = mine.fill_null(0.0) != theirs.fill_null(0.0)
    quantities = pl.lit("the quantity differs from the broker's statement")

    value = pl.col("market_value")
    stated = pl.col("market_value_stated")
    # A tolerance, and no sum of money: without a multiplier the smallest one is meant.
    units = mine.abs() * pl.col("multiplier").fill_null(1.0)
    tolerance = pl.max_horizontal(stated.abs() * band, LEAST_DIFFERENCE * units)
    value_differs = (value - stated).abs() > tolerance
    values = pl.format("the value is {}, the broker's statement says {}", value, stated)

    detail = (
        pl.when(is_missing)
        .then(missing)
        .when(quantity_differs)
        .then(quantities)
        .when(value_differs)
        .then(values)
    )
    symbol = pl.coalesce("symbol", "symbol_stated", pl.lit(""))
    compared = pairs.select(*HOLDING, symbol=symbol, expected=theirs, actual=mine, detail=detail)
    return compared.drop_nulls("detail")
