"""Rows of `daily_positions` from the broker's statements, and how they join our own rows."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime

import polars as pl

from position_sync_dagster.domain.discrepancy import Discrepancy, DiscrepancyType
from position_sync_dagster.domain.records.statement import FLEX, StatementPosition
from position_sync_dagster.domain.update import PriceKind, trading_mode_of
from position_sync_dagster.lake.schema.codec import frame_of
from position_sync_dagster.lake.schema.derived_tables import DAILY_POSITIONS
from position_sync_dagster.lake.updates.latest import HOLDING

LEAST_DIFFERENCE = 0.05
"""A value may differ by so much a unit in any case: half the spread of a cheap option."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinedDay:
    """The rows of one day.

    Attributes:
        differences: Between our own rows of the day and the statement; the rows are our own.
    """

    rows: pl.DataFrame
    differences: tuple[Discrepancy, ...]


def stated_rows(
    positions: Iterable[tuple[StatementPosition, str]], day: date, closed: datetime
) -> pl.DataFrame:
    """Return the rows of a day as the statements say, in the schema of `daily_positions`.

    Args:
        positions: Each with the name of its file.
        closed: The close of the day, in UTC: the time of the broker's values.
    """
    return frame_of(
        DAILY_POSITIONS,
        (
            {
                "session_date": day,
                "closed_at": closed,
                "age_s": 0.0,
                "update_id": f"{FLEX}:{one.account}:{one.conid}:{day}",
                "account": one.account,
                "conid": one.conid,
                "symbol": one.symbol,
                "sec_type": one.sec_type,
                "right": one.right,
                "strike": one.strike,
                "expiry": one.expiry,
                "multiplier": one.multiplier,
                "currency": one.currency,
                "local_symbol": one.local_symbol,
                "position": one.position,
                "market_price": one.market_price,
                "price_kind": None if one.market_price is None else PriceKind.MARK,
                "market_value": one.market_value,
                "average_cost": one.average_cost,
                "unrealized_pnl": one.unrealized_pnl,
                "timestamp": closed,
                "value_time": closed,
                "source": FLEX,
                "value_source": FLEX,
                "gateway_id": "",
                "trading_mode": trading_mode_of(one.account),
                "batch_id": file,
                "note": f"from the broker's statement {file}",
            }
            for one, file in positions
        ),
    )


def join_rows(
    own: pl.DataFrame,
    stated: pl.DataFrame,
    covered: Collection[str],
    *,
    opened: datetime,
    band: float,
) -> JoinedDay:
    """Return our own rows of a day, completed by the broker's statement, and what differs.

    A row that was written on the day stays. One from before the day, which only says what was last
    known, gives way to the statement. Accounts that no statement covers are left alone.

    Args:
        own: As `values_at_close` returns them.
        stated: As `stated_rows` returns them.
        covered: The accounts that the statements cover; what they do not state is not held there.
        opened: Local midnight at the start of the day.
        band: Part of its value by which a value may differ.
    """
    is_covered = pl.col("account").is_in(list(covered))
    written = pl.col("timestamp") >= opened.astimezone(UTC)
    fresh = own.filter(written | ~is_covered)
    added = stated.join(fresh, on=HOLDING, how="anti")
    rows = pl.concat([fresh, added]).sort(HOLDING)
    compared = fresh.filter(is_covered)
    if compared.is_empty():
        return JoinedDay(rows=rows, differences=())
    pairs = compared.select(_COMPARED).join(
        stated.select(_COMPARED), on=HOLDING, how="full", suffix="_stated", coalesce=True
    )
    seen_accounts = set(compared.get_column("account"))
    found = (
        _difference(pair, band)
        for pair in pairs.sort(HOLDING).iter_rows(named=True)
        if pair["account"] in seen_accounts
    )
    return JoinedDay(rows=rows, differences=tuple(one for one in found if one is not None))


_COMPARED = [*HOLDING, "symbol", "position", "market_value", "multiplier"]


def _difference(pair: dict[str, object], band: float) -> Discrepancy | None:
    mine, theirs = pair["position"], pair["position_stated"]
    if (mine or 0.0) != (theirs or 0.0):
        detail = "the quantity differs from the broker's statement"
        if mine is None:
            detail = "held by the broker's statement, no own row of the day"
    else:
        value, stated = pair["market_value"], pair["market_value_stated"]
        if not isinstance(value, float) or not isinstance(stated, float):
            return None
        units = abs(float(str(mine or 0.0))) * float(str(pair["multiplier"] or 1.0))
        if abs(value - stated) <= max(band * abs(stated), LEAST_DIFFERENCE * units):
            return None
        detail = f"the value is {value:.2f}, the broker's statement says {stated:.2f}"
    return Discrepancy(
        type=DiscrepancyType.STATEMENT,
        account=str(pair["account"]),
        conid=int(str(pair["conid"])),
        symbol=str(pair["symbol"] or pair["symbol_stated"] or ""),
        expected=None if theirs is None else float(str(theirs)),
        actual=None if mine is None else float(str(mine)),
        detail=detail,
    )
