"""When the source of each row last confirmed it, and how old its price is.

What the times of a holding mean, in every module:

- `received_at`: when its row of `broker_positions` last changed; of a value by PnLSingle, when its
  newest message came.
- `value_time`: when the value was true, as its source says; of a price of market data, when the
  tick came. Null where nothing says so.
- `confirmed_at`: until when the broker is known to have confirmed it: of a holding in the book and
  in `broker_positions`, of a whole account, of the row that answers a request. A break has another
  one: when it was seen again.
- `confirmed_until`: the same of a row of the ledger, whoever wrote it (`with_confirmed`). STALE is
  judged by it.
- `priced_at`: from when the age of the price of a row counts (`with_priced`). `latest_positions`
  shows it as `confirmed_at`. A line has one too: when its newest price that counts came.
"""

from datetime import datetime, timedelta
from typing import Any

import polars as pl
from polars import DataFrame, Expr, col, max_horizontal, when

from position_sync_dagster.domain import valuation
from position_sync_dagster.domain.clock import SKEW
from position_sync_dagster.domain.holding import KEY
from position_sync_dagster.domain.position_update import ValueOrigin
from position_sync_dagster.domain.streamed_holding import allowed_difference, earliest_calculation
from position_sync_dagster.lake.schema import moment

# A value that its source confirmed longer ago is stale: three rounds of the account's values
# have passed. Reconciliation calls it STALE (`_differences`), and it is not current in any sum.
STALE_AFTER = timedelta(minutes=10)


# The column that `with_confirmed` adds: until when the value of a row was confirmed.
CONFIRMED = "confirmed_until"

# The column that `with_priced` adds beside CONFIRMED: from when the age of the price counts.
PRICED = "priced_at"

# The columns of a holding that decide when its row was confirmed.
_CONFIRMING = (
    "position", "market_price", "market_value", "value_source", "value_time", "confirmed_at",
    "received_at",
)  # fmt: skip

_NO_ORIGIN = ValueOrigin.NONE.value
_ORIGINS = [origin.value for origin in ValueOrigin]

# The origins of the broker's own values.
OF_BROKER = [origin.value for origin in valuation.BROKER]


def with_confirmed(rows: DataFrame, holdings: DataFrame, now: datetime) -> DataFrame:
    """Add to rows the newest time at which its source is known to have confirmed each value.

    For a row of market data, the time of the row counts. A row that was written outside the session
    of its contract is repeated rarely; until the next one, the broker's confirmations of the
    holding show that the owner of the login sees the broker. A row of the account feed may have
    been written long after the broker sent its value, and is not written again while the value
    stays the same. For it, the time of the value counts, and each later time at which the broker
    confirmed the holding with the same value. Only messages of PnLSingle confirm a value of
    PnLSingle. If none of these times is known, the value is at least as old as the row. For a row
    without a value, the time of the row counts, or a confirmation as for the account feed. If the
    only time is one that a wrong clock wrote, the age is unknown: null.

    Args:
        rows: Rows of `position_updates`.
        holdings: Rows of `broker_positions`; at most one for each account and conid.
        now: The current time.
    """
    return _with_reported(rows, holdings, now).select(*rows.columns, CONFIRMED)


def _with_reported(rows: DataFrame, holdings: DataFrame, now: datetime) -> DataFrame:
    """Add the column of `with_confirmed`, and those of the holding, with `_` before their names."""
    confirming = holdings.select(*KEY, col(_CONFIRMING).name.prefix("_"))
    joined = rows.join(confirming, on=KEY, how="left", maintain_order="left")
    return joined.with_columns(_confirmed(now).alias(CONFIRMED))


def _confirmed(now: datetime) -> Expr:
    """Return the column of `with_confirmed`: `_name` is the holding's column, `name` the row's."""
    # An unknown origin counts as NONE.
    source = col.value_source.replace_strict(_ORIGINS, _ORIGINS, default=_NO_ORIGIN)
    has_no_value = (source == _NO_ORIGIN) & col.market_value.is_null()
    is_of_broker = source.is_in(OF_BROKER)

    # When the source of the broker's value last confirmed it.
    agrees = col._position.is_not_null() & pl.all_horizontal(
        col(name).eq_missing(col(f"_{name}"))
        for name in ("position", "market_price", "market_value")
    )
    # Messages of PnLSingle confirm its values, and those of the account all others.
    is_pnl = col._value_source == ValueOrigin.PNL_SINGLE
    by_account = max_horizontal("_confirmed_at", "_value_time")
    # A row without a value counts from its own time.
    broker_said_at = max_horizontal(
        when(has_no_value).then("timestamp").otherwise("value_time"),
        when(agrees & is_pnl).then("_received_at"),
        when(agrees & ~is_pnl).then(by_account),  # neither, where the source is not known
    )

    # A row from outside the session is repeated rarely: confirmations of the holding count.
    is_outside = col.note.str.starts_with(valuation.OUTSIDE_SESSION)
    is_tick_outside = (source == ValueOrigin.TICK) & is_outside
    is_same_quantity = col.position.eq_missing(col._position)
    outside_seen_at = max_horizontal(when(is_same_quantity).then("_confirmed_at"), "timestamp")

    # All other rows, as those of closed holdings, count from their own time.
    is_open = col.position != 0
    at = pl.coalesce(
        when(is_open, has_no_value | is_of_broker).then(broker_said_at),
        when(is_open, is_tick_outside).then(outside_seen_at),
        "timestamp",
    )
    # Clocks of machines differ by up to SKEW: only a wrong one can have written a later time.
    return when(at <= moment(now + SKEW)).then(at)


def with_priced(rows: DataFrame, holdings: DataFrame, now: datetime) -> DataFrame:
    """Add to rows CONFIRMED, and the time from which the age of each price counts; null: unknown.

    A price of market data counts from its arrival (`value_time`), or from a newer value of the
    broker that confirms it. Ticks of other parts and the writing of the row confirm nothing.
    Delayed and frozen prices arrive long after they were true: without a time of their own, only
    the broker confirms them. Every other value is the broker's (`with_confirmed`).

    Args:
        rows: Rows of `position_updates`.
        holdings: Rows of `broker_positions`; at most one for each account and conid.
        now: The current time.
    """
    reported = _with_reported(rows, holdings, now)
    is_of_line = reported["value_source"] == ValueOrigin.TICK
    times = [_priced_at(row, now) for row in reported.filter(is_of_line).iter_rows(named=True)]
    confirmed = reported[CONFIRMED]
    priced = confirmed.scatter(is_of_line.arg_true(), pl.Series(times, dtype=confirmed.dtype))
    return reported.select(*rows.columns, CONFIRMED, priced.alias(PRICED))


def _priced_at(row: dict[str, Any], now: datetime) -> datetime | None:
    """Return the newest time at which the price of a line arrived or was confirmed.

    A value of the broker confirms it if it is one for the same quantity, calculated after the
    arrival, which differs by no more than the stream allows. A row does not have the smallest
    change of a price: without an ask, a price may count as older than it does in the stream.
    """
    arrived = row["value_time"]
    value = row["market_value"]
    of_broker = row["_market_value"]
    origin = row["_value_source"]
    times = [arrived]

    is_comparable = origin in OF_BROKER and row["position"] == row["_position"]
    if is_comparable and value is not None and of_broker is not None:
        calculated = earliest_calculation(origin, row["_value_time"], row["_received_at"])
        # What a price of 1 is worth for the holding.
        unit = abs(value / row["market_price"]) if row["market_price"] else 0.0
        allowed = allowed_difference(value, bid=row["bid"], ask=row["ask"], unit=unit)

        is_newer = arrived is None or calculated > arrived
        if is_newer and abs(value - of_broker) <= allowed:
            times.append(calculated)
            # Messages of its account confirm a portfolio row too.
            if origin == ValueOrigin.PORTFOLIO:
                times.append(row["_confirmed_at"])

    newest = max(filter(None, times), default=None)
    return newest if newest is not None and newest <= now + SKEW else None
