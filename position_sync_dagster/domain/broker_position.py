"""A holding, and the value of an account, as the broker last reported them."""

import json
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from operator import attrgetter
from sys import intern
from typing import Any, NamedTuple

from position_sync_dagster.domain.instrument import Instrument
from position_sync_dagster.domain.update import GreeksSource, ValueOrigin

# (account, conid): the key of a holding.
Key = tuple[str, int]

_KEYS: dict[Key, Key] = {}


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
    """

    confirmed_at: datetime | None
    followed_until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeastMove:
    """The smallest move of a value that is published: a part of it, and an amount of its currency.

    >>> least = LeastMove(part=0.01, amount=25.0)
    >>> [least.is_move(by, 5_000.0) for by in (40.0, 60.0)], least.is_move(10.0, 300.0)
    ([False, True], False)
    """

    part: float
    amount: float

    def is_move(self, by: float, value: float) -> bool:
        """Return whether a change is at least `part` of this value, and at least `amount`."""
        return abs(by) >= max(self.part * abs(value), self.amount)


def has_moved(before: BrokerPosition, now: BrokerPosition, least: LeastMove) -> bool:
    """Return whether the values of a holding moved so far that it needs a new row.

    They moved when the value or the daily profit changed by `least`, when the unrealized profit
    changed its sign and the value changed by `least.part`, when one became known or unknown, or
    when the price is in another unit, as after the contract's details came.

    Args:
        before: The holding when its last row was requested.
        now: The holding with its newest values.
        least: The smallest move.
    """
    value = before.market_value
    if value is None or now.market_value is None:
        return value != now.market_value
    by = now.market_value - value
    if least.is_move(by, value) or _is_known(before) != _is_known(now) or _other_unit(before, now):
        return True
    daily = (before.daily_pnl, now.daily_pnl)
    if daily[0] is not None and daily[1] is not None and least.is_move(daily[1] - daily[0], value):
        return True
    return _is_loss(before) != _is_loss(now) and abs(by) >= least.part * abs(value)


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
