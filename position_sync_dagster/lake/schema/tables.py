"""The schema of every table of the lake, the derived ones too: its version and its physical layout.

Where one dataclass holds exactly a table's columns, they are derived from it; their order in the
table is defined here.
"""

from position_sync_dagster.domain.broker_position import (
    GREEKS_COLUMNS,
    AccountSummary,
    BrokerPosition,
)
from position_sync_dagster.domain.closures import Closure, PositionChange
from position_sync_dagster.domain.gateway_session import GatewaySession
from position_sync_dagster.domain.instrument import ContractDetails, ExpectedDividend
from position_sync_dagster.domain.leg import ActiveContract, UnresolvedLeg
from position_sync_dagster.domain.reconciliation import Break
from position_sync_dagster.domain.statement import Execution, StatementEvent
from position_sync_dagster.domain.update import PositionUpdate, QueuedPosition
from position_sync_dagster.lake.schema.table_spec import TableSpec, columns_of, described, in_order

_PARTITION = described(
    """
    bucket text Partition: `live`, or the kind of finished rows.
    part text Partition: the commit that finished the row; `0` for live rows.
    """
)
# The `partition_by` of every `LifecycleTable`; see `schema/codec.py`.
PARTITION_COLUMNS = tuple(_PARTITION)

ACTIVE_STRATEGIES = TableSpec(
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

POSITION_QUEUE = TableSpec(
    "position_queue",
    in_order(
        columns_of(QueuedPosition) | _PARTITION,
        """request_id account conid symbol priority status attempts created_at updated_at
        available_at lease_owner lease_token lease_expires_at error_message reason update_id
        confirmed_at bucket part changed_at""",
    ),
    version=3,
    partition_by=PARTITION_COLUMNS,
    indexed=("request_id", "created_at", "updated_at"),
    order="updated_at",
    key=("request_id",),
)

# The columns of `position_updates` that callers fill, in the order of the dataclass.
UPDATE_COLUMNS = columns_of(PositionUpdate)

# The columns of `position_updates` that the ledger fills at each commit.
COMMIT_COLUMNS = described(
    """
    ledger_version count Version of position_updates that added the row. It grows with each
        commit: the order in which rows came, whatever the clocks said. Null for rows of older
        releases.
    committed_at moment When the row was added, by the clock of its writer (UTC); null for rows
        of older releases.
    """
)

POSITION_UPDATES = TableSpec(
    "position_updates",
    in_order(
        UPDATE_COLUMNS
        | COMMIT_COLUMNS
        | described("date day Partition: the UTC date of timestamp."),
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

_OF_HOLDINGS = {
    name: column
    for name, column in columns_of(BrokerPosition, besides={"instrument", "greeks"}).items()
    if column.description
}

BROKER_POSITIONS = TableSpec(
    "broker_positions",
    {
        **described(
            """
            same: gateway_id account conid symbol sec_type currency multiplier right strike expiry
            same: local_symbol trading_class
            exchange text Listing exchange; empty where the broker leaves it out.
            same: position average_cost market_price market_value unrealized_pnl realized_pnl
            same: daily_pnl value_source value_time received_at position_time snapshot_id
            same: completeness confirmed_at trading_mode
            session_id text The session of gateway_sessions that wrote the row.
            same: fencing_token
            captured_at moment When that session took its rows from the account feed.
            published_version count Version of broker_positions that added the row. Of several rows
                of a holding the one with the greatest counts. Null for rows of older releases.
            account_confirmed_at moment Until when the broker is known to have confirmed the
                holdings of the account, apart from rows that have a value and no confirmed_at. With
                completeness, it holds for older rows of the account as well.
            same: followed
            account_followed_until moment Until when such messages have confirmed every followed
                holding of the account. It holds for older rows of the account as well.
            """,
            UPDATE_COLUMNS | _OF_HOLDINGS,
        ),
        **{name: UPDATE_COLUMNS[name] for name in GREEKS_COLUMNS},
    },
    version=6,
    partition_by=("gateway_id",),
    indexed=("confirmed_at", "fencing_token", "published_version"),
    order="published_version",
    key=("gateway_id", "account", "conid", "published_version"),
)

CONTRACTS = TableSpec(
    "contracts",
    columns_of(ContractDetails)
    | described(
        """
        not_given count Null; an earlier release counted refused requests for details here.
        not_given_at moment Null, as `not_given`.
        """
    ),
    indexed=("conid",),
    order="conid",
    key=("conid",),
    version=4,
)

GATEWAY_SESSIONS = TableSpec(
    "gateway_sessions",
    in_order(
        columns_of(GatewaySession) | _PARTITION,
        """gateway_id owner session_id run_id host pid fencing_token started_at heartbeat_at
        expires_at state state_since lines_in_use line_limit detail bucket part underlying_lines
        greeks gateway_running_since gateway_started_at outages""",
    ),
    version=4,
    partition_by=PARTITION_COLUMNS,
    indexed=("started_at",),
    order="started_at",
    key=("session_id",),
)

RECONCILIATION_BREAKS = TableSpec(
    "reconciliation_breaks",
    columns_of(Break) | _PARTITION,
    partition_by=PARTITION_COLUMNS,
    indexed=("opened_at",),
    order="opened_at",
    key=("break_id",),
)

EXECUTIONS = TableSpec(
    "executions",
    columns_of(Execution),
    indexed=("execution_id", "time", "account"),
    order="time",
    version=2,
)

STATEMENT_EVENTS = TableSpec(
    "statement_events",
    columns_of(StatementEvent),
    indexed=("event_id", "day", "account"),
    order="day",
)

POSITION_CHANGES = TableSpec(
    "position_changes",
    columns_of(PositionChange),
    indexed=("change_id", "seen_at", "account"),
    order="seen_at",
    key=("change_id",),
)

CLOSURES = TableSpec(
    "closures",
    columns_of(Closure),
    indexed=("change_id", "closed_at", "judged_at"),
    order="judged_at",
)

_SUMMARY = columns_of(AccountSummary)
_MARGINS = ("excess_liquidity", "initial_margin")

ACCOUNT_VALUES = TableSpec(
    "account_values",
    {name: column for name, column in _SUMMARY.items() if name not in _MARGINS}
    | {
        **described(
            """
            date day Partition: the UTC date of timestamp.
            ledger_version count Version of account_values that added the row: the order in which
                rows came.
            """
        ),
        "committed_at": COMMIT_COLUMNS["committed_at"],
        **{name: _SUMMARY[name] for name in _MARGINS},
    },
    version=4,
    partition_by=("date",),
    indexed=("row_id", "timestamp", "ledger_version"),
    order="ledger_version",
    key=("row_id",),
)

DIVIDENDS = TableSpec(
    "dividends",
    columns_of(ExpectedDividend),
    indexed=("conid", "seen_at"),
    order="seen_at",
)

RISK_SCENARIOS = TableSpec(
    "risk_scenarios",
    described(
        """
        made_at moment When the scenarios were computed (UTC).
        date day Partition: the UTC date of made_at.
        strategy_id text The strategy; UNATTRIBUTED for what no strategy has.
        account text IB account.
        currency text Currency of the money.
        scenario text Name of the scenario.
        spot number Move of the underlyings. Unit: percent.
        vol number Change of the volatilities. Unit: points.
        days number Days that have passed. Unit: days.
        value number Value in the scenario, of the legs that could be priced. Unit: `currency`.
        profit number By how much the value changes. Unit: `currency`.
        left_out count Legs that could not be priced: they are in no number.
        largest_loss number The largest allowed loss, if the file of scenarios names one. Unit:
            `currency`.
        run_id text The Dagster run that wrote the row.
        """
    ),
    partition_by=("date",),
    indexed=("made_at",),
    order="made_at",
    key=("made_at", "strategy_id", "account", "currency", "scenario"),
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
    DIVIDENDS,
    RISK_SCENARIOS,
)


_VALUES = {name: one for name, one in POSITION_UPDATES.described.items() if name != "date"}

LATEST_POSITIONS = TableSpec(
    "latest_positions",
    _VALUES
    | described(
        """
        confirmed_at moment When the price of the value arrived, or when the broker last
            confirmed the value, whichever is later: its age counts from here. Null where
            neither is known.
        """
    ),
    version=5,
    indexed=("account", "conid"),
)

STRATEGY_EXPOSURE = TableSpec(
    "strategy_exposure",
    described(
        """
        strategy_id text The strategy; UNATTRIBUTED for what no strategy has of the account.
        currency text Currency of the sums; null for legs that were never valued.
        asset_class text OPTION, STOCK, FUTURE, OTHER, or UNKNOWN without a holding.
        legs count Active legs of the strategy in this account, currency and class; of
            UNATTRIBUTED its holdings.
        legs_held count Legs of these with a holding.
        market_value number Sum of the market values; null for futures. Unit: `currency`.
        notional number Sum of the notional values of futures. Unit: `currency`.
        unrealized_pnl number Sum of the unrealized profit and loss. Unit: `currency`.
        delta number Sum of delta × quantity × multiplier. Unit: deltas.
        gamma number Sum of gamma × quantity × multiplier. Unit: deltas per `currency`.
        vega number Sum of vega × quantity × multiplier. Unit: `currency`.
        theta number Sum of theta × quantity × multiplier. Unit: `currency`.
        legs_without_value count Legs that are missing in the sums of money.
        legs_without_greeks count Legs that are missing in the sums of greeks.
        oldest_value_at moment When the oldest price in the sums arrived or was confirmed; null
            if that is not known of one of them.
        dollar_delta number Sum of delta × quantity × multiplier × price of the underlying; of a
            stock or a future its value. Unit: `currency`.
        by_underlying text JSON: for each underlying the sums of delta, gamma, vega, theta,
            dollar_delta and gamma_1pct.
        daily_pnl number Sum of the profit and loss of the day. Unit: `currency`.
        worst_value_age_s number Age of the oldest price when this row was made, as
            oldest_value_at. Unit: seconds.
        legs_without_value_time count Held legs whose value has no time of its source.
        legs_expiring count Held legs that expire within 5 days, or have expired.
        short_legs_in_money count Held short options in the money.
        short_legs_unknown count Held short options of which the price of the underlying is not
            known.
        mismatches text Legs that name another contract than their conid, with the difference;
            in no sum.
        account text IB account of the holdings; null for legs that are not held and name none.
        gamma_1pct number By how much dollar_delta changes when the underlyings move by 1 %.
            Unit: `currency`.
        options count Held options.
        options_with_greeks count Those of them whose greeks are known: the sums of greeks leave
            out the others.
        nearest_expiry day First day on which a holding expires.
        differences text Legs that have less than the quantity they claim, and holdings of which
            strategies have only a part, with the quantities.
        options_modelled count Those of options_with_greeks whose greeks this package computed.
        ledger_version count Greatest ledger_version of the rows of position_updates that were
            summed: the same in each row. Null if there were none.
        legs_closed count Legs that were held and of which it is known why they are gone.
        closed text What happened to these, such as one expired on 2026-11-20.
        """
    ),
    indexed=("strategy_id",),
    version=6,
)

DAILY_POSITIONS = TableSpec(
    "daily_positions",
    {
        **described(
            """
            session_date day Partition: the exchange's trading day.
            closed_at moment When the exchange closed on that day.
            age_s number Age of the value at the close: since its source last confirmed it before
                the close, as far as that is known; null for delayed data without a time. Unit:
                seconds.
            """
        ),
        **_VALUES,
        **described(
            f"""
            source text Which path wrote the row: STREAM, QUEUE, or FLEX (the broker's statement of
                the day).
            value_source text {_VALUES["value_source"].description} Of a statement: FLEX.
            """
        ),
    },
    version=4,
    partition_by=("session_date",),
    indexed=("account", "conid"),
)

PROFIT_EXPLAINED = TableSpec(
    "profit_explained",
    described(
        """
        session_date day Partition: the exchange's trading day.
        since moment The close before, from which the profit counts (UTC).
        closed_at moment When the exchange closed on that day.
        strategy_id text The strategy; UNATTRIBUTED for what no strategy has.
        account text IB account.
        currency text Currency of the money.
        profit number Profit of the time, the sum of the parts below. Unit: `currency`.
        delta number By the move of the underlyings. Unit: `currency`.
        gamma number By the change of delta during that move. Unit: `currency`.
        vega number By the change of the implied volatilities. Unit: `currency`.
        theta number By the time that passed. Unit: `currency`.
        repricing number The rest of the change of the prices. Unit: `currency`.
        trades number From the prices of trades to the last prices. Unit: `currency`.
        fees number Commissions; below 0 is a cost. Unit: `currency`.
        assignments number Assignments, exercises and expiries, and the shares they left. Unit:
            `currency`.
        cash number Dividends, interest and fees that a statement names. Unit: `currency`.
        unexplained number Quantities that no trade explains. Unit: `currency`.
        gross_move number The sum of the sizes of the parts. Unit: `currency`.
        legs count Holdings with a part in it.
        without_greeks count Those of them whose greeks were not known: their price is repricing.
        unexplained_legs text Which holdings are unexplained.
        """
    ),
    partition_by=("session_date",),
    indexed=("strategy_id", "account"),
)

DERIVED = (LATEST_POSITIONS, STRATEGY_EXPOSURE, DAILY_POSITIONS, PROFIT_EXPLAINED)
