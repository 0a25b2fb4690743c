"""A holding as the broker reports it, and how much of its account the broker has confirmed."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from operator import attrgetter
from typing import NamedTuple, TypeVar

from position_sync_dagster.domain.instrument import Instrument
from position_sync_dagster.domain.position_update import GreeksSource, ValueOrigin

# (account, conid): the key of a holding, and its columns in the tables.
Key = tuple[str, int]
KEY = ("account", "conid")

# Quantities below this are the rounding of sums; cryptocurrencies have eight digits.
QUANTITY_ROUNDING = 1e-9

_T = TypeVar("_T")
_K = TypeVar("_K")


def grouped(by: Callable[[_T], _K], values: Iterable[_T]) -> defaultdict[_K, list[_T]]:
    """Return values by what a function makes of them, such as the key of a holding, in order."""
    groups = defaultdict(list)
    for value in values:
        groups[by(value)].append(value)
    return groups


class Completeness(StrEnum):
    """How much of an account the last download covered.

    COMPLETE: positions and portfolio values ended with the broker's own end messages, and each row
    can be used. PARTIAL: positions ended; portfolio values did not, or a row cannot be used.
    UNKNOWN: neither can be trusted, or the login does not manage the account.
    """

    COMPLETE = "COMPLETE"
    PARTIAL = "PARTIAL"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldingGreeks:
    """Computed greeks of an option for which the gateway sends none; named as the columns.

    Amounts are in the major unit of the currency, `underlying_price` as quoted for the option.
    `greeks_time` is None if the price of the underlying came outside its session. `implied_vol` is
    None of an option that is worth its exercise: its value shows no volatility.
    """

    implied_vol: float | None
    delta: float
    gamma: float
    vega: float
    theta: float
    underlying_price: float
    greeks_time: datetime | None
    greeks_method: str
    volatility_time: datetime
    greeks_source: GreeksSource = GreeksSource.MODEL


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
        snapshot_id: The newest list of positions that was requested before the row came.
        completeness: How much of the account the last download covered: COMPLETE, PARTIAL or
            UNKNOWN.
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
        return self.account, self.instrument.conid

    @property
    def valued_at(self) -> datetime | None:
        """When its value was true at the broker; None where that is not known.

        A value of PnLSingle comes without a time, about a second after it was true.
        """
        if self.value_source is ValueOrigin.PNL_SINGLE:
            return self.received_at
        return self.value_time


Holdings = dict[Key, BrokerPosition]

_TIMES = ("received_at", "value_time", "confirmed_at")
_without_times = attrgetter(
    *(field.name for field in fields(BrokerPosition) if field.name not in _TIMES)
)


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
    by = abs(now.market_value - value)
    daily_by = abs((now.daily_pnl or 0.0) - (before.daily_pnl or 0.0))
    if max(by, daily_by) >= max(part * abs(value), amount):
        return True
    if _known_parts(before) != _known_parts(now) or _other_unit(before, now):
        return True
    return _is_loss(before) != _is_loss(now) and by >= part * abs(value)


def is_repeated(before: BrokerPosition, now: BrokerPosition) -> bool:
    """Return whether a holding is the same as it was published.

    Of one that is followed, times do not count: each message confirms it, and they are stored once
    for the account (`AccountConfirmation.followed_until`).
    """
    if not before.followed or not now.followed:
        return before == now
    return _without_times(before) == _without_times(now)


def _known_parts(holding: BrokerPosition) -> tuple[bool, ...]:
    """Return whether its price, its daily profit and its unrealized profit are known, in turn."""
    has_price = holding.market_price is not None
    return has_price, holding.daily_pnl is not None, (holding.unrealized_pnl is not None)


def _other_unit(before: BrokerPosition, now: BrokerPosition) -> bool:
    """Return whether the prices of one quantity are in different units, as cents and dollars."""
    prices = (before.market_price or 0.0) * (now.market_value or 0.0)
    others = (now.market_price or 0.0) * (before.market_value or 0.0)
    # 1 in one unit, and 100 or 0.01 in two, whatever the quantity and the move of the price.
    ratio = abs(prices / others) if prices and others else 1.0
    return before.position == now.position and not 0.1 < ratio < 10.0


def _is_loss(holding: BrokerPosition) -> bool:
    return (holding.unrealized_pnl or 0.0) < 0
