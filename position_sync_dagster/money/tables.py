"""The tables of money: their columns, and the names of those that no record has."""

import datetime as dt
from dataclasses import dataclass
from enum import StrEnum

from position_sync_dagster.domain.execution import Execution
from position_sync_dagster.lake.schema import A_WEEK, TableSpec, columns_of
from position_sync_dagster.money.campaigns.closed_campaign import ClosedCampaign
from position_sync_dagster.money.past.closes import Closure, StatementEvent
from position_sync_dagster.money.past.movements import Movement

# Releases before version 3 had what the gateway stated in the JSON text of a row alone.
_STATED_MULTIPLIER = (
    'COALESCE("multiplier", CASE WHEN "source" = \'GATEWAY\' THEN TRY_CAST('
    'regexp_match("attributes", \'"multiplier": "([0-9.]+)"\')[1] AS DOUBLE) END)'
)

EXECUTIONS = TableSpec(
    "executions",
    columns_of(Execution),
    indexed=("execution_id", "time", "account"),
    order="time",
    version=5,
    carried={"multiplier": _STATED_MULTIPLIER},
    description="Executions of the gateway's API and of statements: one trade may be there in "
    "several wordings.",
    changes="Rows are added with each execution and each import; none changes.",
)

STATEMENT_EVENTS = TableSpec(
    "statement_events",
    columns_of(StatementEvent),
    indexed=("event_id", "day", "account"),
    order="day",
    description="What the broker's statements say of holdings besides trades: exercises, "
    "transfers, cash.",
    changes="Rows are added with each import; none changes.",
)

# Those before version 2 had the ids of the evidence in two texts alone, separated by commas.
_EVIDENCE = (
    'COALESCE("evidence", string_to_array('
    "NULLIF(concat_ws(',', \"executions\", \"events\"), ''), ','))"
)

CLOSURES = TableSpec(
    "closures",
    columns_of(Closure),
    version=2,
    carried={"evidence": _EVIDENCE},
    indexed=("change_id", "closed_at", "judged_at"),
    order="judged_at",
    description="Why holdings closed, as it was known at each judgement; the newest one of a "
    "change counts.",
    changes="Rows are added with each judgement; none changes.",
)

MOVEMENTS = TableSpec(
    "movements",
    columns_of(Movement),
    version=3,
    indexed=("day", "session_date", "account"),
    order="day",
    key=("movement_id",),
    description="Each movement of quantity and cash, once, in its newest wording.",
    changes="Rows are replaced by newer wordings; the table is committed when one differs.",
    kept=A_WEEK,
)


class DividendSource(StrEnum):
    """Where a dividend is known from.

    STATED: the gateway names the next one and the sum of a year (tick 456). EXPECTED: it follows
    from the part of the price that the gateway's option model deducts until several expiries
    (`pvDividend`); days and amounts are estimates.
    """

    STATED = "STATED"
    EXPECTED = "EXPECTED"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedDividend:
    """A dividend of an underlying: a row of the table `dividends`.

    The rows of a conid and source with the greatest `seen_at` count; the older ones are what was
    known before.

    Attributes:
        conid: IB's contract id of the underlying.
        symbol: Its symbol, as IB writes it.
        source: STATED (tick 456) or EXPECTED (from pvDividend).
        ex_date: The first day on which a buyer does not get it; null: none is paid.
        amount: What is paid for a share; null where only a share of the price is known. Unit: the
            major unit of the currency.
        share: It as a share of the price, where no amount is known. Unit: 1.
        next_year: The sum of the next 12 months, of a STATED one. Unit: the major unit of the
            currency.
        seen_at: When it was first seen (UTC).
        run_id: The Dagster run that wrote the row.
    """

    conid: int
    symbol: str
    source: DividendSource
    ex_date: dt.date | None = None
    amount: float | None = None
    share: float | None = None
    next_year: float | None = None
    seen_at: dt.datetime
    run_id: str | None = None


DIVIDENDS = TableSpec(
    "dividends",
    columns_of(ExpectedDividend),
    indexed=("conid", "seen_at"),
    order="seen_at",
    description="The dividends that are expected of an underlying, as they were known at each "
    "time.",
    changes="Rows are added when what is expected differs; none changes.",
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
        value: Value in the scenario, of the legs that could be priced; null where none could.
            Unit: `currency`.
        profit: By how much the value changes; null where it is not known. Unit: `currency`.
        left_out: Legs that could not be priced: they are in no number.
        largest_loss: The largest allowed loss, if the file of scenarios names one. Unit:
            `currency`.
        run_id: The Dagster run that wrote the row; null where a sensor's tick did.
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
    value: float | None
    profit: float | None
    left_out: int
    largest_loss: float | None
    run_id: str | None


RISK_SCENARIOS = TableSpec(
    "risk_scenarios",
    columns_of(_Scenario),
    partition_by=("date",),
    indexed=("made_at",),
    order="made_at",
    key=("made_at", "strategy_id", "account", "currency", "scenario"),
    description="The value of each strategy in each scenario, recorded each quarter of an hour.",
    changes="Rows are added each quarter of an hour; none changes.",
)


class _Exposure:
    """The columns of `strategy_exposure`.

    Attributes:
        strategy_id: The strategy; UNATTRIBUTED for what no strategy has of the account.
        currency: Currency of the sums; null for legs that were never valued.
        asset_class: OPTION, STOCK, FUTURE, OTHER, or UNKNOWN without a holding.
        legs: Active legs of the strategy in this account, currency and class, and what it holds
            without a leg; of UNATTRIBUTED its holdings.
        legs_held: Legs of these with a holding.
        market_value: Sum of the market values; null for futures. Unit: `currency`.
        notional: Sum of the notional values of futures; null without any. Unit: `currency`.
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
        daily_pnl: Sum of the profit and loss of the day. Unit: `currency`.
        short_legs_in_money: Held short options in the money.
        short_legs_unknown: Held short options of which the price of the underlying is not known.
        mismatches: Legs that name another contract than their conid, with the difference; in no
            sum. Null without any.
        account: IB account of the holdings; null for legs that are not held and name none.
        gamma_1pct: By how much dollar_delta changes when the underlyings move by 1 %. Unit:
            `currency`.
        nearest_expiry: First day on which a holding expires; null where none does.
        differences: Legs that have less than the quantity they claim, and holdings of which
            strategies have only a part, with the quantities; null without any.
        ledger_version: Greatest ledger_version of the rows of position_updates that were summed:
            the same in each row. Null if there were none.
        legs_closed: Legs that were held and of which it is known why they are gone.
        closed: What happened to these, such as one expired on 2026-11-20; null without any.
    """

    strategy_id: str
    currency: str | None
    asset_class: str
    legs: int
    legs_held: int
    market_value: float | None
    notional: float | None
    unrealized_pnl: float | None
    delta: float | None
    gamma: float | None
    vega: float | None
    theta: float | None
    legs_without_value: int
    legs_without_greeks: int
    oldest_value_at: dt.datetime | None
    dollar_delta: float | None
    daily_pnl: float | None
    short_legs_in_money: int
    short_legs_unknown: int
    mismatches: str | None
    account: str | None
    gamma_1pct: float | None
    nearest_expiry: dt.date | None
    differences: str | None
    ledger_version: int | None
    legs_closed: int
    closed: str | None


STRATEGY_EXPOSURE = TableSpec(
    "strategy_exposure",
    columns_of(_Exposure),
    indexed=("strategy_id",),
    version=8,
    key=("strategy_id", "account", "currency", "asset_class"),
    description="Money, greeks and counts of each strategy, account, currency and class. A sum of "
    "which less than 90 % is known is null.",
    changes="Replaced by each tick in which a row differs.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfitParts:
    """A profit, and the parts that add up to it; they are null where it is not known.

    Attributes:
        since: The close before, from which the profit counts (UTC).
        account: IB account.
        currency: Currency of the money.
        profit: Profit of the time, the sum of the parts below. Unit: `currency`.
        delta: By the move of the underlyings. Unit: `currency`.
        gamma: By the change of delta during that move. Unit: `currency`.
        vega: By the change of the implied volatilities. Unit: `currency`.
        theta: By the time that passed. Unit: `currency`.
        repricing: The rest of the change of the prices. The greeks and it are null where the
            options whose greeks are known carry less than 90 %. Unit: `currency`.
        trades: From the prices of trades to the last prices. Unit: `currency`.
        fees: Commissions; below 0 is a cost. Unit: `currency`.
        assignments: Assignments, exercises, expiries, transfers and corporate actions, and what
            they left. Unit: `currency`.
        cash: Dividends, interest and fees that a statement names. Unit: `currency`.
        unexplained: The value of quantities that came or went without a movement, which makes the
            profit unknown; else 0. Unit: `currency`.
        why_unknown: Of which holdings, and cash, something is not known, and what of each.
    """

    since: dt.datetime
    account: str
    currency: str
    profit: float | None
    delta: float | None
    gamma: float | None
    vega: float | None
    theta: float | None
    repricing: float | None
    trades: float | None
    fees: float | None
    assignments: float | None
    cash: float | None
    unexplained: float | None
    why_unknown: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedProfit(ProfitParts):
    """The columns of `profit_explained`.

    Attributes:
        session_date: Partition: the exchange's trading day.
        closed_at: When the exchange closed on that day.
        strategy_id: The strategy; UNATTRIBUTED for what no strategy has.
        legs_unknown: Holdings, and cash, of which the profit is not known.
        market: What the change of the prices brought: the greeks and repricing together, known
            whenever the profit is. Unit: `currency`.
        greeks_unknown: Which greeks and prices are not known of which holdings, where one of these
            parts is null though the profit is known.
    """

    session_date: dt.date
    closed_at: dt.datetime
    strategy_id: str
    legs_unknown: int
    market: float | None
    greeks_unknown: str | None


PROFIT_EXPLAINED = TableSpec(
    "profit_explained",
    columns_of(ExplainedProfit),
    version=5,
    partition_by=("session_date",),
    indexed=("strategy_id", "account"),
    key=("session_date", "strategy_id", "account", "currency"),
    description="The profit of each trading day, strategy, account and currency, and its parts.",
    changes="A day is replaced when it is explained again and differs.",
    kept=A_WEEK,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BookedDay:
    """The columns of `books`: why the net liquidation of an account moved.

    Attributes:
        session_date: Partition: the exchange's trading day.
        account: IB account.
        currency: Base currency of the account; null where the statement does not say it.
        net_liquidation_before: That of the statement of the trading day before. Unit: `currency`.
        net_liquidation: That of the statement of the day. Unit: `currency`.
        change: The second less the first; the parts and the difference add up to it. Unit:
            `currency`.
        profit: Profit of holdings, without commissions; null, as all parts but `owner`, where one
            is not known. Unit: `currency`.
        income: Dividends, and tax on them. Unit: `currency`.
        fees: Commissions and fees; below 0 is a cost. Unit: `currency`.
        interest: Interest and coupons. Unit: `currency`.
        accruals: Dividends and interest that became due, less what was paid of them; null where the
            statement names no parts. Unit: `currency`.
        rates: Effect of exchange rates. Unit: `currency`.
        owner: What the owner brought less what was taken, in cash and in kind; null where that is
            not known. Unit: `currency`.
        difference: What nothing explains. Unit: `currency`.
        why_unknown: Which parts are not known.
        statement: The statement of the day.
    """

    session_date: dt.date
    account: str
    currency: str | None
    net_liquidation_before: float
    net_liquidation: float
    change: float
    profit: float | None
    income: float | None
    fees: float | None
    interest: float | None
    accruals: float | None
    rates: float | None
    owner: float | None
    difference: float | None
    why_unknown: str | None
    statement: str


BOOKS = TableSpec(
    "books",
    columns_of(BookedDay),
    partition_by=("session_date",),
    indexed=("account",),
    key=("session_date", "account", "currency"),
    description="Why the net liquidation of each account moved on each trading day.",
    changes="A day is replaced when its books are made again and differ.",
    kept=A_WEEK,
)

CLOSED_CAMPAIGNS = TableSpec(
    "closed_campaigns",
    columns_of(ClosedCampaign),
    version=5,
    indexed=("closed", "campaign_id"),
    key=("campaign_id",),
    description="Each campaign of a strategy that is over, and each structure in no strategy, with "
    "what it brought.",
    changes="Replaced when a campaign ended, or one is read otherwise.",
    kept=A_WEEK,
)


# The tables that hold what happened, and those that are derived from them.
TABLES = (EXECUTIONS, STATEMENT_EVENTS, CLOSURES, MOVEMENTS, DIVIDENDS, RISK_SCENARIOS)
DERIVED = (STRATEGY_EXPOSURE, PROFIT_EXPLAINED, BOOKS, CLOSED_CAMPAIGNS)
