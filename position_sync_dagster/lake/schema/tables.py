"""The schema of every table of the lake, the derived ones too: its version and its physical layout.

Columns are derived from a dataclass of the domain, or from a class here that names no values, with
the description that its docstring has. Their order in the table is defined here.
"""

import datetime as dt

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
from position_sync_dagster.lake.schema.table_spec import TableSpec, columns_of, in_order


class _Partition:
    """The partition columns of every `LifecycleTable`; see `schema/codec.py`.

    Attributes:
        bucket: Partition: `live`, or the kind of finished rows.
        part: Partition: the commit that finished the row; `0` for live rows.
    """

    bucket: str
    part: str


_PARTITION = columns_of(_Partition)
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


class _Commit:
    """The columns that each commit fills in `position_updates` and `account_values`.

    Attributes:
        ledger_version: Version of the ledger that added the row. It grows with each commit: the
            order in which rows came, whatever the clocks said. Null for rows of older releases.
        committed_at: When the row was added, by the clock of its writer (UTC); null for rows of
            older releases.
        date: Partition: the UTC date of timestamp.
    """

    ledger_version: int | None
    committed_at: dt.datetime | None
    date: dt.date


_COMMIT = columns_of(_Commit)

POSITION_UPDATES = TableSpec(
    "position_updates",
    in_order(
        UPDATE_COLUMNS | _COMMIT,
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


class _Published:
    """The columns of `broker_positions` that its owner adds to a holding.

    Attributes:
        exchange: Listing exchange; empty where the broker leaves it out.
        session_id: The session of gateway_sessions that wrote the row.
        captured_at: When that session took its rows from the account feed.
        published_version: Version of broker_positions that added the row. Of several rows of a
            holding the one with the greatest counts. Null for rows of older releases.
        account_confirmed_at: Until when the broker is known to have confirmed the holdings of the
            account, apart from rows that have a value and no confirmed_at. With completeness, it
            holds for older rows of the account as well.
        account_followed_until: Until when such messages have confirmed every followed holding of
            the account. It holds for older rows of the account as well.
    """

    exchange: str
    session_id: str
    captured_at: dt.datetime
    published_version: int | None
    account_confirmed_at: dt.datetime
    account_followed_until: dt.datetime


_OF_HOLDINGS = {
    name: column
    for name, column in columns_of(BrokerPosition, besides={"instrument", "greeks"}).items()
    if column.description
}
_REPORTED = UPDATE_COLUMNS | _OF_HOLDINGS | columns_of(_Published)

_IN_ORDER = """
    gateway_id account conid symbol sec_type currency multiplier right strike expiry local_symbol
    trading_class exchange position average_cost market_price market_value unrealized_pnl
    realized_pnl daily_pnl value_source value_time received_at position_time snapshot_id
    completeness confirmed_at trading_mode session_id fencing_token captured_at published_version
    account_confirmed_at followed account_followed_until
"""

BROKER_POSITIONS = TableSpec(
    "broker_positions",
    {name: _REPORTED[name] for name in (*_IN_ORDER.split(), *GREEKS_COLUMNS)},
    version=6,
    partition_by=("gateway_id",),
    indexed=("confirmed_at", "fencing_token", "published_version"),
    order="published_version",
    key=("gateway_id", "account", "conid", "published_version"),
)


class _NotGiven:
    """The columns of `contracts` about refused requests for details.

    Attributes:
        not_given: How often the gateway gave no details since it gave them last; null if it never
            refused. A row of a contract of which it never gave any has nothing else.
        not_given_at: When it was asked last without success.
    """

    not_given: int | None
    not_given_at: dt.datetime | None


CONTRACTS = TableSpec(
    "contracts",
    columns_of(ContractDetails) | columns_of(_NotGiven),
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
_MARGINS = {name: _SUMMARY.pop(name) for name in ("excess_liquidity", "initial_margin")}

ACCOUNT_VALUES = TableSpec(
    "account_values",
    _SUMMARY
    | {name: _COMMIT[name] for name in ("date", "ledger_version", "committed_at")}
    | _MARGINS,
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


class _Scenario:
    """The columns of `risk_scenarios`.

    Attributes:
        made_at: When the scenarios were computed (UTC).
        date: Partition: the UTC date of made_at.
        strategy_id: The strategy; UNATTRIBUTED for what no strategy has.
        account: IB account.
        currency: Currency of the money.
        scenario: Name of the scenario.
        spot: Move of the underlyings. Unit: percent.
        vol: Change of the volatilities. Unit: points.
        days: Days that have passed. Unit: days.
        value: Value in the scenario, of the legs that could be priced. Unit: `currency`.
        profit: By how much the value changes. Unit: `currency`.
        left_out: Legs that could not be priced: they are in no number.
        largest_loss: The largest allowed loss, if the file of scenarios names one. Unit:
            `currency`.
        run_id: The Dagster run that wrote the row.
    """

    made_at: dt.datetime
    date: dt.date
    strategy_id: str
    account: str
    currency: str
    scenario: str
    spot: float
    vol: float
    days: float
    value: float
    profit: float
    left_out: int
    largest_loss: float
    run_id: str


RISK_SCENARIOS = TableSpec(
    "risk_scenarios",
    columns_of(_Scenario),
    partition_by=("date",),
    indexed=("made_at",),
    order="made_at",
    key=("made_at", "strategy_id", "account", "currency", "scenario"),
)

# The tables above. Those below are derived from them.
TABLES = tuple(one for one in [*globals().values()] if isinstance(one, TableSpec))


_VALUES = {name: one for name, one in POSITION_UPDATES.described.items() if name != "date"}


class _Confirmed:
    """The column of `latest_positions` beside the newest row.

    Attributes:
        confirmed_at: When the price of the value arrived, or when the broker last confirmed the
            value, whichever is later: its age counts from here. Null where neither is known.
    """

    confirmed_at: dt.datetime | None


LATEST_POSITIONS = TableSpec(
    "latest_positions",
    _VALUES | columns_of(_Confirmed),
    version=5,
    indexed=("account", "conid"),
)


class _Exposure:
    """The columns of `strategy_exposure`.

    Attributes:
        strategy_id: The strategy; UNATTRIBUTED for what no strategy has of the account.
        currency: Currency of the sums; null for legs that were never valued.
        asset_class: OPTION, STOCK, FUTURE, OTHER, or UNKNOWN without a holding.
        legs: Active legs of the strategy in this account, currency and class; of UNATTRIBUTED its
            holdings.
        legs_held: Legs of these with a holding.
        market_value: Sum of the market values; null for futures. Unit: `currency`.
        notional: Sum of the notional values of futures. Unit: `currency`.
        unrealized_pnl: Sum of the unrealized profit and loss. Unit: `currency`.
        delta: Sum of delta × quantity × multiplier. Unit: deltas.
        gamma: Sum of gamma × quantity × multiplier. Unit: deltas per `currency`.
        vega: Sum of vega × quantity × multiplier. Unit: `currency`.
        theta: Sum of theta × quantity × multiplier. Unit: `currency`.
        legs_without_value: Legs that are missing in the sums of money.
        legs_without_greeks: Legs that are missing in the sums of greeks.
        oldest_value_at: When the oldest price in the sums arrived or was confirmed; null if that is
            not known of one of them.
        dollar_delta: Sum of delta × quantity × multiplier × price of the underlying; of a stock or
            a future its value. Unit: `currency`.
        by_underlying: JSON: for each underlying the sums of delta, gamma, vega, theta, dollar_delta
            and gamma_1pct.
        daily_pnl: Sum of the profit and loss of the day. Unit: `currency`.
        worst_value_age_s: Age of the oldest price when this row was made, as oldest_value_at. Unit:
            seconds.
        legs_without_value_time: Held legs whose value has no time of its source.
        legs_expiring: Held legs that expire within 5 days, or have expired.
        short_legs_in_money: Held short options in the money.
        short_legs_unknown: Held short options of which the price of the underlying is not known.
        mismatches: Legs that name another contract than their conid, with the difference; in no
            sum.
        account: IB account of the holdings; null for legs that are not held and name none.
        gamma_1pct: By how much dollar_delta changes when the underlyings move by 1 %. Unit:
            `currency`.
        options: Held options.
        options_with_greeks: Those of them whose greeks are known: the sums of greeks leave out the
            others.
        nearest_expiry: First day on which a holding expires.
        differences: Legs that have less than the quantity they claim, and holdings of which
            strategies have only a part, with the quantities.
        options_modelled: Those of options_with_greeks whose greeks this package computed.
        ledger_version: Greatest ledger_version of the rows of position_updates that were summed:
            the same in each row. Null if there were none.
        legs_closed: Legs that were held and of which it is known why they are gone.
        closed: What happened to these, such as one expired on 2026-11-20.
    """

    strategy_id: str
    currency: str | None
    asset_class: str
    legs: int
    legs_held: int
    market_value: float | None
    notional: float
    unrealized_pnl: float
    delta: float
    gamma: float
    vega: float
    theta: float
    legs_without_value: int
    legs_without_greeks: int
    oldest_value_at: dt.datetime | None
    dollar_delta: float
    by_underlying: str
    daily_pnl: float
    worst_value_age_s: float
    legs_without_value_time: int
    legs_expiring: int
    short_legs_in_money: int
    short_legs_unknown: int
    mismatches: str
    account: str | None
    gamma_1pct: float
    options: int
    options_with_greeks: int
    nearest_expiry: dt.date
    differences: str
    options_modelled: int
    ledger_version: int | None
    legs_closed: int
    closed: str


STRATEGY_EXPOSURE = TableSpec(
    "strategy_exposure",
    columns_of(_Exposure),
    indexed=("strategy_id",),
    version=6,
)


class _SessionDay:
    """The columns of `daily_positions` about the day.

    Attributes:
        session_date: Partition: the exchange's trading day.
        closed_at: When the exchange closed on that day.
        age_s: Age of the value at the close: since its source last confirmed it before the close,
            as far as that is known; null for delayed data without a time. Unit: seconds.
    """

    session_date: dt.date
    closed_at: dt.datetime
    age_s: float | None


class _Flex:
    """The sources of a row of `daily_positions`.

    Attributes:
        source: Which path wrote the row: STREAM, QUEUE, or FLEX (the broker's statement of the
            day).
        value_source: Where the value came from: TICK (market data), PORTFOLIO (the broker's
            portfolio row), PNL_SINGLE (a profit and loss subscription) or NONE. Of a statement:
            FLEX.
    """

    source: str
    value_source: str


DAILY_POSITIONS = TableSpec(
    "daily_positions",
    columns_of(_SessionDay) | _VALUES | columns_of(_Flex),
    version=4,
    partition_by=("session_date",),
    indexed=("account", "conid"),
)


class _Explained:
    """The columns of `profit_explained`.

    Attributes:
        session_date: Partition: the exchange's trading day.
        since: The close before, from which the profit counts (UTC).
        closed_at: When the exchange closed on that day.
        strategy_id: The strategy; UNATTRIBUTED for what no strategy has.
        account: IB account.
        currency: Currency of the money.
        profit: Profit of the time, the sum of the parts below. Unit: `currency`.
        delta: By the move of the underlyings. Unit: `currency`.
        gamma: By the change of delta during that move. Unit: `currency`.
        vega: By the change of the implied volatilities. Unit: `currency`.
        theta: By the time that passed. Unit: `currency`.
        repricing: The rest of the change of the prices. Unit: `currency`.
        trades: From the prices of trades to the last prices. Unit: `currency`.
        fees: Commissions; below 0 is a cost. Unit: `currency`.
        assignments: Assignments, exercises and expiries, and the shares they left. Unit:
            `currency`.
        cash: Dividends, interest and fees that a statement names. Unit: `currency`.
        unexplained: Quantities that no trade explains. Unit: `currency`.
        gross_move: The sum of the sizes of the parts. Unit: `currency`.
        legs: Holdings with a part in it.
        without_greeks: Those of them whose greeks were not known: their price is repricing.
        unexplained_legs: Which holdings are unexplained.
    """

    session_date: dt.date
    since: dt.datetime
    closed_at: dt.datetime
    strategy_id: str
    account: str
    currency: str
    profit: float
    delta: float
    gamma: float
    vega: float
    theta: float
    repricing: float
    trades: float
    fees: float
    assignments: float
    cash: float
    unexplained: float
    gross_move: float
    legs: int
    without_greeks: int
    unexplained_legs: str


PROFIT_EXPLAINED = TableSpec(
    "profit_explained",
    columns_of(_Explained),
    partition_by=("session_date",),
    indexed=("strategy_id", "account"),
)

DERIVED = (LATEST_POSITIONS, STRATEGY_EXPOSURE, DAILY_POSITIONS, PROFIT_EXPLAINED)
