"""The schema of every table of the lake, the derived ones too: its version and its physical layout.

Where one dataclass holds exactly a table's columns, they are derived from it; their order in the
table is defined here.
"""

from position_sync_dagster.domain.account_summary import AccountSummary
from position_sync_dagster.domain.broker_position import GREEKS_COLUMNS
from position_sync_dagster.domain.closures import Closure, PositionChange
from position_sync_dagster.domain.gateway_session import GatewaySession
from position_sync_dagster.domain.leg import ActiveContract, UnresolvedLeg
from position_sync_dagster.domain.request import QueuedPosition
from position_sync_dagster.domain.run_record import RunRecord
from position_sync_dagster.domain.statement import Execution, StatementEvent
from position_sync_dagster.domain.update import PositionUpdate
from position_sync_dagster.lake.schema.table_spec import (
    StoredColumn,
    TableSpec,
    columns_of,
    count_column,
    day_column,
    flag_column,
    in_order,
    moment_column,
    number_column,
    text_column,
)

_PARTITION = {
    "bucket": text_column("Partition: `live`, or the kind of finished rows."),
    "part": text_column("Partition: the commit that finished the row; `0` for live rows."),
}
PARTITION_COLUMNS = tuple(_PARTITION)
"""The `partition_by` of every `LifecycleTable`; see `schema/partitions.py`."""

ACTIVE_STRATEGIES = TableSpec.of(
    "active_strategies",
    in_order(
        columns_of(ActiveContract) | columns_of(UnresolvedLeg) | _PARTITION,
        """strategy_id account conid symbol right strike expiry quantity priority added_at
        removed_at bucket part sec_type trading_class multiplier exchange currency resolved_at
        problem rolled_from""",
    ),
    version=3,
    partition_by=PARTITION_COLUMNS,
    indexed=("added_at", "removed_at"),
    order="removed_at",
)

POSITION_QUEUE = TableSpec.of(
    "position_queue",
    in_order(
        columns_of(QueuedPosition),
        """request_id account conid symbol priority status attempts created_at updated_at
        available_at lease_owner lease_token lease_expires_at error_message reason update_id
        confirmed_at""",
    )
    | _PARTITION,
    version=2,
    partition_by=PARTITION_COLUMNS,
    indexed=("request_id", "created_at", "updated_at"),
    order="updated_at",
    key=("request_id",),
)

UPDATE_COLUMNS = columns_of(PositionUpdate)
"""The columns of `position_updates` that callers fill, in the order of the dataclass."""

COMMIT_COLUMNS = {
    "ledger_version": count_column(
        "Version of position_updates that added the row. It grows with each commit: the order in "
        "which rows came, whatever the clocks said. Null for rows of older releases."
    ),
    "committed_at": moment_column(
        "When the row was added, by the clock of its writer (UTC); null for rows of older releases."
    ),
}
"""The columns of `position_updates` that the ledger fills at each commit."""

POSITION_UPDATES = TableSpec.of(
    "position_updates",
    in_order(
        UPDATE_COLUMNS
        | COMMIT_COLUMNS
        | {"date": day_column("Partition: the UTC date of timestamp.")},
        """update_id account conid symbol sec_type right strike expiry multiplier currency position
        market_price price_kind bid ask market_value average_cost unrealized_pnl realized_pnl
        daily_pnl implied_vol delta gamma vega theta underlying_price timestamp value_time date
        source value_source market_data_type gateway_id trading_mode request_id session_id
        fencing_token run_id batch_id greeks_time trading_class local_symbol note
        ledger_version committed_at greeks_source greeks_method volatility_time""",
    ),
    version=5,
    partition_by=("date",),
    indexed=("update_id", "timestamp", "batch_id", "ledger_version"),
    order="ledger_version",
    key=("update_id",),
)

_LOCAL_SYMBOL = text_column(
    "IB's local symbol of the contract, such as the OCC symbol of an option."
)
_TRADING_CLASS = text_column("IB's trading class of the contract.")

BROKER_POSITIONS = TableSpec.of(
    "broker_positions",
    {
        "gateway_id": UPDATE_COLUMNS["gateway_id"],
        "account": UPDATE_COLUMNS["account"],
        "conid": UPDATE_COLUMNS["conid"],
        "symbol": UPDATE_COLUMNS["symbol"],
        "sec_type": UPDATE_COLUMNS["sec_type"],
        "currency": UPDATE_COLUMNS["currency"],
        "multiplier": UPDATE_COLUMNS["multiplier"],
        "right": UPDATE_COLUMNS["right"],
        "strike": UPDATE_COLUMNS["strike"],
        "expiry": UPDATE_COLUMNS["expiry"],
        "local_symbol": _LOCAL_SYMBOL,
        "trading_class": _TRADING_CLASS,
        "exchange": text_column("Listing exchange; empty where the broker leaves it out."),
        "position": UPDATE_COLUMNS["position"],
        "average_cost": UPDATE_COLUMNS["average_cost"],
        "market_price": number_column(
            "The broker's price of the position. Unit: as the broker sends."
        ),
        "market_value": number_column("The broker's value of the position. Unit: `currency`."),
        "unrealized_pnl": number_column(
            "The broker's unrealized profit and loss. Unit: `currency`."
        ),
        "realized_pnl": UPDATE_COLUMNS["realized_pnl"],
        "daily_pnl": UPDATE_COLUMNS["daily_pnl"],
        "value_source": text_column(
            "PORTFOLIO, PNL_SINGLE, or NONE before the broker sent a value."
        ),
        "value_time": moment_column(
            "The broker's time of the values; null where it is not certain."
        ),
        "received_at": moment_column(
            "When this row last changed here; of a PNL_SINGLE value, when its newest message came."
        ),
        "position_time": moment_column(
            "When position last changed here; of a closed row, when it closed."
        ),
        "snapshot_id": text_column("The account download that the row belongs to."),
        "completeness": text_column(
            "How much of the account that download covered: COMPLETE, PARTIAL or UNKNOWN."
        ),
        "confirmed_at": moment_column(
            "Until when the broker is known to have confirmed these values."
        ),
        "trading_mode": UPDATE_COLUMNS["trading_mode"],
        "session_id": text_column("The session of gateway_sessions that wrote the row."),
        "fencing_token": UPDATE_COLUMNS["fencing_token"],
        "captured_at": moment_column("When that session took its rows from the account feed."),
        "published_version": count_column(
            "Version of broker_positions that added the row. Of several rows of a holding the one "
            "with the greatest counts. Null for rows of older releases."
        ),
        "account_confirmed_at": moment_column(
            "Until when the broker is known to have confirmed every holding of the account. With "
            "completeness, it holds for older rows of the account as well."
        ),
        "followed": flag_column(
            "Whether messages of the holding's profit subscription (PnLSingle) arrive: each "
            "confirms the value until it moves."
        ),
        "account_followed_until": moment_column(
            "Until when such messages have confirmed every followed holding of the account. It "
            "holds for older rows of the account as well."
        ),
        # Of options without a line, computed from their values.
        **{name: UPDATE_COLUMNS[name] for name in GREEKS_COLUMNS},
    },
    version=6,
    partition_by=("gateway_id",),
    indexed=("confirmed_at", "fencing_token", "published_version"),
    order="published_version",
    key=("gateway_id", "account", "conid", "published_version"),
)

CONTRACTS = TableSpec.of(
    "contracts",
    {
        "conid": UPDATE_COLUMNS["conid"],
        "symbol": UPDATE_COLUMNS["symbol"],
        "sec_type": UPDATE_COLUMNS["sec_type"],
        "currency": text_column("ISO code of the contract's currency."),
        "local_symbol": _LOCAL_SYMBOL,
        "trading_class": _TRADING_CLASS,
        "exchange": text_column("Listing exchange."),
        "under_conid": count_column("Contract id of the underlying; null where there is none."),
        "multiplier": UPDATE_COLUMNS["multiplier"],
        "price_magnifier": count_column(
            "Divisor from quoted prices to the currency: 100 if quoted in cents or pence."
        ),
        "right": UPDATE_COLUMNS["right"],
        "strike": UPDATE_COLUMNS["strike"],
        "last_trade_date": day_column("Last trading day of a derivative."),
        "last_trade_time": text_column("Time of the last trade on that day, in time_zone."),
        "time_zone": text_column("Time zone of the exchange, as the broker names it."),
        "trading_hours": text_column(
            "Trading hours as the broker writes them, separated by semicolons."
        ),
        "seen_at": moment_column("When the details were requested."),
        "valid_exchanges": text_column(
            "Where the contract may be requested, separated by commas; null in old rows."
        ),
        "expires_on": day_column("Day on which a derivative expires; null where it is not known."),
        "under_sec_type": text_column(
            "Security type of the underlying: IND of an option that is settled in cash; null where "
            "there is none, and in old rows."
        ),
        "not_given": count_column(
            "How often the gateway gave no details since it gave them last; null if it never "
            "refused. A row of a contract of which it never gave any has nothing else."
        ),
        "not_given_at": moment_column("When it was asked last without success."),
    },
    indexed=("conid",),
    order="conid",
    key=("conid",),
    version=4,
)

GATEWAY_SESSIONS = TableSpec.of(
    "gateway_sessions",
    in_order(
        columns_of(GatewaySession) | _PARTITION,
        """gateway_id owner session_id run_id host pid fencing_token started_at heartbeat_at
        expires_at state state_since lines_in_use line_limit detail bucket part underlying_lines
        greeks""",
    ),
    version=3,
    partition_by=PARTITION_COLUMNS,
    indexed=("started_at",),
    order="started_at",
    key=("session_id",),
)

RECONCILIATION_BREAKS = TableSpec.of(
    "reconciliation_breaks",
    {
        "break_id": text_column("Unique id of the break."),
        "gateway_id": text_column(
            '"host:port" of the gateway that was reconciled, or "statement:DAY" for a day of '
            'daily_positions that was compared with the broker\'s statement, or "closures".'
        ),
        "account": UPDATE_COLUMNS["account"],
        "conid": UPDATE_COLUMNS["conid"],
        "symbol": UPDATE_COLUMNS["symbol"],
        "type": text_column(
            "MISSING, SURPLUS, QUANTITY, STALE, LEG_QUANTITY, LEG_MISMATCH, STATEMENT or "
            "UNEXPLAINED."
        ),
        "expected": number_column(
            "The broker's quantity; null when it has none. Unit: contracts or shares."
        ),
        "actual": number_column(
            "The quantity in the tables; null when they have none. Unit: contracts or shares."
        ),
        "detail": text_column("The difference in words."),
        "state": text_column("OPENED (seen once), CONFIRMED (seen again), RESOLVED or ACCEPTED."),
        "opened_at": moment_column("When it was first seen."),
        "confirmed_at": moment_column("When it was seen again; null before."),
        "resolved_at": moment_column("When it was gone; null before."),
        "accepted_at": moment_column("When a person accepted it; null if nobody did."),
        "accepted_by": text_column("The person who accepted it."),
        "note": text_column("That person's note."),
        "snapshot_id": text_column("The newest account download in which it was seen to change."),
        "run_id": text_column("The Dagster run of that reconciliation."),
        "last_seen_at": moment_column("When the row last changed because the break was seen."),
        **_PARTITION,
    },
    partition_by=PARTITION_COLUMNS,
    indexed=("opened_at",),
    order="opened_at",
    key=("break_id",),
)

EXECUTIONS = TableSpec.of(
    "executions",
    columns_of(Execution),
    indexed=("execution_id", "time", "account"),
    order="time",
    version=2,
)

STATEMENT_EVENTS = TableSpec.of(
    "statement_events",
    columns_of(StatementEvent),
    indexed=("event_id", "day", "account"),
    order="day",
)

POSITION_CHANGES = TableSpec.of(
    "position_changes",
    columns_of(PositionChange),
    indexed=("change_id", "seen_at", "account"),
    order="seen_at",
    key=("change_id",),
)

CLOSURES = TableSpec.of(
    "closures",
    columns_of(Closure),
    indexed=("change_id", "closed_at", "judged_at"),
    order="judged_at",
)

ACCOUNT_VALUES = TableSpec.of(
    "account_values",
    columns_of(AccountSummary)
    | {
        "date": day_column("Partition: the UTC date of timestamp."),
        "ledger_version": count_column(
            "Version of account_values that added the row: the order in which rows came."
        ),
        "committed_at": COMMIT_COLUMNS["committed_at"],
    },
    version=3,
    partition_by=("date",),
    indexed=("row_id", "timestamp", "ledger_version"),
    order="ledger_version",
    key=("row_id",),
)

RUNS = TableSpec.of(
    "runs",
    columns_of(RunRecord) | {"date": day_column("Partition: the UTC date of started_at.")},
    partition_by=("date",),
    indexed=("run_id", "started_at"),
    order="started_at",
)

TABLES = (
    ACTIVE_STRATEGIES,
    POSITION_QUEUE,
    POSITION_UPDATES,
    BROKER_POSITIONS,
    CONTRACTS,
    GATEWAY_SESSIONS,
    RECONCILIATION_BREAKS,
    EXECUTIONS,
    STATEMENT_EVENTS,
    POSITION_CHANGES,
    CLOSURES,
    ACCOUNT_VALUES,
    RUNS,
)


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
            "When the price of the value arrived, or when the broker last confirmed the value, "
            "whichever is later: its age counts from here. Null where neither is known."
        )
    },
    version=5,
    indexed=("account", "conid"),
)

STRATEGY_EXPOSURE = TableSpec.of(
    "strategy_exposure",
    {
        "strategy_id": text_column(
            "The strategy; UNATTRIBUTED for what no strategy has of the account."
        ),
        "currency": text_column("Currency of the sums; null for legs that were never valued."),
        "asset_class": text_column("OPTION, STOCK, FUTURE, OTHER, or UNKNOWN without a holding."),
        "legs": count_column(
            "Active legs of the strategy in this account, currency and class; of UNATTRIBUTED its "
            "holdings."
        ),
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
        "oldest_value_at": moment_column(
            "When the oldest price in the sums arrived or was confirmed; null if that is not known "
            "of one of them."
        ),
        "dollar_delta": number_column(
            "Sum of delta × quantity × multiplier × price of the underlying; of a stock or a "
            "future its value. Unit: `currency`."
        ),
        "by_underlying": text_column(
            "JSON: for each underlying the sums of delta, gamma, vega, theta, dollar_delta and "
            "gamma_1pct."
        ),
        "daily_pnl": number_column("Sum of the profit and loss of the day. Unit: `currency`."),
        "worst_value_age_s": number_column(
            "Age of the oldest price when this row was made, as oldest_value_at. Unit: seconds."
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
        "account": text_column(
            "IB account of the holdings; null for legs that are not held and name none."
        ),
        "gamma_1pct": number_column(
            "By how much dollar_delta changes when the underlyings move by 1 %. Unit: `currency`."
        ),
        "options": count_column("Held options."),
        "options_with_greeks": count_column(
            "Those of them whose greeks are known: the sums of greeks leave out the others."
        ),
        "nearest_expiry": day_column("First day on which a holding expires."),
        "differences": text_column(
            "Legs that have less than the quantity they claim, and holdings of which strategies "
            "have only a part, with the quantities."
        ),
        "options_modelled": count_column(
            "Those of options_with_greeks whose greeks this package computed."
        ),
        "ledger_version": count_column(
            "Greatest ledger_version of the rows of position_updates that were summed: the same in "
            "each row. Null if there were none."
        ),
        "legs_closed": count_column(
            "Legs that were held and of which it is known why they are gone."
        ),
        "closed": text_column("What happened to these, such as one expired on 2026-11-20."),
    },
    indexed=("strategy_id",),
    version=6,
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
    version=4,
    partition_by=("session_date",),
    indexed=("account", "conid"),
)

DERIVED = (LATEST_POSITIONS, STRATEGY_EXPOSURE, DAILY_POSITIONS)
