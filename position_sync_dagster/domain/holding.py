"""A holding as the broker reports it, a value of it (a row of `position_updates`), and a request.

Also the values of an account, as the broker last reported them.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from datetime import date, datetime
from enum import StrEnum
from operator import attrgetter
from sys import intern
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from position_sync_dagster.domain.instrument import Instrument, Right


class QueueStatus(StrEnum):
    """The state of a request; SUCCESS and FAILED are final."""

    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"


class Reason(StrEnum):
    """Why a position is in the queue.

    SNAPSHOT: the first list of positions after a connection. CHANGED: the holding is new or has
    changed. REFRESH: the periodic refresh. OVERFLOW: an active leg has no market data line.
    MANUAL: a person or a script.
    """

    SNAPSHOT = "SNAPSHOT"
    CHANGED = "CHANGED"
    REFRESH = "REFRESH"
    OVERFLOW = "OVERFLOW"
    MANUAL = "MANUAL"


# The priority of an active leg without a line.
ACTIVE_PRIORITY = 1

# The priority of all other positions (monitoring).
MONITORING_PRIORITY = 2

# The length of a lease, unless the settings or a caller choose another, in seconds.
LEASE_S = 45.0


@dataclass(frozen=True, slots=True)
class QueueRequest:
    """A request to value one position.

    Attributes:
        priority: 1 (active without a line) is claimed before 2 (monitoring).
        account: None for the conid in any account.
    """

    conid: int
    symbol: str
    priority: int = MONITORING_PRIORITY
    account: str | None = None
    reason: Reason = Reason.MANUAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The row that answers a request.

    Attributes:
        update_id: The row of `position_updates`.
        confirmed_at: Until when its source is known to have confirmed its value; None: unknown.
    """

    update_id: str
    confirmed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class QueuedPosition:
    """A request as it is stored: the columns of the table `position_queue`.

    Attributes:
        request_id: Unique id of the request.
        conid: IB's contract id of the instrument.
        symbol: Symbol of the underlying.
        priority: 1 (active leg without a line) is claimed before 2 (monitoring).
        status: PENDING, PROCESSING, or one of the final states SUCCESS and FAILED.
        created_at: When the request was inserted (UTC).
        updated_at: When the row last changed (UTC).
        error_message: Why the last attempt failed; null before the first failure.
        account: IB account; null for the contract in any account.
        attempts: Claims that have ended in failure.
        available_at: The request is not claimed before this time (back-off of a retry).
        lease_owner: The worker that holds the lease, or that finished the request.
        lease_token: Drawn anew at each claim; every mark is checked against it.
        lease_expires_at: End of the lease (UTC); null without a lease.
        reason: Why it was inserted: SNAPSHOT, CHANGED, REFRESH, OVERFLOW or MANUAL.
        update_id: Of a SUCCESS the row of position_updates that answers it: its own one, or an
            older one that says the same. Of a request for any account: that of the first account.
        confirmed_at: Until when the source of that row is known to have confirmed its value (UTC).
        changed_at: When the position changed while the request was PROCESSING (UTC): a new request
            follows it.
    """

    request_id: str
    conid: int
    symbol: str
    priority: int
    status: QueueStatus
    created_at: datetime
    updated_at: datetime
    error_message: str | None = None
    account: str | None = None
    attempts: int = 0
    available_at: datetime | None = None
    lease_owner: str | None = None
    lease_token: str | None = None
    lease_expires_at: datetime | None = None
    reason: Reason = Reason.MANUAL
    update_id: str | None = None
    confirmed_at: datetime | None = None
    changed_at: datetime | None = None


class PriceKind(StrEnum):
    """The price that valued the position; which one is used when: `domain.valuation`.

    PORTFOLIO is the price of the broker's portfolio row, VALUE follows from the broker's value of
    the position (PnLSingle), MODEL is that of the gateway's option model.
    """

    MARK = "MARK"
    LAST = "LAST"
    MID = "MID"
    PORTFOLIO = "PORTFOLIO"
    VALUE = "VALUE"
    MODEL = "MODEL"


class Source(StrEnum):
    """The path that wrote the row: the stream, or a drain of the queue."""

    STREAM = "STREAM"
    QUEUE = "QUEUE"


class ValueOrigin(StrEnum):
    """Where the value came from (column `value_source`).

    TICK is market data, PORTFOLIO the broker's portfolio row, PNL_SINGLE a subscription for the
    profit and loss of one position, and NONE stands for a row without a value from a source.
    """

    TICK = "TICK"
    PORTFOLIO = "PORTFOLIO"
    PNL_SINGLE = "PNL_SINGLE"
    NONE = "NONE"


class GreeksSource(StrEnum):
    """Where the greeks came from: the gateway's option model, or the model of this package."""

    GATEWAY = "GATEWAY"
    MODEL = "MODEL"


class TradingMode(StrEnum):
    """The kind of account; a lake holds data of one kind only."""

    LIVE = "LIVE"
    PAPER = "PAPER"
    SIMULATED = "SIMULATED"


def trading_mode_of(account: str) -> TradingMode:
    """Return the trading mode of an account, by its id.

    The simulator's accounts start with DUSIM, IB's paper accounts with D (DU…, DF…).
    Source: IB, "Paper Trading Account" (paper accounts carry the prefix D).
    """
    if account.startswith("DUSIM"):
        return TradingMode.SIMULATED
    return TradingMode.PAPER if account.startswith("D") else TradingMode.LIVE


@dataclass(frozen=True, slots=True)
class PositionUpdate:
    """The value of one holding at one time, and one row of the table `position_updates`.

    None is unknown, zero is zero. This class is the one definition of the table's columns: types,
    descriptions and units. The schema, the codec and the coercion of callers' updates follow it.

    Attributes:
        conid: IB's contract id of the instrument.
        symbol: Symbol of the underlying, as IB writes it.
        right: CALL or PUT; null for an instrument that is not an option.
        position: Signed quantity held, negative when short; 0 in the row that records a close.
            Unit: contracts or shares.
        market_price: The price that valued the position. Unit: as quoted (cents if quoted in
            cents).
        market_value: position × market_price × multiplier / price magnifier of the contract, or the
            broker's own value (PORTFOLIO, PNL_SINGLE). For a future this is the notional value: do
            not add it to the value of options. Unit: `currency`.
        average_cost: Average cost of one contract or share, including multiplier and commissions.
            Unit: `currency`.
        unrealized_pnl: market_value − position × average_cost; of the broker's own value, as the
            broker reports it. Unit: `currency`.
        timestamp: When this system knew the value (UTC).
        account: IB account that holds the position.
        sec_type: IB's security type: OPT, FOP, STK, FUT, …
        strike: Strike of the option; null for other instruments. Unit: as quoted.
        expiry: Expiry of an option or a future; null where there is none.
        multiplier: Units of the underlying in one contract; 1 for a stock.
        currency: ISO code of the currency of all money columns of this row.
        price_kind: Which price market_price is: MARK, LAST, MID, MODEL (the gateway's option
            model), PORTFOLIO (from the broker's portfolio row) or VALUE (the broker's value of
            PnLSingle, which is rounded to cents, for one unit); null without a price.
        bid: Best bid at the time of the valuation. Unit: as quoted.
        ask: Best ask at the time of the valuation. Unit: as quoted.
        realized_pnl: Realized profit and loss, as the broker reports it. Unit: `currency`.
        daily_pnl: Profit and loss of the day, as the broker reports it (PnLSingle). Unit:
            `currency`.
        implied_vol: Implied volatility of the option model; 0.2 is 20 percent. Unit: part of one, a
            year.
        delta: Delta of one option on one unit of the underlying; whose model: `greeks_source`.
            Unit: `currency` per `currency` of the underlying.
        gamma: Gamma of one option on one unit of the underlying; whose model: `greeks_source`.
            Unit: delta per `currency` of the underlying.
        vega: Vega of one option on one unit of the underlying; whose model: `greeks_source`. Unit:
            `currency`.
        theta: Theta a day of one option on one unit of the underlying; whose model:
            `greeks_source`. Unit: `currency`.
        underlying_price: Price of the underlying in the option model. Unit: as quoted.
        value_time: When the value was true at its source (UTC), of PNL_SINGLE when its newest
            message came; null when the source gave no time.
        source: Which path wrote the row: STREAM (the stream) or QUEUE (a drain).
        value_source: Where the value came from: TICK (market data), PORTFOLIO (the broker's
            portfolio row), PNL_SINGLE (a profit and loss subscription) or NONE.
        market_data_type: IB's market data type: 1 live, 2 frozen, 3 delayed, 4 delayed and frozen.
        gateway_id: The login that reported the holding: its name in the gateways file, or
            "host:port" without one.
        trading_mode: LIVE, PAPER or SIMULATED; derived from the account when the writer leaves it
            out.
        request_id: The request of position_queue that this row answers; null for streamed rows.
        session_id: The session of gateway_sessions that owned the login.
        fencing_token: Fencing token of that session; a later owner has a greater one.
        run_id: The Dagster run that wrote the row.
        batch_id: One id for all rows of a commit.
        update_id: Unique id of the row. A row that answers a request has an id derived from it, so
            that it is written once.
        greeks_time: When the greeks of the gateway came, or the price of the underlying from which
            those of MODEL follow (UTC); null without greeks, and where that says nothing of their
            age, as of delayed data.
        trading_class: IB's trading class: tells SPXW from SPX; null where the broker gave none.
        local_symbol: IB's local symbol, such as the OCC symbol of an option; null where the broker
            gave none.
        note: Why this value is used, where it is not the usual one; null otherwise.
        greeks_source: GATEWAY (IB's option model) or MODEL (computed by this package from the
            broker's value); null without greeks.
        greeks_method: How greeks of MODEL were computed: how the option is exercised, the interest
            rate and the share of the price that dividends have; null otherwise.
        volatility_time: When the broker's value was true from which the volatility of MODEL follows
            (UTC); null otherwise.
    """

    conid: int
    symbol: str
    right: Right | None
    position: float
    market_price: float | None
    market_value: float | None
    average_cost: float | None
    unrealized_pnl: float | None
    timestamp: datetime
    account: str = ""
    sec_type: str = "OPT"
    strike: float | None = None
    expiry: date | None = None
    multiplier: float = 100.0
    currency: str = "USD"
    price_kind: PriceKind | None = None
    bid: float | None = None
    ask: float | None = None
    realized_pnl: float | None = None
    daily_pnl: float | None = None
    implied_vol: float | None = None
    delta: float | None = None
    gamma: float | None = None
    vega: float | None = None
    theta: float | None = None
    underlying_price: float | None = None
    value_time: datetime | None = None
    source: Source = Source.STREAM
    value_source: ValueOrigin = ValueOrigin.NONE
    market_data_type: int | None = None
    gateway_id: str = ""
    trading_mode: TradingMode | None = None
    request_id: str | None = None
    session_id: str | None = None
    fencing_token: int | None = None
    run_id: str | None = None
    batch_id: str = ""
    update_id: str = ""
    greeks_time: datetime | None = None
    trading_class: str | None = None
    local_symbol: str | None = None
    note: str | None = None
    greeks_source: GreeksSource | None = None
    greeks_method: str | None = None
    volatility_time: datetime | None = None


class OwnUpdates(tuple[PositionUpdate, ...]):
    """Updates that this package made: each field has the type of its column already."""

    __slots__ = ()


@runtime_checkable
class PositionUpdateHandler(Protocol):
    """An object that receives each streamed update.

    A handler that also has `async on_position_updates(updates)` receives each flush as one call.
    """

    async def on_position_update(self, update: PositionUpdate) -> None:
        """Receive one update."""
        ...


# (account, conid): the key of a holding.
Key = tuple[str, int]

_KEYS: dict[Key, Key] = {}

_T = TypeVar("_T")
_K = TypeVar("_K")


def grouped(by: Callable[[_T], _K], values: Iterable[_T]) -> defaultdict[_K, list[_T]]:
    """Return values by what a function makes of them, such as the key of a holding, in order."""
    found: defaultdict[_K, list[_T]] = defaultdict(list)
    for value in values:
        found[by(value)].append(value)
    return found


def key_of(account: str, conid: int) -> Key:
    """Return the key of a holding, always the same object, which saves memory in a large book.

    >>> key_of("DU1", 7) is key_of("DU1", 7)
    True
    """
    known = _KEYS.get((account, conid))
    if known is None:
        known = (intern(account), conid)
        _KEYS[known] = known
    return known


class Completeness(StrEnum):
    """How much of an account the last download covered.

    COMPLETE: positions and portfolio values ended with the broker's own end messages.
    PARTIAL: positions ended, portfolio values did not. UNKNOWN: neither can be trusted,
    or the login does not manage the account.
    """

    COMPLETE = "COMPLETE"
    PARTIAL = "PARTIAL"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldingGreeks:
    """Computed greeks of an option for which the gateway sends none; named as the columns.

    Amounts are in the major unit of the currency, `underlying_price` as quoted for the option.
    `greeks_time` is None if the price of the underlying came outside its session.
    """

    implied_vol: float
    delta: float
    gamma: float
    vega: float
    theta: float
    underlying_price: float
    greeks_time: datetime | None
    greeks_method: str
    volatility_time: datetime
    greeks_source: GreeksSource = GreeksSource.MODEL

    @property
    def columns(self) -> dict[str, Any]:
        """The values by the names of their columns."""
        return {name: getattr(self, name) for name in GREEKS_COLUMNS}


GREEKS_COLUMNS = tuple(field.name for field in fields(HoldingGreeks))


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerPosition:
    """One holding as the broker last reported it; a position of 0.0 is an explicit close.

    Attributes:
        market_price: The broker's price of the position, of PNL_SINGLE its value for one unit.
            Unit: as the broker sends.
        market_value: The broker's value of the position; null until it sends one. Unit: `currency`.
        unrealized_pnl: The broker's unrealized profit and loss. Unit: `currency`.
        value_source: PORTFOLIO, PNL_SINGLE (a subscription per position, about a second old), or
            NONE before the broker sent a value.
        value_time: The time that the broker gives the values; null where it is not certain.
        received_at: When this row last changed here; of a PNL_SINGLE value, when its newest message
            came.
        position_time: When position last changed here; of a closed row, when it closed.
        snapshot_id: The account download that the row belongs to.
        completeness: How much of the account that download covered: COMPLETE, PARTIAL or UNKNOWN.
        confirmed_at: Until when the broker is known to have confirmed these values: by the end of a
            download of the account, a row or a time of its open subscription, or a value of this
            holding. It says nothing of the age of a PNL_SINGLE value, which messages of its own
            subscription alone confirm.
        followed: Whether messages of the holding's profit subscription (PnLSingle) arrive: each
            confirms the value until it moves.
        greeks: Computed from the value; None where it is streamed, is no option, or has none.
    """

    gateway_id: str
    account: str
    instrument: Instrument
    position: float
    average_cost: float | None = None
    market_price: float | None = None
    market_value: float | None = None
    unrealized_pnl: float | None = None
    realized_pnl: float | None = None
    daily_pnl: float | None = None
    value_time: datetime | None = None
    received_at: datetime
    position_time: datetime
    snapshot_id: str
    value_source: ValueOrigin = ValueOrigin.NONE
    completeness: Completeness = Completeness.UNKNOWN
    confirmed_at: datetime | None = None
    followed: bool = False
    greeks: HoldingGreeks | None = None

    @property
    def key(self) -> Key:
        """The holding's (account, conid)."""
        return key_of(self.account, self.instrument.conid)


_FIELDS = tuple(BrokerPosition.__dataclass_fields__)
_fields = attrgetter(*_FIELDS)
_without_times = attrgetter(*sorted({*_FIELDS} - {"received_at", "value_time", "confirmed_at"}))


def changed(holding: BrokerPosition, **changes: Any) -> BrokerPosition:
    """Return a copy with changes; thousands a second, so it is faster than `replace`."""
    return BrokerPosition(**(dict(zip(_FIELDS, _fields(holding), strict=True)) | changes))


class AccountConfirmation(NamedTuple):
    """Until when the broker has confirmed the holdings of an account.

    Attributes:
        confirmed_at: Until when the account feed confirmed every holding.
        followed_until: Until when PnLSingle subscriptions confirmed every followed holding.
        completeness: How much of the account the broker has sent.
    """

    confirmed_at: datetime | None
    followed_until: datetime | None = None
    completeness: Completeness = Completeness.UNKNOWN


def has_moved(before: BrokerPosition, now: BrokerPosition, *, part: float, amount: float) -> bool:
    """Return whether the values of a holding moved so far that it needs a new row.

    They moved when the value or the daily profit changed by `part` of the value and by `amount`,
    when the unrealized profit changed its sign and the value changed by `part`, when one became
    known or unknown, or when the price is in another unit, as after the contract's details came.

    Args:
        before: The holding when its last row was requested.
        now: The holding with its newest values.
        part: The smallest move, as a part of the value.
        amount: The smallest move, in the currency.
    """
    value = before.market_value
    if value is None or now.market_value is None:
        return value != now.market_value
    by, least = abs(now.market_value - value), max(part * abs(value), amount)
    if by >= least or _is_known(before) != _is_known(now) or _other_unit(before, now):
        return True
    daily = (before.daily_pnl, now.daily_pnl)
    if daily[0] is not None and daily[1] is not None and abs(daily[1] - daily[0]) >= least:
        return True
    return _is_loss(before) != _is_loss(now) and by >= part * abs(value)


def is_repeated(before: BrokerPosition, now: BrokerPosition) -> bool:
    """Return whether a holding is the same as before; times do not count if it is followed."""
    if not before.followed or not now.followed:
        return before == now
    return _without_times(before) == _without_times(now)


def _is_known(holding: BrokerPosition) -> tuple[bool, ...]:
    return tuple(
        value is not None
        for value in (holding.market_price, holding.daily_pnl, holding.unrealized_pnl)
    )


def _other_unit(before: BrokerPosition, now: BrokerPosition) -> bool:
    """Return whether the prices of one quantity are in different units, as cents and dollars."""
    prices = (before.market_price or 0.0) * (now.market_value or 0.0)
    others = (now.market_price or 0.0) * (before.market_value or 0.0)
    ratio = abs(prices / others) if prices and others else 1.0
    return before.position == now.position and not 0.1 < ratio < 10.0


def _is_loss(holding: BrokerPosition) -> bool:
    return holding.unrealized_pnl is not None and holding.unrealized_pnl < 0


class AccountSource(StrEnum):
    """Where a row of `account_values` came from: the gateway, or a Flex statement of the broker."""

    GATEWAY = "GATEWAY"
    FLEX = "FLEX"


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountSummary:
    """The net liquidation, cash and profits of one account, in its base currency.

    None is unknown, zero is zero. This class is the one definition of the table's columns.

    Attributes:
        row_id: Unique id of the row; ids sort by timestamp.
        account: Account id.
        currency: Base currency of the account, in which all amounts are; null until the broker
            named it with the net liquidation.
        net_liquidation: What the account would be worth if all of it was sold now (tag
            NetLiquidation). Unit: `currency`.
        cash: Cash of all currencies (tag TotalCashValue). Unit: `currency`.
        available_funds: Funds that are free for new positions (tag AvailableFunds). Unit:
            `currency`.
        maintenance_margin: Margin to keep the positions (tag MaintMarginReq). Unit: `currency`.
        excess_liquidity: What can be lost until positions are liquidated (tag ExcessLiquidity).
            Unit: `currency`.
        initial_margin: Margin to open the positions (tag InitMarginReq). Unit: `currency`.
        daily_pnl: Profit and loss of the day, as the broker reports it. Unit: `currency`.
        unrealized_pnl: Unrealized profit and loss, as the broker reports it. Unit: `currency`.
        realized_pnl: Realized profit and loss of the day. Unit: `currency`.
        timestamp: When the row was made; of a statement, the time for which it holds (UTC).
        values_received_at: When the newest of net_liquidation, cash, the funds and the margins was
            received: their age counts from here (UTC).
        pnl_received_at: When the profits and losses were received: their age counts from here
            (UTC).
        exchange_rates: JSON: currency → what one unit of it is worth in the base currency (tag
            ExchangeRate); null until the broker sent one. Unit: `currency`.
        rates_received_at: When the oldest of exchange_rates was received: their age counts from
            here (UTC).
        source: GATEWAY, or FLEX for a row of one of the broker's statements.
        gateway_id: The login, as in gateway_sessions; null for a statement.
        trading_mode: LIVE, PAPER or SIMULATED.
        session_id: The session of gateway_sessions that wrote the row.
        fencing_token: The fencing token of that session; rows of an older one are refused.
        run_id: The Dagster run that wrote the row.
    """

    row_id: str = ""
    account: str
    currency: str | None = None
    net_liquidation: float | None = None
    cash: float | None = None
    available_funds: float | None = None
    maintenance_margin: float | None = None
    daily_pnl: float | None = None
    unrealized_pnl: float | None = None
    realized_pnl: float | None = None
    timestamp: datetime
    values_received_at: datetime | None = None
    pnl_received_at: datetime | None = None
    exchange_rates: str | None = None
    rates_received_at: datetime | None = None
    source: AccountSource = AccountSource.GATEWAY
    gateway_id: str | None = None
    trading_mode: str | None = None
    session_id: str | None = None
    fencing_token: int | None = None
    run_id: str | None = None
    excess_liquidity: float | None = None
    initial_margin: float | None = None

    @property
    def cushion(self) -> float | None:
        """The part of the net liquidation that is excess liquidity, as IB's tag Cushion.

        >>> from datetime import UTC
        >>> at = datetime(2027, 1, 4, tzinfo=UTC)
        >>> values = dict(net_liquidation=200.0, excess_liquidity=50.0)
        >>> AccountSummary(account="U1", timestamp=at, **values).cushion
        0.25
        """
        if self.excess_liquidity is None or not self.net_liquidation:
            return None
        return self.excess_liquidity / self.net_liquidation

    @property
    def amounts(self) -> tuple[str | float | None, ...]:
        """Return currency, rates and amounts in whole cents; a row is due only when they change.

        >>> from datetime import UTC
        >>> at = datetime(2027, 1, 4, tzinfo=UTC)
        >>> AccountSummary(account="U1", cash=1.001, timestamp=at).amounts[3]
        1.0
        """
        money = (
            self.net_liquidation, self.cash, self.available_funds, self.maintenance_margin,
            self.daily_pnl, self.unrealized_pnl, self.realized_pnl,
            self.excess_liquidity, self.initial_margin,
        )  # fmt: skip
        cents = (None if amount is None else round(amount, 2) for amount in money)
        return (self.currency, self.exchange_rates, *cents)

    @property
    def rates(self) -> dict[str, float]:
        """Return what a unit of each currency is worth in the base currency; empty if unknown.

        >>> from datetime import UTC
        >>> at = datetime(2027, 1, 4, tzinfo=UTC)
        >>> values = AccountSummary(
        ...     account="U1", timestamp=at, currency="EUR", exchange_rates='{"USD": 0.8}'
        ... )
        >>> values.rates
        {'USD': 0.8, 'EUR': 1.0}
        """
        if self.currency is None:
            return {}
        sent: dict[str, float] = json.loads(self.exchange_rates or "{}")
        return sent | {self.currency: 1.0}

    @property
    def is_known(self) -> bool:
        """Return whether the broker has sent any of the amounts."""
        return any(amount is not None for amount in self.amounts[2:])
