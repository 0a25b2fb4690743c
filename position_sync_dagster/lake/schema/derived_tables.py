"""The schema of the tables that are derived from `position_updates`."""

from position_sync_dagster.lake.schema.columns import (
    StoredColumn,
    count_column,
    day_column,
    moment_column,
    number_column,
    text_column,
)
from position_sync_dagster.lake.schema.table_spec import TableSpec
from position_sync_dagster.lake.schema.tables import POSITION_UPDATES

_VALUES = {
    name: StoredColumn(kind=kind, description=POSITION_UPDATES.descriptions[name])
    for name, kind in POSITION_UPDATES.columns.items()
    if name != "date"
}

LATEST_POSITIONS = TableSpec.of(
    "latest_positions",
    _VALUES
    | {
        "confirmed_at": moment_column(
            "When the source of the value is known to have confirmed it last. A row is not written "
            "again while its value stays the same: the age of the value counts from here."
        )
    },
    version=4,
    indexed=("account", "conid"),
)

STRATEGY_EXPOSURE = TableSpec.of(
    "strategy_exposure",
    {
        "strategy_id": text_column("The strategy."),
        "currency": text_column("Currency of the sums; null for legs that were never valued."),
        "asset_class": text_column("OPTION, STOCK, FUTURE, OTHER, or UNKNOWN without a holding."),
        "legs": count_column("Active legs of the strategy in this currency and class."),
        "legs_held": count_column("Legs of these with a holding."),
        "market_value": number_column(
            "Sum of the market values; null for futures. Unit: `currency`."
        ),
        "notional": number_column("Sum of the notional values of futures. Unit: `currency`."),
        "unrealized_pnl": number_column("Sum of the unrealized profit and loss. Unit: `currency`."),
        "delta": number_column("Sum of delta × quantity × multiplier. Unit: deltas."),
        "gamma": number_column(
            "Sum of gamma × quantity × multiplier. Unit: deltas per `currency`."
        ),
        "vega": number_column("Sum of vega × quantity × multiplier. Unit: `currency`."),
        "theta": number_column("Sum of theta × quantity × multiplier. Unit: `currency`."),
        "legs_without_value": count_column("Legs that are missing in the sums of money."),
        "legs_without_greeks": count_column("Legs that are missing in the sums of greeks."),
        "oldest_value_at": moment_column("Time of the oldest value in the sums."),
        "dollar_delta": number_column(
            "Sum of delta × quantity × multiplier × price of the underlying; of a stock or a "
            "future its value. Unit: `currency`."
        ),
        "by_underlying": text_column(
            "JSON: for each underlying the sums of delta, gamma, vega, theta and dollar_delta."
        ),
        "daily_pnl": number_column("Sum of the profit and loss of the day. Unit: `currency`."),
        "worst_value_age_s": number_column(
            "Age of the oldest value when this row was made, at least so much where its source "
            "gave no time. Unit: seconds."
        ),
        "legs_without_value_time": count_column("Held legs whose value has no time of its source."),
        "legs_expiring": count_column("Held legs that expire within 5 days, or have expired."),
        "short_legs_in_money": count_column("Held short options in the money."),
        "short_legs_unknown": count_column(
            "Held short options of which the price of the underlying is not known."
        ),
        "mismatches": text_column(
            "Legs that name another contract than their conid, with the difference; in no sum."
        ),
    },
    indexed=("strategy_id",),
    version=3,
)

DAILY_POSITIONS = TableSpec.of(
    "daily_positions",
    {
        "session_date": day_column("Partition: the exchange's trading day."),
        "closed_at": moment_column("When the exchange closed on that day."),
        "age_s": number_column(
            "Age of the value at the close: since its source last confirmed it before the close, "
            "as far as that is known. Unit: seconds."
        ),
        **_VALUES,
        "source": text_column(
            "Which path wrote the row: STREAM, QUEUE, or FLEX (the broker's statement of the day)."
        ),
        "value_source": text_column(f"{_VALUES['value_source'].description} Of a statement: FLEX."),
    },
    version=3,
    partition_by=("session_date",),
    indexed=("account", "conid"),
)

DERIVED = (LATEST_POSITIONS, STRATEGY_EXPOSURE, DAILY_POSITIONS)
